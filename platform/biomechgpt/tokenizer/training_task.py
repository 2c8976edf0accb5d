"""What the training loop needs to train a tokenizer: windows of the training participants' movements."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from biomechgpt.cohort.shards import Cohort
from biomechgpt.core import artifact
from biomechgpt.core.training import TrainingTask
from biomechgpt.motion.skeleton import N_JOINTS, NAMES, PARTS
from biomechgpt.tokenizer.motion_tokenizer import MotionTokenizer
from biomechgpt.tokenizer.network import MotionVQVAE
from biomechgpt.tokenizer.reconstruction import LEGS, held_out, read_trials
from biomechgpt.tokenizer.settings import TokenizerSettings


def _joint_sets() -> np.ndarray:
    """(sets, 34) bool: none; all but the legs; arms; trunk; right arm; left arm; then each joint by itself."""
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


JOINT_SETS = _joint_sets()
"""Sets of joints that joint dropout hides. Set 0 hides nothing."""
FIRST_SINGLE = len(JOINT_SETS) - N_JOINTS
"""Where in `JOINT_SETS` the single joints begin."""


class TokenizerTask(TrainingTask):
    """Trains a tokenizer on windows of movements.

    A sample number stands for a window and for the joints that are hidden in it: (first frame, counted over all
    training trials) * number of joint sets + joint set. The hidden joints are thus part of the planned batches, and
    depend on neither the workers nor on interruptions.
    """

    def __init__(self, cohort: str, settings: dict[str, Any], start: str | None = None) -> None:
        """cohort, start: URIs of the cohort and of the tokenizer to start from."""
        self.settings = TokenizerSettings.model_validate(settings)
        self.cohort, self.start = artifact.load(cohort), start
        movements, masks, values = read_trials(self.cohort, "train")
        self.recorded = np.array([provenance == "recorded" for provenance in values["provenance"]])
        self.activities = np.array([str(a) for a in values.get("activity", [None] * len(movements))])
        if self.settings.network.posture_bin_deg is not None:  # posture tokens say the mean
            movements = [angles - angles.mean(axis=0) for angles in movements]
        self.angles = torch.from_numpy(np.concatenate(movements))
        self.joints = torch.from_numpy(masks)
        # Trial i has the frames ends[i - 1] to ends[i] of `angles`.
        self.ends = np.cumsum([len(angles) for angles in movements])

    def build_model(self) -> nn.Module:
        settings = self.settings
        if self.start:
            self.network = MotionTokenizer.load(self.start).network.train()
            self.network.loss = settings.loss
            return self.network
        self.network = MotionVQVAE(settings.network, settings.loss, settings.training.seed)
        mean, deviation = self._angle_statistics()
        self.network.mean.copy_(mean)
        self.network.scale.copy_(deviation.clamp(min=np.radians(settings.smallest_scale_deg)))
        return self.network

    def _angle_statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (34,) in radians of each joint, over the trials that recorded it."""
        lengths = torch.from_numpy(np.diff(self.ends, prepend=0))
        frames = (self.joints.double() * lengths[:, None]).sum(0).clamp(min=1)

        def mean_of_power(power: int) -> Tensor:
            sums = torch.stack([x.double().pow(power).sum(0) for x in self.angles.split(lengths.tolist())])
            return (sums * self.joints).sum(0) / frames

        mean = mean_of_power(1)
        return mean, (mean_of_power(2) - mean.square()).clamp(min=0).sqrt()

    def batches(self) -> list[list[int]]:
        lengths = np.diff(self.ends, prepend=0)
        # Every window once. A trial shorter than a window starts at its first frame, and the rest is padding.
        starts = [
            end - n + np.arange(max(n - self.settings.window + 1, 1))
            for end, n in zip(self.ends, lengths, strict=True)
        ]
        rng = np.random.default_rng(self.settings.training.seed)
        shape = (self.settings.steps, self.settings.batch_size)
        first_frames = self._draw_windows(starts, shape, rng)
        # Draw one of the sets 1 to FIRST_SINGLE, where FIRST_SINGLE stands for any single joint.
        hidden = rng.integers(1, FIRST_SINGLE + 1, size=shape)
        hidden = np.where(
            hidden < FIRST_SINGLE, hidden, rng.integers(FIRST_SINGLE, len(JOINT_SETS), size=shape)
        )
        hidden[rng.random(shape) >= self.settings.joint_dropout] = 0
        samples: list[list[int]] = (first_frames * len(JOINT_SETS) + hidden).tolist()
        return samples

    def _draw_windows(
        self, starts: list[np.ndarray], shape: tuple[int, int], rng: np.random.Generator
    ) -> np.ndarray:
        """First frames (shape) of random windows. starts: those of each trial."""
        every = np.concatenate(starts)
        balance, is_mixed = self.settings.activity_balance, len(np.unique(self.recorded)) == 2
        share = self.settings.recorded_share if is_mixed else None
        if share is None and not balance:
            return np.asarray(every[rng.integers(len(every), size=shape)])
        # The weight of a trial's windows: that of its activity, then that of recorded or simulated people.
        n_windows = np.array([len(s) for s in starts], dtype=float)
        weight = np.ones(len(starts))
        for activity in np.unique(self.activities):
            mine = self.activities == activity
            weight[mine] = n_windows[mine].sum() ** -balance
        if share is not None:
            for kind, part in ((self.recorded, share), (~self.recorded, 1 - share)):
                weight[kind] *= part / (weight * n_windows)[kind].sum()
        edges = np.cumsum(np.repeat(weight, n_windows.astype(int)))
        return np.asarray(every[np.searchsorted(edges, rng.random(shape) * edges[-1], side="right")])

    def collate(self, samples: list[int]) -> dict[str, Tensor]:
        first_frames, hidden = np.divmod(samples, len(JOINT_SETS))
        trials = np.searchsorted(self.ends, first_frames, side="right")
        frames = first_frames[:, None] + np.arange(self.settings.window)
        inside = frames < self.ends[trials][:, None]
        # Beyond a trial's end its last frame is repeated, and masked.
        frames = np.minimum(frames, self.ends[trials][:, None] - 1)
        angles = self.angles[torch.from_numpy(frames)]
        if self.settings.range_change:
            middle = angles.mean(dim=1, keepdim=True)
            angles = middle + (angles - middle) * self._range_factors(samples)[:, None]
        batch = {
            "angles": angles,
            "joints": self.joints[torch.from_numpy(trials)] * torch.from_numpy(~JOINT_SETS[hidden]),
        }
        return batch if inside.all() else {**batch, "frames": torch.from_numpy(inside.astype(np.float32))}

    def _range_factors(self, samples: list[int]) -> Tensor:
        """(samples, 34): the number that multiplies the range of each joint. It depends on the sample alone."""
        seed = self.settings.training.seed
        normal = [np.random.default_rng((seed, sample)).standard_normal(N_JOINTS) for sample in samples]
        return torch.from_numpy(np.exp(self.settings.range_change * np.stack(normal)).astype(np.float32))

    def log_metrics(self) -> dict[str, float]:
        """Perplexity and number of codes in use, from the quantizer's moving averages. Empty if it has none."""
        usage = self.network.quantizer.usage()
        if usage is None:
            return {}
        fractions = usage.double() / usage.double().sum()
        # A dead code restarts as if it had been used once per step, so 1 means that it is not in use yet.
        used = int((usage > 1).sum())
        perplexity = float(torch.special.entr(fractions).sum().exp())
        return {"perplexity": round(perplexity, 1), "codes_used": used}

    def export(self, model: nn.Module) -> dict[str, Any]:
        tokenizer = MotionTokenizer(self.network, Cohort(self.cohort).info.frame_rate_hz)
        tokenizer.save(self.uri)
        return held_out(tokenizer, self.cohort)
