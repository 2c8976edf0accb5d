"""Questions and answers of a cohort, drawn from its annotations; stored as a `datasets` Dataset.

One row a question: who is asked about, in which split, the phrasing drawn, and the true answer. The motion
itself stays in the tokens artifact: three seeds of phrasings share one tokenization.
"""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import datasets
import numpy as np

from biomechgpt import artifact, storage
from biomechgpt.artifact import Artifact
from biomechgpt.settings import InputError, Settings
from biomechgpt.tasks import Task, Tasks, load_tasks
from biomechgpt.tokenizer import read_tokens

VERSION = 1


class QuestionsSettings(Settings):
    """tasks: the folder of task files; names: which of them (all by default); seed: draws the phrasings."""

    tasks: str = "configs/tasks"
    names: list[str] | None = None
    seed: int = 0


def draw(task: Task, trial: str, seed: int) -> str:
    """The phrasing for a trial: depends on the task, the trial and the seed alone, not on the order."""
    digest = hashlib.sha256(f"{seed}/{task.name}/{trial}".encode()).digest()
    return task.phrasings[int.from_bytes(digest[:8]) % len(task.phrasings)]


def ask(rows: Iterable[Mapping[str, Any]], tasks: Tasks, seed: int) -> list[dict[str, Any]]:
    """Every applicable question about every trial, shuffled so that tasks interleave.

    rows: trials with `trial`, `participant`, `split` and annotation columns.
    Returns rows of {trial, participant, split, task, question, answer, label, value}.
    """
    asked = []
    for row in rows:
        for task in tasks.values():
            if not task.applies(row):
                continue
            truth = task.truth(row)
            asked.append(
                {
                    "trial": row["trial"],
                    "participant": row["participant"],
                    "split": row["split"],
                    "task": task.name,
                    "question": draw(task, row["trial"], seed),
                    "answer": task.answer(truth),
                    "label": truth if isinstance(truth, str) else None,
                    "value": truth if isinstance(truth, float) else None,
                }
            )
    order = np.random.default_rng(seed).permutation(len(asked))
    return [asked[i] for i in order]


TEXTS = ("trial", "participant", "split", "task", "question", "answer", "label")
FEATURES = datasets.Features(
    {**{name: datasets.Value("string") for name in TEXTS}, "value": datasets.Value("float64")}
)


def make_questions(tokens: Artifact, settings: QuestionsSettings, root: str) -> Artifact:
    """The questions artifact of a tokens artifact: `dataset/` (datasets.load_from_disk) and `tasks.json`."""
    tasks = load_tasks(settings.tasks, settings.names)
    columns = tokens.read_json("tokens.json")["annotations"]
    missing = sorted({t.annotation for t in tasks.values()} - set(columns))
    tasks = {name: task for name, task in tasks.items() if task.annotation in columns}
    if not tasks:
        raise InputError(f"{tokens.uri}: none of the tasks' annotations {missing} were collected here")

    def build(uri: str) -> dict[str, Any]:
        rows = read_tokens(tokens).drop_columns(["tokens"]).to_pylist()
        asked = ask(rows, tasks, settings.seed)
        if not asked:
            raise InputError(f"{tokens.uri}: no question applies to any trial")
        dataset = datasets.Dataset.from_list(asked, features=FEATURES)
        with TemporaryDirectory() as folder:
            dataset.save_to_disk(folder)
            storage.upload(folder, storage.join(uri, "dataset"))
        storage.write_json(
            storage.join(uri, "tasks.json"), [t.model_dump(mode="json") for t in tasks.values()]
        )
        counts = {name: sum(row["task"] == name for row in asked) for name in tasks}
        return {"questions": len(asked), "by_task": counts, "not_collected": missing}

    # The tasks' content decides, not the folder they lie in.
    content = {"seed": settings.seed, "tasks": [task.model_dump(mode="json") for task in tasks.values()]}
    return artifact.make("questions", VERSION, content, {"tokens": tokens}, build, root)


def read_questions(questions: Artifact) -> datasets.Dataset:
    """All rows of a questions artifact."""
    # In memory: a path on disk would be kept mapped, and differ for every worker of a remote artifact.
    folder: Path = storage.local_copy(questions.path("dataset"))
    return datasets.load_from_disk(str(folder), keep_in_memory=True)


def read_tasks(uri: str) -> Tasks:
    """The tasks stored in a questions artifact or a bundle."""
    return {
        item["name"]: Task.model_validate(item) for item in storage.read_json(storage.join(uri, "tasks.json"))
    }
