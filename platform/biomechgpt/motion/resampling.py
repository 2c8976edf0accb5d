"""Resampling of recordings to one frame rate: low-pass filter below the new Nyquist frequency, then
interpolation."""

import numpy as np
import scipy  # loads a part when it is used: scipy.signal and scipy.stats take a second
from scipy.interpolate import make_interp_spline
from scipy.spatial.transform import Rotation, Slerp

_CUTOFF = 0.4
"""Cutoff frequency as a fraction of the new rate: 12 Hz at 30 Hz. Gait is conventionally filtered at 6 Hz."""


def resample(
    time_s: np.ndarray, angles_rad: np.ndarray, pelvis: np.ndarray, rate_hz: float
) -> tuple[np.ndarray, np.ndarray]:
    """Angles (T, J) and pelvis (T, 7) at times (T,) -> the same at `rate_hz`, float32, anti-aliased.

    Angles are unwrapped first; the pelvis' orientation is interpolated on the sphere (slerp).
    """
    start, end = float(time_s[0]), float(time_s[-1])
    # 1e-6: times in files are rounded, so 0.9999999 of a frame counts as a frame.
    times = start + np.arange(int((end - start) * rate_hz + 1e-6) + 1) / rate_hz
    step = float(np.median(np.diff(time_s)))
    grid = np.linspace(start, end, max(round((end - start) / step), 1) + 1)
    quaternion = _continuous(pelvis[:, 3:])
    values = np.concatenate([np.unwrap(angles_rad, axis=0), pelvis[:, :3], quaternion], axis=1)
    if not np.allclose(np.diff(time_s), step, rtol=0.02, atol=1e-5) or len(grid) != len(time_s):
        values = _interpolate(time_s, values, grid, degree=1)
    source_hz = (len(grid) - 1) / (end - start)
    if source_hz > 1.01 * rate_hz:
        values = _low_pass(values, _CUTOFF * rate_hz, source_hz)
    smooth = _interpolate(grid, values[:, :-4], times, degree=3)
    turn = Slerp(grid, Rotation.from_quat(values[:, -4:], scalar_first=True))(np.minimum(times, grid[-1]))
    joints = angles_rad.shape[1]
    placed = np.concatenate([smooth[:, joints:], turn.as_quat(scalar_first=True)], axis=1)
    return smooth[:, :joints].astype(np.float32), placed.astype(np.float32)


def _continuous(quaternion: np.ndarray) -> np.ndarray:
    """Quaternions without jumps: q and -q are the same rotation, so take the sign closest to the previous frame."""
    dots = np.sum(quaternion[1:] * quaternion[:-1], axis=1)
    sign = np.concatenate([[1.0], np.cumprod(np.where(dots < 0, -1.0, 1.0))])
    return np.asarray(quaternion * sign[:, None])


def _low_pass(values: np.ndarray, cutoff_hz: float, rate_hz: float) -> np.ndarray:
    sos = scipy.signal.butter(4, cutoff_hz, fs=rate_hz, output="sos")
    pad = min(len(values) - 1, int(rate_hz))
    return np.asarray(scipy.signal.sosfiltfilt(sos, values, axis=0, padlen=pad))


def _interpolate(time_s: np.ndarray, values: np.ndarray, times: np.ndarray, degree: int) -> np.ndarray:
    spline = make_interp_spline(time_s, values, k=min(degree, len(time_s) - 1))
    return np.asarray(spline(np.clip(times, time_s[0], time_s[-1])))
