"""A linear model of the measured motion parameters: speed, cadence, joint ranges and others.

Unlike motion tokens, the parameters include how far the pelvis travels.
"""

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression, Ridge

from biomechgpt.evaluation.baselines.baseline import Baseline, BaselineInputs, Prediction, Problem
from biomechgpt.evaluation.baselines.linear import fit_predict_linear


class LinearOnGait(Baseline):
    """Logistic or ridge regression on measured motion parameters."""

    name = "gait"
    label = "Linear, gait parameters"
    description = "a linear model of the measured gait parameters, which include how far the pelvis travels"

    def features(self, inputs: BaselineInputs) -> np.ndarray:
        return inputs.parameters

    def fit_predict(self, problem: Problem) -> Prediction:
        model: BaseEstimator
        if problem.kind == "classification":
            model, grid = LogisticRegression(max_iter=2000), {"C": [0.01, 0.1, 1.0, 10.0]}
        else:
            model, grid = Ridge(), {"alpha": [0.1, 1.0, 10.0, 100.0]}
        return Prediction(fit_predict_linear(model, grid, problem))
