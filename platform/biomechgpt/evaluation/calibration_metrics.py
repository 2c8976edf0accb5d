"""How far a model's confidence can be trusted: calibration, coverage of sets and intervals, risk against coverage.

From an answers table alone. A participant counts once in what was promised a participant (coverage); calibration is
over trials. Pure functions of tables.
"""

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from biomechgpt.answering.calibration import apply_temperature, one_label
from biomechgpt.evaluation.metrics import resample
from biomechgpt.questions.tasks import Task

BINS = 10
RISKS = (0.05, 0.1, 0.2)
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def trust(rows: pd.DataFrame, task: Task, *, draws: int = 500, seed: int = 0) -> dict[str, Any]:
    """Of one task's weighed answers (`answer.with_parsed`); {} where there are none.

    Labels: ece, brier, nll, each with its `_before` (temperature 1); bins: [{confidence, accuracy, n}] of the
    reliability diagram, and bins_before; set_size: labels in a set; risk: error among the most confident `SHARES`
    of the answers; abstaining: [{wanted, answered, wrong}] of giving only answers whose calibrated risk is at most
    `RISKS`; by_participant: {accuracy, participants} of the mean probability over all trials of a
    participant, where all have the same label. Both kinds: coverage with its interval and promised, whether enough
    participants were behind it; phrasings: {n, agreement} or {n, apart}, see `phrasings`. Numbers: width of the
    interval, in the unit.
    """
    if not len(rows):
        return {}
    if task.kind == "classification" and "prediction_set" in rows:
        return _labels(rows, draws, seed) | phrasings(rows, task)
    if task.kind == "regression" and "low" in rows:
        inside = (rows["value_true"] >= rows["low"] - 1e-9) & (rows["value_true"] <= rows["high"] + 1e-9)
        width = float((rows["high"] - rows["low"]).mean())
        return _covered(inside.to_numpy(float), rows, draws, seed) | {"width": width} | phrasings(rows, task)
    return {}


def phrasings(rows: pd.DataFrame, task: Task) -> dict[str, Any]:
    """How far answers depend on how a question is put: {"phrasings": {n, agreement}}, the share of pairs of
    phrasings with the same label, or {n, apart}, their mean absolute difference in the unit. {} where one was
    asked."""
    several = [list(said) for said in rows.get("template_answers", ()) if said is not None and len(said) > 1]
    if not several:
        return {}
    pairs = [(task.parse(a), task.parse(b)) for said in several for a, b in combinations(said, 2)]
    if task.kind == "classification":
        alike = {"agreement": float(np.mean([a == b for a, b in pairs]))}
    else:
        alike = {"apart": float(np.mean([abs(float(a or 0) - float(b or 0)) for a, b in pairs]))}
    return {"phrasings": {"n": max(map(len, several)), **alike}}


def _abstaining(rows: pd.DataFrame, right: np.ndarray) -> dict[str, Any]:
    if "selective_risk" not in rows or rows["selective_risk"].isna().all():
        return {}
    expected = rows["selective_risk"].to_numpy(float)
    found = []
    for wanted in RISKS:
        given = expected <= wanted
        wrong = float(1 - right[given].mean()) if given.any() else None
        found.append({"wanted": wanted, "answered": float(given.mean()), "wrong": wrong})
    return {"abstaining": found}


def _by_participant(rows: pd.DataFrame, said: list[np.ndarray]) -> dict[str, Any]:
    truth = one_label(rows)
    if truth is None:
        return {}
    pairs = zip(rows["labels"], said, strict=True)
    likely = pd.DataFrame([dict(zip(labels, p, strict=True)) for labels, p in pairs]).fillna(0.0)
    people = rows["participant"].to_numpy()
    answers = likely.groupby(people).mean().idxmax(axis=1)
    right = float((answers == truth).mean())
    return {"by_participant": {"accuracy": right, "participants": len(truth)}}


def _labels(rows: pd.DataFrame, draws: int, seed: int) -> dict[str, Any]:
    truth = rows["label_true"].tolist()
    after = [np.asarray(p, dtype=float) for p in rows["probabilities"]]
    before = [apply_temperature(p, 1 / t) for p, t in zip(after, rows["temperature"], strict=True)]
    place = [list(c).index(t) if t in list(c) else None for c, t in zip(rows["labels"], truth, strict=True)]
    right = np.array([i == 0 for i in place], dtype=float)  # choices come likeliest first
    found: dict[str, Any] = {"temperature": float(rows["temperature"].iloc[0])}
    for name, said in (("", after), ("_before", before)):
        confidence = np.array([p[0] for p in said])
        found |= {
            f"ece{name}": ece(confidence, right),
            f"brier{name}": float(np.mean([_brier(p, i) for p, i in zip(said, place, strict=True)])),
            f"nll{name}": float(np.mean([_nll(p, i) for p, i in zip(said, place, strict=True)])),
            f"bins{name}": reliability(confidence, right),
        }
    inside = np.array([t in list(s) for s, t in zip(rows["prediction_set"], truth, strict=True)], dtype=float)
    by_label = {}
    for label in sorted(set(truth)):
        mine = rows["label_true"].to_numpy() == label
        by_label[label] = _covered(inside[mine], rows[mine], 0, seed)["coverage"]
    return found | {
        **_covered(inside, rows, draws, seed),
        "coverage_by_label": by_label,
        "set_size": float(rows["prediction_set"].str.len().mean()),
        **_by_participant(rows, after),
        **_abstaining(rows, right),
        "risk": risk(np.array([p[0] for p in after]), right),
    }


def ece(confidence: np.ndarray, right: np.ndarray) -> float:
    """Expected calibration error: mean gap between confidence and accuracy over BINS equal bins, by their size."""
    return float(
        sum(b["n"] * abs(b["confidence"] - b["accuracy"]) for b in reliability(confidence, right))
        / len(right)
    )


def reliability(confidence: np.ndarray, right: np.ndarray) -> list[dict[str, float]]:
    """The bins that have answers: mean confidence, accuracy, n."""
    at = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return [
        {
            "confidence": float(confidence[at == b].mean()),
            "accuracy": float(right[at == b].mean()),
            "n": int((at == b).sum()),
        }
        for b in range(BINS)
        if (at == b).any()
    ]


def risk(confidence: np.ndarray, right: np.ndarray) -> list[float]:
    """Share of wrong answers among the most confident SHARES of them."""
    order = np.argsort(-confidence, kind="stable")
    wrong = np.cumsum(1 - right[order])
    at = [max(round(share * len(order)), 1) for share in SHARES]
    return [float(wrong[n - 1] / n) for n in at]


def _brier(p: np.ndarray, place: int | None) -> float:
    truth = np.zeros(len(p))
    if place is not None:
        truth[place] = 1
    return float(((p - truth) ** 2).sum() + (place is None))


def _nll(p: np.ndarray, place: int | None) -> float:
    return float(-np.log(max(p[place], 1e-12) if place is not None else 1e-12))


def _covered(inside: np.ndarray, rows: pd.DataFrame, draws: int, seed: int) -> dict[str, Any]:
    """Mean over participants of the share of their trials that are covered, and its 95 % interval."""
    who = np.unique(rows["participant"].to_numpy(dtype=str), return_inverse=True)[1]
    mean = np.bincount(who, inside) / np.bincount(who)
    interval = None
    if draws and len(mean) > 1:
        drawn = resample(len(mean), draws, seed) @ mean / len(mean)
        interval = [float(edge) for edge in np.percentile(drawn, [2.5, 97.5])]
    return {
        "coverage": float(mean.mean()),
        "coverage_ci": interval,
        "promised": bool(rows["coverage_guaranteed"].fillna(False).astype(bool).all()),
        "participants": len(mean),
    }
