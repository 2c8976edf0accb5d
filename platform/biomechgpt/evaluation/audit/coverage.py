"""How often prediction sets and intervals hold the truth.

Participants are split at random, many times, into a half for calibration and a half for measurement. The model's
own calibration is one such split, and one split of few participants says little. The mean over many resplits shows
whether the method keeps its guarantee on this model's answers.
"""

from typing import Any

import numpy as np
import pandas as pd

from biomechgpt.answering.batch import make_answers, read_answers
from biomechgpt.answering.bundle import ModelBundle
from biomechgpt.answering.calibration import apply_temperature, fit_labels, fit_numbers, prediction_set
from biomechgpt.answering.settings import BatchAnswerSettings
from biomechgpt.core import artifact
from biomechgpt.core.artifact import Artifact
from biomechgpt.evaluation.audit.settings import AuditSettings
from biomechgpt.evaluation.calibration_metrics import calibration_scores
from biomechgpt.questions.dataset import QuestionsSettings, make_questions
from biomechgpt.questions.tasks import PredictionTask
from biomechgpt.tokenizer.settings import TokensSettings
from biomechgpt.tokenizer.tokens import make_tokens


def audit_coverage(model: Artifact, settings: AuditSettings, root: str) -> dict[str, Any]:
    """{task: see `resplit`}, of the tasks about one movement with a label or a number."""
    bundle = ModelBundle(model.uri)
    tasks = {name: task for name, task in bundle.tasks.items() if isinstance(task, PredictionTask)}
    if settings.cohort is None:
        questions, tokens = model.input("questions"), model.input("tokens")
        splits = ["validation", "test"]
    else:
        cohort = artifact.load(settings.cohort, "cohort")
        tokens = make_tokens(
            cohort, model.input("tokenizer"), TokensSettings(views=bundle.info.scoring.views), root
        )
        questions = make_questions(cohort, QuestionsSettings(tasks=settings.tasks, names=list(tasks)), root)
        splits = ["train", "validation", "test"]
    answers = read_answers(make_answers(model, questions, tokens, BatchAnswerSettings(splits=splits), root))
    answers = answers[answers["applies_true"]]
    return {
        name: resplit(rows, task, settings.resplits, settings.seed)
        for name, task in tasks.items()
        if len(rows := answers[answers["task"] == name])
    }


def resplit(rows: pd.DataFrame, task: PredictionTask, resplits: int, seed: int = 0) -> dict[str, Any]:
    """Coverage of one task's answers, mean over participants and over the resplits that can guarantee it.

    participants: number of participants.
    guaranteed: share of the resplits with enough participants for the guarantee.
    coverage, and width (numbers, in the unit) or set_size and by_label (labels): None if no resplit has enough.
    """
    # The conformal guarantee is for new participants, so all trials of a participant are in the same half.
    rng = np.random.default_rng(seed)
    people = np.array(sorted(rows["participant"].unique()))
    if task.answer_kind == "classification":
        pairs = zip(rows["probabilities"], rows["temperature"], strict=True)
        # Back to the probabilities before calibration, so that each resplit fits a temperature of its own.
        rows = rows.assign(uncalibrated=[apply_temperature(np.asarray(p), 1 / t) for p, t in pairs])
    scores = []
    for _ in range(resplits):
        fitted_on = rows["participant"].isin(rng.permutation(people)[: len(people) // 2])
        if fitted_on.any() and not fitted_on.all():
            scores.append(_calibrate_and_measure(rows[fitted_on], rows[~fitted_on], task))
    guaranteed = [s for s in scores if s["coverage_guaranteed"]]
    result: dict[str, Any] = {
        "participants": len(people),
        "guaranteed": len(guaranteed) / max(len(scores), 1),
        "coverage": _mean([s["coverage"] for s in guaranteed]),
    }
    if task.answer_kind == "regression":
        return result | {"width": _mean([s["width"] for s in guaranteed]), "unit": getattr(task, "unit", "")}
    labels = sorted({label for s in guaranteed for label in s["coverage_by_label"]})
    by_label = {
        label: _mean([s["coverage_by_label"][label] for s in guaranteed if label in s["coverage_by_label"]])
        for label in labels
    }
    return result | {"by_label": by_label, "set_size": _mean([s["set_size"] for s in guaranteed])}


def _mean(values: list[float]) -> float | None:
    return round(float(np.mean(values)), 3) if values else None


def _calibrate_and_measure(
    calibration: pd.DataFrame, new: pd.DataFrame, task: PredictionTask
) -> dict[str, Any]:
    """Calibrate on the answers of one half of the participants, and score the answers of the other half (`new`).

    Numbers are scaled and shifted, then both ends of an interval move by one conformal offset.
    Labels: a temperature is fitted, then a conformal threshold for each label. A label is in the prediction set if
    1 - its probability is at most its threshold.
    """
    people = calibration["participant"].tolist()
    if task.answer_kind == "regression":
        low, median, high, truth = (
            calibration[name].tolist() for name in ("low", "value_predicted", "high", "value_true")
        )
        fitted = fit_numbers(low, median, high, truth, people)
        offset = fitted.interval_offset or 0.0
        new = new.assign(
            low=fitted.corrected(new["low"]) - offset,
            value_predicted=fitted.corrected(new["value_predicted"]),
            high=fitted.corrected(new["high"]) + offset,
            coverage_guaranteed=fitted.coverage_guaranteed,
        )
        return calibration_scores(new, task, draws=0)
    pairs = zip(calibration["labels"], calibration["uncalibrated"], strict=True)
    probabilities = [dict(zip(labels, p, strict=True)) for labels, p in pairs]
    fitted = fit_labels(probabilities, calibration["label_true"].tolist(), people)
    calibrated = [apply_temperature(p, fitted.temperature) for p in new["uncalibrated"]]
    sets = [
        prediction_set(dict(zip(labels, p, strict=True)), fitted)
        for labels, p in zip(new["labels"], calibrated, strict=True)
    ]
    new = new.assign(
        probabilities=calibrated,
        prediction_set=sets,
        temperature=fitted.temperature,
        coverage_guaranteed=fitted.coverage_guaranteed,
    )
    return calibration_scores(new, task, draws=0)
