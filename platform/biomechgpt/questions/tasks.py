"""Tasks: what can be asked. A task is a YAML file, so adding a clinical question means adding one file.

`Task` is a union of one class per kind, told apart by the field `kind`:

    classification      a label of one movement, from an annotation
    regression          a number of one movement, from an annotation
    label_comparison    which of two movements, A or B, has a label
    number_comparison   which of two movements has the greater number
    change              the number of movement B minus that of movement A
    description         quantities measured from the movement itself
    measured            a quantity that kinematics measures; the language model never learns it
    refusal             questions that movement cannot answer
    generation          a movement made from a description

Knows how an annotation becomes the text of an answer and back. Knows nothing about tokens or models.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

import numpy as np
from pydantic import ConfigDict, Field, TypeAdapter, model_validator

from biomechgpt.core.settings import InputError, Settings, find, read_yaml, validate
from biomechgpt.motion.outcome_measures import OUTCOME_MEASURES
from biomechgpt.motion.parameters import (
    ParameterValues,
    format_description,
    format_parameter,
    mirror_parameters,
)
from biomechgpt.motion.quantities import QUANTITIES
from biomechgpt.motion.statistics import MovementStatistics

MOVEMENTS = ("A", "B")
"""The labels of a comparison: the names of its two movements."""

REFUSED, ANSWERED = "refused", "answered"
"""The labels of a refusal task: REFUSED is right, ANSWERED is wrong."""

NUMBER = re.compile(r"-?\d+(?:\.\d+)?")

Row = Mapping[str, Any]
"""A trial: `trial`, `participant`, `split` and its annotations by column."""

AnswerKind = Literal["classification", "regression", "description", "measured", "refusal", "generation"]


@dataclass(frozen=True)
class Example:
    """The true answer to a question.

    answer: the text.
    label, value: the label or number that the text states; None if it states none.
    answer_mirrored: the answer about the movement's mirror image, if that differs.
    description: the text that replaces `{}` in the template of a generation task.
    """

    answer: str
    label: str | None = None
    value: float | None = None
    answer_mirrored: str | None = None
    description: str | None = None


@dataclass(frozen=True)
class ExampleContext:
    """Everything besides the trials' own rows that an example may need.

    tasks: all tasks that are asked.
    parameters: {trial: its motion parameters}.
    seed: draws the parts of a generation's description.
    """

    tasks: "Tasks" = field(default_factory=dict)
    parameters: Mapping[str, ParameterValues] = field(default_factory=dict)
    seed: int = 0


def stable_hash(*parts: object) -> int:
    """A 64-bit number that depends on `parts` alone: the same in every process and on every machine."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:8])


def _as_text(value: Any) -> Any:
    """A whole number as a table of text would have it: 1.0 is `1`. Other values stay as they are."""
    return f"{value:g}" if isinstance(value, float) and value.is_integer() else value


def _is_one_of(value: Any, values: Iterable[str]) -> bool:
    """Whether an annotated value is one of these, in whichever case people wrote it."""
    value = _as_text(value)
    return value in values or (isinstance(value, str) and _normalised(value) in map(_normalised, values))


def _normalised(text: str) -> str:
    """The text without case, final stop and surrounding spaces, so that spellings of one answer compare equal."""
    return text.strip().rstrip(".").strip().casefold()


_PHASES = {"rise": "stands up", "lower": "sits down"}


class Needs(Settings):
    """What a recording must contain, so that a question about it can be answered."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    min_duration_s: float = Field(0.0, ge=0)
    """Shortest recording, in seconds."""
    min_steps: int = Field(0, ge=0)
    """Smallest number of steps."""
    phases: list[Literal["rise", "lower"]] = Field(default_factory=list)
    """Phases that must occur: `rise` from a chair, `lower` onto one."""

    def unmet(self, statistics: MovementStatistics) -> str | None:
        """What a recording lacks, in words; None if it has everything."""
        if statistics.duration_s < self.min_duration_s:
            found = f"{statistics.duration_s:.1f} s"
            return f"this needs a recording of at least {self.min_duration_s:g} s, and this one has {found}"
        if statistics.steps < self.min_steps:
            return f"this needs at least {self.min_steps} steps, and this recording has {statistics.steps}"
        if missing := [phase for phase in self.phases if phase not in statistics.phases]:
            return f"nobody {' or '.join(_PHASES[phase] for phase in missing)} in this recording"
        return None


class BaseTask(Settings):
    """The fields and methods of every kind of task."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    answer_kind: ClassVar[AnswerKind]
    """The column `kind` of the answers table: it decides which metrics apply."""
    n_movements: ClassVar[int] = 1
    """Number of movements that a question is about."""
    is_askable: ClassVar[bool] = True
    """True if a user may ask the task by name."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    """Name of the task; the file's name without `.yaml`."""
    templates: list[str] = Field(min_length=8)
    """The question in at least eight wordings; each trial is asked with one of them, drawn at random."""
    test_templates: list[str] = Field(default_factory=list)
    """Wordings for validation and test participants only; none: they are asked with `templates`."""
    paraphrases: list[str] = Field(default_factory=list)
    """Further wordings by which a question in a user's own words is recognised; no trial is asked with these."""
    applies_when: dict[str, list[str]] = Field(default_factory=dict)
    """{column: values}: only trials with one of the values in each of these columns are asked."""
    answer_when: dict[str, list[str]] = Field(default_factory=dict)
    """{column: values}: as `applies_when`, but for answering only. In training, an annotated answer shows by itself
    that the question applies."""
    needs: Needs = Needs()
    """What a recording must contain; a shorter one gets no answer."""
    sample_share: float = Field(1.0, gt=0, le=1)
    """Share of the trials that are asked, among those that the task applies to."""

    @model_validator(mode="after")
    def _wordings_differ(self) -> "BaseTask":
        wordings = [*self.templates, *self.test_templates, *self.paraphrases]
        repeated = sorted({text for text in wordings if wordings.count(text) > 1})
        if repeated:
            raise ValueError(f"templates repeat one another: {repeated[:3]}")
        return self

    @property
    def annotation_columns(self) -> tuple[str, ...]:
        """The columns that hold the true answer."""
        return ()

    @property
    def columns(self) -> tuple[str, ...]:
        """All annotation columns that the task reads."""
        return tuple(dict.fromkeys([*self.annotation_columns, *self.applies_when]))

    @property
    def answer_unit(self) -> str | None:
        """The unit of the answer; None if the answer is no number."""
        return None

    def training_fields(self) -> dict[str, Any]:
        """The fields that decide the questions of a cohort. Those that only decide how it is answered do not."""
        return self.model_dump(
            mode="json",
            exclude={"paraphrases", "synonyms", "answer_when", "needs", "measured_as", "tolerance"},
        )

    def applies(self, row: Row) -> bool:
        """True if the question makes sense for a trial and its true answer is known."""
        if any(row.get(column) is None for column in self.annotation_columns):
            return False
        return all(_is_one_of(row.get(column), values) for column, values in self.applies_when.items())

    @property
    def answer_conditions(self) -> dict[str, list[str]]:
        """{column: values} with which the question applies to a movement: `applies_when` and `answer_when`."""
        return self.answer_when | self.applies_when

    def is_ruled_out(self, row: Row) -> bool:
        """True if a trial's annotations say that the question does not apply to it."""
        return any(
            row.get(column) is not None and not _is_one_of(row[column], values)
            for column, values in self.answer_conditions.items()
        )

    def example(self, trials: tuple[Row, ...], context: ExampleContext) -> Example | None:
        """The true answer about one trial, or about two of a comparison. None if there is nothing to say.

        Raises InputError for an annotation that is no label of the task, or not plausible.
        """
        raise NotImplementedError

    def parse(self, text: str) -> str | float | None:
        """The label or number that the text of an answer states; None if it states none."""
        return None

    def refuses(self, text: str) -> bool:
        """True if this text is the task's refusal."""
        return False


class AnnotatedTask(BaseTask):
    """A task whose true answer is an annotation of the cohort."""

    annotation: str
    """The annotation column that holds the true answer."""

    @property
    def annotation_columns(self) -> tuple[str, ...]:
        return (self.annotation,)

    def answer(self, truth: str | float) -> str:
        """The text for a label or number: `stroke`, `1.25 m/s`."""
        raise NotImplementedError

    def answers(self, labels: Sequence[str] = ()) -> list[str] | list[float]:
        """Every label or number that can be the answer; labels: those of a task without its own.

        Raises InputError if there are none.
        """
        raise NotImplementedError


class LabelTask(AnnotatedTask):
    """A task that is answered with one of several labels."""

    answer_kind = "classification"

    labels: dict[str, str] | None = None
    """{label: text of the answer}. Left out: every annotated value is a label and its own text."""
    synonyms: dict[str, list[str]] = Field(default_factory=dict)
    """{label: further words for it, in any language}: a question that names a label is recognised by them."""

    @model_validator(mode="after")
    def _answers_differ(self) -> "LabelTask":
        if self.labels and len({_normalised(text) for text in self.labels.values()}) != len(self.labels):
            raise ValueError("labels: two labels have the same text")
        return self

    @model_validator(mode="after")
    def _synonyms_belong_to_one_label(self) -> "LabelTask":
        unknown = [label for label in self.synonyms if self.labels and label not in self.labels]
        if unknown:
            raise ValueError(f"synonyms: {unknown[0]!r} is none of the labels {list(self.labels or ())}")
        words = [w for words in self.synonyms.values() for w in {_normalised(word) for word in words}]
        if repeated := sorted({word for word in words if words.count(word) > 1}):
            raise ValueError(f"synonyms: {repeated[0]!r} stands for two labels")
        return self

    def label_of(self, value: str) -> str | None:
        """The label that an annotated value is, in whichever case people wrote it; None if it is none.

        A task without labels of its own takes every value as one.
        """
        if self.labels is not None and value in self.labels:
            return value
        usual = {_normalised(label): label for label in self.labels or self.synonyms}
        return usual.get(_normalised(value), None if self.labels is not None else value)

    def answer(self, truth: str | float) -> str:
        return self.labels[str(truth)] if self.labels else str(truth)

    def answers(self, labels: Sequence[str] = ()) -> list[str]:
        known = list(self.labels or labels)
        if not known:
            raise InputError(f"task {self.name!r}: expected labels to choose from, found none")
        return known

    def parse(self, text: str) -> str | None:
        """The label that the text states, whatever its case and final stop."""
        if self.labels is None:
            return text.strip().rstrip(".").strip() or None
        return {_normalised(spoken): label for label, spoken in self.labels.items()}.get(_normalised(text))


class NumberTask(AnnotatedTask):
    """A task that is answered with a number."""

    answer_kind = "regression"

    unit: str
    """Unit of the number, as it stands in the answer."""
    decimals: int = Field(0, ge=0, le=4)
    """Decimals of the number in the answer."""
    plausible: tuple[float, float]
    """Lowest and highest number that can be the answer, in `unit`."""

    @property
    def answer_unit(self) -> str:
        return self.unit

    def answer(self, truth: str | float) -> str:
        number = round(float(truth), self.decimals) + 0.0  # adding 0.0 turns -0.0 into 0.0
        return f"{number:.{self.decimals}f} {self.unit}"

    def answers(self, labels: Sequence[str] = ()) -> list[float]:
        """All numbers of the plausible range with this many decimals, rising."""
        step = 10.0**-self.decimals
        low, high = (round(edge / step) for edge in self.plausible)
        return [round(k * step, self.decimals) for k in range(low, high + 1)]

    def parse(self, text: str) -> float | None:
        """The first number in the text."""
        match = NUMBER.search(text)
        return float(match.group()) if match else None


class ClassificationTask(LabelTask):
    """A label of one movement, from an annotation."""

    kind: Literal["classification"] = "classification"
    """The kind of task."""

    def truth(self, row: Row) -> str:
        """The trial's label. Raises InputError if the annotated value is none of `labels`."""
        value = str(_as_text(row[self.annotation]))
        label = self.label_of(value)
        if label is None:
            raise InputError(
                f"{_where(self, row)}: expected one of {sorted(self.labels or ())}, found {value!r}"
            )
        return label

    def example(self, trials: tuple[Row, ...], context: ExampleContext) -> Example:
        label = self.truth(trials[0])
        return Example(self.answer(label), label=label)


def _plausible_is_optional(schema: dict[str, Any]) -> None:
    """In the JSON Schema: `plausible` may be left out for an outcome measure that the program knows."""
    schema["required"].remove("plausible")


class RegressionTask(NumberTask):
    """A number of one movement, from an annotation."""

    model_config = ConfigDict(json_schema_extra=_plausible_is_optional)

    kind: Literal["regression"] = "regression"
    """The kind of task."""
    plausible: tuple[float, float]
    """Lowest and highest plausible number, in `unit`; a trial outside is an error. May be left out for
    walking_speed, cadence, tug_time, fsst_time and age, whose ranges the program knows."""
    measured_as: str | None = None
    """Quantity of `motion.quantities` that is the same number, measured; it is shown beside every answer."""
    tolerance: float | None = Field(None, gt=0)
    """Largest difference, in `unit`, between an answer and the measured value; a larger one makes the answer
    uncertain. Default: the quantity's own tolerance."""

    @model_validator(mode="before")
    @classmethod
    def _range_of_known_measure(cls, values: Any) -> Any:
        """Fill in the plausible range of an outcome measure that the program knows by name."""
        measure = OUTCOME_MEASURES.get(str(values.get("annotation"))) if isinstance(values, dict) else None
        if measure is None or values.get("plausible") is not None:
            return values
        return values | {"plausible": (measure.low, measure.high)}

    @model_validator(mode="after")
    def _measured_quantity_exists(self) -> "RegressionTask":
        if self.measured_as is not None:
            _require_unit("measured_as", self.measured_as, self.unit)
        elif self.tolerance is not None:
            raise ValueError("tolerance: expected together with measured_as, found it alone")
        return self

    def truth(self, row: Row) -> float:
        """The trial's number. Raises InputError if it is not plausible."""
        value = row[self.annotation]
        low, high = self.plausible
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not low <= number <= high:
            raise InputError(
                f"{_where(self, row)}: expected {low:g} to {high:g} {self.unit}, found {_as_text(value)}"
            )
        return number

    def example(self, trials: tuple[Row, ...], context: ExampleContext) -> Example:
        number = self.truth(trials[0])
        return Example(self.answer(number), value=number)


def _require_unit(key: str, quantity: str, unit: str) -> None:
    """Raise ValueError for a quantity that is not measured, or one of another unit."""
    if quantity not in QUANTITIES:
        raise ValueError(f"{key}: expected one of {', '.join(QUANTITIES)}, found {quantity!r}")
    if unit != QUANTITIES[quantity].unit:
        raise ValueError(f"unit: {quantity} is measured in {QUANTITIES[quantity].unit!r}, found {unit!r}")


PredictionTask = ClassificationTask | RegressionTask
"""The tasks that predict an annotation of one movement."""


def _where(task: AnnotatedTask, row: Row) -> str:
    return f"trial {row.get('trial', '?')}, column {task.annotation!r}"


class ComparisonTask(AnnotatedTask):
    """A task about two movements, A and B, of one split that have the same values in the columns `same`."""

    n_movements = 2

    same: list[str] = Field(default_factory=lambda: ["participant", "activity"])
    """Columns in which both movements have the same value."""

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys([*super().columns, *(c for c in self.same if c != "participant")]))

    def compare(self, a: Row, b: Row) -> str | float | None:
        """The true answer about movements A and B; None if this pair is not asked.

        The question applies to both (`applies`).
        """
        raise NotImplementedError

    def is_derivable_from(self, task: BaseTask, answers: Sequence[str] | Sequence[float]) -> bool:
        """True if the answers to `task` about each movement alone decide this task.

        answers: every answer that `task` can have.
        """
        raise NotImplementedError

    def derive(
        self,
        answers: Sequence[str] | Sequence[float],
        single_answers: Sequence[str] | Sequence[float],
        a: np.ndarray,
        b: np.ndarray,
    ) -> np.ndarray:
        """Probability (A,) of each of this task's `answers` from a task about each movement alone.

        a, b: probability (N,) of each of `single_answers` for movement A and for B, taken to be independent.
        If no pair of answers is possible, all answers get the same probability.
        """
        weights = self._weights(answers, single_answers, a, b)
        total = weights.sum()
        return weights / total if total > 0 else np.full(len(weights), 1 / len(weights))

    def _weights(self, answers: Any, single_answers: Any, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """As `derive`, not normalised."""
        raise NotImplementedError


def _differences(
    numbers: Sequence[float], a: np.ndarray, b: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """All differences B - A (2N - 1,) of evenly spaced numbers (N,), their probabilities and the spacing."""
    step = numbers[1] - numbers[0]
    return step * np.arange(1 - len(b), len(b)), np.convolve(b, a[::-1]), step


class _MovementChoiceTask(ComparisonTask, LabelTask):
    """A comparison that is answered with movement A or movement B."""

    labels: dict[str, str]
    """Text of the answer for A and for B."""

    @model_validator(mode="after")
    def _labels_are_movements(self) -> "_MovementChoiceTask":
        if set(self.labels) != set(MOVEMENTS):
            raise ValueError(f"labels: expected one for each of the movements {list(MOVEMENTS)}")
        return self

    def compare(self, a: Row, b: Row) -> str | None:
        raise NotImplementedError

    def example(self, trials: tuple[Row, ...], context: ExampleContext) -> Example | None:
        label = self.compare(*trials)
        return None if label is None else Example(self.answer(label), label=label)


class LabelComparisonTask(_MovementChoiceTask):
    """Which of two movements has a label that the other has not."""

    kind: Literal["label_comparison"] = "label_comparison"
    """The kind of task."""
    label: str
    """The annotated value that exactly one of the two movements has."""

    def compare(self, a: Row, b: Row) -> str | None:
        has_label = [_is_one_of(row[self.annotation], [self.label]) for row in (a, b)]
        return MOVEMENTS[has_label.index(True)] if sum(has_label) == 1 else None

    def is_derivable_from(self, task: BaseTask, answers: Sequence[str] | Sequence[float]) -> bool:
        same_column = isinstance(task, ClassificationTask) and task.annotation == self.annotation
        return same_column and self.label in answers

    def _weights(self, answers: Any, single_answers: Any, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        at = single_answers.index(self.label)
        likely = {"A": a[at] * (1 - b[at]), "B": b[at] * (1 - a[at])}
        return np.array([likely[label] for label in answers])


class NumberComparisonTask(_MovementChoiceTask):
    """Which of two movements has the greater number."""

    kind: Literal["number_comparison"] = "number_comparison"
    """The kind of task."""
    min_difference: float = Field(0.0, ge=0)
    """Pairs whose numbers differ by less are not asked."""

    def compare(self, a: Row, b: Row) -> str | None:
        change = float(b[self.annotation]) - float(a[self.annotation])
        return None if abs(change) < max(self.min_difference, 1e-9) else MOVEMENTS[int(change > 0)]

    def is_derivable_from(self, task: BaseTask, answers: Sequence[str] | Sequence[float]) -> bool:
        return isinstance(task, RegressionTask) and task.annotation == self.annotation

    def _weights(self, answers: Any, single_answers: Any, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        change, likely_change, step = _differences(single_answers, a, b)
        # Differences are multiples of the step; half a step keeps the smallest one that counts on the right side.
        threshold = max(self.min_difference, step) - step / 2
        likely = {"A": likely_change[change < -threshold].sum(), "B": likely_change[change > threshold].sum()}
        return np.array([likely[label] for label in answers])


class ChangeTask(ComparisonTask, NumberTask):
    """The number of movement B minus that of movement A."""

    kind: Literal["change"] = "change"
    """The kind of task."""
    plausible: tuple[float, float]
    """Lowest and highest change that is asked, in `unit`; pairs outside are left out."""

    def compare(self, a: Row, b: Row) -> float | None:
        change = float(b[self.annotation]) - float(a[self.annotation])
        return change if self.plausible[0] <= change <= self.plausible[1] else None

    def example(self, trials: tuple[Row, ...], context: ExampleContext) -> Example | None:
        change = self.compare(*trials)
        return None if change is None else Example(self.answer(change), value=change)

    def is_derivable_from(self, task: BaseTask, answers: Sequence[str] | Sequence[float]) -> bool:
        return isinstance(task, RegressionTask) and task.annotation == self.annotation

    def _weights(self, answers: Any, single_answers: Any, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        change, likely_change, step = _differences(single_answers, a, b)
        changes = np.asarray(answers, dtype=float)
        # Each difference counts for the nearest answer; those beyond the plausible range count for none.
        distance = np.abs(change[:, None] - changes)
        in_range = distance.min(axis=1) < max(step, changes[1] - changes[0]) / 2 + 1e-9
        nearest = distance.argmin(axis=1)
        return np.bincount(nearest[in_range], likely_change[in_range], minlength=len(answers))


class DescriptionTask(BaseTask):
    """The motion parameters of a movement in words, measured from the movement itself."""

    answer_kind = "description"

    kind: Literal["description"] = "description"
    """The kind of task."""

    def example(self, trials: tuple[Row, ...], context: ExampleContext) -> Example | None:
        values = context.parameters.get(trials[0]["trial"], {})
        answer = format_description(values)
        return (
            Example(answer, answer_mirrored=format_description(mirror_parameters(values))) if answer else None
        )


class MeasuredTask(BaseTask):
    """A quantity that kinematics measures from the joint angles and the pelvis (`motion.quantities`).

    The language model is never asked it, and no trial is asked it in training.
    """

    answer_kind = "measured"

    kind: Literal["measured"] = "measured"
    """The kind of task."""
    quantity: str
    """Name of the quantity: a key of `motion.quantities.QUANTITIES`."""
    unit: str
    """Unit of the value; that of the quantity. Empty for a ratio."""
    decimals: int = Field(ge=0, le=4)
    """Decimals of the value in the answer."""

    @model_validator(mode="after")
    def _quantity_exists(self) -> "MeasuredTask":
        _require_unit("quantity", self.quantity, self.unit)
        return self

    @property
    def answer_unit(self) -> str | None:
        return self.unit or None

    def applies(self, row: Row) -> bool:
        """Never: no trial is asked it in training."""
        return False

    def example(self, trials: tuple[Row, ...], context: ExampleContext) -> None:
        return None

    def parse(self, text: str) -> float | None:
        """None: the answer's record has the values, since a text may state several."""
        return None


class RefusalTask(BaseTask):
    """Questions that movement cannot answer."""

    answer_kind = "refusal"
    is_askable = False

    kind: Literal["refusal"] = "refusal"
    """The kind of task."""
    refusal_text: str
    """The answer to every such question."""

    def answer(self, truth: str | float = REFUSED) -> str:
        """The refusal."""
        return self.refusal_text

    def example(self, trials: tuple[Row, ...], context: ExampleContext) -> Example:
        return Example(self.refusal_text, label=REFUSED)

    def parse(self, text: str) -> str:
        """REFUSED if the text is the refusal, else ANSWERED."""
        return REFUSED if self.refuses(text) else ANSWERED

    def refuses(self, text: str) -> bool:
        return _normalised(text) == _normalised(self.refusal_text)


class GenerationTask(BaseTask):
    """A movement made from a description: some of a trial's annotations, its walking pace and its duration."""

    answer_kind = "generation"
    is_askable = False

    kind: Literal["generation"] = "generation"
    """The kind of task."""
    conditions: list[str] = Field(default_factory=list)
    """Annotation columns that a description may contain, in this order, in the words of their tasks."""

    @model_validator(mode="after")
    def _templates_have_a_place(self) -> "GenerationTask":
        if not all("{}" in text for text in (*self.templates, *self.test_templates)):
            raise ValueError("templates: expected `{}` in each, where the description goes")
        return self

    def example(self, trials: tuple[Row, ...], context: ExampleContext) -> Example:
        # The answer is the movement itself, whose tokens are not known here.
        return Example("", description=self.describe(trials[0], context))

    def describe(self, row: Row, context: ExampleContext) -> str:
        """The description of a trial: the first part always, each other part with probability 2/3."""
        values = context.parameters.get(row["trial"], {})
        # One task a column; the last one wins.
        task_of = {
            task.annotation: task for task in context.tasks.values() if isinstance(task, PredictionTask)
        }
        parts = []
        for column in self.conditions:
            if column in task_of and task_of[column].applies(row):
                parts.append(task_of[column].answer(task_of[column].truth(row)))
        if (words := pace(values)) is not None:
            parts.append(words)
        if values.get("duration") is not None:
            parts.append(format_parameter("duration", float(values["duration"] or 0)))
        is_kept = [
            n == 0 or stable_hash(context.seed, "wanted", n, row["trial"]) % 3 > 0 for n in range(len(parts))
        ]
        return ", ".join(part for part, kept in zip(parts, is_kept, strict=True) if kept)


PACES = ((0.8, "slowly"), (1.2, "at a usual pace"), (np.inf, "quickly"))
"""Walking paces: (highest speed in m/s, words). From 0.8 m/s people begin to get about outside, from 1.2 m/s they
cross roads in time (Perry et al., Stroke 1995; 26: 982-989; Langlois et al., AJPH 1997; 87: 393-397)."""


def pace(parameters: ParameterValues) -> str | None:
    """The walking pace in words; None for a movement that is no walk."""
    speed = parameters.get("speed")
    return None if speed is None else next(words for highest, words in PACES if speed <= highest)


Task = Annotated[
    ClassificationTask
    | RegressionTask
    | LabelComparisonTask
    | NumberComparisonTask
    | ChangeTask
    | DescriptionTask
    | MeasuredTask
    | RefusalTask
    | GenerationTask,
    Field(discriminator="kind"),
]
"""A task of any kind."""

Tasks = dict[str, Task]
"""Tasks by name."""

KINDS: dict[str, type[BaseTask]] = {
    get_args(kind.model_fields["kind"].annotation)[0]: kind for kind in get_args(get_args(Task)[0])
}
"""The class of each kind."""

_ADAPTER: TypeAdapter[Task] = TypeAdapter(Task)


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a task file, for editors."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **_ADAPTER.json_schema()}
    for kind in KINDS.values():
        schema["$defs"][kind.__name__]["required"].insert(0, "kind")  # it has a default for Python only
    return schema


def tasks_from_json(items: Iterable[Mapping[str, Any]]) -> Tasks:
    """Tasks by name from a `tasks.json`."""
    return {item["name"]: _ADAPTER.validate_python(item) for item in items}


def askable(tasks: Tasks, n_movements: int) -> Tasks:
    """The tasks that a user can ask about one movement, or about two to compare them."""
    return {name: t for name, t in tasks.items() if t.is_askable and t.n_movements == n_movements}


def read_task(path: str | Path) -> Task:
    """The task of a YAML file. Raises InputError that names the file, the key and the expected value."""
    values = read_yaml(path)
    kind = KINDS.get(str(values.get("kind")))
    if kind is None:
        raise InputError(f"{path}: kind: expected one of {', '.join(KINDS)}, found {values.get('kind')!r}")
    unknown = [str(key) for key in values if key not in kind.model_fields]
    if unknown:
        keys = ", ".join(kind.model_fields)
        lines = [f"  {key}: unknown key" for key in unknown]
        raise InputError(
            "\n".join([f"{path}: wrong settings", *lines, f"  a {values['kind']} task has {keys}"])
        )
    task = validate(kind, values, str(path))
    if task.name != Path(path).stem:
        raise InputError(f"{path}: name: expected the file's name {Path(path).stem!r}, found {task.name!r}")
    return task  # type: ignore[return-value]  # every value of KINDS is a kind of Task


def task_files(folders: str | Path | Sequence[str | Path]) -> dict[str, Path]:
    """{task: its file} of one folder or several. Raises InputError for an empty folder or a name met twice."""
    files: dict[str, Path] = {}
    for folder in [folders] if isinstance(folders, str | Path) else folders:
        paths = sorted(find(folder).glob("*.yaml"))
        if not paths:
            raise InputError(f"{folder}: no task files (*.yaml) here")
        for path in paths:
            if path.stem in files:
                raise InputError(f"{path}: expected a name of its own, found another task {path.stem!r}")
            files[path.stem] = path
    return files


def load_tasks(
    folders: str | Path | Sequence[str | Path],
    names: Iterable[str] | None = None,
    exclude: Iterable[str] = (),
) -> Tasks:
    """The tasks of one folder or several, by name.

    names: only these, in this order; None: all, in the order of the files.
    exclude: without these.
    Raises InputError for an empty folder, an unknown name, a name met twice, or a wrong file.
    """
    tasks = {name: read_task(path) for name, path in task_files(folders).items()}
    kept = list(tasks) if names is None else list(names)
    left_out = list(exclude)
    unknown = [name for name in [*kept, *left_out] if name not in tasks]
    if unknown:
        raise InputError(f"tasks: unknown {unknown}; {folders} has {sorted(tasks)}")
    return {name: tasks[name] for name in kept if name not in left_out}


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=1))
