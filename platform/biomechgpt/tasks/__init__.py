"""What can be asked: a task is a YAML file, read here. Adding a clinical question is adding a file.

Knows how an annotation becomes a spoken answer and back; knows nothing about tokens or models.
"""

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from biomechgpt.cohort.annotations import MEASURES
from biomechgpt.settings import InputError, Settings, read_yaml, validate

NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def _plain(value: Any) -> Any:
    """A whole number as a table of text would have it: 1.0 is `1`."""
    return f"{value:g}" if isinstance(value, float) and value.is_integer() else value


def _heard(text: str) -> str:
    """Text without case, final stop and the space around."""
    return text.strip().rstrip(".").strip().casefold()


class Task(Settings):
    """One clinical question.

    annotation: the cohort's column that holds the truth.
    labels: annotation value -> the spoken answer; left out, every annotated value is its own answer.
    applies_when: {column: values}: asked only where all of these hold.
    plausible: (low, high) of a measure in `unit`; annotations outside it are errors. Of a measure that cohorts
    know by name (`annotations.MEASURES`) it is theirs, where it is left out.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    kind: Literal["classification", "regression"]
    annotation: str
    labels: dict[str, str] | None = None
    unit: str | None = None
    decimals: int = Field(0, ge=0, le=4)
    plausible: tuple[float, float] | None = None
    applies_when: dict[str, list[str]] = Field(default_factory=dict)
    phrasings: list[str] = Field(min_length=8)

    @model_validator(mode="before")
    @classmethod
    def _known(cls, values: Any) -> Any:
        known = MEASURES.get(str(values.get("annotation"))) if isinstance(values, dict) else None
        if known is None or values.get("plausible") is not None:
            return values
        return values | {"plausible": (known.low, known.high)}

    @model_validator(mode="after")
    def _complete(self) -> "Task":
        if self.kind == "regression" and (self.unit is None or self.plausible is None):
            raise ValueError("a regression task needs `unit` and `plausible`")
        if len(set(self.phrasings)) != len(self.phrasings):
            raise ValueError("phrasings repeat one another")
        if self.labels and len({_heard(said) for said in self.labels.values()}) != len(self.labels):
            raise ValueError("two labels have the same spoken answer")
        return self

    def applies(self, annotations: Mapping[str, Any]) -> bool:
        """Whether the question makes sense for a trial and its answer was collected."""
        if annotations.get(self.annotation) is None:
            return False
        return all(_plain(annotations.get(column)) in values for column, values in self.applies_when.items())

    def truth(self, annotations: Mapping[str, Any]) -> str | float:
        """The annotated label or number. Raises InputError where it is no label, or not plausible."""
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

    def answer(self, truth: str | float) -> str:
        """What a label or number is spoken as: `stroke`, `1.25 m/s`."""
        if self.kind == "classification":
            return self.labels[str(truth)] if self.labels else str(truth)
        return f"{float(truth):.{self.decimals}f} {self.unit}"

    def parse(self, text: str) -> str | float | None:
        """The label or number that an answer states; None where it states none.

        Without `labels` any text is a label. A label is recognised whatever its case and final stop.
        """
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


def load_tasks(folder: str | Path, names: Iterable[str] | None = None) -> Tasks:
    """The tasks of a folder by name, in the order of `names` or else of the files.

    Raises InputError for an empty folder, an unknown name, or a wrong file, naming it.
    """
    tasks: Tasks = {}
    for path in sorted(Path(folder).glob("*.yaml")):
        task = validate(Task, read_yaml(path), str(path))
        if task.name != path.stem:
            raise InputError(f"{path}: name: expected the file's name {path.stem!r}, found {task.name!r}")
        tasks[task.name] = task
    if not tasks:
        raise InputError(f"{folder}: no task files (*.yaml) here")
    if names is None:
        return tasks
    names = list(names)
    unknown = [name for name in names if name not in tasks]
    if unknown:
        raise InputError(f"tasks: unknown {unknown}; {folder} has {sorted(tasks)}")
    return {name: tasks[name] for name in names}
