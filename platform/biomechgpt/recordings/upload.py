"""A recording that a stranger sent: read, checked against limits before and after it is resampled, repaired.

`biomechgpt.recordings.bounded` runs this in a process with little memory and time. Knows nothing about HTTP.
"""

from dataclasses import dataclass

import numpy as np
from pydantic import Field

from biomechgpt.core.settings import InputError, Settings
from biomechgpt.recordings import readers
from biomechgpt.recordings.load import prepare
from biomechgpt.recordings.quality import QualitySettings
from biomechgpt.recordings.readers import ReaderSettings


class TooLarge(InputError):
    """The recording is larger than the limits allow."""


class UploadSettings(Settings):
    """How an upload is read, and how large its movement may be."""

    readers: ReaderSettings = ReaderSettings()
    """How recordings are read."""
    quality: QualitySettings = QualitySettings()
    """Which recordings are refused or repaired, as in a cohort."""
    rate_hz: float = Field(gt=0)
    """Frame rate of the result."""
    max_frames: int = Field(60_000, ge=2)
    """Most frames, at the recording's own rate and at `rate_hz`."""
    max_duration_s: float = Field(600.0, gt=0)
    """Longest movement, in seconds."""
    max_rate_hz: float = Field(10_000.0, gt=0)
    """Highest frame rate of a recording; a higher one is time in another unit."""


@dataclass(frozen=True)
class Upload:
    """A movement at the wanted frame rate.

    angles_rad: (T, 34) joint angles.
    pelvis: (T, 7) position and orientation.
    joint_mask: (34,) bool, True for each recorded joint.
    knee_flexion: its sign in the file, positive or negative.
    provenance: recorded or synthetic.
    notes: what was odd about the file, and what was repaired.
    """

    angles_rad: np.ndarray
    pelvis: np.ndarray
    joint_mask: np.ndarray
    knee_flexion: str
    provenance: str
    notes: tuple[str, ...]


def read(name: str, content: bytes, settings: UploadSettings) -> Upload:
    """The movement in a file's content.

    name: the file, in messages. Raises InputError for a file that cannot be used, TooLarge for one beyond the
    limits.
    """
    recording = readers.parse(name, content, settings.readers)
    _check_before(name, recording.time_s, settings)
    angles_rad, pelvis, repairs = prepare(name, recording, settings.quality, settings.rate_hz)
    _check_after(name, angles_rad, pelvis, settings)
    return Upload(
        angles_rad=angles_rad,
        pelvis=pelvis,
        joint_mask=recording.joint_mask,
        knee_flexion=recording.knee_flexion,
        provenance=recording.provenance,
        notes=tuple(text for text in (*recording.notes, repairs) if text),
    )


def _check_before(name: str, time_s: np.ndarray, settings: UploadSettings) -> None:
    """Raise TooLarge for a recording that is too long, or that resampling would make too long."""
    frames, most = len(time_s), settings.max_frames
    if frames > most:
        raise TooLarge(f"{name}: expected at most {most} frames, found {frames}")
    duration_s, step_s = float(time_s[-1] - time_s[0]), float(np.median(np.diff(time_s)))
    # Few rows may span a long time: what is resampled is bounded too.
    resampled = duration_s * settings.rate_hz + 1
    if resampled > most:
        found = f"found {resampled:.0f} at {settings.rate_hz:g} Hz ({frames} rows)"
        raise TooLarge(f"{name}: expected at most {most} frames, {found}")
    if duration_s > settings.max_duration_s:
        raise TooLarge(
            f"{name}: expected at most {settings.max_duration_s:g} s (max_duration_s), found {duration_s:.0f} s"
        )
    if step_s * settings.max_rate_hz < 1:
        raise InputError(
            f"{name}: expected at most {settings.max_rate_hz:g} frames a second (max_rate_hz), "
            f"found {1 / step_s:.4g}: is time in another unit?"
        )
    # Uneven times are first brought to an even grid with the usual step.
    if duration_s > most * step_s:
        raise TooLarge(
            f"{name}: expected at most {most} frames, found {duration_s / step_s:.0f} with the gaps in its time"
        )


def _check_after(name: str, angles_rad: np.ndarray, pelvis: np.ndarray, settings: UploadSettings) -> None:
    """Raise TooLarge or InputError for a movement that resampling made too long, too short or infinite."""
    frames, longest_s = len(angles_rad), settings.max_duration_s
    if frames > settings.max_frames:
        raise TooLarge(f"{name}: expected at most {settings.max_frames} frames, found {frames}")
    if (frames - 1) / settings.rate_hz > longest_s:
        raise TooLarge(f"{name}: expected at most {longest_s:g} s, found {(frames - 1) / settings.rate_hz:g}")
    if frames < 2:
        raise InputError(f"{name}: expected a movement, found {frames} frame at {settings.rate_hz:g} Hz")
    if not (np.isfinite(angles_rad).all() and np.isfinite(pelvis).all()):
        raise InputError(f"{name}: expected finite angles and positions, found others after resampling")
