"""Reads plain tables, CSV, TSV and Parquet: a column of time and one per joint, by our names or by a joint map's.

The cells of a text are separated by commas, tabs or semicolons (then a comma is a decimal comma). Above the line
that names the columns may be a line `sep=;`, comments and a title; below it may be a line of units. The unit of
angles is stated by that line, the joint map or the settings, or detected from the values. Empty cells and nulls are
missing values. Knows nothing about who was recorded.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from biomechgpt.core.settings import InputError
from biomechgpt.recordings.readers.joint_map import AngleUnits
from biomechgpt.recordings.readers.recording import (
    Columns,
    ReaderSettings,
    Recording,
    assemble,
    seconds_of,
)
from biomechgpt.recordings.readers.text import decode

SUFFIXES = (".csv", ".parquet")
_PARQUET = b"PAR1"
_DELIMITERS = ";\t,"
_PREAMBLE = 20
"""Most lines above the line of names."""
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
        names = _cells(line, delimiter)
        if len(names) < 3 or any(_number(k, delimiter) is not None for k in names if k):
            continue
        below = [_cells(text, delimiter) for text in lines[i + 1 : i + 3]]
        if below and _is_row(below[0], names, delimiter):
            return _Layout(delimiter, i, (), i + 1)
        is_units = len(below) > 1 and all(_is_unit(cell) for cell in below[0])
        if is_units and _is_row(below[1], names, delimiter):
            return _Layout(delimiter, i, tuple(below[0]), i + 2)
    return None


def _is_unit(cell: str) -> bool:
    return cell.lower() in _UNITS or cell.lower() in _OTHER_UNITS


def _is_row(cells: Sequence[str], names: Sequence[str], delimiter: str) -> bool:
    """Whether a line below the names is mostly numbers."""
    numbers = sum(_number(cell, delimiter) is not None for cell in cells)
    return abs(len(cells) - len(names)) <= 1 and 2 * numbers > len(cells)


def parse(name: str, content: bytes) -> Columns:
    """The columns of a text, without those that hold only text. Raises InputError naming line and column."""
    decoded = decode(content)
    if decoded is None:
        raise InputError(f"{name}: expected text, found binary data: the file is damaged")
    lines = decoded.text.splitlines()
    layout = _layout(lines)
    if layout is None:
        raise InputError(f"{name}: expected a line of column names above lines of numbers, found none")
    delimiter = layout.delimiter
    names = _cells(lines[layout.names], delimiter)
    body = lines[layout.first :]
    while body and not body[-1].strip(delimiter + " \t"):
        body.pop()
    try:
        rows = list(csv.reader(io.StringIO("\n".join(body)), delimiter=delimiter))
    except csv.Error as error:
        raise InputError(f"{name}: not a table of separated values: {error}") from None
    blank = all(len(row) == len(names) + 1 and not row[-1].strip() for row in rows)
    for i, row in enumerate(rows):
        if len(row) != len(names) + blank:
            raise InputError(
                f"{name}: line {layout.first + i + 1}: expected {len(names)} cells, found {len(row)}: "
                "the file is cut off or damaged"
            )
    units = [cell.lower() for cell in layout.units] + [""] * len(names)
    angles = {_UNITS[unit] for unit in units if unit in _UNITS}
    columns: dict[str, np.ndarray] = {}
    for j, key in enumerate(names):
        if key in columns:
            raise InputError(f"{name}: line {layout.names + 1}: column {key!r} appears twice")
        if (numbers := _numbers(name, key, [row[j] for row in rows], layout)) is not None:
            columns[key] = numbers * _scale(units[j], mixed=len(angles) > 1)
    return Columns(
        format="CSV",
        values=columns,
        units="degrees" if "degrees" in angles else "radians" if angles else None,
        place=lambda i: f"line {layout.first + i + 1}",
        notes=(*((decoded.note,) if decoded.note else ()), *layout.notes),
    )


def _scale(unit: str, mixed: bool) -> float:
    """What makes metres and seconds of a column, and degrees where only some angles are in degrees."""
    if mixed and _UNITS.get(unit) == "radians":
        return 180 / np.pi
    return {"mm": 1e-3, "cm": 1e-2, "ms": 1e-3}.get(unit.strip("[]()"), 1.0)


def _numbers(name: str, key: str, cells: Sequence[str], layout: _Layout) -> np.ndarray | None:
    values = [_number(cell, layout.delimiter) for cell in cells]
    if all(value is None for value in values):
        return None
    for i, value in enumerate(values):
        if value is None:
            line = layout.first + i + 1
            again = ": the names stand there again, so that several trials follow one another in this file"
            raise InputError(
                f"{name}: line {line}, column {key!r}: expected a number, found {cells[i]!r}"
                + (again if cells[i].strip() == key else "")
            )
    return np.array(values, dtype=float)


def _number(cell: str, delimiter: str) -> float | None:
    """A cell's number; NaN if the cell is empty, None if it holds anything else."""
    cell = cell.strip()
    try:
        return float((cell.replace(",", ".") if delimiter != "," else cell) or "nan")
    except ValueError:
        return None


def _cells(line: str, delimiter: str) -> list[str]:
    """A line's cells, without the separators that a spreadsheet adds at its end."""
    try:
        cells = [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter), [])]
    except csv.Error:
        return []
    while cells and not cells[-1]:
        cells.pop()
    return cells


def _delimiter(line: str) -> str:
    return next((d for d in _DELIMITERS if d in line), ",")
