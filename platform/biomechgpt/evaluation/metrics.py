"""Scores of predictions and their intervals. Pure functions of arrays: no files, no models, no tasks' wording.

An interval is the 2.5th to 97.5th percentile over bootstrap draws of whole participants: trials of one
person are not independent, so a test set of 80 trials from 11 people knows no more than 11 people can say.
scikit-learn and SciPy give the scores; the draws use the same formulas on sums kept a participant, so that
a thousand draws are one matrix product.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from sklearn import metrics as sk

from biomechgpt.motion.parameters import FACTS, stated
from biomechgpt.questions.tasks import Task

UNPARSED = "(no answer)"
"""Stands for an answer in which no label could be recognised; counts as a wrong label."""
OTHER = "(other)"
"""Stands for a predicted label that no trial here has; counts as a wrong label."""

Scores = dict[str, Any]


def classification(
    true: Sequence[str],
    predicted: Sequence[str | None],
    participants: Sequence[str],
    *,
    draws: int = 500,
    seed: int = 0,
) -> Scores:
    """F1 and accuracy of labels; None in `predicted` is an answer that could not be parsed.

    f1_weighted: mean of the labels' F1 weighted by their support, as in the paper.
    f1_macro: their plain mean, over the labels present in `true`.
    by_label: {label: support, precision, recall, f1} of the labels in `true`.
    *_ci: (low, high) of 95 %, None with fewer than two participants.
    """
    truth, guess = np.asarray(true, dtype=str), spoken(predicted)
    people = np.asarray(participants, dtype=str)
    counts: Scores = {
        "n": len(truth),
        "participants": len(set(people)),
        "unparsed": int((guess == UNPARSED).sum()),
    }
    names = ("f1_weighted", "f1_macro", "accuracy")
    if not len(truth):
        return _with_intervals(dict.fromkeys(names), None) | counts | {"by_label": {}}
    labels = np.unique(truth)
    point = {
        "f1_weighted": sk.f1_score(truth, guess, labels=labels, average="weighted", zero_division=0),
        "f1_macro": sk.f1_score(truth, guess, labels=labels, average="macro", zero_division=0),
        "accuracy": sk.accuracy_score(truth, guess),
    }
    drawn = _drawn_labels(truth, guess, people, draws, seed)
    columns = sk.precision_recall_fscore_support(truth, guess, labels=labels, zero_division=0)
    counts["by_label"] = {
        str(label): {"support": int(n), "precision": float(p), "recall": float(r), "f1": float(f)}
        for label, p, r, f, n in zip(labels, *columns, strict=True)
    }
    return _with_intervals(point, drawn if counts["participants"] > 1 else None) | counts


def _drawn_labels(
    truth: np.ndarray, guess: np.ndarray, people: np.ndarray, draws: int, seed: int
) -> dict[str, np.ndarray]:
    """Scores of each bootstrap draw of participants: (draws,) each."""
    labels, who = np.unique(truth), np.unique(people, return_inverse=True)[1]
    rows = np.searchsorted(labels, truth)
    columns = np.searchsorted(labels, guess).clip(max=len(labels) - 1)
    columns = np.where(labels[columns] == guess, columns, len(labels))
    cells = np.zeros((who.max() + 1, len(labels), len(labels) + 1))
    np.add.at(cells, (who, rows, columns), 1)
    return _f1(np.tensordot(resample(len(cells), draws, seed), cells, axes=1))


def _f1(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """Scores of confusion counts (draws, labels, labels + 1): rows true, last column any other answer."""
    support = confusion.sum(axis=2)
    size = confusion.shape[1]
    hits = confusion[:, np.arange(size), np.arange(size)]
    f1 = 2 * hits / np.maximum(support + confusion[:, :, :size].sum(axis=1), 1)
    return {
        "f1_weighted": (f1 * support).sum(axis=1) / support.sum(axis=1),
        "f1_macro": f1.sum(axis=1, where=support > 0) / (support > 0).sum(axis=1),
        "accuracy": hits.sum(axis=1) / support.sum(axis=1),
    }


def regression(
    true: Sequence[float],
    predicted: Sequence[float | None],
    participants: Sequence[str],
    *,
    draws: int = 500,
    seed: int = 0,
) -> Scores:
    """Agreement of numbers, in their unit; None or NaN in `predicted` is an answer without a number.

    pearson_r, slope, intercept, p: of predicted against true, over the parsed answers; None where fewer
    than three were parsed or one side is constant. mae, bias: mean of |error| and of error, predicted - true.
    icc: ICC(2,1), absolute agreement of single measurements (Shrout and Fleiss, Psychol Bull 1979; 86: 420-428).
    limits_low, limits_high: of agreement, bias -+ 1.96 SD of the errors (Bland and Altman, Lancet 1986; 327: 307).
    """
    truth, guess = np.asarray(true, dtype=float), np.asarray(predicted, dtype=float)
    people = np.asarray(participants, dtype=str)
    parsed = np.isfinite(guess)
    counts: Scores = {
        "n": len(truth),
        "participants": len(set(people)),
        "unparsed": int((~parsed).sum()),
    }
    x, y, people = truth[parsed], guess[parsed], people[parsed]
    names = ("pearson_r", "slope", "intercept", "p", "mae", "bias", "icc", "limits_low", "limits_high")
    point: Scores = dict.fromkeys(names)
    if not len(x):
        return _with_intervals(point, None) | counts
    point |= {"mae": np.abs(y - x).mean(), "bias": (y - x).mean()}
    if len(x) >= 3 and np.ptp(x) > 0 and np.ptp(y) > 0:
        line = stats.linregress(x, y)
        point |= {
            "pearson_r": line.rvalue,
            "slope": line.slope,
            "intercept": line.intercept,
            "p": line.pvalue,
        }
    sums = _sums(x, y)
    whole = _line(sums.sum(axis=0, keepdims=True))
    point |= {name: whole[name][0] for name in ("icc", "limits_low", "limits_high")}
    drawn = _drawn_numbers(sums, people, draws, seed) if len(set(people)) > 1 else None
    return _with_intervals(point, drawn) | counts


def _sums(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """What `_line` needs of each pair: (n, 8)."""
    u, v = x - x.mean(), y - y.mean()  # centred: sums of squares keep their digits
    return np.stack([np.ones_like(u), u, v, u * u, v * v, u * v, np.abs(y - x), y - x], axis=1)


def _drawn_numbers(sums: np.ndarray, people: np.ndarray, draws: int, seed: int) -> dict[str, np.ndarray]:
    who = np.unique(people, return_inverse=True)[1]
    by_person = np.zeros((who.max() + 1, sums.shape[1]))
    np.add.at(by_person, who, sums)
    return _line(resample(len(by_person), draws, seed) @ by_person)


def _line(sums: np.ndarray) -> dict[str, np.ndarray]:
    """Scores of summed (1, u, v, uu, vv, uv, |error|, error) a draw: (draws, 8); NaN where constant."""
    n, u, v, uu, vv, uv, absolute, error = sums.T
    xx, yy, xy = uu - u * u / n, vv - v * v / n, uv - u * v / n
    scale_x, scale_y = 1e-12 * np.maximum(uu, 1e-300), 1e-12 * np.maximum(vv, 1e-300)
    varied = (xx > scale_x) & (yy > scale_y) & (n >= 3)
    xx, yy = np.where(varied, xx, np.nan), np.where(varied, yy, np.nan)
    # Mean squares of a two-way analysis of variance, measured and answered as its two raters.
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (xx + yy + 2 * xy) / 2 / (n - 1)
        residual = (xx + yy - 2 * xy) / 2 / (n - 1)
        raters = error**2 / n / 2
        icc = (between - residual) / (between + residual + 2 * (raters - residual) / n)
        spread = 1.96 * np.sqrt(2 * np.maximum(residual, 0))
    return {
        "icc": icc,
        "limits_low": error / n - spread,
        "limits_high": error / n + spread,
        "pearson_r": np.clip(xy / np.sqrt(xx * yy), -1, 1),
        "slope": xy / xx,
        "mae": absolute / n,
        "bias": error / n,
    }


def resample(participants: int, draws: int, seed: int) -> np.ndarray:
    """How often each participant is in each bootstrap draw: (draws, participants), rows sum to participants."""
    share = np.full(participants, 1 / participants)
    return np.random.default_rng(seed).multinomial(participants, share, size=draws).astype(float)


def _with_intervals(point: Scores, drawn: dict[str, np.ndarray] | None) -> Scores:
    """Each score followed by its `_ci`; None instead of NaN throughout. `p` and `intercept` have none."""
    result: Scores = {}
    for name, value in point.items():
        known = value is not None and math.isfinite(value)
        result[name] = float(value) if known else None
        if name in ("p", "intercept"):
            continue
        result[f"{name}_ci"] = None
        if known and drawn is not None:
            finite = drawn[name][np.isfinite(drawn[name])]
            # With half the draws undefined, the rest would speak for the lucky ones only.
            if len(finite) * 2 > len(drawn[name]):
                result[f"{name}_ci"] = [float(edge) for edge in np.percentile(finite, [2.5, 97.5])]
    return result


def spoken(predicted: Sequence[str | None]) -> np.ndarray:
    """Predicted labels as an array of text, UNPARSED where there is none."""
    return np.array([UNPARSED if pd.isna(label) else str(label) for label in predicted], dtype=str)


def confusion(
    true: Sequence[str], predicted: Sequence[str | None]
) -> tuple[np.ndarray, list[str], list[str]]:
    """Counts, the true labels (rows) and the predicted ones (columns): the same, then OTHER and UNPARSED if met."""
    truth, guess = np.asarray(true, dtype=str), spoken(predicted)
    labels = sorted(set(truth))
    guess = np.where(np.isin(guess, [*labels, UNPARSED]), guess, OTHER)
    columns = labels + [extra for extra in (OTHER, UNPARSED) if extra in guess]
    counts = np.zeros((len(labels), len(columns)), dtype=int)
    np.add.at(counts, ([labels.index(t) for t in truth], [columns.index(g) for g in guess]), 1)
    return counts, labels, columns


def description(
    true: Sequence[str],
    said: Sequence[str],
    participants: Sequence[str],
    *,
    draws: int = 500,
    seed: int = 0,
) -> Scores:
    """What descriptions state against what was measured, in the words of `facts.describe`.

    agreement: share of stated facts that lie within their tolerance of the measured one; a fact that the movement
    does not have counts as wrong. complete: share of measured facts that were stated. by_fact: {name: {n,
    pearson_r, mae, agreement}}.
    """
    people = np.asarray(participants, dtype=str)
    who = np.unique(people, return_inverse=True)[1]
    found: list[tuple[int, str, float, float]] = []
    counts = np.zeros((len(set(people)), 4))  # right, stated, stated of measured, measured
    for person, t, s in zip(who, map(stated, true), map(stated, said), strict=True):
        found += [(person, name, t.get(name, np.nan), value) for name, value in s.items()]
        counts[person, 2:] += len(s.keys() & t.keys()), len(t)
    table = pd.DataFrame(found, columns=["person", "fact", "true", "said"])
    within = table["fact"].map({name: fact.tolerance for name, fact in FACTS.items()})
    table["right"] = (table["true"] - table["said"]).abs() <= within + 1e-9
    np.add.at(counts, (table["person"], 0), table["right"])
    np.add.at(counts, (table["person"], 1), 1)
    shares = lambda c: {"agreement": _share(c[..., 0], c[..., 1]), "complete": _share(c[..., 2], c[..., 3])}  # noqa: E731
    drawn = shares(resample(len(counts), draws, seed) @ counts) if len(counts) > 1 else None
    by_fact = {}
    for name, rows in table.groupby("fact"):
        known = rows.dropna()
        scores = regression(known["true"].tolist(), known["said"].tolist(), known["person"].tolist(), draws=0)
        by_fact[str(name)] = {
            "n": len(rows),
            "pearson_r": scores["pearson_r"],
            "mae": scores["mae"],
            "agreement": float(rows["right"].mean()),
        }
    silent = sum(not stated(text) for text in said)
    return _with_intervals(shares(counts.sum(axis=0)), drawn) | {
        "n": len(people),
        "participants": len(counts),
        "unparsed": silent,
        "by_fact": {name: by_fact[name] for name in FACTS if name in by_fact},
    }


def _share(part: np.ndarray, of: np.ndarray) -> Any:
    return np.where(of > 0, part / np.maximum(of, 1), np.nan)


def score(table: pd.DataFrame, task: Task, *, draws: int = 500, seed: int = 0) -> Scores:
    """Scores of one task's rows of an answers table from one source."""
    people = table["participant"].tolist()
    if task.answer_kind == "description":
        said = table["answer_true"].tolist(), table["answer_text"].tolist()
        return description(*said, people, draws=draws, seed=seed)
    if task.answer_kind == "refusal":
        true, said = table["label_true"].tolist(), table["label_predicted"].tolist()
        whole = classification(true, said, people, draws=draws, seed=seed)
        kept = {name: whole[name] for name in ("n", "participants", "unparsed")}
        return {"refused": whole["accuracy"], "refused_ci": whole["accuracy_ci"], **kept}
    kind, column = (
        (classification, "label") if task.answer_kind == "classification" else (regression, "value")
    )
    return kind(
        table[f"{column}_true"].tolist(),
        table[f"{column}_predicted"].tolist(),
        people,
        draws=draws,
        seed=seed,
    )


def drawn(rows: pd.DataFrame, task: Task, *, draws: int, seed: int) -> np.ndarray:
    """A task's main figure (weighted F1 or Pearson r) in each bootstrap draw: (draws,), NaN where undefined.

    Rows of the same participants get the same draws, whoever answered, so differences of it are paired.
    """
    people = rows["participant"].to_numpy(dtype=str)
    if task.answer_kind == "classification":
        truth, guess = rows["label_true"].to_numpy(dtype=str), spoken(rows["label_predicted"].tolist())
        return _drawn_labels(truth, guess, people, draws, seed)["f1_weighted"]
    x, y = rows["value_true"].to_numpy(dtype=float), rows["value_predicted"].to_numpy(dtype=float)
    parsed = np.isfinite(y)
    sums = np.zeros((len(rows), 8))  # participants without a number stay in the draw, and add nothing
    if parsed.any():
        sums[parsed] = _sums(x[parsed], y[parsed])
    with np.errstate(divide="ignore", invalid="ignore"):
        return _drawn_numbers(sums, people, draws, seed)["pearson_r"]


def main_figure(scores: Scores) -> tuple[str, float | None]:
    """Name and value of the figure that a task is judged by: weighted F1 or Pearson r, of descriptions agreement,
    of refusals the share refused."""
    name = next(name for name in MAIN if name in scores)
    return name, scores[name]


MAIN = {
    "f1_weighted": "weighted F1",
    "pearson_r": "Pearson r",
    "agreement": "facts within tolerance",
    "refused": "share refused",
}
"""Figures that tasks are judged by, and what they are called."""
