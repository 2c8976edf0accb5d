"""Problems of a recording, the limits that a usable one keeps, and what all checks share."""

from dataclasses import dataclass

import numpy as np
from pydantic import Field

from biomechgpt.core.settings import Settings
from biomechgpt.motion.skeleton import NAMES, TRACKED
from biomechgpt.recordings.readers import Recording

SHOULDERS = {"r": ("arm_flex_r", "arm_add_r", "arm_rot_r"), "l": ("arm_flex_l", "arm_add_l", "arm_rot_l")}
SHOULDER = np.isin(NAMES, sum(SHOULDERS.values(), ()))
SPEED_S = 1 / 30
"""Time window for speeds, so that single-frame noise at high frame rates averages out."""
UNEVEN = 1.5
"""A time step longer than 1.5 median steps means dropped frames; shorter ones are rounding."""
SWINGING_RAD = np.radians(5)
"""Smallest range or standard deviation of a joint that takes part in a movement."""


class QualitySettings(Settings):
    """Limits that a usable recording keeps. Runners and severe impairments pass the defaults."""

    min_duration_s: float = Field(0.5, gt=0)
    """Shortest recording."""
    interpolate_gaps_s: float = Field(0.0, ge=0)
    """Longest gap that is interpolated; the trial says so. 0: no gap is."""
    rate_tolerance: float = Field(0.02, gt=0)
    """Largest relative difference between a declared frame rate and that of the times."""
    spike_s: float = Field(0.05, gt=0)
    """Longest excursion that counts as a spike; a longer one is movement."""
    spike_deg: float = Field(40.0, gt=0)
    """Smallest spike of a joint of the legs, trunk or neck."""
    arm_spike_deg: float = Field(90.0, gt=0)
    """Smallest spike of a shoulder or elbow; markerless capture is often rough there."""
    range_margin_deg: float = Field(20.0, ge=0)
    """Largest angle outside the skeleton's range of the joint."""
    max_speed_deg_s: float = Field(2000.0, gt=0)
    """Highest speed of a joint of the legs, trunk or neck; walking knees reach 450."""
    max_arm_speed_deg_s: float = Field(3000.0, gt=0)
    """Highest speed of a shoulder or elbow."""
    frozen_s: float = Field(1.0, gt=0)
    """Longest time for which a moving joint may keep exactly one value."""
    min_movement_deg: float = Field(0.5, ge=0)
    """Smallest range of motion of the joint that moves most; 0 accepts a pose that never changes."""
    max_pelvis_speed_m_s: float = Field(13.0, gt=0)
    """Highest speed of the pelvis; sprinters reach 12."""
    max_stride_hz: float = Field(3.2, gt=0)
    """Most strides a second; sprinters reach 2.5."""
    max_side_correlation: float = Field(0.85, ge=0, le=1)
    """Highest correlation of leg and arm of one side in a walk with swinging arms; 1 switches the
    checks of sides off."""
    max_residual_mm: float = Field(40.0, gt=0)
    """Largest residual of inverse kinematics (RMS over markers and frames), for recordings of markers or
    keypoints."""
    max_marker_residual_mm: float = Field(100.0, gt=0)
    """Largest residual of one marker (median over frames) and of one frame (RMS over markers)."""


@dataclass(frozen=True)
class Problem:
    """One problem of a recording.

    kind: gap, too short, rate mismatch, no movement, impossible angle, spike, impossible speed, frozen, mislabelled
        side, wrong unit, wrong rate, joined trials or residual.
    text: what is wrong, where, and the setting that decides.
    joint: None if it concerns all joints.
    time_s: where it begins.
    value: the measured value, in the unit of the text.
    """

    kind: str
    text: str
    joint: str | None = None
    time_s: float | None = None
    value: float | None = None

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


def step_s(time_s: np.ndarray) -> float:
    return float(np.median(np.diff(time_s))) if len(time_s) > 1 else 0.0


def runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """(first, last) index of every run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(int)))
    return [(int(a), int(b) - 1) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def more(count: int) -> str:
    return f", and in {count - 1} more places" if count > 1 else ""


def judged(recording: Recording) -> np.ndarray:
    return np.asarray(recording.joint_mask & TRACKED)
