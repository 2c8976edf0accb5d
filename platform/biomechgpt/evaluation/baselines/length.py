"""XGBoost on the number of motion tokens alone: how much of a result is the recording's length."""

import numpy as np

from biomechgpt.evaluation.baselines.baseline import Baseline, BaselineInputs, Prediction, Problem
from biomechgpt.evaluation.baselines.xgboost import XGBoostEstimator


class RecordingLength(Baseline):
    """Sees only how long was recorded. A timed test is nearly as long as its recording."""

    name = "length"
    label = "Length of recording"
    description = "XGBoost that sees only the length of the recording"

    def features(self, inputs: BaselineInputs) -> np.ndarray:
        return np.array([[len(tokens)] for tokens in inputs.trials["tokens"]], dtype=float)

    def fit_predict(self, problem: Problem) -> Prediction:
        model = XGBoostEstimator(kind=problem.kind, seed=problem.seed, max_depth=2, colsample_bytree=1.0)
        return Prediction(model.fit(problem.X, problem.y).predict(problem.X_test))
