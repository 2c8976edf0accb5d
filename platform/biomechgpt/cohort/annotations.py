"""What is known of recordings: a table with a row a recording, checked line by line.

Columns `path` (relative to the folder) and `participant`, optionally `source`, `data` (recorded, if not synthetic),
`split` (train, validation or test, for `splits.method: predefined`) and `frame_rate_hz` (what the recording was
made at, which its times must agree with), then any annotations, text or numbers; an empty cell was not collected.
An `AnnotationMap` says how another table, REDCap's export above all, holds the same. Knows what is wrong with a
table and where, and which annotations contradict one another; knows nothing about files of movement or who is
trained on.
"""

import csv
import io
import math
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from string import Formatter
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from biomechgpt.cohort.splits import SPLITS
from biomechgpt.core.settings import InputError, Settings
from biomechgpt.motion.outcome_measures import KINDS, MEASURES
from biomechgpt.motion.trial import FIXED

_OF_A_PERSON = ("impaired", "diagnosis", "sex", "age", "split")
"""The same in all of a participant's rows (age to a year: there is a birthday between two sessions)."""
_NO_DIAGNOSIS = frozenset({"none", "no", "control", "healthy", "unimpaired", "able-bodied"})
_LONGEST_STEP_M = 1.2
_SLOWEST_UNIMPAIRED = 70.0
"""Steps a minute; half of ordinary cadence (100 to 120) is below it."""

_OWN = ("path", "participant", "source", "data", "split", "frame_rate_hz")
"""Columns of a table that are no annotations."""
_RESERVED = frozenset(FIXED.names) - set(_OWN)


@dataclass(frozen=True)
class Row:
    """What is known of one recording.

    table, line: where it says so; line 0 where what says so is no table. source: where the recording comes
    from, as the user calls it. data: recorded or synthetic. split: who designed the cohort wants it there.
    frame_rate_hz: as declared.
    """

    line: int
    path: str
    participant: str
    source: str | None
    annotations: dict[str, str | float | None]
    table: str = "annotations.csv"
    data: str = "recorded"
    split: str | None = None
    frame_rate_hz: float | None = None

    def __str__(self) -> str:
        return f"{self.table}: " + (f"line {self.line}" if self.line else self.path)


def read_annotations(uri: str, read_bytes: Callable[[str], bytes]) -> tuple[list[Row], dict[str, str]]:
    """Rows sorted by participant and path, and what each annotation column holds. Raises InputError."""
    lines, cells = _cells(uri, read_bytes(uri))
    for required in ("path", "participant"):
        if required not in cells:
            raise InputError(
                f"{uri}: line 1: expected a column {required!r}, found {', '.join(cells) or 'none'}"
            )
    for name in cells:
        if name in _RESERVED:
            raise InputError(f"{uri}: line 1: column {name!r} is a name that a cohort itself uses: rename it")
    return _rows(uri, [(uri, line) for line in lines], cells)


def _rows(
    uri: str, places: list[tuple[str, int]], cells: Mapping[str, list[str]]
) -> tuple[list[Row], dict[str, str]]:
    """Rows of a table's checked columns; places: (table, line) of each."""
    where = [f"{table}: line {line}" for table, line in places]
    for required in ("path", "participant"):
        for place, cell in zip(where, cells[required], strict=True):
            if not cell:
                raise InputError(f"{place}: column {required!r} is empty")
    if not places:
        raise InputError(f"{uri}: expected a row a recording, found none")
    paths = [_inside(place, cell) for place, cell in zip(where, cells["path"], strict=True)]
    first: dict[str, int] = {}
    for place, (_, line), path in zip(where, places, paths, strict=True):
        if path in first:
            raise InputError(f"{place}: {path!r} has a row already, line {first[path]}")
        first[path] = line
    for column, known in (("split", SPLITS), ("data", ("recorded", "synthetic"))):
        for place, cell in zip(where, cells.get(column, ()), strict=False):
            if cell and cell not in known:
                raise InputError(f"{place}, column {column!r}: expected {', '.join(known)}, found {cell!r}")
    if "frame_rate_hz" in cells:
        _kind(uri, "frame_rate_hz", places, cells["frame_rate_hz"], "number")
    names = [name for name in cells if name not in _OWN]
    columns = {name: _kind(uri, name, places, cells[name], KINDS.get(name)) for name in names}
    values = {name: [_value(c, columns[name]) for c in cells[name]] for name in names}

    def own(name: str, i: int) -> str | None:
        return (cells[name][i] or None) if name in cells else None

    rows = []
    for i, (table, line) in enumerate(places):
        rate = own("frame_rate_hz", i)
        rows.append(
            Row(
                line=line,
                path=paths[i],
                participant=cells["participant"][i],
                source=own("source", i),
                annotations={name: values[name][i] for name in names},
                table=table,
                data=own("data", i) or "recorded",
                split=own("split", i),
                frame_rate_hz=None if rate is None else float(rate),
            )
        )
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


def _word(value: Any) -> Any:
    """YAML reads a bare yes as true, and 1 as a number; a table has words."""
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


Word = Annotated[str, BeforeValidator(_word)]


class Source(Settings):
    """Where an annotation comes from: a column, or the ticked one of several; a bare text names a column."""

    column: str | None = None
    checkbox: dict[str, str] | None = Field(None, description="REDCap's {dx___1: stroke}: what a tick means")
    values: dict[Word, Word] | None = Field(None, description="coded values, {1: stroke}")
    unit: str | None = Field(None, description="of the column, where it is not the annotation's: cm/s")
    scale: float = Field(1.0, description="numbers are multiplied by it")

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return {"column": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one(self) -> "Source":
        if (self.column is None) == (self.checkbox is None):
            raise ValueError("expected either `column` or `checkbox`")
        return self

    def uses(self) -> list[str]:
        """The table's columns that it reads."""
        return [self.column] if self.column is not None else list(self.checkbox or ())


class AnnotationMap(Settings):
    """How a study's own tables say what annotations.csv would.

    A row with every column that `path` needs is a recording's (of `instrument`, where one is named); all others
    are about their participant, and fill in what a recording's row leaves empty: first rows of its own event.
    """

    tables: list[str] = Field(min_length=1, description="CSV files in the folder of recordings")
    participant: str = Field("record_id", description="column with the participant, in every table")
    path: str = Field(description="column with the recording's path, or a pattern: {record_id}/{file}.mot")
    instrument: str | None = Field(None, description="REDCap's repeating instrument with a row a recording")
    instrument_column: str = "redcap_repeat_instrument"
    event_column: str = "redcap_event_name"
    missing: list[str] = Field(default_factory=list, description="codes of what was not collected: -99")
    columns: dict[str, Source] = Field(description="annotation: where it comes from")

    @model_validator(mode="after")
    def _consistent(self) -> "AnnotationMap":
        for name, source in self.columns.items():
            if name in _RESERVED or name in ("path", "participant"):
                raise ValueError(f"columns: {name!r} is a name that a cohort itself uses")
            known = MEASURES[name].units if name in MEASURES else {}
            if source.unit is not None and source.unit not in known:
                raise ValueError(
                    f"columns.{name}: expected a unit among {', '.join(known) or 'none'}, found {source.unit!r} "
                    "(scale takes any factor)"
                )
        return self

    def path_columns(self) -> list[str]:
        """Columns that `path` is made of."""
        return [name for _, name, _, _ in Formatter().parse(self.path) if name] or [self.path]

    def path_of(self, cells: Mapping[str, str]) -> str:
        return self.path.format_map(cells) if "{" in self.path else cells[self.path]


@dataclass(frozen=True)
class _Record:
    """A row of a study's table."""

    table: str
    line: int
    cells: dict[str, str] = field(repr=False)

    def __str__(self) -> str:
        return f"{self.table}: line {self.line}"


def read_mapped(
    folder: str, mapped: AnnotationMap, read_bytes: Callable[[str], bytes]
) -> tuple[list[Row], dict[str, str]]:
    """`read_annotations` from the tables in `folder` that a map explains. Raises InputError by row and column."""
    records: list[_Record] = []
    present: set[str] = set()
    for table in mapped.tables:
        lines, cells = _cells(f"{folder}/{table}", read_bytes(f"{folder}/{table}"))
        if mapped.participant not in cells:
            raise InputError(
                f"{table}: line 1: expected a column {mapped.participant!r}, found {', '.join(cells)}"
            )
        present |= cells.keys()
        for i, line in enumerate(lines):
            row = {name: "" if c[i] in mapped.missing else c[i] for name, c in cells.items()}
            records.append(_Record(table, line, row))
    needed = [*mapped.path_columns(), *(name for source in mapped.columns.values() for name in source.uses())]
    if absent := sorted(set(needed) - present):
        raise InputError(
            f"{', '.join(mapped.tables)}: expected the columns that the map names, missing {', '.join(absent)}"
        )
    recordings = [r for r in records if _is_recording(r, mapped)]
    about: dict[str, list[_Record]] = {}
    for record in records:
        if not _is_recording(record, mapped):
            about.setdefault(record.cells[mapped.participant], []).append(record)
    wrong: list[str] = []
    read = {id(r): {name: _read(r, name, mapped, wrong) for name in mapped.columns} for r in records}
    cells = {
        "path": [mapped.path_of(r.cells) for r in recordings],
        "participant": [r.cells[mapped.participant] for r in recordings],
        **{name: [] for name in mapped.columns},
    }
    for record in recordings:
        person = about.get(record.cells[mapped.participant], [])
        event = record.cells.get(mapped.event_column)
        same = [r for r in person if event and r.cells.get(mapped.event_column) == event]
        for name in mapped.columns:
            cells[name].append(_joined(name, record, (same, person), read, wrong))
    refuse(wrong)
    return _rows(", ".join(mapped.tables), [(r.table, r.line) for r in recordings], cells)


def _is_recording(record: _Record, mapped: AnnotationMap) -> bool:
    if mapped.instrument and record.cells.get(mapped.instrument_column) != mapped.instrument:
        return False
    return all(record.cells.get(name) for name in mapped.path_columns())


def _read(record: _Record, name: str, mapped: AnnotationMap, wrong: list[str]) -> str:
    """What a row says of an annotation, in our words and unit; "" for nothing. What is wrong joins `wrong`."""
    source = mapped.columns[name]
    if source.checkbox is not None:
        ticked = [
            label
            for column, label in source.checkbox.items()
            if record.cells.get(column, "").casefold() in ("1", "checked")
        ]
        if len(set(ticked)) > 1:
            wrong.append(f"{record}: expected one {name}, found {' and '.join(map(repr, ticked))} ticked")
        return ticked[0] if ticked else ""
    assert source.column is not None
    cell = record.cells.get(source.column, "")
    if not cell:
        return ""
    if source.values is not None:
        if cell not in source.values:
            wrong.append(
                f"{record}, column {source.column!r}: expected one of the codes "
                f"{', '.join(source.values)}, found {cell!r}"
            )
        return source.values.get(cell, "")
    size = source.scale * (MEASURES[name].units[source.unit] if source.unit else 1.0)
    if size == 1.0:
        return cell
    number = _number(cell)
    if number is None:
        wrong.append(f"{record}, column {source.column!r}: expected a number, found {cell!r}")
        return ""
    return f"{number * size:.10g}"


def _joined(
    name: str,
    record: _Record,
    about: Iterable[list[_Record]],
    read: Mapping[int, Mapping[str, str]],
    wrong: list[str],
) -> str:
    """A recording's own value, or what its participant's rows agree on: its event's, or else all of them."""
    mine = read[id(record)][name]
    for others in filter(None, about):
        said = {read[id(r)][name]: r for r in reversed(others) if read[id(r)][name]}
        if mine and name in _OF_A_PERSON:
            said[mine] = record
        if len(said) > 1 and (not mine or name in _OF_A_PERSON):
            text = " and ".join(f"{value!r} ({r})" for value, r in sorted(said.items()))
            message = f"{record}: expected one {name} for the participant, found {text}"
            if message not in wrong:
                wrong.append(message)
        if mine or said:
            return mine or next(iter(said))
    return mine


def refuse(wrong: list[str], most: int = 10) -> None:
    """Raise InputError with what is wrong, its first lines and how many more; nothing where nothing is."""
    if wrong:
        more = [f"and {len(wrong) - most} more"] if len(wrong) > most else []
        count = f"{len(wrong)} contradictions" if len(wrong) > 1 else "a contradiction"
        raise InputError("\n  ".join([f"annotations: {count}", *wrong[:most], *more]))


def contradictions(
    rows: Iterable[Row], plausible: Mapping[str, tuple[float, float]] | None = None
) -> list[str]:
    """What cannot all be true of these rows, each named by its row; `plausible` overrides MEASURES' ranges."""
    rows = list(rows)
    ranges = {name: (m.low, m.high) for name, m in MEASURES.items()} | dict(plausible or {})
    wrong: list[str] = []
    first: dict[tuple[str, str], tuple[Row, Any]] = {}
    for row in rows:
        said = row.annotations | {"split": row.split}
        for name in _OF_A_PERSON:
            value = said.get(name)
            if value is None:
                continue
            earlier, other = first.setdefault((row.participant, name), (row, value))
            years = isinstance(value, float) and isinstance(other, float) and abs(value - other) <= 1
            if value != other and not years:
                wrong.append(
                    f"{row}: participant {row.participant!r} has {name} {_shown(value)}, "
                    f"but {_shown(other)} in {earlier}"
                )
        diagnosis = said.get("diagnosis")
        named = isinstance(diagnosis, str) and diagnosis.casefold() not in _NO_DIAGNOSIS
        if said.get("impaired") == "no" and named:
            wrong.append(
                f"{row}: participant {row.participant!r} is unimpaired (impaired: no), but has the diagnosis "
                f"{diagnosis!r}"
            )
        for name, (low, high) in ranges.items():
            number = said.get(name)
            if isinstance(number, float) and not low <= number <= high:
                unit, like = _units(name, number)
                wrong.append(
                    f"{row}, column {name!r}: expected {low:g} to {high:g}{unit}, found {number:g}{like}"
                )
        speed, cadence = said.get("walking_speed"), said.get("cadence")
        if isinstance(speed, float) and isinstance(cadence, float) and cadence > 0:
            step_m = 60 * speed / cadence
            sound = speed <= ranges["walking_speed"][1] and cadence >= ranges["cadence"][0]
            if sound and step_m > _LONGEST_STEP_M:
                wrong.append(
                    f"{row}: {speed:g} m/s at {cadence:g} steps/min are steps of {step_m:.2f} m: the cadence "
                    "looks like strides/min, or the speed like km/h"
                )
    return wrong + _strides(rows)


def _strides(rows: list[Row]) -> list[str]:
    """Unimpaired people who take half the steps that people take: somebody counted strides."""
    walks = [row for row in rows if row.annotations.get("impaired") == "no"]
    cadence = [(row, c) for row in walks if isinstance(c := row.annotations.get("cadence"), float)]
    people = {row.participant for row, _ in cadence}
    if len(people) < 3 or statistics.median(c for _, c in cadence) >= _SLOWEST_UNIMPAIRED:
        return []
    return [
        f"{row}, column 'cadence': {c:g} steps/min of somebody unimpaired looks like strides/min"
        for row, c in cadence
        if c < _SLOWEST_UNIMPAIRED
    ]


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else repr(value)


def _units(name: str, value: float) -> tuple[str, str]:
    if name not in MEASURES:
        return "", ""
    like = MEASURES[name].looks_like(value)
    unit = next(iter(MEASURES[name].units))
    return f" {unit}", f", which looks like {like}" if like and like != unit else ""


def _inside(place: str, cell: str) -> str:
    path = PurePosixPath(cell)
    if path.is_absolute() or ".." in path.parts:
        raise InputError(f"{place}: expected a path inside the folder, found {cell!r}")
    return str(path)


def _number(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _kind(uri: str, name: str, places: list[tuple[str, int]], cells: list[str], known: str | None) -> str:
    """What a column holds: what is known of it, or else what its values are."""
    if known == "text":
        return "text"
    filled = [(place, cell) for place, cell in zip(places, cells, strict=True) if cell]
    numbers = [item for item in filled if _number(item[1]) is not None]
    texts = [item for item in filled if _number(item[1]) is None]
    if known == "number" and texts:
        (table, line), cell = texts[0]
        raise InputError(f"{table}: line {line}, column {name!r}: expected a number, found {cell!r}")
    if numbers and texts:
        raise InputError(
            f"{uri}: column {name!r}: expected only text or only numbers, found "
            f"{texts[0][1]!r} in line {texts[0][0][1]} and {numbers[0][1]!r} in line {numbers[0][0][1]}"
        )
    return "number" if numbers or known == "number" else "text"


def _value(cell: str, kind: str) -> str | float | None:
    if not cell:
        return None
    return _number(cell) if kind == "number" else cell
