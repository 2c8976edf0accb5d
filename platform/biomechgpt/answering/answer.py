"""One answer: its fields, and the columns that they have in a table of answers.

The answers table, the answers of the HTTP API and the page's types all derive from `Answer`. Knows nothing about
models.
"""

import types
import typing
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, ClassVar, Literal, get_args

import pyarrow as pa
from pydantic import ConfigDict

Status = Literal["answered", "does_not_apply", "unlike", "uncertain", "refused"]
"""Outcome of a question. `answered`: it has an answer. `does_not_apply`: it does not fit this movement. `unlike`:
the movement is unlike the training data. `uncertain`: the answer is not certain enough. `refused`: no movement
answers it."""


@dataclass(frozen=True)
class Unlike:
    """The check whether a recording is unlike the training data (out of distribution)."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(use_attribute_docstrings=True)

    checked: bool = False
    """Whether the check ran."""
    unlike: bool = False
    """Whether the recording is unlike the training data."""
    participants: int = 0
    """Number of participants that the check was fitted on."""
    fitted_on: str = ""
    """Participants that it was fitted on: `validation`, or `training` with a margin if those were too few."""
    quantity: str = ""
    """The statistic that speaks most against the recording, in words."""
    unit: str = ""
    """Unit of `value` and `usual`; empty for a figure without a unit."""
    value: float | None = None
    """The recording's value of this statistic."""
    usual: list[float] = field(default_factory=list)
    """Usual range of this statistic, lowest and highest; empty if it has none."""


@dataclass(frozen=True)
class MeasuredNorm:
    """The norm of a measured value."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(use_attribute_docstrings=True)

    mean: float
    """Mean of the group, in the unit of the value."""
    sd: float
    """Standard deviation between people of the group."""
    group: str
    """The people, for example `healthy women of 62 years`."""
    source: str
    """Publication of the numbers, with a mark if they are unverified."""
    verified: bool
    """Whether the numbers were compared with the publication."""


@dataclass(frozen=True)
class Measured:
    """A value that was measured from the joint angles and the pelvis, without the language model."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(use_attribute_docstrings=True)

    quantity: str
    """Name of the quantity, for example `speed`."""
    label: str = ""
    """The quantity in words, for example `walking speed`."""
    part: str = ""
    """Side (`right`) or phase (`turn`) that the value belongs to; empty for a single value."""
    value: float | None = None
    """The value; null if the recording does not contain the quantity. `reason` then says why."""
    unit: str = ""
    """Unit of the value and of the norm; empty for a ratio."""
    steps: int | None = None
    """Number of steps, or of other `events`, that the value rests on; null if it rests on the whole recording."""
    events: str = ""
    """Kind of the events: steps, swings, stance phases, rises or phases."""
    begin_s: float | None = None
    """Begin of the part of the recording that the value rests on, in seconds."""
    end_s: float | None = None
    """End of that part, in seconds."""
    norm: MeasuredNorm | None = None
    """The norm of people of this age and sex; null without one."""
    note: str = ""
    """A limit of the value, in plain words."""
    reason: str = ""
    """Why there is no value; empty if there is one."""


@dataclass(frozen=True)
class Answer:
    """An answer to one question, with how far it can be trusted.

    A classification has labels with their probabilities, a number its median and an interval. An answer that was
    generated freely has its text only.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(use_attribute_docstrings=True)

    text: str
    """The answer in words."""
    status: Status = "answered"
    """Outcome of the question. Only `answered` comes with a value, an interval and a guarantee."""
    reason: str = ""
    """Why the question got no answer, or only an uncertain one; empty for `answered`."""
    applies: float | None = None
    """Probability that the question applies, by the model's own answers to its conditions; null if not known."""
    condition: str = ""
    """Conditions that the answer supposes, for example `impaired: yes`; empty without any."""
    unlike: Unlike = Unlike()
    """The check whether the recording is unlike the training data."""
    labels: list[str] = field(default_factory=list)
    """The labels that the task can be answered with, most probable first; empty for a number."""
    probabilities: list[float] = field(default_factory=list)
    """The labels' probabilities at the task's temperature, in the order of `labels`; they sum to 1."""
    joint_probabilities: list[float] = field(default_factory=list)
    """The labels' probabilities times `applies`: the condition holds and the label is right."""
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
    """Whether the set or interval holds the truth at the stated coverage: every assumption of it was checked."""
    # Namely: the question applies; the recording was checked, is like the training data, and is of the kind that
    # calibrated the model (recorded or synthetic); and enough participants calibrated it.
    log_likelihood: float | None = None
    """Mean log-likelihood of the movement's tokens."""
    template_answers: list[str] = field(default_factory=list)
    """The answer to each prompt template that was averaged."""
    answered_by: Literal["model", "kinematics"] = "model"
    """What gave the answer: the language model, or measuring alone."""
    measured: list[Measured] = field(default_factory=list)
    """The quantity as it was measured from the recording: the answer itself, or the value to compare it with."""


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
    if isinstance(hint, type) and is_dataclass(hint):
        return pa.struct(list(arrow_schema(hint)))
    if typing.get_origin(hint) is Literal:
        (hint,) = {type(value) for value in get_args(hint)}
    if typing.get_origin(hint) is list:
        return pa.list_(_arrow_type(*typing.get_args(hint)))
    return {str: pa.string(), float: pa.float64(), bool: pa.bool_(), int: pa.int64()}[hint]


ANSWER_COLUMNS = tuple(
    name for name in names(Answer) if name not in ("text", "mean", "answered_by", "measured")
)
"""Columns of the answers table that only a model's scored answers have: the text has a column of every source's
answers. The mean is not asked for in a table, and nothing is measured: a table's model sees motion tokens only."""
