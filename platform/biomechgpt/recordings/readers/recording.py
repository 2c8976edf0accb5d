"""A recording: angles in the skeleton's order and signs, at the file's own times.

A reader brings a file's columns and what the file states about them. `assemble` finds the joints among the columns,
checks them and puts them into the skeleton's order. A missing value stays missing (NaN): quality control decides
whether a gap is filled or the recording is kept out. Knows nothing about file formats or participants.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field
from pydantic_settings import NoDecode
from scipy.spatial.transform import Rotation

from biomechgpt.core.settings import InputError, Settings
from biomechgpt.motion.skeleton import INDEX, JOINTS, N_JOINTS, NAMES, NECK
from biomechgpt.recordings.readers import isb_shoulder
from biomechgpt.recordings.readers.column_names import (
    NO_MOTION,
    is_known,
    listed_columns,
    no_joints,
    our_name,
    seconds_of,
)
from biomechgpt.recordings.readers.joint_map import (
    PELVIS_ROTATIONS,
    PELVIS_TRANSLATIONS,
    AngleUnits,
    JointMap,
    choose,
    load_maps,
    shipped_maps,
)

KNEES = ("knee_angle_r", "knee_angle_l")
SWINGING = ("hip_flexion_r", "hip_flexion_l", *KNEES, "ankle_angle_r", "ankle_angle_l")
"""Joints that cannot turn past half a circle. Shoulder angles can, when a solver passes through a singularity."""
_MAX_LEG_RAD = 1.1 * np.pi
"""Larger angles of a leg's joint are degrees: no leg turns by more than half a circle. 10 % are left for noise."""
_SMALLEST_POSTURE_RAD = np.radians(5)
"""No posture keeps every joint closer to zero than this; an error between two motions does."""
_BENT_KNEE_RAD = np.radians(20)
"""A knee that is this far on the wrong side of zero is flexed, not hyperextended."""

Sign = Literal["positive", "negative"]


def _loaded(value: Any) -> Any:
    return load_maps(value) if isinstance(value, str) else value


class ReaderSettings(Settings):
    """Settings of the readers."""

    missing_joints: Literal["error", "neutral"] = "neutral"
    """A tracked joint that a file does not have is held at 0 and masked (neutral), or it is an error."""
    joint_map: Annotated[tuple[JointMap, ...], NoDecode, BeforeValidator(_loaded)] = Field(
        default_factory=shipped_maps
    )
    """YAML file, or folder of them, that maps a lab's own columns to joints; by default those of
    configs/joint_maps."""
    units: Literal["header", "degrees", "radians"] = "header"
    """Unit of angles in .mot, .sto, CSV and Parquet: what header or values tell (header), or always this one."""
    knee_flexion: Literal["auto", "positive", "negative"] = "auto"
    """Sign of knee flexion in the files; auto detects it in each file."""
    mujoco_rate_hz: float = Field(500.0, gt=0)
    """Frame rate of .npz files that state neither rate nor time."""
    min_rate_hz: float = Field(5.0, gt=0)
    """Lowest frame rate of a recording; a lower one is time in another unit, such as milliseconds."""
    max_duration_s: float = Field(3600.0, gt=0)
    """Longest recording."""
    mujoco_up: Literal["auto", "y", "z"] = "auto"
    """Upward axis of the world in .npz files with a free joint; auto detects it by the pelvis' height."""
    keypoints_rate_hz: float = Field(30.0, gt=0)
    """Frame rate of keypoints (.npy, CSV) that state neither rate nor time."""
    opensim_model: str | None = None
    """OpenSim model (.osim), scaled to the person and with their markers. OpenSim then makes the angles of files
    that have these markers: pip install 'biomechgpt[opensim]'."""


@dataclass(frozen=True)
class Columns:
    """A file's columns, as its reader found them.

    format: the file's format, for people.
    values: {column: (T,)} by the file's own names, angles in `units`.
    units: unit of angles; None if the file does not state it.
    place: names frame i in messages ("line 37").
    time_s: (T,); None if time is one of the columns, or absent.
    declared_rate_hz: the frame rate that the file states.
    knee_flexion: the sign of knee flexion that the file states.
    turn_with_knee: joints whose sign changes together with the knee's.
    title: what the file says it holds; empty if it says nothing.
    notes: what was odd about the file, and how it was read all the same.
    """

    format: str
    values: Mapping[str, np.ndarray]
    units: AngleUnits | None
    place: Callable[[int], str]
    time_s: np.ndarray | None = None
    declared_rate_hz: float | None = None
    knee_flexion: Sign | None = None
    turn_with_knee: tuple[str, ...] = ()
    title: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recording:
    """One file's movement.

    time_s: (T,) strictly increasing.
    angles_rad: (T, 34), NaN where a value is missing.
    pelvis: (T, 7), position in metres, quaternion (w, x, y, z); upright in the origin if it was not recorded.
    joint_mask: (34,) bool, True where the joint was recorded: it has a column, and more than one value.
    knee_flexion: its sign in the file; a positive one was changed to the skeleton's.
    format: the file's format.
    units: unit of angles in the file.
    declared_rate_hz: the frame rate that the file or its joint map states, if any.
    joint_map: name of the joint map that was used, if any.
    provenance: recorded; synthetic if the file itself says so.
    notes: what was odd or recognized about the file, such as the upward axis of markers.
    lacking: tracked joints that were not recorded.
    marker_residuals_m: {marker: (T,) its distance from its place on the body}, if angles come from markers.
    """

    time_s: np.ndarray
    angles_rad: np.ndarray
    pelvis: np.ndarray
    joint_mask: np.ndarray
    knee_flexion: Sign
    format: str = "arrays"
    units: AngleUnits = "radians"
    declared_rate_hz: float | None = None
    joint_map: str | None = None
    provenance: str = "recorded"
    notes: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()
    marker_residuals_m: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def remarks(self) -> tuple[str, ...]:
        """Notes on the file for the reader of an answer: oddities, and the joints that it lacks."""
        return (*self.notes, f"without {', '.join(self.lacking)}") if self.lacking else self.notes

    @property
    def rate_hz(self) -> float:
        """Frames a second by the file's times. The mean over steps without gaps, since a file rounds its times."""
        steps = np.diff(self.time_s)
        return 1 / float(steps[steps < 1.5 * np.median(steps)].mean())

    @property
    def import_notes(self) -> str:
        """One line on how the file was read: format, units, knee sign, frame rate, and what was odd."""
        how = f"{self.format}, {self.units}, knee flexion {self.knee_flexion}, {self.rate_hz:.4g} Hz"
        how += f", columns by {self.joint_map}" if self.joint_map else ""
        return "; ".join([how, *self.remarks])


def assemble(name: str, file: Columns, settings: ReaderSettings) -> Recording:
    """A recording from a file's columns; name: the file, in messages.

    Raises InputError for time that is missing, does not increase or is not in seconds, fewer than two frames,
    missing tracked joints, a unit that cannot be detected or that the angles contradict, and a file that holds no
    posture.
    """
    for title in (file.title, PurePosixPath(name).stem):
        if found := NO_MOTION.search(title):
            raise InputError(
                f"{name}: expected joint angles, found {found.group()!r} in its title or name: "
                "this output of another program is no recording of movement"
            )
    joint_map = choose(name, settings.joint_map, file.values)
    file = replace(file, values=joint_map.renamed(file.values)) if joint_map else _by_our_names(file)
    columns = _find(file, joint_map)
    if file.time_s is None and not columns and not any(is_known(column) for column in file.values):
        raise InputError(no_joints(name, file.values))
    time_s, rate_hz, timed = _time(name, file, joint_map)
    file, columns, time_s, repeated = _without_repeats(file, columns, time_s)
    check_time(name, time_s, settings, file.place, file.format)
    converted = [f"{joint}_{side}" for side in isb_shoulder.sides(columns) for joint in isb_shoulder.ARM]
    if not any(k in columns for k in (*NAMES, *isb_shoulder.COLUMNS)):
        raise InputError(no_joints(name, file.values))
    missing = _missing(name, file, joint_map, {*columns, *converted}, settings)
    units = _units(name, columns)
    used = {k: _converted(item, units) for k, item in columns.items()}
    _check_units(name, columns, used, units, file.place)
    used |= isb_shoulder.arms(used)
    present = [k for k in NAMES if k in used]
    if not present:
        raise InputError(no_joints(name, file.values))
    _check_posture(name, used)
    sign, turn = _knees(name, used, file, joint_map, settings)
    angles = np.zeros((len(time_s), N_JOINTS))
    for k in present:
        angles[:, INDEX[k]] = _unwrap(used[k])
    if turn:
        for k in (*KNEES, *file.turn_with_knee):
            angles[:, INDEX[k]] *= -1
    shoulders = ("shoulders converted from plane of elevation, elevation and axial rotation",)
    return Recording(
        time_s=time_s,
        angles_rad=angles,
        pelvis=_pelvis(used, len(time_s)),
        joint_mask=np.isin(NAMES, present) & _moves(angles),
        knee_flexion=sign,
        format=file.format,
        units=_stated(next(iter(columns.values())), units),
        declared_rate_hz=None if repeated else file.declared_rate_hz or rate_hz,
        joint_map=joint_map.name if joint_map else None,
        notes=(*file.notes, *timed, *repeated, *(shoulders if converted else ())),
        lacking=missing,
    )


def _missing(
    name: str, file: Columns, joint_map: JointMap | None, columns: Collection[str], settings: ReaderSettings
) -> tuple[str, ...]:
    """The tracked joints without a column, but for the neck; InputError if the settings do not accept any."""
    missing = _tracked_beside(columns)
    if missing and settings.missing_joints == "error":
        raise InputError(
            f"{name}: expected every tracked joint, missing {', '.join(_wanted(missing, joint_map))} "
            "(missing_joints: neutral accepts such files, with these joints at 0 and masked; "
            f"joint_map: FILE maps other columns to joints: {listed_columns(file.values)})"
        )
    return missing


def absent(name: str, joint_mask: np.ndarray, settings: ReaderSettings) -> tuple[str, ...]:
    """The tracked joints that positions or rotations of segments do not tell, but for the neck.

    joint_mask: (34,) bool, those that they tell. Raises InputError if the settings do not accept any.
    """
    missing = _tracked_beside([k for k, told in zip(NAMES, joint_mask, strict=True) if told])
    if missing and settings.missing_joints == "error":
        raise InputError(
            f"{name}: expected every tracked joint, this file does not tell {', '.join(missing)} "
            "(missing_joints: neutral accepts such files, with these joints at 0 and masked)"
        )
    return missing


def _tracked_beside(joints: Collection[str]) -> tuple[str, ...]:
    return tuple(j.name for j in JOINTS if j.tracked and j.name not in joints and j.name not in NECK)


def _without_repeats(
    file: Columns, columns: dict[str, "_Item"], time_s: np.ndarray
) -> tuple[Columns, dict[str, "_Item"], np.ndarray, tuple[str, ...]]:
    """All of them without frames that repeat the one before, and a note on them.

    A repeated time at the end is dropped, as OpenSim's tools write the last one twice. Elsewhere every value has to
    be the same.
    """
    same = np.diff(time_s, prepend=np.nan) == 0
    if not same.any():
        return file, columns, time_s, ()
    table = np.column_stack([item.values for item in columns.values()] or [time_s])
    equal = np.ones(len(time_s), dtype=bool)
    equal[1:] = ((table[1:] == table[:-1]) | (np.isnan(table[1:]) & np.isnan(table[:-1]))).all(axis=1)
    at_end = np.logical_and.accumulate(same[::-1])[::-1]
    keep = np.flatnonzero(~(same & (equal | at_end)))
    if len(keep) == len(time_s) or len(keep) < 2:
        return file, columns, time_s, ()
    count = len(time_s) - len(keep)
    place = file.place
    return (
        replace(file, place=lambda i: place(int(keep[i]))),
        {k: replace(item, values=item.values[keep]) for k, item in columns.items()},
        time_s[keep],
        (f"{count} row{'s' * (count > 1)} with a repeated time dropped",),
    )


def _moves(angles: np.ndarray) -> np.ndarray:
    """(34,) bool: joints with more than one value. A model holds a joint that it does not have at one value."""
    values = (
        np.where(np.isnan(angles), -np.inf, angles).max(0),
        np.where(np.isnan(angles), np.inf, angles).min(0),
    )
    return np.asarray(values[0] > values[1])


@dataclass(frozen=True)
class _Item:
    """One joint's column.

    label: its name in the file.
    values: (T,) in `units`.
    units: None if the unit still has to be detected.
    """

    label: str
    values: np.ndarray
    units: str | None


def _find(file: Columns, joint_map: JointMap | None) -> dict[str, _Item]:
    """{joint or coordinate of the pelvis: its column}; a column without any value was not recorded."""
    items: dict[str, _Item] = {}
    joints = joint_map.joints if joint_map else {}
    mapped = joint_map.present(file.values) if joint_map else []
    angles = file.units or (joint_map.units if joint_map else None)
    for joint in (*NAMES, *PELVIS_ROTATIONS, *PELVIS_TRANSLATIONS, *isb_shoulder.COLUMNS):
        units = "m" if joint in PELVIS_TRANSLATIONS else angles
        if joint in mapped:
            column = joints[joint]
            items[joint] = _Item(" + ".join(column.parts), column.values(file.values), column.units or units)
        elif joint in file.values:
            items[joint] = _Item(joint, np.asarray(file.values[joint], dtype=float), units)
    return {joint: item for joint, item in items.items() if np.isfinite(item.values).any()}


def _wanted(missing: Sequence[str], joint_map: JointMap | None) -> list[str]:
    """Missing joints, with the columns where a map expects them."""
    joints = joint_map.joints if joint_map else {}
    return [f"{k} (column {' + '.join(joints[k].parts)!r})" if k in joints else k for k in missing]


def _time(
    name: str, file: Columns, joint_map: JointMap | None
) -> tuple[np.ndarray, float | None, tuple[str, ...]]:
    """Times (T,) in seconds, the rate that a map declares, and a note if the times are that rate's."""
    if file.time_s is not None:
        return file.time_s, None, ()
    column, rate_hz = (joint_map.time, joint_map.rate_hz) if joint_map else ("time", None)
    if column in file.values:
        scale = 1e-3 if joint_map and joint_map.time_units == "ms" else 1.0
        return scale * file.values[column], rate_hz, ()
    for other, values in file.values.items():
        if seconds := seconds_of(other):
            # A rate is for files without times: these state their own.
            return seconds * values, None, (f"time by column {other!r}",)
    if rate_hz is None:
        raise InputError(
            f"{name}: expected a column {column!r}, found {listed_columns(file.values)} "
            "(a joint map may name another, or give the rate_hz)"
        )
    time_s = np.arange(len(next(iter(file.values.values())))) / rate_hz
    note = f"no column of time, so {rate_hz:g} Hz by {joint_map.name if joint_map else 'the map'}"
    return time_s, rate_hz, (note,)


def _by_our_names(file: Columns) -> Columns:
    """The columns with the skeleton's names, whatever their case and spaces, and the units that the names state."""
    values: dict[str, np.ndarray] = {}
    units = set()
    for column, numbers in file.values.items():
        name, unit = our_name(column)
        if name != column and (name in file.values or name in values):
            name, unit = column, ""
        if name in PELVIS_TRANSLATIONS:
            numbers = np.asarray(numbers, dtype=float) * {"mm": 1e-3, "cm": 1e-2}.get(unit, 1.0)
        elif unit:
            units.add("degrees" if unit.startswith(("deg", "°")) else "radians")
        values[name] = numbers
    stated: AngleUnits | None = file.units
    if stated is None and len(units) == 1:
        stated = "degrees" if "degrees" in units else "radians"
    return replace(file, values=values, units=stated)


def _units(name: str, found: Mapping[str, _Item]) -> AngleUnits:
    """The unit of the angles whose unit neither file nor map states.

    Nobody keeps every joint within 3.2 degrees, so smaller values are radians. No leg turns by more than half a
    circle, so larger values are degrees. Between the two both are possible, and the user has to say which.
    """
    silent = {k: np.nanmax(np.abs(v.values)) for k, v in found.items() if v.units is None and k in INDEX}
    if max((v for k, v in silent.items() if k in SWINGING), default=0.0) > _MAX_LEG_RAD:
        return "degrees"
    if (largest := max(silent.values(), default=0.0)) < np.pi:
        return "radians"
    raise InputError(
        f"{name}: expected units of angles, found none, and the largest angle, {largest:.2f}, "
        "may be either's (units: degrees or radians, here or in a joint map)"
    )


def _stated(item: _Item, units: AngleUnits) -> AngleUnits:
    return "degrees" if (item.units or units) == "degrees" else "radians"


def _converted(item: _Item, units: AngleUnits) -> np.ndarray:
    """(T,) in radians or metres, NaN for a missing number."""
    scale = {"degrees": np.pi / 180, "mm": 1e-3}.get(item.units or units, 1.0)
    return np.where(np.isfinite(item.values), scale * item.values, np.nan)


def _check_units(
    name: str,
    found: Mapping[str, _Item],
    used: Mapping[str, np.ndarray],
    units: AngleUnits,
    place: Callable[[int], str],
) -> None:
    degrees = {k: float(np.nanmax(np.abs(v.values))) for k, v in found.items()
               if k in INDEX and _stated(v, units) == "degrees"}  # fmt: skip
    largest = max(degrees, key=lambda k: degrees[k], default=None)
    if largest is not None and not degrees.keys().isdisjoint(SWINGING) and 0 < degrees[largest] < np.pi:
        raise InputError(
            f"{name}: column {found[largest].label!r} has the largest angle, {degrees[largest]:.2f}; "
            "expected degrees, found what look like radians (units: radians reads them so)"
        )
    for k in SWINGING:
        if k in used and np.nanmax(np.abs(used[k])) > _MAX_LEG_RAD:
            frame = int(np.nanargmax(np.abs(used[k])))
            raise InputError(
                f"{name}: {place(frame)}, column {found[k].label!r}: {used[k][frame]:.1f} radians is more than "
                "half a turn; expected radians, found what look like degrees "
                "(units: degrees reads a .mot, .sto or table so)"
            )


def _knees(
    name: str,
    used: Mapping[str, np.ndarray],
    file: Columns,
    joint_map: JointMap | None,
    settings: ReaderSettings,
) -> tuple[Sign, bool]:
    """The sign of knee flexion in the file, and whether the angles still have that sign and must be changed.

    A joint map decides; else the setting, else what the file states, else the data. A knee flexes by tens of
    degrees and hardly hyperextends, so the side of zero that the angles reach furthest is flexion.
    """
    knees = np.concatenate([used[k] for k in KNEES if k in used] or [np.zeros(1)])
    # Percentiles, so that a few spikes do not decide.
    low, high = np.nanpercentile(knees, [1, 99])
    data: Sign = "positive" if high > -low else "negative"
    mapped = [
        joint_map.joints[k]
        for k in KNEES
        if joint_map and k in joint_map.joints and k in used and joint_map.joints[k].sign != "auto"
    ]
    if joint_map and mapped:
        if data == "positive" and high > _BENT_KNEE_RAD:
            raise InputError(
                f"{name}: column {mapped[0].parts[0]!r}: expected a knee that bends to negative angles "
                f"by the sign in {joint_map.name}, found {np.degrees(high):.0f} degrees"
            )
        return ("positive" if mapped[0].sign == -1 else "negative"), False
    sign = settings.knee_flexion if settings.knee_flexion != "auto" else file.knee_flexion or data
    return sign, sign == "positive"


def _unwrap(values: np.ndarray) -> np.ndarray:
    """(T,) without jumps by whole turns; missing values stay missing."""
    result, there = values.copy(), np.isfinite(values)
    result[there] = np.unwrap(values[there])
    return result


def _pelvis(used: Mapping[str, np.ndarray], frames: int) -> np.ndarray:
    """(T, 7): position, quaternion (w, x, y, z).

    OpenSim's convention: tilt about Z, then list about X, then rotation about Y, each about the axis that the
    rotations before have turned ("ZXY" in capitals: intrinsic).
    """
    zero = np.zeros(frames)
    position = np.stack([used.get(k, zero) for k in PELVIS_TRANSLATIONS], axis=1)
    turns = np.stack([used.get(k, zero) for k in PELVIS_ROTATIONS], axis=1)
    quaternion = Rotation.from_euler("ZXY", turns).as_quat(scalar_first=True)
    return np.concatenate([position, quaternion], axis=1)


def _check_posture(name: str, used: Mapping[str, np.ndarray]) -> None:
    """Raise InputError if all joints stay close to zero: the errors of a motion look like this, no posture does."""
    joints = [used[k] for k in NAMES if k in used]
    largest = max(float(np.nanmax(np.abs(values))) for values in joints)
    moves = max(float(np.nanmax(values) - np.nanmin(values)) for values in joints)
    # A file of zeros has another fault, which quality control names.
    if moves > 1e-9 and largest < _SMALLEST_POSTURE_RAD:
        raise InputError(
            f"{name}: expected joint angles, found none beyond {np.degrees(largest):.1f} degrees in {len(joints)} "
            "joints: these look like position errors (for example RRA's *_pErr.sto), not like a posture"
        )


def check_time(
    name: str, time_s: np.ndarray, settings: ReaderSettings, place: Callable[[int], str], format: str
) -> None:
    """Raise InputError for times that do not increase or cannot be seconds of a recorded movement.

    place: names frame i in messages. format: the file's format, for people.
    """
    _check_increase(name, time_s, place, format)
    _check_seconds(name, time_s, settings)


def _check_seconds(name: str, time_s: np.ndarray, settings: ReaderSettings) -> None:
    """Raise InputError for times that cannot be seconds of a recorded movement."""
    step, lasts = float(np.median(np.diff(time_s))), float(time_s[-1] - time_s[0])
    if 1 / step < settings.min_rate_hz:
        other = ""
        if settings.min_rate_hz <= 1000 / step <= 2000:
            other = (
                f". This looks like milliseconds ({1000 / step:.4g} Hz): divide the column by 1000, "
                "or read it with a joint map that says time_units: ms"
            )
        raise InputError(
            f"{name}: column 'time': expected at least {settings.min_rate_hz:g} frames a second (min_rate_hz), "
            f"found {1 / step:.3g}{other}"
        )
    if lasts > settings.max_duration_s:
        raise InputError(
            f"{name}: column 'time': expected at most {settings.max_duration_s:g} s (max_duration_s), "
            f"found {lasts:.0f} s from {time_s[0]:g} to {time_s[-1]:g}"
        )


def _check_increase(name: str, time_s: np.ndarray, place: Callable[[int], str], format: str) -> None:
    bad = np.flatnonzero(~np.isfinite(time_s))
    if len(bad):
        raise InputError(
            f"{name}: {place(int(bad[0]))}, column 'time': expected a number, found {time_s[bad[0]]}"
        )
    steps = np.diff(time_s)
    if (steps <= 0).any():
        i = int(np.argmax(steps <= 0))
        # A time that falls back to the beginning is the next trial's first.
        again = len(time_s) - i > 3 and time_s[i + 1] <= time_s[0] + 2 * np.median(np.abs(steps))
        trials = ": several trials follow one another in this file; save each in a file of its own"
        raise InputError(
            f"{name}: {place(i + 1)}, column 'time': expected time to increase, "
            f"found {time_s[i + 1]:g} after {time_s[i]:g}{trials if again else ''}"
        )
    if len(time_s) < 2:
        count = f"{len(time_s)} frame{'s' * (len(time_s) != 1)}"
        raise InputError(f"{name}: expected a movement, found {count} in this file ({format})")
