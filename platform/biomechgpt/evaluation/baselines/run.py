"""Every baseline answers the questions that the model answered. Each fit is a Ray task with one CPU."""

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import ray

from biomechgpt.evaluation.baselines import BASELINES
from biomechgpt.evaluation.baselines.baseline import Baseline, BaselineInputs, Prediction, Problem
from biomechgpt.questions.tasks import AnnotatedTask, PredictionTask, Tasks

logger = logging.getLogger("biomechgpt")

Details = dict[str, dict[str, Any]]
"""{baseline: its `Prediction.details`}."""


def run_baselines(
    inputs: BaselineInputs,
    questions: pd.DataFrame,
    tasks: Tasks,
    *,
    draws: int,
    seed: int,
    baselines: Mapping[str, Baseline] | None = None,
) -> tuple[pd.DataFrame, dict[str, Details]]:
    """Answers of all baselines, and {task: {baseline: details}}. Ray must be connected.

    inputs: trials of split train are fitted on.
    questions: the model's answers table; the baselines answer exactly these rows.
    draws: settings that each randomized search tries.
    baselines: default `BASELINES`. A baseline comes after the one that it `uses` or whose settings it takes.
    """
    baselines = BASELINES if baselines is None else baselines
    features = {b.name: ray.put(b.features(inputs)) for b in baselines.values() if b.uses is None}
    row_of = {trial: row for row, trial in enumerate(inputs.trials["trial"])}
    records = inputs.trials.drop(columns=["tokens"]).to_dict("records")
    annotations = [
        {name: None if pd.isna(value) else value for name, value in record.items()} for record in records
    ]
    pending: dict[tuple[str, str], Any] = {}
    details: dict[str, Details] = {}
    predicted = {name: task for name, task in tasks.items() if isinstance(task, PredictionTask)}
    for name, task in predicted.items():
        if not (questions["task"] == name).any():
            continue
        details[name] = {}
        train = [
            row
            for row, annotated in enumerate(annotations)
            if annotated["split"] == "train" and task.applies(annotated)
        ]
        test = [row_of[trial] for trial in questions.loc[questions["task"] == name, "trial"]]
        if not train:
            logger.info("baselines: %s has no training trials", name)
            continue
        y = np.array([task.truth(annotations[row]) for row in train])
        participants = [str(annotations[row]["participant"]) for row in train]
        for baseline in baselines.values():
            if task.answer_kind not in baseline.kinds:
                continue
            # Ray passes on the finished prediction of the baseline that this one uses.
            other = baseline.uses or baseline.settings_of
            used = pending[name, other] if other else None
            X = features[baseline.uses or baseline.name]
            pending[name, baseline.name] = _fit_predict.remote(
                baseline, X, train, y, participants, test, task.answer_kind, draws, seed, used
            )
    predictions = _collect(pending)
    tables = []
    for (name, source), prediction in predictions.items():
        details[name][source] = prediction.details
        rows = questions[questions["task"] == name]
        tables.append(as_answers(rows, predicted[name], prediction.values, source))
    return pd.concat(tables, ignore_index=True) if tables else questions.iloc[:0], details


@ray.remote(num_cpus=1)
def _fit_predict(
    baseline: Baseline,
    X: np.ndarray,
    train: list[int],
    y: np.ndarray,
    participants: list[str],
    test: list[int],
    kind: Any,
    draws: int,
    seed: int,
    used: Prediction | None,
) -> Prediction:
    """A Ray task. train, test: rows of X. y, participants: of the training rows."""
    details = used.details if used else {}
    return baseline.fit_predict(Problem(kind, X[train], y, participants, X[test], draws, seed, details))


def _collect(pending: Mapping[tuple[str, str], Any]) -> dict[tuple[str, str], Prediction]:
    """All predictions, in the order of `pending`. Logs each as it finishes."""
    key_of = {reference: key for key, reference in pending.items()}
    waiting = list(key_of)
    while waiting:
        (ready,), waiting = ray.wait(waiting)
        task, source = key_of[ready]
        n_done = len(key_of) - len(waiting)
        logger.info("baselines: %s, %s (%d of %d)", task, source, n_done, len(key_of))
    return {key: ray.get(reference) for key, reference in pending.items()}


def as_answers(questions: pd.DataFrame, task: AnnotatedTask, values: np.ndarray, source: str) -> pd.DataFrame:
    """The rows of `questions`, answered with `values` (labels or numbers) instead of the model's text."""
    is_label = task.answer_kind == "classification"
    labels = [str(value) if is_label else None for value in values]
    columns: Mapping[str, Any] = {
        "answer_text": [task.answer(value) for value in values],
        "label_predicted": pd.Series(labels, questions.index, "object"),
        "value_predicted": np.full(len(values), np.nan) if is_label else np.asarray(values, dtype=float),
        "source": source,
    }
    return questions.assign(**columns)
