"""What the language model is held against: XGBoost on token histograms, and the same on shuffled labels.

A trial is the normalised histogram of its motion tokens, a task one model, as in the paper: randomized
search with 3-fold cross-validation grouped by participant. Knows nothing about language models.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import ray
from sklearn.base import BaseEstimator
from sklearn.model_selection import GroupKFold, RandomizedSearchCV
from xgboost import XGBClassifier, XGBRegressor

from biomechgpt.tasks import Task, Tasks

FOLDS = 3
SPACE = {
    "n_estimators": [40, 80, 120],
    "max_depth": [2, 3, 4, 6],
    "learning_rate": [0.05, 0.1, 0.2, 0.3],
    "min_child_weight": [1, 2, 5],
    "subsample": [0.7, 0.85, 1.0],
    "colsample_bytree": [0.2, 0.4, 0.7],
}
"""What the search draws from; the defaults of `Trees` are used where there is too little to search on."""


class Trees(BaseEstimator):
    """XGBoost for text labels or numbers, refitted on whatever labels a fold happens to have.

    XGBClassifier wants labels 0..k-1 and at least two: a rare one may be absent from a fold.
    """

    def __init__(
        self,
        kind: Literal["classification", "regression"] = "classification",
        n_estimators: int = 80,
        max_depth: int = 3,
        learning_rate: float = 0.2,
        min_child_weight: float = 1,
        subsample: float = 0.85,
        colsample_bytree: float = 0.4,
        seed: int = 0,
    ) -> None:
        self.kind = kind
        self.n_estimators = n_estimators
        self.max_depth = max_depth
        self.learning_rate = learning_rate
        self.min_child_weight = min_child_weight
        self.subsample = subsample
        self.colsample_bytree = colsample_bytree
        self.seed = seed

    def fit(self, X: np.ndarray, y: np.ndarray) -> "Trees":
        settings = {name: getattr(self, name) for name in SPACE}
        # One thread a fit: the tasks run side by side. Histograms of few tokens need few bins.
        settings |= {"tree_method": "hist", "max_bin": 32, "n_jobs": 1, "random_state": self.seed}
        if self.kind == "regression":
            self.model_: Any = XGBRegressor(**settings).fit(X, y)
            return self
        self.labels_, codes = np.unique(y, return_inverse=True)
        self.model_ = XGBClassifier(**settings).fit(X, codes) if len(self.labels_) > 1 else None
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        if self.kind == "regression":
            return self.model_.predict(X).astype(float)
        if self.model_ is None:
            return np.full(len(X), self.labels_[0])
        return self.labels_[self.model_.predict(X).astype(int)]


def histograms(tokens: Sequence[Sequence[int]], codes: int) -> np.ndarray:
    """How often each code occurs in each trial: (trials, codes) float32, rows sum to 1."""
    counts = np.stack([np.bincount(np.asarray(t, dtype=int), minlength=codes) for t in tokens])
    return (counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)).astype(np.float32)


def search(
    X: np.ndarray, y: np.ndarray, groups: Sequence[str], kind: str, *, draws: int, seed: int
) -> dict[str, Any]:
    """The best of `draws` settings by cross-validation: {"parameters", "searched", "note"}.

    X: (trials, codes); y: labels or numbers; groups: participants. With fewer than three participants,
    one label or no draws, nothing is searched and the note says why.
    """
    people = len(set(groups))
    note = None
    if draws < 1:
        note = "no search asked for"
    elif people < FOLDS:
        note = f"no search: {people} training participants, {FOLDS} folds"
    elif len(np.unique(y)) < 2:
        note = "no search: the training trials have one value only"
    if note:
        return {"parameters": {}, "searched": False, "note": note}
    found = RandomizedSearchCV(
        Trees(kind=kind, seed=seed),  # type: ignore[arg-type]
        SPACE,
        n_iter=draws,
        scoring="f1_weighted" if kind == "classification" else "r2",
        cv=GroupKFold(FOLDS),
        random_state=seed,
        refit=False,
        error_score="raise",
    ).fit(X, y, groups=np.asarray(groups))
    return {
        "parameters": found.best_params_,
        "searched": True,
        "note": None,
        "cross_validated": round(float(found.best_score_), 4),
    }


def predict(
    X: np.ndarray,
    y: np.ndarray,
    groups: Sequence[str],
    X_test: np.ndarray,
    kind: str,
    *,
    draws: int,
    seed: int,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Predictions for X_test of XGBoost and of chance, and what the search found."""
    found = search(X, y, groups, kind, draws=draws, seed=seed)
    shuffled = np.random.default_rng(seed).permutation(y)
    made = {
        source: Trees(kind=kind, seed=seed, **found["parameters"]).fit(X, labels).predict(X_test)  # type: ignore[arg-type]
        for source, labels in (("xgboost", y), ("chance", shuffled))
    }
    return made, found


def run(
    trials: pd.DataFrame,
    asked: pd.DataFrame,
    tasks: Tasks,
    codes: int,
    *,
    draws: int,
    seed: int,
) -> tuple[pd.DataFrame, dict[str, dict[str, Any]]]:
    """Baselines of every task as Ray tasks, a CPU each; wants Ray connected.

    trials: `trial`, `participant`, `split`, `tokens` and the annotation columns; those of split train teach.
    asked: the model's answers table; the baselines predict for exactly these rows.
    Returns an answers table with source "xgboost" and "chance", and by task what the search found.
    """
    X = ray.put(histograms(trials["tokens"].tolist(), codes))
    place = {trial: i for i, trial in enumerate(trials["trial"])}
    annotations = trials.drop(columns=["tokens"]).to_dict("records")
    annotations = [{k: None if pd.isna(v) else v for k, v in row.items()} for row in annotations]
    pending, tables, found = {}, [], {}
    for name, task in tasks.items():
        if not task.annotated or task.compare or not (asked["task"] == name).any():
            continue
        taught = [i for i, r in enumerate(annotations) if r["split"] == "train" and task.applies(r)]
        tested = [place[trial] for trial in asked.loc[asked["task"] == name, "trial"]]
        if not taught:
            found[name] = {"parameters": {}, "searched": False, "note": "no training trials"}
            continue
        y = np.array([task.truth(annotations[i]) for i in taught])
        groups = [annotations[i]["participant"] for i in taught]
        pending[_predict.remote(X, taught, y, groups, tested, task.kind, draws, seed)] = name
    done = 0
    waiting = list(pending)
    made = {}
    while waiting:
        ready, waiting = ray.wait(waiting)
        name = pending[ready[0]]
        made[name], found[name] = ray.get(ready[0])
        done += 1
        print(f"baselines: {name} ({done} of {len(pending)})", flush=True)
    for name in pending.values():  # in the tasks' order, not that of finishing
        rows = asked[asked["task"] == name]
        tables += [as_answers(rows, tasks[name], values, source) for source, values in made[name].items()]
    empty = asked.iloc[:0]
    return pd.concat(tables, ignore_index=True) if tables else empty, found


@ray.remote(num_cpus=1)
def _predict(
    X: np.ndarray,
    taught: list[int],
    y: np.ndarray,
    groups: list[str],
    tested: list[int],
    kind: str,
    draws: int,
    seed: int,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    return predict(X[taught], y, groups, X[tested], kind, draws=draws, seed=seed)


def as_answers(asked: pd.DataFrame, task: Task, values: np.ndarray, source: str) -> pd.DataFrame:
    """The rows asked, answered with `values` (labels or numbers) instead of the model's text."""
    text = task.kind == "classification"
    columns: Mapping[str, Any] = {
        "answer_text": [task.answer(value) for value in values],
        "label_predicted": pd.Series([str(v) if text else None for v in values], asked.index, "object"),
        "value_predicted": np.full(len(values), np.nan) if text else np.asarray(values, dtype=float),
        "source": source,
    }
    return asked.assign(**columns)
