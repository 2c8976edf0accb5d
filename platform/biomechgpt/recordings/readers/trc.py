"""Reads marker files (.trc): positions of markers or keypoints, from which inverse kinematics makes joint angles.

The header's second line names its keys and the third has their values (DataRate, Units, ...); the fourth line names
the markers. Cells are separated by tabs; an empty cell is a marker that was not seen.
"""

import numpy as np

from biomechgpt.core.settings import InputError
from biomechgpt.recordings.markers import Points
from biomechgpt.recordings.readers.from_points import recording_of
from biomechgpt.recordings.readers.recording import ReaderSettings, Recording
from biomechgpt.recordings.readers.text import MAX_CELLS

SUFFIXES = (".trc",)
_BEGINNING = b"PathFileType"


def matches(content: bytes) -> bool:
    """Whether this is a marker file: it begins with its key `PathFileType`."""
    return content[:64].removeprefix(b"\xef\xbb\xbf").lstrip().startswith(_BEGINNING)


def read(name: str, content: bytes, settings: ReaderSettings) -> Recording:
    """The recording in `content`. Raises InputError naming file and line."""
    return recording_of(name, parse(name, content), settings)


def parse(name: str, content: bytes) -> Points:
    """The positions in `content`. Raises InputError naming file and line."""
    lines = content.decode("utf-8-sig", errors="replace").splitlines()
    if len(lines) < 6:
        raise InputError(f"{name}: expected five lines of a header and frames, found {len(lines)} lines")
    header = dict(zip(lines[1].split("\t"), lines[2].split("\t"), strict=False))
    header = {key.strip().lower(): value.strip() for key, value in header.items()}
    names = [cell.strip() for cell in lines[3].split("\t")][2:]
    names = [cell for cell in names if cell]
    frames = sum(map(_is_frame, lines[4:]))
    if 3 * frames * len(names) > MAX_CELLS:  # cells that a line lacks are filled up
        raise InputError(
            f"{name}: expected at most {MAX_CELLS} numbers, found {frames} frames of {len(names)} markers"
        )
    rows = [_row(name, i, line, len(names)) for i, line in enumerate(lines[4:], 5) if _is_frame(line)]
    if not rows:
        raise InputError(f"{name}: expected frames after line 5, found none")
    table = np.array(rows)
    return Points(
        format="TRC",
        names=tuple(names),
        positions=table[:, 1:].reshape(len(table), len(names), 3),
        time_s=table[:, 0],
        units=header.get("units"),
        declared_rate_hz=_rate(name, header.get("datarate", "")),
    )


def _is_frame(line: str) -> bool:
    """Whether a line has a frame; the one that names X1, Y1, ... begins with a tab or with text."""
    return line.split("\t")[0].strip().replace(".", "", 1).isdigit()


def _row(name: str, number: int, line: str, count: int) -> list[float]:
    """Time and coordinates of one frame; an empty cell is NaN, and so are the cells that an editor cut off."""
    cells = [cell.strip() for cell in line.split("\t")][1 : 2 + 3 * count]
    try:
        values = [float(cell) if cell else np.nan for cell in cells]
    except ValueError as error:
        raise InputError(
            f"{name}: line {number}: expected numbers, found {error.args[0].split(':')[-1]}"
        ) from None
    return values + [np.nan] * (1 + 3 * count - len(values))


def _rate(name: str, text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{name}: line 3: DataRate: expected a number, found {text!r}") from None
