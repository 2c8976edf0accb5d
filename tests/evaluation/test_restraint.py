"""How often a model answers where it should not: from a small table of answers."""

import pandas as pd

from biomechgpt.evaluation.report import render
from biomechgpt.evaluation.restraint import restraint

LIKE = {"checked": True, "unlike": False, "participants": 20, "fitted_on": "validation"}


def row(task, trial, status, applies=True, unlike=LIKE):
    return {
        "task": task, "trial": trial, "participant": trial[0], "other": None, "status": status,
        "applies_true": applies, "unlike": unlike,
    }  # fmt: skip


TABLE = pd.DataFrame(
    [
        row("tug_time", "a1", "answered"),
        row("tug_time", "a2", "does_not_apply"),
        row("tug_time", "b1", "does_not_apply", applies=False),
        row("tug_time", "b2", "does_not_apply", applies=False),
        row("tug_time", "c1", "answered", applies=False),
        row("tug_time", "c2", "unlike", applies=False, unlike=LIKE | {"unlike": True}),
        row("activity", "a1", "answered"),
    ]
)


def test_the_share_of_questions_that_are_answered_anyway():
    found = restraint(TABLE)
    assert found["tasks"]["tug_time"] == {
        "inapplicable": 4, "inapplicable_participants": 2, "answered_anyway": 0.25,
        "applicable": 2, "withheld": 0.5,
    }  # fmt: skip
    assert found["tasks"]["activity"]["answered_anyway"] is None
    assert found["unlike"] == {
        "movements": 6, "participants": 20, "fitted_on": "validation", "checked": True, "refused": 0.1667,
    }  # fmt: skip


def test_generated_answers_have_no_status():
    assert restraint(TABLE.drop(columns="status")) == {"tasks": {}, "unlike": {}}


def test_the_page_shows_both_and_says_if_nothing_was_checked():
    page = render("restraint.html.j2", restraint=restraint(TABLE))
    assert "<td>25.0 %" in page
    assert "refused 16.7 % of 6 test movements" in page.replace("\n", " ")
    unchecked = TABLE.assign(unlike=[LIKE | {"checked": False}] * len(TABLE))
    assert "did not run" in render("restraint.html.j2", restraint=restraint(unchecked))
