"""The protocol of a baseline: features of every trial once, then one fit and prediction per task.

Knows nothing about Ray, answers tables or language.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import pandas as pd

from biomechgpt.core.artifact import Artifact

Kind = Literal["classification", "regression"]


@dataclass(frozen=True)
class BaselineInputs:
    """The data that features are made from.

    cohort: the cohort artifact. `biomechgpt.cohort.Cohort` reads its joint angles.
    trials: the tokens table: `trial`, `participant`, `split`, `tokens` and the annotation columns.
    parameters: measured motion parameters, (trials, `PARAMETERS`); NaN where a trial does not have one.
    codebook_size: number of different tokens.
    n_posture: posture tokens at the beginning of each trial's tokens.
    mirrored: tokens of each trial's mirror image; empty if the tokens artifact has none.
    """

    cohort: Artifact
    trials: pd.DataFrame
    parameters: np.ndarray
    codebook_size: int
    seed: int
    mirrored: Sequence[Sequence[int]] = ()
    n_posture: int = 0


@dataclass(frozen=True)
class Problem:
    """One task for one baseline.

    X: (training trials, features), or whatever `Baseline.features` gives for these trials.
    y: labels or numbers of the training trials.
    participants: of the training trials. Cross-validation keeps the trials of a participant in one fold.
    X_test: (trials to predict, features).
    draws: settings that a randomized search tries.
    used: details of the baseline named in `Baseline.uses` or `Baseline.settings_of`.
    """

    kind: Kind
    X: np.ndarray
    y: np.ndarray
    participants: Sequence[str]
    X_test: np.ndarray
    draws: int = 0
    seed: int = 0
    used: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Prediction:
    """What a baseline predicts.

    values: a label or a number for each row of `Problem.X_test`.
    details: JSON values that metrics.json shows beside the baseline's scores, such as the chosen settings.
    """

    values: np.ndarray
    details: dict[str, Any] = field(default_factory=dict)


class Baseline(Protocol):
    """One baseline. Subclasses set the class attributes and write the methods.

    name: the value of `source` in the answers table, and the key in metrics.json.
    label: the heading of its column.
    description: one sentence for the report.
    kinds: kinds of tasks that it answers.
    is_competitor: whether the report tests the model against it. Majority and chance are only references.
    paper_row: the row of the paper's tables that is shown beside it.
    uses: name of another baseline whose features and details this one takes.
    settings_of: name of another baseline whose details this one takes, with features of its own.
    """

    name: str
    label: str
    description: str
    kinds: tuple[Kind, ...] = ("classification", "regression")
    is_competitor: bool = True
    paper_row: str | None = None
    uses: str | None = None
    settings_of: str | None = None

    def features(self, inputs: BaselineInputs) -> np.ndarray:
        """(trials, features), a row for each of `inputs.trials`. Without this method there are no features."""
        return np.empty((len(inputs.trials), 0))

    def fit_predict(self, problem: Problem) -> Prediction:
        """Fit on the training trials and predict the others. Runs in a Ray task with one CPU."""
        ...
