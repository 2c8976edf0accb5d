"""From points to joint angles: set, units, axes, lengths, inverse kinematics, residuals."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from biomechgpt.core.settings import InputError
from biomechgpt.motion.skeleton import INDEX
from biomechgpt.recordings.markers import points as conditioning
from biomechgpt.recordings.markers import scaling, sets
from biomechgpt.recordings.markers.model import Site
from biomechgpt.recordings.markers.points import Points
from biomechgpt.recordings.markers.solve import Solution, solve, upright_pelvis

_CALIBRATION_FRAMES, _CALIBRATION_STEPS = 40, 30
_PLACE_ERROR_M = 0.01
"""How far a marker's place on a person may be from that in its set."""
_FEWEST = 6
"""Fewest points that tell a posture."""
_SKIN_M = 0.02
"""How far a marker on a thigh or shank moves on the bone."""
_BAD_FRAME, _BAD_FRAME_M = 1.75, 0.025
"""A frame is bad if its residual is larger than this multiple of the median, and than 25 mm."""
_MOST_FRAMES = 100_000
"""Longest recording: inverse kinematics does some 600 frames a second."""
_FARTHEST_M = 20.0
"""Positions whose median is larger are in millimetres."""
_MOST_CUT = 0.25
"""Largest share of the frames that is left out at the ends."""


@dataclass(frozen=True)
class Fit:
    """Joint angles from points.

    time_s: (T,).
    angles_rad: (T, 34); NaN where missing markers leave a joint open, 0 for joints that the set does not tell.
    pelvis: (T, 7), position in metres (Y-up), quaternion (w, x, y, z).
    joint_mask: (34,) bool, the joints that the set tells.
    residuals_m: {marker: (T,) its distance from its place on the body}.
    notes: what was recognized and how well it fits.
    """

    time_s: np.ndarray
    angles_rad: np.ndarray
    pelvis: np.ndarray
    joint_mask: np.ndarray
    residuals_m: Mapping[str, np.ndarray]
    notes: tuple[str, ...]


def fit(name: str, points: Points) -> Fit:
    """Joint angles of a person from positions of named markers or keypoints. Raises InputError, calls the
    file `name`."""
    marker_set, roles = sets.choose(name, points.names)
    if len(points.positions) > _MOST_FRAMES:
        raise InputError(
            f"{name}: expected at most {_MOST_FRAMES} frames of markers, found {len(points.positions)}: "
            "save each trial in a file of its own"
        )
    points = _conditioned(name, points.noted(marker_set.label), roles)
    markers = {role: points.positions[:, i] for role, i in roles.items()}
    markers = {role: p for role, p in markers.items() if np.isfinite(p).all(axis=1).mean() > 0.2}
    if len(markers) < _FEWEST:
        raise InputError(f"{name}: expected at least {_FEWEST} points in most frames, found {len(markers)}")
    solution = _solved(name, markers)
    seen = np.isfinite(np.stack(list(markers.values()), axis=1)).all(axis=2)
    return _fitted(points, [points.names[roles[role]] for role in markers], seen, solution)


def in_the_world(name: str, points: Points) -> Points:
    """The points in metres, Y-up and smooth.

    Those of no known set are taken to be Y-up, in the unit that they state, or that their size tells. Raises
    InputError for points that are no person.
    """
    try:
        marker_set, roles = sets.choose(name, points.names)
    except InputError:
        # A person is some metres from the origin at most; in millimetres that is thousands.
        usual = "mm" if np.nanmedian(np.abs(points.positions)) > _FARTHEST_M else "m"
        unit = (points.units or usual).lower()
        if unit not in conditioning.UNITS_M:
            raise
        scaled = replace(points, positions=points.positions * conditioning.UNITS_M[unit])
        return conditioning.smoothed(scaled.noted(f"markers of no known set: taken as Y-up, in {unit}"))
    return _conditioned(name, points.noted(marker_set.label), roles)


def _conditioned(name: str, points: Points, roles: dict[str, int]) -> Points:
    """The points in metres, Y-up and smooth."""

    def pair(*parts: str) -> np.ndarray:
        """(T, 3) mean of the roles whose name has the first of the parts that there is."""
        for part in parts:
            found = [i for role, i in roles.items() if part in role]
            if found:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", RuntimeWarning)  # a frame without any of them
                    return np.asarray(np.nanmean(points.positions[:, found], axis=1))
        raise InputError(
            f"{name}: expected a marker of {' or '.join(parts)}, found {', '.join(sorted(roles))}"
        )

    shanks = [
        np.linalg.norm(points.positions[:, i] - points.positions[:, roles[other]], axis=1)
        for role, i in roles.items()
        if "knee" in role and (other := role.replace("knee", "ankle")) in roles
    ]
    if not shanks:
        raise InputError(f"{name}: expected knee and ankle of one side, found {', '.join(sorted(roles))}")
    points = conditioning.in_metres(name, points, shanks)
    axis, sign = conditioning.upward(name, pair("acromion", "shoulder", "neck", "asis", "hip"), pair("ankle"))
    return conditioning.smoothed(conditioning.y_up(points, axis, sign))


def _solved(name: str, markers: dict[str, np.ndarray]) -> Solution:
    """The poses: first of some frames, which tell where on the body the markers are, then of all."""
    centres = scaling.centres(markers)
    sizes = scaling.lengths(centres, markers)
    sites, error_m = scaling.sites(markers, sizes)
    positions = np.stack(list(markers.values()), axis=1)
    start = _start(name, centres)
    chosen = np.unique(np.linspace(0, len(positions) - 1, _CALIBRATION_FRAMES).astype(int))
    calibration = solve(name, sizes, sites, positions[chosen], error_m, start, _CALIBRATION_STEPS)
    sites, error_m = _moved(list(markers), sites, error_m, calibration)
    return solve(name, sizes, sites, positions, error_m, start)


def _start(name: str, centres: dict[str, np.ndarray]) -> np.ndarray:
    """(7,) the pelvis in the first frame, upright."""
    for ends in ("hip", "shoulder"):
        if {f"{ends}_r", f"{ends}_l"} <= centres.keys():
            right, left = centres[f"{ends}_r"], centres[f"{ends}_l"]
            seen = np.flatnonzero(np.isfinite(right + left).all(axis=1))
            if len(seen):
                across = right[seen[0]] - left[seen[0]]
                middle = centres.get("pelvis", (right + left) / 2)[seen[0]]
                return upright_pelvis(np.cross([0, 1, 0], across), middle)
    raise InputError(f"{name}: expected both hips or both shoulders, found {', '.join(sorted(centres))}")


def _moved(
    roles: list[str], sites: list[Site], error_m: np.ndarray, solution: Solution
) -> tuple[list[Site], np.ndarray]:
    """The sites nearer to where the recording has its markers: as far as people differ more than skin moves."""
    moved, errors = [], error_m.copy()
    for i, (role, site) in enumerate(zip(roles, sites, strict=True)):
        anywhere = error_m[i] >= sets.ANYWHERE_M
        centre = not any(sets.PLACES[role].offset_m)
        share = (
            1.0 if anywhere else 0.0 if centre else _PLACE_ERROR_M**2 / (_PLACE_ERROR_M**2 + error_m[i] ** 2)
        )
        away = np.nanmedian(solution.turned[i], axis=0) - site.position_m
        moved.append(replace(site, position_m=site.position_m + share * np.nan_to_num(away)))
        errors[i] = _SKIN_M if anywhere else error_m[i]
    return moved, errors


def _fitted(points: Points, labels: list[str], seen: np.ndarray, solution: Solution) -> Fit:
    """The poses without bad frames at their ends; seen: (T, M) where markers were seen."""
    whole: np.ndarray = np.all(seen, axis=1)
    told: np.ndarray = np.greater(
        np.median(solution.told[whole] if whole.any() else solution.told, axis=0), 0.5
    )
    angles = solution.angles_rad.copy()
    # A marker that is missing may leave a joint open that the set tells.
    angles[~solution.told & ~whole[:, None]] = np.nan
    angles[:, ~told] = 0.0
    pelvis = np.where((seen.sum(axis=1) >= 3)[:, None], solution.pelvis, np.nan)
    kept, cut = _good_frames(points.time_s, solution.residual_m)
    residual = solution.residual_m[kept]
    rms_mm = 1000 * float(np.sqrt(np.nanmean(residual**2)))
    if not told[INDEX["lumbar_extension"]]:
        points = points.noted("pelvis tilt not seen: half of the trunk's lean is assumed")
    fitted = f"inverse kinematics of {len(labels)} points, residual {rms_mm:.0f} mm (RMS)"
    return Fit(
        time_s=points.time_s[kept],
        angles_rad=angles[kept],
        pelvis=pelvis[kept],
        joint_mask=told,
        residuals_m=dict(zip(labels, residual.T, strict=True)),
        notes=(*points.notes, fitted, *cut),
    )


def _good_frames(time_s: np.ndarray, residual_m: np.ndarray) -> tuple[slice, list[str]]:
    """The frames from the first to the last that fits, and a note on those before and after.

    People enter and leave the cameras' view: there points are guesses, and the body fits them badly.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a frame without any marker
        rms = np.sqrt(np.nanmean(residual_m**2, axis=1))
    good = np.flatnonzero(rms <= max(_BAD_FRAME_M, _BAD_FRAME * float(np.nanmedian(rms))))
    first, last = (int(good[0]), int(good[-1])) if len(good) else (0, len(rms) - 1)
    cut = np.r_[0:first, last + 1 : len(rms)]
    if not len(cut) or len(cut) > _MOST_CUT * len(rms):
        return slice(0, len(rms)), []
    worst = 1000 * float(np.nan_to_num(rms[cut]).max())
    ends = f"{time_s[first]:.2f} to {time_s[last]:.2f} s"
    return slice(first, last + 1), [f"read from {ends}: residuals before or after are up to {worst:.0f} mm"]
