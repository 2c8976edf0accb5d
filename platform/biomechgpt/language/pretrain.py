"""The language base: from a pretrained Gemma 3, or the local stand-in, to one whose vocabulary has motion.

Stages: text base -> vocabulary extended -> motion pre-training on unlabelled tokens of training
participants -> what fine-tuning starts from. After a movement come random questions, some with somebody else's
answer, some with the gist of the movement: a few of its own tokens, drawn at random. A gist can only be told by
gathering the whole movement where an answer begins, which is what answering needs; next tokens alone teach a model
to look a few tokens back. Some are answered by what the movement's own angles say of it (`cohort.facts`), which
teaches how long, how quick and how far is told in numbers. Some movements stand beside another one, and the facts
compare them; some come after their facts, so that words can call for a movement. No annotation and no participant
outside the training split gets in.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import torch
import transformers
from pydantic import Field, model_validator
from torch import nn

from biomechgpt.cohort.parameters import make_parameters, read_parameters
from biomechgpt.core import artifact, storage
from biomechgpt.core.artifact import Artifact
from biomechgpt.core.settings import InputError, Settings, plain
from biomechgpt.core.training import fit
from biomechgpt.core.training_settings import TrainingSettings
from biomechgpt.language import network, tiny_gemma
from biomechgpt.language.batches import SampleSettings, TreeTrainee, plan_batches
from biomechgpt.language.tiny_gemma import StandInSettings
from biomechgpt.motion.parameters import (
    PARAMETERS,
    ParameterValues,
    format_description,
    format_parameter,
    mirror_parameters,
)
from biomechgpt.prompts.encoding import LETTERS, Answer, Encoder, Motion, Tree
from biomechgpt.questions.dataset import read_questions, read_tasks
from biomechgpt.questions.tasks import GenerationTask, Tasks, pace
from biomechgpt.tokenizer.motion_tokenizer import MotionTokenizer, require_same_tokenizer
from biomechgpt.tokenizer.tokens import Tokens, is_mirrored

VERSION = 4
FACTS_SAID = 6
"""Facts in a description of motion pre-training."""
STAND_IN = "local stand-in (a small Gemma 3 trained here)"


class PretrainingSteps(TrainingSettings):
    """All weights of a model that knows nothing yet: faster than fine-tuning."""

    learning_rate: float = Field(1e-3, gt=0)


class PretrainingSettings(SampleSettings):
    """Motion pre-training, all weights; `epochs: 0` leaves it out."""

    epochs: float = Field(3.0, ge=0)
    batch_size: int = Field(16, ge=1)
    questions: int = Field(
        1, ge=0, description="random questions a trial, answered by somebody else's answers"
    )
    gists: int = Field(
        2, ge=0, description="random questions a trial, answered by tokens drawn from its motion"
    )
    gist_tokens: int = Field(8, ge=1)
    descriptions: int = Field(
        1, ge=0, description="random questions a trial, answered by facts measured from its angles"
    )
    beside: float = Field(
        0.25,
        ge=0,
        le=1,
        description="share of movements read beside another one, with facts that compare them",
    )
    told: float = Field(0.15, ge=0, le=1, description="share of movements that come after their facts")
    training: PretrainingSteps = PretrainingSteps()

    @property
    def needs_facts(self) -> bool:
        return bool(self.descriptions or self.beside or self.told)

    @model_validator(mode="after")
    def _shares_of_one(self) -> "PretrainingSettings":
        if self.beside + self.told > 1:
            raise ValueError(
                f"beside and told: expected at most 1 together, found {self.beside + self.told:g}"
            )
        return self


class BaseSettings(Settings):
    """name: of a pretrained Gemma 3 (a local folder, or a hub name in the local cache); without one, the
    stand-in. rows: how motion tokens' embeddings start (the paper's is random).
    """

    name: str | None = None
    stand_in: StandInSettings = StandInSettings()
    text_steps: int = Field(60, ge=0, description="steps of text training of the stand-in")
    rows: Literal["codebook", "random"] = "codebook"
    compute: Literal["fp32", "bf16"] = "bf16"
    motion: PretrainingSettings = PretrainingSettings()
    seed: int = 0

    @model_validator(mode="before")
    @classmethod
    def _real_gemma_needs_no_motion_pretraining(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not values.get("name"):
            return values
        motion = values.get("motion", {})
        return {**values, "motion": {"epochs": 0, **motion}} if isinstance(motion, dict) else values


def check(settings: BaseSettings) -> None:
    """Raise InputError, before any work, where a named base has no weights on this machine."""
    if settings.name is None:
        return
    try:
        transformers.AutoConfig.from_pretrained(settings.name, local_files_only=True)
    except (OSError, ValueError):
        raise InputError(
            f"language.base.name: no weights of {settings.name!r} on this machine. Accept its licence on its "
            f"hub page, fetch it with `hf download {settings.name}` (and set HF_HOME to where it lies, or name "
            "the folder here), or leave the name out to use the local stand-in"
        ) from None


@dataclass
class _Draw:
    """Draws what pre-training reads. asked, answered: questions, and somebody else's answer to each; shown: how a
    movement is asked for, `{}` where its description goes; movements: {trial: motion tokens of each view}."""

    encoder: Encoder
    settings: PretrainingSettings
    rng: np.random.Generator
    asked: list[str]
    answered: list[str]
    shown: list[str]
    movements: dict[str, list[list[int]]]
    facts: dict[str, ParameterValues]

    @cached_property
    def comparable(self) -> dict[tuple[str, ...], list[str]]:
        """Trials by which facts are known of them."""
        found = defaultdict(list)
        for trial in self.movements:
            found[_known(self.facts.get(trial, {}))].append(trial)
        return found

    def words(self) -> Tree:
        return self._tree(None, [])

    def tree(self, trial: str, view: int) -> Tree:
        """A view of a trial: alone, beside another one's, or after its facts."""
        movement, facts, how = self.movements[trial][view], self._facts(trial, view), self.rng.random()
        known = _known(facts)
        if known and how < self.settings.told:
            words = ", ".join(filter(None, [pace(facts), _described(facts, self.rng)]))
            question = self.shown[self.rng.integers(len(self.shown))].format(words)
            return self.encoder.tree(None, [(question, movement)], self.settings.max_length)
        often = range(self.settings.descriptions)
        if known and how < self.settings.told + self.settings.beside:
            among = self.comparable[_known(self.facts[trial])]
            other = among[self.rng.integers(len(among))]
            both = facts, self._facts(other, view)
            compared = [_compared(*both, self.rng) for _ in range(self.settings.gists + len(often))]
            return self._tree([movement, self.movements[other][view]], compared)
        gists = self.rng.choice(movement, (self.settings.gists, self.settings.gist_tokens)).tolist()
        return self._tree(movement, [*gists, *(_described(facts, self.rng) for _ in often)])

    def _facts(self, trial: str, view: int) -> ParameterValues:
        facts = self.facts.get(trial, {})
        return mirror_parameters(facts) if is_mirrored(view) else facts

    def _tree(self, motion: Motion | None, said: Sequence[Answer]) -> Tree:
        # Drawn whatever the trial: not even which questions apply to it may be seen.
        at = self.rng.integers(len(self.asked), size=self.settings.questions + len(said)).tolist()
        said = [*said, *(self.answered[i] for i in at[len(said) :])]
        pairs = [(self.asked[i], answer) for i, answer in zip(at, said, strict=True)]
        return self.encoder.tree(motion, pairs, self.settings.max_length)


class _Motion(TreeTrainee):
    """Text and motion training of all weights, in one run: the text first."""

    def __init__(
        self, questions: str, tokens: str, tokenizer: str, facts: str | None, settings: dict[str, Any]
    ) -> None:
        self.base = BaseSettings.model_validate(settings)
        self.settings: PretrainingSettings = self.base.motion
        self.seed = self.base.seed
        tasks = read_tasks(questions)
        rows = [r for r in read_questions(artifact.load(questions)) if r["split"] == "train"]
        codebook = MotionTokenizer.load(tokenizer).codebook
        network.quiet()
        torch.manual_seed(self.seed)
        if self.base.name is None:
            self.tokenizer = tiny_gemma.train_text_tokenizer(
                _spoken(tasks, rows), self.base.stand_in.vocabulary
            )
            self.network: Any = tiny_gemma.new_model(self.tokenizer, self.base.stand_in)
        else:
            self.tokenizer = network.load_tokenizer(self.base.name)
            self.network = network.load_model(self.base.name, "none", self.base.compute)
        network.extend_vocabulary(self.network, self.tokenizer, codebook, self.base.rows, self.seed)

        rng = np.random.default_rng(self.seed)
        asked, answered = _shuffled(rows, rng)
        shown = [
            words for task in tasks.values() if isinstance(task, GenerationTask) for words in task.templates
        ]
        draw = _Draw(
            Encoder(self.tokenizer),
            self.settings,
            rng,
            asked,
            answered,
            shown or ["{}"],
            Tokens(artifact.load(tokens)).augmentations() if self.settings.epochs else {},
            read_parameters(artifact.load(facts)) if facts else {},
        )
        # Of each view its own questions, gists and facts.
        self.trees = [
            [draw.tree(trial, view) for view in range(len(views))] for trial, views in draw.movements.items()
        ]
        self.text = len(self.trees)
        n_text = self.base.text_steps * self.settings.batch_size if self.base.name is None else 0
        self.trees += [[draw.words()] * self.views for _ in range(n_text)]

    def build_model(self) -> nn.Module:
        return network.TreeModel(self.network)

    def batches(self) -> list[list[int]]:
        size = self.settings.batch_size
        texts = range(self.text * self.views, len(self.trees) * self.views, self.views)
        plan = [list(texts[at : at + size]) for at in range(0, len(texts), size)]
        if self.settings.epochs:
            lengths = [len(view) for views in self.trees[: self.text] for view in views]
            plan += plan_batches(lengths, size, self.settings.epochs, self.seed, self.views)
        return plan

    def export(self, model: nn.Module) -> dict[str, Any]:
        return _save(self.network, self.tokenizer, self.uri)


def _save(model: Any, tokenizer: Any, uri: str) -> dict[str, Any]:
    with TemporaryDirectory() as folder:
        tiny_gemma.save(model, tokenizer, folder)
        storage.upload(folder, storage.join(uri, "model"))
    return {"parameters": sum(p.numel() for p in model.parameters()), "vocabulary": len(tokenizer)}


def _spoken(tasks: Tasks, rows: list[dict[str, Any]]) -> list[str]:
    names = [format_parameter(name, 0) for name in PARAMETERS] + [
        "movement A",
        "more in movement B",
        "change of -0.0",
    ]
    return [p for task in tasks.values() for p in task.templates] + [row["answer"] for row in rows] + names


def _described(facts: ParameterValues, rng: np.random.Generator) -> str:
    """Some of the facts in any order: each has to be told by the movement, not by what was said before it."""
    return format_description(facts, rng.permutation(_known(facts))[:FACTS_SAID].tolist())


def _known(facts: ParameterValues) -> tuple[str, ...]:
    return tuple(name for name in PARAMETERS if facts.get(name) is not None)


def _compared(a: ParameterValues, b: ParameterValues, rng: np.random.Generator) -> str:
    """Some facts of movements A and B: of one of them, in which there is more, or what changes from A to B."""
    said = []
    for name in rng.permutation(_known(a))[:FACTS_SAID].tolist():
        values = float(a[name] or 0), float(b[name] or 0)
        one = int(rng.integers(2))
        said.append(
            (
                f"movement {LETTERS[one]} {format_parameter(name, values[one])}",
                f"more {PARAMETERS[name].label} in movement {LETTERS[int(values[1] > values[0])]}",
                f"change of {format_parameter(name, values[1] - values[0])}",
            )[rng.integers(3)]
        )
    return ", ".join(said)


def _shuffled(rows: list[dict[str, Any]], rng: np.random.Generator) -> tuple[list[str], list[str]]:
    """Questions, and for each the answer to the same task of somebody else."""
    answers = {}
    for task in {row["task"] for row in rows}:
        answers[task] = [row["answer"] for row in rows if row["task"] == task]
    asked = [row["question"] for row in rows]
    return asked, [answers[r["task"]][rng.integers(len(answers[r["task"]]))] for r in rows]


def make_base(
    questions: Artifact, tokens: Artifact, tokenizer: Artifact, settings: BaseSettings, root: str
) -> Artifact:
    """The base artifact: `model/` in Hugging Face's layout with motion in its vocabulary.

    Raises InputError for tokens of another tokenizer.
    """
    check(settings)
    require_same_tokenizer(tokens, tokenizer)
    inputs = {"questions": questions, "tokens": tokens, "tokenizer": tokenizer}
    if settings.motion.epochs and settings.motion.needs_facts:
        inputs["parameters"] = make_parameters(tokens.input("cohort"), root)

    def build(uri: str) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "questions": questions.uri,
            "tokens": tokens.uri,
            "tokenizer": tokenizer.uri,
            "facts": inputs["parameters"].uri if "parameters" in inputs else None,
            # model_dump() would leave out `packing` and whatever else moves no fingerprint.
            "settings": {k: v for k, v in plain(settings).items() if k in BaseSettings.model_fields},
        }
        if settings.name is not None and not settings.motion.epochs:
            trainee = _Motion(**arguments)  # nothing to train: the vocabulary alone
            return {**_save(trainee.network, trainee.tokenizer, uri), "base": settings.name}
        figures = fit(_Motion, arguments, settings.motion.training, uri, "language base")
        return {**figures, "base": settings.name or STAND_IN}

    return artifact.make("base", VERSION, settings, inputs, build, root)


def folder(base: Artifact) -> Path:
    """The base's checkpoint as a local folder."""
    return storage.local_copy(base.path("model"))
