"""The majority label, or the median number: the score of a model that ignores the movement."""

from sklearn.dummy import DummyClassifier, DummyRegressor

from biomechgpt.evaluation.baselines.baseline import Baseline, Prediction, Problem


class Majority(Baseline):
    """The most frequent label or the median number of the training trials."""

    name = "majority"
    label = "Majority"
    description = "the majority label or the median number"
    is_competitor = False

    def fit_predict(self, problem: Problem) -> Prediction:
        classification = problem.kind == "classification"
        model = DummyClassifier() if classification else DummyRegressor(strategy="median")
        return Prediction(model.fit(problem.X, problem.y).predict(problem.X_test))
