"""QLoRA: low-rank adapters on every linear layer of a 4-bit base, and trained embeddings of the motion tokens.

Settings also allow adapters on an unpacked base, and training of all weights. The adapter artifact holds the
trained weights, nothing else.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from torch import Tensor, nn
from transformers import AutoConfig

from biomechgpt.core import artifact, storage
from biomechgpt.core.artifact import Artifact
from biomechgpt.core.settings import InputError, plain
from biomechgpt.core.training import fit
from biomechgpt.language import network, pretrain, tiny_model
from biomechgpt.language.adapter import (
    INFO,
    MODEL,
    WEIGHTS,
    AdapterInfo,
    labels_of,
    read_info,
    require_same_adapter,
)
from biomechgpt.language.batches import DrawAnswer, LossWeight, TreeTrainingTask, plan_batches, read_trees
from biomechgpt.language.dropout import replace_dropout
from biomechgpt.language.families import family_of
from biomechgpt.language.proper_scores import AnswerSets, ScoredTree, batch_scored, scored_tree
from biomechgpt.language.settings import AdapterSettings, FinetuneSettings
from biomechgpt.language.stacked import stack_of
from biomechgpt.prompts.encoding import PrefixTree, PromptEncoder, motion_vocabulary
from biomechgpt.questions.dataset import read_questions, read_tasks
from biomechgpt.questions.tasks import RegressionTask, Tasks
from biomechgpt.tokenizer.motion_tokenizer import require_same_tokenizer
from biomechgpt.tokenizer.tokens import Tokens

VERSION = 3


def with_adapter(model: Any, adapter: AdapterSettings, rows: list[int]) -> Any:
    """The model with adapters to train on its linear layers, and these rows of its embedding to train."""
    from peft import LoraConfig, get_peft_model

    from biomechgpt.language.motion_rows import split_rows
    from biomechgpt.language.wide_adapter import sum_wide_adapters

    # The embedding stays as it is but for the rows of motion tokens. Where the output layer shares its weights with
    # the embedding, PEFT ties the trained rows too; elsewhere the output layer has rows of its own.
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    layers = ["embed_tokens"] if tied else ["embed_tokens", "lm_head"]
    adapted = get_peft_model(
        model,
        LoraConfig(
            r=adapter.rank,
            lora_alpha=adapter.alpha,
            lora_dropout=adapter.dropout,
            target_modules=family_of(model.config).lora_targets,
            trainable_token_indices=dict.fromkeys(layers, rows) if rows else None,
            ensure_weight_tying=bool(rows) and tied,
            task_type="CAUSAL_LM",
        ),
    )
    split_rows(adapted)
    replace_dropout(adapted)
    sum_wide_adapters(adapted)
    return adapted


def load_weights(model: Any, uri: str) -> None:
    """Give a model `with_adapter` the weights of a finished adapter, to go on from."""
    from peft import load_peft_weights, set_peft_model_state_dict

    weights = load_peft_weights(str(artifact.local_copy(uri)), device="cpu")
    loaded: Any = set_peft_model_state_dict(model, weights)
    if unknown := loaded.unexpected_keys:
        raise InputError(f"{uri}: expected weights of this model's layers, found {sorted(unknown)[:3]}")


class _Finetuning(TreeTrainingTask):
    """Trains an adapter, or all weights, on the questions of training participants."""

    def __init__(
        self, base: str, questions: str, tokens: str, settings: dict[str, Any], start: str | None = None
    ) -> None:
        """start: URI of LoRA weights to go on from."""
        self.start = start
        self.settings: FinetuneSettings = FinetuneSettings.model_validate(settings)
        self.seed = self.settings.training.seed
        self.folder = pretrain.folder(artifact.load(base))
        self.tokenizer = network.load_tokenizer(self.folder)
        self.motion = artifact.load(tokens)
        self.codes = Tokens(self.motion).info.codebook_size
        every = read_questions(artifact.load(questions))
        rows = [row for row in every if row["split"] == "train"]
        rows = _of_participants(rows, self.settings.participants, self.seed)
        self.questions = len(rows)
        config = AutoConfig.from_pretrained(str(self.folder))
        encoder = PromptEncoder(self.tokenizer, family_of(config).turns, stack_of(config))
        views = Tokens(self.motion).views(["train"])
        self.longest_answer = max(
            (len(encoder.answer(answer)) for answer in {r["answer"] for r in rows}), default=0
        )
        self.median_tokens = int(np.median([len(movement[0]) for movement in views.values()] or [0]))
        weight = _loss_weight(rows, self.settings)
        tasks = read_tasks(questions)
        draw = _noisy_numbers(rows, tasks, self.settings.number_noise, self.seed)
        self.trees = read_trees(encoder, views, rows, self.settings, self.seed, weight, draw)
        self.scored: list[list[ScoredTree]] = []
        if self.settings.proper_scores.epochs:
            answers = AnswerSets(
                tasks,
                labels_of(artifact.load(questions)),
                rows,
                self.settings.proper_scores.numbers,
                np.random.default_rng((self.seed, 4)),
            )
            self.scored = _scored_trees(encoder, views, rows, answers, self.settings.max_length, weight)
        self.validations = self.settings.validation.times
        self.validation_trees: list[PrefixTree] = []
        if self.validations:
            trained = {row["task"] for row in rows}
            held_out = [row for row in every if row["split"] == "validation" and row["task"] in trained]
            held_out = _about_some(held_out, self.settings.validation.movements)
            plain_questions = self.settings.model_copy(update={"history_share": 0.0})
            own_views = Tokens(self.motion).views(["validation"], 1)
            trees = read_trees(encoder, own_views, held_out, plain_questions, loss_weight=weight)
            self.validation_trees = [tree for (tree,) in trees]

    @property
    def _first_scored(self) -> int:
        """Number of the first sample with a proper score."""
        return len(self.trees) * self.views

    def batches(self) -> list[list[int]]:
        """Those of the likelihood, then those of proper scores. The numbers of the latter follow all others."""
        lengths = [len(view) for views in self.scored for view in views]
        size, epochs = self.settings.batch_size, self.settings.proper_scores.epochs
        scored = plan_batches(lengths, size, epochs, self.seed, self.views) if lengths else []
        return super().batches() + [[self._first_scored + i for i in batch] for batch in scored]

    def collate(self, samples: list[int]) -> dict[str, Tensor]:
        if samples[0] < self._first_scored:
            return super().collate(samples)
        numbers = [divmod(i - self._first_scored, self.views) for i in samples]
        return batch_scored([self.scored[i][view] for i, view in numbers], self.tokenizer.pad_token_id)

    def workload(self, batches: list[list[int]]) -> str:
        likelihood = [batch for batch in batches if batch[0] < self._first_scored]
        further = len(batches) - len(likelihood)
        return super().workload(likelihood) + (f", then {further} on proper scores" if further else "")

    def validation_batches(self) -> list[list[int]]:
        """Batches of trees of like length."""
        by_length = sorted(range(len(self.validation_trees)), key=lambda i: len(self.validation_trees[i]))
        size = self.settings.batch_size
        return [by_length[i : i + size] for i in range(0, len(by_length), size)]

    def collate_validation(self, samples: list[int]) -> dict[str, Tensor]:
        return self.batch_of([self.validation_trees[i] for i in samples])

    def build_model(self) -> nn.Module:
        network.quiet()
        settings = self.settings
        model = network.load_model(self.folder, settings.quantization, settings.compute_dtype)
        self.layers_4bit = len(network.packed_layers(model))
        model = network.unpacked_where_it_fits(model)
        if settings.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        if settings.adapter is None:
            frozen = family_of(model.config).frozen_layers
            for name, parameter in model.named_parameters():
                parameter.requires_grad = frozen is None or not re.search(frozen, name)
            self.adapted = model
            return network.TreeModel(model)
        ids = self.tokenizer.convert_tokens_to_ids(motion_vocabulary(self.codes))
        self.adapted = with_adapter(model, settings.adapter, ids)
        if self.start:
            load_weights(self.adapted, self.start)
        return network.TreeModel(self.adapted)

    def export(self, model: nn.Module) -> dict[str, Any]:
        with TemporaryDirectory() as folder:
            if self.settings.adapter is None:
                tiny_model.save(self.adapted, self.tokenizer, folder)
                storage.upload(folder, storage.join(self.uri, MODEL))
            else:
                # The whole embedding is part of the base. The adapter holds its trained rows alone.
                self.adapted.save_pretrained(folder, save_embedding_layers=False)
                storage.upload(folder, storage.join(self.uri, WEIGHTS))
        trained = sum(p.numel() for p in self.adapted.parameters() if p.requires_grad)
        return {
            "questions": self.questions,
            "trained_parameters": trained,
            "linear_layers_4bit": self.layers_4bit,
            "longest_answer": self.longest_answer,
            "median_tokens": self.median_tokens,
        }


def _about_some(rows: list[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """The questions about at most so many movements and pairs of movements, evenly spread over their order."""
    movements = list(dict.fromkeys((row["trial"], row.get("other")) for row in rows))
    step = max(1.0, len(movements) / most)
    kept = {movements[int(k * step)] for k in range(min(most, len(movements)))}
    return [row for row in rows if (row["trial"], row.get("other")) in kept]


def _loss_weight(rows: list[dict[str, Any]], settings: FinetuneSettings) -> LossWeight:
    """The weight of a token of a question's answer in the loss: larger for rare tasks, smaller in long answers."""
    counts = Counter(row["task"] for row in rows)
    # rarity = mean number of questions of a task / its own number; 1 for a task that is as common as the mean.
    of_task = {task: (len(rows) / len(counts) / n) ** settings.task_reweighting for task, n in counts.items()}
    most = settings.max_answer_weight or np.inf
    return lambda row, n_tokens: of_task[row["task"]] * min(1.0, most / n_tokens)


def _noisy_numbers(
    rows: Sequence[Mapping[str, Any]], tasks: Tasks, share: float, seed: int
) -> DrawAnswer | None:
    """Answers with noise on annotated numbers, within the plausible range; None without noise."""
    if not share:
        return None
    rng = np.random.default_rng((seed, 3))
    numbers = {name: task for name, task in tasks.items() if isinstance(task, RegressionTask)}
    spread = {
        name: float(np.std([r["value"] for r in rows if r["task"] == name] or [0.0])) for name in numbers
    }

    def draw(row: Mapping[str, Any]) -> str | None:
        task = numbers.get(row["task"])
        if task is None:
            return None
        value = row["value"] + share * spread[task.name] * rng.standard_normal()
        return task.answer(float(np.clip(value, *task.plausible)))

    return draw


def _scored_trees(
    encoder: PromptEncoder,
    views: Mapping[str, Sequence[Sequence[int]]],
    rows: Sequence[Mapping[str, Any]],
    answers: AnswerSets,
    max_length: int,
    weight: LossWeight,
) -> list[list[ScoredTree]]:
    """For each movement that is asked about alone, in each view, its questions with all possible answers."""
    of_trial = defaultdict(list)
    for row in rows:
        if not row.get("other") and answers.knows(row):
            of_trial[row["trial"]].append((row, weight(row, 1)))
    return [
        [scored_tree(encoder, view, asked, answers, max_length) for view in views[trial]]
        for trial, asked in of_trial.items()
    ]


def _of_participants(rows: list[dict[str, Any]], participants: int | None, seed: int) -> list[dict[str, Any]]:
    """Questions of so many participants. More participants always include fewer: a learning curve adds people."""
    if participants is None:
        return rows
    people = sorted({row["participant"] for row in rows})
    if participants > len(people):
        raise InputError(f"finetune.participants: expected at most {len(people)}, found {participants}")
    kept = {people[i] for i in np.random.default_rng((seed, 2)).permutation(len(people))[:participants]}
    return [row for row in rows if row["participant"] in kept]


def make_adapter(
    base: Artifact,
    questions: Artifact,
    tokens: Artifact,
    settings: FinetuneSettings,
    root: str,
    start: Artifact | None = None,
) -> Artifact:
    """The adapter artifact: `adapter/`, or `model/` where all weights were trained, and `adapter.json`.

    start: a finished adapter of the same base, whose weights training goes on from.
    Raises InputError for a base and tokens of different tokenizers, and for a start of another rank.
    """
    require_same_tokenizer(base, tokens)
    if start:
        require_same_adapter(read_info(start), settings)

    def build(uri: str) -> dict[str, Any]:
        arguments = {
            "base": base.uri,
            "questions": questions.uri,
            "tokens": tokens.uri,
            # model_dump() would leave out `packing` and whatever else moves no fingerprint.
            "settings": {k: v for k, v in plain(settings).items() if k in FinetuneSettings.model_fields},
            "start": start.path(WEIGHTS) if start and settings.adapter else None,
        }
        metrics = fit(_Finetuning, arguments, settings.training, uri, "fine-tuning")
        info = AdapterInfo(
            base=base.metrics["base"],
            provenance=tokens.provenance,
            quantization=settings.quantization,
            compute_dtype=settings.compute_dtype,
            adapter=settings.adapter is not None,
            tokenizer=tokens.manifest["inputs"]["tokenizer"]["fingerprint"],
            max_length=settings.max_length,
            history=settings.history_share > 0,
            longest_answer=metrics["longest_answer"],
            median_tokens=metrics["median_tokens"],
            labels=labels_of(questions),
            training_settings=settings.model_dump(mode="json"),
        )
        storage.write_json(storage.join(uri, INFO), info.model_dump(mode="json"))
        return {**metrics, "base": base.metrics["base"]}

    inputs = {"base": base, "questions": questions, "tokens": tokens, **({"start": start} if start else {})}
    return artifact.make("adapter", VERSION, settings, inputs, build, root)
