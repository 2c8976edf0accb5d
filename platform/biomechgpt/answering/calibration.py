"""How far an answer can be trusted: temperatures and prediction sets, fitted on participants nobody was trained on.

A temperature makes probabilities mean what they say; a conformal set holds the truth as often as is wanted. Trials
of one participant are not independent, so a participant counts once, however many trials there are (hierarchical
conformal prediction: Lee, Barber and Willett, 2023, arXiv:2306.06342). Pure functions of arrays and tables.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from pydantic import Field
from scipy.optimize import minimize_scalar

from biomechgpt.core.settings import Settings

COVERAGE = 0.9
"""How often a set or an interval holds the truth."""
USUAL = 0.97
"""How many movements like those that were learned from are not strange."""
SPREAD = 0.5
"""Of the logarithm of temperatures, before anything was seen."""


class TaskCalibration(Settings):
    """Of one task. temperature: of its probabilities. most: {label: it is in the set where 1 - its probability is
    at most this}, empty with too few participants to promise anything; widen: by how much a number's interval grows
    at either end, in its unit, null likewise. risks: (confidence, share wrong among answers at least so sure) from
    the surest on. participants: how many it was fitted on.
    """

    temperature: float = Field(1.0, gt=0)
    most: dict[str, float] = Field(default_factory=dict)
    widen: float | None = None
    risks: list[tuple[float, float]] = Field(default_factory=list)
    participants: int = 0

    @property
    def promised(self) -> bool:
        """Whether its sets or intervals hold the truth as often as COVERAGE says."""
        return bool(self.most) or self.widen is not None

    def risk(self, confidence: float) -> float | None:
        """The least share of wrong answers that can be had while an answer of this confidence is still given; None
        where nothing was fitted, or all that was seen were surer."""
        return min((wrong for least, wrong in self.risks if least <= confidence + 1e-9), default=None)


class Calibration(Settings):
    """Of a bundle. people: of the mean over all movements of a person, for tasks whose label is a person's, not a
    movement's. A movement is strange whose tokens' mean log probability is below least_familiar, or whose tokens
    lose more than most_rmse_deg of it; null: too few participants to say."""

    tasks: dict[str, TaskCalibration] = Field(default_factory=dict)
    people: dict[str, TaskCalibration] = Field(default_factory=dict)
    least_familiar: float | None = None
    most_rmse_deg: float | None = None

    def strange(self, familiar: float, rmse_deg: float | None = None) -> bool:
        """rmse_deg: None where the tokens alone are known."""
        unlikely = self.least_familiar is not None and familiar < self.least_familiar
        lost = self.most_rmse_deg is not None and rmse_deg is not None and rmse_deg > self.most_rmse_deg
        return unlikely or lost


def soften(probability: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities (..., A) at a temperature: each to the power 1 / temperature, sums 1 again."""
    with np.errstate(divide="ignore"):
        logits = np.log(probability) / temperature
    logits -= logits.max(axis=-1, keepdims=True)
    powered = np.exp(logits)
    return np.asarray(powered / powered.sum(axis=-1, keepdims=True))


def temperature(
    probabilities: Sequence[np.ndarray], truth: Sequence[int], participants: Sequence[str]
) -> float:
    """The temperature with the least negative log likelihood of the true answers, a participant counting once.

    probabilities: (A,) of each trial's answers; truth: which is true. The few participants of a validation split
    say little: without them the logarithm of a temperature is taken to be 0 +- SPREAD.
    """
    weight = _shares(participants)
    people = len(set(participants))

    def loss(log_t: float) -> float:
        seen = [soften(p, float(np.exp(log_t)))[t] for p, t in zip(probabilities, truth, strict=True)]
        likely = -(weight * np.log(np.maximum(seen, 1e-12))).sum()
        return float(likely + (log_t / SPREAD) ** 2 / (2 * people))

    found = minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded")
    return float(np.exp(found.x))


def conformal(
    scores: Sequence[float], participants: Sequence[str], coverage: float = COVERAGE
) -> float | None:
    """The score up to which those of another participant's trial lie with this probability, or more.

    A participant's trials share 1 / (n + 1), with n participants; the rest is the other's own, who may be anything.
    None with too few participants for that.
    """
    if not len(scores):
        return None
    people = len(set(participants))
    order = np.argsort(scores, kind="stable")
    reached = np.cumsum(_shares(participants)[order]) * people / (people + 1)
    at = int(np.searchsorted(reached, coverage - 1e-9))
    return float(np.asarray(scores)[order][at]) if at < len(order) else None


def prediction_set(probability: Mapping[str, float], fitted: TaskCalibration) -> list[str]:
    """The labels, likeliest first, that cannot be ruled out at the wanted coverage. All of them where nothing was
    fitted; never none."""
    kept: list[str] = []
    for label, p in sorted(probability.items(), key=lambda item: -item[1]):
        if 1 - p <= fitted.most.get(label, 1.0) + 1e-9 or not kept:
            kept.append(label)
    return kept


def by_label(
    scores: Sequence[float], truth: Sequence[str], participants: Sequence[str], labels: Sequence[str]
) -> dict[str, float]:
    """{label: the score up to which those of another participant's trial of this label lie, as often as COVERAGE}.

    Labels with too few participants are one group with the next rarest ones, until it has enough (coverage given
    the group: Ding et al., NeurIPS 2023, who group labels by their scores). Empty with too few participants in all.
    scores, truth, participants: of each trial; labels: all to choose from.
    """
    score, true, who = np.asarray(scores), np.asarray(truth, dtype=str), np.asarray(participants, dtype=str)

    def most(group: list[str]) -> float | None:
        mine = np.isin(true, group)
        return conformal(score[mine].tolist(), who[mine].tolist())

    groups: list[list[str]] = [[]]
    for label in sorted({*labels, *truth}, key=lambda label: (len(set(who[true == label])), label)):
        if most(groups[-1]) is not None:
            groups.append([])
        groups[-1].append(label)
    if len(groups) > 1 and most(groups[-1]) is None:
        last = groups.pop()
        groups[-1] += last
    found: dict[str, float] = {}
    for group in groups:
        together = most(group)
        if together is not None:
            found |= dict.fromkeys(group, together)
    return {label: found[label] for label in labels if label in found}


def risks(
    confidence: Sequence[float], right: Sequence[float], participants: Sequence[str]
) -> list[tuple[float, float]]:
    """Shares of wrong answers among those at least so sure, a participant counting once in all of them.

    As in conformal risk control (Angelopoulos et al., ICLR 2024) one more participant is taken to be wrong, so few
    participants cannot show a small risk.
    """
    people = len(set(participants))
    order = np.argsort(-np.asarray(confidence), kind="stable")
    weight = _shares(participants)[order] * people
    wrong = np.cumsum(weight * (1 - np.asarray(right, dtype=float)[order]))
    share = (wrong + 1) / (np.cumsum(weight) + 1)
    sure = np.asarray(confidence, dtype=float)[order]
    last = np.append(sure[1:] < sure[:-1], True)  # answers as sure as each other stand or fall together
    return [(float(c), float(min(r, 1.0))) for c, r in zip(sure[last], share[last], strict=True)]


def fit_labels(
    probabilities: Sequence[Mapping[str, float]], truth: Sequence[str], participants: Sequence[str]
) -> TaskCalibration:
    """Temperature, then sets at that temperature, of a task with labels. Trials whose label the model does not know
    count as wrong for the sets and not at all for the temperature."""
    labels = [list(p) for p in probabilities]
    values = [np.array(list(p.values())) for p in probabilities]
    known = [i for i, (names, label) in enumerate(zip(labels, truth, strict=True)) if label in names]
    at = [labels[i].index(truth[i]) for i in known]
    t = temperature([values[i] for i in known], at, [participants[i] for i in known]) if known else 1.0
    right = np.zeros(len(truth))
    for i, place in zip(known, at, strict=True):
        right[i] = soften(values[i], t)[place]
    every = sorted({name for names in labels for name in names})
    return TaskCalibration(
        temperature=t,
        most=by_label((1 - right).tolist(), truth, participants, every),
        risks=risks(
            [float(soften(p, t).max()) for p in values],
            [names[int(p.argmax())] == label for names, p, label in zip(labels, values, truth, strict=True)],
            participants,
        ),
        participants=len(set(participants)),
    )


def fit_numbers(
    low: Sequence[float], high: Sequence[float], truth: Sequence[float], participants: Sequence[str]
) -> TaskCalibration:
    """By how much the intervals of a task with numbers have to grow (or, negative, may shrink).

    Source: conformalized quantile regression, Romano, Patterson and Candes, NeurIPS 2019.
    """
    y = np.asarray(truth, dtype=float)
    beyond = np.maximum(np.asarray(low, dtype=float) - y, y - np.asarray(high, dtype=float))
    return TaskCalibration(
        widen=conformal(beyond.tolist(), participants), participants=len(set(participants))
    )


def fit(answers: pd.DataFrame) -> Calibration:
    """The calibration of an answers table (`answer.answer_all`) of weighed, uncalibrated answers."""
    found, of_people = {}, {}
    for (task, kind), rows in answers.groupby(["task", "kind"], sort=False):
        people = rows["participant"].tolist()
        if kind == "classification":
            pairs = zip(rows["choices"], rows["probability"], strict=True)
            said = [dict(zip(labels, p, strict=True)) for labels, p in pairs]
            found[str(task)] = fit_labels(said, rows["label_true"].tolist(), people)
            if rows["other"].isna().all() and (labels := one_label(rows)) is not None:
                mean = pd.DataFrame(said).fillna(0.0).groupby(people).mean().loc[labels.index]
                each = [{str(k): float(p) for k, p in row.items()} for row in mean.to_dict("records")]
                of_people[str(task)] = fit_labels(each, labels.tolist(), labels.index.tolist())
        elif kind == "regression":
            found[str(task)] = fit_numbers(
                rows["low"].tolist(), rows["high"].tolist(), rows["value_true"].tolist(), people
            )
    # Of single movements: two in a prompt are another kind of text.
    known = answers["familiar"].notna() & answers["other"].isna()
    trials = answers[known].drop_duplicates("trial")
    most = conformal((-trials["familiar"]).tolist(), trials["participant"].tolist(), USUAL)
    lost = trials.dropna(subset="rmse_deg")
    return Calibration(
        tasks=found,
        people=of_people,
        least_familiar=None if most is None else -most,
        most_rmse_deg=conformal(lost["rmse_deg"].tolist(), lost["participant"].tolist(), USUAL),
    )


def one_label(rows: pd.DataFrame) -> "pd.Series | None":
    """The label of each participant of an answers table; None where somebody has several."""
    by_person = rows.groupby("participant")["label_true"]
    return None if (by_person.nunique() > 1).any() else by_person.first()


def _shares(participants: Sequence[str]) -> np.ndarray:
    """What each trial counts: participants alike, their trials alike; sums to 1."""
    _, who, count = np.unique(np.asarray(participants, dtype=str), return_inverse=True, return_counts=True)
    return 1 / (len(count) * count[who])
