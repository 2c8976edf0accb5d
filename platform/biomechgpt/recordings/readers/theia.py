"""Rotations of segments in a C3D file, as Theia3D writes them: the group ROTATION has a matrix for each segment.

A matrix has a segment's axes in its first three columns and its origin, the upper joint, in the fourth. Axes: X to
the right, Y forward, Z up, on both sides and also of the feet, all alike while a person stands upright. The elbow's
hinge is the upper arm's X; forearms turn in pronation besides, which is left out. Signals are called `r_thigh_4X4`
and so on. A segment that was not seen in a frame is NaN.

Layout: C-Motion, "ROTATION data type". Names and axes: a walk of Theia3D among the test files of ezc3d.
"""

import numpy as np
from scipy.spatial.transform import Rotation

from biomechgpt.core.settings import InputError
from biomechgpt.recordings.markers.points import UNITS_M
from biomechgpt.recordings.readers.from_rotations import recording_of
from biomechgpt.recordings.readers.recording import ReaderSettings, Recording
from biomechgpt.recordings.readers.text import listed
from biomechgpt.recordings.rotations import Orientations, bent

_SUFFIX = "_4x4"
_NAMES = {
    "pelvis": "pelvis", "torso": "trunk", "head": "head",
    **{
        f"{side}_{theirs}": f"{ours}_{side}"
        for side in "rl"
        for theirs, ours in (
            ("thigh", "thigh"), ("shank", "shank"), ("foot", "foot"), ("uarm", "upper_arm"), ("larm", "forearm"),
        )
    },
}  # fmt: skip
"""{name of a signal without its end: our segment}."""
_NEEDED = ("pelvis", "thigh_r", "thigh_l", "shank_r", "shank_l", "foot_r", "foot_l")
_OUR_AXES = Rotation.from_matrix([[0, 0, 1], [1, 0, 0], [0, 1, 0]])
"""Columns: our X, Y and Z in a segment's own frame, X to the right, Y forward, Z up."""
_ALIKE = 0.7
"""Least cosine between a segment's axis and where it has to point, in the median."""


def read(
    name: str,
    matrices: np.ndarray,
    labels: list[str],
    first: int,
    rate_hz: float,
    unit: str,
    settings: ReaderSettings,
) -> Recording:
    """The recording of a body's segments.

    name: the file, in messages.
    matrices: (4, 4, N, T) of the signals `labels`; NaN where a segment was not seen.
    first: number (from 1) of the first frame.
    unit: of positions.
    Raises InputError for a file without legs, with other axes, or in which nobody is seen.
    """
    numbers = _segments(name, labels)
    if not numbers.keys() >= set(_NEEDED):
        raise InputError(
            f"{name}: expected rotations of pelvis, thighs, shanks and feet as Theia3D names them (pelvis_4X4, "
            f"r_thigh_4X4, ...), found {listed(labels, 8)}: compute joint angles "
            "of them (in Visual3D: Compute Model Based Data) and export them as a C3D file or as ASCII"
        )
    if unit.lower() not in UNITS_M:
        raise InputError(f"{name}: POINT:UNITS: expected {', '.join(UNITS_M)}, found {unit!r}")
    poses = np.moveaxis(matrices[:, :, list(numbers.values())], (2, 3), (0, 1))
    seen = np.isfinite(poses).all(axis=(2, 3)) & (np.linalg.det(np.nan_to_num(poses[:, :, :3, :3])) > 0.5)
    whole = seen[[i for i, segment in enumerate(numbers) if segment in _NEEDED]].all(axis=0)
    if whole.sum() < 2:
        raise InputError(
            f"{name}: expected a person with legs in the frames, found {int(whole.sum())} with one"
        )
    start, end = int(whole.argmax()), len(whole) - int(whole[::-1].argmax())
    time_s = (first - 1 + np.arange(start, end)) / rate_hz
    notes = ["rotations of segments converted"]
    if end - start < len(whole):
        notes.append(f"read from {time_s[0]:.2f} to {time_s[-1]:.2f} s, where the legs are seen")
    orientations = _orientations(
        name,
        dict(zip(numbers, poses[:, start:end], strict=True)),
        dict(zip(numbers, seen[:, start:end], strict=True)),
        UNITS_M[unit.lower()],
    )
    return recording_of(
        name,
        orientations,
        time_s,
        settings,
        format="C3D rotations (Theia3D)",
        rate_hz=rate_hz,
        notes=tuple(notes),
    )


def _orientations(
    name: str, poses: dict[str, np.ndarray], seen: dict[str, np.ndarray], unit_m: float
) -> Orientations:
    """Our segments' orientations from matrices (T, 4, 4); seen: {segment: (T,) bool}."""
    origin = {k: np.where(seen[k][:, None], pose[:, :3, 3], np.nan) * unit_m for k, pose in poses.items()}
    theirs = {k: Rotation.from_matrix(_filled(pose[:, :3, :3], seen[k])) for k, pose in poses.items()}
    _check_axes(name, theirs, origin)
    turned = {k: turn * _OUR_AXES for k, turn in theirs.items()}
    for side in "rl":
        upper, lower = f"upper_arm_{side}", f"forearm_{side}"
        if upper in theirs and lower in theirs:
            down = (theirs[upper].inv() * theirs[lower]).apply([0.0, 0.0, -1.0])
            flexion = np.arctan2(down[:, 1], -down[:, 2])
            turned[lower] = bent(turned[upper], f"elbow_flex_{side}", flexion)
    shanks = [np.linalg.norm(origin[f"shank_{side}"] - origin[f"foot_{side}"], axis=1) for side in "rl"]
    return Orientations(
        turned=turned,
        hips_m=(origin["thigh_r"] + origin["thigh_l"]) / 2,
        shank_m=float(np.nanmedian(shanks)),
        seen=seen,
    )


def _segments(name: str, labels: list[str]) -> dict[str, int]:
    """{our segment: number of its signal}. Raises InputError for several people."""
    found: dict[str, int] = {}
    for i, label in enumerate(labels):
        signal = label.rpartition(":")[2].lower()
        segment = _NAMES.get(signal.removesuffix(_SUFFIX)) if signal.endswith(_SUFFIX) else None
        if segment in found:
            raise InputError(f"{name}: signal {label!r}: expected one person, found it twice")
        if segment:
            found[segment] = i
    return found


def _filled(matrices: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """(T, 3, 3) rotation matrices, where a segment was not seen those of a neighbour."""
    if not seen.any():
        return np.tile(np.eye(3), (len(seen), 1, 1))
    nearest = np.maximum.accumulate(np.where(seen, np.arange(len(seen)), int(seen.argmax())))
    return np.asarray(matrices[nearest])


def _check_axes(name: str, turned: dict[str, Rotation], origin: dict[str, np.ndarray]) -> None:
    """Raise InputError if axes point elsewhere than Theia's: other programs write the group with other axes."""
    across = turned["pelvis"].inv().apply(np.nan_to_num(origin["thigh_r"] - origin["thigh_l"]))
    checks = {"pelvis X to the right": (across, 0, 1.0)}
    for side in "rl":
        for upper, lower in (("thigh", "shank"), ("shank", "foot")):
            along = np.nan_to_num(origin[f"{lower}_{side}"] - origin[f"{upper}_{side}"])
            own = turned[f"{upper}_{side}"].inv().apply(along)
            checks[f"{upper}_{side} Z up"] = (own, 2, -1.0)
    for what, (vectors, axis, sign) in checks.items():
        lengths = np.linalg.norm(vectors, axis=1)
        cosines = sign * vectors[lengths > 0, axis] / lengths[lengths > 0]
        share = float(np.median(cosines)) if len(cosines) else 0.0
        if share < _ALIKE:
            raise InputError(
                f"{name}: expected axes of segments as Theia3D has them (X to the right, Y forward, Z up), found "
                f"others ({what}: the cosine is {share:.2f}): compute joint angles of them in Visual3D"
            )
