"""Reads plain tables, CSV, TSV and Parquet: a column of time and one per joint, by our names or by a joint map's.

The cells of a text are separated by semicolons, tabs, bars, commas or spaces; `cells` reads their numbers. Above
the line that names the columns may be a line `sep=;`, comments and a title; below it may be a line of units. Empty
lines, empty columns at the end and lines of text below the table are skipped. The unit of angles is stated by the
line of units, the column names, the joint map or the settings, or detected from the values. Empty cells, nulls and
errors of a spreadsheet are missing values. Knows nothing about who was recorded.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from biomechgpt.core.settings import InputError
from biomechgpt.recordings.readers import cells
from biomechgpt.recordings.readers.column_names import seconds_of
from biomechgpt.recordings.readers.joint_map import AngleUnits
from biomechgpt.recordings.readers.recording import (
    Columns,
    ReaderSettings,
    Recording,
    assemble,
)
from biomechgpt.recordings.readers.text import decode

SUFFIXES = (".csv", ".parquet")
_PARQUET = b"PAR1"
_DELIMITERS = ";\t|,"
_PREAMBLE = 20
"""Most lines above the line of names."""
_FOOTER = 10
"""Most lines of text below the table."""
_SAMPLE = 200
"""Rows that tell how numbers are written."""
_UNITS: dict[str, AngleUnits] = {
    **dict.fromkeys(("deg", "degs", "degree", "degrees", "°", "[deg]", "(deg)", "[°]", "(°)"), "degrees"),
    **dict.fromkeys(("rad", "rads", "radian", "radians", "[rad]", "(rad)"), "radians"),
}
_OTHER_UNITS = {
    "",
    "s",
    "ms",
    "sec",
    "seconds",
    "m",
    "mm",
    "cm",
    "-",
    "[s]",
    "[m]",
    "(s)",
    "(m)",
    "[mm]",
    "n",
    "nm",
}
"""What else a line of units holds."""
_MAX_CELLS = 20_000_000
"""Most numbers in a Parquet file: it is compressed, so that a small file may hold more than memory does."""
_MAX_COLUMNS = 2000
"""Most columns of a Parquet file."""


def matches(content: bytes) -> bool:
    """Whether this is Parquet, or a line of names above a line that is mostly numbers."""
    if content[:4] == _PARQUET:
        return True
    head = decode(content[:65536])
    return head is not None and _layout(head.text.splitlines()) is not None


def read(name: str, content: bytes, settings: ReaderSettings) -> Recording:
    """The recording in `content`. Raises InputError naming file, line or row, and column."""
    if content[:4] == _PARQUET:
        file = Columns("Parquet", _parquet(name, content), None, lambda i: f"row {i}")
    else:
        file = parse(name, content)
    return assemble(name, with_units(file, settings), settings)


def is_time(column: str) -> bool:
    """Whether a column has a usual name for times."""
    return seconds_of(column) is not None


def with_units(file: Columns, settings: ReaderSettings) -> Columns:
    """The columns with the unit that the settings state, if they state one."""
    return file if settings.units == "header" else replace(file, units=settings.units)


def _parquet(name: str, content: bytes) -> dict[str, np.ndarray]:
    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        if (cells := file.metadata.num_rows * file.metadata.num_columns) > _MAX_CELLS:
            raise InputError(f"{name}: expected at most {_MAX_CELLS} cells, found {cells}")
        if (count := file.metadata.num_columns) > _MAX_COLUMNS:
            raise InputError(f"{name}: expected at most {_MAX_COLUMNS} columns, found {count}")
        size = sum(
            file.metadata.row_group(i).total_byte_size for i in range(file.metadata.num_row_groups)
        )  # unpacked
        if size > 8 * _MAX_CELLS:
            raise InputError(
                f"{name}: expected at most {8 * _MAX_CELLS >> 20} MiB unpacked, found {size >> 20}"
            )
        numbers = [
            f.name for f in file.schema_arrow if pa.types.is_floating(f.type) or pa.types.is_integer(f.type)
        ]
        table = file.read(columns=numbers, use_threads=False)
        return {key: table[key].cast(pa.float64()).to_numpy() for key in numbers}
    except KeyError as error:
        raise InputError(f"{name}: a column appears twice: {error}") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{name}: expected Parquet, found a damaged file: {error}") from None


@dataclass(frozen=True)
class _Layout:
    """Where a text's table is.

    delimiter: between its cells.
    names: index of the line that names the columns.
    units: the cells of the line of units below it, if there is one.
    first: index of the first line of numbers.
    """

    delimiter: str
    names: int
    units: tuple[str, ...]
    first: int

    @property
    def notes(self) -> tuple[str, ...]:
        lines = f"{self.names} line{'s' * (self.names > 1)}"
        return (f"{lines} above the column names skipped",) if self.names else ()


def _layout(lines: Sequence[str]) -> _Layout | None:
    """The first line of names with numbers in the next line, or in the one after a line of units."""
    stated = lines[0].strip().strip('"').lower() if lines else ""
    given = stated[4:5] if stated.startswith("sep=") else ""
    for i, line in enumerate(lines[:_PREAMBLE]):
        delimiter = given or _delimiter(line)
        names = _names(line, delimiter)
        if len(names) < 3 or any(cells.is_number(k) for k in names if k):
            continue
        below = [(n, _cells(text, delimiter)) for n, text in enumerate(lines[i + 1 : i + 6], i + 1)]
        below = [(n, row) for n, row in below if row][:2]
        if below and _is_row(below[0][1], names):
            return _Layout(delimiter, i, (), below[0][0])
        is_units = len(below) > 1 and all(_is_unit(cell) for cell in below[0][1])
        if is_units and _is_row(below[1][1], names):
            return _Layout(delimiter, i, tuple(below[0][1]), below[1][0])
    return None


def _is_unit(cell: str) -> bool:
    return cell.lower() in _UNITS or cell.lower() in _OTHER_UNITS


def _is_row(row: Sequence[str], names: Sequence[str]) -> bool:
    """Whether a line below the names is mostly numbers."""
    return abs(len(row) - len(names)) <= 1 and 2 * sum(map(cells.is_number, row)) > len(row)


def parse(name: str, content: bytes) -> Columns:
    """The columns of a text, without those that hold only text. Raises InputError naming line and column."""
    decoded = decode(content)
    if decoded is None:
        raise InputError(f"{name}: expected text, found binary data: the file is damaged")
    lines = decoded.text.splitlines()
    layout = _layout(lines)
    if layout is None:
        raise InputError(f"{name}: expected a line of column names above lines of numbers, found none")
    names = _names(lines[layout.names], layout.delimiter)
    rows, below = _rows(name, lines, layout, len(names))
    decimal = cells.decimal_mark(cell for _, row in rows[:_SAMPLE] for cell in row)
    units = [cell.lower() for cell in layout.units] + [""] * len(names)
    angles = {_UNITS[unit] for unit in units if unit in _UNITS}
    columns: dict[str, np.ndarray] = {}
    for j, key in enumerate(names):
        if key in columns:
            raise InputError(f"{name}: line {layout.names + 1}: column {key!r} appears twice")
        column = [(number, row[j]) for number, row in rows]
        if (values := _numbers(name, key, column, decimal)) is not None:
            columns[key] = values * _scale(units[j], mixed=len(angles) > 1)
    return Columns(
        format="CSV",
        values=columns,
        units="degrees" if "degrees" in angles else "radians" if angles else None,
        place=lambda i: f"line {rows[i][0]}",
        notes=(
            *((decoded.note,) if decoded.note else ()),
            *layout.notes,
            *(("decimal commas",) if decimal == "," else ()),
            *((f"{below} line{'s' * (below > 1)} below the table skipped",) if below else ()),
        ),
    )


def _rows(
    name: str, lines: Sequence[str], layout: _Layout, width: int
) -> tuple[list[tuple[int, list[str]]], int]:
    """(number of the line from 1, `width` cells) of each row, and how many lines of text stand below the table.

    Raises InputError for a row of another width; more cells are no fault if they are empty.
    """
    rows = []
    for number, line in enumerate(lines[layout.first :], layout.first + 1):
        row = _row(line, layout.delimiter)
        if any(row):
            rows.append((number, row))
    below = 0
    while len(rows) > 1 and below < _FOOTER and _is_text(rows[-1][1]):
        rows.pop()
        below += 1
    for i, (number, row) in enumerate(rows):
        if len(row) < width or any(row[width:]):
            raise InputError(
                f"{name}: line {number}: expected {width} cells, found {len(row)}: the file is cut off or damaged"
            )
        rows[i] = number, row[:width]
    return rows, below


def _is_text(row: Sequence[str]) -> bool:
    """Whether a line is no row of a table: its first cell is a word, as of `mean` or a sentence."""
    first = next(cell for cell in row if cell)
    return not cells.is_number(first) and cells.clock_s(first) is None


def _scale(unit: str, mixed: bool) -> float:
    """What makes metres and seconds of a column, and degrees where only some angles are in degrees."""
    if mixed and _UNITS.get(unit) == "radians":
        return 180 / np.pi
    return {"mm": 1e-3, "cm": 1e-2, "ms": 1e-3}.get(unit.strip("[]()"), 1.0)


def _numbers(
    name: str, key: str, column: Sequence[tuple[int, str]], decimal: cells.Decimal
) -> np.ndarray | None:
    """A column's numbers; None if it holds only text. column: (number of the line, cell) of each row."""
    values = [cells.number(cell, decimal) for _, cell in column]
    if all(value is None for value in values):
        if not is_time(key):
            return None
        values = [cells.clock_s(cell) for _, cell in column]
    for (line, cell), value in zip(column, values, strict=True):
        if value is None:
            again = ": the names stand there again, so that several trials follow one another in this file"
            raise InputError(
                f"{name}: line {line}, column {key!r}: expected a number, found {cell!r}"
                + (again if cell.strip() == key else "")
            )
    return np.array(values, dtype=float)


def _row(line: str, delimiter: str) -> list[str]:
    """A line's cells."""
    if delimiter == " ":
        return line.split()
    try:
        return [
            cell.strip() for cell in next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])
        ]
    except csv.Error:
        return []


def _cells(line: str, delimiter: str) -> list[str]:
    """A line's cells, without the separators that a spreadsheet adds at its end."""
    row = _row(line, delimiter)
    while row and not row[-1]:
        row.pop()
    return row


def _names(line: str, delimiter: str) -> list[str]:
    """The cells of a line of names, which some programs begin with a mark of a comment."""
    return _cells(line.lstrip("#% "), delimiter)


def _delimiter(line: str) -> str:
    return next((d for d in _DELIMITERS if d in line), " ")
