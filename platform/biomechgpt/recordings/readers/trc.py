"""Reads marker files (.trc): positions of markers or keypoints, from which inverse kinematics makes joint angles.

The header's second line names its keys and the third has their values (DataRate, Units, ...); the fourth line names
the markers. Cells are separated by tabs, or by commas or semicolons where a spreadsheet saved the file; an empty
cell is a marker that was not seen.
"""

import numpy as np

from biomechgpt.core.settings import InputError
from biomechgpt.recordings.markers import Points
from biomechgpt.recordings.readers.from_points import recording_of
from biomechgpt.recordings.readers.recording import ReaderSettings, Recording
from biomechgpt.recordings.readers.text import MAX_CELLS, cells, decode

SUFFIXES = (".trc",)
_BEGINNING = "PathFileType"


def matches(content: bytes) -> bool:
    """Whether this is a marker file: it begins with its key `PathFileType`."""
    head = decode(content[:4096])
    return head is not None and head.text.lstrip('" \r\n').startswith(_BEGINNING)


def read(name: str, content: bytes, settings: ReaderSettings) -> Recording:
    """The recording in `content`. Raises InputError naming file and line."""
    return recording_of(name, parse(name, content), settings)


def parse(name: str, content: bytes) -> Points:
    """The positions in `content`. Raises InputError naming file and line."""
    decoded = decode(content)
    lines, notes = _with_tabs(decoded.text.lstrip().splitlines() if decoded else [])
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
        declared_rate_hz=_rate(name, header.get("datarate", "").replace(",", ".")),
        notes=(*((decoded.note,) if decoded and decoded.note else ()), *notes),
    )


def _with_tabs(lines: list[str]) -> tuple[list[str], tuple[str, ...]]:
    """The lines with tabs between cells and points in numbers, and notes if a spreadsheet wrote others."""
    frames = [line for line in lines[5:] if line.strip()][:20]
    if any("\t" in line for line in frames):
        commas = any("," in line for line in frames) and not any("." in line for line in frames)
        changed = [line.replace(",", ".") for line in lines[5:]] if commas else lines[5:]
        return [*lines[:5], *changed], ("decimal commas",) if commas else ()
    for mark, note in ((";", "semicolons"), (",", "commas")):
        if any(mark in line for line in frames):
            decimal = mark == ";" and not any("." in line for line in frames)
            rows = ["\t".join(cells(line, mark)) for line in lines]
            changed = [line.replace(",", ".") for line in rows[5:]] if decimal else rows[5:]
            return [*rows[:5], *changed], (f"separated by {note}, as a spreadsheet saves it",)
    return lines, ()


def _is_frame(line: str) -> bool:
    """Whether a line has a frame; the one that names X1, Y1, ... begins with a tab or with text."""
    return line.split("\t")[0].strip().replace(".", "", 1).isdigit()


def _row(name: str, number: int, line: str, count: int) -> list[float]:
    """Time and coordinates of one frame; an empty cell is NaN, and so are the cells that an editor cut off."""
    row = [cell.strip() for cell in line.split("\t")][1 : 2 + 3 * count]
    try:
        values = [float(cell) if cell else np.nan for cell in row]
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
