"""Conformal thresholds in which each participant counts once, because the trials of one are not independent.

`threshold_of_draws` is for prediction sets and intervals: their coverage is near its target. `conformal` is for
checks that must not fail too often: with few participants it is far on the safe side. Pure functions of arrays.
"""

from collections.abc import Sequence

import numpy as np

COVERAGE = 0.9
"""Probability that a prediction set or an interval holds the truth."""

ROUNDING = 1e-9
"""Scores are compared with thresholds that were such scores themselves: rounding must not decide."""


N_DRAWS = 201
"""Draws of one trial of each participant; odd, so that their median is one of them."""


def threshold_of_draws(
    scores: Sequence[float], participants: Sequence[str], coverage: float = COVERAGE
) -> float | None:
    """The threshold that the score of a new participant's trial stays within, with probability `coverage`.

    One trial of each of n participants is drawn at random. These n scores are exchangeable with that of a random
    trial of a new participant, so the ceil((n + 1) coverage)-th smallest of them is exactly valid (split conformal
    prediction). It depends on the draw, so the median over N_DRAWS draws is taken (Dunn, Wasserman and Ramdas,
    JASA 2023; 118: 2491-2502, repeated subsampling). What is proven for the median is that at most 2 (1 - coverage)
    of new trials lie above it. In simulations, (1 - coverage) or fewer do (tests/answering/test_calibration.py).
    None with too few participants: 9 for a coverage of .9.
    """
    who = np.unique(np.asarray(participants, dtype=str), return_inverse=True)[1]
    n = len(set(participants))
    rank = int(np.ceil((n + 1) * coverage - ROUNDING))
    if not 0 < rank <= n:
        return None
    by_participant = [np.asarray(scores, dtype=float)[who == i] for i in range(n)]
    rng = np.random.default_rng(0)
    draws = np.stack([rng.choice(of_one, N_DRAWS) for of_one in by_participant])
    return float(np.median(np.sort(draws, axis=0)[rank - 1]))


def conformal(
    scores: Sequence[float], participants: Sequence[str], coverage: float = COVERAGE
) -> float | None:
    """The threshold that the score of a new participant's trial stays within, with probability `coverage` or more.

    Hierarchical conformal prediction (Lee, Barber and Willett, 2023, arXiv:2306.06342). Each of n participants has
    weight 1 / (n + 1), split over their trials. The remaining 1 / (n + 1) belongs to the new participant, whose
    score may be anything, so it counts as lying above all others. The threshold is the lowest score at which the
    weights reach `coverage`. None if they never do: too few participants.
    """
    if not len(scores):
        return None
    n = len(set(participants))
    order = np.argsort(scores, kind="stable")
    # `trial_weights` sum to 1 over n participants; n / (n + 1) leaves the new participant's share.
    reached = np.cumsum(trial_weights(participants)[order]) * n / (n + 1)
    first = int(np.searchsorted(reached, coverage - ROUNDING))
    return float(np.asarray(scores)[order][first]) if first < len(order) else None


def trial_weights(participants: Sequence[str]) -> np.ndarray:
    """The weight of each trial: equal for participants, and for the trials of one. They sum to 1."""
    _, who, count = np.unique(np.asarray(participants, dtype=str), return_inverse=True, return_counts=True)
    return 1 / (len(count) * count[who])
