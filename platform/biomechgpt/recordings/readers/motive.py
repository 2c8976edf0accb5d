"""Reads the CSV of OptiTrack Motive: positions of markers, from which inverse kinematics makes joint angles.

The first line has keys and their values: Format Version, Export Frame Rate, Length Units and others. Then lines
name the type (Marker, Bone, Rigid Body), the name and the property (Position, Rotation) of each column, and one its
axis, which begins with `Frame, Time (Seconds)`. An empty cell is a marker that was not seen. Layout: OptiTrack's
documentation, "Data Export: CSV". Bones and rigid bodies are not read: their axes are the program's own.
"""

import numpy as np

from biomechgpt.core.settings import InputError
from biomechgpt.recordings.markers import Points
from biomechgpt.recordings.readers.from_points import recording_of
from biomechgpt.recordings.readers.recording import ReaderSettings, Recording
from biomechgpt.recordings.readers.text import cells, decode, listed, numbers

SUFFIXES = (".csv",)
_BEGINNING = "Format Version,"
_HEADER_LINES = 15
"""Most lines before the line of axes."""
_MARKERS = ("marker", "skeleton marker", "rigid body marker", "bone marker")
"""Types of markers. Of equal names the first type is taken: later ones are where the program expects a marker."""
_UNITS = {"meters": "m", "centimeters": "cm", "millimeters": "mm"}


def matches(content: bytes) -> bool:
    """Whether this begins as Motive's CSV files do."""
    head = decode(content[:65536])
    return head is not None and head.text.startswith(_BEGINNING)


def read(name: str, content: bytes, settings: ReaderSettings) -> Recording:
    """The recording in `content`. Raises InputError naming file and line."""
    return recording_of(name, parse(name, content), settings)


def parse(name: str, content: bytes) -> Points:
    """The positions of markers in `content`. Raises InputError naming file and line."""
    decoded = decode(content)
    lines = decoded.text.splitlines() if decoded else []
    about = _about(lines[0] if lines else "")
    header = [cells(line, ",") for line in lines[1:_HEADER_LINES]]
    axes_at = next((i for i, row in enumerate(header) if row[:1] == ["Frame"]), None)
    if axes_at is None:
        raise InputError(f"{name}: expected a line that begins with Frame, found none: the file is cut off")
    axes, above = header[axes_at], header[:axes_at]
    columns = _columns(name, above, axes)
    body = [(i, line) for i, line in enumerate(lines[axes_at + 2 :], axes_at + 3) if line.strip(", \t")]
    values = numbers(name, body, ",", axes, 2)
    rate_hz = _rate(about.get("export frame rate") or about.get("capture frame rate", ""))
    return Points(
        format="OptiTrack Motive CSV",
        names=tuple(columns),
        positions=np.stack([values[:, triple] for triple in columns.values()], axis=1),
        time_s=values[:, 1],
        units=_UNITS.get(about.get("length units", "").lower()),
        declared_rate_hz=rate_hz,
    )


def _about(line: str) -> dict[str, str]:
    """{key in small letters: value} of the first line."""
    row = cells(line, ",")
    return {key.lower(): value for key, value in zip(row[::2], row[1::2], strict=False)}


def _columns(name: str, above: list[list[str]], axes: list[str]) -> dict[str, list[int]]:
    """{marker: numbers of its columns X, Y and Z}. Raises InputError if no marker is among the columns."""

    def cell(row: list[str], j: int) -> str:
        return row[j] if j < len(row) else ""

    rows = [row for row in above if len(row) > 2]
    properties = next((row for row in rows if "Position" in row), [])
    types, names = (rows[0], rows[1]) if len(rows) > 1 else ([], [])
    found: dict[str, dict[str, list[int]]] = {kind: {} for kind in _MARKERS}
    for j in range(2, len(axes)):
        kind = cell(types, j).lower()
        if kind in found and cell(properties, j) == "Position" and axes[j] in ("X", "Y", "Z"):
            found[kind].setdefault(cell(names, j), []).append(j)
    columns: dict[str, list[int]] = {}
    for kind in _MARKERS:
        for marker, triple in found[kind].items():
            if len(triple) == 3:
                columns.setdefault(marker, triple)
    if not columns:
        kinds = listed(dict.fromkeys(kind for kind in types[2:] if kind), 4) or "no columns"
        raise InputError(
            f"{name}: expected markers in this CSV of OptiTrack Motive, found {kinds}: export it with its "
            "labelled markers, or the skeleton as BVH, which is read too"
        )
    return columns


def _rate(stated: str) -> float | None:
    try:
        rate_hz = float(stated)
    except ValueError:
        return None
    return rate_hz if 0 < rate_hz < np.inf else None
