"""One answer: its fields, and the columns that they have in a table of answers.

The answers table, the answers of the HTTP API and the page's types all derive from `Answer`. Knows nothing about
models.
"""

import types
import typing
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import ConfigDict


@dataclass(frozen=True)
class Answer:
    """An answer to one question, with how far it can be trusted.

    A classification has labels with their probabilities, a number its median and an interval. An answer that was
    generated freely has its text only.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(use_attribute_docstrings=True)

    text: str
    """The answer in words."""
    labels: list[str] = field(default_factory=list)
    """The labels that the task can be answered with, most probable first; empty for a number."""
    probabilities: list[float] = field(default_factory=list)
    """The labels' probabilities at the task's temperature, in the order of `labels`; they sum to 1."""
    prediction_set: list[str] = field(default_factory=list)
    """The labels that cannot be ruled out, most probable first (conformal prediction)."""
    low: float | None = None
    """Lower end of a number's interval."""
    high: float | None = None
    """Upper end of a number's interval."""
    mean: float | None = None
    """Mean of a number's distribution, if it was asked for; the answer itself is the median."""
    selective_risk: float | None = None
    # With a limit that was chosen beforehand, answers up to it are given. Then, with confidence 0.9 over the draw
    # of the validation participants, at most that share of a participant's given answers is wrong, on average over
    # participants (see `risk.fit_risk_thresholds`). It is not the probability that this answer is wrong.
    """Lowest limit of the error rate, kept with confidence 0.9, at which this answer is given. None: at none."""
    valid_probability: float | None = None
    """Probability that the model gives to all valid answers together; of a number, to valid first tokens."""
    temperature: float | None = None
    """Temperature that was applied to the label probabilities."""
    coverage_guaranteed: bool = False
    """Whether the set or interval holds the truth at the stated coverage: enough participants calibrated it."""
    log_likelihood: float | None = None
    """Mean log-likelihood of the movement's tokens."""
    is_ood: bool = False
    """Whether the movement is out of distribution: less likely than nearly all movements like those of training."""
    template_answers: list[str] = field(default_factory=list)
    """The answer to each prompt template that was averaged."""


def names(record: type) -> tuple[str, ...]:
    """The names of a dataclass's fields, in order."""
    return tuple(column.name for column in fields(record))


def arrow_schema(record: type) -> pa.Schema:
    """The Arrow schema of a dataclass of texts, numbers, booleans, lists of these, and optional ones."""
    hints = typing.get_type_hints(record)
    return pa.schema([(name, _arrow_type(hints[name])) for name in names(record)])


def _arrow_type(hint: Any) -> pa.DataType:
    """The Arrow type of a field's type hint."""
    if isinstance(hint, types.UnionType):  # X | None
        (hint,) = (argument for argument in typing.get_args(hint) if argument is not type(None))
    if typing.get_origin(hint) is list:
        return pa.list_(_arrow_type(*typing.get_args(hint)))
    return {str: pa.string(), float: pa.float64(), bool: pa.bool_(), int: pa.int64()}[hint]


ANSWER_COLUMNS = tuple(name for name in names(Answer) if name not in ("text", "mean"))
"""Columns of the answers table that only a model's scored answers have: the text has a column of every source's
answers, and the mean is not asked for in a table."""
