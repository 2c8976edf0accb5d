"""All stages of an experiment, from a cohort through a calibrated model to an evaluation and its report.

Each stage asks for an artifact, so a stage that this run or a run of another variant has finished is not repeated.
Sweeps and comparisons call the same functions with other settings.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args

from pydantic import Field

from biomechgpt.answering.batch import make_answers, make_calibration
from biomechgpt.answering.bundle import make_model
from biomechgpt.answering.settings import AnswerSettings, BatchAnswerSettings
from biomechgpt.cohort import CohortSettings, make_cohort
from biomechgpt.core import artifact, storage
from biomechgpt.core.artifact import Artifact, NotMadeError
from biomechgpt.core.settings import InputError, Settings, override
from biomechgpt.evaluation import answers_table
from biomechgpt.evaluation.codebook import write_codebook
from biomechgpt.evaluation.evaluate import make_evaluation
from biomechgpt.evaluation.report import summary, write_report
from biomechgpt.evaluation.settings import EvaluationSettings
from biomechgpt.language import pretrain
from biomechgpt.language.finetune import make_adapter
from biomechgpt.language.pretrain import make_base
from biomechgpt.language.settings import BaseSettings, FinetuneSettings
from biomechgpt.questions.dataset import QuestionsSettings, make_questions
from biomechgpt.tokenizer.settings import TokenizerSettings, TokensSettings
from biomechgpt.tokenizer.tokens import make_tokens
from biomechgpt.tokenizer.train import make_tokenizer

logger = logging.getLogger("biomechgpt")


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


_SHARES: dict[Stage, float] = {
    "cohort": 0.08,
    "questions": 0.01,
    "tokenizer": 0.06,
    "tokens": 0.04,
    "base": 0.2,
    "adapter": 0.32,
    "calibration": 0.06,
    "model": 0.01,
    "answers": 0.04,
    "evaluation": 0.18,
}
"""Shares of the stages in the time of `make demo`, by which the time that is left is estimated."""


class Stages:
    """The artifacts of an experiment by stage. Each is made when it is first asked for."""

    def __init__(self, settings: PipelineSettings, inputs: InputUris | None = None) -> None:
        self._settings = settings
        self._inputs = inputs or InputUris()
        self._made: dict[str, Artifact] = {}

    def __getitem__(self, stage: Stage) -> Artifact:
        """The artifact of a stage, with everything that it needs."""
        if stage not in self._made:
            uri = getattr(self._inputs, stage, None)
            if uri is None:
                needs, make = self._makers()[stage]
                self._made[stage] = make(*(self[need] for need in needs))
            else:
                self._made[stage] = artifact.load(uri, stage)
                logger.info("%s %s: given", stage, self._made[stage].fingerprint)
        return self._made[stage]

    def needed(self, until: Stage) -> list[Stage]:
        """The stages that `until` needs, itself included, in their order. An artifact that is given needs none."""
        needed: set[Stage] = set()
        waiting = [until]
        while waiting:
            stage = waiting.pop()
            needed.add(stage)
            if getattr(self._inputs, stage, None) is None:
                waiting += self._makers()[stage][0]
        return [stage for stage in STAGES if stage in needed]

    def _makers(self) -> dict[Stage, tuple[tuple[Stage, ...], Callable[..., Artifact]]]:
        """{stage: the stages that it needs, and a function that makes it from theirs}."""
        settings, root = self._settings, self._settings.root
        language, answers = settings.language, settings.answers

        def model(base: Artifact, adapter: Artifact, tokenizer: Artifact, calibration: Artifact) -> Artifact:
            tasks = {**settings.questions.load(), **settings.questions.load_measured()}
            return make_model(base, adapter, tokenizer, calibration, tasks, root)

        return {
            "cohort": ((), lambda: make_cohort(settings.cohort, root)),
            "questions": (("cohort",), lambda cohort: make_questions(cohort, settings.questions, root)),
            "tokenizer": (("cohort",), lambda cohort: make_tokenizer(cohort, settings.tokenizer, root)),
            "tokens": (
                ("cohort", "tokenizer"),
                lambda cohort, tokenizer: make_tokens(cohort, tokenizer, settings.tokens, root),
            ),
            "base": (
                ("questions", "tokens", "tokenizer"),
                lambda questions, *inputs: make_base(
                    self._all_questions(questions), *inputs, language.base, root
                ),
            ),
            "adapter": (
                ("base", "questions", "tokens"),
                lambda *inputs: make_adapter(*inputs, language.finetune, root),
            ),
            "calibration": (
                ("adapter", "questions", "tokens"),
                lambda *inputs: make_calibration(*inputs, answers, settings.questions.load(), root),
            ),
            "model": (("base", "adapter", "tokenizer", "calibration"), model),
            "answers": (("model",), lambda model: _own_answers(model, answers.batch, root)),
            "evaluation": (("answers",), lambda answers: make_evaluation(answers, settings.evaluation, root)),
        }

    def _all_questions(self, questions: Artifact) -> Artifact:
        """The questions of all tasks in the task folders. The base learns their words, but no true answers.

        So one base serves all seeds and all choices of tasks.
        """
        all_tasks = QuestionsSettings(
            tasks=self._settings.questions.tasks, measured=self._settings.questions.measured
        )
        if all_tasks == self._settings.questions:
            return questions
        return make_questions(questions.input("cohort"), all_tasks, self._settings.root)


@dataclass(frozen=True)
class Trained:
    """A model and the artifacts that it was made from, in the order of the stages."""

    cohort: Artifact
    questions: Artifact
    tokenizer: Artifact
    tokens: Artifact
    base: Artifact
    adapter: Artifact
    calibration: Artifact
    model: Artifact


def check(settings: PipelineSettings, until: Stage = "evaluation") -> None:
    """Check the settings before any work is done. Raises InputError.

    until: last stage to run. The language model's weights must exist only if a stage needs them.
    """
    if STAGES.index(until) >= STAGES.index("base"):
        pretrain.check(settings.language.base)
    if settings.answers.mirrored and settings.tokens.augmentations < 2:
        raise InputError("tokens.augmentations: expected at least 2 with answers.mirrored, found 1")
    settings.questions.load()
    settings.questions.load_measured()


def train(settings: PipelineSettings) -> Trained:
    """All stages up to the model.

    Raises InputError, before any training, for a task whose column is empty for all participants.
    """
    check(settings)
    stages = Stages(settings)
    return Trained(**{stage.name: stages[stage.name] for stage in fields(Trained)})  # type: ignore[index]


def fingerprints(settings: PipelineSettings, stubs: Mapping[str, artifact.Stub]) -> dict[str, str]:
    """{kind: fingerprint} of all artifacts that these settings lead to. Nothing is built.

    stubs: functions that write those files of an artifact that later fingerprints depend on, see
        `artifact.dry_run`. A cohort needs one: the questions depend on its annotations.
    """
    check(settings)
    with TemporaryDirectory() as root, artifact.dry_run(stubs):
        stages = Stages(settings.model_copy(update={"root": root}))
        return {stage: stages[stage].fingerprint for stage in STAGES}


def _own_answers(model: Artifact, settings: BatchAnswerSettings, root: str) -> Artifact:
    """A model's answers to its own cohort's questions of `settings.splits`."""
    return make_answers(model, model.input("questions"), model.input("tokens"), settings, root)


def measure(
    model: Artifact, answers: BatchAnswerSettings, evaluation: EvaluationSettings, root: str
) -> Artifact:
    """The evaluation of a model's answers to the questions of its own cohort, for the splits `answers.splits`."""
    return make_evaluation(_own_answers(model, answers, root), evaluation, root)


def validate(model: Artifact, root: str) -> dict[str, Any]:
    """A model's scores on validation participants, never on those of the test split.

    score: mean of `tasks`. An undefined or negative r counts as 0.
    tasks: {task: weighted F1 or Pearson r}.
    model: its URI.
    data: provenance of its training data.
    """
    scores = measure(
        model, BatchAnswerSettings(splits=["validation"]), EvaluationSettings(baselines=False), root
    ).metrics
    score = sum(max(value or 0.0, 0.0) for value in scores.values()) / len(scores)
    return {"score": score, "tasks": scores, "model": model.uri, "data": model.provenance}


def with_seed(settings: PipelineSettings, seed: int) -> PipelineSettings:
    """The settings of the same experiment with another seed.

    It draws the wording of the questions, the order of training and the adapter anew. Motion tokens stay the same.
    """
    return override(settings, {"questions.seed": seed, "language.finetune.training.seed": seed}, "seed")


def write_pages(evaluation: Artifact, folder: str) -> None:
    """Write the report of an evaluation and its codebook's page into a folder, and log the scores."""
    tokens, started = evaluation.input("answers").input("tokens"), time.time()
    codebook = write_codebook(tokens, folder)
    metrics = write_report(
        evaluation.path(answers_table.FILE),
        folder,
        codebook=codebook.rsplit("/", 1)[-1],
        seconds={"evaluation": evaluation.manifest["seconds"], "codebook": round(time.time() - started, 2)},
    )
    logger.info("\n%s\n", summary(metrics))
    logger.info("report: %s", storage.join(folder, "report.html"))


def _require_people(cohort: Artifact, least: int) -> None:
    """Raise InputError for a cohort of recordings with fewer than `least` training participants."""
    people = cohort.metrics["participants"]["train"]
    if cohort.provenance == "recorded" and people < least:
        raise InputError(
            f"{cohort.uri}: expected at least {least} training participants (least_people), found {people}: a "
            "model would learn these few by heart. `biomechgpt answer FOLDER` answers questions about the "
            "recordings with the demo's model instead"
        )


def run_pipeline(
    settings: PipelineSettings, until: Stage = "evaluation", inputs: InputUris | None = None
) -> Artifact:
    """Make an experiment's artifacts up to a stage; write the report after the last stage."""
    check(settings, until)
    stages = Stages(settings, inputs)
    progress = _Progress(stages.needed(until))
    for stage in progress.stages:
        with progress.step(stage):
            made = stages[stage]
        # The cohort and its questions come before any training. So too few people, or a task whose column is empty
        # for everybody, are refused now.
        if stage == "cohort" and until not in ("cohort", "questions"):
            _require_people(made, settings.least_people)
    if until == "evaluation":
        write_pages(stages[until], settings.output)
    return stages[until]


class _Progress:
    """Which step of how many runs, and about how long all of them will take.

    stages: the steps, in their order.
    """

    def __init__(self, stages: list[Stage]) -> None:
        self.stages = stages
        self._seconds = self._share = 0.0  # of the steps that were made, not those that were found

    @contextmanager
    def step(self, stage: Stage) -> Iterator[None]:
        """Log a line before the step, and count its time."""
        number = self.stages.index(stage)
        left = ""
        if self._share:
            to_come = sum(_SHARES[other] for other in self.stages[number:])
            minutes = self._seconds / self._share * to_come / 60
            left = f", about {math.ceil(minutes)} min left in all"
        logger.info("step %d of %d: %s%s", number + 1, len(self.stages), stage, left)
        started = time.time()
        yield
        if (seconds := time.time() - started) > _LEAST_S:
            self._seconds += seconds
            self._share += _SHARES[stage]


_LEAST_S = 2.0
"""A step that takes less was found, not made, and says nothing about the others."""


def run_stages(settings: StageSettings) -> Artifact:
    """`run_pipeline` with the last stage and the inputs of the command line."""
    return run_pipeline(settings, settings.until, settings.inputs)


def run_check(settings: StageSettings) -> None:
    """Check the settings, and log which artifacts of the experiment exist."""
    check(settings)
    stages = Stages(settings, settings.inputs)
    lines = []
    with artifact.reuse_only():
        for stage in STAGES:
            try:
                lines.append(f"{stage:12} there    {stages[stage].uri}")
            except NotMadeError:
                lines.append(f"{stage:12} missing")
    logger.info("\n".join(lines))
