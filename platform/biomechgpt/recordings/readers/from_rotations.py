"""A recording from rotations of segments: what all readers of such files share."""

import numpy as np

from biomechgpt.recordings.readers.recording import ReaderSettings, Recording, absent, check_time
from biomechgpt.recordings.rotations import Orientations, convert


def recording_of(
    name: str,
    orientations: Orientations,
    time_s: np.ndarray,
    settings: ReaderSettings,
    *,
    format: str,
    rate_hz: float,
    notes: tuple[str, ...] = (),
) -> Recording:
    """The recording of a person's segments at times (T,). Joints between segments that are not there are absent.

    name: the file, in messages. format: its format, for people. rate_hz: the frame rate that it states.
    notes: what was recognized. Raises InputError for times or orientations that are those of no person.
    """
    check_time(name, time_s, settings, lambda i: f"frame {i}", format)
    converted = convert(name, orientations)
    return Recording(
        time_s=time_s,
        angles_rad=converted.angles_rad,
        pelvis=converted.pelvis,
        joint_mask=converted.joint_mask,
        knee_flexion="negative",
        format=format,
        declared_rate_hz=rate_hz,
        notes=(converted.up, *notes),
        lacking=absent(name, converted.joint_mask, settings),
    )
