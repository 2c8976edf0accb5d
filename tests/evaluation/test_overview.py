"""The report's first screen: its sentences, its forest plot and its warnings are those of the metrics."""

import pandas as pd
import pytest
from test_evaluation import AID, SPEED, answers, report_of

from biomechgpt.evaluation import overview
from biomechgpt.questions.replies import task_title

PEOPLE = [f"p{i}" for i in range(8)]


def by_source(model, rival=None, guess=None, failed=None, participants=8):
    scores = {"model": {"f1_weighted": model, "f1_weighted_ci": [model - 0.1, model + 0.1], "n": 16,
                        "participants": participants, "failed": failed}}  # fmt: skip
    if rival is not None:
        scores["xgboost"] = {"f1_weighted": rival, "f1_weighted_ci": None}
    if guess is not None:
        scores["majority"] = {"f1_weighted": guess}
    return scores


METRICS = {
    "data": "synthetic",
    "tasks": {
        "activity": by_source(0.9, 0.95, 0.2),
        "tug_time": by_source(0.8, 0.8, 0.3),
        "falls_history": by_source(0.6, 0.5, 0.6, failed="not above majority (0.60)"),
    },
    "comparisons": [
        {"task": "activity", "against": "xgboost", "difference": -0.05, "p_holm": 0.01},
        {"task": "falls_history", "against": "xgboost", "difference": 0.1, "p_holm": None},
    ],
    "subgroups": [],
}
UNSEEN = {"other_cohorts": {"parts": [], "participants": [], "unchecked": False}, "stand_in": True}


def test_three_sentences_say_who_was_asked_how_it_went_and_what_it_is_not_usable_for():
    first, second, third = overview.sentences(METRICS, UNSEEN, 38)
    assert "On 38 people who were not used in training" in first
    assert "answered 48 questions of 3 kinds about synthetic movements." in first
    assert "better than guessing in 2 of 3 tasks" in second
    assert "in 1 of 3 the best of the simpler methods" in second  # equal scores are no lead
    assert "1 of these differences is clear" in second
    assert "not usable for falls history (no better than always giving the commonest answer)" in third
    assert "not for decisions about patients" in third


@pytest.mark.parametrize(
    "origin", [None, {"unchecked": True, "participants": []}, {"unchecked": False, "participants": ["a"]}]
)
def test_people_who_may_have_been_seen_are_not_called_unseen(origin):
    assert "not used in training" not in overview.sentences(METRICS, {"other_cohorts": origin}, 3)[0]


def test_the_forest_plot_has_model_best_simpler_method_and_best_guess_of_each_task():
    rows = overview.forest(METRICS)
    assert [row["title"] for row in rows] == ["Activity", "TUG time", "Falls history"]
    assert [line["css"] for line in rows[0]["lines"]] == ["model", "rival", "guess"]
    assert rows[0]["lines"][0]["text"] == "0.90 (0.80 to 1.00)"
    assert rows[0]["scale"] == (0.0, 1.0)


def test_a_negative_score_widens_the_scale():
    row = overview.row("a", "r", [overview.line("Model", "model", -0.4, None)])
    assert row["scale"] == (-0.4, 1.0)


def test_what_the_model_is_not_for_names_failed_and_small_tasks_and_the_stand_in():
    few = {**METRICS, "tasks": {**METRICS["tasks"], "cadence": by_source(0.9, participants=3)}}
    text = " ".join(overview.not_for(few, UNSEEN, {"activity": "says nothing"}))
    for words in ("medical device", "synthetic", "stand-in", "Falls history: it was no better", "Cadence: 3 test",
                  "Ruling out a label or a value in activity"):  # fmt: skip
        assert words in text


def test_sets_with_most_labels_and_intervals_as_wide_as_the_cohort_get_a_comment():
    rows = pd.DataFrame(
        {
            "task": ["a"] * 4 + ["b"] * 4, "source": "model", "labels": [["x", "y", "z", "w"]] * 4 + [None] * 4,
            "value_true": [None] * 4 + [1.0, 1.1, 0.9, 1.2],
        }
    )  # fmt: skip
    metrics = {
        "tasks": {
            "a": {"model": {"calibration": {"set_size": 3.4}}},
            "b": {"model": {"calibration": {"width": 1.0}}},
        }
    }
    comments = overview.set_comments(metrics, rows)
    assert "3.4 of 4 labels" in comments["a"]
    assert "standard deviations" in comments["b"]
    metrics["tasks"]["a"]["model"]["calibration"]["set_size"] = 1.2
    metrics["tasks"]["b"]["model"]["calibration"]["width"] = 0.1
    assert overview.set_comments(metrics, rows) == {}


def test_every_figure_of_a_report_has_a_text_and_the_glossary_explains_its_abbreviations(tmp_path):
    labels = answers(AID, ["none", "cane"] * 8, ["no device", "a cane"] * 8, PEOPLE * 2)
    numbers = answers(
        SPEED, [1.0 + 0.1 * i for i in range(8)], [f"{1 + 0.1 * i:.2f} m/s" for i in range(8)], PEOPLE
    )
    page, _ = report_of(tmp_path, pd.concat([labels, numbers]), {"rmse_deg_by_joint": {"knee_angle_r": 3.0}})
    drawn = page.split('<div class="drawn" role="img" aria-label="')[1:]
    assert len(drawn) == page.count("<svg") == 5
    assert all(len(text.split('"')[0]) > 30 for text in drawn)
    assert page.index("In short") < page.index("Results beside baselines")
    assert "Bland-Altman" in page
    for term in ("LLPU", "SCI", "TBI", "FGA", "ICC", "ECE"):
        assert f"<dt>{term}<small>" in page
    assert "Speed, m/s" in page


@pytest.mark.parametrize(("seconds", "text"), [(40, "40 s"), (2168, "36 min"), (7500, "2 h 5 min")])
def test_durations_are_written_for_people(seconds, text):
    assert overview.duration(seconds) == text


def test_names_of_tasks_keep_abbreviations():
    assert overview.title("tug_time") == "TUG time"
    assert task_title("tug_time") == "TUG time"
    assert task_title("falls_history") == "falls history"
    assert overview.full_name("TUG time") == "TUG: timed up and go test"
