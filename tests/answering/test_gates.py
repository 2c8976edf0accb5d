"""Whether a question applies, and what becomes of the answer. Pure functions, no model."""

from dataclasses import replace

import pytest

from biomechgpt.answering.answer import Answer, Unlike
from biomechgpt.answering.calibration import MIN_APPLIES, fit_min_applies
from biomechgpt.answering.gates import Gate, conditions_of, gate, mean_probabilities
from biomechgpt.answering.status import unlike_sentence, with_status, withheld
from biomechgpt.motion.statistics import MovementStatistics
from biomechgpt.questions.tasks import load_tasks
from conftest import ROOT

TASKS = load_tasks(ROOT / "configs/tasks")
WALK = {
    "activity": {"overground walking": 0.98, "TUG": 0.02},
    "impaired": {"yes": 0.05, "no": 0.95},
    "diagnosis": {"LLPU": 0.7, "stroke": 0.3},
}
LONG = MovementStatistics(duration_s=12.0, steps=9, phases=("lower", "rise"), provenance="synthetic")


def judged(name, labels=WALK, statistics=(LONG,), threshold=MIN_APPLIES):
    return gate(TASKS, name, conditions_of(name, TASKS), [labels], statistics, threshold)


def test_a_tug_time_does_not_apply_to_a_walk():
    found = judged("tug_time")
    assert found.applies == pytest.approx(0.02)
    assert found.reason == "Does not apply: this looks like overground walking (.98)."


def test_conditions_of_conditions_count_too():
    assert [condition.column for condition in conditions_of("falls_history", TASKS)] == [
        "diagnosis",
        "impaired",
    ]
    found = judged("falls_history")
    assert found.applies == pytest.approx(0.7 * 0.05)
    assert found.reason == "Does not apply: most likely unimpaired (.95)."


def test_a_question_that_applies_has_a_condition_and_no_reason():
    found = judged("walking_speed")
    assert (found.applies, found.reason) == (pytest.approx(0.98), "")
    assert found.condition == "activity: overground walking or walking or treadmill walking or FGA"
    without = judged("activity")
    assert without == Gate(1.0, "")


def test_a_threshold_from_validation_decides():
    assert not judged("walking_speed", threshold=0.97).reason
    found = judged("walking_speed", threshold=0.99)
    assert found.reason == (
        "Does not apply: it is not certain enough that activity is overground walking or walking or treadmill "
        "walking or FGA."
    )


def test_a_condition_that_the_model_cannot_weigh_leaves_it_open():
    other_words = {"activity": {"gait": 0.9, "jump": 0.1}}
    assert judged("walking_speed", other_words) == Gate(
        None, "activity: overground walking or walking or treadmill walking or FGA"
    )
    alone = {name: task for name, task in TASKS.items() if name == "diagnosis"}
    found = gate(alone, "diagnosis", conditions_of("diagnosis", alone), [{}], [LONG], MIN_APPLIES)
    assert found.applies is None
    assert not found.reason


def test_both_movements_of_a_comparison_must_meet_the_conditions():
    tasks = load_tasks([ROOT / "configs/tasks", ROOT / "configs/tasks_extra"])
    sitting = {"activity": {"overground walking": 0.1, "sitting": 0.9}}
    found = gate(
        tasks, "quicker", conditions_of("quicker", tasks), [WALK, sitting], [LONG, LONG], MIN_APPLIES
    )
    assert found.applies == pytest.approx(0.098)
    assert "sitting (.90)" in found.reason


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"duration_s": 1.5}, "at least 4 s, and this one has 1.5 s"),
        ({"steps": 1}, "at least 4 steps"),
        ({"phases": ("rise",)}, "nobody sits down in this recording"),
    ],
)
def test_a_recording_that_lacks_what_a_task_needs(changed, words):
    tug = {"activity": {"TUG": 1.0, "overground walking": 0.0}}
    assert not judged("tug_time", tug).reason
    found = judged("tug_time", tug, [replace(LONG, **changed)])
    assert found.applies == 0
    assert words in found.reason


def test_a_person_is_judged_by_the_mean_over_their_movements():
    assert mean_probabilities([{"t": {"a": 1.0, "b": 0.0}}, {"t": {"a": 0.5, "b": 0.5}}]) == {
        "t": {"a": 0.75, "b": 0.25}
    }


LIKE = Unlike(checked=True, participants=20)
DIAGNOSIS = Answer(
    "stroke",
    labels=["stroke", "LLPU"],
    probabilities=[0.8, 0.2],
    prediction_set=["stroke"],
    coverage_guaranteed=True,
)


IMPAIRED = Gate(0.9, "impaired: yes")


def status(
    answer=DIAGNOSIS, task="diagnosis", gate=IMPAIRED, unlike=LIKE, statistics=(LONG,), provenance="synthetic"
):
    return with_status(answer, TASKS[task], gate, unlike, statistics, provenance)


def test_a_conditional_answer_has_the_joint_probability():
    found = status()
    assert (found.status, found.condition, found.coverage_guaranteed) == ("answered", "impaired: yes", True)
    assert found.joint_probabilities == pytest.approx([0.72, 0.18])
    assert status(task="activity", gate=Gate(1.0, "")).joint_probabilities == []


@pytest.mark.parametrize(
    "changed",
    [
        {"gate": Gate(None, "impaired: yes")},
        {"unlike": Unlike()},
        {"provenance": "recorded"},
        {"provenance": None},
        {"statistics": (replace(LONG, provenance=None),)},
        {"statistics": ()},
        {"gate": Gate(0.1, "impaired: yes", "Does not apply: most likely unimpaired (.90).")},
        {"unlike": replace(LIKE, unlike=True)},
    ],
)
def test_nothing_is_guaranteed_unless_every_assumption_was_checked(changed):
    assert not status(**changed).coverage_guaranteed


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"unlike": replace(LIKE, unlike=True)}, "unlike"),
        ({"gate": Gate(0.1, "impaired: yes", "Does not apply: no.")}, "does_not_apply"),
        ({"gate": Gate(0.1, "c", "Does not apply: no."), "unlike": replace(LIKE, unlike=True)}, "unlike"),
    ],
)
def test_a_withheld_answer_states_nothing(changed, expected):
    found = status(**changed)
    assert found.status == expected
    assert found.labels, "the record keeps them for evaluation"
    shown = withheld(found, "unlike!")
    assert shown.status == expected
    assert (shown.labels, shown.probabilities, shown.prediction_set, shown.low) == ([], [], [], None)
    assert "stroke" not in shown.text
    assert shown.applies == found.applies


def test_no_stated_duration_is_longer_than_the_recording():
    tug = Answer("8.3 s", low=6.0, high=9.0, coverage_guaranteed=True)
    gate = Gate(0.9, "activity: TUG")
    assert status(tug, "tug_time", gate).status == "answered"
    found = status(tug, "tug_time", gate, statistics=(replace(LONG, duration_s=5.0),))
    assert (found.status, found.coverage_guaranteed) == ("uncertain", False)
    assert found.reason == "Uncertain: the model states 8.3 s, but the recording lasts 5.0 s."
    assert withheld(found).low is None
    # A speed of 8.3 is no duration.
    speed = Answer("8.3 m/s", low=6.0, high=9.0)
    assert (
        status(speed, "walking_speed", gate, statistics=(replace(LONG, duration_s=5.0),)).status == "answered"
    )


def test_the_sentence_says_whom_the_model_has_seen():
    far = Unlike(checked=True, unlike=True, quantity="reconstruction error of the motion tokens", unit="degrees",
                 value=17.2, usual=[0.0, 7.5], participants=20)  # fmt: skip
    assert unlike_sentence(far, "synthetic") == (
        "This model has seen only simulated people. This recording is unlike them (reconstruction error of the "
        "motion tokens: 17.2 degrees, usually at most 7.5 degrees), so its answers are withheld. Values that are "
        "measured from the joint angles are still shown."
    )
    assert "simulated" not in unlike_sentence(far, "recorded")


def test_the_threshold_of_a_gate_lets_few_pass_that_it_should_not():
    who = [f"p{i}" for i in range(30)]
    applies = [i / 30 for i in range(30)]
    threshold = fit_min_applies(applies, who)
    assert sum(p > threshold for p in applies) <= 1
    assert fit_min_applies([0.1, 0.2], ["a", "b"]) == MIN_APPLIES
    assert fit_min_applies([], []) == MIN_APPLIES
