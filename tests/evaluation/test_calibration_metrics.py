"""Calibration metrics: calibration errors, coverage by participant, error rate against share answered."""

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
    """An answers table. rows: (participant, true label, {label: probability}, prediction set)."""
    return pd.DataFrame(
        [
            {"participant": participant, "label_true": truth, "labels": list(p), "probabilities": list(p.values()),
             "prediction_set": prediction_set, "temperature": temperature, "coverage_guaranteed": True}
            for participant, truth, p, prediction_set in rows
        ]
    )  # fmt: skip


def test_ece_is_near_zero_for_a_calibrated_model_and_the_gap_of_an_overconfident_one():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, 20_000)
    assert ece(confidence, (rng.random(20_000) < confidence).astype(float)) < 0.02
    assert ece(np.full(10, 0.95), np.array([1.0] * 7 + [0.0] * 3)) == pytest.approx(0.25)
    bins = reliability(np.array([0.05, 1.0, 0.95]), np.array([0.0, 1.0, 0.0]))
    assert [(b["n"], b["accuracy"]) for b in bins] == [(1, 0.0), (2, 0.5)]


def test_the_risk_curve_is_the_error_rate_of_the_most_confident_answers():
    correct = np.array([1, 1, 1, 1, 1, 1, 1, 0, 1, 0], dtype=float)
    curve = risk_curve(np.linspace(1, 0.1, 10), correct)
    assert len(curve) == len(ANSWERED_SHARES)
    assert curve[0] == 0
    assert curve[-1] == pytest.approx(0.2)
    assert curve[7] == pytest.approx(1 / 8)


def test_metrics_before_calibration_are_those_at_temperature_one():
    uncalibrated = np.array([0.8, 0.2])
    calibrated = dict(zip("ab", apply_temperature(uncalibrated, 2.0).tolist(), strict=True))
    scores = calibration_scores(
        labelled([("p", "a", calibrated, ["a"]), ("q", "b", calibrated, ["a", "b"])], temperature=2.0), AID
    )
    assert scores["bins_before"][0]["confidence"] == pytest.approx(0.8)
    assert scores["nll_before"] == pytest.approx(-np.log([0.8, 0.2]).mean())
    assert scores["brier_before"] == pytest.approx((2 * 0.2**2 + 2 * 0.8**2) / 2)
    assert scores["nll"] < scores["nll_before"]
    assert scores["set_size"] == 1.5
    json.dumps(scores, allow_nan=False)


def test_each_participant_counts_once_in_the_coverage():
    sure = {"a": 0.9, "b": 0.1}
    rows = [("p", "a", sure, ["a"])] * 9 + [("q", "b", sure, ["a"])]
    scores = calibration_scores(labelled(rows), AID, draws=200)
    assert scores["coverage"] == 0.5
    assert scores["coverage_by_label"] == {"a": 1.0, "b": 0.0}
    assert scores["coverage_ci"] == pytest.approx([0.0, 1.0], abs=1e-9)
    assert calibration_scores(labelled(rows[:9]), AID)["coverage_ci"] is None


def test_a_true_label_that_the_model_does_not_know_counts_as_wrong():
    scores = calibration_scores(labelled([("p", "c", {"a": 1.0, "b": 0.0}, ["a"])]), AID)
    assert (scores["coverage"], scores["ece"], scores["brier"]) == (0, 1, 2)


def test_an_interval_contains_its_ends():
    rows = pd.DataFrame(
        {"participant": [*"ppq"], "value_true": [1.0, 1.2, 2.0], "low": [0.9, 1.2, 1.0], "high": [1.0, 1.3, 1.9],
         "coverage_guaranteed": [True, True, False]}
    )  # fmt: skip
    scores = calibration_scores(rows, SPEED)
    assert (scores["coverage"], scores["coverage_guaranteed"], scores["participants"]) == (0.5, False, 2)
    assert scores["width"] == pytest.approx(np.mean([0.1, 0.1, 0.9]))


def test_answers_without_probabilities_have_no_calibration_metrics():
    assert calibration_scores(pd.DataFrame({"participant": ["p"], "label_true": ["a"]}), AID) == {}
    assert calibration_scores(pd.DataFrame(), AID) == {}
