"""What a recording is once its file is understood: angles in our order and signs, at the file's own times.

A reader brings named columns in radians; `assemble` checks them and puts them into the skeleton's order.
Knows nothing about file formats, frame rates or participants.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field
from scipy.spatial.transform import Rotation

from biomechgpt.settings import InputError, Settings
from biomechgpt.skeleton import INDEX, JOINTS, N_JOINTS, NAMES, NECK

KNEES = ("knee_angle_r", "knee_angle_l")
SWINGING = ("hip_flexion_r", "hip_flexion_l", *KNEES, "ankle_angle_r", "ankle_angle_l")
"""Joints that cannot turn past half a circle; shoulders can, when a solver passes through a singularity."""


class ReaderSettings(Settings):
    """How recordings are read."""

    missing_joints: Literal["error", "neutral"] = Field(
        "error", description="a file without some tracked joint: an error, or held at 0 and masked"
    )
    units: Literal["header", "degrees", "radians"] = Field(
        "header", description="angles' unit in .mot/.sto files: what the header says, or always this"
    )
    knee_flexion: Literal["auto", "positive", "negative"] = Field(
        "auto", description="sign of knee flexion in the files; auto finds it in each file's data"
    )
    mujoco_rate_hz: float = Field(500.0, gt=0, description="of .npz files that carry no rate or time")


@dataclass(frozen=True)
class Recording:
    """One file's movement.

    time_s: (T,) strictly increasing. angles_rad: (T, 34). joint_mask: (34,) bool, recorded or not.
    pelvis: (T, 7), position in metres, quaternion (w, x, y, z); at rest in the origin where not recorded.
    knee_flexion: the sign that the file uses for it ("positive" was turned round).
    """

    time_s: np.ndarray
    angles_rad: np.ndarray
    pelvis: np.ndarray
    joint_mask: np.ndarray
    knee_flexion: Literal["positive", "negative"]


def assemble(
    name: str,
    time_s: np.ndarray,
    columns: Mapping[str, np.ndarray],
    settings: ReaderSettings,
    place: Callable[[int], str],
    *,
    turn_with_knee: tuple[str, ...] = (),
) -> Recording:
    """A recording from named columns: angles in radians (T,), pelvis_tx/ty/tz in metres.

    name: the file, for messages. place: names frame i in them ("line 37").
    turn_with_knee: joints whose sign is ours only where knee flexion is negative.
    Raises InputError for values that are not finite, time that does not increase, fewer than two frames,
    tracked joints that are missing, or angles that can only be in another unit.
    """
    used = {
        k: np.asarray(v, dtype=float) for k, v in columns.items() if k in INDEX or k.startswith("pelvis_")
    }
    _check_finite(name, {"time": time_s, **used}, place)
    _check_time(name, time_s, place)
    present = [k for k in NAMES if k in used]
    missing = [joint.name for joint in JOINTS if joint.tracked and joint.name not in used]
    missing = [k for k in missing if k not in NECK]
    if missing and settings.missing_joints == "error":
        raise InputError(
            f"{name}: expected every tracked joint, missing {', '.join(missing)} "
            "(missing_joints: neutral accepts such files, with these joints at 0 and masked)"
        )
    if not set(present) - set(missing):
        raise InputError(
            f"{name}: none of the skeleton's joints is among its columns: no recording of movement"
        )
    for k in SWINGING:
        if k in used and np.abs(used[k]).max() > 1.1 * np.pi:
            frame = int(np.abs(used[k]).argmax())
            raise InputError(
                f"{name}: {place(frame)}, column {k!r}: {used[k][frame]:.1f} radians is more than "
                "half a turn; expected radians, found what look like degrees "
                "(units: degrees reads a .mot or .sto so)"
            )
    angles = np.zeros((len(time_s), N_JOINTS))
    for k in present:
        angles[:, INDEX[k]] = np.unwrap(used[k])
    sign = settings.knee_flexion if settings.knee_flexion != "auto" else _knee_flexion(used)
    if sign == "positive":
        for k in (*KNEES, *turn_with_knee):
            angles[:, INDEX[k]] *= -1
    mask = np.isin(NAMES, [*present, *NECK, *(j.name for j in JOINTS if not j.tracked)])
    return Recording(time_s, angles, _pelvis(used, len(time_s)), mask, sign)


def _knee_flexion(used: Mapping[str, np.ndarray]) -> Literal["positive", "negative"]:
    """Which sign flexion has: a knee bends by tens of degrees and hardly hyperextends."""
    knees = np.concatenate([used[k] for k in KNEES if k in used] or [np.zeros(1)])
    low, high = np.percentile(knees, [1, 99])
    return "positive" if high > -low else "negative"


def _pelvis(used: Mapping[str, np.ndarray], frames: int) -> np.ndarray:
    """(T, 7). Tilt about Z, then list about X, then rotation about Y, each about the turned axis."""
    zero = np.zeros(frames)
    position = np.stack([used.get(f"pelvis_{k}", zero) for k in ("tx", "ty", "tz")], axis=1)
    turns = np.stack([used.get(f"pelvis_{k}", zero) for k in ("tilt", "list", "rotation")], axis=1)
    quaternion = Rotation.from_euler("ZXY", turns).as_quat(scalar_first=True)
    return np.concatenate([position, quaternion], axis=1)


def _check_finite(name: str, columns: Mapping[str, np.ndarray], place: Callable[[int], str]) -> None:
    for key, values in columns.items():
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            more = f" ({len(bad)} such values in this column)" if len(bad) > 1 else ""
            raise InputError(
                f"{name}: {place(int(bad[0]))}, column {key!r}: "
                f"expected a number, found {values[bad[0]]}{more}"
            )


def _check_time(name: str, time_s: np.ndarray, place: Callable[[int], str]) -> None:
    steps = np.diff(time_s)
    if (steps <= 0).any():
        i = int(np.argmax(steps <= 0))
        raise InputError(
            f"{name}: {place(i + 1)}, column 'time': expected time to increase, "
            f"found {time_s[i + 1]:g} after {time_s[i]:g}"
        )
    if len(time_s) < 2:
        raise InputError(f"{name}: expected a movement, found {len(time_s)} frames")
