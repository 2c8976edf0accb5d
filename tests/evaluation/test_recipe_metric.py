"""The recipe "a metric" of docs/extending.md, carried out: one registry entry."""

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

from biomechgpt.evaluation import answers_table
from biomechgpt.evaluation.metrics import METRICS, Metric, compute_scores, metrics_of
from biomechgpt.evaluation.report import write_report
from biomechgpt.questions.tasks import ClassificationTask

QUESTIONS = [f"Question {i}?" for i in range(8)]
AID = ClassificationTask(
    name="aid", annotation="aid", labels={"none": "no device", "cane": "a cane"}, templates=QUESTIONS
)


def balanced_accuracy(truth: np.ndarray, guess: np.ndarray) -> float:
    """Mean recall of the labels."""
    return float(np.mean([(guess[truth == label] == label).mean() for label in np.unique(truth)]))


@pytest.fixture
def metric(monkeypatch):
    entry = Metric("balanced_accuracy", "balanced accuracy", ("classification",), balanced_accuracy, True)
    monkeypatch.setitem(METRICS, entry.name, entry)
    return entry


def labels(people: int = 8, trials: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    truth = rng.choice(["none", "cane"], people * trials, p=[0.8, 0.2])
    guess = np.where(rng.random(len(truth)) < 0.8, truth, "none")
    return truth, guess, np.repeat([f"p{i}" for i in range(people)], trials)


def test_a_metric_has_its_value_and_interval(metric):
    truth, guess, people = labels()
    scores = compute_scores("classification", truth, guess, people, draws=200)
    assert scores["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(truth, guess))
    low, high = scores["balanced_accuracy_ci"]
    assert low < scores["balanced_accuracy"] < high
    assert metric in metrics_of("classification")


def test_an_interval_from_rows_equals_the_one_from_sums(metric, monkeypatch):
    """A second accuracy without the fast formula has the same interval."""
    slow = Metric("slow_accuracy", "accuracy", ("classification",), sk.accuracy_score, True, bounds=(0, 1))
    monkeypatch.setitem(METRICS, slow.name, slow)
    scores = compute_scores("classification", *labels(), draws=100)
    assert scores["slow_accuracy_ci"] == pytest.approx(scores["accuracy_ci"])


def test_the_report_has_its_column(metric, tmp_path):
    truth, guess, people = labels()
    rows = pd.DataFrame(
        {
            "trial": [f"t{i}" for i in range(len(truth))], "other": None, "participant": people, "split": "test",
            "task": "aid", "kind": "classification", "question": QUESTIONS[0], "source": "model",
            "answer_true": [AID.answer(label) for label in truth],
            "answer_text": [AID.answer(label) for label in guess],
            "label_true": truth, "label_predicted": guess, "value_true": np.nan, "value_predicted": np.nan,
        }
    )  # fmt: skip
    about = {
        "data": "synthetic", "stand_in": True, "model": {"uri": "m", "fingerprint": "f" * 16, "base": "small"},
        "tokenizer": {"rmse_deg_tracked": 5.0, "rmse_deg_all": 5.0, "perplexity": 9.0},
        "tasks": [AID.model_dump(mode="json")], "baselines": {}, "seconds": {}, "settings": {}, "made_from": {},
        "made": "today", "draws": 50, "seed": 0,
    }  # fmt: skip
    answers_table.write(str(tmp_path / "answers.parquet"), rows, about)
    metrics = write_report(str(tmp_path / "answers.parquet"), str(tmp_path / "out"))
    value = metrics["tasks"]["aid"]["model"]["balanced_accuracy"]
    page = (tmp_path / "out/report.html").read_text()
    assert "<th>balanced accuracy<small>higher is better</small>" in page
    assert f"<td>{value:.2f}" in page
