"""Asks a model about recordings: one row for each recording and question, in a CSV table."""

import logging
from pathlib import PurePosixPath
from typing import Any

import pandas as pd

from biomechgpt.answering import measured
from biomechgpt.answering.answer import Answer
from biomechgpt.answering.answerer import Answerer
from biomechgpt.answering.bundle import ModelBundle
from biomechgpt.answering.described import described
from biomechgpt.answering.status import unlike_sentence, withheld
from biomechgpt.core import artifact, storage
from biomechgpt.core.settings import InputError, Settings
from biomechgpt.language.tiny_model import is_stand_in
from biomechgpt.motion import quantities
from biomechgpt.prompts.encoding import MotionTokens, Query
from biomechgpt.questions.tasks import DescriptionTask, MeasuredTask, Tasks, askable
from biomechgpt.recordings import readers
from biomechgpt.recordings.load import prepare
from biomechgpt.recordings.quality import QualitySettings
from biomechgpt.recordings.readers import ReaderSettings
from biomechgpt.tokenizer.motion_tokenizer import MotionTokenizer

logger = logging.getLogger("biomechgpt")

COLUMNS = (
    "recording",
    "task",
    "answer",
    "probability",
    "prediction_set",
    "low",
    "high",
    "coverage_guaranteed",
    "measured",
    "steps",
    "status",
    "applies",
    "joint_probability",
    "unlike_checked",
    "unlike_participants",
    "unlike_value",
    "unlike_usual",
    "refused",
    "provenance",
)
"""Columns of the table.

measured: the quantity as it was measured from the joint angles, with its place in the recording.
steps: number of steps, or of other events, that it rests on; several for several values.
status: what became of the question, see `Answer.status`.
applies: probability that the question applies.
joint_probability: probability that it applies and the label is right.
unlike_checked, ...: the check whether the recording is unlike the training data, see `Unlike`.
refused: why there is no answer; for an uncertain one, why it is uncertain.
provenance: provenance of the model's training data.
"""


class AskSettings(Settings):
    """Settings of `biomechgpt answer`."""

    recordings: str
    """A recording's file, or a folder of recordings (path or URI)."""
    model: str
    """URI of the model."""
    tasks: list[str] | None = None
    """Names of the tasks to ask; all tasks about one movement by default."""
    output: str = "results/answers.csv"
    """Table to write (CSV)."""
    readers: ReaderSettings = ReaderSettings()
    """How recordings are read."""
    quality: QualitySettings = QualitySettings()
    """Limits beyond which a recording is refused."""


def run_ask(settings: AskSettings) -> str:
    """Write the table; returns its path. A recording that cannot be used is a row with the reason.

    Raises InputError for an unknown task, and for a path without any file.
    """
    # What can be refused is refused before the model is loaded.
    provenance = artifact.load(settings.model, "model").provenance
    bundle = ModelBundle(settings.model)
    tasks = askable(bundle.tasks, 1)
    names = list(tasks) if settings.tasks is None else settings.tasks
    if unknown := [name for name in names if name not in tasks]:
        raise InputError(f"tasks: expected some of {sorted(tasks)}, found {unknown}")
    files = _files(settings.recordings)
    answerer = Answerer.load(settings.model)
    tokenizer = MotionTokenizer.load(bundle.motion_tokenizer)
    writes_text = not is_stand_in(answerer.info.base)
    rows: list[dict[str, Any]] = []
    for name, uri in files:
        try:
            recording = readers.read(uri, settings.readers, name)
            angles_rad, pelvis, _ = prepare(name, recording, settings.quality, tokenizer.frame_rate_hz)
        except InputError as error:
            rows.append({"recording": name, "status": "refused", "refused": str(error)})
            continue
        (motion,) = answerer.analyse(tokenizer, [angles_rad], [recording.joint_mask], recording.provenance)
        movement = quantities.movement(angles_rad, pelvis, tokenizer.frame_rate_hz, recording.joint_mask)
        analysis = measured.analyse(movement)
        answers = _answers(answerer, motion, analysis, {name: tasks[name] for name in names}, writes_text)
        rows += [
            {"recording": name, "task": task, "provenance": provenance, **_cells(answer, provenance)}
            for task, answer in zip(names, answers, strict=True)
        ]
        logger.info("%s: %d answers", name, len(names))
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    storage.write_bytes(settings.output, table.to_csv(index=False).encode())
    return settings.output


def _answers(
    answerer: Answerer, motion: MotionTokens, analysis: measured.Analysis, tasks: Tasks, writes_text: bool
) -> list[Answer]:
    """The answers about one recording, in the order of the tasks.

    analysis: what was measured of it.
    writes_text: False: a description is made of measured values.
    """
    asked = [task for task in tasks.values() if not isinstance(task, MeasuredTask)]
    queries = [Query([motion], "single", task.name, task.templates[0]) for task in asked]
    answers: dict[str, Answer] = {}
    for task, found in zip(asked, answerer.answer(queries, writes_text=writes_text), strict=True):
        if isinstance(task, DescriptionTask) and not writes_text:
            answers[task.name] = described(found, measured.parameters(analysis))
        else:
            answers[task.name] = measured.beside(found, task, analysis)
    return [
        measured.answer(task, analysis) if isinstance(task, MeasuredTask) else answers[name]
        for name, task in tasks.items()
    ]


def _files(path: str) -> list[tuple[str, str]]:
    """(name, URI) of a file, or of every file below a folder that may be a recording."""
    names = storage.list_files(path)
    if names == [""]:  # list_files gives an empty name for a path that is a file
        return [(PurePosixPath(path).name, path)]
    if not names:
        raise InputError(f"{path}: expected a recording or a folder of recordings, found nothing")
    return [(name, storage.join(path, name)) for name in names if name.lower().endswith(readers.SUFFIXES)]


def _cells(answer: Answer, provenance: str) -> dict[str, Any]:
    """The cells of one answer, without what its status withholds. provenance: of the model's training data."""
    shown = withheld(answer, unlike_sentence(answer.unlike, provenance))
    answered = shown.status == "answered"
    return {
        "answer": shown.text if answered else None,
        "probability": shown.probabilities[0] if shown.probabilities else None,
        "prediction_set": "; ".join(shown.prediction_set),
        "low": shown.low,
        "high": shown.high,
        "coverage_guaranteed": shown.coverage_guaranteed,
        "measured": measured.in_words(shown.measured),
        "steps": "; ".join(str(value.steps) for value in shown.measured if value.steps is not None),
        "status": shown.status,
        "applies": shown.applies,
        "joint_probability": shown.joint_probabilities[0] if shown.joint_probabilities else None,
        "unlike_checked": shown.unlike.checked,
        "unlike_participants": shown.unlike.participants,
        "unlike_value": shown.unlike.value,
        "unlike_usual": " to ".join(f"{end:g}" for end in shown.unlike.usual),
        "refused": None if answered else shown.text,
    }
