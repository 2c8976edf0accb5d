"""What the language model is held against: a model a task, from features of a trial that know nothing of language.

xgboost, as in the paper: the normalised histogram of its motion tokens, randomized search with 3-fold
cross-validation grouped by participant; chance is the same on shuffled labels. rocket: MiniRocket features of its
joint angles and a ridge. gait: what is measured of it (`cohort.facts`) and a logistic or ridge regression.
majority: the commonest label, the median number. Linear models' penalty is chosen by the same folds.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import ray
import torch
from sklearn.base import BaseEstimator
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.model_selection import GridSearchCV, GroupKFold, RandomizedSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from xgboost import XGBClassifier, XGBRegressor

from biomechgpt.cohort.shards import Cohort, Shard
from biomechgpt.core.artifact import Artifact
from biomechgpt.evaluation.minirocket import MiniRocket
from biomechgpt.motion.skeleton import N_JOINTS
from biomechgpt.questions.tasks import AnnotatedTask, PredictionTask, Tasks

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
    """Predictions for X_test (histograms) of XGBoost, of chance and of the commonest answer, and what the search
    found."""
    found = search(X, y, groups, kind, draws=draws, seed=seed)
    shuffled = np.random.default_rng(seed).permutation(y)
    made = {
        source: Trees(kind=kind, seed=seed, **found["parameters"]).fit(X, labels).predict(X_test)  # type: ignore[arg-type]
        for source, labels in (("xgboost", y), ("chance", shuffled))
    }
    dummy = DummyClassifier() if kind == "classification" else DummyRegressor(strategy="median")
    return made | {"majority": dummy.fit(X, y).predict(X_test)}, found


PENALTIES = {
    "rocket": {"ridge__alpha": [10.0, 100.0, 1e3, 1e4, 1e5]},
    "gait": {"ridge__alpha": [0.1, 1.0, 10.0, 100.0], "logistic__C": [0.01, 0.1, 1.0, 10.0]},
}


def linear(
    source: str, X: np.ndarray, y: np.ndarray, groups: Sequence[str], X_test: np.ndarray, kind: str
) -> np.ndarray:
    """Predictions of a linear model of standardised features (NaN: not known), its penalty cross-validated.

    X: (trials, features). With fewer than three participants or one value the penalty is the middle one.
    """
    labels = kind == "classification"
    if len(np.unique(y)) < 2:
        return np.full(len(X_test), y[0])
    if labels and source == "gait":
        step, model = "logistic__C", ("logistic", LogisticRegression(max_iter=2000))
    else:
        step, model = "ridge__alpha", ("ridge", RidgeClassifier() if labels else Ridge())
    whole = make_pipeline(SimpleImputer(add_indicator=True, keep_empty_features=True), StandardScaler())
    whole.steps.append(model)
    among = PENALTIES[source][step]
    folds = GroupKFold(FOLDS)
    several = len(set(groups)) >= FOLDS and all(
        len(np.unique(y[train])) > 1 for train, _ in folds.split(X, y, np.asarray(groups))
    )
    if not several:
        return whole.set_params(**{step: among[len(among) // 2]}).fit(X, y).predict(X_test)
    scoring = "f1_weighted" if labels else "r2"
    tried = GridSearchCV(whole, {step: among}, scoring=scoring, cv=folds, error_score="raise")
    return tried.fit(X, y, groups=np.asarray(groups)).predict(X_test)


def run(
    trials: pd.DataFrame,
    asked: pd.DataFrame,
    tasks: Tasks,
    features: Mapping[str, np.ndarray],
    *,
    draws: int,
    seed: int,
) -> tuple[pd.DataFrame, dict[str, dict[str, Any]]]:
    """Baselines of every task as Ray tasks, a CPU each; wants Ray connected.

    trials: `trial`, `participant`, `split` and the annotation columns; those of split train teach.
    features: {"xgboost": histograms, and "rocket" and "gait" where they are wanted: (trials, features) each}.
    asked: the model's answers table; the baselines predict for exactly these rows.
    Returns an answers table with the baselines' names as source, and by task what XGBoost's search found.
    """
    stored = {name: ray.put(X) for name, X in features.items()}
    place = {trial: i for i, trial in enumerate(trials["trial"])}
    annotations = trials.to_dict("records")
    annotations = [{k: None if pd.isna(v) else v for k, v in row.items()} for row in annotations]
    pending, found = {}, {}
    predicted = {name: task for name, task in tasks.items() if isinstance(task, PredictionTask)}
    for name, task in predicted.items():
        if not (asked["task"] == name).any():
            continue
        taught = [i for i, r in enumerate(annotations) if r["split"] == "train" and task.applies(r)]
        tested = [place[trial] for trial in asked.loc[asked["task"] == name, "trial"]]
        if not taught:
            found[name] = {"parameters": {}, "searched": False, "note": "no training trials"}
            continue
        y = np.array([task.truth(annotations[i]) for i in taught])
        groups = [annotations[i]["participant"] for i in taught]
        for source, X in stored.items():
            job = _predict.remote(source, X, taught, y, groups, tested, task.kind, draws, seed)
            pending[job] = (name, source)
    made: dict[tuple[str, str], tuple[dict[str, np.ndarray], dict[str, Any]]] = {}
    waiting = list(pending)
    while waiting:
        (ready,), waiting = ray.wait(waiting)
        made[pending[ready]] = ray.get(ready)
        name, source = pending[ready]
        print(f"baselines: {name}, {source} ({len(made)} of {len(pending)})", flush=True)
    tables = []
    for name, source in pending.values():  # in the tasks' order, not that of finishing
        values, searched = made[name, source]
        found[name] = found.get(name, {}) | searched
        rows = asked[asked["task"] == name]
        tables += [as_answers(rows, predicted[name], said, by) for by, said in values.items()]
    return pd.concat(tables, ignore_index=True) if tables else asked.iloc[:0], found


@ray.remote(num_cpus=1)
def _predict(
    source: str,
    X: np.ndarray,
    taught: list[int],
    y: np.ndarray,
    groups: list[str],
    tested: list[int],
    kind: str,
    draws: int,
    seed: int,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    if source == "xgboost":
        return predict(X[taught], y, groups, X[tested], kind, draws=draws, seed=seed)
    return {source: linear(source, X[taught], y, groups, X[tested], kind)}, {}


ROCKET_SEES = 32
"""Training trials, spread over the cohort, that MiniRocket's thresholds are taken from."""


def rocket(cohort: Artifact, trials: pd.DataFrame, seed: int) -> np.ndarray:
    """MiniRocket's features of a cohort's joint angles, a row a trial of `trials`: (trials, 5040) float32."""
    training = trials.loc[trials["split"] == "train", "trial"]
    drawn = set(training.iloc[:: -(-len(training) // ROCKET_SEES)])
    opened = Cohort(cohort)
    shown = [series for part in opened.map_shards(lambda shard: _drawn(shard, drawn))
             for series in part["series"]]  # fmt: skip
    fitted = ray.put(MiniRocket([np.asarray(series).reshape(-1, N_JOINTS) for series in shown], seed))
    rows: dict[str, np.ndarray] = {}
    for part in opened.map_shards(lambda shard: _features(shard, fitted)):
        X = np.asarray(part["features"], dtype=np.float32).reshape(len(part["trials"]), -1)
        rows |= dict(zip(part["trials"], X, strict=True))
    return np.stack([rows[trial] for trial in trials["trial"]])


def _drawn(shard: Shard, drawn: set[str]) -> dict[str, Any]:
    return {"series": [t.angles_rad.ravel() for t in shard.trials(names=drawn)]}


def _features(shard: Shard, fitted: Any) -> dict[str, Any]:
    torch.set_num_threads(1)
    rocket = ray.get(fitted)
    names, rows = [], []
    for t in shard.trials():
        names.append(t.trial)
        rows.append(rocket.features(t.angles_rad))
    return {"trials": names, "features": np.concatenate(rows)}


def as_answers(asked: pd.DataFrame, task: AnnotatedTask, values: np.ndarray, source: str) -> pd.DataFrame:
    """The rows asked, answered with `values` (labels or numbers) instead of the model's text."""
    text = task.answer_kind == "classification"
    columns: Mapping[str, Any] = {
        "answer_text": [task.answer(value) for value in values],
        "label_predicted": pd.Series([str(v) if text else None for v in values], asked.index, "object"),
        "value_predicted": np.full(len(values), np.nan) if text else np.asarray(values, dtype=float),
        "source": source,
    }
    return asked.assign(**columns)
