"""Joint maps: a small YAML file that says which column of a lab's files is which joint of the skeleton.

    units: degrees            # of angles, where the file itself does not say
    time: t                   # the column of time, or rate_hz for files without one
    joints:
      hip_flexion_r: Hip R Flex                     # a column, a C3D point's axis (RHipAngles.x) ...
      knee_angle_r: {column: Knee R Flex, sign: -1} # ... with its sign changed: our knee flexion is negative
      lumbar_extension: {column: [L5 S1, L4 L5]}    # ... or angles of one chain, added up

An angle is sign * column + offset. A joint that a map does not name is read from a column with that joint's own
name, if there is one. Knows nothing about file formats.
"""

from collections.abc import Collection, Mapping
from functools import cache
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator

from biomechgpt.core.settings import InputError, Settings, find, read_yaml, validate
from biomechgpt.motion.skeleton import INDEX

PELVIS_ROTATIONS = ("pelvis_tilt", "pelvis_list", "pelvis_rotation")
"""OpenSim's names, in the order in which the rotations are applied: about Z, then X, then Y."""
PELVIS_TRANSLATIONS = ("pelvis_tx", "pelvis_ty", "pelvis_tz")
"""OpenSim's names: forward, up and right, in metres."""

AngleUnits = Literal["degrees", "radians"]
_SHIPPED = "configs/joint_maps"


class Column(Settings):
    """The column of one joint's angle, or of one coordinate of the pelvis."""

    column: str | tuple[str, ...]
    """The file's column; several columns are added up."""
    sign: Literal[1, -1, "auto"] = 1
    """-1 if positive in the file is negative in the skeleton. auto, for a knee: the data shows which way it
    bends."""
    offset: float = 0.0
    """Added after the sign, in the column's unit."""
    units: AngleUnits | Literal["m", "mm"] | None = None
    """Unit of this column. Default: the file's unit for angles, metres for translations."""

    @property
    def parts(self) -> tuple[str, ...]:
        return (self.column,) if isinstance(self.column, str) else self.column

    def values(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """(T,) in the column's unit, our sign."""
        sign = 1 if self.sign == "auto" else self.sign
        return np.asarray(sign * np.sum([columns[part] for part in self.parts], axis=0) + self.offset)


class JointMap(Settings):
    """Mapping from the columns of a lab's files to the joints of the skeleton."""

    name: str
    """Name of the map in messages: the name of its file."""
    units: AngleUnits | None = None
    """Unit of angles in files that do not state it."""
    time: str = "time"
    """Column of time."""
    time_units: Literal["s", "ms"] = "s"
    """Unit of the column of time."""
    rate_hz: float | None = Field(None, gt=0)
    """Frame rate of files without a column of time."""
    optional_suffix: str = ""
    """Some files write this after a point's name: with V, the map's RHipAngles.x is also RHipAnglesV.x."""
    joints: dict[str, Column] = Field(min_length=1)
    """Each joint and its column."""

    @field_validator("joints", mode="before")
    @classmethod
    def _short(cls, joints: Any) -> Any:
        """`joint: column` is `joint: {column: column}`."""
        if not isinstance(joints, Mapping):
            return joints
        return {k: {"column": v} if isinstance(v, str | list) else v for k, v in joints.items()}

    @field_validator("joints")
    @classmethod
    def _known(cls, joints: dict[str, Column]) -> dict[str, Column]:
        targets = (*INDEX, *PELVIS_ROTATIONS, *PELVIS_TRANSLATIONS)
        for joint, column in joints.items():
            if joint not in targets:
                raise ValueError(f"{joint!r} is no joint of the skeleton ({', '.join(targets)})")
            wrong = ("degrees", "radians") if joint in PELVIS_TRANSLATIONS else ("m", "mm")
            if column.sign == "auto" and not joint.startswith("knee_angle"):
                raise ValueError(f"{joint}: sign: expected 1 or -1 (auto is for knees)")
            if column.units in wrong:
                raise ValueError(f"{joint}: {column.units} is no unit of it")
        return joints

    def present(self, columns: Collection[str]) -> list[str]:
        """The joints all of whose columns a file has."""
        names = {self._without_suffix(column) for column in columns}.union(columns)
        return [j for j, column in self.joints.items() if all(part in names for part in column.parts)]

    def renamed(self, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """A file's columns by the map's own names: without the optional suffix."""
        return {self._without_suffix(k): v for k, v in columns.items()} | dict(columns)

    def _without_suffix(self, column: str) -> str:
        point, dot, axis = column.rpartition(".")
        return f"{point.removesuffix(self.optional_suffix)}{dot}{axis}" if dot else column


def load_maps(path: str) -> tuple[JointMap, ...]:
    """The map in a YAML file, or those of a folder. Raises InputError naming file and key."""
    where = find(path)
    files = sorted(where.glob("*.yaml")) if where.is_dir() else [where]
    if not files:
        raise InputError(f"{path}: expected .yaml files that map joints, found none in this folder")
    return tuple(validate(JointMap, {"name": file.name, **read_yaml(file)}, str(file)) for file in files)


@cache
def shipped_maps() -> tuple[JointMap, ...]:
    """The maps that come with the package, in configs/joint_maps; none where it is used without them."""
    return load_maps(_SHIPPED) if find(_SHIPPED).is_dir() else ()


def choose(name: str, maps: Collection[JointMap], columns: Collection[str]) -> JointMap | None:
    """The map that finds most of its joints in a file; None if no map finds any.

    name: the file, in messages. columns: the file's columns. Raises InputError where two maps fit equally well.
    """
    fits = sorted(maps, key=lambda m: -len(m.present(columns)))
    counts = [len(m.present(columns)) for m in fits]
    if not fits or counts[0] == 0:
        return None
    if len(fits) > 1 and counts[1] == counts[0]:
        raise InputError(
            f"{name}: expected one joint map that fits its columns, found {fits[0].name} and {fits[1].name}, "
            f"which fit {counts[0]} joints each (readers.joint_map: FILE names one)"
        )
    return fits[0]
