"""Reads OpenSim motion files (.mot, .sto): headers of every version, tabs or spaces, columns in any order.

The header's rules are those of OpenSim's own parser (OpenSim/Common/Storage.cpp): keys are `key=value` or `key
value`. If the header states no unit, an old .mot (version below 1) is in degrees and any other file in radians. The
skeleton's signs are OpenSim's except for the knee: `write` states its sign in the header, and `recording` detects
it in files without that line. Knows nothing about participants.
"""

import re
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import numpy as np
from scipy.spatial.transform import Rotation

from biomechgpt.core.settings import InputError
from biomechgpt.motion.skeleton import INDEX, NAMES
from biomechgpt.recordings.readers.joint_map import PELVIS_ROTATIONS, PELVIS_TRANSLATIONS
from biomechgpt.recordings.readers.recording import Columns, ReaderSettings, Recording, Sign, assemble

SUFFIXES = (".mot", ".sto")
_HEADER_LINE = re.compile(rb"^\s*(endheader|(ncolumns|datacolumns|indegrees)[\t =])", re.I | re.M)
_SYNTHETIC_LINE = "provenance: synthetic"
_KNEE_LINE = "knee flexion is "


def matches(content: bytes) -> bool:
    """Whether this is an OpenSim file: it has a line of a header, such as `endheader` or the number of columns."""
    head = content[:65536]
    return b"\x00" not in head and _HEADER_LINE.search(head) is not None


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
    file = Columns(
        format=f"OpenSim {_suffix(name) or SUFFIXES[0]}",
        values={k: v for k, v in columns.items() if k != "time"},
        units="degrees" if degrees else "radians",
        place=lambda i: f"line {numbers[i]}",
        time_s=columns["time"],
        declared_rate_hz=header.rate_hz,
        knee_flexion=header.knee_flexion,
        title=header.title,
    )
    recording = assemble(name, file, settings)
    return replace(recording, provenance="synthetic") if header.synthetic else recording


def write(
    time_s: np.ndarray,
    angles_rad: np.ndarray,
    pelvis: np.ndarray,
    joint_mask: np.ndarray | None = None,
    note: str = "",
    provenance: str = "recorded",
) -> str:
    """The text of a .mot file, in degrees and the skeleton's signs.

    time_s: (T,). angles_rad: (T, 34). pelvis: (T, 7).
    joint_mask: (34,) bool; joints that were not recorded get no column.
    note: a line of the header for people.
    provenance: recorded or synthetic. The header says so if it is synthetic, and `read` finds it there.
    The columns are in the order of OpenSim's own tools, pelvis first. Hardly any OpenSim model has a neck; the
    tools then ignore its columns. They also ignore the header's line about the knee and the note.
    """
    recorded = np.ones(len(NAMES), dtype=bool) if joint_mask is None else np.asarray(joint_mask, dtype=bool)
    turns = Rotation.from_quat(pelvis[:, 3:], scalar_first=True).as_euler("ZXY", degrees=True)
    columns = ["time", *PELVIS_ROTATIONS, *PELVIS_TRANSLATIONS, *np.array(NAMES)[recorded]]
    table = np.column_stack(
        [time_s, np.unwrap(turns, axis=0, period=360), pelvis[:, :3], np.degrees(angles_rad[:, recorded])]
    )
    synthetic = f"{_SYNTHETIC_LINE.capitalize()}.\n" if provenance == "synthetic" else ""
    header = (
        f"Coordinates\nversion=1\nnRows={len(table)}\nnColumns={len(columns)}\ninDegrees=yes\n\n"
        f"{_KNEE_LINE.capitalize()}negative.\n{synthetic}{note}\nendheader\n"
    )
    lines = ["\t".join(columns), *("\t".join(f"{value:.8f}" for value in row) for row in table)]
    return header + "\n".join(lines) + "\n"


def _suffix(name: str) -> str:
    return PurePosixPath(name.lower()).suffix


@dataclass(frozen=True)
class _Header:
    """Content of a header; None if the header does not state it.

    end: number of lines up to and including `endheader`.
    range_s: first and last time.
    knee_flexion: its sign, if the header states it.
    title: its first line, which names what the file holds; empty if a key stands there.
    synthetic: whether the header says that the movement was simulated or generated.
    """

    end: int
    version: float
    in_degrees: bool | None
    rows: int | None
    range_s: tuple[float, float] | None
    knee_flexion: Sign | None
    title: str
    synthetic: bool

    def degrees(self, name: str) -> bool:
        if self.in_degrees is not None:
            return self.in_degrees
        return self.version < 1 and _suffix(name) == ".mot"

    @property
    def rate_hz(self) -> float | None:
        """The frame rate from an old header's number of rows and range of time."""
        if self.range_s is None or not self.rows or self.range_s[1] <= self.range_s[0]:
            return None
        return (self.rows - 1) / (self.range_s[1] - self.range_s[0])


def _header(name: str, lines: list[str]) -> _Header:
    version, in_degrees, rows, range_s = 0.0, None, None, None
    knee_flexion: Sign | None = None
    synthetic = False
    for i, line in enumerate(lines):
        text = line.strip()
        low = text.lower()
        if low.startswith("endheader"):
            title = lines[0].strip().removeprefix("name ").strip()
            title = "" if i == 0 or "=" in title else title
            return _Header(i + 1, version, in_degrees, rows, range_s, knee_flexion, title, synthetic)
        if low.startswith("angles are in "):
            in_degrees = low.removeprefix("angles are in ").startswith("degrees")
            continue
        if low.startswith(_SYNTHETIC_LINE):
            synthetic = True
            continue
        if low.startswith(_KNEE_LINE):
            knee_flexion = "negative" if low.removeprefix(_KNEE_LINE).startswith("negative") else "positive"
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
            elif key == "range":
                start, end = (float(part) for part in value.split())
                range_s = start, end
        except (ValueError, KeyError):
            wanted = {"indegrees": "yes or no", "range": "two numbers"}.get(key, "a number")
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
        if label in (*INDEX, *PELVIS_ROTATIONS, *PELVIS_TRANSLATIONS, "time") and labels.count(label) > 1:
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
    """The coordinate of a states file's label: `hip_flexion_r` of `/jointset/hip_r/hip_flexion_r/value`."""
    parts = label.split("/")
    return parts[-2] if len(parts) > 2 and parts[-1] == "value" else label


def _not_a_number(name: str, number: int, labels: list[str], cells: list[str]) -> str:
    for label, cell in zip(labels, cells, strict=True):
        try:
            float(cell)
        except ValueError:
            return f"{name}: line {number}, column {label!r}: expected a number, found {cell!r}"
    return f"{name}: line {number}: expected numbers"
