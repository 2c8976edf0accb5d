"""Positions of markers or keypoints over time, in metres and Y-up, whatever the file has.

The upward axis is the one from the feet to the head or the shoulders, over all frames. The unit is the one in which
the legs have the length of a person's legs. Noise is removed by a low-pass filter. Knows nothing about files.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy  # loads a part when it is used: scipy.signal and scipy.stats take a second

from biomechgpt.core.settings import InputError

UNITS_M = {"m": 1.0, "cm": 0.01, "mm": 0.001}
_SHANK_M = (0.2, 0.6)
"""Knee to ankle: from a child of 0.8 m to an adult of 2.4 m (Winter 2009: .246 of body height)."""
_SHARP_HZ, _SMOOTH_HZ = 12.0, 6.0
_NOISY_M = 0.003
"""Points with more noise than this are smoothed more. Marker systems have below 1 mm, cameras alone 10 to 30."""
_ORDER = 2
"""Of the Butterworth filter, which runs forwards and backwards: order 4 without delay, as in Winter 2009."""


@dataclass(frozen=True)
class Points:
    """Positions over time.

    format: the file's format, for people.
    names: (P,) as in the file.
    positions: (T, P, 3); NaN where a point was not seen.
    time_s: (T,).
    units: unit of the positions that the file states; None if it states none.
    declared_rate_hz: the frame rate that the file states.
    notes: what was recognized.
    """

    format: str
    names: tuple[str, ...]
    positions: np.ndarray
    time_s: np.ndarray
    units: str | None = None
    declared_rate_hz: float | None = None
    notes: tuple[str, ...] = ()

    def noted(self, note: str) -> "Points":
        """The same points with one note more."""
        return replace(self, notes=(*self.notes, note))


def in_metres(name: str, points: Points, shanks: Sequence[np.ndarray]) -> Points:
    """The points in metres; shanks: distances (T,) from knee to ankle of each side, in the file's unit.

    The shorter side counts: a knee that is swapped with another marker is far from its ankle. A unit that the file
    states, but that gives no person's legs, is not believed. Raises InputError if none does.
    """
    length = float(np.nanmin([np.nanmedian(shank) for shank in shanks]))
    fits = [unit for unit, scale in UNITS_M.items() if _SHANK_M[0] < length * scale < _SHANK_M[1]]
    if not fits:
        raise InputError(
            f"{name}: expected positions in metres, centimetres or millimetres, found {length:.4g} from "
            "knee to ankle, which no person has in any of these units (image coordinates are no positions in space)"
        )
    stated = (points.units or "").lower()
    note = f"positions in {fits[0]}"
    if stated in UNITS_M and stated != fits[0]:
        note += f" (the file says {stated}, but knee and ankle are {length:.4g} apart)"
    return replace(points, positions=points.positions * UNITS_M[fits[0]]).noted(note)


def upward(name: str, top: np.ndarray, bottom: np.ndarray) -> tuple[int, int]:
    """(axis, sign) of the upward direction, from positions (T, 3) of a body's upper and lower end.

    Raises InputError if no axis of the file is upward.
    """
    direction = np.nanmean(top - bottom, axis=0)
    share = np.abs(direction) / np.linalg.norm(direction)
    axis = int(share.argmax())
    if not share[axis] > 0.8:
        raise InputError(
            f"{name}: expected an axis that points upward, found that feet and shoulders are apart along "
            f"({', '.join(f'{x:.2f}' for x in direction)}): the world is tilted, or the person lies"
        )
    return axis, 1 if direction[axis] > 0 else -1


def y_up_matrix(axis: int, sign: int) -> np.ndarray:
    """(3, 3) rotation into a world whose Y is upward; the other axes keep their cyclic order."""
    up = sign * np.eye(3)[axis]
    right = np.eye(3)[(axis + 1) % 3]
    return np.stack([np.cross(up, right), up, right])


def y_up(points: Points, axis: int, sign: int) -> Points:
    """The points in a Y-up world."""
    matrix = np.eye(3) if (axis, sign) == (1, 1) else y_up_matrix(axis, sign)
    note = f"{'-' if sign < 0 else ''}{'XYZ'[axis]} is up"
    return replace(points, positions=points.positions @ matrix.T).noted(note)


def smoothed(points: Points) -> Points:
    """The points without noise: low-pass at 12 Hz, or at 6 Hz if they are noisy."""
    rate = 1 / float(np.median(np.diff(points.time_s)))
    if rate < 2.5 * _SMOOTH_HZ:
        return points
    noise = _noise_m(points.positions)
    cutoff = _SMOOTH_HZ if noise > _NOISY_M or rate < 2.5 * _SHARP_HZ else _SHARP_HZ
    filtered = points.positions.copy()
    sections = scipy.signal.butter(_ORDER, cutoff, fs=rate, output="sos")
    for p in range(filtered.shape[1]):
        for first, last in _runs(np.isfinite(filtered[:, p]).all(axis=1)):
            if last - first > 15:
                whole = filtered[first:last, p]
                filtered[first:last, p] = scipy.signal.sosfiltfilt(sections, whole, axis=0, padlen=15)
    return replace(points, positions=filtered).noted(f"low-pass {cutoff:g} Hz")


def _noise_m(positions: np.ndarray) -> float:
    """Standard deviation of one coordinate's noise, from its third differences (which a movement hardly has)."""
    third = np.diff(positions, 3, axis=0)
    if not np.isfinite(third).any():
        return 0.0
    # White noise of variance 1 has third differences of variance 1 + 9 + 9 + 1. 1.48 makes a deviation of a median.
    return float(1.4826 * np.nanmedian(np.abs(third)) / np.sqrt(20))


def _runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """(first, one past the last) of every run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(int)))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


Places = Mapping[str, np.ndarray]
"""{landmark: positions (T, 3)}."""
