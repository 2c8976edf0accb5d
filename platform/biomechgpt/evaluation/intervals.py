"""Confidence intervals and p values by participant. Pure functions of arrays.

Chosen by their coverage with few participants, see benchmarks/studies/interval_coverage.py: the percentile and the
BCa bootstrap of 5 to 11 participants hold the truth too rarely.
"""

import math
from collections.abc import Callable

import numpy as np
from scipy import stats

MIN_PARTICIPANTS = 6
"""Fewest participants for a p value. With n participants, sign flips give no p below 2 / 2^n: with five, .0625."""
FLIPS = 9999
"""Sign flips, or permutations, that are drawn where there are more; up to 13 participants all flips are tried."""
_EDGE = 0.005
# Values nearer to a bound than this are taken as this near: the transformation of the bound itself is infinite.


def t_interval(
    value: float, left_out: np.ndarray, bounds: tuple[float, float] | None = None
) -> list[float] | None:
    """[low, high] of 95 %: the t interval of the jackknife (Efron and Stein, Ann Stat 1981; 9: 586-596).

    left_out: the value without each participant; NaN if undefined.
    bounds: the possible values. The interval is then made on the logit scale, for correlations Fisher's z.
    None with fewer than two participants, if a value is undefined, and if all participants are equal: then their
    spread cannot be estimated.
    """
    n = len(left_out)
    if n < 2 or not np.isfinite(left_out).all():
        return None
    forward, back = _transformation(bounds)
    moved, centre = forward(left_out), float(forward(np.asarray(value)))
    variance = (n - 1) / n * float(((moved - moved.mean()) ** 2).sum())
    if variance <= 1e-24 * max(centre**2, 1e-12):
        return None
    half = float(stats.t.ppf(0.975, n - 1)) * math.sqrt(variance)
    low, high = float(back(np.asarray(centre - half))), float(back(np.asarray(centre + half)))
    return [min(low, value), max(high, value)]


def _transformation(
    bounds: tuple[float, float] | None,
) -> tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray]]:
    """To a scale without bounds, and back."""
    if bounds is None:
        return (lambda value: value), (lambda moved: moved)
    low, span = bounds[0], bounds[1] - bounds[0]

    def forward(value: np.ndarray) -> np.ndarray:
        share = np.clip((value - low) / span, _EDGE, 1 - _EDGE)
        return np.log(share / (1 - share))

    def back(moved: np.ndarray) -> np.ndarray:
        return np.asarray(low + span / (1 + np.exp(-moved)))

    return forward, back


def sign_flip_p(
    difference: Callable[[np.ndarray], np.ndarray], n: int, draws: int, seed: int
) -> float | None:
    """Two-sided p of a paired difference: both sides are exchanged for each participant at random.

    All 2^n exchanges if these are at most `FLIPS`; then p is exact and at least 2 / 2^n. Otherwise min(draws,
    FLIPS) of them. None with fewer than `MIN_PARTICIPANTS`, and if the difference is undefined for some exchange.
    difference: of the exchanges (..., n): 1 where a participant's sides are exchanged, else 0.
    """
    if n < MIN_PARTICIPANTS or draws < 1:
        return None
    number = np.arange(n)

    def statistic(ours: np.ndarray, theirs: np.ndarray, axis: int) -> np.ndarray:
        del theirs
        exchanged = (np.moveaxis(np.atleast_2d(ours), axis, -1) >= n).astype(float)
        values = difference(exchanged.reshape(-1, n)).reshape(exchanged.shape[:-1])
        return values if np.ndim(ours) > 1 else values[0]

    result = stats.permutation_test(
        (number, number + n), statistic, permutation_type="samples", vectorized=True, batch=2000,
        n_resamples=FLIPS if 2**n <= FLIPS else min(draws, FLIPS), rng=np.random.default_rng(seed),
    )  # fmt: skip
    return float(result.pvalue) if np.isfinite(result.null_distribution).all() else None


def p_of_correlation(x: np.ndarray, y: np.ndarray, who: np.ndarray) -> float:
    """Two-sided p of the correlation of participants' means, by permutation of participants.

    Trials of one participant are no independent pairs. What differs between the trials of a participant does not
    enter. NaN with fewer than `MIN_PARTICIPANTS`, and if either side is constant.
    who: the participant's number of each pair.
    """
    count = np.bincount(who)
    means = [np.bincount(who, values)[count > 0] / count[count > 0] for values in (x, y)]
    if len(means[0]) < MIN_PARTICIPANTS or any(np.ptp(side) < 1e-12 for side in means):
        return math.nan
    # The correlation of permuted pairs differs from others only in the sum of products of the centred means.
    a, b = (side - side.mean() for side in means)
    draws = max(min(FLIPS, 2_000_000 // len(a)), 999)  # bounds memory with many participants
    permuted = np.random.default_rng(0).permuted(np.tile(b, (draws, 1)), axis=1)
    extreme = np.abs(permuted @ a) >= abs(a @ b) * (1 - 1e-12)
    # The observed pairing is one of the permutations, so p is never 0.
    return float((extreme.sum() + 1) / (draws + 1))
