"""Settings of a whole experiment: the settings of every stage, and where its artifacts live."""

from pydantic import Field

from biomechgpt.answering.settings import AnswerSettings
from biomechgpt.cohort import CohortSettings
from biomechgpt.core.settings import Settings
from biomechgpt.evaluation.settings import EvaluationSettings
from biomechgpt.language.finetune import FinetuneSettings
from biomechgpt.language.pretrain import BaseSettings
from biomechgpt.questions.dataset import QuestionsSettings
from biomechgpt.tokenizer import TokenizerSettings, TokensSettings


class LanguageSettings(Settings):
    """A language model: its base and how it is fine-tuned. One settings file per model."""

    base: BaseSettings = BaseSettings()
    """The base model and its pre-training on motion."""
    finetune: FinetuneSettings = FinetuneSettings()
    """Fine-tuning on the questions."""


class PipelineSettings(Settings):
    """One experiment, from recordings to a report."""

    cohort: CohortSettings = CohortSettings()
    """Recordings or simulated participants, and their splits."""
    tokenizer: TokenizerSettings = TokenizerSettings()
    """The motion tokenizer and its training."""
    tokens: TokensSettings = TokensSettings()
    """Tokenization of the cohort."""
    questions: QuestionsSettings = QuestionsSettings()
    """Tasks and the questions made from them."""
    language: LanguageSettings = LanguageSettings()
    """The language model."""
    answers: AnswerSettings = AnswerSettings()
    """How questions are answered, and which."""
    evaluation: EvaluationSettings = EvaluationSettings()
    """How answers are evaluated."""
    root: str = Field("results/artifacts", exclude=True)
    """Folder or s3:// URI of all artifacts."""
    output: str = Field("results/demo", exclude=True)
    """Folder or s3:// URI of the report."""
