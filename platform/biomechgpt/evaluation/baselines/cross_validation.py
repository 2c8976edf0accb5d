"""Choosing settings by cross-validation, with all trials of a participant in the same fold."""

import math
import warnings

import numpy as np
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.model_selection import GroupKFold
from sklearn.model_selection._search import BaseSearchCV

from biomechgpt.evaluation.baselines.baseline import Kind, Problem

FOLDS = 3
SCORING: dict[Kind, str] = {"classification": "f1_weighted", "regression": "r2"}
"""scikit-learn's name of the score that is maximised."""


def folds() -> GroupKFold:
    """The folds. A participant's trials are all in the same one, so no score is of a person seen in training."""
    return GroupKFold(FOLDS)


def run_search(search: BaseSearchCV, problem: Problem) -> bool:
    """Fit a search that was made with `refit=False`. Returns whether it could choose.

    r2 of a fold with one trial is NaN. If every setting scores NaN, scikit-learn's "best" one is arbitrary.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        warnings.filterwarnings("ignore", "One or more of the test scores are non-finite", UserWarning)
        search.fit(problem.X, problem.y, groups=np.asarray(problem.participants))
    return math.isfinite(search.best_score_)
