"""The whole path, from a cohort through a calibrated model to an evaluation and its report.

Each step asks for an artifact, so a step that was done before, by this run or by another variant's, is not
done again. Sweeps and comparisons call the same functions with other settings.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import Field

from biomechgpt.answering.batch import make_answers, make_calibration
from biomechgpt.answering.bundle import make_model
from biomechgpt.answering.settings import AnswerSettings, BatchAnswerSettings
from biomechgpt.cohort import CohortSettings, make_cohort
from biomechgpt.core import artifact, storage
from biomechgpt.core.artifact import Artifact
from biomechgpt.core.settings import InputError, Settings, override
from biomechgpt.evaluation import answers_table
from biomechgpt.evaluation.codebook import write_codebook
from biomechgpt.evaluation.evaluate import make_evaluation
from biomechgpt.evaluation.report import summary, write_report
from biomechgpt.evaluation.settings import EvaluationSettings
from biomechgpt.language import pretrain as base_room
from biomechgpt.language.finetune import FinetuneSettings, make_adapter
from biomechgpt.language.pretrain import BaseSettings, make_base
from biomechgpt.questions.dataset import QuestionsSettings, make_questions
from biomechgpt.tokenizer import TokenizerSettings, TokensSettings, make_tokenizer, make_tokens


class LanguageSettings(Settings):
    """One settings file a language model: its base and how it is fine-tuned."""

    base: BaseSettings = BaseSettings()
    finetune: FinetuneSettings = FinetuneSettings()


class PipelineSettings(Settings):
    """root: where artifacts live; output: the folder of the report. Both local or s3://."""

    cohort: CohortSettings = CohortSettings()
    tokenizer: TokenizerSettings = TokenizerSettings()
    tokens: TokensSettings = TokensSettings()
    questions: QuestionsSettings = QuestionsSettings()
    language: LanguageSettings = LanguageSettings()
    answers: AnswerSettings = AnswerSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    root: str = Field("results/artifacts", exclude=True)
    output: str = Field("results/demo", exclude=True)


@dataclass(frozen=True)
class Trained:
    """A model and what it was made from."""

    cohort: Artifact
    tokenizer: Artifact
    tokens: Artifact
    questions: Artifact
    base: Artifact
    adapter: Artifact
    calibration: Artifact
    model: Artifact


def check(settings: PipelineSettings) -> None:
    """Refuse what can be refused before an hour of work. Raises InputError."""
    base_room.check(settings.language.base)
    if settings.answers.mirrored and settings.tokens.views < 2:
        raise InputError("tokens.views: expected at least 2 with answers.mirrored, found 1")
    settings.questions.load()


def train(settings: PipelineSettings) -> Trained:
    """Everything up to the bundle."""
    check(settings)
    root, language = settings.root, settings.language
    cohort = make_cohort(settings.cohort, root)
    # Before any training: a task whose column nobody has is reported now.
    questions = make_questions(cohort, settings.questions, root)
    tokenizer = make_tokenizer(cohort, settings.tokenizer, root)
    tokens = make_tokens(cohort, tokenizer, settings.tokens, root)
    # One base for all seeds and all choices of tasks: it learns from no answer, so it needs only their words.
    all_questions = QuestionsSettings(tasks=settings.questions.tasks)
    words = make_questions(cohort, all_questions, root) if all_questions != settings.questions else questions
    base = make_base(words, tokens, tokenizer, language.base, root)
    adapter = make_adapter(base, questions, tokens, language.finetune, root)
    calibration = make_calibration(adapter, questions, tokens, settings.answers, root)
    model = make_model(base, adapter, tokenizer, calibration, settings.questions.load(), root)
    return Trained(cohort, tokenizer, tokens, questions, base, adapter, calibration, model)


def fingerprints(settings: PipelineSettings, stubs: Mapping[str, artifact.Stub]) -> dict[str, str]:
    """{kind: fingerprint} of all artifacts that these settings lead to; nothing is built.

    stubs: what an artifact holds that decides what is made from it (`artifact.dry_run`): the cohort's annotations.
    """
    with TemporaryDirectory() as root, artifact.dry_run(stubs):
        trained = train(settings.model_copy(update={"root": root}))
        evaluation = measure(trained.model, settings.answers, settings.evaluation, root)
        made = vars(trained) | {"answers": evaluation.input("answers"), "evaluation": evaluation}
    return {kind: of_kind.fingerprint for kind, of_kind in made.items()}


def measure(
    model: Artifact, answers: BatchAnswerSettings, evaluation: EvaluationSettings, root: str
) -> Artifact:
    """The evaluation of a model's answers to its own cohort's questions of `answers.splits`."""
    answered = make_answers(model, model.input("questions"), model.input("tokens"), answers, root)
    return make_evaluation(answered, evaluation, root)


def validate(model: Artifact, root: str) -> dict[str, Any]:
    """A model's figures on validation participants, never on those of the test split.

    Returns {"score", "tasks", "model", "data"}; score: mean over tasks of weighted F1 or Pearson r, where an
    undefined or negative r counts as 0.
    """
    figures = measure(
        model, BatchAnswerSettings(splits=["validation"]), EvaluationSettings(baselines=False), root
    ).metrics
    score = sum(max(value or 0.0, 0.0) for value in figures.values()) / len(figures)
    return {"score": score, "tasks": figures, "model": model.uri, "data": model.provenance}


def with_seed(settings: PipelineSettings, seed: int) -> PipelineSettings:
    """Another run of the same: phrasings, order and adapters drawn anew over the same motion tokens."""
    return override(settings, {"questions.seed": seed, "language.finetune.training.seed": seed}, "seed")


def run_pipeline(settings: PipelineSettings) -> Artifact:
    """Make everything up to the report; returns the evaluation."""
    began = time.time()
    made = train(settings)
    evaluation = measure(made.model, settings.answers, settings.evaluation, settings.root)
    codebook = write_codebook(made.tokens, settings.output)
    metrics = write_report(
        evaluation.path(answers_table.FILE), settings.output, codebook=codebook.rsplit("/", 1)[-1]
    )
    print(f"\n{summary(metrics)}\n")
    print(
        f"report: {storage.join(settings.output, 'report.html')}  ({time.time() - began:.0f} s in this run)"
    )
    return evaluation
