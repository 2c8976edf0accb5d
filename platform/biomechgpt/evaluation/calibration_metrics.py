"""Calibration metrics: reliability of confidence, coverage of prediction sets and intervals, selective prediction.

They are computed from an answers table alone. Coverage is guaranteed per participant, so each participant counts
once in it. Calibration is over trials. Pure functions of tables.
"""

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from biomechgpt.answering.calibration import apply_temperature, one_label
from biomechgpt.evaluation.intervals import t_interval
from biomechgpt.questions.tasks import Task

BINS = 10
"""Bins of confidence, of equal width, in the reliability diagram and in the expected calibration error."""
RISK_LIMITS = (0.05, 0.1, 0.2)
"""Error rates that selective prediction is measured at."""
ANSWERED_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Shares of the answers, most confident first, that the risk curve is measured at."""


def calibration_scores(rows: pd.DataFrame, task: Task, *, draws: int = 500, seed: int = 0) -> dict[str, Any]:
    """Calibration of the model's answers to one task; {} if they have no probabilities.

    Labels:
    temperature: temperature of the temperature scaling.
    ece, brier, nll, bins: expected calibration error, Brier score, negative log-likelihood, reliability diagram.
        The same with `_before`: at temperature 1.
    set_size: mean number of labels in a prediction set.
    risk: error rate among the most confident `ANSWERED_SHARES` of the answers.
    selective_prediction: [{limit, answered, wrong}], if an answer is given only with a calibrated risk of at most
        each of `RISK_LIMITS`.
    by_participant: {accuracy, participants} of the mean probability over all trials of a participant, if these all
        have the same label.
    coverage_by_label: coverage among the trials of each label.

    Numbers:
    width: mean width of the interval, in the unit.

    Both:
    coverage, coverage_ci: how often the set or the interval holds the truth.
    coverage_guaranteed: whether there were enough validation participants for the guarantee.
    templates: see `template_agreement`.
    """
    if not len(rows):
        return {}
    if task.answer_kind == "classification" and "prediction_set" in rows:
        return _label_calibration(rows, draws, seed) | template_agreement(rows, task)
    if task.answer_kind == "regression" and "low" in rows:
        inside = (rows["value_true"] >= rows["low"] - 1e-9) & (rows["value_true"] <= rows["high"] + 1e-9)
        scores = _coverage(inside.to_numpy(float), rows, draws, seed)
        scores["width"] = float((rows["high"] - rows["low"]).mean())
        return scores | template_agreement(rows, task)
    return {}


def template_agreement(rows: pd.DataFrame, task: Task) -> dict[str, Any]:
    """How far answers depend on the wording of a question; {} if each was asked in one wording.

    {"templates": {n, agreement}} for labels: the share of pairs of wordings with the same label.
    {"templates": {n, mean_abs_difference}} for numbers, in the unit.
    """
    answers = [
        list(texts) for texts in rows.get("template_answers", ()) if texts is not None and len(texts) > 1
    ]
    if not answers:
        return {}
    pairs = [(task.parse(a), task.parse(b)) for texts in answers for a, b in combinations(texts, 2)]
    if task.answer_kind == "classification":
        result = {"agreement": float(np.mean([a == b for a, b in pairs]))}
    else:
        result = {
            "mean_abs_difference": float(np.mean([abs(float(a or 0) - float(b or 0)) for a, b in pairs]))
        }
    return {"templates": {"n": max(map(len, answers)), **result}}


def _label_calibration(rows: pd.DataFrame, draws: int, seed: int) -> dict[str, Any]:
    truth = rows["label_true"].tolist()
    labels = [list(answer_labels) for answer_labels in rows["labels"]]
    calibrated = [np.asarray(p, dtype=float) for p in rows["probabilities"]]
    # Scaling back by the inverse temperature gives the probabilities before calibration.
    uncalibrated = [apply_temperature(p, 1 / t) for p, t in zip(calibrated, rows["temperature"], strict=True)]
    # Position of the true label among the labels, which come most probable first. None: it is not among them.
    rank = [
        answer_labels.index(true_label) if true_label in answer_labels else None
        for answer_labels, true_label in zip(labels, truth, strict=True)
    ]
    correct = np.array([i == 0 for i in rank], dtype=float)
    scores: dict[str, Any] = {"temperature": float(rows["temperature"].iloc[0])}
    for suffix, probabilities in (("", calibrated), ("_before", uncalibrated)):
        confidence = np.array([p[0] for p in probabilities])
        pairs = list(zip(probabilities, rank, strict=True))
        scores |= {
            f"ece{suffix}": ece(confidence, correct),
            f"brier{suffix}": float(np.mean([_brier(p, i) for p, i in pairs])),
            f"nll{suffix}": float(np.mean([_nll(p, i) for p, i in pairs])),
            f"bins{suffix}": reliability(confidence, correct),
        }
    inside = np.array([t in list(s) for s, t in zip(rows["prediction_set"], truth, strict=True)], dtype=float)
    by_label = {}
    for label in sorted(set(truth)):
        has_label = rows["label_true"].to_numpy() == label
        by_label[label] = _coverage(inside[has_label], rows[has_label], 0, seed)["coverage"]
    return scores | {
        **_coverage(inside, rows, draws, seed),
        "coverage_by_label": by_label,
        "set_size": float(rows["prediction_set"].str.len().mean()),
        **_by_participant(rows, calibrated),
        **selective_prediction(rows, correct),
        "risk": risk_curve(np.array([p[0] for p in calibrated]), correct),
    }


def selective_prediction(rows: pd.DataFrame, correct: np.ndarray) -> dict[str, Any]:
    """Share answered and error rate at each of `RISK_LIMITS`; {} if no answer has a calibrated risk."""
    if "selective_risk" not in rows or rows["selective_risk"].isna().all():
        return {}
    risk = rows["selective_risk"].to_numpy(float)
    results = []
    for limit in RISK_LIMITS:
        answered = risk <= limit
        wrong = float(1 - correct[answered].mean()) if answered.any() else None
        results.append({"limit": limit, "answered": float(answered.mean()), "wrong": wrong})
    return {"selective_prediction": results}


def _by_participant(rows: pd.DataFrame, probabilities: list[np.ndarray]) -> dict[str, Any]:
    """Accuracy when the probabilities of all trials of a participant are averaged."""
    truth = one_label(rows)
    if truth is None:
        return {}
    pairs = zip(rows["labels"], probabilities, strict=True)
    table = pd.DataFrame([dict(zip(labels, p, strict=True)) for labels, p in pairs]).fillna(0.0)
    answers = table.groupby(rows["participant"].to_numpy()).mean().idxmax(axis=1)
    accuracy = float((answers == truth).mean())
    return {"by_participant": {"accuracy": accuracy, "participants": len(truth)}}


def ece(confidence: np.ndarray, correct: np.ndarray) -> float:
    """Expected calibration error: the mean gap of confidence and accuracy over bins, weighted by their size."""
    bins = reliability(confidence, correct)
    return float(sum(b["n"] * abs(b["confidence"] - b["accuracy"]) for b in bins) / len(correct))


def reliability(confidence: np.ndarray, correct: np.ndarray) -> list[dict[str, float]]:
    """Mean confidence, accuracy and n of each of `BINS` equal bins of confidence; empty bins are left out."""
    # Confidence 1 belongs to the last bin.
    bin_of = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return [
        {
            "confidence": float(confidence[bin_of == b].mean()),
            "accuracy": float(correct[bin_of == b].mean()),
            "n": int((bin_of == b).sum()),
        }
        for b in range(BINS)
        if (bin_of == b).any()
    ]


def risk_curve(confidence: np.ndarray, correct: np.ndarray) -> list[float]:
    """Error rate among the most confident `ANSWERED_SHARES` of the answers."""
    order = np.argsort(-confidence, kind="stable")
    wrong = np.cumsum(1 - correct[order])
    sizes = [max(round(share * len(order)), 1) for share in ANSWERED_SHARES]
    return [float(wrong[n - 1] / n) for n in sizes]


def _brier(p: np.ndarray, rank: int | None) -> float:
    """Squared distance of the probabilities from the truth, which is 1 for the true label and 0 for the others.

    rank: position of the true label in `p`, None if `p` does not have it.
    """
    truth = np.zeros(len(p))
    if rank is not None:
        truth[rank] = 1
    # A true label outside `p` has probability 0, so it adds (1 - 0)^2.
    return float(((p - truth) ** 2).sum() + (rank is None))


def _nll(p: np.ndarray, rank: int | None) -> float:
    """Negative logarithm of the true label's probability, which is taken as at least 1e-12."""
    return float(-np.log(max(p[rank], 1e-12) if rank is not None else 1e-12))


def _coverage(inside: np.ndarray, rows: pd.DataFrame, draws: int, seed: int) -> dict[str, Any]:
    """Mean over participants of the share of their trials whose truth is inside, and its 95 % interval."""
    # Number of the participant of each row. bincount with weights sums `inside` over a participant's trials.
    who = np.unique(rows["participant"].to_numpy(dtype=str), return_inverse=True)[1]
    mean = np.bincount(who, inside) / np.bincount(who)
    interval = None
    if draws and len(mean) > 1:
        left_out = (mean.sum() - mean) / (len(mean) - 1)
        interval = t_interval(float(mean.mean()), left_out, (0.0, 1.0))
    return {
        "coverage": float(mean.mean()),
        "coverage_ci": interval,
        "coverage_guaranteed": bool(rows["coverage_guaranteed"].fillna(False).astype(bool).all()),
        "participants": len(mean),
    }
