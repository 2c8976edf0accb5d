"""Reads OpenSim motion files (.mot, .sto): headers of every version, tabs or spaces, columns in any order.

The header's rules are those of OpenSim's own parser (OpenSim/Common/Storage.cpp): keys as `key=value` or
`key value`, and without a word on units an old .mot (version below 1) is in degrees, all else in radians.
Knows nothing about signs: the skeleton's are OpenSim's, but for the knee's, which `recording` finds.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from scipy.spatial.transform import Rotation

from biomechgpt.cohort.readers.recording import ReaderSettings, Recording, assemble
from biomechgpt.settings import InputError
from biomechgpt.skeleton import INDEX, NAMES

SUFFIXES = (".mot", ".sto")
_TURNS = frozenset({*INDEX, "pelvis_tilt", "pelvis_list", "pelvis_rotation"})
_TRANSLATIONS = ("pelvis_tx", "pelvis_ty", "pelvis_tz")


def matches(content: bytes) -> bool:
    """Whether this is an OpenSim file: its header ends with `endheader`, or names its columns' number."""
    head = content[:65536].lower()
    return b"\x00" not in head and any(
        k in head for k in (b"endheader", b"indegrees", b"ncolumns", b"datacolumns")
    )


def read(name: str, content: bytes, settings: ReaderSettings) -> Recording:
    """The recording in `content`. Raises InputError naming file, line and column."""
    lines = content.decode("utf-8-sig", errors="replace").splitlines()
    header = _header(name, lines)
    columns, numbers = _table(name, lines, header)
    if "time" not in columns:
        raise InputError(
            f"{name}: line {header.end + 1}: expected a column 'time', found {', '.join(columns)}"
        )
    degrees = header.degrees(name) if settings.units == "header" else settings.units == "degrees"
    angles = {k: v for k, v in columns.items() if k in _TURNS}
    if degrees:
        _check_degrees(name, angles)
        angles = {k: np.radians(v) for k, v in angles.items()}
    # Translations are metres whatever the header says of angles.
    metres = {k: columns[k] for k in _TRANSLATIONS if k in columns}
    return assemble(name, columns["time"], {**angles, **metres}, settings, lambda i: f"line {numbers[i]}")


def write(time_s: np.ndarray, angles_rad: np.ndarray, pelvis: np.ndarray) -> str:
    """A .mot file's text: times (T,), angles (T, 34), pelvis (T, 7); in degrees, the skeleton's signs.

    Columns as OpenSim's own tools write them: pelvis first; the neck is a column of ours, which they ignore.
    """
    turns = Rotation.from_quat(pelvis[:, 3:], scalar_first=True).as_euler("ZXY", degrees=True)
    columns = ["time", "pelvis_tilt", "pelvis_list", "pelvis_rotation", *_TRANSLATIONS, *NAMES]
    table = np.column_stack(
        [time_s, np.unwrap(turns, axis=0, period=360), pelvis[:, :3], np.degrees(angles_rad)]
    )
    header = (
        f"Coordinates\nversion=1\nnRows={len(table)}\nnColumns={len(columns)}\ninDegrees=yes\n\nendheader\n"
    )
    lines = ["\t".join(columns), *("\t".join(f"{value:.8f}" for value in row) for row in table)]
    return header + "\n".join(lines) + "\n"


@dataclass(frozen=True)
class _Header:
    """What a header says; `end` is the number of lines up to and with `endheader`."""

    end: int
    version: float
    in_degrees: bool | None
    rows: int | None

    def degrees(self, name: str) -> bool:
        if self.in_degrees is not None:
            return self.in_degrees
        return self.version < 1 and PurePosixPath(name.lower()).suffix == ".mot"


def _header(name: str, lines: list[str]) -> _Header:
    version, in_degrees, rows = 0.0, None, None
    for i, line in enumerate(lines):
        text = line.strip()
        low = text.lower()
        if low.startswith("endheader"):
            return _Header(i + 1, version, in_degrees, rows)
        if low.startswith("angles are in "):
            in_degrees = low.removeprefix("angles are in ").startswith("degrees")
            continue
        key, _, value = low.partition("=") if "=" in low else low.replace("\t", " ").partition(" ")
        key, value = key.strip(), value.strip()
        try:
            if key == "version":
                version = float(value)
            elif key in ("nrows", "nr", "datarows"):
                rows = int(value)
            elif key == "indegrees":
                in_degrees = {"yes": True, "no": False}[value]
        except (ValueError, KeyError):
            wanted = "yes or no" if key == "indegrees" else "a number"
            raise InputError(f"{name}: line {i + 1}: {key}: expected {wanted}, found {value!r}") from None
    raise InputError(
        f"{name}: expected a header that ends with 'endheader', found none in {len(lines)} lines"
    )


def _table(name: str, lines: list[str], header: _Header) -> tuple[dict[str, np.ndarray], list[int]]:
    """Columns by name, and the line number (from 1) of each row."""
    body = [(i + 1, line) for i, line in enumerate(lines) if i >= header.end and line.strip()]
    if not body:
        raise InputError(
            f"{name}: line {header.end}: expected column names after 'endheader', found the file's end"
        )
    (first, title), *body = body
    labels = [_coordinate(label) for label in title.split()]
    for label in labels:
        if label in (*_TURNS, *_TRANSLATIONS, "time") and labels.count(label) > 1:
            raise InputError(f"{name}: line {first}: column {label!r} appears {labels.count(label)} times")
    values = np.empty((len(body), len(labels)))
    for row, (number, line) in enumerate(body):
        cells = line.split()
        if len(cells) != len(labels):
            raise InputError(
                f"{name}: line {number}: expected {len(labels)} values, found {len(cells)}: "
                "the file is cut off or damaged"
            )
        try:
            values[row] = cells
        except ValueError:
            raise InputError(_not_a_number(name, number, labels, cells)) from None
    if header.rows is not None and header.rows != len(body):
        raise InputError(
            f"{name}: line {body[-1][0] if body else first}: the header promises {header.rows} rows, "
            f"found {len(body)}: the file is cut off or damaged"
        )
    return dict(zip(labels, values.T, strict=True)), [number for number, _ in body]


def _coordinate(label: str) -> str:
    """`hip_flexion_r` of a states file's `/jointset/hip_r/hip_flexion_r/value`; other labels as they are."""
    parts = label.split("/")
    return parts[-2] if len(parts) > 2 and parts[-1] == "value" else label


def _not_a_number(name: str, number: int, labels: list[str], cells: list[str]) -> str:
    for label, cell in zip(labels, cells, strict=True):
        try:
            float(cell)
        except ValueError:
            return f"{name}: line {number}, column {label!r}: expected a number, found {cell!r}"
    return f"{name}: line {number}: expected numbers"


def _check_degrees(name: str, angles: Mapping[str, np.ndarray]) -> None:
    """Nobody keeps every joint within 3.2 degrees: such values are radians that pass for degrees."""
    joints = {
        k: float(np.abs(v).max()) for k, v in angles.items() if k in INDEX and np.isfinite(v).all() and len(v)
    }
    largest = max(joints, key=lambda k: joints[k], default=None)
    if largest is not None and 0 < joints[largest] < np.pi:
        raise InputError(
            f"{name}: column {largest!r} has the largest angle, {joints[largest]:.2f}; "
            "expected degrees, found what look like radians (units: radians reads them so)"
        )
