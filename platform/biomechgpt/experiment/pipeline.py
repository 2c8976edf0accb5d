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
from typing import Any

from biomechgpt.answering.batch import make_calibration
from biomechgpt.answering.bundle import make_model
from biomechgpt.answering.start import keep_adapter, keep_base
from biomechgpt.cohort import make_cohort
from biomechgpt.core import artifact, storage
from biomechgpt.core.artifact import Artifact, NotMadeError
from biomechgpt.core.settings import InputError, override
from biomechgpt.evaluation import answers_table
from biomechgpt.evaluation.codebook import write_codebook
from biomechgpt.evaluation.evaluate import make_evaluation
from biomechgpt.evaluation.report import summary, write_report
from biomechgpt.experiment import adapt, tracking
from biomechgpt.experiment.scores import own_answers
from biomechgpt.experiment.settings import STAGES, InputUris, PipelineSettings, Stage, StageSettings
from biomechgpt.language import pretrain
from biomechgpt.language.finetune import make_adapter
from biomechgpt.language.pretrain import make_base
from biomechgpt.questions.dataset import QuestionsSettings, make_questions
from biomechgpt.tokenizer.tokens import make_tokens
from biomechgpt.tokenizer.train import make_tokenizer

logger = logging.getLogger("biomechgpt")


_NEEDS: dict[Stage, tuple[Stage, ...]] = {
    "cohort": (),
    "questions": ("cohort",),
    "tokenizer": ("cohort",),
    "tokens": ("cohort", "tokenizer"),
    "base": ("questions", "tokens", "tokenizer"),
    "adapter": ("base", "questions", "tokens"),
    "calibration": ("adapter", "questions", "tokens"),
    "model": ("adapter", "tokenizer", "calibration"),
    "answers": ("model",),
    "evaluation": ("answers",),
}
"""The stages that a stage is made from."""
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
_LEAST_S = 2.0
"""A step that takes less was found, not made, and says nothing about the others."""


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
                with artifact.of_experiment(self._experiment()):
                    self._made[stage] = self._makers()[stage]()
            else:
                self._made[stage] = artifact.load(uri, stage)
                logger.info("%s %s: given", stage, self._made[stage].fingerprint)
        return self._made[stage]

    def found(self, stage: Stage) -> Artifact | None:
        """The artifact of a stage if it is there; None otherwise. Nothing is made."""
        with artifact.reuse_only():
            try:
                return self[stage]
            except NotMadeError:
                return None

    def _experiment(self) -> dict[str, Any]:
        """What `biomechgpt reproduce` needs to make a stage again."""
        given = {stage: uri for stage, uri in self._inputs.model_dump().items() if uri}
        settings = self._settings.model_dump(mode="json")
        return settings | {"start": self._settings.start} | ({"inputs": given} if given else {})

    def needed(self, until: Stage) -> list[Stage]:
        """The stages that `until` needs, itself included, in their order. An artifact that is given needs none."""
        needed: set[Stage] = set()
        waiting = [until]
        while waiting:
            stage = waiting.pop()
            needed.add(stage)
            if getattr(self._inputs, stage, None) is None:
                waiting += _NEEDS[stage]
        return [stage for stage in STAGES if stage in needed]

    def _makers(self) -> dict[str, Callable[[], Artifact]]:
        settings, root = self._settings, self._settings.root
        language = settings.language
        return {
            "cohort": lambda: make_cohort(settings.cohort, root),
            "questions": lambda: make_questions(self["cohort"], settings.questions, root),
            "tokenizer": lambda: make_tokenizer(self["cohort"], settings.tokenizer, root),
            "tokens": lambda: make_tokens(self["cohort"], self["tokenizer"], settings.tokens, root),
            "base": lambda: make_base(
                self._all_questions(), self["tokens"], self["tokenizer"], language.base, root
            ),
            "adapter": lambda: make_adapter(
                self["base"], self["questions"], self["tokens"], language.finetune, root
            ),
            "calibration": lambda: self._calibrate(self["adapter"], self["tokens"]),
            "model": lambda: self._bundle(self["adapter"], self["tokenizer"], self["calibration"]),
            "answers": lambda: own_answers(self["model"], settings.answers.batch, root),
            "evaluation": lambda: make_evaluation(self["answers"], settings.evaluation, root),
        } | (self._adapting() if settings.start else {})

    def _adapting(self) -> dict[str, Callable[[], Artifact]]:
        """Makers of the stages that differ where a finished model is adapted (`start`)."""
        settings, root = self._settings, self._settings.root
        start = adapt.start_of(str(settings.start))

        def kept_adapter(tokens: Artifact, tokenizer: Artifact) -> Artifact:
            base = keep_base(start, tokens, tokenizer, root)
            return keep_adapter(start, base, self["questions"], tokens, root)

        def adapted_adapter() -> Artifact:
            kept = kept_adapter(self["tokens"], self["tokenizer"])
            finetune = settings.language.finetune
            return make_adapter(self["base"], self["questions"], self["tokens"], finetune, root, kept)

        def tokenizers() -> Artifact:
            return adapt.better_tokenizer(start, self["cohort"], settings.tokenizer, root)

        def models() -> Artifact:
            tokenizer = adapt.own_tokenizer(start, self["cohort"], root)
            tokens = make_tokens(self["cohort"], tokenizer, settings.tokens, root)
            kept = kept_adapter(tokens, tokenizer)
            return adapt.better_model(
                self._bundle(self["adapter"], self["tokenizer"], self["calibration"]),
                self._bundle(kept, tokenizer, self._calibrate(kept, tokens)),
                root,
            )

        return {
            "tokenizer": lambda: adapt.winner(tokenizers()),
            "base": lambda: keep_base(start, self["tokens"], self["tokenizer"], root),
            "adapter": adapted_adapter,
            "model": lambda: adapt.winner(models()),
            "evaluation": lambda: make_evaluation(
                self["answers"],
                settings.evaluation,
                root,
                start=start,
                adaptations=[tokenizers(), models()],
            ),
        }

    def _calibrate(self, adapter: Artifact, tokens: Artifact) -> Artifact:
        settings = self._settings
        tasks = settings.questions.load()
        return make_calibration(adapter, self["questions"], tokens, settings.answers, tasks, settings.root)

    def _bundle(self, adapter: Artifact, tokenizer: Artifact, calibration: Artifact) -> Artifact:
        questions = self._settings.questions
        tasks = {**questions.load(), **questions.load_measured()}
        return make_model(adapter.input("base"), adapter, tokenizer, calibration, tasks, self._settings.root)

    def _all_questions(self) -> Artifact:
        """The questions of all tasks in the task folders. The base learns their words, but no true answers.

        So one base serves all seeds and all choices of tasks.
        """
        all_tasks = QuestionsSettings(
            tasks=self._settings.questions.tasks, measured=self._settings.questions.measured
        )
        if all_tasks == self._settings.questions:
            return self["questions"]
        return make_questions(self["questions"].input("cohort"), all_tasks, self._settings.root)


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
    if settings.start:
        adapt.check(settings.start, settings.language.finetune)
    elif STAGES.index(until) >= STAGES.index("base"):
        pretrain.check(settings.language.base)
    if settings.answers.views > settings.tokens.views:
        expected = f"tokens.views: expected at least answers.views, {settings.answers.views}"
        raise InputError(f"{expected}, found {settings.tokens.views}")
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
    """Logs the number of each step, and about how long all of them will take.

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


def run_stages(settings: StageSettings) -> Artifact:
    """`run_pipeline` with the last stage and the inputs of the command line. MLflow gets a record of the run."""
    made = run_pipeline(settings, settings.until, settings.inputs)
    report = storage.join(settings.output, "report.html") if settings.until == "evaluation" else None
    run = tracking.run_of(made, settings.model_dump(mode="json"), report)
    if reason := tracking.try_to_record(settings.tracking, run):
        logger.warning(
            "MLflow at %s does not record (%s): the same command does so later", settings.tracking.uri, reason
        )
    return made


def run_check(settings: StageSettings) -> None:
    """Check the settings, and log which artifacts of the experiment exist."""
    check(settings)
    stages = Stages(settings, settings.inputs)
    lines = []
    for stage in STAGES:
        made = stages.found(stage)
        lines.append(f"{stage:12} there    {made.uri}" if made else f"{stage:12} missing")
    logger.info("\n".join(lines))
