"""Reads plain tables, CSV and Parquet: a column of time and one per joint, by our names or by a joint map's.

The cells of a CSV are separated by commas, tabs or semicolons (then a comma is a decimal comma); its first line
names the columns. The unit of angles is stated by the joint map or the settings, or detected from the values. Empty
cells and nulls are missing values. Knows nothing about who was recorded.
"""

import csv
import io
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from biomechgpt.core.settings import InputError
from biomechgpt.recordings.readers.recording import Columns, ReaderSettings, Recording, assemble

SUFFIXES = (".csv", ".parquet")
_PARQUET = b"PAR1"
_DELIMITERS = ";\t,"


def matches(content: bytes) -> bool:
    """Whether this is Parquet, or a line of names above a line that is mostly numbers."""
    if content[:4] == _PARQUET:
        return True
    lines = content[:65536].decode("utf-8-sig", errors="replace").splitlines()[:2]
    if b"\x00" in content[:65536] or len(lines) < 2:
        return False
    delimiter = _delimiter(lines[0])
    names, cells = (next(csv.reader([line], delimiter=delimiter), []) for line in lines)
    numbers = sum(_number(cell, delimiter) is not None for cell in cells)
    return (
        len(names) > 2 and 2 * numbers > len(cells) and all(_number(k, delimiter) is None for k in names if k)
    )


def read(name: str, content: bytes, settings: ReaderSettings) -> Recording:
    """The recording in `content`. Raises InputError naming file, line or row, and column."""
    parquet = content[:4] == _PARQUET
    values = _parquet(name, content) if parquet else _csv(name, content)
    file = Columns(
        format="Parquet" if parquet else "CSV",
        values=values,
        units=None if settings.units == "header" else settings.units,
        place=(lambda i: f"row {i}") if parquet else (lambda i: f"line {i + 2}"),
    )
    return assemble(name, file, settings)


def _parquet(name: str, content: bytes) -> dict[str, np.ndarray]:
    try:
        table = pq.read_table(pa.BufferReader(content))
        numbers = [
            f.name for f in table.schema if pa.types.is_floating(f.type) or pa.types.is_integer(f.type)
        ]
        return {key: table[key].cast(pa.float64()).to_numpy() for key in numbers}
    except KeyError as error:
        raise InputError(f"{name}: a column appears twice: {error}") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{name}: expected Parquet, found a damaged file: {error}") from None


def _csv(name: str, content: bytes) -> dict[str, np.ndarray]:
    """Columns by name, without those that hold only text."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: byte {error.start}: expected UTF-8 text, found something else") from None
    delimiter = _delimiter(text.partition("\n")[0])
    try:
        names, *rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    except csv.Error as error:
        raise InputError(f"{name}: not a table of separated values: {error}") from None
    names = [k.strip() for k in names]
    while rows and not any(rows[-1]):
        rows.pop()
    for i, row in enumerate(rows):
        if len(row) != len(names):
            raise InputError(
                f"{name}: line {i + 2}: expected {len(names)} cells, found {len(row)}: "
                "the file is cut off or damaged"
            )
    columns: dict[str, np.ndarray] = {}
    for key, cells in zip(names, zip(*rows, strict=True), strict=True):
        if key in columns:
            raise InputError(f"{name}: line 1: column {key!r} appears twice")
        if (numbers := _numbers(name, key, cells, delimiter)) is not None:
            columns[key] = numbers
    return columns


def _numbers(name: str, key: str, cells: Sequence[str], delimiter: str) -> np.ndarray | None:
    values = [_number(cell, delimiter) for cell in cells]
    if all(value is None for value in values):
        return None
    for i, value in enumerate(values):
        if value is None:
            raise InputError(f"{name}: line {i + 2}, column {key!r}: expected a number, found {cells[i]!r}")
    return np.array(values, dtype=float)


def _number(cell: str, delimiter: str) -> float | None:
    """A cell's number; NaN if the cell is empty, None if it holds anything else."""
    try:
        return float((cell.replace(",", ".") if delimiter == ";" else cell).strip() or "nan")
    except ValueError:
        return None


def _delimiter(line: str) -> str:
    return next((d for d in _DELIMITERS if d in line), ",")
