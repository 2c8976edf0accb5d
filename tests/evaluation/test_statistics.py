"""Statistics of an evaluation: paired comparisons, adjusted p values, subgroups, agreement over wordings.

All of them can be computed again from one file, without a cluster. Also the features of the strong baselines.
"""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy import stats
from scipy.stats import false_discovery_control

from biomechgpt.core.artifact import Artifact
from biomechgpt.core.settings import InputError
from biomechgpt.evaluation import answers_table
from biomechgpt.evaluation.baselines import BASELINES, BaselineInputs, Problem
from biomechgpt.evaluation.baselines.minirocket import BIASES, DILATIONS, KERNELS, MiniRocket
from biomechgpt.evaluation.calibration_metrics import calibration_scores, template_agreement
from biomechgpt.evaluation.metrics import METRICS, compute_scores, score
from biomechgpt.evaluation.report import write_report
from biomechgpt.evaluation.statistics import (
    adjust_p_values,
    compare,
    compute_metrics,
    holm,
    reason_of_failure,
    subgroups,
)
from biomechgpt.questions.tasks import ClassificationTask, RegressionTask

QUESTIONS = [f"Question {i}?" for i in range(8)]
AID = ClassificationTask(name="aid", annotation="aid", labels={"none": "no device", "cane": "a cane"},
           templates=QUESTIONS)  # fmt: skip
SPEED = RegressionTask(name="speed", annotation="speed", unit="m/s", decimals=2, plausible=(0, 3),
             templates=QUESTIONS)  # fmt: skip


def labels(right, seed=0, people=20, trials=5, source="model"):
    """Answers to the same questions at every call, of which about a share `right` is right."""
    truth = np.random.default_rng(0).choice(["none", "cane"], people * trials)
    is_right = np.random.default_rng(seed).random(len(truth)) < right
    predicted = np.where(is_right, truth, np.where(truth == "none", "cane", "none"))
    return pd.DataFrame(
        {
            "trial": [f"t{i}" for i in range(len(truth))], "other": None, "split": "test", "task": "aid",
            "kind": "classification", "participant": np.repeat([f"p{i}" for i in range(people)], trials),
            "question": QUESTIONS[0], "answer_true": [AID.answer(t) for t in truth],
            "answer_text": [AID.answer(t) for t in predicted], "label_true": truth, "label_predicted": predicted,
            "value_true": np.nan, "value_predicted": np.nan, "source": source,
            "age": np.repeat(np.linspace(20, 80, people), trials),
            "sex": np.repeat(np.array(["f", "m"] * people)[:people], trials),
        }
    )  # fmt: skip


def numbers(noise, seed=0, source="model"):
    rows = labels(1, source=source)
    truth = np.random.default_rng(1).uniform(0.5, 2, len(rows))
    predicted = truth + noise * np.random.default_rng(seed).normal(size=len(rows))
    return rows.assign(task="speed", kind="regression", label_true=None, label_predicted=None,
                       value_true=truth, value_predicted=predicted)  # fmt: skip


ABOUT = {
    "data": "synthetic", "stand_in": True, "model": {"uri": "m", "fingerprint": "f" * 16, "base": "small"},
    "tokenizer": {"rmse_deg_tracked": 5.0, "rmse_deg_all": 5.0, "perplexity": 9.0},
    "tasks": [AID.model_dump(mode="json"), SPEED.model_dump(mode="json")],
    "baselines": {}, "seconds": {}, "settings": {}, "made_from": {}, "made": "today", "draws": 300, "seed": 0,
}  # fmt: skip


@pytest.mark.parametrize("make", [labels, numbers], ids=["labels", "numbers"])
def test_a_comparison_finds_a_difference_and_none_between_equals(make):
    task = AID if make is labels else SPEED
    good, bad = (0.95, 0.6) if make is labels else (0.1, 0.8)
    better = compare([make(good)], [make(bad, 1)], task, draws=500)
    low, high = better["difference_ci"]
    assert 0 < low < better["difference"] < high
    assert better["p"] < 0.01
    worse = compare([make(bad, 1)], [make(good)], task, draws=500)
    assert worse["difference"] == pytest.approx(-better["difference"])
    assert worse["p"] == better["p"]
    even = compare([make(good)], [make(good, 2)], task, draws=500)
    assert even["p"] > 0.05
    assert even["difference_ci"][0] < 0 < even["difference_ci"][1]
    same = compare([make(good)], [make(good)], task, draws=500)
    assert (same["difference"], same["p"]) == (0, 1)


@pytest.mark.parametrize("people", [2, 6, 8, 20])
@pytest.mark.parametrize("make", [labels, numbers], ids=["labels", "numbers"])
def test_p_is_at_most_05_in_at_most_a_twentieth_of_comparisons_without_a_difference(make, people):
    task = AID if make is labels else SPEED
    quality = 0.8 if make is labels else 0.4
    tests = 150
    p = [
        compare(
            [of_people(make(quality, seed=2 * i), people)], [of_people(make(quality, seed=2 * i + 1), people)],
            task, draws=199,
        )["p"]
        for i in range(tests)
    ]  # fmt: skip
    if people < 6:
        assert set(p) == {None}
        return
    # So many of 150 valid tests or more are below .05 with a probability of .001.
    assert np.mean([value <= 0.05 for value in p]) <= stats.binom.isf(0.001, tests, 0.05) / tests
    assert min(p) >= max(2 / 2**people, 1 / 200)


def of_people(rows, n):
    return rows[rows["participant"].isin([f"p{i}" for i in range(n)])]


def test_the_smallest_p_of_few_participants_is_the_share_of_two_exchanges():
    """One more right answer of each participant: every participant speaks for the model."""
    rows = labels(0.7)
    better = rows.assign(label_predicted=rows["label_true"])
    worse = better.assign(
        label_predicted=np.where(np.arange(len(rows)) % 5 == 0, "other", rows["label_true"])
    )
    found = {n: compare([of_people(better, n)], [of_people(worse, n)], AID, draws=500) for n in (2, 5, 6, 8)}
    assert {n: result["p"] for n, result in found.items()} == {2: None, 5: None, 6: 2 / 64, 8: 2 / 256}
    assert found[5]["no_p"] == "fewer than 6 participants"
    assert found[6]["no_p"] is None


def test_holm_is_among_the_comparisons_that_have_a_p():
    comparisons = [{"p": 0.01}, {"p": None}, {"p": 0.03}]
    adjust_p_values(comparisons)
    assert [c["p_holm"] for c in comparisons] == [0.02, None, 0.03]


@pytest.mark.parametrize(("kind", "people"), [("labels", 5), ("labels", 11), ("numbers", 5), ("numbers", 11)])
def test_intervals_of_few_participants_hold_the_populations_score(kind, people):
    """The percentile bootstrap of five participants held r in .88 of samples, F1 in .82."""
    rng = np.random.default_rng(people)

    def sample(n):
        who = np.repeat(np.arange(n), 4)
        if kind == "labels":
            true = rng.choice(["a", "b"], len(who))
            right = rng.random(len(who)) < rng.beta(8, 2, n)[who]
            return "classification", true, np.where(right, true, np.where(true == "a", "b", "a")), who
        x = rng.normal(size=n)[who] + 0.4 * rng.normal(size=len(who))
        return "regression", x, 0.8 * x + 0.4 * rng.normal(size=n)[who] + 0.3 * rng.normal(size=len(who)), who

    name = "f1_weighted" if kind == "labels" else "pearson_r"
    truth = compute_scores(*sample(5_000), draws=0)[name]
    inside = []
    for _ in range(200):
        low, high = compute_scores(*sample(people))[f"{name}_ci"] or (truth, truth)
        inside.append(low <= truth <= high)
    assert np.mean(inside) >= 0.95 - 2.5 * np.sqrt(0.95 * 0.05 / 200)


def test_the_mean_over_seeds_is_compared_on_the_same_draws():
    ours, theirs = [labels(0.9, seed=s) for s in range(3)], [labels(0.8, seed=s + 10) for s in range(3)]
    over_seeds = compare(ours, theirs, AID, draws=300)
    mean = [np.mean([score(rows, AID, draws=0)["f1_weighted"] for rows in side]) for side in (ours, theirs)]
    assert over_seeds["difference"] == pytest.approx(mean[0] - mean[1])
    one_seed = compare(ours[:1], theirs[:1], AID, draws=300)
    assert np.ptp(over_seeds["difference_ci"]) < np.ptp(one_seed["difference_ci"])


def test_answers_to_different_questions_are_not_compared():
    with pytest.raises(ValueError, match="same questions"):
        compare([labels(0.9)], [labels(0.9)[1:]], AID)


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_a_difference_from_rows_equals_the_one_from_sums(kind, monkeypatch):
    make, task, name = (
        (labels, AID, "f1_weighted") if kind == "classification" else (numbers, SPEED, "pearson_r")
    )
    sides = [of_people(make(0.9 if make is labels else 0.1), 7)], [of_people(make(0.5, 1), 7)]
    fast = compare(*sides, task, draws=50)
    monkeypatch.setitem(METRICS, name, replace(METRICS[name], from_sums=None))
    slow = compare(*sides, task, draws=50)
    assert slow.pop("difference_ci") == pytest.approx(fast.pop("difference_ci"))
    assert slow == pytest.approx(fast)


def test_a_participant_without_a_number_leaves_the_difference_of_the_others_defined():
    rows = numbers(0.4)
    silent = rows["participant"] == "p3"
    with_silence = rows.assign(value_predicted=rows["value_predicted"].where(~silent))
    result = compare([with_silence], [numbers(0.5, 1)], SPEED, draws=50)
    assert result["p"] is not None
    assert result["difference_ci"] is not None
    mute = compare([rows.assign(value_predicted=np.nan)], [rows], SPEED, draws=50)
    assert (mute["difference"], mute["p"], mute["no_p"]) == (None, None, "the score is undefined")


@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=12))
@hypothesis_settings(max_examples=60, deadline=None)
def test_a_holm_p_lies_between_the_raw_and_the_bonferroni_p_and_keeps_the_order(p):
    adjusted = holm(p)
    pairs = zip(p, adjusted, strict=True)
    assert all(raw <= after <= min(1, raw * len(p)) + 1e-12 for raw, after in pairs)
    assert adjusted[int(np.argmin(p))] == pytest.approx(min(1, min(p) * len(p)))
    order = np.argsort(p, kind="stable")
    assert (np.diff(np.array(adjusted)[order]) >= -1e-12).all()
    assert (np.array(adjusted) >= false_discovery_control(p) - 1e-9).all()


def test_holm_gives_a_textbooks_result():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_each_subgroup_has_its_own_score_and_a_tasks_own_column_gives_no_subgroups():
    rows = labels(0.9)
    rows["label_predicted"] = np.where(rows["sex"] == "f", rows["label_true"], rows["label_predicted"])
    groups = pd.DataFrame(subgroups(rows.assign(assistive_device="cane", aid="x"), AID, draws=50))
    assert set(groups["by"]) == {"age", "sex"}
    assert groups.groupby("by")["n"].sum().tolist() == [100, 100]
    women = groups[groups["group"] == "f"].iloc[0]
    assert (women["value"], women["participants"]) == (1, 10)
    assert groups.loc[groups["by"] == "age", "group"].tolist() == ["below 40", "40 to 64", "65 and older"]
    men = rows[rows["sex"] == "m"]
    by_hand = compute_scores(
        "classification", men["label_true"], men["label_predicted"], men["participant"], draws=50
    )
    assert groups[groups["group"] == "m"].iloc[0]["value_ci"] == by_hand["f1_weighted_ci"]


def test_agreement_is_the_share_of_equal_pairs_of_wordings():
    rows = labels(1, people=2, trials=1).assign(
        template_answers=[["a cane", "a cane", "no device"], ["a cane", "a cane", "a cane"]]
    )
    assert template_agreement(rows, AID) == {"templates": {"n": 3, "agreement": pytest.approx(4 / 6)}}
    numeric = rows.assign(template_answers=[["1.00 m/s", "1.20 m/s"], ["0.50 m/s", "0.50 m/s"]])
    assert template_agreement(numeric, SPEED) == {
        "templates": {"n": 2, "mean_abs_difference": pytest.approx(0.1)}
    }
    assert template_agreement(rows.assign(template_answers=[["a cane"], ["a cane"]]), AID) == {}
    assert template_agreement(labels(1), AID) == {}


def test_a_participants_answer_is_the_most_probable_label_on_average():
    truth = ["cane"] * 3 + ["none"] * 3
    rows = labels(1, people=2, trials=3).assign(
        label_true=truth, label_predicted=["cane", "cane", "none", "none", "none", "cane"], temperature=1.0,
        coverage_guaranteed=False,
        labels=[["cane", "none"], ["cane", "none"], ["none", "cane"], ["none", "cane"], ["none", "cane"],
                 ["cane", "none"]],
        probabilities=[[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.7, 0.3], [0.6, 0.4], [0.9, 0.1]],
        prediction_set=[["cane"]] * 6,
    )  # fmt: skip
    together = calibration_scores(rows, AID, draws=0)["by_participant"]
    # p0: cane .9 .8 .4; p1: cane .3 .4 .9, which is more than none's .7 .6 .1.
    assert together == {"accuracy": 0.5, "participants": 2}
    mixed = rows.assign(label_true=["cane", "none"] * 3)
    assert "by_participant" not in calibration_scores(mixed, AID, draws=0)


def test_metrics_cover_all_tasks_and_p_values_are_adjusted_for_one_another():
    rows = pd.concat(
        [
            *(labels(0.95), labels(0.6, 1, source="xgboost"), labels(0.9, 2, source="gait")),
            *(numbers(0.1), numbers(0.5, 1, source="minirocket"), labels(0.5, 3, source="chance")),
        ]
    )
    metrics = compute_metrics(rows, ABOUT)
    assert list(metrics["tasks"]["aid"]) == ["model", "xgboost", "gait", "chance"]
    compared = {(row["task"], row["against"]) for row in metrics["comparisons"]}
    assert compared == {("aid", "xgboost"), ("aid", "gait"), ("speed", "minirocket")}
    p = [c["p"] for c in metrics["comparisons"]]
    assert [c["p_holm"] for c in metrics["comparisons"]] == holm(p)
    assert {g["task"] for g in metrics["subgroups"]} == {"aid", "speed"}
    json.dumps(metrics, allow_nan=False)


def test_one_command_writes_page_and_metrics_again_without_a_cluster(tmp_path):
    rows = pd.concat([labels(0.9), labels(0.6, 1, source="xgboost"), numbers(0.2)])
    answers_table.write(str(tmp_path / "answers.parquet"), rows, ABOUT)
    job = Path(__file__).parents[2] / "jobs/show.py"
    code = (
        "import sys, runpy, ray\n"
        "def never(*a, **k): raise AssertionError('Ray was started')\n"
        "ray.init = never\n"
        f"sys.argv = ['show.py', {str(tmp_path / 'answers.parquet')!r}, '--output', {str(tmp_path / 'out')!r}]\n"
        f"runpy.run_path({str(job)!r}, run_name='__main__')\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    written = json.loads((tmp_path / "out/metrics.json").read_text())
    assert written["model"].pop("path").endswith("/m")  # where it is, seen from the page
    assert written.pop("seconds") == {"total": 0}
    assert {**written, "seconds": {}} == compute_metrics(rows, ABOUT)
    page = (tmp_path / "out/report.html").read_text()
    for text in (
        "Differences between model and baselines",
        "XGBoost, tokens",
        "Subgroups of participants",
        "TRIPOD",
    ):
        assert text in page
    assert "synthetic" in page
    assert not {"nan", "None", "Undefined"} & set(page.replace("<", " ").replace(">", " ").split())


@pytest.mark.parametrize("content", [None, b"PAR?", "plain"])
def test_a_file_without_an_answers_table_is_refused_by_name(tmp_path, content):
    file = tmp_path / "answers.parquet"
    if content == "plain":
        labels(1).to_parquet(file)
    elif content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=r"answers\.parquet: expected an evaluation's"):
        answers_table.read(str(file))


def test_minirocket_equals_the_papers_definition_on_one_channel():
    """Against the definition, written out: kernels, dilation, zero padding, share above the bias."""
    rng = np.random.default_rng(0)
    series = [rng.normal(size=(n, 1)) for n in (40, 60, 90)]
    rocket = MiniRocket(series)
    features = rocket.features(series[1]).reshape(len(DILATIONS), len(KERNELS), BIASES)
    x = (series[1][:, 0] - rocket.mean[0]) / rocket.scale[0]
    for d, k in ((0, 0), (2, 17), (4, 83)):
        weights = np.full(9, -1.0)
        weights[list(KERNELS[k])] = 2
        padded = np.pad(x, 4 * DILATIONS[d])
        out = sum(w * padded[i * DILATIONS[d] : i * DILATIONS[d] + len(x)] for i, w in enumerate(weights))
        share = (out[:, None] > rocket.biases[d, k]).mean(axis=0)
        assert features[d, k] == pytest.approx(share, abs=2 / len(x))
    assert len(KERNELS) == 84


def predictions(baseline, *problem):
    return BASELINES[baseline].fit_predict(Problem(*problem)).values


def test_minirocket_finds_a_rhythm_that_a_mean_does_not_show():
    rng = np.random.default_rng(1)

    def walk(hz):
        time_s = np.arange(int(rng.integers(90, 200))) / 30
        swing = np.stack([np.sin(2 * np.pi * hz * time_s), np.cos(2 * np.pi * hz * time_s)], axis=1)
        return swing + 0.3 * rng.normal(size=swing.shape)

    pace = rng.uniform(0.5, 2, 80)
    series = [walk(hz) for hz in pace]
    rocket = MiniRocket(series[:20])
    X = np.stack([rocket.features(movement) for movement in series])
    groups = [f"p{i // 4}" for i in range(60)]
    predicted = predictions("minirocket", "regression", X[:60], pace[:60], groups, X[60:])
    assert np.corrcoef(predicted, pace[60:])[0, 1] > 0.95
    speed_labels = np.where(pace > 1.2, "quick", "slow")
    predicted_labels = predictions("minirocket", "classification", X[:60], speed_labels[:60], groups, X[60:])
    assert (predicted_labels == speed_labels[60:]).mean() > 0.85


def test_a_linear_model_takes_missing_features_few_trials_and_a_single_label():
    rng = np.random.default_rng(2)
    X = rng.normal(size=(60, 3))
    y = np.where(X[:, 0] > 0, "yes", "no")
    X[::7, 1] = np.nan
    X[:, 2] = np.nan
    groups = [f"p{i // 5}" for i in range(60)]
    assert (predictions("gait", "classification", X, y, groups, X) == y).mean() > 0.9
    few = predictions("gait", "classification", X[:6], y[:6], groups[:6], X)
    assert set(few) <= {"yes", "no"}
    assert set(predictions("gait", "classification", X, np.array(["one"] * 60), groups, X)) == {"one"}


def test_length_alone_predicts_a_timed_test_and_not_a_label_that_does_not_depend_on_it():
    rng = np.random.default_rng(0)
    frames = rng.integers(20, 200, 120)
    tokens = [rng.integers(0, 8, n).tolist() for n in frames]
    inputs = BaselineInputs(
        Artifact("nowhere", {}),
        pd.DataFrame({"tokens": tokens}),
        np.empty((120, 0)),
        8,
        0,
        mirrored=[codes[::-1] for codes in tokens],
    )
    groups = [f"p{i // 4}" for i in range(80)]
    seconds = frames / 10 + rng.normal(size=120)
    X = BASELINES["length"].features(inputs)
    timed = predictions("length", "regression", X[:80], seconds[:80], groups, X[80:])
    assert np.corrcoef(timed, seconds[80:])[0, 1] > 0.9
    words = rng.choice(["yes", "no"], 120)
    guessed = predictions("length", "classification", X[:80], words[:80], groups, X[80:])
    assert (guessed == words[80:]).mean() < 0.75
    views = BASELINES["xgboost_augmented"].features(inputs)
    assert views.shape == (120, 2, 9)
    assert views[:, 0, -1].tolist() == frames.tolist()
    timed = predictions("xgboost_augmented", "regression", views[:80], seconds[:80], groups, views[80:])
    assert np.corrcoef(timed, seconds[80:])[0, 1] > 0.9


def test_the_augmented_baseline_answers_a_movement_and_its_mirror_image_alike():
    rng = np.random.default_rng(0)
    y = rng.choice(["cane", "none"], 60)
    own = [[0, 2] * 9 if label == "cane" else [2, 3] * 9 for label in y]
    mirrored = [[1, 2] * 9 if label == "cane" else [2, 3] * 9 for label in y]
    inputs = BaselineInputs(
        Artifact("nowhere", {}), pd.DataFrame({"tokens": own}), np.empty((60, 0)), 4, 0, mirrored=mirrored
    )
    X, groups = BASELINES["xgboost_augmented"].features(inputs), [f"p{i // 3}" for i in range(60)]
    assert (predictions("xgboost_augmented", "classification", X, y, groups, X[:, ::-1]) == y).all()


@pytest.mark.parametrize(
    ("value", "interval", "references", "failed"),
    [
        (0.45, [0.3, 0.6], {"chance": 0.60, "majority": 0.57}, "not above chance (0.60)"),
        (0.70, [0.5, 0.8], {"chance": 0.60, "majority": 0.57}, "interval reaches chance (0.60)"),
        (0.80, [0.7, 0.9], {"chance": 0.60}, None),
        (0.80, [0.7, 0.9], {}, None),
        (None, None, {"chance": 0.6}, None),
    ],
)
def test_a_result_that_is_not_above_chance_or_majority_is_failed(value, interval, references, failed):
    by_source = {"model": {"f1_weighted": value, "f1_weighted_ci": interval}}
    by_source |= {name: {"f1_weighted": score} for name, score in references.items()}
    assert reason_of_failure(by_source) == failed


def test_a_correlation_that_is_not_above_zero_is_failed():
    negative = {"model": {"pearson_r": -0.1, "pearson_r_ci": None}}
    assert reason_of_failure(negative) == "not above no correlation (0.00)"
    good = {"model": {"pearson_r": 0.8, "pearson_r_ci": [0.4, 0.9]}, "majority": {"pearson_r": None}}
    assert reason_of_failure(good) is None


def test_five_people_with_one_trial_each_give_a_report_that_says_there_are_too_few(tmp_path):
    rows = pd.concat([labels(0.9, people=5, trials=1), labels(0.5, 1, people=5, trials=1, source="xgboost"),
                      numbers(0.2).iloc[::5][:5], numbers(0.5, source="xgboost").iloc[::5][:5]])  # fmt: skip
    answers_table.write(str(tmp_path / "answers.parquet"), rows, ABOUT)
    metrics = write_report(str(tmp_path / "answers.parquet"), str(tmp_path / "out"))
    json.dumps(metrics, allow_nan=False)
    assert {c["no_p"] for c in metrics["comparisons"]} == {"fewer than 6 participants"}
    page = (tmp_path / "out/report.html").read_text()
    assert "Too few participants" in page
    answers_table.write(str(tmp_path / "one.parquet"), labels(1, people=1, trials=4), ABOUT)
    write_report(str(tmp_path / "one.parquet"), str(tmp_path / "one"))
    assert "1 participant<" in (tmp_path / "one/report.html").read_text()


@pytest.mark.parametrize(
    ("other_cohorts", "said"),
    [
        ({"parts": ["tokenizer"], "participants": ["p3"]},
         "another cohort: tokenizer. <strong>In its training or validation split it has 1 participant of the same "
         "name: p3. Their results are not of unseen people"),
        ({"parts": ["base", "adapter"], "participants": []},
         "another cohort: base, adapter. It has none of these participants"),
        ({"parts": [], "participants": []}, "no part of the model was trained on them"),
        ({"parts": [], "participants": [], "unchecked": True},
         "Whether the model that this one was adapted from was trained on some of these participants was not"),
        (None, "Whether the participants are unseen was not checked"),
    ],
)  # fmt: skip
def test_the_report_says_whether_the_participants_are_unseen(tmp_path, other_cohorts, said):
    # A file of an earlier version has another key, which does not tell of all parts.
    about = ABOUT | {"unheld": {"same_cohort": True, "participants": []}}
    about |= {} if other_cohorts is None else {"other_cohorts": other_cohorts}
    answers_table.write(str(tmp_path / "answers.parquet"), labels(0.9), about)
    write_report(str(tmp_path / "answers.parquet"), str(tmp_path / "out"))
    page = " ".join((tmp_path / "out/report.html").read_text().split())
    assert said in page
    assert ("held-out participants: no part" in page) == (
        other_cohorts is not None and not other_cohorts["parts"] and "unchecked" not in other_cohorts
    )


def test_the_report_says_what_an_adaptation_kept_and_why(tmp_path):
    decisions = [
        {"what": "tokenizer", "kept": "adapted", "measure": "RMSE in degrees", "adapted": 3.1, "start": 4.2},
        {"what": "model", "kept": "start", "measure": "mean score", "adapted": 0.51, "start": 0.62},
    ]
    about = ABOUT | {"adaptation": {"start": "a" * 16, "data": "synthetic", "decisions": decisions}}
    answers_table.write(str(tmp_path / "answers.parquet"), labels(0.9), about)
    write_report(str(tmp_path / "answers.parquet"), str(tmp_path / "out"))
    page = " ".join((tmp_path / "out/report.html").read_text().split())
    assert f"adapted from model {'a' * 16}, trained on synthetic data" in page
    assert "of the tokenizer the adapted one (RMSE in degrees 3.100 after adaptation, 4.200 before)" in page
    assert "of the model the start as it was (mean score 0.510 after adaptation, 0.620 before)." in page
