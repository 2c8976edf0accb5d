"""Settings of an experiment: one group for each stage. Loads no torch, so that a wrong option is told at once."""

from typing import Literal, get_args

from pydantic import Field

from biomechgpt.answering.settings import AnswerSettings
from biomechgpt.cohort import CohortSettings
from biomechgpt.core.settings import Settings
from biomechgpt.evaluation.settings import EvaluationSettings
from biomechgpt.experiment.tracking import TrackingSettings
from biomechgpt.language.settings import BaseSettings, FinetuneSettings
from biomechgpt.questions.dataset import QuestionsSettings
from biomechgpt.tokenizer.settings import TokenizerSettings, TokensSettings


class LanguageSettings(Settings):
    """Settings of a language model, one file for each: its base and its fine-tuning."""

    base: BaseSettings = BaseSettings()
    """The base language model."""
    finetune: FinetuneSettings = FinetuneSettings()
    """Fine-tuning of the base to an adapter."""


class PipelineSettings(Settings):
    """Settings of an experiment: one group for each stage, and where the results go."""

    cohort: CohortSettings = CohortSettings()
    """Trials of recorded or simulated people."""
    tokenizer: TokenizerSettings = TokenizerSettings()
    """The motion tokenizer."""
    tokens: TokensSettings = TokensSettings()
    """Motion tokens of all trials."""
    questions: QuestionsSettings = QuestionsSettings()
    """Questions with their true answers."""
    language: LanguageSettings = LanguageSettings()
    """The language model."""
    answers: AnswerSettings = AnswerSettings()
    """How questions are answered, and the calibration."""
    evaluation: EvaluationSettings = EvaluationSettings()
    """Metrics and baselines."""
    start: str | None = Field(None, exclude=True)
    """A finished model (URI or folder of results) to adapt to the cohort, in place of a new one. Its tokenizer and
    its adapter are trained further; each is kept only if validation participants say that it got better."""
    least_people: int = Field(10, ge=0, exclude=True)
    """Fewest training participants of a cohort of recordings. With fewer, nothing is trained. 0: any number will
    do."""
    root: str = Field("results/artifacts", exclude=True)
    """Folder or s3:// URI of all artifacts."""
    output: str = Field("results/demo", exclude=True)
    """Folder or s3:// URI of the report."""


Stage = Literal[
    "cohort",
    "questions",
    "tokenizer",
    "tokens",
    "base",
    "adapter",
    "calibration",
    "model",
    "answers",
    "evaluation",
]
STAGES: tuple[Stage, ...] = get_args(Stage)


class InputUris(Settings):
    """Artifacts that are used instead of those that the settings describe."""

    cohort: str | None = None
    """URI of a cohort."""
    questions: str | None = None
    """URI of questions."""
    tokenizer: str | None = None
    """URI of a motion tokenizer."""
    tokens: str | None = None
    """URI of motion tokens."""
    base: str | None = None
    """URI of a base language model."""
    adapter: str | None = None
    """URI of an adapter."""
    calibration: str | None = None
    """URI of a calibration."""
    model: str | None = None
    """URI of a model."""
    answers: str | None = None
    """URI of answers."""


class StageSettings(PipelineSettings):
    """An experiment, the stage that it stops after, and inputs given by URI."""

    until: Stage = Field("evaluation", exclude=True)
    """Last stage to run."""
    inputs: InputUris = Field(InputUris(), exclude=True)
    """Artifacts given by URI."""
    tracking: TrackingSettings = Field(TrackingSettings(), exclude=True)
    """Where the run is recorded."""
