"""Selective answering with a guarantee: which answers can be given if at most some share of them may be wrong.

Learn-then-Test (Angelopoulos, Bates, Candes, Jordan and Lei, 2021, arXiv:2110.01052). Each threshold of confidence
is a hypothesis: "of the answers above it, more than `level` are wrong". A threshold is used only if its hypothesis
is rejected, and the hypotheses are tested in an order that was fixed beforehand, up to the first that is not
rejected (fixed-sequence testing). So the chance of a wrong rejection among all of them stays at most 1 -
RISK_CONFIDENCE.

Participants count, not trials: the loss of a participant is the share of wrong answers among the answers that this
participant is given. A test of binary losses (Clopper-Pearson) would have to call a participant wrong for one wrong
trial of twelve. The losses lie in [0, 1] and mostly near 0, so the test bets on their mean (Waudby-Smith and
Ramdas, J R Stat Soc B 2024; 86: 1-27), which gains most from a small spread. Pure functions of arrays.
"""

from collections.abc import Sequence

import numpy as np

RISK_CONFIDENCE = 0.9
"""Probability, over the draw of the validation participants, that a guarantee about the error rate holds."""
LEVELS = (0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.125, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
"""Error rates that thresholds are fitted for. A limit between two of them counts as the lower one."""
THRESHOLDS = (0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5, 0.4, 0.3, 0.0)
"""Thresholds of confidence in the order of the tests. They are fixed: ones from the data would be a selection.

The first one is low enough that most participants have an answer above it. In simulated tables of answers, a start
there gave more answers than a start at .95 or .99, and than several starts that share the error probability. A
task whose answers never reach it gets no guarantee.
"""
BETS = ((1.0, 0.4), (0.7, 0.3), (0.4, 0.2), (0.2, 0.1))
"""(Size of a bet as a share of the largest one, share of the wealth that is bet so); the shares sum to 1."""


def evidence(losses: np.ndarray, level: float) -> float:
    """Evidence that the mean loss is at most `level`: an e-value, whose inverse is a valid p value.

    losses: of independent participants, in [0, 1].
    If the true mean is above `level`, each factor below has an expectation of at most 1, so their product exceeds
    1 / p with a probability of at most p (Markov's inequality). The bets are fixed, so the order of participants
    does not matter.
    """
    gains = (level - losses) / (1 - level)  # between -1 (loss 1) and level / (1 - level) (loss 0)
    return float(sum(share * np.prod(1 + size * gains) for size, share in BETS))


def fit_risk_thresholds(
    confidence: Sequence[float], right: Sequence[float], participants: Sequence[str]
) -> list[tuple[float, float]]:
    """[(level, threshold)]: with answers of at least this confidence given, at most `level` of them are wrong.

    The guarantee, for each level by itself: with probability RISK_CONFIDENCE over the draw of the validation
    participants, the expected share of wrong answers among the answers that a new participant is given is at most
    `level`. The expectation is over participants who are given an answer, each counting once. Participants have to
    be a random sample of those who will be asked about; recordings of one participant may depend on each other.
    A level at which no threshold passes is left out: with 12 participants, or if too many answers are wrong, no low
    level can be shown.
    confidence: of each trial's answer. It must not have been fitted on these participants.
    """
    who = np.unique(np.asarray(participants, dtype=str), return_inverse=True)[1]
    wrong = 1 - np.asarray(right, dtype=float)
    losses = [_losses(np.asarray(confidence, dtype=float) >= t, wrong, who) for t in THRESHOLDS]
    fitted = ((level, _lowest_threshold(losses, level)) for level in LEVELS)
    return [(level, threshold) for level, threshold in fitted if threshold is not None]


def _losses(given: np.ndarray, wrong: np.ndarray, who: np.ndarray) -> np.ndarray:
    """The share of wrong answers among the given ones of each participant who is given any."""
    n_given = np.bincount(who[given])
    n_wrong = np.bincount(who[given], wrong[given])
    return np.asarray(n_wrong[n_given > 0] / n_given[n_given > 0])


def _lowest_threshold(losses: Sequence[np.ndarray], level: float) -> float | None:
    """The lowest threshold before the first hypothesis that is not rejected; None if the first one is not.

    losses: with each of `THRESHOLDS`. The sequence stops at the first failure, so each test has the whole error
    probability: a wrong rejection needs one at the first true hypothesis.
    """
    passed = None
    for threshold, of_threshold in zip(THRESHOLDS, losses, strict=True):
        if evidence(of_threshold, level) * (1 - RISK_CONFIDENCE) < 1:
            break
        passed = threshold
    return passed
