"""XGBoost on histograms of motion tokens, as in the paper, and its control on shuffled labels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.base import BaseEstimator
from sklearn.model_selection import RandomizedSearchCV
from xgboost import XGBClassifier, XGBRegressor

from biomechgpt.evaluation.baselines.baseline import Baseline, BaselineInputs, Kind, Prediction, Problem
from biomechgpt.evaluation.baselines.cross_validation import FOLDS, SCORING, folds, run_search

SEARCH_SPACE = {
    "n_estimators": [40, 80, 120],
    "max_depth": [2, 3, 4, 6],
    "learning_rate": [0.05, 0.1, 0.2, 0.3],
    "min_child_weight": [1, 2, 5],
    "subsample": [0.7, 0.85, 1.0],
    "colsample_bytree": [0.2, 0.4, 0.7],
}
"""Values that the randomized search draws from. Without a search, `XGBoostEstimator`'s defaults are used."""


class XGBoostEstimator(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no annotations
    """XGBoost for text labels or numbers, as a scikit-learn estimator.

    XGBClassifier wants labels 0..k-1 and at least two of them, but a rare label may be absent from a fold. So the
    labels are encoded anew in every fit, and a single label is predicted without a model.
    """

    def __init__(
        self,
        kind: Kind = "classification",
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

    def fit(self, X: np.ndarray, y: np.ndarray) -> "XGBoostEstimator":
        settings = {name: getattr(self, name) for name in SEARCH_SPACE}
        # One thread per fit, because tasks run side by side. Histograms of few tokens need few bins. Nine in ten
        # entries are 0: as sparse rows, in which 0 is an absent value, they take a third of the time.
        settings |= {"tree_method": "hist", "max_bin": 32, "n_jobs": 1, "random_state": self.seed}
        rows = csr_matrix(X)
        if self.kind == "regression":
            self.model_: Any = XGBRegressor(**settings).fit(rows, y)
            return self
        self.labels_, codes = np.unique(y, return_inverse=True)
        self.model_ = XGBClassifier(**settings).fit(rows, codes) if len(self.labels_) > 1 else None
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        return self.predict_mean([X])

    def predict_mean(self, views: Sequence[np.ndarray]) -> np.ndarray:
        """The label of the highest mean probability, or the mean number, over views of the same trials."""
        sparse = [csr_matrix(X) for X in views]
        if self.kind == "regression":
            return np.asarray(np.mean([self.model_.predict(X).astype(float) for X in sparse], axis=0))
        if self.model_ is None:
            return np.full(len(views[0]), self.labels_[0])
        probability = np.mean([self.model_.predict_proba(X) for X in sparse], axis=0)
        return np.asarray(self.labels_[probability.argmax(axis=1)])


def histograms(tokens: Sequence[Sequence[int]], codebook_size: int, n_posture: int = 0) -> np.ndarray:
    """How often each code occurs in each trial: (trials, codebook_size + n_posture) float32.

    The first `codebook_size` columns sum to 1. They count motion tokens; the numbers of the posture tokens, which
    are in the order of the angles, follow.
    """
    rows = [np.asarray(t, dtype=int) for t in tokens]
    counts = np.stack([np.bincount(t[n_posture:], minlength=codebook_size) for t in rows])
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    posture = np.stack([t[:n_posture] for t in rows])
    return np.concatenate([shares, posture], axis=1).astype(np.float32)


def search(problem: Problem) -> dict[str, Any]:
    """The best of `problem.draws` settings: {"parameters", "searched", "note", "cross_validated"}.

    Without a usable search "parameters" is empty, "note" gives the reason and "cross_validated" is missing.
    """
    n_participants = len(set(problem.participants))
    if problem.draws < 1:
        return _not_searched("no search asked for")
    if n_participants < FOLDS:
        return _not_searched(f"no search: {n_participants} training participants, {FOLDS} folds")
    if len(np.unique(problem.y)) < 2:
        return _not_searched("no search: the training trials have one value only")
    result = RandomizedSearchCV(
        XGBoostEstimator(kind=problem.kind, seed=problem.seed),
        SEARCH_SPACE,
        n_iter=problem.draws,
        scoring=SCORING[problem.kind],
        cv=folds(),
        random_state=problem.seed,
        refit=False,
        error_score="raise",
    )
    if not run_search(result, problem):
        return _not_searched("no search: too few trials in a fold to score it")
    return {
        "parameters": result.best_params_,
        "searched": True,
        "note": None,
        "cross_validated": round(float(result.best_score_), 4),
    }


def _not_searched(note: str) -> dict[str, Any]:
    return {"parameters": {}, "searched": False, "note": note}


class XGBoostOnTokens(Baseline):
    """XGBoost on histograms of motion tokens."""

    name = "xgboost"
    label = "XGBoost, tokens"
    description = "XGBoost on histograms of motion tokens, with a randomized search"
    paper_row = "XGBoost"

    def features(self, inputs: BaselineInputs) -> np.ndarray:
        return histograms(inputs.trials["tokens"].tolist(), inputs.codebook_size, inputs.n_posture)

    def fit_predict(self, problem: Problem) -> Prediction:
        details = search(problem)
        model = XGBoostEstimator(kind=problem.kind, seed=problem.seed, **details["parameters"])
        return Prediction(model.fit(problem.X, problem.y).predict(problem.X_test), details)


class XGBoostAugmented(Baseline):
    """XGBoost with what the language model gets: mirror images in training and answers, and the length."""

    name = "xgboost_augmented"
    label = "XGBoost, augmented"
    description = (
        "XGBoost on token histograms and the recording's length, trained on movements and their mirror images and "
        "averaged over both, with the settings that the search for XGBoost on tokens found"
    )
    settings_of = "xgboost"

    def features(self, inputs: BaselineInputs) -> np.ndarray:
        """(trials, views, codes + 1): a movement and its mirror image, if the tokens have any; then the length."""
        own = inputs.trials["tokens"].tolist()
        views = [own, inputs.mirrored] if len(inputs.mirrored) else [own]
        return np.stack(
            [_with_length(tokens, inputs.codebook_size, inputs.n_posture) for tokens in views], axis=1
        )

    def fit_predict(self, problem: Problem) -> Prediction:
        # A problem of one view, such as a test's, has no axis of views.
        X, X_test = (x if x.ndim == 3 else x[:, None] for x in (problem.X, problem.X_test))
        n_views = X.shape[1]
        rows, y = X.reshape(-1, X.shape[-1]), np.repeat(problem.y, n_views)
        parameters = problem.used.get("parameters", {})
        model = XGBoostEstimator(kind=problem.kind, seed=problem.seed, **parameters).fit(rows, y)
        return Prediction(model.predict_mean([X_test[:, view] for view in range(n_views)]), problem.used)


def _with_length(tokens: Sequence[Sequence[int]], codebook_size: int, n_posture: int) -> np.ndarray:
    lengths = np.array([[len(codes)] for codes in tokens], dtype=np.float32)
    return np.concatenate([histograms(tokens, codebook_size, n_posture), lengths], axis=1)


class ShuffledLabels(Baseline):
    """XGBoost with the same settings, trained on shuffled labels: the score that chance reaches."""

    name = "chance"
    label = "Chance"
    description = "chance, which is the same XGBoost trained on shuffled labels"
    is_competitor = False
    paper_row = "chance"
    uses = "xgboost"

    def fit_predict(self, problem: Problem) -> Prediction:
        shuffled = np.random.default_rng(problem.seed).permutation(problem.y)
        model = XGBoostEstimator(kind=problem.kind, seed=problem.seed, **problem.used["parameters"])
        return Prediction(model.fit(problem.X, shuffled).predict(problem.X_test))
