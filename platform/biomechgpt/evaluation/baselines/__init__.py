"""The baselines that a language model is compared with: one model per task, from features that know no language.

To add one, write a module with a class that follows `Baseline`, and list an instance of it in `BASELINES`.
Evaluation, report, statistics and comparison tables read the registry.
"""

from biomechgpt.evaluation.baselines.baseline import Baseline, BaselineInputs, Prediction, Problem
from biomechgpt.evaluation.baselines.gait import LinearOnGait
from biomechgpt.evaluation.baselines.length import RecordingLength
from biomechgpt.evaluation.baselines.majority import Majority
from biomechgpt.evaluation.baselines.minirocket import RidgeOnMiniRocket
from biomechgpt.evaluation.baselines.xgboost import ShuffledLabels, XGBoostAugmented, XGBoostOnTokens

BASELINES: dict[str, Baseline] = {
    baseline.name: baseline
    for baseline in (
        XGBoostOnTokens(),
        XGBoostAugmented(),
        RidgeOnMiniRocket(),
        LinearOnGait(),
        RecordingLength(),
        Majority(),
        ShuffledLabels(),
    )
}
"""Every baseline by its name, in the order of the report's columns."""

__all__ = ["BASELINES", "Baseline", "BaselineInputs", "Prediction", "Problem"]
