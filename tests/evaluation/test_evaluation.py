"""Evaluation: scores equal those of scikit-learn and SciPy, and intervals are over participants.

Baselines learn, and never from the participants that they predict. A report can show undefined scores.
"""

import json
import re
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from biomechgpt.answering.batch import with_parsed
from biomechgpt.evaluation import answers_table
from biomechgpt.evaluation.baselines import BASELINES, Problem, xgboost
from biomechgpt.evaluation.baselines.cross_validation import FOLDS
from biomechgpt.evaluation.baselines.run import as_answers
from biomechgpt.evaluation.metrics import (
    OTHER,
    UNPARSED,
    compute_scores,
    confusion,
    main_score,
    score,
)
from biomechgpt.evaluation.report import summary, write_report
from biomechgpt.motion.skeleton import NAMES, anatomical_name
from biomechgpt.questions.tasks import ClassificationTask, RefusalTask, RegressionTask

classification = partial(compute_scores, "classification")
regression = partial(compute_scores, "regression")
description = partial(compute_scores, "description")

FEW = hypothesis_settings(max_examples=40, deadline=None)
QUESTIONS = [f"Question {i}?" for i in range(8)]
AID = ClassificationTask(name="aid", annotation="aid", labels={"none": "no device", "cane": "a cane"},
           templates=QUESTIONS)  # fmt: skip
SPEED = RegressionTask(name="speed", annotation="speed", unit="m/s", decimals=2, plausible=(0, 3),
             templates=QUESTIONS)  # fmt: skip
TASKS = {"aid": AID, "speed": SPEED}

label = st.sampled_from(["cane", "none", "walker"])
guess = st.sampled_from(["cane", "none", "walker", "a horse", None])
labelled = st.lists(st.tuples(label, guess, st.sampled_from("pqrs")), min_size=1, max_size=40)
number = st.floats(-50, 50).map(lambda value: round(value, 2))
measured = st.lists(st.tuples(number, number | st.none(), st.sampled_from("pqrs")), max_size=40)


@FEW
@given(labelled)
def test_f1_and_accuracy_equal_scikit_learns_and_an_unparsed_answer_is_wrong(rows):
    true, predicted, people = zip(*rows, strict=True)
    scores = classification(true, predicted, people, draws=20)
    read = ["silence" if p is None else p for p in predicted]
    weighted = sk.f1_score(true, read, average="weighted", zero_division=0)
    present = sk.f1_score(true, read, average="macro", labels=sorted(set(true)), zero_division=0)
    assert scores["f1_weighted"] == pytest.approx(weighted)
    assert scores["f1_macro"] == pytest.approx(present)
    assert scores["accuracy"] == pytest.approx(sk.accuracy_score(true, read))
    assert (scores["n"], scores["participants"]) == (len(rows), len(set(people)))
    assert scores["unparsed"] == predicted.count(None)
    json.dumps(scores, allow_nan=False)


@FEW
@given(measured)
def test_correlation_and_line_equal_scipys_over_the_answers_with_a_number(rows):
    true, predicted, people = zip(*rows, strict=True) if rows else ((), (), ())
    scores = regression(true, predicted, people, draws=20)
    read = [(t, p) for t, p in zip(true, predicted, strict=True) if p is not None]
    x, y = np.array(read, dtype=float).reshape(-1, 2).T
    assert (scores["n"], scores["unparsed"]) == (len(rows), len(rows) - len(read))
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        assert scores["pearson_r"] is scores["slope"] is scores["p"] is None
    else:
        assert scores["pearson_r"] == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-9)
        # At most four participants: too few for a p.
        assert scores["p"] is None
        assert [scores["slope"], scores["intercept"]] == pytest.approx(
            np.polyfit(x, y, 1), rel=1e-6, abs=1e-6
        )
    if len(x):
        assert scores["mae"] == pytest.approx(sk.mean_absolute_error(x, y))
        assert scores["bias"] == pytest.approx(y.mean() - x.mean())
    json.dumps(scores, allow_nan=False)


def cohort(seed, people=10, trials=6):
    """True and predicted labels and numbers, right more often for some participants than for others."""
    rng = np.random.default_rng(seed)
    who = np.repeat([f"p{i}" for i in range(people)], trials)
    skill = np.repeat(rng.uniform(0.3, 1, people), trials)
    true = rng.choice(["cane", "none", "walker"], len(who))
    predicted = np.where(rng.random(len(who)) < skill, true, rng.choice(["cane", "none", "walker"], len(who)))
    x = rng.normal(size=len(who))
    y = 0.8 * x + np.repeat(rng.normal(size=people), trials) + 0.3 * rng.normal(size=len(who))
    return {"label": (true, predicted, who), "number": (x, y, who)}


MEASURES = {"label": classification, "number": regression}
kinds = pytest.mark.parametrize("kind", MEASURES)


@kinds
@pytest.mark.parametrize("seed", range(5))
def test_intervals_contain_the_value_and_copies_of_trials_do_not_change_them(kind, seed):
    rows = cohort(seed)[kind]
    once = MEASURES[kind](*rows, draws=400)
    thrice = MEASURES[kind](*(np.tile(column, 3) for column in rows), draws=400)
    intervals = [name for name in once if name.endswith("_ci")]
    assert len(intervals) >= 3
    for name in intervals:
        low, high = once[name]
        assert low < once[name.removesuffix("_ci")] < high
        # An analysis of variance has its degrees of freedom.
        freed = name in ("icc_ci", "limits_low_ci", "limits_high_ci")
        assert thrice[name] == pytest.approx(once[name], rel=0.05 if freed else None, abs=1e-9)
    if kind == "number":
        assert thrice["p"] == pytest.approx(once["p"], abs=0.002)
    assert thrice["n"] == 3 * once["n"]
    assert thrice["participants"] == once["participants"]


@kinds
def test_more_participants_narrow_an_interval_and_more_trials_of_each_hardly_do(kind):
    name = {"label": "accuracy_ci", "number": "bias_ci"}[kind]
    few, many, often = (
        np.mean([np.ptp(MEASURES[kind](*cohort(seed, *size)[kind], draws=300)[name]) for seed in range(6)])
        for size in ((8, 6), (72, 6), (8, 54))
    )
    assert many < few / 2
    assert often > few / 2


@kinds
def test_one_participant_has_no_interval(kind):
    true, predicted, _ = cohort(0)[kind]
    scores = MEASURES[kind](true, predicted, ["p"] * len(true))
    assert all(value is None for name, value in scores.items() if name.endswith("_ci"))
    assert scores["participants"] == 1
    defined = {name[:-3] for name in scores if name.endswith("_ci") and scores[name[:-3]] is not None}
    # How far participants differ from one another cannot be seen in one.
    assert {name[:-3] for name in scores if name.endswith("_ci")} - defined <= {"limits_low", "limits_high"}
    assert scores.get("p") is None


@kinds
def test_the_order_of_trials_and_the_names_of_participants_do_not_matter_and_a_seed_repeats(kind):
    true, predicted, people = cohort(1)[kind]
    measure, order = MEASURES[kind], np.random.default_rng(0).permutation(len(true))
    first = measure(true, predicted, people)
    assert measure(true, predicted, people) == first
    shuffled = measure(true[order], predicted[order], [f"x{p}" for p in people[order]])
    for name, value in first.items():
        if name != "by_label":
            assert shuffled[name] == pytest.approx(value)
    assert measure(true, predicted, people, seed=1) == first


def test_shuffled_labels_score_as_expected_from_the_shares_of_the_labels():
    rng = np.random.default_rng(0)
    true = rng.choice(["cane", "none", "walker"], 4000, p=[0.6, 0.3, 0.1])
    scores = classification(true, rng.permutation(true), [f"p{i % 40}" for i in range(4000)])
    assert scores["f1_weighted"] == pytest.approx(0.6**2 + 0.3**2 + 0.1**2, abs=0.03)
    assert scores["f1_macro"] == pytest.approx(1 / 3, abs=0.03)
    low, high = scores["f1_weighted_ci"]
    assert low < 0.46 < high
    values = rng.normal(size=4000)
    assert abs(regression(values, rng.permutation(values), ["p", "q"] * 2000)["pearson_r"]) < 0.06


def test_limits_of_agreement_hold_a_new_participants_error_though_trials_repeat():
    """Ten trials of each of twelve participants whose own bias is most of the error."""
    rng = np.random.default_rng(0)

    def errors(people, trials):
        return np.repeat(rng.normal(0, 1, people), trials) + 0.2 * rng.normal(size=people * trials)

    inside = []
    for _ in range(100):
        x = rng.normal(size=120)
        scores = regression(x, x + errors(12, 10), np.repeat([f"p{i}" for i in range(12)], 10), draws=0)
        new = errors(200, 1)
        inside.append(np.mean((new >= scores["limits_low"]) & (new <= scores["limits_high"])))
    assert np.mean(inside) == pytest.approx(0.95, abs=0.03)


def test_p_of_r_counts_participants_and_needs_six():
    """Ten trials of a participant are no ten independent pairs."""
    rng = np.random.default_rng(0)

    def p(people):
        x, y = (np.repeat(rng.normal(size=people), 10) + 0.1 * rng.normal(size=10 * people) for _ in range(2))
        return regression(x, y, np.repeat([f"p{i}" for i in range(people)], 10), draws=0)["p"]

    assert p(5) is None
    assert np.mean([p(8) <= 0.05 for _ in range(60)]) <= stats.binom.isf(0.001, 60, 0.05) / 60


@FEW
@given(labelled)
def test_confusion_counts_every_trial_once_in_the_row_of_its_label(rows):
    true, predicted, _ = zip(*rows, strict=True)
    counts, labels, columns = confusion(true, predicted)
    assert counts.sum() == len(rows)
    assert columns[: len(labels)] == labels == sorted(set(true))
    for i, row in enumerate(labels):
        of_label = [p for t, p in zip(true, predicted, strict=True) if t == row]
        expected = dict.fromkeys(columns, 0)
        for p in of_label:
            expected[UNPARSED if p is None else p if p in labels else OTHER] += 1
        assert dict(zip(columns, counts[i].tolist(), strict=True)) == expected
    assert (UNPARSED in columns) == (None in predicted)
    assert (OTHER in columns) == any(p is not None and p not in labels for p in predicted)


@FEW
@given(st.lists(st.lists(st.integers(0, 19), min_size=1, max_size=60), min_size=1, max_size=8))
def test_a_histogram_counts_one_trials_tokens_and_sums_to_one(tokens):
    X = xgboost.histograms(tokens, 20)
    assert X.shape == (len(tokens), 20)
    assert X.sum(axis=1) == pytest.approx(1, abs=1e-5)
    for row, trial in zip(X, tokens, strict=True):
        assert set(np.flatnonzero(row)) == set(trial)
        np.testing.assert_array_equal(xgboost.histograms([trial[::-1] * 2], 20)[0], row)


def test_a_trial_without_tokens_has_an_empty_histogram():
    assert xgboost.histograms([[], [3]], 4).tolist() == [[0, 0, 0, 0], [0, 0, 0, 1]]


def people_and_tokens(people=12, trials=5, seed=0):
    """Histograms in which a few codes tell the label and the number; column 0 is the participant's number."""
    rng = np.random.default_rng(seed)
    who = rng.permutation(np.repeat(np.arange(people), trials))
    sick = who % 2
    X = rng.random((len(who), 8)).astype(np.float32)
    X[:, 1] += sick
    X[:, 0] = who
    return X, np.array(["no", "yes"])[sick], 1 + X[:, 2] - X[:, 3], [f"p{w}" for w in who]


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_a_search_never_fits_on_a_participant_that_it_is_scored_on(kind, monkeypatch):
    X, labels, values, groups = people_and_tokens()
    folds = []

    class Spy(xgboost.XGBoostEstimator):
        def fit(self, X, y):
            folds.append((set(X[:, 0]), set()))
            return super().fit(X, y)

        def predict(self, X):
            folds[-1][1].update(X[:, 0])
            return super().predict(X)

    monkeypatch.setattr(xgboost, "XGBoostEstimator", Spy)
    y = labels if kind == "classification" else values
    result = xgboost.search(Problem(kind, X, y, groups, X, draws=2))
    assert result["searched"]
    assert result["note"] is None
    assert set(result["parameters"]) == set(xgboost.SEARCH_SPACE)
    json.dumps(result)
    assert len(folds) == 2 * FOLDS
    assert all(fitted and scored and not fitted & scored for fitted, scored in folds)
    assert set.union(*(scored for _, scored in folds)) == set(range(12))


@pytest.mark.parametrize(
    ("change", "note"),
    [
        ({"draws": 0}, "no search asked for"),
        ({"groups": ["p", "q"] * 30}, "2 training participants, 3 folds"),
        ({"y": np.array(["yes"] * 60)}, "one value only"),
    ],
)
def test_without_enough_data_for_a_search_the_defaults_are_used_and_a_note_says_why(change, note):
    X, y, _, groups = people_and_tokens()
    values = {"y": y, "groups": groups, "draws": 2} | change
    problem = Problem("classification", X, values["y"], values["groups"], X[:7], draws=values["draws"])
    details = xgboost.search(problem)
    assert details == {"parameters": {}, "searched": False, "note": details["note"]}
    assert note in details["note"]
    predicted = {name: baseline_of(name, problem) for name in ("xgboost", "chance", "majority")}
    assert {len(values) for values in predicted.values()} == {7}
    assert set(predicted["xgboost"]) | set(predicted["chance"]) <= set(values["y"])


def baseline_of(name, problem):
    """Predictions of a baseline, after the one that it uses or whose settings it takes."""
    baseline = BASELINES[name]
    other = baseline.uses or baseline.settings_of
    used = BASELINES[other].fit_predict(problem).details if other else {}
    return baseline.fit_predict(replace(problem, used=used)).values


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_a_fold_with_one_trial_gives_no_nan_and_no_arbitrary_parameters(name, kind):
    """r2 of one trial is NaN: a study of four people with a walk each."""
    rng = np.random.default_rng(0)
    X, groups = rng.random((4, 5)), [*"pqrs"]
    y = np.array([1.0, 1.2, 0.9, 1.1]) if kind == "regression" else np.array([*"abab"])
    problem = Problem(kind, X, y, groups, X, draws=2)
    details = BASELINES["xgboost"].fit_predict(problem).details
    json.dumps(details, allow_nan=False)
    if kind == "regression":
        assert details == {"parameters": {}, "searched": False, "note": details["note"]}
        assert "too few trials in a fold" in details["note"]
    assert len(baseline_of(name, problem)) == 4


def test_a_label_of_a_single_participant_can_be_predicted():
    X, y, _, groups = people_and_tokens()
    y = np.where(np.array(groups) == "p3", "rare", y)
    prediction = BASELINES["xgboost"].fit_predict(Problem("classification", X, y, groups, X, draws=2))
    assert prediction.details["searched"]
    assert "rare" in prediction.values


def test_xgboost_learns_from_tokens_and_the_chance_baseline_does_not():
    X, labels, values, groups = people_and_tokens(30)
    X_test, labels_test, values_test, people = people_and_tokens(20, seed=1)
    problem = Problem("classification", X, labels, groups, X_test, draws=2)
    trees, chance = (
        classification(labels_test, baseline_of(name, problem), people)["f1_weighted"]
        for name in ("xgboost", "chance")
    )
    assert trees > 0.95
    assert 0.25 < chance < 0.75
    problem = Problem("regression", X, values, groups, X_test, draws=2)
    trees, chance = (
        regression(values_test, baseline_of(name, problem), people)["pearson_r"]
        for name in ("xgboost", "chance")
    )
    assert trees > 0.8
    assert abs(chance) < 0.4


def answers(task, truths, texts, people=None) -> pd.DataFrame:
    """An answers table of the model, with its texts for trials that have these true labels or numbers."""
    rows = [
        {"trial": f"t{i}", "other": None, "participant": p, "split": "test", "task": task.name,
         "question": QUESTIONS[0], "answer": task.answer(truth), "label": truth if isinstance(truth, str) else None,
         "value": truth if isinstance(truth, float) else None, "answer_text": text}
        for i, (truth, text, p) in enumerate(zip(truths, texts, people or truths, strict=True))
    ]  # fmt: skip
    return with_parsed(pd.DataFrame(rows), TASKS)


def test_answers_are_scored_by_the_labels_and_numbers_parsed_from_them():
    rows = answers(AID, ["none", "cane", "cane", "cane"], ["No device.", "a cane", "no device", "well..."])
    scores = score(rows, AID)
    assert rows["label_predicted"].tolist()[:3] == ["none", "cane", "none"]
    assert (scores["accuracy"], scores["unparsed"]) == (0.5, 1)
    rows = answers(SPEED, [1.0, 1.5, 2.0, 0.5], ["1.10 m/s", "1.60 m/s.", "about 2.10", "slow"], [*"pqrs"])
    scores = score(rows, SPEED)
    assert scores["pearson_r"] == pytest.approx(1)
    assert scores["bias"] == pytest.approx(0.1)
    assert (scores["n"], scores["unparsed"]) == (4, 1)


@pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
def test_a_baseline_answers_the_models_questions_in_the_words_of_the_task(task):
    truths = ["none", "cane", "cane"] if task is AID else [1.0, 1.5, 2.0]
    questions = answers(task, truths, ["?", "?", "?"], [*"pqr"])[::-1]
    rows = as_answers(questions, task, np.array(truths[::-1]), "xgboost")
    unchanged = ["trial", "participant", "task", "question", "answer_true", "label_true", "value_true"]
    pd.testing.assert_frame_equal(rows[unchanged], questions[unchanged])
    assert rows["answer_text"].tolist() == rows["answer_true"].tolist()
    assert set(rows["source"]) == {"xgboost"}
    scores = score(rows, task)
    assert scores["unparsed"] == 0
    assert scores["accuracy" if task is AID else "pearson_r"] == pytest.approx(1)


def report_of(folder, rows, tokenizer=None, base="Gemma", stand_in=False) -> tuple[str, dict]:
    """The page and the metrics of an answers table, written as `make_evaluation` does."""
    about = {
        "data": "recorded", "stand_in": stand_in, "model": {"uri": "m", "fingerprint": "f" * 16, "base": base},
        "tokenizer": {"rmse_deg_tracked": 5.78, "perplexity": 300.0} | (tokenizer or {}),
        "tasks": [task.model_dump(mode="json") for task in TASKS.values()],
        "baselines": {"aid": {"xgboost": {"note": None}}}, "seconds": {"cohort": 1.0}, "settings": {},
        "made_from": {}, "made": "today", "draws": 50, "seed": 0,
    }  # fmt: skip
    answers_table.write(f"{folder}/answers.parquet", rows, about)
    metrics = write_report(f"{folder}/answers.parquet", f"{folder}/out")
    assert metrics == json.loads((folder / "out/metrics.json").read_text())
    assert len(summary(metrics).splitlines()) == 2 + len(metrics["tasks"])
    return (folder / "out/report.html").read_text(), metrics


def test_a_report_with_undefined_scores_shows_no_nan(tmp_path):
    labels = answers(AID, ["none", "cane"], ["I do not know", "a horse"], ["p", "p"])
    numbers = answers(SPEED, [1.0, 2.0], ["fast", "slow"], ["p", "p"])
    page, metrics = report_of(tmp_path, pd.concat([labels, numbers]))
    scores = metrics["tasks"]
    assert scores["speed"]["model"]["pearson_r"] is scores["speed"]["model"]["mae"] is None
    assert page.count("<svg") == 3  # both tasks, and the errors by participant of the one with labels
    assert not re.search(r"\b(nan|None|Undefined)\b", page)
    assert UNPARSED in page


def test_a_report_shows_the_scores_and_escapes_answers(tmp_path):
    model_answers = answers(
        AID, ["none", "cane"] * 4, ["<script>alert(1)</script>", "no device"] * 4, [*"pqrspqrs"]
    )
    chance_answers = as_answers(model_answers, AID, np.array(["none", "none"] * 4), "chance")
    page, metrics = report_of(
        tmp_path,
        pd.concat([model_answers, chance_answers]),
        {"rmse_deg_by_joint": dict.fromkeys(NAMES, 4.0), "rmse_deg_all": 4.4},
        base="a <b>base",
        stand_in=True,
    )
    scores = metrics["tasks"]["aid"]
    for source in ("model", "chance"):
        assert f"<td>{scores[source]['f1_weighted']:.2f}" in page
    assert "4.40°" in page
    assert anatomical_name("knee_angle_r") in page
    assert "&lt;script&gt;" in page
    assert "<script>" not in page
    assert "It is not Gemma 3" in page
    assert "a &lt;b&gt;base" in page


def test_the_summary_has_a_dash_for_an_undefined_score():
    by = {"model": {"pearson_r": None, "n": 0, "participants": 0}, "chance": {"pearson_r": 0.123}}
    metrics = {
        "data": "synthetic",
        "tokenizer": {"rmse_deg_tracked": 1, "perplexity": 2},
        "tasks": {"speed": by},
    }
    last = summary(metrics).splitlines()[-1].split()
    assert last == ["speed", "pearson_r", *"-------", "0.12", "0", "0"]


@FEW
@given(measured.filter(lambda rows: len(rows) > 0), labelled)
def test_intervals_are_ordered_for_any_answers(numbers, labels):
    for rows, measure in ((numbers, regression), (labels, classification)):
        true, predicted, people = zip(*rows, strict=True)
        scores = measure(true, predicted, people, draws=30)
        for name in [name for name in scores if name.endswith("_ci") and scores[name]]:
            low, high = scores[name]
            assert low <= high
            assert scores["participants"] > 1


def test_the_icc_and_the_limits_of_agreement_follow_their_definitions():
    """ICC(2,1) against the mean squares of the definition; limits against the errors' own SD."""
    rng = np.random.default_rng(0)
    x = rng.normal(1.2, 0.3, 40)
    y = 0.9 * x + 0.3 + rng.normal(0, 0.1, 40)
    both = np.stack([x, y], axis=1)
    n, k, grand = 40, 2, both.mean()
    rows = k * ((both.mean(axis=1) - grand) ** 2).sum() / (n - 1)
    raters = n * ((both.mean(axis=0) - grand) ** 2).sum() / (k - 1)
    residuals = both - both.mean(axis=1, keepdims=True) - both.mean(axis=0) + grand
    residual = (residuals**2).sum() / ((n - 1) * (k - 1))
    scores = regression(x.tolist(), y.tolist(), [str(i // 2) for i in range(40)], draws=200)
    expected = (rows - residual) / (rows + (k - 1) * residual + k * (raters - residual) / n)
    assert scores["icc"] == pytest.approx(expected)
    assert scores["icc"] < scores["pearson_r"]
    assert scores["icc_ci"][0] < scores["icc"] < scores["icc_ci"][1]
    # Components of variance (Bland and Altman 2007), two trials a participant: between by the participants' means.
    e = (y - x).reshape(20, 2)
    within = e.var(axis=1, ddof=1).mean()
    between = max(e.mean(axis=1).var(ddof=1) - within / 2, 0)
    spread = 1.96 * np.sqrt(between + within)
    assert scores["limits_low"] == pytest.approx((y - x).mean() - spread)
    assert scores["limits_high"] == pytest.approx((y - x).mean() + spread)
    single = regression(x.tolist(), y.tolist(), [str(i) for i in range(40)], draws=0)
    assert single["limits_high"] == pytest.approx((y - x).mean() + 1.96 * np.std(y - x, ddof=1))
    same = regression(x.tolist(), x.tolist(), [str(i) for i in range(40)])
    assert same["icc"] == pytest.approx(1)


def test_each_label_has_its_support_precision_and_recall():
    by_label = classification(["a", "a", "a", "b"], ["a", "a", "b", None], [*"pqrs"])["by_label"]
    assert by_label["a"] == {
        "support": 3,
        "precision": 1.0,
        "recall": pytest.approx(2 / 3),
        "f1": pytest.approx(0.8),
    }
    assert by_label["b"] == {"support": 1, "precision": 0.0, "recall": 0.0, "f1": 0.0}


def test_each_statement_of_a_description_is_scored_against_the_measurement():
    true = ["cadence 100 steps/min, right knee 60 deg, left knee 50 deg"] * 3 + ["duration 9.0 s"]
    predicted = [
        "right knee 63 deg, cadence 112 steps/min",  # one of two right, two of three stated
        "speed 1.00 m/s",  # nothing that was measured
        "stroke",
        "duration 9.2 s",
    ]
    scores = description(true, predicted, [*"ppqr"], draws=100)
    assert scores["agreement"] == pytest.approx(2 / 4)
    assert scores["complete"] == pytest.approx(3 / 10)
    assert (scores["n"], scores["participants"], scores["unparsed"]) == (4, 3, 1)
    assert scores["by_parameter"]["cadence"]["mae"] == pytest.approx(12)
    assert scores["by_parameter"]["speed"]["agreement"] == 0
    low, high = scores["agreement_ci"]
    assert 0 <= low <= scores["agreement"] <= high <= 1
    assert main_score(scores) == ("agreement", scores["agreement"])
    nothing = description(true, ["?"] * 4, [*"ppqr"])
    assert (nothing["agreement"], nothing["complete"]) == (None, 0)


def test_a_refusal_task_is_scored_by_the_share_of_refused_questions():
    task = RefusalTask(name="r", refusal_text="No.", templates=QUESTIONS)
    rows = pd.DataFrame(
        {
            "participant": [*"ppqq"],
            "label_true": ["refused"] * 4,
            "label_predicted": ["refused", "answered"] * 2,
        }
    )
    scores = score(rows, task)
    assert main_score(scores) == ("refused", 0.5)
    assert scores["n"] == 4
