"""The probabilities of all answers to one question, their mean, and quantiles of a number's distribution.

Pure functions of arrays. Knows nothing about models.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ROUNDING = 1e-9
"""Probability that rounding may take from a cumulative sum."""


@dataclass(frozen=True)
class Scores:
    """How probable each answer to a question is.

    probability: (A,) of each answer, given that the answer is one of them; sums to 1. For numbers, probabilities
        are conditional on valid continuations; numbers that were not expanded to the end share the probability of
        their prefix equally.
    valid_probability: of all answers together, for numbers of all valid first tokens. Low if the model would rather
        say something else.
    log_likelihood: mean log-likelihood of the tokens before the question, that is, of the movement.
    """

    probability: np.ndarray
    valid_probability: float
    log_likelihood: float = 0.0


def mean_scores(scores: Sequence[Scores]) -> Scores:
    """The mean of several scores of the same answers; its log-likelihood is the lowest of theirs."""
    return Scores(
        np.mean([s.probability for s in scores], axis=0),
        float(np.mean([s.valid_probability for s in scores])),
        min(s.log_likelihood for s in scores),
    )


def quantile(numbers: np.ndarray, probability: np.ndarray, share: float) -> float:
    """The smallest number up to which at least `share` of the probability lies.

    numbers: (A,) in rising order.
    probability: (A,), sums to 1.
    """
    return float(numbers[int(np.argmax(np.cumsum(probability) >= share - ROUNDING))])
