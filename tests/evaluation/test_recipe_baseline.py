"""The recipe "a baseline" of docs/extending.md, carried out: one class, one registry entry."""

import json

import numpy as np
import pandas as pd
import pytest

from biomechgpt.core.artifact import Artifact
from biomechgpt.evaluation import baselines, statistics
from biomechgpt.evaluation.baselines import Baseline, BaselineInputs, Prediction, Problem
from biomechgpt.evaluation.baselines.run import run_baselines
from biomechgpt.questions.tasks import ClassificationTask, RegressionTask

QUESTIONS = [f"Question {i}?" for i in range(8)]
TASKS = {
    "aid": ClassificationTask(
        name="aid", annotation="aid", labels={"none": "no device", "cane": "a cane"}, templates=QUESTIONS
    ),
    "speed": RegressionTask(
        name="speed", annotation="speed", unit="m/s", decimals=2, plausible=(0, 3), templates=QUESTIONS
    ),
}


class NearestTrial(Baseline):
    name = "nearest"
    label = "Nearest trial"
    description = "the answer of the training trial with the most similar motion parameters"
    kinds = ("classification",)

    def features(self, inputs: BaselineInputs) -> np.ndarray:
        return np.nan_to_num(inputs.parameters)

    def fit_predict(self, problem: Problem) -> Prediction:
        distances = np.linalg.norm(problem.X_test[:, None] - problem.X[None], axis=2)
        nearest = distances.argmin(axis=1)
        return Prediction(problem.y[nearest], {"training_trials": len(problem.X)})


def cohort() -> BaselineInputs:
    """Twelve participants, the last four held out; the first parameter tells who uses a cane."""
    who = np.repeat(np.arange(12), 3)
    trials = pd.DataFrame(
        {
            "trial": [f"t{i}" for i in range(len(who))],
            "participant": [f"p{w}" for w in who],
            "split": np.where(who < 8, "train", "test"),
            "tokens": [[0, 1]] * len(who),
            "aid": np.where(who % 2, "cane", "none"),
            "speed": 1.0 + who / 100,
        }
    )
    parameters = np.stack([who % 2, np.full(len(who), np.nan)], axis=1)
    return BaselineInputs(Artifact("nowhere", {}), trials, parameters, codebook_size=2, seed=0)


def questions(inputs: BaselineInputs) -> pd.DataFrame:
    """The model's answers table of the held-out trials; the model always answers "no device"."""
    held_out = inputs.trials[inputs.trials["split"] == "test"]
    rows = [
        {
            "trial": row.trial, "other": None, "participant": row.participant, "split": "test", "task": task,
            "kind": TASKS[task].answer_kind, "question": QUESTIONS[0], "answer_true": "",
            "answer_text": "no device",
            "label_true": row.aid if task == "aid" else None, "label_predicted": "none" if task == "aid" else None,
            "value_true": np.nan if task == "aid" else row.speed,
            "value_predicted": np.nan if task == "aid" else 1.0,
            "source": "model",
        }
        for task in TASKS
        for row in held_out.itertuples()
    ]  # fmt: skip
    return pd.DataFrame(rows)


@pytest.mark.cluster
def test_a_baseline_is_one_class_and_one_entry(ray_cluster, monkeypatch):
    monkeypatch.setitem(baselines.BASELINES, "nearest", NearestTrial())
    inputs = cohort()
    model_answers = questions(inputs)
    answers, details = run_baselines(
        inputs, model_answers, TASKS, draws=0, seed=0, baselines={"nearest": baselines.BASELINES["nearest"]}
    )
    # It answers the kinds that it is for, and exactly the questions that the model was asked.
    assert set(answers["task"]) == {"aid"}
    assert answers["trial"].tolist() == model_answers.loc[model_answers["task"] == "aid", "trial"].tolist()
    assert (answers["label_predicted"] == answers["label_true"]).all()
    assert details["aid"]["nearest"] == {"training_trials": 24}
    about = {
        "data": "synthetic", "model": {}, "tokenizer": {}, "seconds": {}, "draws": 50, "seed": 0,
        "tasks": [task.model_dump(mode="json") for task in TASKS.values()], "baselines": details,
    }  # fmt: skip
    metrics = statistics.compute_metrics(pd.concat([model_answers, answers], ignore_index=True), about)
    assert metrics["tasks"]["aid"]["nearest"]["accuracy"] == 1
    assert metrics["tasks"]["aid"]["nearest"]["training_trials"] == 24
    assert [(c["task"], c["against"]) for c in metrics["comparisons"]] == [("aid", "nearest")]
    json.dumps(metrics, allow_nan=False)
