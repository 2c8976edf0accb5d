"""Settings of an evaluation. Importing them loads neither Ray nor scikit-learn."""

from pydantic import Field

from biomechgpt.core.settings import Settings


class EvaluationSettings(Settings):
    """How a model's answers are evaluated."""

    baselines: bool = True
    """Whether baselines answer the same questions."""
    draws: int = Field(2000, ge=0)
    """Random exchanges of participants for each p value, where there are too many to try all. 0: no p and no
    interval."""
    search: int = Field(8, ge=0)
    """Settings that the randomized search of XGBoost tries for each task."""
    seed: int = 0
    """Seed of the exchanges, the search and the baselines."""
    note: str = ""
    """Text at the top of the report, such as a warning that the model was trained in a hurry."""
