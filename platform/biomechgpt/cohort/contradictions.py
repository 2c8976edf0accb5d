"""Annotations that cannot all be true, each named by its row. A new rule is one small function in a list.

Knows nothing about tables or files.
"""

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from biomechgpt.cohort.annotations import CONSTANT_COLUMNS, Row
from biomechgpt.core.settings import InputError
from biomechgpt.motion.outcome_measures import OUTCOME_MEASURES

_NO_DIAGNOSIS = frozenset({"none", "no", "control", "healthy", "unimpaired", "able-bodied"})
"""Entries of the column `diagnosis` that mean that there is no diagnosis."""
_MAX_STEP_M = 1.2
"""Longest step that is taken to be possible."""
_MIN_UNIMPAIRED_CADENCE = 70.0
"""Steps a minute. Half of an ordinary cadence (100 to 120) lies below it, so strides were counted."""
_MAX_AGE_DIFFERENCE = 1
"""Years. A birthday may lie between two sessions."""


@dataclass(frozen=True)
class Evidence:
    """Information for a rule in addition to the row.

    ranges: plausible range of each outcome measure, in its first unit.
    first: the first row of each participant that fills a constant column, and its value.
    """

    ranges: Mapping[str, tuple[float, float]]
    first: Mapping[tuple[str, str], tuple[Row, Any]]


def contradictions(
    rows: Iterable[Row], plausible: Mapping[str, tuple[float, float]] | None = None
) -> list[str]:
    """One message for each contradiction in these rows; plausible: replaces the ranges of `OUTCOME_MEASURES`."""
    rows = list(rows)
    ranges = {name: (m.low, m.high) for name, m in OUTCOME_MEASURES.items()} | dict(plausible or {})
    evidence = Evidence(ranges, _first_values(rows))
    messages = [message for row in rows for rule in ROW_RULES for message in rule(row, evidence)]
    return messages + [message for rule in TABLE_RULES for message in rule(rows)]


def raise_contradictions(messages: list[str], most: int = 10) -> None:
    """Raise InputError with the first messages and how many more there are; do nothing without any."""
    if messages:
        more = [f"and {len(messages) - most} more"] if len(messages) > most else []
        count = f"{len(messages)} contradictions" if len(messages) > 1 else "a contradiction"
        raise InputError("\n  ".join([f"annotations: {count}", *messages[:most], *more]))


def constant_within_participant(row: Row, evidence: Evidence) -> Iterator[str]:
    """A participant's sex, diagnosis and the like are the same in all rows; age may differ by a year."""
    for column in CONSTANT_COLUMNS:
        value = _value(row, column)
        if value is None:
            continue
        first_row, first = evidence.first[row.participant, column]
        both_numbers = isinstance(value, float) and isinstance(first, float)
        if value != first and not (both_numbers and abs(value - first) <= _MAX_AGE_DIFFERENCE):
            yield (
                f"{row}: participant {row.participant!r} has {column} {_shown(value)}, "
                f"but {_shown(first)} in {first_row}"
            )


def unimpaired_without_diagnosis(row: Row, _: Evidence) -> Iterator[str]:
    """Somebody who is annotated as unimpaired has no diagnosis."""
    diagnosis = row.annotations.get("diagnosis")
    diagnosed = isinstance(diagnosis, str) and diagnosis.casefold() not in _NO_DIAGNOSIS
    if row.annotations.get("impaired") == "no" and diagnosed:
        yield (
            f"{row}: participant {row.participant!r} is unimpaired (impaired: no), but has the diagnosis "
            f"{diagnosis!r}"
        )


def within_plausible_range(row: Row, evidence: Evidence) -> Iterator[str]:
    """Each outcome measure lies in its range; a value in another unit is recognized as such."""
    for column, (low, high) in evidence.ranges.items():
        value = row.annotations.get(column)
        if isinstance(value, float) and not low <= value <= high:
            unit, hint = _unit_and_hint(column, value)
            yield f"{row}, column {column!r}: expected {low:g} to {high:g}{unit}, found {value:g}{hint}"


def possible_step_length(row: Row, evidence: Evidence) -> Iterator[str]:
    """Speed and cadence together give steps that a person can take."""
    speed, cadence = row.annotations.get("walking_speed"), row.annotations.get("cadence")
    if not (isinstance(speed, float) and isinstance(cadence, float) and cadence > 0):
        return
    # A value out of its own range has been named already.
    plausible = speed <= evidence.ranges["walking_speed"][1] and cadence >= evidence.ranges["cadence"][0]
    step_m = 60 * speed / cadence
    if plausible and step_m > _MAX_STEP_M:
        yield (
            f"{row}: {speed:g} m/s at {cadence:g} steps/min are steps of {step_m:.2f} m: the cadence "
            "looks like strides/min, or the speed like km/h"
        )


def steps_not_strides(rows: list[Row]) -> Iterator[str]:
    """Unimpaired participants whose typical cadence is half of the ordinary one: strides were counted."""
    cadences = [
        (row, cadence)
        for row in rows
        if row.annotations.get("impaired") == "no"
        and isinstance(cadence := row.annotations.get("cadence"), float)
    ]
    # One or two slow walkers prove nothing about how a study counts.
    if len({row.participant for row, _ in cadences}) < 3:
        return
    if statistics.median(cadence for _, cadence in cadences) >= _MIN_UNIMPAIRED_CADENCE:
        return
    for row, cadence in cadences:
        if cadence < _MIN_UNIMPAIRED_CADENCE:
            yield (
                f"{row}, column 'cadence': {cadence:g} steps/min of somebody unimpaired looks like strides/min"
            )


ROW_RULES: tuple[Callable[[Row, Evidence], Iterator[str]], ...] = (
    constant_within_participant,
    unimpaired_without_diagnosis,
    within_plausible_range,
    possible_step_length,
)
"""Each gets a row and yields a message for each contradiction."""
TABLE_RULES: tuple[Callable[[list[Row]], Iterator[str]], ...] = (steps_not_strides,)
"""Each gets all rows at once."""


def _first_values(rows: Iterable[Row]) -> dict[tuple[str, str], tuple[Row, Any]]:
    first: dict[tuple[str, str], tuple[Row, Any]] = {}
    for row in rows:
        for column in CONSTANT_COLUMNS:
            if (value := _value(row, column)) is not None:
                first.setdefault((row.participant, column), (row, value))
    return first


def _value(row: Row, column: str) -> str | float | None:
    return row.split if column == "split" else row.annotations.get(column)


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else repr(value)


def _unit_and_hint(column: str, value: float) -> tuple[str, str]:
    """An outcome measure's unit, and the unit that a value looks like if that is another."""
    if column not in OUTCOME_MEASURES:
        return "", ""
    unit = next(iter(OUTCOME_MEASURES[column].units))
    looks_like = OUTCOME_MEASURES[column].looks_like(value)
    hint = f", which looks like {looks_like}" if looks_like and looks_like != unit else ""
    return f" {unit}", hint
