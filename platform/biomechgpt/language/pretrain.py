"""The base model: a pretrained model, or the local stand-in, with motion in its vocabulary.

Stages: a model of text -> its vocabulary gets motion tokens -> motion pre-training on unlabelled movements of
training participants -> fine-tuning starts here. Motion pre-training mixes five kinds of samples:
- A movement and random questions with the answer that somebody else got. The words are learned, no label is.
- Recall: a movement and questions that are answered by tokens drawn from it. To answer, the model must gather the
  whole movement at the start of the answer, which real answers need too. Predicting the next motion token alone
  teaches it to look back a few tokens only.
- A movement and questions that are answered by parameters measured from its angles, such as speed and step length.
- Two movements and answers that compare their parameters.
- A description and, as its answer, the movement, so that words can call for a movement.
No annotation and no participant outside the training split gets in.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import nn

from biomechgpt.cohort.parameters import make_parameters, read_parameters
from biomechgpt.core import artifact, storage
from biomechgpt.core.artifact import Artifact
from biomechgpt.core.settings import InputError, plain
from biomechgpt.core.training import fit
from biomechgpt.language import network, packaged, tiny_model
from biomechgpt.language.batches import TreeTrainingTask, plan_batches
from biomechgpt.language.families import FAMILIES, family_at
from biomechgpt.language.families.family import Family
from biomechgpt.language.settings import BaseSettings, PretrainingSettings
from biomechgpt.language.stacked import stack_of
from biomechgpt.motion.parameters import (
    PARAMETERS,
    ParameterValues,
    format_description,
    format_parameter,
    mirror_parameters,
)
from biomechgpt.prompts.encoding import LETTERS, Answer, PrefixTree, PromptEncoder
from biomechgpt.questions.dataset import read_questions, read_tasks
from biomechgpt.questions.tasks import GenerationTask, Tasks, pace
from biomechgpt.tokenizer.motion_tokenizer import MotionTokenizer, require_same_tokenizer
from biomechgpt.tokenizer.tokens import Tokens, is_mirrored

VERSION = 4
DESCRIBED = 6
"""Most parameters in a description of motion pre-training."""


def check(settings: BaseSettings) -> None:
    """Raise InputError, before any work, for a named model that cannot be used.

    Its weights are not on this machine, its family is unknown, or its terms were not accepted.
    """
    if settings.name is None:
        return
    if package := packaged.packaged(settings.name):
        packaged.check(package, settings.accept_gemma_terms)
        return
    try:
        family_at(settings.name)
    except (OSError, ValueError):
        raise InputError(
            f"language.base.name: no weights of {settings.name!r} on this machine. Accept its licence on its "
            f"hub page, fetch it with `hf download {settings.name}` (and set HF_HOME to where it lies, or name "
            "the folder here), or leave the name out to use the local stand-in"
        ) from None


@dataclass
class _SampleSource:
    """Draws the samples of pre-training.

    questions, answers: of all tasks; each question has the answer that somebody else got.
    requests: how a movement is asked for, with `{}` where its description goes.
    movements: {trial: motion tokens of each view}.
    parameters: {trial: parameters measured from its angles}.
    """

    encoder: PromptEncoder
    settings: PretrainingSettings
    rng: np.random.Generator
    questions: list[str]
    answers: list[str]
    requests: list[str]
    movements: dict[str, list[list[int]]]
    parameters: dict[str, ParameterValues]

    @cached_property
    def comparable(self) -> dict[tuple[str, ...], list[str]]:
        """Trials by the parameters that were measured: two of one list can be compared in all of them."""
        trials = defaultdict(list)
        for trial in self.movements:
            trials[_measured(self.parameters.get(trial, {}))].append(trial)
        return trials

    def text(self) -> PrefixTree:
        """A sample without any movement."""
        return self._tree([], [])

    def sample(self, trial: str, view: int) -> PrefixTree:
        """A sample about a view of a trial: the movement alone, beside a second one, or after its description."""
        movement, parameters, kind = (
            self.movements[trial][view],
            self._parameters(trial, view),
            self.rng.random(),
        )
        measured, settings = _measured(parameters), self.settings
        if measured and kind < settings.text_to_motion_share:
            description = ", ".join(filter(None, [pace(parameters), _description(parameters, self.rng)]))
            request = self.requests[self.rng.integers(len(self.requests))].format(description)
            return self.encoder.build_tree([], [(request, movement)], settings.max_length)
        if measured and kind < settings.text_to_motion_share + settings.pairwise_share:
            trials = self.comparable[_measured(self.parameters[trial])]
            second = trials[self.rng.integers(len(trials))]
            both = parameters, self._parameters(second, view)
            count = settings.recall_targets + settings.descriptions
            comparisons = [_comparison(*both, self.rng) for _ in range(count)]
            return self._tree([movement, self.movements[second][view]], comparisons)
        recalled = [
            self.encoder.random_positions(movement, settings.recall_tokens, self.rng)
            for _ in range(settings.recall_targets)
        ]
        descriptions = [_description(parameters, self.rng) for _ in range(settings.descriptions)]
        return self._tree([movement], [*recalled, *descriptions])

    def _parameters(self, trial: str, view: int) -> ParameterValues:
        parameters = self.parameters.get(trial, {})
        return mirror_parameters(parameters) if is_mirrored(view) else parameters

    def _tree(self, movements: Sequence[Sequence[int]], answers: Sequence[Answer]) -> PrefixTree:
        """A tree of random questions with these answers and, after them, with somebody else's."""
        # Questions are drawn from those of all trials: which questions apply to a trial would tell of its labels.
        drawn = self.rng.integers(len(self.questions), size=self.settings.questions + len(answers)).tolist()
        answers = [*answers, *(self.answers[i] for i in drawn[len(answers) :])]
        pairs = [(self.questions[i], answer) for i, answer in zip(drawn, answers, strict=True)]
        return self.encoder.build_tree(movements, pairs, self.settings.max_length)


class _Pretraining(TreeTrainingTask):
    """Text and motion training of all weights, in one run: the text first."""

    def __init__(
        self, questions: str, tokens: str, tokenizer: str, parameters: str | None, settings: dict[str, Any]
    ) -> None:
        self.base = BaseSettings.model_validate(settings)
        self.settings: PretrainingSettings = self.base.motion
        self.seed = self.base.seed
        tasks = read_tasks(questions)
        rows = [r for r in read_questions(artifact.load(questions)) if r["split"] == "train"]
        motion, movements = MotionTokenizer.load(tokenizer), Tokens(artifact.load(tokens))
        network.quiet()
        torch.manual_seed(self.seed)
        family = self._load_text_model(tasks, rows)
        network.extend_vocabulary(
            self.network,
            self.tokenizer,
            motion.codebook,
            self.base.embedding_init,
            self.seed,
            stacked=motion.layout.sizes if movements.info.layout == "stacked" else (),
        )

        rng = np.random.default_rng(self.seed)
        shuffled_questions, answers = _shuffled(rows, rng)
        requests = [
            words for task in tasks.values() if isinstance(task, GenerationTask) for words in task.templates
        ]
        source = _SampleSource(
            PromptEncoder(self.tokenizer, family.turns, stack_of(self.network.config)),
            self.settings,
            rng,
            shuffled_questions,
            answers,
            requests or ["{}"],
            movements.views(["train"]) if self.settings.epochs else {},
            read_parameters(artifact.load(parameters)) if parameters else {},
        )
        # Each view of a movement gets questions, recalled tokens and parameters of its own.
        self.trees = [
            [source.sample(trial, view) for view in range(len(views))]
            for trial, views in source.movements.items()
        ]
        self.n_movements = len(self.trees)
        n_texts = self.base.text_steps * self.settings.batch_size if self.base.name is None else 0
        self.trees += [[source.text()] * self.views for _ in range(n_texts)]

    def _load_text_model(self, tasks: Tasks, rows: list[dict[str, Any]]) -> Family:
        """Set `tokenizer` and `network`: those of the named model, or a new local stand-in. Return their family."""
        if self.base.name is None:
            family = FAMILIES[self.base.family]
            texts = _texts(tasks, rows)
            self.tokenizer = tiny_model.train_text_tokenizer(texts, self.base.stand_in.vocabulary, family)
            self.network: Any = tiny_model.new_model(self.tokenizer, self.base.stand_in, family)
        elif package := packaged.packaged(self.base.name):
            family = package.family
            self.network, self.tokenizer = packaged.load(package, network.DTYPES[self.base.compute_dtype])
            self.network.set_attn_implementation(network.register_attention())
        else:
            family = family_at(self.base.name)
            self.tokenizer = network.load_tokenizer(self.base.name)
            self.network = network.load_model(self.base.name, "none", self.base.compute_dtype)
        return family

    def build_model(self) -> nn.Module:
        return network.TreeModel(self.network)

    def batches(self) -> list[list[int]]:
        size = self.settings.batch_size
        texts = range(self.n_movements * self.views, len(self.trees) * self.views, self.views)
        batches = [list(texts[at : at + size]) for at in range(0, len(texts), size)]
        if self.settings.epochs:
            lengths = [len(view) for views in self.trees[: self.n_movements] for view in views]
            batches += plan_batches(lengths, size, self.settings.epochs, self.seed, self.views)
        return batches

    def export(self, model: nn.Module) -> dict[str, Any]:
        return _save(self.network, self.tokenizer, self.uri, self.base.name)


def _save(model: Any, tokenizer: Any, uri: str, name: str | None) -> dict[str, Any]:
    """Write the checkpoint. name: `BaseSettings.name`, whose terms may want a notice beside the weights."""
    with TemporaryDirectory() as folder:
        tiny_model.save(model, tokenizer, folder)
        packaged.write_notice(folder, name)
        storage.upload(folder, storage.join(uri, "model"))
    return {"parameters": sum(p.numel() for p in model.parameters()), "vocabulary": len(tokenizer)}


def _texts(tasks: Tasks, rows: list[dict[str, Any]]) -> list[str]:
    """All wordings that the local stand-in's tokenizer is trained on."""
    names = [format_parameter(name, 0) for name in PARAMETERS] + [
        "movement A",
        "more in movement B",
        "change of -0.0",
    ]
    return [p for task in tasks.values() for p in task.templates] + [row["answer"] for row in rows] + names


def _description(parameters: ParameterValues, rng: np.random.Generator) -> str:
    """Some parameters in random order, so that each is told by the movement and not by the parameters before it."""
    return format_description(parameters, rng.permutation(_measured(parameters))[:DESCRIBED].tolist())


def _measured(parameters: ParameterValues) -> tuple[str, ...]:
    """Names of the parameters that were measured."""
    return tuple(name for name in PARAMETERS if parameters.get(name) is not None)


def _comparison(a: ParameterValues, b: ParameterValues, rng: np.random.Generator) -> str:
    """Some parameters of movements A and B: the value in one, in which it is larger, or the change from A to B."""
    statements = []
    for name in rng.permutation(_measured(a))[:DESCRIBED].tolist():
        values = float(a[name] or 0), float(b[name] or 0)
        movement = int(rng.integers(2))
        statements.append(
            (
                f"movement {LETTERS[movement]} {format_parameter(name, values[movement])}",
                f"more {PARAMETERS[name].label} in movement {LETTERS[int(values[1] > values[0])]}",
                f"change of {format_parameter(name, values[1] - values[0])}",
            )[rng.integers(3)]
        )
    return ", ".join(statements)


def _shuffled(rows: list[dict[str, Any]], rng: np.random.Generator) -> tuple[list[str], list[str]]:
    """Questions, and for each the answer that somebody else got to the same task."""
    answers = {}
    for task in {row["task"] for row in rows}:
        answers[task] = [row["answer"] for row in rows if row["task"] == task]
    questions = [row["question"] for row in rows]
    return questions, [answers[r["task"]][rng.integers(len(answers[r["task"]]))] for r in rows]


def make_base(
    questions: Artifact, tokens: Artifact, tokenizer: Artifact, settings: BaseSettings, root: str
) -> Artifact:
    """The base artifact: `model/`, a checkpoint in Hugging Face's layout with motion in its vocabulary.

    Raises InputError for tokens of another tokenizer.
    """
    check(settings)
    require_same_tokenizer(tokens, tokenizer)
    inputs = {"questions": questions, "tokens": tokens, "tokenizer": tokenizer}
    if settings.motion.epochs and settings.motion.needs_parameters:
        inputs["parameters"] = make_parameters(tokens.input("cohort"), root)

    def build(uri: str) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "questions": questions.uri,
            "tokens": tokens.uri,
            "tokenizer": tokenizer.uri,
            "parameters": inputs["parameters"].uri if "parameters" in inputs else None,
            # model_dump() would leave out `packing` and whatever else moves no fingerprint.
            "settings": {k: v for k, v in plain(settings).items() if k in BaseSettings.model_fields},
        }
        if settings.name is not None and not settings.motion.epochs:
            training_task = _Pretraining(
                **arguments
            )  # nothing to train: the vocabulary grows, and that is all
            metrics = _save(training_task.network, training_task.tokenizer, uri, settings.name)
            return {**metrics, "base": settings.name}
        metrics = fit(_Pretraining, arguments, settings.motion.training, uri, "language base")
        return {**metrics, "base": settings.name or tiny_model.stand_in_name(FAMILIES[settings.family])}

    return artifact.make("base", VERSION, settings, inputs, build, root)


def folder(base: Artifact) -> Path:
    """The base's checkpoint as a local folder."""
    return artifact.local_copy(base.path("model"))
