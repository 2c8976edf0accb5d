"""Questions and answers of a cohort, drawn from its annotations and facts; stored as a `datasets` Dataset.

One row a question: who is asked about, in which split, the phrasing drawn, and the true answer. A row about two
movements has the second's trial in `other`; `participant` is the first's. The motion itself stays in the tokens
artifact: three seeds of phrasings share one tokenization.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import datasets
import numpy as np

from biomechgpt.cohort.parameters import make_facts, read_facts
from biomechgpt.core import artifact, storage
from biomechgpt.core.artifact import Artifact
from biomechgpt.core.settings import InputError, Settings
from biomechgpt.motion.parameters import Facts, describe, say
from biomechgpt.motion.parameters import mirrored as mirror
from biomechgpt.questions.tasks import REFUSED, Task, Tasks, load_tasks
from biomechgpt.tokenizer import read_tokens

VERSION = 2


class QuestionsSettings(Settings):
    """tasks: folders of task files; names: which of them (all by default); seed: draws the phrasings."""

    tasks: str | list[str] = "configs/tasks"
    names: list[str] | None = None
    seed: int = 0


def _draw(*of: object) -> int:
    """A large number that depends on `of` alone."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, of)).encode()).digest()[:8])


def draw(task: Task, trial: str, seed: int, split: str = "train") -> str:
    """The phrasing for a trial: depends on the task, the trial, its split and the seed, not on the order."""
    among = task.held_out if task.held_out and split != "train" else task.phrasings
    return among[_draw(seed, task.name, trial) % len(among)]


Row = Mapping[str, Any]


def about(task: Task, rows: Sequence[Row]) -> list[tuple[Row, ...]]:
    """What `task` is asked about: a row of those that it applies to, or two of one split to compare."""
    asked: list[tuple[Row, ...]] = [(row,) for row in rows if task.applies(row)]
    if task.compare is not None:
        asked = _pairs(task, [row for (row,) in asked])
    if task.share == 1:
        return asked
    return [some for some in asked if _draw("share", task.name, some[0]["trial"]) / 2**64 < task.share]


def _pairs(task: Task, rows: list[Row]) -> list[tuple[Row, ...]]:
    """Pairs of rows that differ as the task compares: no trial is in two."""
    assert task.compare is not None
    alike: dict[tuple[Any, ...], list[Row]] = {}
    for row in sorted(rows, key=lambda row: _draw("pair", task.name, row["trial"])):
        alike.setdefault((row["split"], *(row.get(column) for column in task.compare.same)), []).append(row)
    pairs: list[tuple[Row, ...]] = []
    for group in alike.values():
        waiting: list[Row] = []
        for row in group:
            match = next(
                (i for i, other in enumerate(waiting) if task.compared(other, row) is not None), None
            )
            if match is None:
                waiting.append(row)
            else:
                pair = (waiting.pop(match), row)
                first = _draw("first", task.name, row["trial"]) % 2
                pairs.append((pair[first], pair[1 - first]))
    return pairs


def ask(rows: Iterable[Row], tasks: Tasks, seed: int, facts: Mapping[str, Facts] | None = None) -> list[dict]:
    """Every applicable question about every trial, shuffled so that tasks interleave.

    rows: trials with `trial`, `participant`, `split` and annotation columns. facts: of each trial, for tasks that
    describe.
    Returns rows of FEATURES.
    """
    rows, asked = list(rows), []
    for task in tasks.values():
        for first, *second in about(task, rows):
            trial = first["trial"]
            truth, answer, mirrored = None, "", None
            if task.annotated:
                truth = task.compared(first, second[0]) if second else task.truth(first)
                assert truth is not None
                answer = task.answer(truth)
            elif task.kind == "refusal":
                truth = REFUSED
                answer = task.answer(REFUSED)
            elif task.kind == "description":
                known = (facts or {}).get(trial, {})
                answer, mirrored = describe(known), describe(mirror(known)) if known else None
                if not answer:
                    continue
            question = draw(task, trial, seed, first["split"])
            if task.kind == "generation":
                question = question.format(wanted(task, first, tasks, (facts or {}).get(trial, {}), seed))
            asked.append(
                {
                    "trial": trial,
                    "other": second[0]["trial"] if second else None,
                    "participant": first["participant"],
                    "split": first["split"],
                    "task": task.name,
                    "question": question,
                    "answer": answer,
                    "answer_mirrored": mirrored,
                    "label": truth if isinstance(truth, str) else None,
                    "value": truth if isinstance(truth, float) else None,
                }
            )
    order = np.random.default_rng(seed).permutation(len(asked))
    return [asked[i] for i in order]


PACES = ((0.8, "slowly"), (1.2, "at a usual pace"), (np.inf, "quickly"))
"""Walking speeds in words: up to how many m/s. 0.8 and 1.2 m/s are where people begin to get about outside and to
cross roads in time (Perry et al., Stroke 1995; 26: 982-989; Langlois et al., AJPH 1997; 87: 393-397)."""


def pace(facts: Facts) -> str | None:
    """A walk's speed in words; None of what is no walk."""
    speed = facts.get("speed")
    return None if speed is None else next(words for below, words in PACES if speed <= below)


def wanted(task: Task, row: Row, tasks: Tasks, facts: Facts, seed: int) -> str:
    """A description of a movement to be made: what is annotated of a trial in the words of its tasks, its pace and
    how long it lasts; some of it, drawn at random."""
    words = {t.annotation: t for t in tasks.values() if t.annotation in task.of and not t.compare}
    said = []
    for annotation in task.of:
        if annotation in words and words[annotation].applies(row):
            said.append(words[annotation].answer(words[annotation].truth(row)))
    if (usual := pace(facts)) is not None:
        said.append(usual)
    if facts.get("duration") is not None:
        said.append(say("duration", float(facts["duration"] or 0)))
    kept = [part for n, part in enumerate(said) if n == 0 or _draw(seed, "wanted", n, row["trial"]) % 3]
    return ", ".join(kept)


TEXTS = (
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
FEATURES = datasets.Features(
    {**{name: datasets.Value("string") for name in TEXTS}, "value": datasets.Value("float64")}
)


def make_questions(tokens: Artifact, settings: QuestionsSettings, root: str) -> Artifact:
    """The questions artifact of a tokens artifact: `dataset/` (datasets.load_from_disk) and `tasks.json`."""
    tasks = load_tasks(settings.tasks, settings.names)
    columns = tokens.read_json("tokens.json")["annotations"]
    missing = sorted({t.annotation for t in tasks.values() if t.annotation} - set(columns))
    tasks = {name: task for name, task in tasks.items() if task.annotation in {None, *columns}}
    if not any(task.annotated for task in tasks.values()):
        raise InputError(f"{tokens.uri}: none of the tasks' annotations {missing} were collected here")

    inputs = {"tokens": tokens}
    if any(task.kind in ("description", "generation") for task in tasks.values()):
        inputs["facts"] = make_facts(tokens.input("cohort"), root)

    def build(uri: str) -> dict[str, Any]:
        rows = read_tokens(tokens).drop_columns(["tokens"]).to_pylist()
        asked = ask(rows, tasks, settings.seed, read_facts(inputs["facts"]) if "facts" in inputs else None)
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
    return artifact.make("questions", VERSION, content, inputs, build, root)


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
