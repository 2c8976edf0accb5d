"""From a recording to a movement at one frame rate: checked, gaps filled, resampled."""

from pathlib import PurePosixPath

import numpy as np

from biomechgpt.motion.resampling import resample
from biomechgpt.recordings import quality, readers
from biomechgpt.recordings.quality import QualitySettings

ANNOTATIONS = "annotations.csv"
"""Name of the table in a folder of recordings that says who they are of, and what is known of them."""


def participant_by_place(name: str) -> str:
    """Who a recording is of, if no table says so: the first folder of its path, or its file's name."""
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
    return angles_rad, pelvis, repairs
