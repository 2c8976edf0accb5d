"""A linear model of standardised features, its penalty chosen by cross-validation over participants."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.impute import SimpleImputer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from biomechgpt.evaluation.baselines.baseline import Problem
from biomechgpt.evaluation.baselines.cross_validation import FOLDS, SCORING, folds, run_search


def fit_predict_linear(
    model: BaseEstimator, grid: Mapping[str, Sequence[float]], problem: Problem
) -> np.ndarray:
    """Predictions for `problem.X_test` of `model`, a linear scikit-learn estimator. NaN marks a missing feature.

    grid: the penalty's name and its values. The middle value is used if cross-validation cannot choose: fewer than
    three participants, a fold whose training trials all have one value, or a fold with too few trials to be scored.
    """
    if len(np.unique(problem.y)) < 2:
        return np.full(len(problem.X_test), problem.y[0])
    # The indicator columns tell the model which features were missing.
    imputer = SimpleImputer(add_indicator=True, keep_empty_features=True)
    pipeline = make_pipeline(imputer, StandardScaler())
    pipeline.steps.append(("model", model))
    ((penalty, values),) = grid.items()
    parameter = f"model__{penalty}"
    chosen: dict[str, Any] = {parameter: values[len(values) // 2]}
    if _can_cross_validate(problem):
        search = GridSearchCV(
            pipeline,
            {parameter: list(values)},
            scoring=SCORING[problem.kind],
            cv=folds(),
            refit=False,
            error_score="raise",
        )
        if run_search(search, problem):
            chosen = search.best_params_
    return np.asarray(pipeline.set_params(**chosen).fit(problem.X, problem.y).predict(problem.X_test))


def _can_cross_validate(problem: Problem) -> bool:
    """Whether there are enough participants, and the training part of each fold has two different values."""
    groups = np.asarray(problem.participants)
    if len(set(groups)) < FOLDS:
        return False
    splits = folds().split(problem.X, problem.y, groups)
    return all(len(np.unique(problem.y[train])) > 1 for train, _ in splits)
