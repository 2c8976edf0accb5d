"""Outcome measures: the annotations that the program knows by name, their units and plausible ranges."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

ColumnKind = Literal["text", "number"]

COLUMN_KINDS: dict[str, ColumnKind] = {
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


@dataclass(frozen=True)
class OutcomeMeasure:
    """What a measurement can be, in the first of its units; the others with their size in it."""

    low: float
    high: float
    typical: float
    units: Mapping[str, float]

    def looks_like(self, value: float) -> str | None:
        """The unit in which a value outside the range would be the most ordinary, None where in none."""
        read = {unit: value * size for unit, size in self.units.items() if value > 0}
        able = {unit: v for unit, v in read.items() if self.low <= v <= self.high}
        return min(able, key=lambda unit: abs(math.log(able[unit] / self.typical)), default=None)


_SECONDS = {"s": 1.0, "ms": 0.001, "min": 60.0}
OUTCOME_MEASURES: dict[str, OutcomeMeasure] = {
    "walking_speed": OutcomeMeasure(0.05, 3.0, 1.1, {"m/s": 1.0, "cm/s": 0.01, "km/h": 1 / 3.6}),
    "cadence": OutcomeMeasure(
        20, 220, 100, {"steps/min": 1.0, "strides/min": 2.0, "steps/s": 60.0, "strides/s": 120.0}
    ),
    "tug_time": OutcomeMeasure(3, 120, 12, _SECONDS),
    "fsst_time": OutcomeMeasure(3, 120, 12, _SECONDS),
    "age": OutcomeMeasure(0, 120, 50, {"years": 1.0, "months": 1 / 12}),
}
"""The one home of plausible ranges: tables are checked against them, and so are answers to the questions."""
