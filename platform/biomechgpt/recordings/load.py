"""From a recording to a movement at one frame rate: checked, gaps filled, resampled, shoulders made comparable."""

from pathlib import PurePosixPath

import numpy as np
from scipy.ndimage import median_filter

from biomechgpt.motion.resampling import resample
from biomechgpt.motion.skeleton import INDEX
from biomechgpt.recordings import quality, readers
from biomechgpt.recordings.quality import QualitySettings

ANNOTATIONS = "annotations.csv"
"""Name of the table in a folder of recordings that says who they are of, and what is known of them."""


_SHOULDERS = [[INDEX[f"{name}_{side}"] for name in ("arm_flex", "arm_add", "arm_rot")] for side in "rl"]
_ARM_AT_EASE_RAD = np.radians([45.0, -20.0, 0.0])
"""Flexion, adduction and rotation in the middle of what people do. The nearer of two sets of angles is taken."""
_SWITCH_S = 0.25
"""A shoulder keeps one set of angles for longer than this."""


def participant_by_place(name: str) -> str:
    """The participant of a recording that no table names: the first folder of its path, or its file's name."""
    path = PurePosixPath(name)
    return path.parts[0] if len(path.parts) > 1 else path.stem


def prepare(
    name: str,
    recording: readers.Recording,
    settings: QualitySettings,
    rate_hz: float,
    declared_rate_hz: float | None = None,
) -> tuple[np.ndarray, np.ndarray, str | None]:
    """A recording that passed quality control, at `rate_hz`: angles (T, 34), pelvis (T, 7), and filled gaps.

    name: the file, in messages. declared_rate_hz: the rate that an annotation states.
    Cohorts and the server both use it. Raises InputError with every problem of the recording.
    """
    # Gaps are filled first: the anti-aliasing filter would spread a missing value over its neighbours.
    filled, repairs = quality.accept(name, recording, settings, declared_rate_hz)
    angles_rad, pelvis = resample(filled.time_s, filled.angles_rad, filled.pelvis, rate_hz)
    return near_shoulders(angles_rad, filled.joint_mask, rate_hz), pelvis, repairs


def near_shoulders(angles_rad: np.ndarray, mask: np.ndarray, rate_hz: float) -> np.ndarray:
    """The movement (T, 34) in radians, each shoulder with the angles that are nearest to an arm at ease.

    Two sets of angles, (flex, add, rot) and (flex + 180, 180 - add, rot + 180), are the same orientation, and so
    are whole turns. An arm that was raised can come down as "180, 180, 180". The orientation never changes.
    mask: (34,) bool; a shoulder that was not recorded whole is left as it is.
    """
    result = angles_rad.copy()
    for columns in _SHOULDERS:
        if not mask[columns].all():
            continue
        own = angles_rad[:, columns]
        sets = np.stack([own, own * [1, -1, 1] + np.pi])
        sets -= 2 * np.pi * np.round((sets - _ARM_AT_EASE_RAD) / (2 * np.pi))
        farther = np.abs(sets - _ARM_AT_EASE_RAD).sum(axis=2)
        # Where both are about as near, noise would change the set from frame to frame.
        frames = 2 * round(_SWITCH_S * rate_hz) + 1
        other = median_filter((farther[1] < farther[0]).astype(np.uint8), size=frames, mode="nearest") > 0
        result[:, columns] = np.where(other[:, None], sets[1], sets[0])
    return result
