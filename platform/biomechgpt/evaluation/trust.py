"""How far a model's confidence can be trusted: calibration, coverage of sets and intervals, risk against coverage.

From an answers table alone. A participant counts once in what was promised a participant (coverage); calibration is
over trials. Pure functions of tables.
"""

from typing import Any

import numpy as np
import pandas as pd

from biomechgpt.evaluation.metrics import resample
from biomechgpt.language.calibration import soften
from biomechgpt.tasks import Task

BINS = 10
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def trust(rows: pd.DataFrame, task: Task, *, draws: int = 500, seed: int = 0) -> dict[str, Any]:
    """Of one task's weighed answers (`answer.with_parsed`); {} where there are none.

    Labels: ece, brier, nll, each with its `_before` (temperature 1); bins: [{confidence, accuracy, n}] of the
    reliability diagram, and bins_before; set_size: labels in a set; risk: error among the most confident `SHARES`
    of the answers. Both kinds: coverage with its interval and promised, whether enough participants were behind it.
    Numbers: width of the interval, in the unit.
    """
    if not len(rows):
        return {}
    if task.kind == "classification" and "possible" in rows:
        return _labels(rows, draws, seed)
    if task.kind == "regression" and "low" in rows:
        inside = (rows["value_true"] >= rows["low"] - 1e-9) & (rows["value_true"] <= rows["high"] + 1e-9)
        width = float((rows["high"] - rows["low"]).mean())
        return _covered(inside.to_numpy(float), rows, draws, seed) | {"width": width}
    return {}


def _labels(rows: pd.DataFrame, draws: int, seed: int) -> dict[str, Any]:
    truth = rows["label_true"].tolist()
    after = [np.asarray(p, dtype=float) for p in rows["probability"]]
    before = [soften(p, 1 / t) for p, t in zip(after, rows["temperature"], strict=True)]
    place = [list(c).index(t) if t in list(c) else None for c, t in zip(rows["choices"], truth, strict=True)]
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
    inside = np.array([t in list(s) for s, t in zip(rows["possible"], truth, strict=True)], dtype=float)
    by_label = {}
    for label in sorted(set(truth)):
        mine = rows["label_true"].to_numpy() == label
        by_label[label] = _covered(inside[mine], rows[mine], 0, seed)["coverage"]
    return found | {
        **_covered(inside, rows, draws, seed),
        "coverage_by_label": by_label,
        "set_size": float(rows["possible"].str.len().mean()),
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
        "promised": bool(rows["promised"].fillna(False).astype(bool).all()),
        "participants": len(mean),
    }
