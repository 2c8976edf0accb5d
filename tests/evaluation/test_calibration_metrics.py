"""What is said of a model's confidence: errors of calibration, coverage by participant, risk against coverage."""

import json

import numpy as np
import pandas as pd
import pytest

from biomechgpt.answering.calibration import apply_temperature
from biomechgpt.evaluation.calibration_metrics import (
    ANSWERED_SHARES,
    calibration_scores,
    ece,
    reliability,
    risk_curve,
)
from biomechgpt.questions.tasks import ClassificationTask, RegressionTask

QUESTIONS = [f"Question {i}?" for i in range(8)]
AID = ClassificationTask(name="aid", annotation="aid", templates=QUESTIONS)
SPEED = RegressionTask(name="speed", annotation="speed", unit="m/s", decimals=2, plausible=(0, 3),
             templates=QUESTIONS)  # fmt: skip


def labelled(rows, temperature=1.0) -> pd.DataFrame:
    """rows: (participant, truth, {label: probability}, possible)."""
    return pd.DataFrame(
        [
            {"participant": who, "label_true": truth, "labels": list(p), "probabilities": list(p.values()),
             "prediction_set": possible, "temperature": temperature, "coverage_guaranteed": True}
            for who, truth, p, possible in rows
        ]
    )  # fmt: skip


def test_a_calibrated_model_has_no_error_and_one_that_is_too_sure_has_its_gap():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, 20_000)
    assert ece(confidence, (rng.random(20_000) < confidence).astype(float)) < 0.02
    assert ece(np.full(10, 0.95), np.array([1.0] * 7 + [0.0] * 3)) == pytest.approx(0.25)
    bins = reliability(np.array([0.05, 1.0, 0.95]), np.array([0.0, 1.0, 0.0]))
    assert [(b["n"], b["accuracy"]) for b in bins] == [(1, 0.0), (2, 0.5)]


def test_the_surest_answers_carry_the_least_risk():
    right = np.array([1, 1, 1, 1, 1, 1, 1, 0, 1, 0], dtype=float)
    found = risk_curve(np.linspace(1, 0.1, 10), right)
    assert len(found) == len(ANSWERED_SHARES)
    assert found[0] == 0
    assert found[-1] == pytest.approx(0.2)
    assert found[7] == pytest.approx(1 / 8)


def test_what_was_before_the_temperature_is_found_again():
    raw = np.array([0.8, 0.2])
    soft = dict(zip("ab", apply_temperature(raw, 2.0).tolist(), strict=True))
    found = calibration_scores(
        labelled([("p", "a", soft, ["a"]), ("q", "b", soft, ["a", "b"])], temperature=2.0), AID
    )
    assert found["bins_before"][0]["confidence"] == pytest.approx(0.8)
    assert found["nll_before"] == pytest.approx(-np.log([0.8, 0.2]).mean())
    assert found["brier_before"] == pytest.approx((2 * 0.2**2 + 2 * 0.8**2) / 2)
    assert found["nll"] < found["nll_before"]
    assert found["set_size"] == 1.5
    json.dumps(found, allow_nan=False)


def test_coverage_counts_participants_alike():
    sure = {"a": 0.9, "b": 0.1}
    rows = [("p", "a", sure, ["a"])] * 9 + [("q", "b", sure, ["a"])]
    found = calibration_scores(labelled(rows), AID, draws=200)
    assert found["coverage"] == 0.5
    assert found["coverage_by_label"] == {"a": 1.0, "b": 0.0}
    assert found["coverage_ci"] == [0.0, 1.0]
    assert calibration_scores(labelled(rows[:9]), AID)["coverage_ci"] is None


def test_a_label_that_the_model_does_not_know_is_never_right():
    found = calibration_scores(labelled([("p", "c", {"a": 1.0, "b": 0.0}, ["a"])]), AID)
    assert (found["coverage"], found["ece"], found["brier"]) == (0, 1, 2)


def test_an_interval_covers_its_ends():
    rows = pd.DataFrame(
        {"participant": [*"ppq"], "value_true": [1.0, 1.2, 2.0], "low": [0.9, 1.2, 1.0], "high": [1.0, 1.3, 1.9],
         "coverage_guaranteed": [True, True, False]}
    )  # fmt: skip
    found = calibration_scores(rows, SPEED)
    assert (found["coverage"], found["coverage_guaranteed"], found["participants"]) == (0.5, False, 2)
    assert found["width"] == pytest.approx(np.mean([0.1, 0.1, 0.9]))


def test_generated_answers_say_nothing_of_confidence():
    assert calibration_scores(pd.DataFrame({"participant": ["p"], "label_true": ["a"]}), AID) == {}
    assert calibration_scores(pd.DataFrame(), AID) == {}
