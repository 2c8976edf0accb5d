"""Whether a question applies to a movement, by the model's own answers to the task's conditions.

A task names annotation columns and values in `applies_when` and `answer_when`. The task that asks for such a
column says how probable the values are. Its own conditions count too: a question about lower-limb prosthesis users
supposes that they are impaired. Pure functions. Knows nothing about models.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from biomechgpt.motion.statistics import MovementStatistics
from biomechgpt.questions.tasks import BaseTask, ClassificationTask, Tasks

LabelProbabilities = Mapping[str, Mapping[str, float]]
"""{task: {label: probability}} of one movement."""


@dataclass(frozen=True)
class Condition:
    """One condition of a task.

    column: annotation column.
    values: values with which the question applies.
    task: name of the task that asks for the column; None if the model has none.
    """

    column: str
    values: tuple[str, ...]
    task: str | None

    def labels(self, movement: LabelProbabilities) -> Mapping[str, float] | None:
        """The label probabilities of `task`; None if the condition cannot be weighed by them.

        That is so if no task asks for the column, or if the model knows none of the values.
        """
        labels = movement.get(str(self.task), {})
        return labels if set(self.values) & set(labels) else None

    def probability(self, labels: Mapping[str, float]) -> float:
        """Probability that the condition holds. labels: {label: probability} of `task`."""
        return float(sum(p for label, p in labels.items() if label in self.values))


@dataclass(frozen=True)
class Gate:
    """Whether a question applies.

    applies: probability that it does; None if the model cannot know.
    condition: what an answer supposes; empty without conditions.
    reason: why it does not apply, as a sentence; empty if it does.
    """

    applies: float | None
    condition: str
    reason: str = ""


def conditions_of(name: str, tasks: Tasks) -> list[Condition]:
    """The conditions of a task, those of its conditions' tasks after them. Each column counts once."""
    conditions: dict[str, Condition] = {}
    waiting: list[BaseTask] = [tasks[name]]
    while waiting:
        for column, values in waiting.pop(0).answer_conditions.items():
            if column in conditions:
                continue
            task = next(
                (n for n, t in tasks.items() if isinstance(t, ClassificationTask) and t.annotation == column),
                None,
            )
            conditions[column] = Condition(column, tuple(values), task)
            if task is not None:
                waiting.append(tasks[task])
    return list(conditions.values())


def condition_tasks(conditions: Sequence[Condition]) -> list[str]:
    """The tasks whose answers weigh these conditions, each once."""
    return list(dict.fromkeys(c.task for c in conditions if c.task is not None))


def applies_probability(
    conditions: Sequence[Condition], movements: Sequence[LabelProbabilities]
) -> tuple[float, bool]:
    """Probability that the conditions hold for all movements, and whether every condition could be weighed.

    The model's answers to different tasks are taken to be independent, given those that they suppose.
    """
    probability, complete = 1.0, True
    for condition in conditions:
        for movement in movements:
            labels = condition.labels(movement)
            if labels is None:
                complete = False
            else:
                probability *= condition.probability(labels)
    return probability, complete


def gate(
    tasks: Tasks,
    name: str,
    conditions: Sequence[Condition],
    movements: Sequence[LabelProbabilities],
    statistics: Sequence[MovementStatistics],
    threshold: float,
) -> Gate:
    """Whether a task's question applies to some movements.

    movements: the label probabilities of each movement, for the tasks of `conditions`.
    statistics: those that are known.
    threshold: the probability must be above it.
    """
    condition = "; ".join(f"{c.column}: {' or '.join(c.values)}" for c in conditions)
    probability, complete = applies_probability(conditions, movements)
    unmet = [reason for known in statistics if (reason := tasks[name].needs.unmet(known))]
    if unmet:
        return Gate(0.0, condition, f"Does not apply: {unmet[0]}.")
    if conditions and probability <= threshold:
        return Gate(probability, condition, f"Does not apply: {_appearance(tasks, conditions, movements)}.")
    return Gate(probability if complete else None, condition)


def _appearance(
    tasks: Tasks, conditions: Sequence[Condition], movements: Sequence[LabelProbabilities]
) -> str:
    """What the movement is most likely instead: `this looks like overground walking (.98)`."""
    pairs = [
        (condition, labels)
        for condition in conditions
        for movement in movements
        if (labels := condition.labels(movement)) is not None
    ]
    condition, labels = min(pairs, key=lambda pair: pair[0].probability(pair[1]))
    task = tasks[str(condition.task)]
    assert isinstance(task, ClassificationTask)
    label = max(labels, key=lambda key: labels[key])
    words = "this looks like" if condition.column == "activity" else "most likely"
    if label in condition.values:  # likely enough by itself, but not sure enough
        return f"it is not certain enough that {condition.column} is {' or '.join(condition.values)}"
    return f"{words} {task.answer(label)} ({short_probability(labels[label])})"


def short_probability(probability: float) -> str:
    """A probability with two decimals, without the leading zero: `.98`."""
    return f"{probability:.2f}".removeprefix("0")


def mean_probabilities(movements: Sequence[LabelProbabilities]) -> dict[str, dict[str, float]]:
    """{task: {label: mean probability}} over several movements of one person."""
    return {
        task: {label: float(np.mean([m[task][label] for m in movements])) for label in labels}
        for task, labels in movements[0].items()
    }
