"""The whole path: cohort, tokenizer, tokens, questions, base, fine-tuning, answers, evaluation, report.

Each step asks for an artifact, so a step that was done before is not done again.
"""

import time
from collections.abc import Callable

from pydantic import Field

from biomechgpt import storage
from biomechgpt.artifact import Artifact
from biomechgpt.cohort import CohortSettings, make_cohort
from biomechgpt.dialogue.questions import QuestionsSettings, make_questions
from biomechgpt.evaluation import EvaluationSettings, make_evaluation, summary, write_report
from biomechgpt.language.answer import AnswerSettings, make_answers
from biomechgpt.language.base import BaseSettings, check, make_base
from biomechgpt.language.finetune import FinetuneSettings, make_model
from biomechgpt.settings import Settings
from biomechgpt.tasks import load_tasks
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


def run_pipeline(settings: PipelineSettings) -> Artifact:
    """Make everything up to the report; returns the evaluation."""
    # What can be refused is refused before an hour of work.
    check(settings.language.base)
    load_tasks(settings.questions.tasks, settings.questions.names)
    root, seconds = settings.root, {}
    began = time.time()

    def timed(name: str, make: Callable[[], Artifact]) -> Artifact:
        made = make()
        # A reused artifact tells how long it took to build.
        seconds[name] = made.manifest["seconds"]
        return made

    cohort = timed("cohort", lambda: make_cohort(settings.cohort, root))
    tokenizer = timed("tokenizer", lambda: make_tokenizer(cohort, settings.tokenizer, root))
    tokens = timed("tokens", lambda: make_tokens(cohort, tokenizer, settings.tokens, root))
    questions = timed("questions", lambda: make_questions(tokens, settings.questions, root))
    language = settings.language
    base = timed("base", lambda: make_base(questions, tokens, tokenizer, language.base, root))
    model = timed("finetune", lambda: make_model(base, questions, tokens, tokenizer, language.finetune, root))
    answers = timed("answers", lambda: make_answers(model, questions, tokens, settings.answers, root))
    evaluation = timed(
        "evaluation",
        lambda: make_evaluation(answers, questions, tokens, tokenizer, settings.evaluation, root),
    )
    seconds["this run"] = round(time.time() - began, 1)
    report = write_report(
        evaluation,
        tokenizer,
        settings.output,
        seconds=seconds,
        settings=settings.model_dump(mode="json"),
        base_name=model.figures["base"],
        stand_in=language.base.name is None,
    )
    print(f"\n{summary(storage.read_json(storage.join(settings.output, 'metrics.json')))}\n")
    print(f"report: {report}  ({seconds['this run']:.0f} s in this run)")
    return evaluation
