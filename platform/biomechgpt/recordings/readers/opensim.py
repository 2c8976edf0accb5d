"""Reads OpenSim motion files (.mot, .sto): headers of every version, columns in any order, and any separator.

The header's rules are those of OpenSim's own parser (OpenSim/Common/Storage.cpp): keys are `key=value` or `key
value`. If the header states no unit, an old .mot (version below 1) is in degrees and any other file in radians. The
skeleton's signs are OpenSim's except for the knee: `write` states its sign in the header, and `recording` detects
it in files without that line. Files whose header promises another number of rows, and files that a spreadsheet
saved, are read with a note, as long as every row is whole. Knows nothing about participants.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import numpy as np
from scipy.spatial.transform import Rotation

from biomechgpt.core.settings import InputError
from biomechgpt.motion.skeleton import INDEX, NAMES
from biomechgpt.recordings.readers.joint_map import PELVIS_ROTATIONS, PELVIS_TRANSLATIONS
from biomechgpt.recordings.readers.recording import Columns, ReaderSettings, Recording, Sign, assemble
from biomechgpt.recordings.readers.text import MAX_CELLS, decode

SUFFIXES = (".mot", ".sto")
_HEADER_LINE = re.compile(r"^[\s\"]*(endheader|(ncolumns|datacolumns|indegrees)[\t =])", re.I | re.M)
_QUATERNIONS = (
    "expected joint angles, found orientations of sensors (quaternions): compute angles first, with OpenSim's IMU "
    "Inverse Kinematics, and use the .mot file that it writes"
)
_COMMENTS = ("#", "%", "//")
_SYNTHETIC_LINE = "provenance: synthetic"
_KNEE_LINE = "knee flexion is "


def matches(content: bytes) -> bool:
    """Whether this is an OpenSim file: it has a line of a header, such as `endheader` or the number of columns."""
    head = decode(content[:65536])
    return head is not None and _HEADER_LINE.search("\n".join(head.text.splitlines())) is not None


def read(name: str, content: bytes, settings: ReaderSettings) -> Recording:
    """The recording in `content`. Raises InputError naming file, line and column."""
    decoded = decode(content)
    if decoded is None:
        raise InputError(
            f"{name}: expected text after an OpenSim header, found binary data: the file is damaged"
        )
    lines = decoded.text.splitlines()
    header = _header(name, lines)
    columns, numbers, notes = _table(name, lines, header)
    if header.rows is not None and len(numbers) < header.rows and not decoded.text.endswith(("\n", "\r")):
        # The file ends early and within a line: its last number may lack digits.
        columns, numbers = {k: v[:-1] for k, v in columns.items()}, numbers[:-1]
        notes = (*notes, "last row dropped, since the file ends within its line")
    if "time" not in columns:
        raise InputError(
            f"{name}: line {header.end + 1}: expected a column 'time', found {', '.join(columns)}"
        )
    as_promised = header.rows in (None, len(numbers))
    if not as_promised:
        notes = (*notes, f"its header promises {header.rows} rows, it has {len(numbers)}, all whole")
    degrees = header.degrees(name) if settings.units == "header" else settings.units == "degrees"
    file = Columns(
        format=f"OpenSim {_suffix(name) or SUFFIXES[0]}",
        values={k: v for k, v in columns.items() if k != "time"},
        units="degrees" if degrees else "radians",
        place=lambda i: f"line {numbers[i]}",
        time_s=columns["time"],
        declared_rate_hz=header.rate_hz if as_promised else None,
        knee_flexion=header.knee_flexion,
        title=header.title,
        notes=(decoded.note, *notes) if decoded.note else notes,
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
    data_type: what each cell holds, such as Quaternion; empty if the header does not say.
    synthetic: whether the header says that the movement was simulated or generated.
    """

    end: int
    version: float
    in_degrees: bool | None
    rows: int | None
    range_s: tuple[float, float] | None
    knee_flexion: Sign | None
    title: str
    data_type: str
    synthetic: bool

    def degrees(self, name: str) -> bool:
        if self.in_degrees is not None:
            return self.in_degrees
        return self.version < 1 and _suffix(name) != ".sto"  # a trial in an archive has no suffix

    @property
    def rate_hz(self) -> float | None:
        """The frame rate from an old header's number of rows and range of time."""
        if self.range_s is None or not self.rows or self.range_s[1] <= self.range_s[0]:
            return None
        return (self.rows - 1) / (self.range_s[1] - self.range_s[0])


def _header(name: str, lines: list[str]) -> _Header:
    version, in_degrees, rows, range_s = 0.0, None, None, None
    knee_flexion: Sign | None = None
    synthetic, data_type = False, ""
    for i, line in enumerate(lines):
        # A spreadsheet ends every line with separators, and puts a sentence with commas into quotes.
        text = line.strip(" \t,;").strip('"').strip()
        low = text.lower()
        if low.startswith("endheader"):
            title = lines[0].strip(' \t,;"').removeprefix("name ").strip()
            title = "" if i == 0 or "=" in title else title
            return _Header(
                i + 1, version, in_degrees, rows, range_s, knee_flexion, title, data_type, synthetic
            )
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
                rows = int(float(value))
            elif key == "datatype":
                data_type = value
            elif key == "indegrees":
                in_degrees = {"yes": True, "no": False}[value]
            elif key == "range":
                start, end = (float(part) for part in value.split())
                range_s = start, end
        except (ValueError, KeyError, OverflowError):
            wanted = {"indegrees": "yes or no", "range": "two numbers"}.get(key, "a number")
            raise InputError(f"{name}: line {i + 1}: {key}: expected {wanted}, found {value!r}") from None
    raise InputError(
        f"{name}: expected a header that ends with 'endheader', found none in {len(lines)} lines"
    )


def _table(
    name: str, lines: list[str], header: _Header
) -> tuple[dict[str, np.ndarray], list[int], tuple[str, ...]]:
    """Columns by name, the line number (from 1) of each row, and notes on how they were separated."""
    body = [(i + 1, line) for i, line in enumerate(lines) if i >= header.end and line.strip(" \t,;")]
    comments = sum(line.lstrip(' \t"').startswith(_COMMENTS) for _, line in body[1:])
    body = [*body[:1], *(row for row in body[1:] if not row[1].lstrip(' \t"').startswith(_COMMENTS))]
    if not body:
        raise InputError(
            f"{name}: line {header.end}: expected column names after 'endheader', found the file's end"
        )
    (first, title), *body = body
    if header.data_type.startswith("quaternion"):
        raise InputError(f"{name}: {_QUATERNIONS}")
    rows = [line for _, line in body]
    split, notes = _separator(title, rows)
    if comments:
        notes = (*notes, f"{comments} line{'s' * (comments > 1)} of comments skipped")
    labels = [_coordinate(label) for label in _labels(title, split, rows)]
    if labels and all(_is_number(label) for label in labels):
        raise InputError(
            f"{name}: line {first}: the column names are missing: expected a line that begins with 'time' after "
            "'endheader', found numbers (Pose2Sim's filtered files lack it: copy it from the file before filtering)"
        )
    for label in labels:
        if label in (*INDEX, *PELVIS_ROTATIONS, *PELVIS_TRANSLATIONS, "time") and labels.count(label) > 1:
            raise InputError(f"{name}: line {first}: column {label!r} appears {labels.count(label)} times")
    if len(body) * len(labels) > MAX_CELLS:
        raise InputError(
            f"{name}: expected at most {MAX_CELLS} numbers, found {len(body)} rows of {len(labels)}"
        )
    values = np.empty((len(body), len(labels)))
    for row, (number, line) in enumerate(body):
        cells = split(line)
        if len(cells) > len(labels) and not any(cells[len(labels) :]):
            cells = cells[: len(labels)]
        if len(cells) != len(labels):
            if any(_HEADER_LINE.match(later) for _, later in body[row:]):
                raise InputError(
                    f"{name}: line {number}: expected {len(labels)} values, found a second header: several trials "
                    "follow one another in this file; save each in a file of its own"
                )
            raise InputError(
                f"{name}: line {number}: expected {len(labels)} values, found {len(cells)}: "
                "the file is cut off or damaged"
            )
        try:
            values[row] = cells
        except ValueError:
            raise InputError(_not_a_number(name, number, labels, cells)) from None
    return dict(zip(labels, values.T, strict=True)), [number for number, _ in body], notes


def _separator(title: str, rows: list[str]) -> tuple[Callable[[str], list[str]], tuple[str, ...]]:
    """How the table's lines are split, and a note if a spreadsheet saved them."""
    mark = "" if "\t" in title else "," if "," in title else ";" if ";" in title else ""
    if mark:
        note = f"separated by {'commas' if mark == ',' else 'semicolons'}, as a spreadsheet saves it"
        decimal = mark == ";" and not any("." in row for row in rows)
        return lambda line: _cells(line, mark, decimal), (note,)
    # A tab separates: a comma is then a decimal comma, if no number has a point.
    if rows and "," in rows[0] and not any("." in row for row in rows):
        return lambda line: line.replace(",", ".").split(), ("decimal commas",)
    return str.split, ()


def _cells(line: str, mark: str, decimal: bool) -> list[str]:
    cells = [cell.strip().strip('"') for cell in line.split(mark)]
    return [cell.replace(",", ".") for cell in cells] if decimal else cells


def _labels(title: str, split: Callable[[str], list[str]], rows: list[str]) -> list[str]:
    """The column names; between tabs a name may hold spaces."""
    labels = [label.strip(' "') for label in title.split("\t")] if "\t" in title else split(title)
    labels = [label for label in labels if label]
    mixed = rows and len(labels) != len(split(rows[0])) == len(title.split())
    return title.split() if mixed else labels


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _coordinate(label: str) -> str:
    """The coordinate of a states file's label: `hip_flexion_r` of `/jointset/hip_r/hip_flexion_r/value`."""
    parts = label.split("/")
    label = parts[-2] if len(parts) > 2 and parts[-1] == "value" else label
    return "time" if label.lower() == "time" else label


def _not_a_number(name: str, number: int, labels: list[str], cells: list[str]) -> str:
    for label, cell in zip(labels, cells, strict=True):
        if cell.count(",") == 3 and all(map(_is_number, cell.split(","))):
            return f"{name}: line {number}, column {label!r}: {_QUATERNIONS}"
        if not _is_number(cell):
            return f"{name}: line {number}, column {label!r}: expected a number, found {cell!r}"
    return f"{name}: line {number}: expected numbers"
