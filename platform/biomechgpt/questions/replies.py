"""Replies that state no value: what can be asked, labels that the model does not know, and questions back.

Knows words; nothing about movements or language models.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

from biomechgpt.questions.intent import Intent
from biomechgpt.questions.tasks import ClassificationTask, RefusalTask, Tasks

_ACRONYMS = {word.lower(): word for word in ("TUG", "FSST", "FGA", "LLPU", "SCI", "TBI")}
_GROUPS = {"activity": "activities", "diagnosis": "diagnoses", "assistive_device": "assistive devices"}


def task_title(name: str) -> str:
    """The name of a task in words: `tug_time` is `TUG time`."""
    return re.sub(r"[a-z]+", lambda word: _ACRONYMS.get(word[0], word[0]), name.replace("_", " "))


def reply(
    intent: Intent, tasks: Tasks, candidates: Sequence[str], labels: Mapping[str, Sequence[str]]
) -> str:
    """The text for an intent that has no answer: a list, an unknown label, a question back, or a refusal.

    tasks: those of the model.
    candidates: names of the tasks that can be asked here.
    labels: {task: labels that it can be answered with}.
    """
    if intent.kind == "list":
        return what_can_be_asked(tasks, candidates, labels)
    if intent.kind == "unknown_label":
        return _unknown_label(intent, tasks, labels)
    if intent.kind == "movements":
        return _other_number_of_recordings(tasks, str(intent.task))
    if intent.kind == "unclear":
        return f"Did you mean {_alternatives(tasks, intent.suggestions)}?"
    if intent.kind in ("why", "confidence"):
        return f"There is no earlier answer yet. {_examples(tasks, candidates[:3])}"
    return f"{_refusal(intent, tasks)} {_examples(tasks, intent.suggestions or candidates[:3])}"


def what_can_be_asked(tasks: Tasks, candidates: Sequence[str], labels: Mapping[str, Sequence[str]]) -> str:
    """The tasks and quantities in words, with the labels of each."""
    asked = [name for name in candidates if name in tasks]
    parts = []
    for name in asked:
        known = _known(tasks, name, labels)
        parts.append(task_title(name) + (f" ({', '.join(known)})" if known else ""))
    return f"You can ask about: {'; '.join(parts)}."


def _known(tasks: Tasks, name: str, labels: Mapping[str, Sequence[str]]) -> list[str]:
    """The texts of a task's labels."""
    task = tasks[name]
    if not isinstance(task, ClassificationTask):
        return []
    return [task.answer(label) for label in labels.get(name, ()) or (task.labels or ())]


def _unknown_label(intent: Intent, tasks: Tasks, labels: Mapping[str, Sequence[str]]) -> str:
    """A label that is none of the task's, and those that are."""
    name, label = str(intent.task), str(intent.label)
    group = _GROUPS.get(name, f"answers to {task_title(name)!r}")
    known = ", ".join(_known(tasks, name, labels))
    return f"{label[:1].upper()}{label[1:]} is not among the {group} this model knows. It knows: {known}."


def _other_number_of_recordings(tasks: Tasks, name: str) -> str:
    number = {1: "one recording", 2: "two recordings"}[tasks[name].n_movements]
    return f"This question ({task_title(name)}) is about {number}."


def _refusal(intent: Intent, tasks: Tasks) -> str:
    """Why a question gets no answer.

    A property that is not measured is named. A question that is not about movement gets the refusal task's text.
    Any other question gets a sentence that is true of all.
    """
    if intent.label is not None:
        return f"This model does not measure {intent.label}."
    refusal = next((task.refusal_text for task in tasks.values() if isinstance(task, RefusalTask)), "")
    return "I cannot answer that." if intent.about_movement or not refusal else refusal


def _alternatives(tasks: Tasks, names: Iterable[str]) -> str:
    return " or ".join(f"{task_title(name)} ({tasks[name].templates[0]!r})" for name in names)


def _examples(tasks: Tasks, names: Iterable[str]) -> str:
    questions = [f'"{tasks[name].templates[0]}"' for name in names if name in tasks]
    return f"You can ask: {', '.join(questions)}." if questions else ""
