"""QLoRA: a 4-bit base, low-rank adapters on every linear layer, the motion tokens' rows trained.

Or adapters on an unpacked base, or all weights. The adapter artifact holds the trained weights, nothing else.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator
from torch import nn

from biomechgpt.core import artifact, storage
from biomechgpt.core.artifact import Artifact
from biomechgpt.core.settings import InputError, Settings, plain
from biomechgpt.core.training import fit
from biomechgpt.core.training_settings import TrainingSettings
from biomechgpt.language import network, tiny_gemma
from biomechgpt.language import pretrain as base_room
from biomechgpt.language.adapter import INFO, MODEL, WEIGHTS, AdapterInfo
from biomechgpt.language.batches import SampleSettings, TreeTrainee, read_trees
from biomechgpt.prompts.encoding import Encoder, motion_vocabulary
from biomechgpt.questions.dataset import read_questions, read_tasks
from biomechgpt.questions.tasks import ClassificationTask
from biomechgpt.tokenizer.motion_tokenizer import require_same_tokenizer
from biomechgpt.tokenizer.tokens import Tokens

VERSION = 1
# Every linear layer of the language model; not those of the vision tower that Gemma 3 4B brings along.
OTHER = r"vision_tower|multi_modal_projector"
LAYERS = rf"(?!.*(?:{OTHER})).*\.(?:[qkvo]|gate|up|down)_proj"


class AdapterSettings(Settings):
    """LoRA's settings, named as in PEFT; the defaults are the paper's."""

    rank: int = Field(32, ge=1)
    alpha: int = Field(32, ge=1)
    dropout: float = Field(0.1, ge=0, lt=1)


class FinetuneSettings(SampleSettings):
    """Defaults are the paper's for 4B, but for `samples`, which changes speed and not the loss.

    adapter: null trains all weights of the language model, which needs `quantization: none`.
    answer_weight: the most that the tokens of one answer weigh together, so that a movement or a description, of a
    hundred tokens, does not crowd out labels of five; null: no limit, as in the paper, whose answers are short.
    balance: an answer weighs by how rare its task's questions are, to this power: 0, as in the paper, not at all; 1
    makes every task weigh the same. Without it few steps do not teach what few questions ask.
    participants: only so many of the training participants, drawn by the seed, for a learning curve; null: all.
    """

    adapter: AdapterSettings | None = AdapterSettings()
    quantization: Literal["nf4", "none"] = "nf4"
    compute: Literal["fp32", "bf16"] = "bf16"
    gradient_checkpointing: bool = Field(False, exclude=True)
    batch_size: int = Field(10, ge=1)
    answer_weight: float | None = Field(None, gt=0)
    balance: float = Field(0.0, ge=0, le=1)
    participants: int | None = Field(None, ge=1)
    training: TrainingSettings = TrainingSettings(learning_rate=2e-4)

    @model_validator(mode="after")
    def _trainable(self) -> "FinetuneSettings":
        if self.quantization != "none":
            if self.adapter is None:
                raise ValueError(
                    "adapter: expected one, as 4-bit weights cannot be trained; or quantization none"
                )
            if self.training.zero_stage == 3:
                raise ValueError(
                    "training.zero_stage: expected 0, 1 or 2 with quantization nf4, as stage 3 cuts up weights "
                    "that are packed in blocks; 2 shares out all that is trained. Or quantization none"
                )
        return self


def with_adapter(model: Any, adapter: AdapterSettings, rows: list[int]) -> Any:
    """The model with adapters on its linear layers to train, and these rows of its embedding."""
    from peft import LoraConfig, get_peft_model

    return get_peft_model(
        model,
        LoraConfig(
            r=adapter.rank,
            lora_alpha=adapter.alpha,
            lora_dropout=adapter.dropout,
            target_modules=LAYERS,
            trainable_token_indices={"embed_tokens": rows} if rows else None,
            ensure_weight_tying=bool(rows),
            task_type="CAUSAL_LM",
        ),
    )


class _QLoRA(TreeTrainee):
    def __init__(self, base: str, questions: str, tokens: str, settings: dict[str, Any]) -> None:
        self.settings: FinetuneSettings = FinetuneSettings.model_validate(settings)
        self.seed = self.settings.training.seed
        self.folder = base_room.folder(artifact.load(base))
        self.tokenizer = network.load_tokenizer(self.folder)
        self.motion = artifact.load(tokens)
        self.codes = Tokens(self.motion).info.codebook_size
        rows = [r for r in read_questions(artifact.load(questions)) if r["split"] == "train"]
        rows = _of_some(rows, self.settings.participants, self.seed)
        self.questions = len(rows)
        encoder, views = Encoder(self.tokenizer), Tokens(self.motion).augmentations()
        self.longest_answer = max(
            (len(encoder.answer(answer)) for answer in {r["answer"] for r in rows}), default=0
        )
        self.usual_tokens = int(np.median([len(movement[0]) for movement in views.values()] or [0]))
        self.trees = read_trees(encoder, views, rows, self.settings, self.seed, _worth(rows, self.settings))

    def build_model(self) -> nn.Module:
        network.quiet()
        settings = self.settings
        model = network.load_model(self.folder, settings.quantization, settings.compute)
        if settings.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        if settings.adapter is None:
            for name, parameter in model.named_parameters():
                parameter.requires_grad = not re.search(OTHER, name)
            self.adapted = model
            return network.TreeModel(model)
        ids = self.tokenizer.convert_tokens_to_ids(motion_vocabulary(self.codes))
        self.adapted = with_adapter(model, settings.adapter, ids)
        return network.TreeModel(self.adapted)

    def export(self, model: nn.Module) -> dict[str, Any]:
        import bitsandbytes  # takes 4 s to load, which only a process that trains has to wait for

        with TemporaryDirectory() as folder:
            if self.settings.adapter is None:
                tiny_gemma.save(self.adapted, self.tokenizer, folder)
                storage.upload(folder, storage.join(self.uri, MODEL))
            else:
                # The base's own embedding lies in the base; the trained rows are in the adapter all the same.
                self.adapted.save_pretrained(folder, save_embedding_layers=False)
                storage.upload(folder, storage.join(self.uri, WEIGHTS))
        trained = sum(p.numel() for p in self.adapted.parameters() if p.requires_grad)
        layers = [m for m in self.adapted.modules() if isinstance(m, bitsandbytes.nn.Linear4bit)]
        return {
            "questions": self.questions,
            "trained_parameters": trained,
            "linear_layers_4bit": len(layers),
            "longest_answer": self.longest_answer,
            "usual_tokens": self.usual_tokens,
        }


def _worth(
    rows: list[dict[str, Any]], settings: FinetuneSettings
) -> Callable[[Mapping[str, Any], int], float]:
    """What a token of a question's answer counts in the loss, from the question and the tokens of its answer."""
    asked = Counter(row["task"] for row in rows)
    of_task = {task: (len(rows) / len(asked) / n) ** settings.balance for task, n in asked.items()}
    most = settings.answer_weight or np.inf
    return lambda row, tokens: of_task[row["task"]] * min(1.0, most / tokens)


def _of_some(rows: list[dict[str, Any]], participants: int | None, seed: int) -> list[dict[str, Any]]:
    """Questions of so many participants. Fewer are always among more, so a learning curve adds people."""
    if participants is None:
        return rows
    people = sorted({row["participant"] for row in rows})
    if participants > len(people):
        raise InputError(f"finetune.participants: expected at most {len(people)}, found {participants}")
    kept = {people[i] for i in np.random.default_rng((seed, 2)).permutation(len(people))[:participants]}
    return [row for row in rows if row["participant"] in kept]


def _labels(questions: Artifact) -> dict[str, list[str]]:
    """{task: the labels that training participants have}, of tasks without labels of their own."""
    found: dict[str, set[str]] = {}
    tasks = read_tasks(questions.uri)
    for row in read_questions(questions):
        task = tasks[row["task"]]
        if row["split"] == "train" and isinstance(task, ClassificationTask) and not task.labels:
            found.setdefault(task.name, set()).add(row["label"])
    return {name: sorted(labels) for name, labels in found.items()}


def make_adapter(
    base: Artifact, questions: Artifact, tokens: Artifact, settings: FinetuneSettings, root: str
) -> Artifact:
    """The adapter artifact: `adapter/`, or `model/` where all weights were trained, and `adapter.json`.

    Raises InputError for a base and tokens of different tokenizers.
    """
    require_same_tokenizer(base, tokens)

    def build(uri: str) -> dict[str, Any]:
        arguments = {
            "base": base.uri,
            "questions": questions.uri,
            "tokens": tokens.uri,
            # model_dump() would leave out `packing` and whatever else moves no fingerprint.
            "settings": {k: v for k, v in plain(settings).items() if k in FinetuneSettings.model_fields},
        }
        figures = fit(_QLoRA, arguments, settings.training, uri, "fine-tuning")
        info = AdapterInfo(
            base=base.metrics["base"],
            provenance=tokens.provenance,
            quantization=settings.quantization,
            compute_dtype=settings.compute,
            adapter=settings.adapter is not None,
            tokenizer=tokens.manifest["inputs"]["tokenizer"]["fingerprint"],
            max_length=settings.max_length,
            history=settings.turns > 0,
            longest_answer=figures["longest_answer"],
            median_tokens=figures["usual_tokens"],
            labels=_labels(questions),
            training_settings=settings.model_dump(mode="json"),
        )
        storage.write_json(storage.join(uri, INFO), info.model_dump(mode="json"))
        return {**figures, "base": base.metrics["base"]}

    inputs = {"base": base, "questions": questions, "tokens": tokens}
    return artifact.make("adapter", VERSION, settings, inputs, build, root)
