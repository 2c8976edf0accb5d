"""Trains the motion tokenizer on a cohort's training participants and measures it on held-out ones."""

from typing import Any, Literal

import numpy as np
import pyarrow.compute as pc
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from biomechgpt.cohort import Cohort
from biomechgpt.core import artifact
from biomechgpt.core.artifact import Artifact
from biomechgpt.core.settings import InputError, Settings
from biomechgpt.core.training import TrainingTask, fit
from biomechgpt.core.training_settings import TrainingSettings
from biomechgpt.motion.skeleton import N_JOINTS, NAMES, PARTS, TRACKED
from biomechgpt.tokenizer.motion_tokenizer import MotionTokenizer
from biomechgpt.tokenizer.network import LossSettings, MotionVQVAE, NetworkSettings, perplexity

VERSION = 2
LEGS = np.isin(np.arange(N_JOINTS), PARTS["legs"])
BY = ("activity", "diagnosis")
"""Annotations by whose values the error is told, where the cohort has them."""


def _hideable() -> np.ndarray:
    """(sets, 34) bool: nothing; all but the legs; arms; trunk; right arm; left arm; each joint by itself."""
    right, left = (np.array([name.endswith(side) for name in NAMES]) for side in ("_r", "_l"))
    arms, trunk = (np.isin(np.arange(N_JOINTS), PARTS[part]) for part in ("arms", "trunk"))
    return np.stack(
        [
            np.zeros(N_JOINTS, dtype=bool),
            ~LEGS,
            arms,
            trunk,
            arms & right,
            arms & left,
            *np.eye(N_JOINTS, dtype=bool),
        ]
    )


HIDEABLE = _hideable()
SINGLE = len(HIDEABLE) - N_JOINTS
"""Where in `HIDEABLE` the single joints begin."""


class TokenizerSteps(TrainingSettings):
    """T2M-GPT's: a constant rate."""

    schedule: Literal["constant", "cosine"] = "constant"
    checkpoint_every: int = Field(1000, ge=1, exclude=True)


class TokenizerSettings(Settings):
    """batch_size: windows a step over all workers; window: frames of each.

    hide_joints: share of windows that are seen without some joints, so that recordings of another skeleton, the
    legs alone for example, get tokens of the same vocabulary.
    """

    network: NetworkSettings = NetworkSettings()
    loss: LossSettings = LossSettings()
    window: int = Field(64, ge=8)
    batch_size: int = Field(256, ge=1)
    hide_joints: float = Field(0.0, ge=0, le=1)
    steps: int = Field(20_000, ge=1)
    training: TokenizerSteps = TokenizerSteps()

    @model_validator(mode="after")
    def _fits(self) -> "TokenizerSettings":
        if self.window % self.network.downsampling:
            raise ValueError(f"window: expected a multiple of the downsampling, {self.network.downsampling}")
        if self.batch_size < self.training.workers_range[1]:
            raise ValueError("batch_size: expected at least training.workers")
        if self.training.precision == "bf16":
            raise ValueError("training.precision: the codebook's moving averages need fp32, or mixed")
        return self


class _TokenizerTask(TrainingTask):
    """Samples are the frames that a window may start at, counted over all training trials, times what may be
    hidden in it: which joints are is part of the plan, so it depends on neither workers nor interruptions."""

    def __init__(self, cohort: str, settings: dict[str, Any], start: str | None = None) -> None:
        self.settings = TokenizerSettings.model_validate(settings)
        self.cohort, self.start = artifact.load(cohort), start
        movements, masks, _ = read_trials(self.cohort, "train")
        self.angles = torch.from_numpy(np.concatenate(movements))
        self.joints = torch.from_numpy(masks)
        self.ends = np.cumsum([len(angles) for angles in movements])

    def build_model(self) -> nn.Module:
        settings = self.settings
        if self.start:
            self.network = MotionTokenizer.load(self.start).network.train()
            self.network.loss = settings.loss
            return self.network
        self.network = MotionVQVAE(settings.network, settings.loss, settings.training.seed)
        lengths = torch.from_numpy(np.diff(self.ends, prepend=0))
        count = (self.joints.double() * lengths[:, None]).sum(0).clamp(min=1)

        def mean_of(power: int) -> Tensor:
            sums = torch.stack([x.double().pow(power).sum(0) for x in self.angles.split(lengths.tolist())])
            return (sums * self.joints).sum(0) / count

        mean = mean_of(1)
        spread = (mean_of(2) - mean.square()).clamp(min=0).sqrt()
        self.network.mean.copy_(mean)
        # Joints that hardly move keep their size: noise is not to be blown up to a whole movement.
        self.network.scale.copy_(spread.clamp(min=np.radians(1.0)))
        return self.network

    def batches(self) -> list[list[int]]:
        lengths = np.diff(self.ends, prepend=0)
        # Every window once; a trial shorter than a window starts at its first frame, the rest is padding.
        starts = np.concatenate(
            [
                end - n + np.arange(max(n - self.settings.window + 1, 1))
                for end, n in zip(self.ends, lengths, strict=True)
            ]
        )
        rng = np.random.default_rng(self.settings.training.seed)
        shape = (self.settings.steps, self.settings.batch_size)
        chosen = starts[rng.integers(len(starts), size=shape)]
        # A set of joints, or as often as each of those, a joint by itself.
        hidden = rng.integers(1, SINGLE + 1, size=shape)
        hidden = np.where(hidden < SINGLE, hidden, rng.integers(SINGLE, len(HIDEABLE), size=shape))
        hidden[rng.random(shape) >= self.settings.hide_joints] = 0
        return (chosen * len(HIDEABLE) + hidden).tolist()

    def collate(self, samples: list[int]) -> dict[str, Tensor]:
        start, hidden = np.divmod(samples, len(HIDEABLE))
        trial = np.searchsorted(self.ends, start, side="right")
        frames = start[:, None] + np.arange(self.settings.window)
        inside = frames < self.ends[trial][:, None]
        frames = np.minimum(frames, self.ends[trial][:, None] - 1)
        batch = {
            "angles": self.angles[torch.from_numpy(frames)],
            "joints": self.joints[torch.from_numpy(trial)] * torch.from_numpy(~HIDEABLE[hidden]),
        }
        return batch if inside.all() else {**batch, "frames": torch.from_numpy(inside.astype(np.float32))}

    def log_metrics(self) -> dict[str, float]:
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

    def export(self, model: nn.Module) -> dict[str, Any]:
        tokenizer = MotionTokenizer(self.network, Cohort(self.cohort).info.frame_rate_hz)
        tokenizer.save(self.uri)
        return held_out(tokenizer, self.cohort)


def read_trials(cohort: Artifact, split: str) -> tuple[list[np.ndarray], np.ndarray, dict[str, list[Any]]]:
    """Movements (T, 34) radians, masks (trials, 34), 1 where a joint was recorded, both float32, and the values of
    `BY`. Raises InputError where a split has no trials."""
    opened = Cohort(cohort)
    by = [name for name in BY if name in opened.info.annotations]
    table = opened.table(["split", "angles_rad", "joint_mask", *by])
    table = table.filter(pc.equal(table["split"], split))
    if not table.num_rows:
        raise InputError(f"{cohort.uri}: no {split} trials")
    movements = [row.values.to_numpy().reshape(-1, N_JOINTS) for row in table["angles_rad"]]
    masks = np.array(table["joint_mask"].to_pylist(), dtype=np.float32)
    return movements, masks, {name: table[name].to_pylist() for name in by}


def held_out(tokenizer: MotionTokenizer, cohort: Artifact) -> dict[str, Any]:
    """Figures over the test participants' whole trials: RMSE in degrees (mean over the 26 tracked joints, over all
    34, by joint, by activity and diagnosis), perplexity, codes used, tokens and bits a second.

    A joint that the tokenizer does not see has all its movement for error. `rmse_deg_legs` is the tracked joints of
    the legs, `rmse_deg_legs_alone` the same where nothing but the legs is given.
    """
    movements, masks, labels = read_trials(cohort, "test")
    tokens = tokenizer.encode(movements, masks)
    squared = squared_errors(tokenizer, movements, tokens)
    alone = squared_errors(tokenizer, movements, tokenizer.encode(movements, masks * LEGS))
    frames = np.array([len(movement) for movement in movements])[:, None] * masks

    def rmse(error: np.ndarray, rows: Any = slice(None)) -> np.ndarray:
        """(34,) degrees, NaN where nobody has the joint."""
        total = frames[rows].sum(0)
        mean = np.full(N_JOINTS, np.nan)
        np.divide((error[rows] * masks[rows]).sum(0), total, out=mean, where=total > 0)
        return np.degrees(np.sqrt(mean))

    def figure(by_joint: np.ndarray, joints: np.ndarray) -> float | None:
        there = by_joint[joints & ~np.isnan(by_joint)]
        return round(float(there.mean()), 3) if len(there) else None

    def by(values: list[Any]) -> dict[str, float | None]:
        groups = {
            value: [v == value for v in values] for value in sorted({v for v in values if v is not None})
        }
        return {value: figure(rmse(squared, rows), TRACKED) for value, rows in groups.items()}

    whole = rmse(squared)
    told = tokenizer.network.settings.seen & ~np.isnan(whole)
    every, size = np.concatenate(tokens), len(tokenizer.codebook)
    return {
        "rmse_deg_tracked": figure(whole, TRACKED),
        "rmse_deg_all": figure(whole, np.ones(N_JOINTS, dtype=bool)),
        "rmse_deg_legs": figure(whole, TRACKED & LEGS),
        "rmse_deg_legs_alone": figure(rmse(alone), TRACKED & LEGS),
        "perplexity": round(perplexity(every, size), 1),
        "codes": size,
        "codes_used": len(np.unique(every)),
        "tokens_per_s": round(tokenizer.tokens_per_s, 3),
        "bits_per_s": round(tokenizer.bits_per_s, 2),
        "held_out_trials": len(movements),
        "rmse_deg_by_joint": {name: round(float(whole[i]), 3) for i, name in enumerate(NAMES) if told[i]},
        **{f"rmse_deg_by_{name}": by(values) for name, values in labels.items()},
    }


def squared_errors(
    tokenizer: MotionTokenizer, movements: list[np.ndarray], tokens: list[np.ndarray]
) -> np.ndarray:
    """Each trial's squared error, summed over its frames: (trials, 34) radians squared."""
    made = tokenizer.decode(tokens)
    return np.stack([((out[: len(m)] - m) ** 2).sum(0) for m, out in zip(movements, made, strict=True)])


def make_tokenizer(
    cohort: Artifact, settings: TokenizerSettings, root: str, start: Artifact | None = None
) -> Artifact:
    """The tokenizer artifact: `model.safetensors` and `tokenizer.json`.

    start: a tokenizer to go on from, with its codebook and its scale of each joint: adaptation to another lab's
    recordings. Raises InputError where its network or frame rate is another.
    """
    if start:
        own, rate = start.read_json("tokenizer.json"), Cohort(cohort).info.frame_rate_hz
        network = settings.network.model_dump(mode="json")
        differs = {key: (own["network"].get(key), value) for key, value in network.items()}
        differs["frame_rate_hz"] = (own["frame_rate_hz"], rate)
        for key, (expected, found) in differs.items():
            if expected != found:
                raise InputError(f"{start.uri}: {key}: expected {expected}, this tokenizer's, found {found}")

    def build(uri: str) -> dict[str, Any]:
        arguments = {"cohort": cohort.uri, "settings": settings.model_dump()}
        if start:
            arguments["start"] = start.uri
        return fit(_TokenizerTask, arguments, settings.training, uri, "tokenizer")

    inputs = {"cohort": cohort, **({"start": start} if start else {})}
    return artifact.make("tokenizer", VERSION, settings, inputs, build, root)
