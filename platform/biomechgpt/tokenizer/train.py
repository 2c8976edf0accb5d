"""Trains the motion tokenizer on a cohort's training participants and measures it on held-out ones."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from safetensors.torch import save_file
from torch import Tensor, nn

from biomechgpt import artifact, storage
from biomechgpt.artifact import Artifact
from biomechgpt.cohort import read_table
from biomechgpt.settings import InputError, Settings
from biomechgpt.skeleton import N_JOINTS, NAMES, TRACKED
from biomechgpt.tokenizer.encode import MotionTokenizer
from biomechgpt.tokenizer.model import LossSettings, MotionVQVAE, NetworkSettings, perplexity
from biomechgpt.training import Trainee, TrainingSettings, fit

VERSION = 1
COLUMNS = ["split", "n_frames", "angles_rad", "joint_mask"]


class TokenizerSteps(TrainingSettings):
    """T2M-GPT's: a constant rate."""

    schedule: Literal["constant", "cosine"] = "constant"
    checkpoint_every: int = Field(1000, ge=1, exclude=True)


class TokenizerSettings(Settings):
    """batch_size: windows a step over all workers; window: frames of each."""

    network: NetworkSettings = NetworkSettings()
    loss: LossSettings = LossSettings()
    window: int = Field(64, ge=8)
    batch_size: int = Field(256, ge=1)
    steps: int = Field(20_000, ge=1)
    training: TokenizerSteps = TokenizerSteps()

    @model_validator(mode="after")
    def _fits(self) -> "TokenizerSettings":
        if self.window % self.network.downsampling:
            raise ValueError(f"window: expected a multiple of the downsampling, {self.network.downsampling}")
        fewest, most = self.training.workers_range
        if any(self.batch_size % workers for workers in range(fewest, most + 1)):
            raise ValueError("batch_size: expected a multiple of each number that training.workers may be")
        if self.training.precision == "bf16":
            raise ValueError("training.precision: the codebook's moving averages need fp32, or mixed")
        return self


class _Tokenizer(Trainee):
    """Samples are the frames that a window may start at, counted over all training trials."""

    def __init__(self, cohort: str, settings: dict[str, Any]) -> None:
        self.settings = TokenizerSettings.model_validate(settings)
        self.cohort = artifact.load(cohort)
        rows = [row for row in read_table(self.cohort, COLUMNS).to_pylist() if row["split"] == "train"]
        if not rows:
            raise InputError(f"{cohort}: no training trials")
        trials = [prepare(row) for row in rows]
        self.angles = torch.from_numpy(np.concatenate([angles for angles, _ in trials]))
        self.joints = torch.from_numpy(np.stack([joints for _, joints in trials]))
        self.ends = np.cumsum([len(angles) for angles, _ in trials])

    def model(self) -> nn.Module:
        settings = self.settings
        self.network = MotionVQVAE(settings.network, settings.loss, settings.training.seed)
        # Joints that hardly move keep their size: noise is not to be blown up to a whole movement.
        spread = self.angles.std(0).clamp(min=np.radians(1.0))
        self.network.mean.copy_(self.angles.mean(0))
        self.network.scale.copy_(torch.where(torch.from_numpy(TRACKED), spread, torch.ones(N_JOINTS)))
        return self.network

    def plan(self) -> list[list[int]]:
        lengths = np.diff(self.ends, prepend=0)
        # Every window once; a trial shorter than a window starts at its first frame, the rest is padding.
        starts = np.concatenate(
            [
                end - n + np.arange(max(n - self.settings.window + 1, 1))
                for end, n in zip(self.ends, lengths, strict=True)
            ]
        )
        rng = np.random.default_rng(self.settings.training.seed)
        return starts[
            rng.integers(len(starts), size=(self.settings.steps, self.settings.batch_size))
        ].tolist()

    def collate(self, samples: list[int]) -> dict[str, Tensor]:
        start = np.asarray(samples)
        trial = np.searchsorted(self.ends, start, side="right")
        frames = start[:, None] + np.arange(self.settings.window)
        inside = frames < self.ends[trial][:, None]
        frames = np.minimum(frames, self.ends[trial][:, None] - 1)
        return {
            "angles": self.angles[torch.from_numpy(frames)],
            "joints": self.joints[torch.from_numpy(trial)],
            "frames": torch.from_numpy(inside.astype(np.float32)),
        }

    def watch(self) -> dict[str, float]:
        """How evenly codes are in use, by their moving averages; a quantizer without them has nothing to tell."""
        counts = [values for name, values in self.network.named_buffers() if name.split(".")[-1] == "count"]
        if not counts:
            return {}
        count = torch.cat(counts).double()
        share = count / count.sum()
        # A code that fell out of use starts again as if it had been seen once a step.
        used = int((count > 1).sum())
        perplexity = float(torch.special.entr(share).sum().exp())
        return {"perplexity": round(perplexity, 1), "codes_used": used}

    def finish(self, model: nn.Module) -> dict[str, Any]:
        info = {
            "network": self.settings.network.model_dump(mode="json"),
            "joints": list(NAMES),
            "frame_rate_hz": self.cohort.read_json("cohort.json")["frame_rate_hz"],
        }
        with TemporaryDirectory() as folder:
            weights = {k: v.detach().contiguous().cpu() for k, v in self.network.state_dict().items()}
            save_file(weights, str(Path(folder) / "model.safetensors"))
            (Path(folder) / "tokenizer.json").write_text(json.dumps(info, indent=2))
            storage.upload(folder, self.uri)
        return held_out(MotionTokenizer(self.network, info["frame_rate_hz"]), self.cohort)


def prepare(row: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """A cohort's row as (T, 34) radians, untracked joints zeroed, and (34,), 1 where recorded; float32."""
    angles = np.asarray(row["angles_rad"], dtype=np.float32).reshape(row["n_frames"], N_JOINTS)
    joints = (np.asarray(row["joint_mask"], dtype=bool) & TRACKED).astype(np.float32)
    return angles * joints, joints


def held_out(tokenizer: MotionTokenizer, cohort: Artifact) -> dict[str, Any]:
    """Figures over the test participants' whole trials: RMSE in degrees (mean over joints, and by joint),
    perplexity, codes used. The eight untracked joints are zero in and compared with zero."""
    trials = [prepare(row) for row in read_table(cohort, COLUMNS).to_pylist() if row["split"] == "test"]
    if not trials:
        raise InputError(f"{cohort.uri}: no test trials to measure a tokenizer on")
    codes = tokenizer.encode([angles for angles, _ in trials])
    made = tokenizer.decode(codes)
    squared, frames = np.zeros(N_JOINTS), np.zeros(N_JOINTS)
    for (angles, joints), out in zip(trials, made, strict=True):
        counted = np.where(TRACKED, joints, 1.0)
        squared += ((out[: len(angles)] - angles) ** 2).sum(0) * counted
        frames += len(angles) * counted
    rmse = np.degrees(np.sqrt(squared / np.maximum(frames, 1)))
    seen = TRACKED & (frames > 0)
    every = np.concatenate(codes)
    size = tokenizer.network.settings.codes
    return {
        "rmse_deg_tracked": round(float(rmse[seen].mean()), 3),
        "rmse_deg_all": round(float(rmse.mean()), 3),
        "perplexity": round(perplexity(every, size), 1),
        "codes": size,
        "codes_used": len(np.unique(every)),
        "held_out_trials": len(trials),
        "rmse_deg_by_joint": {name: round(float(rmse[i]), 3) for i, name in enumerate(NAMES) if seen[i]},
    }


def make_tokenizer(cohort: Artifact, settings: TokenizerSettings, root: str) -> Artifact:
    """The tokenizer artifact: `model.safetensors` and `tokenizer.json`."""

    def build(uri: str) -> dict[str, Any]:
        arguments = {"cohort": cohort.uri, "settings": settings.model_dump()}
        return fit(_Tokenizer, arguments, settings.training, uri, "tokenizer")

    return artifact.make("tokenizer", VERSION, settings, {"cohort": cohort}, build, root)
