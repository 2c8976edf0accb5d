"""Stand-in of `biomechgpt.answering.answer` until that module is there."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Answer:
    """One answer.

    text: the answer in words.
    labels: possible labels, most probable first. Empty for a number.
    probabilities: probability of each label, calibrated; sums to 1.
    prediction_set: labels that cannot be ruled out, most probable first.
    low: lower end of the interval of a number, in the task's unit.
    high: upper end of the interval of a number, in the task's unit.
    mean: mean of a number's distribution, if it was computed.
    selective_risk: lowest error rate at which this answer is still given.
    valid_probability: probability that the model gives to all valid answers together.
    temperature: temperature applied to the label probabilities.
    coverage_guaranteed: whether enough participants were there to guarantee the coverage of set and interval.
    log_likelihood: mean log-likelihood of the motion tokens.
    is_ood: whether the movement is out of distribution.
    template_answers: the answer to each of the question templates that were averaged.
    """

    text: str
    labels: list[str] = field(default_factory=list)
    probabilities: list[float] = field(default_factory=list)
    prediction_set: list[str] = field(default_factory=list)
    low: float | None = None
    high: float | None = None
    mean: float | None = None
    selective_risk: float | None = None
    valid_probability: float | None = None
    temperature: float | None = None
    coverage_guaranteed: bool = False
    log_likelihood: float | None = None
    is_ood: bool = False
    template_answers: list[str] = field(default_factory=list)


def from_weighed(weighed: object) -> Answer:
    """The record of an answer with the earlier names."""
    names = {
        "labels": "choices", "probabilities": "probability", "prediction_set": "possible",
        "selective_risk": "risk", "valid_probability": "mass", "coverage_guaranteed": "promised",
        "log_likelihood": "familiar", "is_ood": "strange", "template_answers": "by_phrasing",
    }  # fmt: skip
    from dataclasses import fields

    return Answer(**{f.name: getattr(weighed, names.get(f.name, f.name)) for f in fields(Answer)})
