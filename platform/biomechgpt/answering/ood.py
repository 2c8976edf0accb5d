"""The check for out-of-distribution movements: is a recording like those that a model was trained on?

Three statistics of a recording are compared with those of the cohort:

- its distance to the most similar training movements, in joint angles, ranges and speeds (nearest neighbours, as in
  Ramaswamy, Rastogi and Shim, SIGMOD 2000);
- the reconstruction error of its motion tokens;
- the log-likelihood of its motion tokens under the language model.

Each is scaled by the training movements: 0 at their median, 1 at their 97.5th percentile. The largest of the three
is the score of a recording. The threshold is conformal: it holds for new participants of the same kind, and each
validation participant counts once. Two rules come first: the duration must be one that the training data have, and
the joints of the legs must be recorded. Pure functions of arrays. Knows nothing about models.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
from pydantic import ConfigDict, Field

from biomechgpt.answering.answer import Unlike
from biomechgpt.answering.conformal import conformal
from biomechgpt.core.settings import Settings
from biomechgpt.motion.statistics import MovementStatistics

OOD_QUANTILE = 0.97
"""Share of movements like the training data that must be accepted, if there are enough participants."""
MIN_PARTICIPANTS = 5
"""Validation participants from which on the threshold is fitted on them."""
TRAINING_MARGIN = 1.5
"""Factor on the training participants' threshold, if there are fewer validation participants. A model fits its
training data better than new people."""
MAX_REFERENCES = 2000
"""Training movements that are kept for comparison. They are drawn evenly from all participants."""
NEIGHBOURS = 3
"""Nearest training movements whose mean distance counts."""
DURATION_MARGIN = 1.1
"""Factor by which a recording may be shorter or longer than any of training."""

_SCALE_QUANTILE = 0.975

StatisticName = Literal["distance", "rmse_deg", "log_likelihood"]


class StatisticScale(Settings):
    """Location and scale of a statistic on the training movements."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    median: float
    """Median of the statistic. The log-likelihood counts with its sign changed, so that large means unlike."""
    spread: float = Field(gt=0)
    """97.5th percentile minus the median."""


class OodCheck(Settings):
    """The fitted check."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    scales: dict[StatisticName, StatisticScale]
    """Scale of each statistic."""
    threshold: float
    """Largest score of a movement that counts as like the training data."""
    participants: int
    """Number of participants that the threshold was fitted on."""
    fitted_on: Literal["validation", "training"]
    """Participants that the threshold was fitted on: training participants, with a margin, if too few others."""
    duration_s: tuple[float, float]
    """Shortest and longest training recording, in seconds."""

    # What the page, the API and the reports call each statistic, and its unit.
    _WORDS: ClassVar[dict[str, tuple[str, str]]] = {
        "distance": ("distance to the most similar training movements", ""),
        "rmse_deg": ("reconstruction error of the motion tokens", "degrees"),
        "log_likelihood": ("mean log-likelihood of the motion tokens", ""),
        "duration": ("duration", "s"),
        "joints": ("joint angles of the legs", ""),
    }

    def judge(self, statistics: MovementStatistics | None, log_likelihood: float | None) -> Unlike:
        """Whether a recording is unlike the training data.

        statistics: None if only the tokens are known. Then nothing is decided, and `checked` is false.
        log_likelihood: of its tokens; None if no question was scored.
        The result shows the statistic that speaks most against the recording.
        """
        if statistics is None:
            return self._result(False, False, "", None, None)
        if not statistics.legs_recorded:
            return self._result(True, True, "joints", None, None)
        shortest, longest = self.duration_s[0] / DURATION_MARGIN, self.duration_s[1] * DURATION_MARGIN
        if not shortest <= statistics.duration_s <= longest:
            return self._result(True, True, "duration", statistics.duration_s, (shortest, longest))
        values = {
            "distance": statistics.distance,
            "rmse_deg": statistics.rmse_deg,
            "log_likelihood": log_likelihood,
        }
        scores = {
            name: (_oriented(name, value) - scale.median) / scale.spread
            for name, scale in self.scales.items()
            if (value := values[name]) is not None and np.isfinite(value)
        }
        if not scores:
            return self._result(False, False, "", None, None)
        name = max(scores, key=lambda key: scores[key])
        limit = self.scales[name].median + self.threshold * self.scales[name].spread
        usual = (-limit, 0.0) if name == "log_likelihood" else (0.0, limit)
        return self._result(True, scores[name] > self.threshold, name, values[name], usual)

    def _result(
        self, checked: bool, unlike: bool, name: str, value: float | None, usual: tuple[float, float] | None
    ) -> Unlike:
        words, unit = self._WORDS.get(name, ("", ""))
        return Unlike(
            checked=checked,
            unlike=unlike,
            participants=self.participants,
            fitted_on=self.fitted_on,
            quantity=words,
            unit=unit,
            value=None if value is None else round(float(value), 3),
            usual=[] if usual is None else [round(float(end), 3) for end in usual],
        )


def _oriented(name: str, value: Any) -> Any:
    """The statistic, a number or an array, with the sign that makes large values unlike."""
    return -value if name == "log_likelihood" else value


NOT_CHECKED = Unlike(checked=False)
"""The check of a model without an `OodCheck`."""


@dataclass(frozen=True)
class ReferenceMovements:
    """Training movements that recordings are compared with.

    features: (N, 102) kinematic features; NaN where a joint was not recorded.
    scale: (102,) standard deviation of each feature.
    """

    features: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray, participants: Sequence[str]) -> Self:
        """The references among training movements (N, 102), `reference_rows`."""
        # A joint that nobody recorded, or that never differs, tells nothing.
        scale = np.nan_to_num(np.nanstd(features, axis=0)) if len(features) else np.ones(features.shape[1])
        kept = features[reference_rows(participants)]
        return cls(kept.astype(np.float32), np.maximum(scale, 1e-3).astype(np.float32))

    def distances(self, features: np.ndarray) -> np.ndarray:
        """(n, N) root mean square difference of movements (n, 102) to each reference, in standard deviations.

        Features that either movement lacks do not count.
        """
        result = np.empty((len(features), len(self.features)))
        for i, row in enumerate(np.asarray(features, dtype=float)):
            squared = ((self.features - row) / self.scale) ** 2
            with np.errstate(invalid="ignore"):
                result[i] = np.sqrt(_mean_known(squared))
        return result

    def distance(self, features: np.ndarray) -> float | None:
        """Mean distance of a movement (102,) to its nearest references; None if there are none."""
        if not len(self.features):
            return None
        return nearest(self.distances(features[None])[0])


def _mean_known(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis of the values that are not NaN; infinite where all are."""
    known = np.isfinite(values)
    total = np.where(known, values, 0.0).sum(axis=-1)
    count = known.sum(axis=-1)
    return np.where(count > 0, total / np.maximum(count, 1), np.inf)


def nearest(distances: np.ndarray) -> float:
    """Mean of the NEIGHBOURS smallest distances (N,)."""
    return float(np.sort(distances)[:NEIGHBOURS].mean())


@dataclass(frozen=True)
class CheckedMovements:
    """Statistics of a split's movements, one entry each.

    participants: who moved.
    values: {statistic: (n,)}; NaN where it is not known.
    duration_s: (n,) seconds.
    """

    participants: Sequence[str]
    values: dict[StatisticName, np.ndarray]
    duration_s: np.ndarray


def reference_rows(participants: Sequence[str]) -> np.ndarray:
    """Which of these movements are kept for comparison: at most MAX_REFERENCES, evenly from all participants."""
    who = np.asarray(participants, dtype=str)
    # The number of each movement among its participant's: everybody's first, then everybody's second, and so on.
    number = np.zeros(len(who), dtype=int)
    for name in np.unique(who):
        number[who == name] = np.arange((who == name).sum())
    return np.sort(np.argsort(number, kind="stable")[:MAX_REFERENCES])


def leave_one_out_distances(features: np.ndarray, participants: Sequence[str]) -> np.ndarray:
    """(n,) distance of each training movement (n, 102) to the references of other participants; NaN without any."""
    who, reference = np.asarray(participants, dtype=str), ReferenceMovements.of(features, participants)
    reference_who = who[reference_rows(participants)]
    result = np.full(len(features), np.nan)
    for name in np.unique(who):
        if (reference_who != name).any():
            rows = np.flatnonzero(who == name)
            distances = reference.distances(features[rows])[:, reference_who != name]
            result[rows] = [nearest(row) for row in distances]
    return result


def fit_ood(training: CheckedMovements, validation: CheckedMovements) -> OodCheck | None:
    """The check, from the statistics of training and validation movements; None if nothing is known of either.

    The threshold is fitted on validation participants, at OOD_QUANTILE or at the highest quantile that n
    participants allow, n / (n + 1). With fewer than MIN_PARTICIPANTS it is that of the training participants, times
    TRAINING_MARGIN.
    """
    scales: dict[StatisticName, StatisticScale] = {}
    for name, values in training.values.items():
        known = _oriented(name, values[np.isfinite(values)])
        if len(known):
            median, high = np.quantile(known, [0.5, _SCALE_QUANTILE])
            scales[name] = StatisticScale(median=median, spread=max(high - median, 1e-6))
    n_validation, n_training = len(set(validation.participants)), len(set(training.participants))
    on_validation = n_validation >= MIN_PARTICIPANTS
    movements, n = (validation, n_validation) if on_validation else (training, n_training)
    if not scales or n < 2:
        return None
    level = min(OOD_QUANTILE, n / (n + 1))
    threshold = conformal(_scores(movements, scales).tolist(), movements.participants, level)
    assert threshold is not None  # n participants always allow the quantile n / (n + 1)
    duration_s = np.concatenate([training.duration_s, validation.duration_s])
    return OodCheck(
        scales=scales,
        threshold=threshold if on_validation else TRAINING_MARGIN * max(threshold, 1.0),
        participants=n,
        fitted_on="validation" if on_validation else "training",
        duration_s=(float(duration_s.min()), float(duration_s.max())),
    )


def _scores(movements: CheckedMovements, scales: dict[StatisticName, StatisticScale]) -> np.ndarray:
    """(n,) largest scaled statistic of each movement."""
    scaled = [
        (_oriented(name, movements.values[name]) - scale.median) / scale.spread
        for name, scale in scales.items()
    ]
    largest: np.ndarray = np.nanmax(np.array(scaled), axis=0)
    return largest


def worst(checks: Sequence[Unlike]) -> Unlike:
    """The check that counts for several recordings: one that is unlike, else one that was not checked."""
    return next((check for check in checks if check.unlike), None) or min(
        checks, key=lambda check: check.checked
    )
