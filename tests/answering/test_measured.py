"""Answers by kinematics: their words, what they rest on, and the measured value beside a model's answer."""

import pytest
import simulated

from biomechgpt.answering import measured
from biomechgpt.answering.answer import Answer
from biomechgpt.motion.quantities import QUANTITIES, Person, movement
from biomechgpt.questions.tasks import load_tasks
from conftest import ROOT

MEASURED = load_tasks(ROOT / "configs/tasks_measured")
LEARNED = load_tasks([ROOT / "configs/tasks", ROOT / "configs/tasks_extra"])


def analysis_of(trial, person=None, frames=slice(None)):
    return measured.analyse(
        movement(trial.angles_rad[frames], trial.pelvis[frames], simulated.RATE, person=person)
    )


@pytest.fixture(scope="module")
def walk():
    return analysis_of(simulated.annotated("walking_speed")[0], Person(72, "female"))


@pytest.fixture(scope="module")
def tug():
    return analysis_of(simulated.annotated("tug_time")[0])


def test_every_measured_task_is_answered_or_says_why(walk, tug):
    for analysis in (walk, tug):
        assert set(analysis) == set(QUANTITIES)
        for task in MEASURED.values():
            found = measured.answer(task, analysis)
            values = [value.value for value in found.measured if value.value is not None]
            if not values:
                assert found.status == "does_not_apply"
                assert found.text == found.reason
                assert found.text.startswith("Cannot be measured: ")
                continue
            assert found.status == "answered"
            for value in values:
                assert f"{value:.{task.decimals}f} {task.unit}".rstrip() in found.text


def test_an_answer_states_value_norm_steps_and_place(walk):
    (speed,) = walk["speed"]
    text = measured.answer(MEASURED["measured_speed"], walk).text
    place = f"({speed.steps} steps, {speed.begin_s:.1f} to {speed.end_s:.1f} s)"
    assert text.startswith(f"Walking speed: {speed.value:.2f} m/s {place}.")
    assert "Healthy women of 72 years: 1.13 m/s (SD 0.21)." in text
    assert speed.norm.source
    step = measured.answer(MEASURED["step_length"], walk).text
    assert "right 0." in step
    assert "; left 0." in step
    assert step.count("Healthy women") == 1


def test_one_step_is_called_one_step():
    trial = simulated.annotated("walking_speed")[1]
    frames = round(1.3 * simulated.RATE)
    texts = [
        measured.answer(MEASURED["measured_cadence"], analysis_of(trial, frames=slice(at, at + frames))).text
        for at in range(0, len(trial.angles_rad) - frames, 15)
    ]
    assert any("(1 step, " in text for text in texts)


def test_a_test_that_was_not_recorded_has_a_reason_and_no_value(walk):
    found = measured.answer(MEASURED["tug_phases"], walk)
    assert found.text == "Cannot be measured: nobody stands up from a chair."
    assert found.status == "does_not_apply"
    assert measured.answer(MEASURED["tug_phases"], {}).status == "does_not_apply"


def test_phases_are_named_and_add_up(tug):
    found = measured.answer(MEASURED["tug_phases"], tug)
    assert [value.part for value in found.measured] == [
        "sit to stand", "walk out", "turn", "walk back", "turn and sit"
    ]  # fmt: skip
    (total,) = tug["tug_time"]
    assert sum(value.value for value in found.measured) == pytest.approx(total.value, abs=0.3)


@pytest.mark.parametrize("name", ["walking_speed", "cadence", "tug_time"])
def test_an_answer_that_the_measured_value_contradicts_is_uncertain(name, walk, tug):
    task, analysis = LEARNED[name], tug if name == "tug_time" else walk
    (value,) = analysis[task.measured_as]
    for difference, status in ((0.5, "answered"), (-0.9, "answered"), (1.2, "uncertain"), (-3, "uncertain")):
        stated = Answer(task.answer(value.value + difference * task.tolerance), coverage_guaranteed=True)
        found = measured.beside(stated, task, analysis)
        assert found.status == status
        assert found.measured == [value]
        assert found.coverage_guaranteed == (status == "answered")
        if status == "uncertain":
            assert stated.text in found.reason
            assert (
                f"{value.value:.{QUANTITIES[task.measured_as].decimals}f} {value.unit} was measured"
                in found.reason
            )
            assert f"{task.tolerance:g} {task.unit}" in found.reason


def test_a_value_that_was_not_measured_contradicts_nothing(walk):
    task = LEARNED["tug_time"]
    found = measured.beside(Answer("12.0 s"), task, walk)
    assert found.status == "answered"
    assert found.measured[0].value is None
    assert found.measured[0].reason
    assert measured.beside(Answer("12.0 s"), task, {}) == Answer("12.0 s")


def test_an_answer_that_is_not_shown_keeps_its_status_and_gets_the_measured_value(walk):
    for status in ("unlike", "does_not_apply", "uncertain"):
        found = measured.beside(
            Answer("9.00 m/s", status=status, reason="why"), LEARNED["walking_speed"], walk
        )
        assert (found.status, found.reason) == (status, "why")
        assert found.measured == walk["speed"]


def test_only_the_tasks_of_a_measured_quantity_get_one(walk):
    for name in ("activity", "impaired", "quicker", "description"):
        assert measured.beside(Answer("x"), LEARNED[name], walk) == Answer("x")


def test_an_analysis_survives_a_list(walk):
    values = [value for of_quantity in walk.values() for value in of_quantity]
    assert measured.by_quantity(values) == walk
