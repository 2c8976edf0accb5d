"""Metrics of predictions, and their confidence intervals. Pure functions of arrays: no files, no models.

To add a metric, write a function of the true and the predicted values and list it in `METRICS`. Report, comparisons
and sweeps read the registry.

Trials of one person are not independent: 80 trials from 11 people carry no more information than 11 people can. So
intervals and p values are by participant (see `intervals`): the metric without each participant in turn gives its
standard error. scikit-learn and SciPy compute the value itself. The same formulas are applied to sums kept per
participant, which is fast for many subsets of participants.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy import stats
from sklearn import metrics as sk

from biomechgpt.evaluation.intervals import p_of_correlation, t_interval
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
    has_interval: whether it gets an interval.
    bounds: lowest and highest possible value. Its interval then stays between them.
    from_sums: the same for many sets of participants at once, from sums over participants (see `_KINDS`): an array
        of values, NaN if undefined. Without it `function` is called once per set, which is slow.
    by_participant: whether `function` takes the participant's number of each row as a third argument.
    format: how a number is shown.
    """

    name: str
    label: str
    kinds: tuple[Kind, ...]
    function: Callable[..., float]
    higher_is_better: bool | None
    is_main: bool = False
    has_interval: bool = True
    bounds: tuple[float, float] | None = None
    from_sums: Callable[[np.ndarray], np.ndarray] | None = None
    by_participant: bool = False
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
    with np.errstate(invalid="ignore"):  # NaN where nobody is left: the only participant was left out
        return np.asarray((f1 * support).sum(axis=1) / support.sum(axis=1))


def _f1_macro(confusion: np.ndarray) -> np.ndarray:
    f1, support = _f1_by_label(confusion)
    return np.asarray(f1.sum(axis=1, where=support > 0) / (support > 0).sum(axis=1))


def _accuracy(confusion: np.ndarray) -> np.ndarray:
    return np.asarray(_hits(confusion).sum(axis=1) / confusion.sum(axis=2).sum(axis=1))


# --- numbers ------------------------------------------------------------------------------------------------------


def _sum_numbers(x: np.ndarray, y: np.ndarray, who: np.ndarray, centre: float | None = None) -> np.ndarray:
    """Sums over each participant's trials: (participants, 12).

    Columns: (1, u, v, uu, vv, uv, |e|, e, ee), then (sum of e)^2 / n, whether there are trials, and n^2, for the
    analysis of variance of the errors.
    x, y: true and predicted values; e: y - x.
    centre: u and v are x and y less this, so that the sums of squares keep their digits. Default: the mean of x.
    """
    centre = x.mean() if centre is None and len(x) else centre or 0.0
    u, v, e = x - centre, y - centre, y - x
    terms = np.stack([np.ones_like(u), u, v, u * u, v * v, u * v, np.abs(e), e, e * e], axis=1)
    sums = np.zeros((who.max() + 1 if len(who) else 0, 12))
    np.add.at(sums[:, :9], who, terms)
    n = sums[:, 0]
    sums[:, 9] = sums[:, 7] ** 2 / np.maximum(n, 1)
    sums[:, 10], sums[:, 11] = n > 0, n * n
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
    n, u, v, uu, vv, uv, _, error = sums.T[:8]
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
    """Bias -+ 1.96 SD of a new participant's single error, the SD from components of variance.

    With several trials a participant, the variance of an error is the one between participants plus the one within
    them, from a one-way analysis of variance (Bland and Altman, J Biopharm Stat 2007; 17: 571-582, section 3).
    Undefined with one participant.
    """

    def limit(sums: np.ndarray) -> np.ndarray:
        n, error, squares, by_participant, people, n_squares = sums.T[[0, 7, 8, 9, 10, 11]]
        with np.errstate(divide="ignore", invalid="ignore"):
            between = (by_participant - error**2 / n) / (people - 1)
            # With one trial a participant there is nothing within: `between` is then the whole variance.
            within = np.where(n > people, (squares - by_participant) / np.maximum(n - people, 1), 0.0)
            trials = (n - n_squares / n) / (people - 1)
            variance = np.maximum((between - within) / trials, 0) + within
            return np.asarray(error / n + sign * 1.96 * np.sqrt(variance))

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


def _of_all(
    from_sums: Callable[[np.ndarray], np.ndarray],
) -> Callable[[np.ndarray, np.ndarray, np.ndarray], float]:
    """The function of numbers that `from_sums` computes, on all participants together."""

    def value(x: np.ndarray, y: np.ndarray, who: np.ndarray) -> float:
        sums = _sum_numbers(x, y, who)
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

_SHARE, _CORRELATION = (0.0, 1.0), (-1.0, 1.0)

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        # The mean of the labels' F1, weighted by how many trials have the label, as in the paper.
        Metric(
            "f1_weighted", "weighted F1", _LABELS, _sk_f1("weighted"), True, True,
            bounds=_SHARE, from_sums=_f1_weighted,
        ),
        # The plain mean over the labels that occur in the annotations.
        Metric("f1_macro", "macro F1", _LABELS, _sk_f1("macro"), True, bounds=_SHARE, from_sums=_f1_macro),
        Metric("accuracy", "accuracy", _LABELS, sk.accuracy_score, True, bounds=_SHARE, from_sums=_accuracy),
        # Of predicted against true values.
        Metric(
            "pearson_r", "Pearson r", _NUMBERS, _regression_line("rvalue"), True, True,
            bounds=_CORRELATION, from_sums=_pearson_r,
        ),
        Metric("slope", "slope", _NUMBERS, _regression_line("slope"), None, from_sums=_slope),
        Metric("intercept", "intercept", _NUMBERS, _regression_line("intercept"), None, has_interval=False),
        # Of the correlation of participants' means.
        Metric(
            "p", "p of r, by participant", _NUMBERS, p_of_correlation, None,
            has_interval=False, by_participant=True, format=".4f",
        ),
        Metric("mae", "mean absolute error", _NUMBERS, _mean_absolute_error, False, from_sums=_mean_of(6)),
        # Mean of predicted less true.
        Metric("bias", "bias", _NUMBERS, _bias, None, from_sums=_mean_of(7)),
        # Absolute agreement of single measurements (Shrout and Fleiss, Psychol Bull 1979; 86: 420-428).
        Metric(
            "icc", "ICC(2,1)", _NUMBERS, _of_all(_icc), True,
            bounds=_CORRELATION, from_sums=_icc, by_participant=True,
        ),
        Metric(
            "limits_low", "lower limit of agreement", _NUMBERS, _of_all(_limit_of_agreement(-1)), None,
            from_sums=_limit_of_agreement(-1), by_participant=True,
        ),
        Metric(
            "limits_high", "upper limit of agreement", _NUMBERS, _of_all(_limit_of_agreement(1)), None,
            from_sums=_limit_of_agreement(1), by_participant=True,
        ),
        # Share of stated parameters within their tolerance of the measured value. A parameter that was not measured
        # counts as wrong.
        Metric(
            "agreement", "statements within tolerance", _TEXTS, _of_statements(_share(0, 1)), True, True,
            bounds=_SHARE, from_sums=_share(0, 1),
        ),
        Metric(
            "complete", "measured parameters stated", _TEXTS, _of_statements(_share(2, 3)), True,
            bounds=_SHARE, from_sums=_share(2, 3),
        ),
        Metric(
            "refused", "share refused", ("refusal",), sk.accuracy_score, True, True,
            bounds=_SHARE, from_sums=_accuracy,
        ),
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
    sums: Callable[..., np.ndarray]
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
    Each metric of the kind has its value and its `_ci`: [low, high] of 95 %, None with fewer than two participants
    or if draws is 0.
    A value is None if it is undefined, such as a correlation of fewer than three numbers.
    n, participants, unparsed: numbers of trials, of participants, and of answers that were not parsed.
    by_label (labels): {label: support, precision, recall, f1} of the labels in `true`.
    by_parameter (descriptions): {name: n, pearson_r, mae, agreement} of stated against measured parameters.
    """
    answers = _KINDS[kind]
    truth, guess, parsed = answers.read(true, predicted)
    people = np.asarray(participants, dtype=str)
    if answers.only_parsed:
        scores = _scores(kind, truth[parsed], guess[parsed], people[parsed], draws)
    else:
        scores = _scores(kind, truth, guess, people, draws)
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


def _scores(kind: str, true: Any, predicted: Any, people: np.ndarray, draws: int) -> Scores:
    """The metrics of a kind, each followed by its `_ci`. None instead of NaN throughout."""
    scores: Scores = {}
    names, who = np.unique(people, return_inverse=True)
    left_out_sums = None
    if draws and len(names) > 1:
        sums = _KINDS[kind].sums(true, predicted, who)
        left_out_sums = sums.sum(axis=0) - sums
    for metric in metrics_of(kind):
        value = _value(metric, true, predicted, who) if len(people) else math.nan
        defined = math.isfinite(value)
        scores[metric.name] = float(value) if defined else None
        if not metric.has_interval:
            continue
        scores[f"{metric.name}_ci"] = None
        if defined and left_out_sums is not None:
            if metric.from_sums is not None:
                left_out = metric.from_sums(left_out_sums)
            else:
                rows = [np.flatnonzero(who != number) for number in range(len(names))]
                left_out = np.array([_value(metric, *_at(rows, true, predicted, who)) for rows in rows])
            scores[f"{metric.name}_ci"] = t_interval(float(value), left_out, metric.bounds)
    return scores


def _value(metric: Metric, true: Any, predicted: Any, who: np.ndarray) -> float:
    if not len(who):
        return math.nan
    return (
        metric.function(true, predicted, who) if metric.by_participant else metric.function(true, predicted)
    )


def _at(rows: np.ndarray, true: Any, predicted: Any, who: np.ndarray) -> tuple[Any, Any, np.ndarray]:
    """These rows of the answers, with participants numbered anew."""
    number = np.unique(who[rows], return_inverse=True)[1]
    if isinstance(true, np.ndarray):
        return true[rows], predicted[rows], number
    return [true[i] for i in rows], [predicted[i] for i in rows], number


class ParticipantSums:
    """A task's main metric for any choice, by participant, among several tables of answers to the same questions.

    tables: rows of an answers table each.
    """

    def __init__(self, tables: Sequence[pd.DataFrame], task: Task) -> None:
        self._metric, self._answers = main_metric(task.answer_kind), _KINDS[task.answer_kind]
        self.participants = np.unique(np.concatenate([rows["participant"].to_numpy(str) for rows in tables]))
        self._tables = [self._read(rows) for rows in tables]
        self._sums = [self._sum(*table) for table in self._tables] if self._metric.from_sums else []

    def _read(self, rows: pd.DataFrame) -> tuple[Any, Any, np.ndarray]:
        true, predicted, parsed = self._answers.read(*(rows[name].tolist() for name in self._answers.columns))
        who = np.searchsorted(self.participants, rows["participant"].to_numpy(str))
        if not self._answers.only_parsed:
            return true, predicted, who
        return true[parsed], predicted[parsed], who[parsed]

    def _sum(self, true: Any, predicted: Any, who: np.ndarray) -> np.ndarray:
        # Numbers of all tables need the same centre, so that their sums can be added.
        first_truth = self._tables[0][0]
        centre = {}
        if self._answers.only_parsed:
            centre["centre"] = float(np.mean(first_truth)) if len(first_truth) else 0.0
        sums = self._answers.sums(true, predicted, who, **centre)
        missing = np.zeros((len(self.participants) - len(sums), *sums.shape[1:]))
        return np.concatenate([sums, missing])

    def values(self, weights: np.ndarray) -> np.ndarray:
        """The metric for each choice: (choices,); NaN where it is undefined.

        weights: (choices, tables, participants), 1 where the participant's answers of the table are taken, else 0.
        """
        if self._metric.from_sums is not None:
            chosen = sum(np.tensordot(weights[:, i], sums, axes=1) for i, sums in enumerate(self._sums))
            return self._metric.from_sums(np.asarray(chosen))
        return np.array([self._value_by_rows(choice) for choice in weights])

    def _value_by_rows(self, choice: np.ndarray) -> float:
        parts = [
            (*_at(np.flatnonzero(chosen[who] > 0), true, predicted, who), who[chosen[who] > 0])
            for chosen, (true, predicted, who) in zip(choice, self._tables, strict=True)
        ]
        true, predicted = (
            np.concatenate([part[i] for part in parts])
            if isinstance(parts[0][i], np.ndarray)
            else [value for part in parts for value in part[i]]
            for i in (0, 1)
        )
        who = np.unique(np.concatenate([part[3] for part in parts]), return_inverse=True)[1]
        return _value(self._metric, true, predicted, who)


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
