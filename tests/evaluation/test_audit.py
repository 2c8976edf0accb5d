"""The checks of an audit, on answers and movements without any model."""

import numpy as np
import pandas as pd
import pytest

from biomechgpt.evaluation.audit.coverage import resplit
from biomechgpt.evaluation.audit.ood import CORRUPTIONS, swap_legs
from biomechgpt.evaluation.audit.settings import CHECKS, AuditModelSettings, AuditSettings
from biomechgpt.motion.skeleton import INDEX, N_JOINTS
from biomechgpt.questions.tasks import ClassificationTask, RegressionTask

QUESTIONS = [f"Question {i}?" for i in range(8)]
AID = ClassificationTask(
    name="aid", annotation="aid", labels={"none": "no device", "cane": "a cane"}, templates=QUESTIONS
)
SPEED = RegressionTask(
    name="speed", annotation="speed", unit="m/s", decimals=2, plausible=(0, 3), templates=QUESTIONS
)


def numbers(people: int) -> pd.DataFrame:
    """Two trials of each participant, with intervals that are far too narrow."""
    rng = np.random.default_rng(0)
    truth = rng.normal(1, 0.3, 2 * people)
    return pd.DataFrame(
        {
            "participant": [f"p{i // 2}" for i in range(2 * people)],
            "value_true": truth,
            "low": truth + rng.normal(0, 0.1, 2 * people),
            "high": truth + rng.normal(0, 0.1, 2 * people) + 0.05,
            "value_predicted": truth + rng.normal(0, 0.1, 2 * people),
        }
    )


def labels(people: int) -> pd.DataFrame:
    """One trial of each participant; the model is overconfident."""
    rng = np.random.default_rng(1)
    truth = rng.choice(["none", "cane"], people)
    guess = np.where(rng.random(people) < 0.8, truth, np.where(truth == "none", "cane", "none"))
    return pd.DataFrame(
        {
            "participant": [f"p{i}" for i in range(people)],
            "label_true": truth,
            "labels": [[g, "cane" if g == "none" else "none"] for g in guess],
            "probabilities": [[0.95, 0.05]] * people,
            "temperature": 1.0,
        }
    )


@pytest.mark.parametrize(
    ("rows", "task"), [(numbers(60), SPEED), (labels(60), AID)], ids=["numbers", "labels"]
)
def test_recalibrated_sets_and_intervals_reach_the_target_coverage(rows, task):
    result = resplit(rows, task, 40)
    assert result["participants"] == 60
    assert result["guaranteed"] == 1
    assert 0.86 <= result["coverage"] <= 1


def test_with_too_few_participants_no_resplit_has_a_guarantee():
    result = resplit(numbers(6), SPEED, 5)
    assert (result["guaranteed"], result["coverage"], result["width"]) == (0, None, None)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_changes_a_movement_and_keeps_its_shape(name):
    angles = np.random.default_rng(0).normal(0, 0.2, (90, N_JOINTS))
    before = angles.copy()
    corrupted = CORRUPTIONS[name](angles, np.random.default_rng(1))
    assert corrupted.shape == angles.shape
    assert not np.allclose(corrupted, angles)
    np.testing.assert_array_equal(angles, before)


def test_swapping_the_legs_twice_restores_the_movement():
    rng = np.random.default_rng(0)
    angles = rng.normal(0, 0.2, (9, N_JOINTS))
    swapped = swap_legs(angles, rng)
    np.testing.assert_array_equal(swapped[:, INDEX["knee_angle_r"]], angles[:, INDEX["knee_angle_l"]])
    np.testing.assert_array_equal(swap_legs(swapped, rng), angles)


def test_the_settings_of_the_checks_leave_out_model_and_root():
    settings = AuditModelSettings(model="results/artifacts/model/f", root="elsewhere", trials=3)
    assert settings.model_dump() == AuditSettings(checks=list(CHECKS), trials=3).model_dump()
