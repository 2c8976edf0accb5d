"""Metrics of predictions, and their confidence intervals. Pure functions of arrays: no files, no models.

To add a metric, write a function of the true and the predicted values and list it in `METRICS`. Report, comparisons
and sweeps read the registry.

An interval is the 2.5th to 97.5th percentile over bootstrap draws of whole participants. Trials of one person are
not independent: 80 trials from 11 people carry no more information than 11 people can. scikit-learn and SciPy
compute the value itself. The draws apply the same formulas to sums kept per participant, so that a thousand draws
are one matrix product.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy import stats
from sklearn import metrics as sk

from biomechgpt.motion.parameters import PARAMETERS, parse_description
from biomechgpt.questions.tasks import Task

UNPARSED = "(no answer)"
"""Stands for an answer without a recognisable label; counts as a wrong label."""
OTHER = "(other)"
"""Stands for a predicted label that no trial here has; counts as a wrong label."""

Kind = Literal["classification", "regression", "description", "refusal"]
Scores = dict[str, Any]


@dataclass(frozen=True)
class Metric:
    """One metric.

    name: its key in metrics.json. The interval's key is `NAME_ci`.
    label: its heading in reports.
    kinds: kinds of tasks that it is computed for.
    function: the value from true and predicted values, NaN if undefined. Classification and refusal: arrays of
        labels, `UNPARSED` for an answer without one. Regression: arrays of numbers, only answers with a number.
        Description: lists of texts.
    higher_is_better: None if neither is better.
    is_main: whether tasks of these kinds are judged by it. Exactly one metric per kind is.
    has_interval: whether it gets a bootstrap interval.
    from_sums: the same for many bootstrap draws at once, from sums over participants (see `_KINDS`): an array of
        values, NaN if undefined. Without it `function` is called once per draw, which is slow.
    format: how a number is shown.
    """

    name: str
    label: str
    kinds: tuple[Kind, ...]
    function: Callable[[Any, Any], float]
    higher_is_better: bool | None
    is_main: bool = False
    has_interval: bool = True
    from_sums: Callable[[np.ndarray], np.ndarray] | None = None
    format: str = ".2f"


# --- labels -------------------------------------------------------------------------------------------------------


def _sk_f1(average: str) -> Callable[[np.ndarray, np.ndarray], float]:
    def f1(truth: np.ndarray, guess: np.ndarray) -> float:
        return float(sk.f1_score(truth, guess, labels=np.unique(truth), average=average, zero_division=0))

    return f1


def _sum_labels(truth: np.ndarray, guess: np.ndarray, who: np.ndarray) -> np.ndarray:
    """Confusion counts of each participant: (participants, labels, labels + 1).

    Rows are the true labels, columns the predicted ones. The last column counts all predictions outside the true
    labels.
    """
    labels = np.unique(truth)
    rows = np.searchsorted(labels, truth)
    # searchsorted gives a position for any text, so a label outside `labels` is sent to the last column.
    columns = np.searchsorted(labels, guess).clip(max=len(labels) - 1)
    columns = np.where(labels[columns] == guess, columns, len(labels))
    counts = np.zeros((who.max() + 1, len(labels), len(labels) + 1))
    np.add.at(counts, (who, rows, columns), 1)
    return counts


def _hits(confusion: np.ndarray) -> np.ndarray:
    diagonal = np.arange(confusion.shape[1])
    return confusion[:, diagonal, diagonal]


def _f1_by_label(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """F1 and support of each label in each draw: (draws, labels) both."""
    support = confusion.sum(axis=2)
    predicted = confusion[:, :, : confusion.shape[1]].sum(axis=1)
    # F1 = 2 TP / (support + predicted); a label that a draw neither has nor predicts gets 0.
    return 2 * _hits(confusion) / np.maximum(support + predicted, 1), support


def _f1_weighted(confusion: np.ndarray) -> np.ndarray:
    f1, support = _f1_by_label(confusion)
    return np.asarray((f1 * support).sum(axis=1) / support.sum(axis=1))


def _f1_macro(confusion: np.ndarray) -> np.ndarray:
    f1, support = _f1_by_label(confusion)
    return np.asarray(f1.sum(axis=1, where=support > 0) / (support > 0).sum(axis=1))


def _accuracy(confusion: np.ndarray) -> np.ndarray:
    return np.asarray(_hits(confusion).sum(axis=1) / confusion.sum(axis=2).sum(axis=1))


# --- numbers ------------------------------------------------------------------------------------------------------


def _sum_numbers(x: np.ndarray, y: np.ndarray, who: np.ndarray) -> np.ndarray:
    """Sums of (1, u, v, uu, vv, uv, |error|, error) of each participant: (participants, 8).

    x, y: true and predicted values.
    u, v: x and y less their means, so that the sums of squares keep their digits.
    """
    u, v = x - x.mean(), y - y.mean()
    terms = np.stack([np.ones_like(u), u, v, u * u, v * v, u * v, np.abs(y - x), y - x], axis=1)
    sums = np.zeros((who.max() + 1, 8))
    np.add.at(sums, who, terms)
    return sums


@dataclass(frozen=True)
class _Moments:
    """Number of pairs and centred sums of squares in each draw; squares are NaN where either side is constant."""

    n: np.ndarray
    xx: np.ndarray
    yy: np.ndarray
    xy: np.ndarray
    error: np.ndarray


def _moments(sums: np.ndarray) -> _Moments:
    n, u, v, uu, vv, uv, _, error = sums.T
    with np.errstate(divide="ignore", invalid="ignore"):
        xx, yy, xy = uu - u * u / n, vv - v * v / n, uv - u * v / n
    scale_x, scale_y = 1e-12 * np.maximum(uu, 1e-300), 1e-12 * np.maximum(vv, 1e-300)
    varied = (xx > scale_x) & (yy > scale_y) & (n >= 3)
    return _Moments(n, np.where(varied, xx, np.nan), np.where(varied, yy, np.nan), xy, error)


def _pearson_r(sums: np.ndarray) -> np.ndarray:
    m = _moments(sums)
    return np.asarray(np.clip(m.xy / np.sqrt(m.xx * m.yy), -1, 1))


def _slope(sums: np.ndarray) -> np.ndarray:
    m = _moments(sums)
    return np.asarray(m.xy / m.xx)


def _mean_squares(m: _Moments) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean squares between trials, between raters, and residual, of a two-way analysis of variance.

    The two raters are the measurement and the answer.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (m.xx + m.yy + 2 * m.xy) / 2 / (m.n - 1)
        residual = (m.xx + m.yy - 2 * m.xy) / 2 / (m.n - 1)
        raters = m.error**2 / m.n / 2
    return between, raters, residual


def _icc(sums: np.ndarray) -> np.ndarray:
    m = _moments(sums)
    between, raters, residual = _mean_squares(m)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray((between - residual) / (between + residual + 2 * (raters - residual) / m.n))


def _limit_of_agreement(sign: int) -> Callable[[np.ndarray], np.ndarray]:
    def limit(sums: np.ndarray) -> np.ndarray:
        m = _moments(sums)
        _, _, residual = _mean_squares(m)
        with np.errstate(divide="ignore", invalid="ignore"):
            # The residual mean square is half the variance of the errors.
            return np.asarray(m.error / m.n + sign * (1.96 * np.sqrt(2 * np.maximum(residual, 0))))

    return limit


def _mean_of(column: int) -> Callable[[np.ndarray], np.ndarray]:
    def mean(sums: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(sums[:, column] / sums[:, 0])

    return mean


def _mean_absolute_error(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.abs(y - x).mean())


def _bias(x: np.ndarray, y: np.ndarray) -> float:
    return float((y - x).mean())


def _of_all(from_sums: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray, np.ndarray], float]:
    """The function of numbers that `from_sums` computes, on all trials together."""

    def value(x: np.ndarray, y: np.ndarray) -> float:
        sums = _sum_numbers(x, y, np.arange(len(x)))
        return float(from_sums(sums.sum(axis=0, keepdims=True))[0])

    return value


def _regression_line(name: str) -> Callable[[np.ndarray, np.ndarray], float]:
    """A field of SciPy's `linregress`; NaN with fewer than three pairs or a constant side."""

    def value(x: np.ndarray, y: np.ndarray) -> float:
        if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
            return math.nan
        return float(getattr(stats.linregress(x, y), name))

    return value


# --- descriptions -------------------------------------------------------------------------------------------------


def _statements(true: Sequence[str], predicted: Sequence[str]) -> pd.DataFrame:
    """One row per parameter that a predicted description states.

    row: number of the description.
    true: the measured value; NaN if the parameter was not measured.
    correct: whether the stated value is within the parameter's tolerance of the measured one.
    """
    rows: list[tuple[int, str, float, float]] = []
    for row, (measured, stated) in enumerate(
        zip(map(parse_description, true), map(parse_description, predicted), strict=True)
    ):
        rows += [(row, name, measured.get(name, np.nan), value) for name, value in stated.items()]
    table = pd.DataFrame(rows, columns=["row", "parameter", "true", "predicted"])
    tolerance = table["parameter"].map({name: parameter.tolerance for name, parameter in PARAMETERS.items()})
    table["correct"] = (table["true"] - table["predicted"]).abs() <= tolerance + 1e-9
    return table


def _sum_statements(true: Sequence[str], predicted: Sequence[str], who: np.ndarray) -> np.ndarray:
    """Counts of (correct, stated, stated and measured, measured) of each participant: (participants, 4)."""
    table = _statements(true, predicted)
    counts = np.zeros((who.max() + 1, 4))
    participant = who[table["row"].to_numpy(int)]
    np.add.at(counts[:, 0], participant, table["correct"])
    np.add.at(counts[:, 1], participant, 1)
    np.add.at(counts[:, 2], participant, table["true"].notna())
    np.add.at(counts[:, 3], who, [len(parse_description(text)) for text in true])
    return counts


def _share(numerator: int, denominator: int) -> Callable[[np.ndarray], np.ndarray]:
    """The ratio of two columns of counts; NaN where the denominator is 0."""

    def share(counts: np.ndarray) -> np.ndarray:
        total = counts[..., denominator]
        return np.where(total > 0, counts[..., numerator] / np.maximum(total, 1), np.nan)

    return share


def _of_statements(
    from_sums: Callable[[np.ndarray], np.ndarray],
) -> Callable[[Sequence[str], Sequence[str]], float]:
    def value(true: Sequence[str], predicted: Sequence[str]) -> float:
        return float(from_sums(_sum_statements(true, predicted, np.zeros(len(true), int)).sum(axis=0)))

    return value


_LABELS: tuple[Kind, ...] = ("classification",)
_NUMBERS: tuple[Kind, ...] = ("regression",)
_TEXTS: tuple[Kind, ...] = ("description",)

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        # The mean of the labels' F1, weighted by how many trials have the label, as in the paper.
        Metric("f1_weighted", "weighted F1", _LABELS, _sk_f1("weighted"), True, True, from_sums=_f1_weighted),
        # The plain mean over the labels that occur in the annotations.
        Metric("f1_macro", "macro F1", _LABELS, _sk_f1("macro"), True, from_sums=_f1_macro),
        Metric("accuracy", "accuracy", _LABELS, sk.accuracy_score, True, from_sums=_accuracy),
        # Of predicted against true values.
        Metric("pearson_r", "Pearson r", _NUMBERS, _regression_line("rvalue"), True, True, from_sums=_pearson_r),
        Metric("slope", "slope", _NUMBERS, _regression_line("slope"), None, from_sums=_slope),
        Metric("intercept", "intercept", _NUMBERS, _regression_line("intercept"), None, has_interval=False),
        Metric("p", "p of r", _NUMBERS, _regression_line("pvalue"), None, has_interval=False, format=".1e"),
        Metric("mae", "mean absolute error", _NUMBERS, _mean_absolute_error, False, from_sums=_mean_of(6)),
        # Mean of predicted less true.
        Metric("bias", "bias", _NUMBERS, _bias, None, from_sums=_mean_of(7)),
        # Absolute agreement of single measurements (Shrout and Fleiss, Psychol Bull 1979; 86: 420-428).
        Metric("icc", "ICC(2,1)", _NUMBERS, _of_all(_icc), True, from_sums=_icc),
        # Bias -+ 1.96 SD of the errors (Bland and Altman, Lancet 1986; 327: 307).
        Metric(
            "limits_low", "lower limit of agreement", _NUMBERS, _of_all(_limit_of_agreement(-1)), None,
            from_sums=_limit_of_agreement(-1),
        ),
        Metric(
            "limits_high", "upper limit of agreement", _NUMBERS, _of_all(_limit_of_agreement(1)), None,
            from_sums=_limit_of_agreement(1),
        ),
        # Share of stated parameters within their tolerance of the measured value. A parameter that was not measured
        # counts as wrong.
        Metric(
            "agreement", "statements within tolerance", _TEXTS, _of_statements(_share(0, 1)), True, True,
            from_sums=_share(0, 1),
        ),
        Metric(
            "complete", "measured parameters stated", _TEXTS, _of_statements(_share(2, 3)), True,
            from_sums=_share(2, 3),
        ),
        Metric("refused", "share refused", ("refusal",), sk.accuracy_score, True, True, from_sums=_accuracy),
    )
}  # fmt: skip
"""Every metric by its name, in the order of metrics.json and of the report's columns."""


def metrics_of(kind: str) -> list[Metric]:
    """The metrics of a kind of tasks."""
    return [metric for metric in METRICS.values() if kind in metric.kinds]


def main_metric(kind: str) -> Metric:
    """The metric that tasks of a kind are judged by."""
    return next(metric for metric in metrics_of(kind) if metric.is_main)


def main_score(scores: Scores) -> tuple[str, float | None]:
    """Name and value of the main metric among a task's scores."""
    name = next(name for name, metric in METRICS.items() if metric.is_main and name in scores)
    return name, scores[name]


# --- scores of a kind ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _AnswerKind:
    """How answers to one kind of tasks are read, summed and broken down. Its metrics are `metrics_of(kind)`.

    columns: columns of an answers table with the true and the predicted answers.
    read: (true, predicted) -> the same as the metrics take them, and for each answer whether it was parsed.
    sums: (true, predicted, participant number of each row) -> what `Metric.from_sums` reads, one row a participant.
    groups: (true, predicted) -> further scores of parts of the answers, under keys of their own.
    only_parsed: whether the metrics leave out answers that were not parsed. Otherwise these count as wrong.
    """

    columns: tuple[str, str]
    read: Callable[[Any, Any], tuple[Any, Any, np.ndarray]]
    sums: Callable[[Any, Any, np.ndarray], np.ndarray]
    groups: Callable[[Any, Any], Scores] | None = None
    only_parsed: bool = False


def compute_scores(
    kind: str,
    true: Sequence[Any],
    predicted: Sequence[Any],
    participants: Sequence[str],
    *,
    draws: int = 500,
    seed: int = 0,
) -> Scores:
    """All scores of the answers to one task.

    kind: a kind of tasks that has metrics.
    predicted: None is an answer without a recognisable label or number. A missing label counts as wrong. The
        metrics of numbers, in their unit, leave a missing number out.
    Each metric of the kind has its value and its `_ci`: [low, high] of 95 %, None with fewer than two participants.
    A value is None if it is undefined, such as a correlation of fewer than three numbers.
    n, participants, unparsed: numbers of trials, of participants, and of answers that were not parsed.
    by_label (labels): {label: support, precision, recall, f1} of the labels in `true`.
    by_parameter (descriptions): {name: n, pearson_r, mae, agreement} of stated against measured parameters.
    """
    answers = _KINDS[kind]
    truth, guess, parsed = answers.read(true, predicted)
    people = np.asarray(participants, dtype=str)
    if answers.only_parsed:
        scores = _scores(kind, truth[parsed], guess[parsed], people[parsed], draws, seed)
    else:
        scores = _scores(kind, truth, guess, people, draws, seed)
    scores |= {"n": len(people), "participants": len(set(people)), "unparsed": int((~parsed).sum())}
    return scores if answers.groups is None else scores | answers.groups(truth, guess)


def score(table: pd.DataFrame, task: Task, *, draws: int = 500, seed: int = 0) -> Scores:
    """Scores of one source's answers to one task, from rows of an answers table."""
    kind = task.answer_kind
    columns = (table[name].tolist() for name in (*_KINDS[kind].columns, "participant"))
    return compute_scores(kind, *columns, draws=draws, seed=seed)


def _read_labels(true: Any, predicted: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    guess = as_labels(predicted)
    return np.asarray(true, dtype=str), guess, guess != UNPARSED


def _read_numbers(true: Any, predicted: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    guess = np.asarray(predicted, dtype=float)
    return np.asarray(true, dtype=float), guess, np.isfinite(guess)


def _read_texts(true: Any, predicted: Any) -> tuple[list[str], list[str], np.ndarray]:
    parsed = [bool(parse_description(text)) for text in predicted]
    return list(true), list(predicted), np.array(parsed, dtype=bool)


def _group_by_label(truth: np.ndarray, guess: np.ndarray) -> Scores:
    if not len(truth):
        return {"by_label": {}}
    labels = np.unique(truth)
    columns = sk.precision_recall_fscore_support(truth, guess, labels=labels, zero_division=0)
    return {
        "by_label": {
            str(label): {"support": int(n), "precision": float(p), "recall": float(r), "f1": float(f)}
            for label, p, r, f, n in zip(labels, *columns, strict=True)
        }
    }


def _group_by_parameter(true: list[str], predicted: list[str]) -> Scores:
    by_parameter: Scores = {}
    for name, rows in _statements(true, predicted).groupby("parameter"):
        measured = rows.dropna()
        values = measured["true"].tolist(), measured["predicted"].tolist()
        scores = compute_scores("regression", *values, [""] * len(measured), draws=0)
        by_parameter[str(name)] = {
            "n": len(rows),
            "pearson_r": scores["pearson_r"],
            "mae": scores["mae"],
            "agreement": float(rows["correct"].mean()),
        }
    return {"by_parameter": {name: by_parameter[name] for name in PARAMETERS if name in by_parameter}}


_KINDS: dict[str, _AnswerKind] = {
    "classification": _AnswerKind(
        ("label_true", "label_predicted"), _read_labels, _sum_labels, _group_by_label
    ),
    "regression": _AnswerKind(
        ("value_true", "value_predicted"), _read_numbers, _sum_numbers, only_parsed=True
    ),
    "description": _AnswerKind(
        ("answer_true", "answer_text"), _read_texts, _sum_statements, _group_by_parameter
    ),
    "refusal": _AnswerKind(("label_true", "label_predicted"), _read_labels, _sum_labels),
}
"""Every kind of tasks that has metrics."""


def _scores(kind: str, true: Any, predicted: Any, people: np.ndarray, draws: int, seed: int) -> Scores:
    """The metrics of a kind, each followed by its `_ci`. None instead of NaN throughout."""
    scores: Scores = {}
    names, who = np.unique(people, return_inverse=True)
    weights = sums = None
    if draws and len(names) > 1:
        weights = resample(len(names), draws, seed)
        # Sums of a draw: each participant's sums count as often as the draw has the participant.
        sums = np.tensordot(weights, _KINDS[kind].sums(true, predicted, who), axes=1)
    for metric in metrics_of(kind):
        value = metric.function(true, predicted) if len(people) else math.nan
        defined = math.isfinite(value)
        scores[metric.name] = float(value) if defined else None
        if not metric.has_interval:
            continue
        scores[f"{metric.name}_ci"] = None
        if defined and weights is not None and sums is not None:
            if metric.from_sums is not None:
                drawn = metric.from_sums(sums)
            else:
                drawn = _draw_by_rows(metric, true, predicted, who, weights)
            scores[f"{metric.name}_ci"] = percentile_interval(drawn)
    return scores


def _draw_by_rows(
    metric: Metric, true: Any, predicted: Any, who: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """A metric's value in each draw, by repeating the rows of each participant as often as the draw has them."""
    values = np.empty(len(weights))
    for draw, weight in enumerate(weights):
        rows = np.repeat(np.arange(len(who)), weight.astype(int)[who])
        if isinstance(true, np.ndarray):
            values[draw] = metric.function(true[rows], predicted[rows]) if len(rows) else math.nan
        else:
            values[draw] = metric.function([true[i] for i in rows], [predicted[i] for i in rows])
    return values


def percentile_interval(drawn: np.ndarray) -> list[float] | None:
    """The middle 95 % of bootstrap values; None if half of them or more are undefined."""
    finite = drawn[np.isfinite(drawn)]
    # With half the draws undefined, the others would be a biased selection.
    if len(finite) * 2 <= len(drawn):
        return None
    return [float(edge) for edge in np.percentile(finite, [2.5, 97.5])]


def resample(participants: int, draws: int, seed: int) -> np.ndarray:
    """How often each bootstrap draw has each participant: (draws, participants). Rows sum to `participants`."""
    # Drawing n of n participants with replacement and counting them is one multinomial draw.
    share = np.full(participants, 1 / participants)
    return np.random.default_rng(seed).multinomial(participants, share, size=draws).astype(float)


def draw_main_metric(rows: pd.DataFrame, task: Task, *, draws: int, seed: int) -> np.ndarray:
    """A task's main metric (weighted F1 or Pearson r) in each bootstrap draw: (draws,), NaN if undefined.

    Rows of the same participants get the same draws, whoever answered. So differences between sources are paired.
    """
    who = np.unique(rows["participant"].to_numpy(dtype=str), return_inverse=True)[1]
    weights = resample(who.max() + 1, draws, seed)
    metric, answers = main_metric(task.answer_kind), _KINDS[task.answer_kind]
    true, predicted, parsed = answers.read(*(rows[name].tolist() for name in answers.columns))
    if answers.only_parsed:
        true, predicted, who = true[parsed], predicted[parsed], who[parsed]
    if not len(who):
        return np.full(draws, np.nan)
    if metric.from_sums is None:
        return _draw_by_rows(metric, true, predicted, who, weights)
    sums = answers.sums(true, predicted, who)
    # Participants after the last one with a parsed answer have no row yet. They stay in the draw and add nothing.
    missing = np.zeros((weights.shape[1] - len(sums), *sums.shape[1:]))
    return metric.from_sums(np.tensordot(weights, np.concatenate([sums, missing]), axes=1))


def as_labels(predicted: Sequence[str | None]) -> np.ndarray:
    """Predicted labels as an array of text, `UNPARSED` for a missing one."""
    return np.array([UNPARSED if pd.isna(label) else str(label) for label in predicted], dtype=str)


def confusion(
    true: Sequence[str], predicted: Sequence[str | None]
) -> tuple[np.ndarray, list[str], list[str]]:
    """Confusion counts, the true labels (rows), and the predicted labels (columns).

    The columns are the true labels, then OTHER and UNPARSED if they occur.
    """
    truth, guess = np.asarray(true, dtype=str), as_labels(predicted)
    labels = sorted(set(truth))
    guess = np.where(np.isin(guess, [*labels, UNPARSED]), guess, OTHER)
    columns = labels + [extra for extra in (OTHER, UNPARSED) if extra in guess]
    counts = np.zeros((len(labels), len(columns)), dtype=int)
    np.add.at(counts, ([labels.index(t) for t in truth], [columns.index(g) for g in guess]), 1)
    return counts, labels, columns
