"""From a recording as it was read to a movement at the wanted frame rate: judged, repaired, resampled."""

import numpy as np

from biomechgpt.motion.resampling import resample
from biomechgpt.recordings import quality, readers
from biomechgpt.recordings.quality import QualitySettings


def prepare(
    name: str,
    recording: readers.Recording,
    settings: QualitySettings,
    rate_hz: float,
    declared_rate_hz: float | None = None,
) -> tuple[np.ndarray, np.ndarray, str | None]:
    """A recording that was judged, at `rate_hz`: angles (T, 34), pelvis (T, 7), and what was repaired.

    What a cohort takes and what a server takes: raises InputError with every problem of the recording.
    """
    whole, repaired = quality.accept(name, recording, settings, declared_rate_hz)
    angles_rad, pelvis = resample(whole.time_s, whole.angles_rad, whole.pelvis, rate_hz)
    return angles_rad, pelvis, repaired
