"""What can be asked: a task is a YAML file, read here. Adding a clinical question is adding a file.

Knows how an annotation becomes a spoken answer and back; knows nothing about tokens or models.

classification, regression   a label or a number, from the cohort's annotations; with `compare`, about two movements
description                  facts measured from the movement itself (`cohort.facts`)
refusal                      questions that movement cannot answer
generation                   a movement that looks as is asked for
"""

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from biomechgpt.core.settings import InputError, Settings, read_yaml, validate
from biomechgpt.motion.outcome_measures import MEASURES

MOVEMENTS = ("A", "B")
"""What two movements in a question are called."""

NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def _plain(value: Any) -> Any:
    """A whole number as a table of text would have it: 1.0 is `1`."""
    return f"{value:g}" if isinstance(value, float) and value.is_integer() else value


def _heard(text: str) -> str:
    """Text without case, final stop and the space around."""
    return text.strip().rstrip(".").strip().casefold()


class Compare(Settings):
    """A question about two movements, A and B, with the same in the columns `same`.

    how: `which` of them has the annotation `of`, where one has and one has another; `more`: which has the greater
    number, where they are at least `least` apart; `change`: B's number less A's.
    """

    how: Literal["which", "more", "change"]
    of: str | None = None
    least: float = Field(0.0, ge=0)
    same: list[str] = Field(default_factory=lambda: ["participant", "activity"])

    @model_validator(mode="after")
    def _complete(self) -> "Compare":
        if (self.how == "which") != (self.of is not None):
            raise ValueError("expected `of` with how: which, and only with it")
        return self


REFUSED, ANSWERED = "refused", "answered"
"""Labels of a refusal task: what should be done, and what is wrong."""


class Task(Settings):
    """One clinical question.

    annotation: the cohort's column that holds the truth; not of a description, refusal or generation.
    labels: annotation value -> the spoken answer; left out, every annotated value is its own answer.
    applies_when: {column: values}: asked only where all of these hold.
    plausible: (low, high) of a measure in `unit`; annotations outside it are errors. Of a measure that cohorts
    know by name (`annotations.MEASURES`) it is theirs, where it is left out.
    digits: before the point, filled with zeros; 0: as many as it has.
    compare: makes it one about two movements; its labels are for A and B.
    says: what a refusal says. of: annotations that a movement to be made may be asked to have.
    phrasings: of a generation with `{}` where the description goes. held_out: phrasings that nobody is trained
    with; participants who are not trained on are asked with these. also: further ways in which people ask it, by
    which a question in free words is recognised; nobody is asked with these.
    share: of the trials that it applies to, how many are asked.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    kind: Literal["classification", "regression", "description", "refusal", "generation"]
    annotation: str | None = None
    labels: dict[str, str] | None = None
    unit: str | None = None
    decimals: int = Field(0, ge=0, le=4)
    digits: int = Field(0, ge=0, le=6)
    plausible: tuple[float, float] | None = None
    applies_when: dict[str, list[str]] = Field(default_factory=dict)
    compare: Compare | None = None
    says: str | None = None
    of: list[str] = Field(default_factory=list)
    share: float = Field(1.0, gt=0, le=1)
    phrasings: list[str] = Field(min_length=8)
    held_out: list[str] = Field(default_factory=list)
    also: list[str] = Field(default_factory=list)

    @model_validator(mode="before")
    @classmethod
    def _known(cls, values: Any) -> Any:
        known = MEASURES.get(str(values.get("annotation"))) if isinstance(values, dict) else None
        if known is None or values.get("plausible") is not None or values.get("compare"):
            return values
        return values | {"plausible": (known.low, known.high)}

    @model_validator(mode="after")
    def _complete(self) -> "Task":
        if self.kind == "regression" and (self.unit is None or self.plausible is None):
            raise ValueError("a regression task needs `unit` and `plausible`")
        if self.annotated != (self.annotation is not None):
            raise ValueError(
                f"annotation: expected {'one' if self.annotated else 'none'} of a {self.kind} task"
            )
        if (self.kind == "refusal") != (self.says is not None):
            raise ValueError("expected `says` of a refusal task, and only of one")
        if self.compare and (self.kind == "regression") != (self.compare.how == "change"):
            raise ValueError(
                "compare: expected how: change of a regression task, which or more of a classification"
            )
        if self.compare and self.kind == "classification" and set(self.labels or ()) != set(MOVEMENTS):
            raise ValueError(f"labels: expected one for each of {list(MOVEMENTS)}, which are compared")
        if self.kind == "generation" and not all("{}" in text for text in self.phrasings):
            raise ValueError("phrasings: expected `{}` in each, where the description goes")
        every = [*self.phrasings, *self.held_out, *self.also]
        if len(set(every)) != len(every):
            raise ValueError("phrasings repeat one another")
        if self.labels and len({_heard(said) for said in self.labels.values()}) != len(self.labels):
            raise ValueError("two labels have the same spoken answer")
        return self

    @property
    def annotated(self) -> bool:
        """Whether its truth is an annotation."""
        return self.kind in ("classification", "regression")

    def applies(self, annotations: Mapping[str, Any]) -> bool:
        """Whether the question makes sense for a trial and its answer was collected."""
        if self.annotation is not None and annotations.get(self.annotation) is None:
            return False
        return all(_plain(annotations.get(column)) in values for column, values in self.applies_when.items())

    def truth(self, annotations: Mapping[str, Any]) -> str | float:
        """The annotated label or number. Raises InputError where it is no label, or not plausible."""
        assert self.annotation is not None
        value = _plain(annotations[self.annotation])
        where = f"trial {annotations.get('trial', '?')}, column {self.annotation!r}"
        if self.kind == "classification":
            if self.labels is not None and value not in self.labels:
                raise InputError(f"{where}: expected one of {sorted(self.labels)}, found {value!r}")
            return str(value)
        assert self.plausible is not None
        low, high = self.plausible
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not low <= number <= high:
            raise InputError(f"{where}: expected {low:g} to {high:g} {self.unit}, found {value}")
        return number

    def compared(self, a: Mapping[str, Any], b: Mapping[str, Any]) -> str | float | None:
        """What is true of movement B beside A, both of which the question applies to; None where nothing is."""
        assert self.compare is not None
        assert self.annotation is not None
        values = [_plain(movement[self.annotation]) for movement in (a, b)]
        if self.compare.how == "which":
            has = [str(value) == self.compare.of for value in values]
            return MOVEMENTS[has.index(True)] if sum(has) == 1 else None
        change = float(values[1]) - float(values[0])
        if self.compare.how == "change":
            assert self.plausible is not None
            return change if self.plausible[0] <= change <= self.plausible[1] else None
        return None if abs(change) < max(self.compare.least, 1e-9) else MOVEMENTS[int(change > 0)]

    def answer(self, truth: str | float) -> str:
        """What a label or number is spoken as: `stroke`, `1.25 m/s`."""
        if self.kind == "refusal":
            return str(self.says)
        if self.kind == "classification":
            return self.labels[str(truth)] if self.labels else str(truth)
        number = round(float(truth), self.decimals) + 0.0  # never -0.00
        width = self.digits + self.decimals + (self.decimals > 0) if self.digits else 0
        return f"{number:0{width}.{self.decimals}f} {self.unit}"

    def parse(self, text: str) -> str | float | None:
        """The label or number that an answer states; None where it states none.

        Without `labels` any text is a label. A label is recognised whatever its case and final stop. Of a refusal
        task it is whether `text` refuses; a description states facts (`facts.stated`), which are not one.
        """
        if self.kind == "refusal":
            return REFUSED if _heard(text) == _heard(str(self.says)) else ANSWERED
        if self.kind in ("description", "generation"):
            return None
        text = text.strip().rstrip(".").strip()
        if self.kind == "regression":
            found = NUMBER.search(text)
            return float(found.group()) if found else None
        if not text:
            return None
        if self.labels is None:
            return text
        return {_heard(phrase): label for label, phrase in self.labels.items()}.get(_heard(text))


Tasks = dict[str, Task]


def askable(tasks: Tasks, movements: int) -> Tasks:
    """Those that can be asked about so many movements: one, or two to compare."""
    return {
        name: task
        for name, task in tasks.items()
        if (task.annotated or task.kind == "description") and (task.compare is not None) == (movements == 2)
    }


def load_tasks(folders: str | Path | list[str], names: Iterable[str] | None = None) -> Tasks:
    """The tasks of a folder, or of some, by name, in the order of `names` or else of the files.

    Raises InputError for an empty folder, an unknown name, a name met twice, or a wrong file, naming it.
    """
    tasks: Tasks = {}
    for folder in folders if isinstance(folders, list) else [folders]:
        files = sorted(Path(folder).glob("*.yaml"))
        if not files:
            raise InputError(f"{folder}: no task files (*.yaml) here")
        for path in files:
            task = validate(Task, read_yaml(path), str(path))
            if task.name != path.stem:
                raise InputError(f"{path}: name: expected the file's name {path.stem!r}, found {task.name!r}")
            if task.name in tasks:
                raise InputError(f"{path}: expected a name of its own, found another task {task.name!r}")
            tasks[task.name] = task
    if names is None:
        return tasks
    names = list(names)
    unknown = [name for name in names if name not in tasks]
    if unknown:
        raise InputError(f"tasks: unknown {unknown}; {folders} has {sorted(tasks)}")
    return {name: tasks[name] for name in names}
