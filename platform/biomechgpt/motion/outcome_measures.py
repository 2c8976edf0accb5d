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
"""Kind of each annotation that the program knows by name. For others, the values in the table decide."""


@dataclass(frozen=True)
class OutcomeMeasure:
    """Plausible values of an outcome measure, in the first of its units.

    low, high: plausible range.
    typical: a typical value.
    units: {unit: its size in the first unit}.
    """

    low: float
    high: float
    typical: float
    units: Mapping[str, float]

    def looks_like(self, value: float) -> str | None:
        """The unit in which a value outside the range would be closest to typical; None if no unit fits."""
        converted = {unit: value * size for unit, size in self.units.items() if value > 0}
        plausible = {unit: v for unit, v in converted.items() if self.low <= v <= self.high}
        return min(plausible, key=lambda unit: abs(math.log(plausible[unit] / self.typical)), default=None)


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
"""Outcome measures by name. Annotations and answers are checked against these ranges."""
