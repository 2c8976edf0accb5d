"""Reads Qualisys' trajectories (.tsv): positions of markers, from which inverse kinematics makes joint angles.

The file begins with lines of a key and its values: NO_OF_FRAMES, FREQUENCY, MARKER_NAMES and others. A line that
names the columns may follow. Each further line has the coordinates of one frame in millimetres, after the frame's
number and time if these were exported. An empty cell, `NULL` or three zeros are a marker that was not seen. Layout:
QTM documentation, "Motion data (.tsv)".
"""

import re

import numpy as np

from biomechgpt.core.settings import InputError
from biomechgpt.recordings.markers import Points
from biomechgpt.recordings.readers.from_points import recording_of
from biomechgpt.recordings.readers.recording import ReaderSettings, Recording
from biomechgpt.recordings.readers.text import MAX_CELLS, decode

SUFFIXES = (".tsv",)
_BEGINNING = re.compile(r"(FILE_VERSION\t[^\n]*\n)?NO_OF_FRAMES\t")
_KEY = re.compile(r"[A-Z][A-Z_0-9]+$")
_NOT_SEEN = {"", "null", "nan", "-"}
_NUMBER_AND_TIME = 2


def matches(content: bytes) -> bool:
    """Whether this is a header of Qualisys that names markers."""
    head = decode(content[:65536])
    if head is None or not head.text.startswith(("FILE_VERSION", "NO_OF_FRAMES")):
        return False
    lines = head.text.splitlines()
    return bool(_BEGINNING.match("\n".join(lines[:2]))) and any(
        line.startswith("MARKER_NAMES\t") for line in lines[:60]
    )


def read(name: str, content: bytes, settings: ReaderSettings) -> Recording:
    """The recording in `content`. Raises InputError naming file and line."""
    return recording_of(name, parse(name, content), settings)


def parse(name: str, content: bytes) -> Points:
    """The positions in `content`. Raises InputError naming file and line."""
    decoded = decode(content)
    lines = decoded.text.splitlines() if decoded else []
    header, first = _header(lines)
    if header.get("DATA_INCLUDED", ["3D"])[0].upper() != "3D":
        found = header["DATA_INCLUDED"][0]
        raise InputError(f"{name}: DATA_INCLUDED: expected 3D, found {found}: export the trajectories")
    markers = [cell for cell in header.get("MARKER_NAMES", []) if cell]
    rows = [(i, line.split("\t")) for i, line in enumerate(lines[first:], first + 1) if line.strip()]
    if not markers or not rows:
        raise InputError(
            f"{name}: expected names of markers and frames, found {len(markers)} and {len(rows)}"
        )
    if 3 * len(markers) * len(rows) > MAX_CELLS:
        raise InputError(
            f"{name}: expected at most {MAX_CELLS} numbers, found {len(rows)} frames of {len(markers)} markers"
        )
    start = _start(name, *rows[0], len(markers))
    width = start + 3 * len(markers)
    values = np.full((len(rows), width), np.nan)
    for row, (number, cells) in enumerate(rows):
        # A tab at the end of a line makes one empty cell more.
        if len(cells) < width or any(cell.strip() for cell in cells[width:]):
            raise InputError(
                f"{name}: line {number}: expected {width} cells, found {len(cells)}: the file is cut off or damaged"
            )
        for j, cell in enumerate(cells[:width]):
            if cell.strip().lower() not in _NOT_SEEN:
                values[row, j] = _number(name, number, cell)
    rate_hz = _rate(name, header)
    if start == 0 and rate_hz is None:
        raise InputError(f"{name}: FREQUENCY: expected a number, or a column of time, found neither")
    return Points(
        format="Qualisys TSV",
        names=tuple(markers),
        positions=values[:, start:].reshape(len(rows), len(markers), 3),
        time_s=values[:, 1] if start else np.arange(len(rows)) / (rate_hz or 1.0),
        declared_rate_hz=rate_hz,
    )


def _header(lines: list[str]) -> tuple[dict[str, list[str]], int]:
    """{key: values} of the lines before the frames, and the number of the first frame's line, from 0."""
    header: dict[str, list[str]] = {}
    for i, line in enumerate(lines):
        key, *values = [cell.strip() for cell in line.split("\t")]
        if _KEY.match(key) and key != "NULL":
            header.setdefault(key, values or [""])
        elif key != "Frame" and not key.endswith((" X", " x")):  # no line of column names either
            return header, i
    return header, len(lines)


def _start(name: str, number: int, cells: list[str], markers: int) -> int:
    """How many columns stand before the coordinates: none, or number and time of the frame."""
    more = len(cells) - 3 * markers
    at_end = not cells[-1].strip()
    for start in (more, more - at_end):
        if start in (0, _NUMBER_AND_TIME):
            return start
    raise InputError(
        f"{name}: line {number}: expected three cells for each of {markers} markers, perhaps after number and "
        f"time, found {len(cells)} cells"
    )


def _number(name: str, number: int, cell: str) -> float:
    try:
        return float(cell.replace(",", "."))
    except ValueError:
        raise InputError(f"{name}: line {number}: expected a number, found {cell!r}") from None


def _rate(name: str, header: dict[str, list[str]]) -> float | None:
    """The frame rate; None if it is that of an external clock."""
    stated = header.get("FREQUENCY", ["EXT"])[0]
    if stated.upper() == "EXT":
        return None
    rate_hz = _number(name, list(header).index("FREQUENCY") + 1, stated)
    if not 0 < rate_hz < np.inf:
        raise InputError(f"{name}: FREQUENCY: expected a number above 0, found {stated}")
    return rate_hz
