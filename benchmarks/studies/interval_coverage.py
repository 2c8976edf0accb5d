"""How often 95 % intervals of a score hold the population's score, by number of participants. No model, no cohort.

    python benchmarks/studies/interval_coverage.py [--repetitions 400]

Participants differ in how well they are answered, and have a different number of trials each. Compared: the
percentile and the BCa bootstrap of whole participants, and t intervals from leaving one participant out
(jackknife), without and with the Fisher or logit transformation. The last line is JSON.
"""

import argparse
import json
import warnings
from collections.abc import Callable

import numpy as np
from scipy import stats

DRAWS = 500
Sample = tuple[np.ndarray, np.ndarray, np.ndarray]


def numbers(rng: np.random.Generator, n: int) -> Sample:
    """True and predicted numbers (r about .85), and the participant of each trial."""
    who = np.repeat(np.arange(n), rng.integers(2, 9, n))
    person = rng.normal(size=n)
    x = person[who] + 0.4 * rng.normal(size=len(who))
    y = 0.8 * x + 0.4 * rng.normal(size=n)[who] + 0.3 * rng.normal(size=len(who))
    return x, y, who


def labels(rng: np.random.Generator, n: int) -> Sample:
    """True and predicted labels (about .8 right), and the participant of each trial."""
    who = np.repeat(np.arange(n), rng.integers(2, 9, n))
    skill = rng.beta(8, 2, n)[who]
    true = rng.choice(3, len(who), p=[0.5, 0.3, 0.2])
    return true, np.where(rng.random(len(who)) < skill, true, rng.choice(3, len(who))), who


def value(kind: str, sample: Sample) -> float:
    """The main score of a sample."""
    true, predicted, _ = sample
    if kind == "numbers":
        if len(true) < 3 or np.ptp(true) == 0 or np.ptp(predicted) == 0:
            return np.nan
        return float(np.corrcoef(true, predicted)[0, 1])
    confusion = np.zeros((3, 3))
    np.add.at(confusion, (true, predicted), 1)
    support = confusion.sum(axis=1)
    f1 = 2 * np.diag(confusion) / np.maximum(support + confusion.sum(axis=0), 1)
    return float((f1 * support).sum() / support.sum())


def rows_of(sample: Sample, participants: np.ndarray) -> Sample:
    """The rows of these participants, repeated as often as they are named."""
    rows = np.concatenate([np.flatnonzero(sample[2] == p) for p in participants])
    return sample[0][rows], sample[1][rows], sample[2][rows]


def intervals(kind: str, sample: Sample, rng: np.random.Generator) -> dict[str, tuple[float, float]]:
    """{method: its interval}."""
    n = sample[2].max() + 1
    estimate = value(kind, sample)
    everyone = np.arange(n)
    drawn = np.array([value(kind, rows_of(sample, rng.choice(n, n))) for _ in range(DRAWS)])
    drawn = drawn[np.isfinite(drawn)]
    left_out = np.array([value(kind, rows_of(sample, everyone[everyone != i])) for i in everyone])
    shift = stats.norm.ppf(np.clip((drawn < estimate).mean(), 1 / DRAWS, 1 - 1 / DRAWS))
    deviation = left_out.mean() - left_out
    acceleration = (deviation**3).sum() / (6 * max((deviation**2).sum(), 1e-30) ** 1.5)
    z = shift + stats.norm.ppf([0.025, 0.975])
    bca = np.quantile(drawn, stats.norm.cdf(shift + z / (1 - acceleration * z)))
    forward, back = (np.arctanh, np.tanh) if kind == "numbers" else (_logit, _expit)
    return {
        "percentile": tuple(np.quantile(drawn, [0.025, 0.975])),
        "BCa": tuple(bca),
        "jackknife t": _jackknife(estimate, left_out, lambda v: v, lambda v: v),
        "jackknife t, transformed": _jackknife(estimate, left_out, forward, back),
    }


def _logit(p: np.ndarray) -> np.ndarray:
    clipped = np.clip(p, 0.005, 0.995)
    return np.log(clipped / (1 - clipped))


def _expit(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _jackknife(
    estimate: float, left_out: np.ndarray, forward: Callable, back: Callable
) -> tuple[float, float]:
    n = len(left_out)
    moved = forward(left_out)
    error = np.sqrt((n - 1) / n * ((moved - moved.mean()) ** 2).sum())
    half = stats.t.ppf(0.975, n - 1) * error
    centre = forward(np.asarray(estimate))
    return float(back(centre - half)), float(back(centre + half))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repetitions", type=int, default=400)
    repetitions = parser.parse_args().repetitions
    rng = np.random.default_rng(0)
    found: dict[str, dict[str, float]] = {}
    for kind, make in (("numbers", numbers), ("labels", labels)):
        # The population's score: of so many participants that its own error does not matter.
        truth = value(kind, make(rng, 200_000))
        for n in (3, 5, 8, 11, 20, 40):
            inside: dict[str, list[bool]] = {}
            width: dict[str, list[float]] = {}
            for _ in range(repetitions):
                sample = make(rng, n)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    for method, (low, high) in intervals(kind, sample, rng).items():
                        inside.setdefault(method, []).append(low <= truth <= high)
                        width.setdefault(method, []).append(high - low)
            found[f"{kind} {n}"] = {method: round(float(np.mean(hits)), 3) for method, hits in inside.items()}
            cells = "  ".join(
                f"{m} {np.mean(h):.3f} (width {np.nanmean(width[m]):.2f})" for m, h in inside.items()
            )
            print(f"{kind}, {n} participants: {cells}", flush=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
