"""Annotations of recordings: a table with one row per recording, checked line by line.

Cells are separated by commas, tabs, or semicolons with decimal commas, as spreadsheets of many countries write
them, in UTF-8, UTF-16 or Latin-1. Columns `path` (relative to the folder) and `participant` are required; these and
the other columns that the program knows may be written in any case. Optional columns: `source`, `data` (recorded
or synthetic; default: recorded), `split` (train, validation or test, for `splits.method: predefined`) and
`frame_rate_hz` (the rate of the recording, which its times must agree with). All other columns are annotations,
text or numbers; an empty cell was not collected. Knows nothing about files of movement or splits.
"""

import csv
import io
import math
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from biomechgpt.cohort.splits import SPLITS
from biomechgpt.core.settings import InputError
from biomechgpt.motion.outcome_measures import COLUMN_KINDS, ColumnKind
from biomechgpt.motion.trial import FIXED
from biomechgpt.recordings.readers.text import decode

CONSTANT_COLUMNS = ("impaired", "diagnosis", "sex", "age", "split")
"""Columns that are the same in all rows of a participant."""
DEMOGRAPHICS = ("age", "sex", "site")
"""Annotations that say who a participant is, not how the participant moves."""

_TABLE_COLUMNS = ("path", "participant", "source", "data", "split", "frame_rate_hz")
"""Columns of a table that are not annotations."""
RESERVED = frozenset(FIXED.names) - set(_TABLE_COLUMNS)
"""Names that an annotation cannot have: a cohort's shards use them."""
_DECIMAL_COMMA = re.compile(r"^([+-]?\d+),(\d+)$")
_ALLOWED_WORDS = {"split": SPLITS, "data": ("recorded", "synthetic")}


@dataclass(frozen=True)
class Row:
    """Annotations of one recording.

    line: its line in the table, from 1; 0 if a folder layout tells it and no table.
    path: the recording's file, relative to the folder.
    source: where the recording comes from, in the user's words.
    annotations: {column: value}, None where nothing was collected.
    table: the table's name in messages.
    provenance: recorded or synthetic.
    split: the predefined split, if any.
    frame_rate_hz: the declared rate, if any.
    """

    line: int
    path: str
    participant: str
    source: str | None
    annotations: dict[str, str | float | None]
    table: str = "annotations.csv"
    provenance: str = "recorded"
    split: str | None = None
    frame_rate_hz: float | None = None

    def __str__(self) -> str:
        return f"{self.table}: " + (f"line {self.line}" if self.line else self.path)


class Place(NamedTuple):
    """A row of a CSV file, as messages name it."""

    table: str
    line: int

    def __str__(self) -> str:
        return f"{self.table}: line {self.line}"


@dataclass(frozen=True)
class CsvTable:
    """A CSV file's cells, stripped of spaces.

    name: the file, in messages.
    lines: line number of each row, from 1.
    cells: {column: a cell per row}.
    """

    name: str
    lines: list[int]
    cells: dict[str, list[str]]

    @classmethod
    def parse(cls, name: str, content: bytes) -> "CsvTable":
        """The table in a file's content. Raises InputError for what is no table of named columns."""
        (_, header), *body = _numbered_rows(name, content)
        for line, row in body:
            if len(row) != len(header):
                raise InputError(f"{name}: line {line}: expected {len(header)} cells, found {len(row)}")
        cells: dict[str, list[str]] = {}
        for i, column in enumerate(header):
            values = [row[i] for _, row in body]
            if not column and not any(values):
                continue  # spreadsheets leave such columns at a table's right edge
            if not column:
                raise InputError(f"{name}: line 1: column {i + 1} has values but no name")
            if column in cells:
                raise InputError(f"{name}: line 1: column {column!r} appears twice")
            cells[column] = values
        return cls(name, [line for line, _ in body], cells)

    @property
    def places(self) -> list[Place]:
        return [Place(self.name, line) for line in self.lines]


def _numbered_rows(name: str, content: bytes) -> list[tuple[int, list[str]]]:
    """(line, stripped cells) of each row that is not empty, the header first."""
    decoded = decode(content)
    if decoded is None:
        raise InputError(f"{name}: expected a table of text (CSV), found binary data: save it as CSV")
    lines = decoded.text.splitlines(keepends=True)
    # Excel's first line may state the separator: sep=;
    stated = bool(lines) and lines[0].strip().strip('"').lower().startswith("sep=")
    text = "".join(["\n", *lines[1:]] if stated else lines)
    header = next((line for line in text.splitlines() if line.strip()), "")
    # Where a comma is the decimal sign, spreadsheets separate cells by semicolons.
    delimiter = max(",;\t", key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        rows = [(reader.line_num, [c.strip() for c in row]) for row in reader if any(c.strip() for c in row)]
    except csv.Error as error:
        raise InputError(
            f"{name}: line {reader.line_num}: not a table of comma-separated values: {error}"
        ) from None
    if delimiter != ",":
        rows = [(line, [_DECIMAL_COMMA.sub(r"\1.\2", cell) for cell in cells]) for line, cells in rows]
    if not rows:
        raise InputError(f"{name}: expected a table whose first line names its columns, found an empty file")
    return rows


@dataclass(frozen=True)
class AnnotationTable:
    """Checked rows, by participant and path.

    rows: one per recording.
    columns: {annotation: "text" | "number"}.
    """

    rows: list[Row]
    columns: dict[str, ColumnKind]

    @classmethod
    def parse(cls, name: str, content: bytes) -> "AnnotationTable":
        """The table in the content of an annotations.csv. Raises InputError naming line and column."""
        table = _in_known_case(CsvTable.parse(name, content))
        for required in ("path", "participant"):
            if required not in table.cells:
                raise InputError(
                    f"{name}: line 1: expected a column {required!r}, found {', '.join(table.cells) or 'none'}"
                )
        for column in table.cells:
            if column in RESERVED:
                raise InputError(
                    f"{name}: line 1: column {column!r} is a name that a cohort itself uses: rename it"
                )
        return cls.check(name, table.places, table.cells)

    @classmethod
    def check(cls, name: str, places: list[Place], cells: Mapping[str, list[str]]) -> "AnnotationTable":
        """Rows of a table's columns. Raises InputError naming line and column.

        name: the table in messages. places: where each row stands. cells: {column: a cell per row}.
        """
        _require_filled(places, cells)
        if not places:
            raise InputError(f"{name}: expected a row a recording, found none")
        paths = _unique_paths(places, cells["path"])
        _check_words(places, cells)
        if "frame_rate_hz" in cells:
            _column_kind(name, "frame_rate_hz", places, cells["frame_rate_hz"], "number")
        names = [column for column in cells if column not in _TABLE_COLUMNS]
        columns = {
            column: _column_kind(name, column, places, cells[column], COLUMN_KINDS.get(column))
            for column in names
        }
        values = {column: [_value(cell, columns[column]) for cell in cells[column]] for column in names}

        def optional(column: str, i: int) -> str | None:
            return (cells[column][i] or None) if column in cells else None

        rows = []
        for i, place in enumerate(places):
            rate_hz = optional("frame_rate_hz", i)
            rows.append(
                Row(
                    line=place.line,
                    path=paths[i],
                    participant=cells["participant"][i],
                    source=optional("source", i),
                    annotations={column: values[column][i] for column in names},
                    table=place.table,
                    provenance=optional("data", i) or "recorded",
                    split=optional("split", i),
                    frame_rate_hz=None if rate_hz is None else float(rate_hz),
                )
            )
        return cls(sorted(rows, key=lambda row: (row.participant, row.path)), columns)


def _in_known_case(table: CsvTable) -> CsvTable:
    """The table with `Path` and the program's other columns in small letters, unless they are there already."""
    known = {*_TABLE_COLUMNS, *COLUMN_KINDS, *CONSTANT_COLUMNS, *DEMOGRAPHICS}
    cells: dict[str, list[str]] = {}
    for column, values in table.cells.items():
        usual = re.sub(r"[\s\-]+", "_", column.lower())
        cells[usual if usual in known and usual not in table.cells and usual not in cells else column] = (
            values
        )
    return replace(table, cells=cells)


def participants_of(name: str, content: bytes, files: Collection[str]) -> dict[str, str]:
    """{file: its participant} of a table whose other columns are not checked. InputError for another table."""
    table = _in_known_case(CsvTable.parse(name, content))
    if not {"path", "participant"} <= table.cells.keys():
        raise InputError(f"{name}: expected columns path and participant, found {', '.join(table.cells)}")
    called = as_called(table.cells["path"], files)
    return {
        called.get(path, path): participant
        for path, participant in zip(table.cells["path"], table.cells["participant"], strict=True)
    }


def as_files_are_called(table: "AnnotationTable", files: Collection[str]) -> "AnnotationTable":
    """The table with its paths as these files are called."""
    called = as_called([row.path for row in table.rows], files)
    rows = [replace(row, path=called.get(row.path, row.path)) for row in table.rows]
    return AnnotationTable(sorted(rows, key=lambda row: (row.participant, row.path)), table.columns)


def as_called(paths: Iterable[str], files: Collection[str]) -> dict[str, str]:
    """{path: the file that it means} of paths that are no file as they are written.

    Another case, `\\` of Windows and other forms of accents mean the same file, unless two files are meant, or the
    file has a path of its own.
    """
    present, paths = set(files), list(paths)
    alike: dict[str, list[str]] = {}
    for file in files:
        alike.setdefault(_plain(file), []).append(file)
    meant = {path: alike.get(_plain(path), []) for path in paths if path not in present}
    found = {path: those[0] for path, those in meant.items() if len(those) == 1 and those[0] not in paths}
    return {path: file for path, file in found.items() if list(found.values()).count(file) == 1}


def _plain(path: str) -> str:
    """A path without case and kinds of slashes. macOS writes an accent as a letter of its own."""
    return unicodedata.normalize("NFC", path.replace("\\", "/").removeprefix("./")).casefold()


def _require_filled(places: list[Place], cells: Mapping[str, list[str]]) -> None:
    for required in ("path", "participant"):
        for place, cell in zip(places, cells[required], strict=True):
            if not cell:
                raise InputError(f"{place}: column {required!r} is empty")


def _unique_paths(places: list[Place], cells: list[str]) -> list[str]:
    paths = [_inside_folder(place, cell) for place, cell in zip(places, cells, strict=True)]
    first: dict[str, int] = {}
    for place, path in zip(places, paths, strict=True):
        if path in first:
            raise InputError(f"{place}: {path!r} has a row already, line {first[path]}")
        first[path] = place.line
    return paths


def _inside_folder(place: Place, cell: str) -> str:
    path = PurePosixPath(cell)
    if path.is_absolute() or ".." in path.parts:
        raise InputError(f"{place}: expected a path inside the folder, found {cell!r}")
    return str(path)


def _check_words(places: list[Place], cells: Mapping[str, list[str]]) -> None:
    for column, words in _ALLOWED_WORDS.items():
        for place, cell in zip(places, cells.get(column, ()), strict=False):
            if cell and cell not in words:
                raise InputError(f"{place}, column {column!r}: expected {', '.join(words)}, found {cell!r}")


def _column_kind(
    name: str, column: str, places: list[Place], cells: list[str], kind: ColumnKind | None
) -> ColumnKind:
    """Kind of a column: `kind` if the program knows the column, else decided by its values."""
    if kind == "text":
        return "text"
    filled = [(place, cell) for place, cell in zip(places, cells, strict=True) if cell]
    numbers = [(place, cell) for place, cell in filled if parse_number(cell) is not None]
    texts = [(place, cell) for place, cell in filled if parse_number(cell) is None]
    if kind == "number" and texts:
        place, cell = texts[0]
        raise InputError(f"{place}, column {column!r}: expected a number, found {cell!r}")
    if numbers and texts:
        raise InputError(
            f"{name}: column {column!r}: expected only text or only numbers, found "
            f"{texts[0][1]!r} in line {texts[0][0].line} and {numbers[0][1]!r} in line {numbers[0][0].line}"
        )
    return "number" if numbers or kind == "number" else "text"


def csv_lines(rows: Iterable[Iterable[Any]]) -> str:
    """Rows of an annotations.csv as text, a line each. None becomes an empty cell: not collected."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    for row in rows:
        writer.writerow("" if cell is None else cell for cell in row)
    return buffer.getvalue()


def parse_number(cell: str) -> float | None:
    """A cell's finite number; None for anything else."""
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _value(cell: str, kind: ColumnKind) -> str | float | None:
    if not cell:
        return None
    return parse_number(cell) if kind == "number" else cell
