"""Stand-in of `biomechgpt.answering.answer` until that module is there."""

from dataclasses import dataclass, field, fields
from typing import ClassVar

from pydantic import ConfigDict


@dataclass(frozen=True)
class Answer:
    """An answer to one question, with how far it can be trusted.

    A classification has labels with their probabilities, a number its median and an interval. An answer that was
    generated freely has its text only.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(use_attribute_docstrings=True)

    text: str
    """The answer in words."""
    labels: list[str] = field(default_factory=list)
    """The labels that the task can be answered with, most probable first; empty for a number."""
    probabilities: list[float] = field(default_factory=list)
    """The labels' probabilities at the task's temperature, in the order of `labels`; they sum to 1."""
    prediction_set: list[str] = field(default_factory=list)
    """The labels that cannot be ruled out, most probable first (conformal prediction)."""
    low: float | None = None
    """Lower end of a number's interval."""
    high: float | None = None
    """Upper end of a number's interval."""
    mean: float | None = None
    """Mean of a number's distribution, if it was asked for; the answer itself is the median."""
    selective_risk: float | None = None
    """Lowest error rate at which this answer is still given; answers that are less confident than it are not."""
    valid_probability: float | None = None
    """Probability that the model gives to all valid answers together; of a number, to valid first tokens."""
    temperature: float | None = None
    """Temperature that was applied to the label probabilities."""
    coverage_guaranteed: bool = False
    """Whether enough participants calibrated the set or interval, so that it holds the truth 90 % of the time."""
    log_likelihood: float | None = None
    """Mean log-likelihood of the movement's tokens."""
    is_ood: bool = False
    """Whether the movement is out of distribution: less likely than nearly all movements like those of training."""
    template_answers: list[str] = field(default_factory=list)
    """The answer to each prompt template that was averaged."""


_EARLIER_NAMES = {
    "labels": "choices",
    "probabilities": "probability",
    "prediction_set": "possible",
    "selective_risk": "risk",
    "valid_probability": "mass",
    "coverage_guaranteed": "promised",
    "log_likelihood": "familiar",
    "is_ood": "strange",
    "template_answers": "by_phrasing",
}


def from_weighed(answer: object) -> Answer:
    """The record of an answer that has these names, or the earlier ones."""
    values = {}
    for name in (column.name for column in fields(Answer)):
        earlier = _EARLIER_NAMES.get(name, name)
        values[name] = getattr(answer, name if hasattr(answer, name) else earlier)
    return Answer(**values)
