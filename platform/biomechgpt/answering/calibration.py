"""Calibration of a model's answers, fitted on validation participants: temperatures, prediction sets, risk limits.

Temperature scaling makes probabilities match frequencies. Conformal prediction makes sets and intervals hold the
truth as often as COVERAGE says. The trials of one participant are not independent, so each participant counts once,
however many trials they have (`conformal.threshold_of_draws`).
Pure functions of arrays and tables. Knows nothing about models.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from pydantic import ConfigDict, Field
from scipy.optimize import minimize_scalar

from biomechgpt.answering.answer import Unlike
from biomechgpt.answering.conformal import COVERAGE, ROUNDING, conformal, threshold_of_draws, trial_weights
from biomechgpt.answering.ood import NOT_CHECKED, OodCheck
from biomechgpt.answering.risk import fit_risk_thresholds
from biomechgpt.core.settings import Settings
from biomechgpt.motion.statistics import MovementStatistics

INTERVAL_SHARES = (round((1 - COVERAGE) / 2, 9), 0.5, round((1 + COVERAGE) / 2, 9))
"""Quantiles of a number's distribution that are reported: the interval's lower end, the median, the upper end."""
MIN_APPLIES = 0.5
"""Lowest threshold of the probability that a question applies."""
ANSWERED_ANYWAY = 0.05
"""Share of the movements that a question does not apply to that may be answered anyway."""
MAX_RECORDINGS = 21
"""Most recordings of a person that a calibration is fitted for: the server's default takes one and 20 further
ones."""
DRAWS = 20
"""Draws of k recordings of each participant that the calibration of a person's mean is fitted on."""
SCALES = (0.5, 2.0)
"""Smallest and largest factor on a number."""
SPREAD = 0.5
"""Standard deviation of the prior of a log temperature, whose mean is 0."""


class TaskCalibration(Settings):
    """Calibration of one task, fitted on validation participants."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    temperature: float = Field(1.0, gt=0)
    """Temperature of the label probabilities."""
    label_thresholds: dict[str, float] = Field(default_factory=dict)
    """Conformal threshold per label: it joins the set if 1 - p <= threshold. Empty: too few participants."""
    interval_offset: float | None = None
    """Amount added to both ends of a number's interval, in its unit (CQR). None: too few participants."""
    number_scale: float = Field(1.0, gt=0)
    """Factor on a number, before `number_shift` is added. A model that is unsure says numbers near the mean."""
    number_shift: float = 0.0
    """Amount added to a number, in its unit."""
    risk_thresholds: list[tuple[float, float]] = Field(default_factory=list)
    """(error rate, lowest confidence of the answers given for it), see `risk.fit_risk_thresholds`.

    Confidence is the probability of the most probable label before temperature scaling, as the temperature was
    fitted on the same participants. Empty: too few participants, or too many wrong answers, for any guarantee."""
    n_participants: int = 0
    """Participants that this was fitted on."""

    def corrected(self, numbers: Any) -> Any:
        """Numbers of the model, scaled and shifted."""
        return self.number_shift + self.number_scale * numbers

    @property
    def coverage_guaranteed(self) -> bool:
        """Whether sets or intervals hold the truth as often as COVERAGE says."""
        return bool(self.label_thresholds) or self.interval_offset is not None

    def selective_risk(self, confidence: float) -> float | None:
        """The lowest error rate of `risk.LEVELS` for which an answer of this confidence is still given.

        confidence: before temperature scaling. None: it is given for no error rate.
        """
        return min(
            (level for level, threshold in self.risk_thresholds if threshold <= confidence), default=None
        )


class Calibration(Settings):
    """Calibration of a model."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    tasks: dict[str, TaskCalibration] = Field(default_factory=dict)
    """Calibration of the answers about one movement, or two that are compared."""
    people: dict[str, dict[int, TaskCalibration]] = Field(default_factory=dict)
    """{task: {number of recordings: calibration of the mean over so many of a person}}, for tasks with one label a
    person."""
    ood: OodCheck | None = None
    """The check for out-of-distribution movements; null if the cohort has too few participants even for that."""
    min_applies: dict[str, float] = Field(default_factory=dict)
    """Per task with conditions: the probability that its question applies must be above this for an answer."""
    provenance: str | None = None
    """Kind of the recordings that this was fitted on: recorded, synthetic, or both."""

    def judge(self, statistics: MovementStatistics | None, log_likelihood: float | None) -> Unlike:
        """`OodCheck.judge`; not checked if there is no check."""
        return NOT_CHECKED if self.ood is None else self.ood.judge(statistics, log_likelihood)

    def of_task(self, task: str) -> TaskCalibration:
        """The calibration of a task's answers; one that changes nothing if none was fitted."""
        return self.tasks.get(task, TaskCalibration())

    def threshold(self, task: str) -> float:
        """The probability above which a task's question is taken to apply."""
        return self.min_applies.get(task, MIN_APPLIES)

    def of_person(self, task: str, n_recordings: int) -> TaskCalibration:
        """The calibration of the mean over this number of a person's recordings.

        Of a number that was not fitted, because too few participants have so many recordings, the next smaller one:
        a mean of fewer recordings varies more, so its sets are wider. No guarantee was shown for that number
        itself.
        """
        by_number = self.people[task]
        return by_number[max((n for n in by_number if n <= n_recordings), default=min(by_number))]


def apply_temperature(probability: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities (..., A) at a temperature: each to the power 1 / temperature, scaled to sum 1."""
    with np.errstate(divide="ignore"):
        logits = np.log(probability) / temperature
    logits -= logits.max(axis=-1, keepdims=True)
    powered = np.exp(logits)
    return np.asarray(powered / powered.sum(axis=-1, keepdims=True))


def fit_temperature(
    probabilities: Sequence[np.ndarray], truth: Sequence[int], participants: Sequence[str]
) -> float:
    """The temperature of least negative log-likelihood of the true answers; each participant counts once.

    probabilities: (A,) of each trial's answers.
    truth: index of each trial's true answer.
    The few participants of a validation split say little about a temperature, so its logarithm has a normal prior
    of mean 0 and standard deviation SPREAD.
    """
    weights = trial_weights(participants)
    n_participants = len(set(participants))
    # Trials may differ in their number of answers. An added answer of probability 0 changes nothing.
    padded = np.zeros((len(probabilities), max(map(len, probabilities))))
    for row, p in zip(padded, probabilities, strict=True):
        row[: len(p)] = p
    rows = np.arange(len(padded))

    def loss(log_t: float) -> float:
        t = float(np.exp(log_t))
        p_true = apply_temperature(padded, t)[rows, truth]
        nll = -(weights * np.log(np.maximum(p_true, 1e-12))).sum()
        # The weights sum to 1, so `nll` is a mean over participants: the prior counts as one more of n terms.
        return float(nll + (log_t / SPREAD) ** 2 / (2 * n_participants))

    minimum = minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded")
    return float(np.exp(minimum.x))


def prediction_set(probability: Mapping[str, float], fitted: TaskCalibration) -> list[str]:
    """The labels that cannot be ruled out at COVERAGE, most probable first.

    All labels if nothing was fitted; always at least the most probable one.
    """
    kept: list[str] = []
    for label, p in sorted(probability.items(), key=lambda item: -item[1]):
        if 1 - p <= fitted.label_thresholds.get(label, 1.0) + ROUNDING or not kept:
            kept.append(label)
    return kept


def fit_label_thresholds(
    scores: Sequence[float], truth: Sequence[str], participants: Sequence[str], labels: Sequence[str]
) -> dict[str, float]:
    """{label: conformal threshold of a trial that truly has this label}; empty with too few participants in all.

    Labels with too few participants share a threshold with the next rarest ones, until their group has enough. The
    coverage then holds for the group (Ding et al., NeurIPS 2023, who group labels by their scores).
    scores: 1 - p of the true label of each trial.
    labels: all labels of the task.
    """
    score, true, who = np.asarray(scores), np.asarray(truth, dtype=str), np.asarray(participants, dtype=str)

    def threshold(group: list[str]) -> float | None:
        in_group = np.isin(true, group)
        return threshold_of_draws(score[in_group].tolist(), who[in_group].tolist())

    # From the rarest label on, a group is closed as soon as it has enough participants for a threshold.
    groups: list[list[str]] = [[]]
    for label in sorted({*labels, *truth}, key=lambda label: (len(set(who[true == label])), label)):
        if threshold(groups[-1]) is not None:
            groups.append([])
        groups[-1].append(label)
    # The last group may have too few: it joins the one before.
    if len(groups) > 1 and threshold(groups[-1]) is None:
        last = groups.pop()
        groups[-1] += last
    thresholds: dict[str, float] = {}
    for group in groups:
        shared = threshold(group)
        if shared is not None:
            thresholds |= dict.fromkeys(group, shared)
    return {label: thresholds[label] for label in labels if label in thresholds}


def fit_labels(
    probabilities: Sequence[Mapping[str, float]], truth: Sequence[str], participants: Sequence[str]
) -> TaskCalibration:
    """Calibration of a task with labels: the temperature, sets at that temperature, risk thresholds.

    A trial whose true label the model does not know has probability 0 for the truth: it counts as wrong for the
    sets and the risk, and is left out for the temperature.
    """
    labels = [list(p) for p in probabilities]
    values = [np.array(list(p.values())) for p in probabilities]
    usable = [i for i, (names, label) in enumerate(zip(labels, truth, strict=True)) if label in names]
    true_index = [labels[i].index(truth[i]) for i in usable]
    t = 1.0
    if usable:
        t = fit_temperature([values[i] for i in usable], true_index, [participants[i] for i in usable])
    p_true = np.zeros(len(truth))
    for i, index in zip(usable, true_index, strict=True):
        p_true[i] = apply_temperature(values[i], t)[index]
    all_labels = sorted({name for names in labels for name in names})
    return TaskCalibration(
        temperature=t,
        label_thresholds=fit_label_thresholds((1 - p_true).tolist(), truth, participants, all_labels),
        risk_thresholds=fit_risk_thresholds(
            [float(p.max()) for p in values],
            [names[int(p.argmax())] == label for names, p, label in zip(labels, values, truth, strict=True)],
            participants,
        ),
        n_participants=len(set(participants)),
    )


def fit_numbers(
    low: Sequence[float],
    median: Sequence[float],
    high: Sequence[float],
    truth: Sequence[float],
    participants: Sequence[str],
) -> TaskCalibration:
    """Calibration of a task with numbers: their scale and shift, then how much intervals grow or, negative, shrink.

    Scale and shift are those of least squares from the medians to the truth; each participant counts once.
    Intervals follow conformalized quantile regression (Romano, Patterson and Candes, NeurIPS 2019). There each
    participant's scale and shift are those of all others: fitted on the participant too, they would make the
    intervals too narrow for new people. Without enough participants for an interval nothing is corrected.
    """
    x, y, ends = (np.asarray(values, dtype=float) for values in (median, truth, (low, high)))
    who, names = np.asarray(participants, dtype=str), set(participants)
    if threshold_of_draws(y.tolist(), participants) is None:
        return TaskCalibration(n_participants=len(names))
    outside = np.empty(len(y))
    for name in names:
        mine = who == name
        scale, shift = _least_squares(x[~mine], y[~mine], who[~mine])
        lower, upper = shift + scale * ends[:, mine]
        # How far the truth lies outside the interval; negative inside.
        outside[mine] = np.maximum(lower - y[mine], y[mine] - upper)
    scale, shift = _least_squares(x, y, who)
    return TaskCalibration(
        number_scale=scale,
        number_shift=shift,
        interval_offset=threshold_of_draws(outside.tolist(), participants),
        n_participants=len(names),
    )


def _least_squares(x: np.ndarray, y: np.ndarray, participants: np.ndarray) -> tuple[float, float]:
    """(scale, shift) of the line from x to y, with the scale within SCALES. 1 and 0 if x is one number."""
    weights = trial_weights(participants.tolist())
    mean_x, mean_y = weights @ x, weights @ y
    variance = weights @ (x - mean_x) ** 2
    if variance < ROUNDING:
        return 1.0, 0.0
    scale = float(np.clip(weights @ ((x - mean_x) * (y - mean_y)) / variance, *SCALES))
    return scale, float(mean_y - scale * mean_x)


def fit(answers: pd.DataFrame) -> Calibration:
    """The calibration of an answers table (`batch.answer_all`) of scored, uncalibrated answers."""
    tasks, people = {}, {}
    for (task, kind), rows in answers.groupby(["task", "kind"], sort=False):
        participants = rows["participant"].tolist()
        if kind == "classification":
            pairs = zip(rows["labels"], rows["probabilities"], strict=True)
            probabilities = [dict(zip(labels, p, strict=True)) for labels, p in pairs]
            tasks[str(task)] = fit_labels(probabilities, rows["label_true"].tolist(), participants)
            # A person's answer is the mean over their movements, which needs a calibration of its own.
            if rows["other"].isna().all() and (truth := one_label(rows)) is not None:
                people[str(task)] = fit_people(probabilities, participants, truth)
        elif kind == "regression":
            low, median, high, truth_values = (
                rows[name].tolist() for name in ("low", "value_predicted", "high", "value_true")
            )
            tasks[str(task)] = fit_numbers(low, median, high, truth_values, participants)
    return Calibration(tasks=tasks, people=people)


def fit_min_applies(applies: Sequence[float], participants: Sequence[str]) -> float:
    """The threshold that keeps the probability that a question applies from misleading.

    applies: that probability for validation movements that the question does NOT apply to.
    At most ANSWERED_ANYWAY of such movements of new participants lie above the threshold, or as few as n
    participants allow, 1 / (n + 1).
    """
    n = len(set(participants))
    if not n:
        return MIN_APPLIES
    threshold = conformal(applies, participants, min(1 - ANSWERED_ANYWAY, n / (n + 1)))
    return max(MIN_APPLIES, threshold or 0.0)


def fit_people(
    probabilities: Sequence[Mapping[str, float]], participants: Sequence[str], truth: "pd.Series"
) -> dict[int, TaskCalibration]:
    """{k: calibration of the mean over k recordings of a person}, fitted on draws of k recordings of a participant.

    A mean over all recordings of a participant would be steadier than one over the two that a user has.
    k: from 2 to MAX_RECORDINGS, as long as half of the participants have so many; the others are left out. 1 if no
    participant has two.
    truth: {participant: label}.
    """
    table = pd.DataFrame(probabilities).fillna(0.0)
    labels = [str(label) for label in table.columns]
    by_participant = {
        str(name): rows.to_numpy(float) for name, rows in table.groupby(np.asarray(participants, dtype=str))
    }
    available = sorted(map(len, by_participant.values()), reverse=True)
    enough = available[(len(available) - 1) // 2]
    fewest = min(2, available[0])
    rng = np.random.default_rng(0)
    fitted: dict[int, TaskCalibration] = {}
    for k in range(fewest, max(fewest, min(enough, MAX_RECORDINGS)) + 1):
        means, names = [], []
        for name, rows in by_participant.items():
            # All draws are the same if the participant has k recordings. The weights count each participant once.
            n_draws = 0 if len(rows) < k else 1 if len(rows) == k else DRAWS
            for _ in range(n_draws):
                mean = rows[rng.choice(len(rows), k, replace=False)].mean(axis=0)
                means.append(dict(zip(labels, mean.tolist(), strict=True)))
                names.append(name)
        fitted[k] = fit_labels(means, [str(truth[name]) for name in names], names)
    return fitted


def one_label(rows: pd.DataFrame) -> "pd.Series | None":
    """The label of each participant of an answers table; None if any participant has several."""
    by_participant = rows.groupby("participant")["label_true"]
    return None if (by_participant.nunique() > 1).any() else by_participant.first()
