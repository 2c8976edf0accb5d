"""Calibration: temperatures that are found again, sets and intervals that hold the truth as often as they say."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from biomechgpt.answering.calibration import (
    Calibration,
    TaskCalibration,
    apply_temperature,
    conformal,
    fit,
    fit_label_thresholds,
    fit_labels,
    fit_numbers,
    fit_people,
    fit_temperature,
    prediction_set,
    threshold_of_draws,
)

FEW = hypothesis_settings(max_examples=60, deadline=None)
LABELS = ["LLPU", "SCI", "TBI", "stroke"]


def study(rng, people, trials=(1, 9), sharpness=2.0, hot=1.0):
    """(probabilities, truths, participants): people differ in how readable they are; hot: too sure by that much."""
    probabilities, truths, who = [], [], []
    for person in range(people):
        truth, ease = rng.integers(len(LABELS)), rng.normal(sharpness, 1.5)
        for _ in range(rng.integers(*trials)):
            logits = rng.normal(size=len(LABELS))
            logits[truth] += ease
            p = apply_temperature(np.exp(logits) / np.exp(logits).sum(), 1 / hot)
            probabilities.append(dict(zip(LABELS, p, strict=True)))
            truths.append(LABELS[truth])
            who.append(f"p{person}")
    return probabilities, truths, who


@FEW
@given(st.lists(st.floats(0.01, 1), min_size=2, max_size=6), st.floats(0.2, 5), st.floats(0.2, 5))
def test_temperatures_multiply_and_keep_the_order(raw, first, second):
    p = np.array(raw) / np.sum(raw)
    twice = apply_temperature(apply_temperature(p, first), second)
    np.testing.assert_allclose(twice, apply_temperature(p, first * second), rtol=1e-6, atol=1e-9)
    assert twice.sum() == pytest.approx(1)
    np.testing.assert_allclose(apply_temperature(p, 1.0), p)
    assert np.argmax(apply_temperature(p, second)) == np.argmax(p) or np.ptp(np.sort(p)[-2:]) < 1e-9


def test_a_certain_answer_stays_certain_and_an_impossible_one_impossible():
    assert apply_temperature(np.array([1.0, 0.0]), 3.0).tolist() == [1.0, 0.0]


@pytest.mark.parametrize("hot", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_how_much_too_sure_a_model_is(hot):
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=2, size=(4000, 4))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = [rng.choice(4, p=row) for row in p]
    found = fit_temperature(list(apply_temperature(p, 1 / hot)), truth, [str(i) for i in range(4000)])
    assert found == pytest.approx(hot, rel=0.1)


def test_a_participant_counts_once_however_many_trials_there_are():
    sure, unsure = np.array([0.9, 0.1]), np.array([0.6, 0.4])
    few = fit_temperature([sure, unsure], [0, 1], ["a", "b"])
    many = fit_temperature([sure, *[unsure] * 50], [0, *[1] * 50], ["a", *["b"] * 50])
    assert many == pytest.approx(few, rel=1e-3)


def test_the_threshold_is_the_ordinary_one_with_a_trial_each():
    scores = np.random.default_rng(0).random(19).tolist()
    people = [str(i) for i in range(19)]
    assert conformal(scores, people, 0.9) == sorted(scores)[17]  # the ceil(0.9 x 20) = 18th
    assert conformal(scores, people, 0.95) == sorted(scores)[18]
    assert conformal(scores, people, 0.96) is None
    assert conformal([], [], 0.5) is None
    assert conformal(scores[:8], people[:8], 0.9) is None


@pytest.mark.parametrize("alike", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("n", [9, 13, 20, 36])
def test_nine_in_ten_new_trials_are_within_the_threshold_however_alike_a_participants_trials_are(n, alike):
    """alike: correlation of the trials of one participant. With few participants `conformal` covers .98 of them."""
    rng = np.random.default_rng(0)

    def trials(counts):
        who = np.repeat(np.arange(len(counts)), counts)
        own = rng.normal(size=len(counts))[who]
        return np.sqrt(alike) * own + np.sqrt(1 - alike) * rng.normal(size=len(who)), [str(i) for i in who]

    covered = []
    for _ in range(150):
        threshold = threshold_of_draws(*trials(rng.integers(1, 15, size=n)))
        covered.append(np.mean(trials(np.ones(400, dtype=int))[0] <= threshold))
    assert 0.88 < np.mean(covered) < 0.955


def test_the_threshold_of_draws_is_the_ordinary_one_with_a_trial_each():
    scores = np.random.default_rng(0).random(19)
    people = [str(i) for i in range(19)]
    assert threshold_of_draws(scores, people) == conformal(scores, people) == sorted(scores)[17]
    assert threshold_of_draws(scores[:8], people[:8]) is None
    assert threshold_of_draws([], []) is None


def test_too_few_participants_rule_nothing_out():
    fitted = fit_labels(*study(np.random.default_rng(0), 6, trials=(20, 21)))
    assert fitted.label_thresholds == {}
    assert prediction_set({"a": 0.99, "b": 0.01}, fitted) == ["a", "b"]
    assert not fitted.coverage_guaranteed


def test_a_set_is_in_order_and_never_empty():
    fitted = TaskCalibration(label_thresholds={"a": 0.1, "b": 0.95, "c": 0.1})
    assert prediction_set({"b": 0.3, "c": 0.3, "a": 0.4}, fitted) == ["a", "b"]
    assert prediction_set({"b": 0.3, "c": 0.3, "a": 0.4}, TaskCalibration(label_thresholds={"b": 0.1})) == [
        "a",
        "c",
    ]


def test_labels_of_few_participants_share_what_rules_them_out():
    people = {"cane": 12, "none": 30, "walker": 5, "orthosis": 3, "crutches": 2}
    truth = [label for label, n in people.items() for _ in range(n)]
    who = [str(i) for i in range(len(truth))]
    scores = np.random.default_rng(0).random(len(truth))
    score = lambda *of: [s for s, label in zip(scores, truth, strict=True) if label in of]  # noqa: E731
    alone = lambda s: conformal(s, [str(i) for i in range(len(s))])  # noqa: E731
    found = fit_label_thresholds(scores, truth, who, list(people))
    # Of ten people the surest nine tenths of eleven: all ten.
    rare = max(score("walker", "orthosis", "crutches"))
    assert found == {"cane": alone(score("cane")), "none": alone(score("none"))} | dict.fromkeys(
        ["walker", "orthosis", "crutches"], rare
    )
    # The last ones of all go with those before them; a label that the model does not know is nobody's to choose.
    few = fit_label_thresholds([0.1] * 11 + [0.9], [*"aaabbbcccccd"], who[:12], [*"abc"])
    assert few == dict.fromkeys("abc", 0.9)
    assert fit_label_thresholds([0.1] * 8, [*"aaaabbbb"], who[:8], [*"ab"]) == {}


@pytest.mark.parametrize("people", [20, 110])
def test_sets_of_new_participants_hold_the_truth_nine_times_in_ten(people):
    rng = np.random.default_rng(1)
    held, by = [], {label: [] for label in LABELS}
    for _ in range(100):
        # Enough participants of some labels together, or of each.
        fitted = fit_labels(*study(rng, people, hot=2.0))
        assert set(fitted.label_thresholds) == set(LABELS)
        probabilities, truths, who = study(rng, 60, hot=2.0)
        shares = 1 / np.array([who.count(w) for w in who])
        inside = []
        for p, truth in zip(probabilities, truths, strict=True):
            soft = dict(
                zip(p, apply_temperature(np.array(list(p.values())), fitted.temperature), strict=True)
            )
            inside.append(truth in prediction_set(soft, fitted))
        held.append(np.average(inside, weights=shares))
        for label in LABELS:
            mine = np.array(truths) == label
            by[label].append(np.average(np.array(inside)[mine], weights=shares[mine]))
    assert 0.88 < np.mean(held) < 0.95
    if people == 110:
        # ceil(0.9 x (n + 1)) of some 20 participants a label: a little above.
        assert all(0.88 < np.mean(values) < 0.97 for values in by.values())


def test_intervals_of_new_participants_hold_the_number_nine_times_in_ten():
    rng = np.random.default_rng(2)

    def numbers(people):
        rows = []
        for person in range(people):
            off = rng.normal(scale=0.2)
            for _ in range(rng.integers(1, 6)):
                truth = rng.normal(1, 0.3)
                said = truth + off + rng.normal(scale=0.05)
                said = 0.4 + 0.6 * said  # as a model that is unsure
                rows.append((said - 0.06, said, said + 0.06, truth, str(person)))
        return [list(column) for column in zip(*rows, strict=True)]

    held, scales = [], []
    for _ in range(100):
        fitted = fit_numbers(*numbers(60))
        low, _, high, truth, who = (np.array(column) for column in numbers(40))
        shares = 1 / np.array([np.sum(who == w) for w in who])
        low, high = (fitted.corrected(end.astype(float)) for end in (low, high))
        inside = (truth >= low - fitted.interval_offset) & (truth <= high + fitted.interval_offset)
        held.append(np.average(inside, weights=shares))
        scales.append(fitted.number_scale)
    assert 0.88 < np.mean(held) < 0.94
    assert np.mean(scales) == pytest.approx(1 / 0.6 * 0.3**2 / (0.3**2 + 0.2**2 + 0.05**2), rel=0.05)
    alone = fit_numbers([0.0], [0.4], [1.0], [0.5], ["a"])
    assert alone.interval_offset is None
    assert (alone.number_scale, alone.number_shift) == (1, 0)
    people = [str(i) for i in range(20)]
    wide = fit_numbers([0.0] * 20, [0.5] * 20, [1.0] * 20, [0.5] * 20, people)
    assert wide.interval_offset == pytest.approx(-0.5)
    assert wide.corrected(0.5) == pytest.approx(0.5)


@pytest.mark.parametrize("people", [10, 14, 25])
def test_intervals_that_few_participants_correct_hold_the_number_too(people):
    rng = np.random.default_rng(people)

    def study_of(n):
        truth = rng.normal(1, 0.3, n)
        said = 0.5 + 0.5 * truth + rng.normal(scale=0.1, size=n)
        return said - 0.1, said, said + 0.1, truth, [str(i) for i in range(n)]

    held = []
    for _ in range(300):
        fitted = fit_numbers(*(list(column) for column in study_of(people)))
        low, _, high, truth, _ = study_of(50)
        low, high = (
            fitted.corrected(low) - fitted.interval_offset,
            fitted.corrected(high) + fitted.interval_offset,
        )
        held.append(np.mean((low <= truth) & (truth <= high)))
    assert np.mean(held) > 0.88


def test_a_label_that_the_model_does_not_know_counts_as_wrong():
    probabilities, truths, who = study(np.random.default_rng(3), 40)
    known = fit_labels(probabilities, truths, who)
    strange = fit_labels(probabilities, ["MS" if t == "TBI" else t for t in truths], who)
    assert strange.label_thresholds["TBI"] > known.label_thresholds["TBI"]
    assert set(strange.label_thresholds) == set(LABELS)


def test_a_models_calibration_is_that_of_its_tasks_and_people():
    rows = [
        {"trial": f"t{i}", "other": None, "participant": f"p{i}", "task": task, "kind": kind,
         "log_likelihood": -i / 100, "rmse_deg": float(i),
         "labels": ["a", "b"], "probabilities": [0.8, 0.2], "label_true": "a" if i % 5 else "b",
         "low": 1.0, "value_predicted": 1.5, "high": 2.0, "value_true": 1.5}
        for i in range(40)
        for task, kind in (("aid", "classification"), ("speed", "regression"), ("said", "description"))
    ]  # fmt: skip
    found = fit(pd.DataFrame(rows))
    assert set(found.tasks) == {"aid", "speed"}
    assert found.tasks["aid"].temperature == pytest.approx(1, abs=0.05)
    assert found.tasks["speed"].interval_offset == pytest.approx(-0.5)
    assert set(found.people) == {"aid"}
    few = fit(pd.DataFrame(rows[:60]))
    assert few.tasks["aid"].coverage_guaranteed


def test_a_persons_calibration_is_of_the_mean_over_their_movements_and_only_of_labels_that_stay():
    rows = [
        {"trial": f"t{person}{n}", "other": None, "participant": f"p{person}", "task": task, "log_likelihood": None,
         "kind": "classification", "rmse_deg": None, "labels": ["a", "b"],
         "probabilities": [0.9, 0.1] if n else [0.2, 0.8],
         "label_true": "a" if task == "aid" or n else "b"}
        for person in range(20)
        for n in range(3)
        for task in ("aid", "activity")
    ]  # fmt: skip
    found = fit(pd.DataFrame(rows))
    assert set(found.tasks) == {"aid", "activity"}
    assert set(found.people) == {"aid"}
    assert set(found.people["aid"]) == {2, 3}
    # .9, .9 and .2 are .67 together, and right.
    three = found.people["aid"][3]
    mean = apply_temperature(np.array([2 / 3, 1 / 3]), three.temperature)
    assert three.label_thresholds["a"] == pytest.approx(1 - mean[0])
    assert three.n_participants == 20
    assert found.tasks["aid"].label_thresholds["a"] > three.label_thresholds["a"]
    # Two of three: (.9, .9) or, twice as often, (.9, .2), which is .55. So two recordings say less than three.
    two = found.people["aid"][2]
    lower = apply_temperature(np.array([0.55, 0.45]), two.temperature)[0]
    assert two.label_thresholds["a"] == pytest.approx(1 - lower)
    assert found.of_person("aid", 2) is two
    assert found.of_person("aid", 9) is three
    assert Calibration.model_validate_json(found.model_dump_json()) == found


def test_participants_with_few_recordings_are_left_out_of_the_calibration_of_more():
    sizes = [1, 2, 2, 4, 6]
    who = [f"p{i}" for i, size in enumerate(sizes) for _ in range(size)]
    truth = pd.Series(["a"] * 5, [f"p{i}" for i in range(5)])
    fitted = fit_people([{"a": 0.7, "b": 0.3}] * len(who), who, truth)
    assert {k: calibration.n_participants for k, calibration in fitted.items()} == {2: 4}
    single = fit_people([{"a": 0.7, "b": 0.3}] * 5, truth.index.tolist(), truth)
    assert {k: calibration.n_participants for k, calibration in single.items()} == {1: 5}


def test_the_mean_over_two_recordings_is_covered_though_participants_have_twelve():
    """A calibration of means over all twelve recordings covers the mean over two less often than it says."""
    rng = np.random.default_rng(0)
    covered: dict[int, list[float]] = {2: [], 12: []}
    for _ in range(10):
        probabilities, truths, who = study(rng, 20, (12, 13), sharpness=0.6)
        fitted = fit_people(probabilities, who, pd.Series(truths, who).groupby(level=0).first())
        new, labels, people = study(rng, 200, (2, 3), sharpness=0.6)
        label_of = dict(zip(people, labels, strict=True))
        means = pd.DataFrame(new).groupby(people).mean()
        for k, inside in covered.items():
            probability = apply_temperature(means.to_numpy(), fitted[k].temperature)
            inside += [
                label_of[person] in prediction_set(dict(zip(means.columns, p, strict=True)), fitted[k])
                for person, p in zip(means.index, probability, strict=True)
            ]
    assert np.mean(covered[2]) > 0.9
    assert np.mean(covered[12]) < 0.9
