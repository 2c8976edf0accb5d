"""What is known of recordings: a table with a row a recording, checked line by line.

Columns `path` (relative to the folder) and `participant`, optionally `source`, then any annotations, text or
numbers; an empty cell was not collected. Knows what is wrong with a table and where; knows nothing about
files of movement, splits, or what the annotations mean.
"""

import csv
import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath

from biomechgpt.settings import InputError
from biomechgpt.trial import FIXED

KINDS: dict[str, str] = {
    "activity": "text",
    "impaired": "text",
    "diagnosis": "text",
    "assistive_device": "text",
    "falls_history": "text",
    "walking_speed": "number",
    "cadence": "number",
    "tug_time": "number",
    "fsst_time": "number",
    "site": "text",
    "age": "number",
    "sex": "text",
}
"""What the annotations that the program itself knows by name hold; of others, a table's values decide."""

_RESERVED = frozenset(FIXED.names) - {"participant", "source"}


@dataclass(frozen=True)
class Row:
    """One row of annotations.csv. `source` is where the recording comes from, as the user calls it."""

    line: int
    path: str
    participant: str
    source: str | None
    annotations: dict[str, str | float | None]


def read_annotations(uri: str, read_bytes: Callable[[str], bytes]) -> tuple[list[Row], dict[str, str]]:
    """Rows sorted by participant and path, and what each annotation column holds. Raises InputError."""
    lines, cells = _cells(uri, read_bytes(uri))
    for required in ("path", "participant"):
        if required not in cells:
            raise InputError(
                f"{uri}: line 1: expected a column {required!r}, found {', '.join(cells) or 'none'}"
            )
        for line, cell in zip(lines, cells[required], strict=True):
            if not cell:
                raise InputError(f"{uri}: line {line}: column {required!r} is empty")
    for name in cells:
        if name in _RESERVED:
            raise InputError(f"{uri}: line 1: column {name!r} is a name that a cohort itself uses: rename it")
    if not lines:
        raise InputError(f"{uri}: expected a row a recording, found none")
    paths = [_inside(uri, line, cell) for line, cell in zip(lines, cells["path"], strict=True)]
    first: dict[str, int] = {}
    for line, path in zip(lines, paths, strict=True):
        if path in first:
            raise InputError(f"{uri}: line {line}: {path!r} has a row already, line {first[path]}")
        first[path] = line
    names = [name for name in cells if name not in ("path", "participant", "source")]
    columns = {name: _kind(uri, name, lines, cells[name]) for name in names}
    values = {name: [_value(c, columns[name]) for c in cells[name]] for name in names}
    rows = [
        Row(
            line=line,
            path=paths[i],
            participant=cells["participant"][i],
            source=(cells["source"][i] or None) if "source" in cells else None,
            annotations={name: values[name][i] for name in names},
        )
        for i, line in enumerate(lines)
    ]
    return sorted(rows, key=lambda row: (row.participant, row.path)), columns


def _cells(uri: str, content: bytes) -> tuple[list[int], dict[str, list[str]]]:
    """Line numbers (from 1) of the rows, and each column's stripped cells."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{uri}: byte {error.start}: expected UTF-8 text, found something else") from None
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        table = [(reader.line_num, [c.strip() for c in row]) for row in reader if any(c.strip() for c in row)]
    except csv.Error as error:
        raise InputError(
            f"{uri}: line {reader.line_num}: not a table of comma-separated values: {error}"
        ) from None
    if not table:
        raise InputError(f"{uri}: expected a table whose first line names its columns, found an empty file")
    (_, header), *body = table
    for line, row in body:
        if len(row) != len(header):
            raise InputError(f"{uri}: line {line}: expected {len(header)} cells, found {len(row)}")
    columns: dict[str, list[str]] = {}
    for i, name in enumerate(header):
        column = [row[i] for _, row in body]
        if not name and not any(column):
            continue  # what a spreadsheet leaves at a table's right edge
        if not name:
            raise InputError(f"{uri}: line 1: column {i + 1} has values but no name")
        if name in columns:
            raise InputError(f"{uri}: line 1: column {name!r} appears twice")
        columns[name] = column
    return [line for line, _ in body], columns


def _inside(uri: str, line: int, cell: str) -> str:
    path = PurePosixPath(cell)
    if path.is_absolute() or ".." in path.parts:
        raise InputError(f"{uri}: line {line}: expected a path inside the folder, found {cell!r}")
    return str(path)


def _number(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _kind(uri: str, name: str, lines: list[int], cells: list[str]) -> str:
    """A column of KINDS holds what it says there; of another, the values decide."""
    filled = [
        (line, cell, _number(cell) is not None) for line, cell in zip(lines, cells, strict=True) if cell
    ]
    known = KINDS.get(name)
    if known == "text":
        return "text"
    numbers = [item for item in filled if item[2]]
    texts = [item for item in filled if not item[2]]
    if known == "number" and texts:
        line, cell, _ = texts[0]
        raise InputError(f"{uri}: line {line}, column {name!r}: expected a number, found {cell!r}")
    if numbers and texts:
        raise InputError(
            f"{uri}: column {name!r}: expected only text or only numbers, found "
            f"{texts[0][1]!r} in line {texts[0][0]} and {numbers[0][1]!r} in line {numbers[0][0]}"
        )
    return "number" if numbers or known == "number" else "text"


def _value(cell: str, kind: str) -> str | float | None:
    if not cell:
        return None
    return _number(cell) if kind == "number" else cell
