"""Conformal thresholds in which each participant counts once.

The trials of one participant are not independent (hierarchical conformal prediction: Lee, Barber and Willett, 2023,
arXiv:2306.06342). Pure functions of arrays.
"""

from collections.abc import Sequence

import numpy as np

COVERAGE = 0.9
"""Probability that a prediction set or an interval holds the truth."""

ROUNDING = 1e-9
"""Scores are compared with thresholds that were such scores themselves: rounding must not decide."""


def conformal(
    scores: Sequence[float], participants: Sequence[str], coverage: float = COVERAGE
) -> float | None:
    """The threshold that the score of a new participant's trial stays within, with probability `coverage` or more.

    Each of n participants has weight 1 / (n + 1), split over their trials. The remaining 1 / (n + 1) belongs to the
    new participant, whose score may be anything, so it counts as lying above all others. The threshold is the
    lowest score at which the weights reach `coverage`. None if they never do: too few participants.
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
