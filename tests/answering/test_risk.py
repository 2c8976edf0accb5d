"""Selective answering: the error rate among given answers stays below the limit, with the stated confidence."""

import numpy as np
import pytest
from scipy import stats

from biomechgpt.answering.calibration import TaskCalibration, fit_labels
from biomechgpt.answering.risk import LEVELS, RISK_CONFIDENCE, THRESHOLDS, evidence, fit_risk_thresholds

FITS = 200
# Where the guarantee holds exactly, so many of FITS fits or more fail with a probability of .001.
TOO_MANY = stats.binom.isf(0.001, FITS, 1 - RISK_CONFIDENCE) / FITS


def answers(rng, people, accuracy, trials=8, informative=True, spread=0.0):
    """(confidence, right, participants). accuracy: of all answers; spread: how far participants differ in it.

    Informative confidence is the probability that the answer is right; else it says nothing.
    """
    who = np.repeat([f"p{i}" for i in range(people)], trials)
    skill = np.repeat(rng.uniform(-spread, spread, people), trials)
    confidence = rng.beta(8 * accuracy, 8 * (1 - accuracy), people * trials)
    chance = np.clip((confidence if informative else accuracy) + skill, 0, 1)
    return confidence, (rng.random(people * trials) < chance).astype(float), who


def share_wrong(given, right, who):
    """The mean over participants with a given answer of their share of wrong ones."""
    number = np.unique(who, return_inverse=True)[1][given]
    shares = np.bincount(number, 1 - right[given]) / np.maximum(np.bincount(number), 1)
    return float(shares[np.bincount(number) > 0].mean())


@pytest.mark.parametrize(
    ("level", "people", "world"),
    [
        (0.2, 36, {"accuracy": 0.75, "informative": False}),
        (0.1, 60, {"accuracy": 0.88, "informative": False, "spread": 0.1}),
        (0.2, 60, {"accuracy": 0.75, "spread": 0.1}),
        (0.1, 80, {"accuracy": 0.85}),
    ],
    ids=["uninformative", "nearly good enough", "informative", "many people"],
)
def test_the_error_rate_exceeds_the_level_in_few_fits(level, people, world):
    rng = np.random.default_rng(0)
    confidence, right, who = answers(rng, 2000, **world)
    true_risk = {t: share_wrong(confidence >= t, right, who) for t in THRESHOLDS if (confidence >= t).any()}
    thresholds = [dict(fit_risk_thresholds(*answers(rng, people, **world))).get(level) for _ in range(FITS)]
    violated = np.mean([t is not None and true_risk.get(t, 0) > level for t in thresholds])
    assert violated <= TOO_MANY
    if world.get("informative", True):
        # The method is of use: most fits give answers.
        assert np.mean([t is not None for t in thresholds]) > 0.5


def test_evidence_against_a_mean_at_the_level_is_rarely_strong_whatever_the_losses_look_like():
    rng = np.random.default_rng(0)
    level, people = 0.1, 30
    worlds = {
        "all or nothing": lambda: rng.binomial(1, level, people),
        "spread": lambda: rng.beta(0.5, 4.5, people),
        "narrow": lambda: rng.beta(20, 180, people),
        "rare and large": lambda: np.where(rng.random(people) < 0.2, 0.5, 0.0),
    }
    for draw in worlds.values():
        values = np.array([evidence(draw(), level) for _ in range(2000)])
        assert np.mean(values >= 10) <= stats.binom.isf(0.001, 2000, 0.1) / 2000
        assert np.mean(values) <= 1.2


def test_few_participants_or_many_wrong_answers_show_no_low_error_rate():
    def lowest(people, right=1.0):
        names = [f"p{i}" for i in range(people) for _ in range(5)]
        return min(
            (level for level, _ in fit_risk_thresholds([0.95] * len(names), [right] * len(names), names)),
            default=None,
        )

    assert lowest(2) is None
    assert {n: lowest(n) for n in (6, 12, 20, 40, 80)} == {6: 0.4, 12: 0.25, 20: 0.15, 40: 0.075, 80: 0.05}
    # Forty trials of one participant are one participant.
    assert fit_risk_thresholds([0.95] * 40, [1.0] * 40, ["p"] * 40) == []
    assert lowest(200, right=0.0) is None


def test_a_higher_limit_never_gives_fewer_answers_and_an_answer_has_the_lowest_level_that_gives_it():
    rng = np.random.default_rng(3)
    for accuracy in (0.7, 0.8, 0.9):
        fitted = TaskCalibration(risk_thresholds=fit_risk_thresholds(*answers(rng, 60, accuracy)))
        levels, thresholds = zip(*fitted.risk_thresholds, strict=True)
        assert list(levels) == sorted(levels)
        assert list(thresholds) == sorted(thresholds, reverse=True)
        for level, threshold in fitted.risk_thresholds:
            assert fitted.selective_risk(threshold) <= level
            below = fitted.selective_risk(threshold - 0.001)
            assert below is None or below > level
    assert TaskCalibration().selective_risk(1.0) is None
    assert set(levels) <= set(LEVELS)


def test_the_temperature_which_the_same_participants_fitted_does_not_enter():
    """Answers with a probability of .95 of which .8 are right: calibrated they are below every tested threshold."""
    names = [f"p{i}" for i in range(200)]
    truth = ["b" if i % 5 == 0 else "a" for i in range(200)]
    fitted = fit_labels([{"a": 0.95, "b": 0.05}] * 200, truth, names)
    assert fitted.temperature > 1.5
    assert fitted.risk_thresholds
    assert fitted.selective_risk(0.95) == 0.3
