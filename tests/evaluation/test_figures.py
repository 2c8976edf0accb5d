"""The report's figures show the numbers of its tables."""

import numpy as np
import pandas as pd
import pytest

from biomechgpt.evaluation import figures
from biomechgpt.evaluation.metrics import compute_scores
from biomechgpt.questions.tasks import load_tasks


def rows_of(people, trials):
    rng = np.random.default_rng(0)
    bias = np.repeat(rng.normal(0, 0.1, people), trials)
    x = rng.normal(1, 0.2, people * trials)
    return pd.DataFrame(
        {
            "source": "model",
            "kind": "regression",
            "participant": np.repeat([f"p{k:03d}" for k in range(people)], trials),
            "value_true": x,
            "value_predicted": np.where(rng.random(len(x)) < 0.05, np.nan, x + bias),
        }
    )


@pytest.mark.parametrize("people", [12, 200])
def test_a_bland_altman_plot_has_the_limits_of_the_table(people):
    rows = rows_of(people, 10)
    task = load_tasks(["configs/tasks"])["walking_speed"]
    answered = rows[rows["value_predicted"].notna()]
    scores = compute_scores(
        "regression",
        answered["value_true"].to_numpy(),
        answered["value_predicted"].to_numpy(),
        answered["participant"].tolist(),
        draws=0,
    )
    low, high = scores["limits_low"], scores["limits_high"]
    assert f"limits of agreement {low:.2g} to {high:.2g} m/s." in figures.task_text(task, rows)
    drawn = [line.get_ydata()[0] for line in figures.task_figure(task, rows).axes[1].lines]
    assert low == pytest.approx(drawn[-2])
    assert high == pytest.approx(drawn[-1])


def test_one_participant_has_no_limits():
    task = load_tasks(["configs/tasks"])["walking_speed"]
    text = figures.task_text(task, rows_of(1, 10))
    assert "nan" not in text
    assert "limits" not in text
