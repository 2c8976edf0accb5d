"""Asks a model about recordings: one row for each recording and question, in a CSV table."""

import logging
from pathlib import PurePosixPath
from typing import Any

import pandas as pd

from biomechgpt.answering.answer import Answer
from biomechgpt.answering.answerer import Answerer
from biomechgpt.answering.bundle import ModelBundle
from biomechgpt.core import artifact, storage
from biomechgpt.core.settings import InputError, Settings
from biomechgpt.prompts.encoding import Query
from biomechgpt.questions.tasks import askable
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
    "refused",
    "provenance",
)
"""Columns of the table.

refused: why a recording has no answer.
provenance: provenance of the model's training data.
"""

OUT_OF_DISTRIBUTION = "this movement is unlike the movements in the training data"


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
    rows: list[dict[str, Any]] = []
    for name, uri in files:
        try:
            recording = readers.read(uri, settings.readers, name)
            angles_rad, _, _ = prepare(name, recording, settings.quality, tokenizer.frame_rate_hz)
        except InputError as error:
            rows.append({"recording": name, "refused": str(error)})
            continue
        # The server's rule: a movement is out of distribution if its tokens reconstruct it badly, or if they are
        # unlikely, which each answer says.
        motion, is_ood = answerer.tokenize_checked(tokenizer, angles_rad, recording.joint_mask)
        answers = answerer.answer(
            [Query([motion], "single", task, tasks[task].templates[0]) for task in names]
        )
        rows += [
            {"recording": name, "task": task, "provenance": provenance, **_cells(answer, is_ood)}
            for task, answer in zip(names, answers, strict=True)
        ]
        logger.info("%s: %d answers", name, len(names))
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    storage.write_bytes(settings.output, table.to_csv(index=False).encode())
    return settings.output


def _files(path: str) -> list[tuple[str, str]]:
    """(name, URI) of a file, or of every file below a folder that may be a recording."""
    names = storage.list_files(path)
    if names == [""]:  # list_files gives an empty name for a path that is a file
        return [(PurePosixPath(path).name, path)]
    if not names:
        raise InputError(f"{path}: expected a recording or a folder of recordings, found nothing")
    return [(name, storage.join(path, name)) for name in names if name.lower().endswith(readers.SUFFIXES)]


def _cells(answer: Answer, is_ood: bool) -> dict[str, Any]:
    """The cells of one answer. A movement that is out of distribution gets none."""
    if is_ood or answer.is_ood:
        return {"refused": OUT_OF_DISTRIBUTION}
    return {
        "answer": answer.text,
        "probability": answer.probabilities[0] if answer.probabilities else None,
        "prediction_set": "; ".join(answer.prediction_set),
        "low": answer.low,
        "high": answer.high,
        "coverage_guaranteed": answer.coverage_guaranteed,
    }
