"""The questions and true answers of a cohort, stored as a `datasets` Dataset.

Each row is one question: the trial, its split, the wording that was drawn, and the true answer. A question about
two movements has the second trial in `other`; `participant` is the first trial's. Questions come from the cohort's
annotations and motion parameters. Knows nothing about motion tokens: another tokenizer changes no question.
"""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ConfigDict, Field

from biomechgpt.core import storage
from biomechgpt.core.settings import InputError, Settings
from biomechgpt.motion.parameters import ParameterValues
from biomechgpt.questions.tasks import (
    AnnotatedTask,
    BaseTask,
    ComparisonTask,
    DescriptionTask,
    ExampleContext,
    GenerationTask,
    MeasuredTask,
    Row,
    Tasks,
    load_tasks,
    stable_hash,
    task_files,
    tasks_from_json,
)

if TYPE_CHECKING:
    import datasets

    from biomechgpt.core.artifact import Artifact

VERSION = 3

logger = logging.getLogger("biomechgpt")


class QuestionsSettings(Settings):
    """Which questions a cohort is asked."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    tasks: str | list[str] = "configs/tasks"
    """Folder of task files, or several."""
    names: list[str] | None = None
    """Only these tasks, in this order; null: all files of the folders."""
    exclude: list[str] = Field(default_factory=list)
    """Tasks of the folders that are left out."""
    measured: str | list[str] = "configs/tasks_measured"
    """Folder of task files of measured quantities, or several; [] for none. They make no training questions: a
    finished model has them beside its own tasks."""
    seed: int = 0
    """Draws the wording of each question and the order of all questions."""

    def load(self) -> Tasks:
        """The tasks that the language model learns. Raises InputError for a wrong file or an unknown name."""
        tasks = load_tasks(self.tasks, self.names, self.exclude)
        return {name: task for name, task in tasks.items() if not isinstance(task, MeasuredTask)}

    def load_measured(self) -> dict[str, MeasuredTask]:
        """The measured tasks of all folders. Raises InputError for a wrong file or a name met twice."""
        folders = [folder for value in (self.tasks, self.measured) for folder in _list(value)]
        return {
            name: task
            for name, task in load_tasks(folders).items()
            if isinstance(task, MeasuredTask) and name not in self.exclude
        }


def _list(folders: str | list[str]) -> list[str]:
    return [folders] if isinstance(folders, str) else folders


def draw_template(task: BaseTask, trial: str, seed: int, split: str = "train") -> str:
    """The wording for a trial. It depends on the task, the trial, its split and the seed, not on other trials."""
    templates = task.test_templates if task.test_templates and split != "train" else task.templates
    return templates[stable_hash(seed, task.name, trial) % len(templates)]


def asked_trials(task: BaseTask, rows: Sequence[Row]) -> list[tuple[Row, ...]]:
    """The trials that `task` is asked about: one row each, or the two rows of a comparison."""
    applicable = [row for row in rows if task.applies(row)]
    groups: list[tuple[Row, ...]] = [(row,) for row in applicable]
    if isinstance(task, ComparisonTask):
        groups = _pairs(task, applicable)
    if task.sample_share == 1:
        return groups
    # A hash as a number in [0, 1): whether a trial is asked depends on the trial alone.
    return [g for g in groups if stable_hash("share", task.name, g[0]["trial"]) / 2**64 < task.sample_share]


def _pairs(task: ComparisonTask, rows: list[Row]) -> list[tuple[Row, ...]]:
    """Pairs of trials that can be compared. No trial is in two pairs.

    Within each group of equal `task.same`, in an order that depends on the trials' names alone, each trial is
    paired with the first trial before it that is still without a partner and differs as the task asks.
    """
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in sorted(rows, key=lambda row: stable_hash("pair", task.name, row["trial"])):
        groups.setdefault((row["split"], *(row.get(column) for column in task.same)), []).append(row)
    pairs: list[tuple[Row, ...]] = []
    for group in groups.values():
        unpaired: list[Row] = []
        for row in group:
            match = next((i for i, a in enumerate(unpaired) if task.compare(a, row) is not None), None)
            if match is None:
                unpaired.append(row)
            else:
                pair = (unpaired.pop(match), row)
                first = stable_hash("first", task.name, row["trial"]) % 2
                pairs.append((pair[first], pair[1 - first]))
    return pairs


def ask(
    rows: Iterable[Row], tasks: Tasks, seed: int, parameters: Mapping[str, ParameterValues] | None = None
) -> list[dict[str, Any]]:
    """Every applicable question about every trial, shuffled so that tasks interleave.

    rows: trials with `trial`, `participant`, `split` and annotation columns.
    parameters: {trial: motion parameters}, for descriptions and generation.
    Returns rows of `features()`. Raises InputError for an annotation that is no label of a task, or not plausible.
    """
    rows, questions = list(rows), []
    context = ExampleContext(tasks, parameters or {}, seed)
    for task in tasks.values():
        for trials in asked_trials(task, rows):
            example = task.example(trials, context)
            if example is None:
                continue
            first = trials[0]
            question = draw_template(task, first["trial"], seed, first["split"])
            if example.description is not None:
                question = question.format(example.description)
            questions.append(
                {
                    "trial": first["trial"],
                    "other": trials[1]["trial"] if len(trials) > 1 else None,
                    "participant": first["participant"],
                    "split": first["split"],
                    "task": task.name,
                    "question": question,
                    "answer": example.answer,
                    "answer_mirrored": example.answer_mirrored,
                    "label": example.label,
                    "value": example.value,
                }
            )
    order = np.random.default_rng(seed).permutation(len(questions))
    return [questions[i] for i in order]


TEXT_COLUMNS = (
    "trial",
    "other",
    "participant",
    "split",
    "task",
    "question",
    "answer",
    "answer_mirrored",
    "label",
)


def features() -> "datasets.Features":
    """The columns of a questions dataset."""
    import datasets

    text = {name: datasets.Value("string") for name in TEXT_COLUMNS}
    return datasets.Features({**text, "value": datasets.Value("float64")})


def missing_columns(
    tasks: Tasks, files: Mapping[str, Path], columns: Collection[str]
) -> dict[str, list[str]]:
    """{task: the columns that it reads and the cohort lacks}, logged with the task's file.

    columns: the cohort's annotation columns.
    """
    missing = {}
    for name, task in tasks.items():
        absent = [column for column in task.columns if column not in columns]
        if absent:
            missing[name] = absent
            logger.warning(
                "%s: no trial is asked, the cohort has no column %s", files[name], ", ".join(absent)
            )
    return missing


def make_questions(cohort: "Artifact", settings: QuestionsSettings, root: str) -> "Artifact":
    """The questions artifact of a cohort: `dataset/` (datasets.load_from_disk) and `tasks.json`.

    Its metrics: `questions`, `by_task` (questions of each task), `missing_columns` (of each task, the columns that
    the cohort lacks) and `left_out` (tasks of the folders that are not asked).
    Raises InputError if no question applies to any trial.
    """
    # Imported here, so that the settings load without Ray.
    from biomechgpt.cohort import Cohort
    from biomechgpt.cohort.parameters import make_parameters, read_parameters
    from biomechgpt.core import artifact

    columns = list(Cohort(cohort).info.annotations)
    tasks, files = settings.load(), task_files(settings.tasks)
    left_out = [name for name in files if name not in tasks]
    if left_out:
        logger.info("questions: the settings leave out %s", ", ".join(left_out))
    missing = missing_columns(tasks, files, columns)
    # A task without its annotation is left out. One that lacks another column is kept, and applies to no trial.
    annotations = sorted({column for task in tasks.values() for column in task.annotation_columns})
    tasks = {name: t for name, t in tasks.items() if all(c in columns for c in t.annotation_columns)}
    if not any(isinstance(task, AnnotatedTask) for task in tasks.values()):
        raise InputError(f"{cohort.uri}: none of the tasks' annotations {annotations} were collected here")

    inputs = {"cohort": cohort}
    if any(isinstance(task, DescriptionTask | GenerationTask) for task in tasks.values()):
        inputs["parameters"] = make_parameters(cohort, root)

    def build(uri: str) -> dict[str, Any]:
        import datasets

        table = Cohort(cohort).table(["trial", "participant", "split", *columns])
        rows = table.sort_by("trial").to_pylist()
        parameters = read_parameters(inputs["parameters"]) if "parameters" in inputs else None
        questions = ask(rows, tasks, settings.seed, parameters)
        if not questions:
            raise InputError(f"{cohort.uri}: no question applies to any trial")
        dataset = datasets.Dataset.from_list(questions, features=features())
        with TemporaryDirectory() as folder:
            dataset.save_to_disk(folder)
            storage.upload(folder, storage.join(uri, "dataset"))
        storage.write_json(storage.join(uri, "tasks.json"), content["tasks"])
        counts = {name: sum(row["task"] == name for row in questions) for name in tasks}
        return {
            "questions": len(questions),
            "by_task": counts,
            "missing_columns": missing,
            "left_out": left_out,
        }

    # Only the tasks' training fields decide, neither their folder nor their paraphrases.
    content = {"seed": settings.seed, "tasks": [task.training_fields() for task in tasks.values()]}
    return artifact.make("questions", VERSION, content, inputs, build, root)


def read_questions(questions: "Artifact") -> "datasets.Dataset":
    """All rows of a questions artifact."""
    import datasets

    from biomechgpt.core import artifact

    # In memory: a path on disk would be kept mapped, and differ for every worker of a remote artifact.
    folder: Path = artifact.local_copy(questions.path("dataset"))
    return datasets.load_from_disk(str(folder), keep_in_memory=True)


def read_tasks(uri: str) -> Tasks:
    """The tasks stored in a bundle, or in a questions artifact, which has no paraphrases."""
    return tasks_from_json(storage.read_json(storage.join(uri, "tasks.json")))


def full_tasks(questions: "Artifact", settings: QuestionsSettings) -> Tasks:
    """The tasks of a questions artifact with all their fields, from the settings' task files: what a bundle holds.

    Tasks that the cohort was not asked are not among them.
    """
    definitions = settings.load()
    return {name: definitions[name] for name in read_tasks(questions.uri)}
