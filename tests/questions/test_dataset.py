"""The questions of a cohort: who is asked what, in which words, with which answer."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from biomechgpt.motion.parameters import format_description, mirror_parameters
from biomechgpt.questions.dataset import ask, draw_template
from example_trials import ALL_TASKS, EXTRA_TASKS, MANY_TRIALS, PARAMETERS, TASKS, TRIALS

FEW = hypothesis_settings(max_examples=50, deadline=None)


def sort(asked: list[dict]) -> list[dict]:
    return sorted(asked, key=lambda q: (q["trial"], q["task"]))


def test_questions_are_asked_where_they_apply_with_the_annotated_answer():
    asked = {(q["trial"], q["task"]): q for q in ask(TRIALS, TASKS, 0)}
    by_trial = {n: {task for trial, task in asked if trial == f"t{n}"} for n in range(5)}
    assert by_trial[0] == {"activity", "impaired", "assistive_device", "fsst_time"}
    assert by_trial[1] == {"activity", "impaired", "diagnosis", "falls_history", "cadence"}
    assert by_trial[2] == {"activity", "impaired", "diagnosis", "tug_time"}
    assert by_trial[3] == {"activity"}
    assert by_trial[4] == {"activity", "impaired"}
    answers = {key: (q["answer"], q["label"], q["value"]) for key, q in asked.items()}
    assert answers["t0", "assistive_device"] == ("no device", "none", None)
    assert answers["t0", "fsst_time"] == ("7.9 s", None, 7.93)
    assert answers["t1", "diagnosis"] == ("lower-limb prosthesis user", "LLPU", None)
    for (trial, task), question in asked.items():
        assert question["question"] == draw_template(TASKS[task], trial, 0)
        assert question["question"] in TASKS[task].templates
        assert question["participant"] == f"p{int(trial[1:]) // 2}"


@FEW
@given(st.permutations(TRIALS), st.permutations(list(TASKS)))
def test_the_order_of_trials_and_tasks_changes_no_question(rows, names):
    assert sort(ask(rows, {name: TASKS[name] for name in names}, 3)) == sort(ask(TRIALS, TASKS, 3))


def test_fewer_trials_or_tasks_change_no_other_question():
    few = ask(TRIALS[::2], {"activity": TASKS["activity"]}, 3)
    assert len(few) == len(TRIALS[::2])
    assert all(question in ask(TRIALS, TASKS, 3) for question in few)


def test_another_seed_asks_the_same_in_other_words_and_order():
    one, two = ask(TRIALS, TASKS, 0), ask(TRIALS, TASKS, 1)
    assert one == ask(TRIALS, TASKS, 0)
    words = [q.pop("question") != r.pop("question") for q, r in zip(sort(one), sort(two), strict=True)]
    assert np.mean(words) > 0.7
    assert one != two
    assert sort(one) == sort(two)


def test_phrasings_are_drawn_evenly_and_tasks_interleave():
    task = TASKS["activity"]
    drawn = [task.templates.index(draw_template(task, f"trial {n}", 0)) for n in range(1800)]
    counts = np.bincount(drawn, minlength=len(task.templates))
    usual = 1800 / len(task.templates)
    assert counts.min() > 0.6 * usual
    assert counts.max() < 1.4 * usual
    order = [q["task"] for q in ask(TRIALS, TASKS, 0)]
    assert sum(a != b for a, b in pairwise(order)) > len(order) / 4


def test_compared_movements_share_what_they_must_and_none_is_in_two_pairs():
    by_trial = {r["trial"]: r for r in MANY_TRIALS}
    for name in ("which_impaired", "quicker", "speed_change"):
        task = EXTRA_TASKS[name]
        pairs = [q for q in ask(MANY_TRIALS, {name: task}, 0)]
        assert len(pairs) > 10
        used = [trial for q in pairs for trial in (q["trial"], q["other"])]
        assert len(set(used)) == len(used)
        for q in pairs:
            a, b = by_trial[q["trial"]], by_trial[q["other"]]
            assert all(a[column] == b[column] for column in ("split", *task.same))
            truth = task.compare(a, b)
            assert q["answer"] == task.answer(truth)
            assert truth == (q["label"] or q["value"] or 0)
            assert q["participant"] == a["participant"]
    labels = [q["label"] for q in ask(MANY_TRIALS, {"which_impaired": EXTRA_TASKS["which_impaired"]}, 0)]
    assert 0.25 < labels.count("A") / len(labels) < 0.75


def test_a_share_of_the_trials_is_asked_and_always_the_same():
    task = EXTRA_TASKS["out_of_scope"]
    asked = [{q["trial"] for q in ask(MANY_TRIALS, {"out_of_scope": task}, seed)} for seed in (0, 1)]
    assert asked[0] == asked[1]
    assert 0.4 < len(asked[0]) / len(MANY_TRIALS) < 0.6


def test_held_out_participants_are_asked_in_words_that_nobody_is_trained_with():
    task = EXTRA_TASKS["out_of_scope"]
    for q in ask(MANY_TRIALS, {"out_of_scope": task}, 0):
        assert q["question"] in (task.templates if q["split"] == "train" else task.test_templates)
        assert (q["answer"], q["label"]) == (task.refusal_text, "refused")


def test_a_description_is_what_was_measured_and_its_mirror_image():
    asked = ask(MANY_TRIALS, {"description": EXTRA_TASKS["description"]}, 0, PARAMETERS)
    assert len(asked) > 60
    for q in asked:
        assert q["answer"] == format_description(PARAMETERS[q["trial"]])
        assert q["answer_mirrored"] == format_description(mirror_parameters(PARAMETERS[q["trial"]]))
    assert "right knee 40 deg, left knee 60 deg" in asked[0]["answer"]
    assert "right knee 60 deg, left knee 40 deg" in asked[0]["answer_mirrored"]


def test_a_movement_to_be_made_is_described_in_the_tasks_own_words():
    tasks = {name: ALL_TASKS[name] for name in ("activity", "diagnosis", "assistive_device", "movement")}
    asked = [q for q in ask(MANY_TRIALS, tasks, 0, PARAMETERS) if q["task"] == "movement"]
    by_trial = {r["trial"]: r for r in MANY_TRIALS}
    parts = [["stroke"], ["cane"], ["slowly"], ["duration 9.0 s"]]
    for q in asked:
        assert by_trial[q["trial"]]["activity"] in q["question"]
        assert (q["answer"], q["label"], q["value"]) == ("", None, None)
        if by_trial[q["trial"]]["impaired"] == "no":
            assert "stroke" not in q["question"]
    for (word,) in parts:
        share = np.mean([word in q["question"] for q in asked])
        assert 0.1 < share < 0.9
