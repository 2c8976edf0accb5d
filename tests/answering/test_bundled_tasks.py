"""Which tasks a bundle has: those it was trained on, and measured quantities that no answer shows already."""

import pytest

from biomechgpt.answering.bundle import bundled_tasks
from biomechgpt.core.settings import InputError
from biomechgpt.questions.tasks import load_tasks
from conftest import ROOT

LEARNED = load_tasks(ROOT / "configs/tasks")
MEASURED = load_tasks(ROOT / "configs/tasks_measured")
ALL = LEARNED | MEASURED


def names(*trained):
    return {task.name for task in bundled_tasks([LEARNED[t].training_fields() for t in trained], ALL, "here")}


def test_a_quantity_that_a_trained_task_shows_is_not_a_task_of_its_own():
    assert names("activity", "walking_speed") == {"activity", "walking_speed", *MEASURED} - {"measured_speed"}
    beside = {"measured_speed", "measured_cadence", "measured_tug_time", "measured_fsst_time"}
    assert names(*LEARNED) == {*ALL} - beside
    assert names("activity") == {"activity", *MEASURED}


def test_a_bundle_without_measured_tasks_has_those_it_was_trained_on():
    assert [task.name for task in bundled_tasks([LEARNED["cadence"].training_fields()], LEARNED, "here")] == [
        "cadence"
    ]


def test_a_trained_task_that_is_missing_or_differs_is_an_error():
    fields = LEARNED["cadence"].training_fields()
    with pytest.raises(InputError, match="no such task"):
        bundled_tasks([fields], MEASURED, "here")
    with pytest.raises(InputError, match="another definition"):
        bundled_tasks([fields | {"decimals": 2}], ALL, "here")
