"""One settings file trains on recordings and simulated people together."""

import numpy as np
import pytest

from biomechgpt.cohort import CohortSettings
from biomechgpt.core import settings
from biomechgpt.core.settings import InputError
from biomechgpt.experiment.settings import PipelineSettings
from biomechgpt.tokenizer.settings import TokenizerSettings
from biomechgpt.tokenizer.training_task import TokenizerTask
from conftest import ROOT


def test_the_shipped_settings_are_valid():
    experiment = settings.load(PipelineSettings, ROOT / "configs/experiments/real_and_simulated.yaml", [])
    assert experiment.cohort.add_simulated
    assert experiment.tokenizer.recorded_share == 0.3
    assert experiment.cohort.readers.missing_joints == "neutral"


def test_simulated_people_are_added_to_recordings_alone():
    with pytest.raises(InputError, match="expected recordings as well"):
        settings.validate(CohortSettings, {"add_simulated": True}, "test")


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_share_of_recorded_windows_is_as_set(share):
    task = TokenizerTask.__new__(TokenizerTask)
    task.settings = settings.load(
        PipelineSettings, ROOT / "configs/experiments/real_and_simulated.yaml", []
    ).tokenizer.model_copy(update={"recorded_share": share, "joint_dropout": 0.0})
    # One recorded trial of 100 frames, nine simulated ones of 1000.
    task.recorded = np.array([True] + [False] * 9)
    task.activities = np.array(["walk"] * 10)
    task.ends = np.cumsum([100] + [1000] * 9)
    starts = [
        end - n + np.arange(n - 63) for end, n in zip(task.ends, np.diff(task.ends, prepend=0), strict=True)
    ]
    windows = task._draw_windows(starts, (100, 64), np.random.default_rng(0))
    assert (windows < 100).mean() == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize(("balance", "squats"), [(0.0, 0.1), (1.0, 0.5), (0.5, 0.25)])
def test_windows_of_rare_activities_are_drawn_as_often_as_set(balance, squats):
    task = TokenizerTask.__new__(TokenizerTask)
    task.settings = TokenizerSettings(activity_balance=balance)
    task.recorded = np.zeros(10, bool)
    task.activities = np.array(["squat", *["walk"] * 9])
    starts = [1000 * i + np.arange(900) for i in range(10)]
    windows = task._draw_windows(starts, (200, 64), np.random.default_rng(0))
    assert (windows < 1000).mean() == pytest.approx(squats, abs=0.02)
    assert set(np.unique(windows // 1000)) == set(range(10))
