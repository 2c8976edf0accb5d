"""A study's own tables, REDCap's exports above all, as the rows that annotations.csv would hold.

An `AnnotationMap` (a YAML file) says which table and column holds which annotation, under which code and in which
unit. Knows nothing about which annotations contradict one another.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from string import Formatter
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from biomechgpt.cohort.annotations import (
    CONSTANT_COLUMNS,
    RESERVED,
    AnnotationTable,
    CsvTable,
    Place,
    parse_number,
)
from biomechgpt.cohort.contradictions import raise_contradictions
from biomechgpt.core.settings import InputError, Settings
from biomechgpt.motion.outcome_measures import OUTCOME_MEASURES

_TICKED = ("1", "checked")
"""A ticked checkbox in REDCap's raw and in its labelled export."""


def _word(value: Any) -> Any:
    """Undo YAML's reading of a bare yes as true and of 1 as a number: a table has words."""
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


Word = Annotated[str, BeforeValidator(_word)]


class ColumnSource(Settings):
    """The column of an annotation, or the checkboxes of which one is ticked; a bare text names a column."""

    column: str | None = None
    """The table's column."""
    checkbox: dict[str, str] | None = None
    """REDCap's checkbox columns and what a tick means: {dx___1: stroke}."""
    values: dict[Word, Word] | None = None
    """Codes and what they mean: {1: stroke}."""
    unit: str | None = None
    """Unit of the column if it is not the annotation's own: cm/s."""
    scale: float = 1.0
    """Factor by which numbers are multiplied."""

    @model_validator(mode="before")
    @classmethod
    def _bare_column(cls, value: Any) -> Any:
        return {"column": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _column_or_checkbox(self) -> "ColumnSource":
        if (self.column is None) == (self.checkbox is None):
            raise ValueError("expected either `column` or `checkbox`")
        return self

    def columns(self) -> list[str]:
        """The table's columns that it reads."""
        return [self.column] if self.column is not None else list(self.checkbox or ())

    def read(self, name: str, record: "Record") -> tuple[str, list[str]]:
        """A record's value of the annotation `name`, in our words and unit ("" if empty), and what is wrong."""
        if self.checkbox is not None:
            return self._read_checkbox(name, record)
        assert self.column is not None
        cell = record.cells.get(self.column, "")
        if not cell:
            return "", []
        where = f"{record.place}, column {self.column!r}"
        if self.values is not None:
            if cell in self.values:
                return self.values[cell], []
            return "", [f"{where}: expected one of the codes {', '.join(self.values)}, found {cell!r}"]
        factor = self.scale * (OUTCOME_MEASURES[name].units[self.unit] if self.unit else 1.0)
        if factor == 1.0:
            return cell, []
        number = parse_number(cell)
        if number is None:
            return "", [f"{where}: expected a number, found {cell!r}"]
        return f"{number * factor:.10g}", []

    def _read_checkbox(self, name: str, record: "Record") -> tuple[str, list[str]]:
        ticked = [
            label
            for column, label in (self.checkbox or {}).items()
            if record.cells.get(column, "").casefold() in _TICKED
        ]
        problems = []
        if len(set(ticked)) > 1:
            labels = " and ".join(map(repr, ticked))
            problems.append(f"{record.place}: expected one {name}, found {labels} ticked")
        return (ticked[0] if ticked else ""), problems


class AnnotationMap(Settings):
    """Mapping from a study's own tables to annotations.

    A row that fills every column of `path` (and belongs to `instrument`, if given) is a recording's. All other rows
    are about their participant: they fill in what a recording's row leaves empty, rows of its own event first.
    """

    tables: list[str] = Field(min_length=1)
    """CSV files in the folder of recordings."""
    participant: str = "record_id"
    """Column of the participant, in every table."""
    path: str
    """Column of the recording's path, or a pattern of columns: {record_id}/{file}.mot."""
    instrument: str | None = None
    """REDCap's repeating instrument that has a row per recording."""
    instrument_column: str = "redcap_repeat_instrument"
    """Column that names a row's instrument."""
    event_column: str = "redcap_event_name"
    """Column that names a row's event."""
    missing: list[str] = Field(default_factory=list)
    """Codes of values that were not collected: -99."""
    columns: dict[str, ColumnSource]
    """Each annotation and where it comes from."""

    @model_validator(mode="after")
    def _known_names_and_units(self) -> "AnnotationMap":
        for name, source in self.columns.items():
            if name in RESERVED or name in ("path", "participant"):
                raise ValueError(f"columns: {name!r} is a name that a cohort itself uses")
            units = OUTCOME_MEASURES[name].units if name in OUTCOME_MEASURES else {}
            if source.unit is not None and source.unit not in units:
                raise ValueError(
                    f"columns.{name}: expected a unit among {', '.join(units) or 'none'}, found {source.unit!r} "
                    "(scale takes any factor)"
                )
        return self

    def path_columns(self) -> list[str]:
        """Columns that make up `path`."""
        return [name for _, name, _, _ in Formatter().parse(self.path) if name] or [self.path]

    def path_of(self, cells: Mapping[str, str]) -> str:
        """The recording's path from a row's cells."""
        return self.path.format_map(cells) if "{" in self.path else cells[self.path]

    def is_recording(self, cells: Mapping[str, str]) -> bool:
        """Whether a row is a recording's, not only about its participant."""
        if self.instrument and cells.get(self.instrument_column) != self.instrument:
            return False
        return all(cells.get(name) for name in self.path_columns())


@dataclass(frozen=True)
class Record:
    """A row of a study's table.

    cells: {column: cell}, "" for a code of `missing`.
    values: {annotation: value}, as this row alone says it, "" if it does not.
    """

    place: Place
    cells: dict[str, str] = field(repr=False)
    values: dict[str, str] = field(default_factory=dict, repr=False)


class MappedTables:
    """The rows of a study's tables, and what a map makes of them."""

    def __init__(self, mapped: AnnotationMap, tables: list[CsvTable]) -> None:
        """Raises InputError where a table lacks the participant, or all of them a column of the map."""
        self.mapped = mapped
        self.problems: list[str] = []
        self._check_columns(tables)
        records = [self._record(table, i) for table in tables for i in range(len(table.lines))]
        self.recordings = [record for record in records if mapped.is_recording(record.cells)]
        self.about: dict[str, list[Record]] = {}
        """The other rows, by participant."""
        for record in records:
            if not mapped.is_recording(record.cells):
                self.about.setdefault(record.cells[mapped.participant], []).append(record)

    @classmethod
    def open(cls, folder: str, mapped: AnnotationMap, read_bytes: Callable[[str], bytes]) -> "MappedTables":
        """The tables in `folder` that a map names. Raises InputError naming table, row and column."""
        tables = []
        for name in mapped.tables:
            table = CsvTable.parse(f"{folder}/{name}", read_bytes(f"{folder}/{name}"))
            tables.append(CsvTable(name, table.lines, table.cells))
        return cls(mapped, tables)

    def annotation_table(self) -> AnnotationTable:
        """A checked row per recording. Raises InputError with everything that is wrong."""
        mapped, recordings = self.mapped, self.recordings
        problems = list(self.problems)
        cells: dict[str, list[str]] = {
            "path": [mapped.path_of(record.cells) for record in recordings],
            "participant": [record.cells[mapped.participant] for record in recordings],
            **{name: [] for name in mapped.columns},
        }
        for record in recordings:
            values, contradicting = self.resolve(record)
            problems += contradicting
            for name, value in values.items():
                cells[name].append(value)
        raise_contradictions(problems)
        return AnnotationTable.check(", ".join(mapped.tables), [r.place for r in recordings], cells)

    def resolve(self, recording: Record) -> tuple[dict[str, str], list[str]]:
        """A recording's annotations, completed by its participant's other rows, and what contradicts them."""
        person = self.about.get(recording.cells[self.mapped.participant], [])
        event = recording.cells.get(self.mapped.event_column)
        same_event = [r for r in person if event and r.cells.get(self.mapped.event_column) == event]
        values: dict[str, str] = {}
        problems: list[str] = []
        for name in self.mapped.columns:
            values[name], problem = _combine(name, recording, same_event, person)
            problems += problem
        return values, problems

    def _check_columns(self, tables: list[CsvTable]) -> None:
        for table in tables:
            if self.mapped.participant not in table.cells:
                raise InputError(
                    f"{table.name}: line 1: expected a column {self.mapped.participant!r}, "
                    f"found {', '.join(table.cells)}"
                )
        sources = self.mapped.columns.values()
        needed = {*self.mapped.path_columns(), *(name for source in sources for name in source.columns())}
        if absent := sorted(needed.difference(*(table.cells for table in tables))):
            raise InputError(
                f"{', '.join(self.mapped.tables)}: expected the columns that the map names, "
                f"missing {', '.join(absent)}"
            )

    def _record(self, table: CsvTable, i: int) -> Record:
        """Row `i` of a table; what is wrong in it joins `problems`."""
        missing = self.mapped.missing
        cells = {name: "" if column[i] in missing else column[i] for name, column in table.cells.items()}
        record = Record(table.places[i], cells)
        for name, source in self.mapped.columns.items():
            record.values[name], problems = source.read(name, record)
            self.problems += problems
        return record


def _combine(
    name: str, recording: Record, same_event: list[Record], person: list[Record]
) -> tuple[str, list[str]]:
    """A recording's own value, else what the rows of its event agree on, else all of its participant's rows.

    A column that is constant within a participant must not differ from these rows either.
    """
    own = recording.values[name]
    constant = name in CONSTANT_COLUMNS
    for records in (same_event, person):
        # Of rows with the same value the first is named in the message.
        stated = {record.values[name]: record for record in reversed(records) if record.values[name]}
        if records and own and constant:
            stated[own] = recording
        problems = []
        if len(stated) > 1 and (constant or not own):
            values = " and ".join(f"{value!r} ({record.place})" for value, record in sorted(stated.items()))
            problems.append(f"{recording.place}: expected one {name} for the participant, found {values}")
        if records and (own or stated):
            return own or next(iter(stated)), problems
    return own, []
