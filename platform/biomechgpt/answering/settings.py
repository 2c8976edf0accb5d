"""Settings of answering. Importing them needs neither torch nor Ray."""

from typing import Literal

from pydantic import Field

from biomechgpt.core.settings import Settings


class ScoringSettings(Settings):
    """How a model scores answers. Part of the model, because its calibration holds for these only."""

    templates: int = Field(1, ge=1)
    """Prompt templates of a task whose answers are averaged: the question itself and others. The paper uses 1."""
    views: int = Field(1, ge=1, le=64)
    """Views of a movement that answers are averaged over: itself, mirrored, and shifted by less than one token
    step. Each costs as much as the first. Needs as many in `tokens.views`."""


class BatchAnswerSettings(Settings):
    """Which questions of a cohort a finished model is asked, and how."""

    splits: list[str] = Field(default_factory=lambda: ["test"])
    """Splits whose questions are asked."""
    method: Literal["weigh", "generate"] = "weigh"
    """weigh: score every possible answer. generate: the most probable token one after another, as in the paper."""
    batch_size: int = Field(16, ge=1, exclude=True)
    """Movements that are read together."""
    workers: int = Field(1, ge=1, exclude=True)
    """Processes that answer, each with the model in its memory."""


class AnswerSettings(ScoringSettings, BatchAnswerSettings):
    """How a model answers, and which questions of its own cohort it is asked."""

    @property
    def scoring(self) -> ScoringSettings:
        return ScoringSettings(templates=self.templates, views=self.views)

    @property
    def batch(self) -> BatchAnswerSettings:
        return BatchAnswerSettings(
            splits=self.splits, method=self.method, batch_size=self.batch_size, workers=self.workers
        )
