"""What an adapter's folder says about itself. Knows nothing about tensors, so that reading it needs no torch."""

from typing import Any, Literal

from biomechgpt.core.artifact import Artifact
from biomechgpt.core.settings import InputError, Settings, validate
from biomechgpt.language.settings import FinetuneSettings
from biomechgpt.questions.dataset import read_questions, read_tasks
from biomechgpt.questions.tasks import ClassificationTask

INFO = "adapter.json"
WEIGHTS = "adapter"
"""Folder of the LoRA weights."""
MODEL = "model"
"""Folder of a checkpoint: of a base, and of an adapter artifact whose training changed all weights."""


class AdapterInfo(Settings):
    """What was fine-tuned, and what a prompt may look like to be like those of training."""

    base: str
    """Name of the base model."""
    provenance: str
    """Nature of the data: `synthetic`, `recorded` or both."""
    quantization: Literal["nf4", "none"]
    """How the base's weights are packed."""
    compute_dtype: Literal["fp32", "bf16"]
    """Number format of the computation."""
    adapter: bool
    """True: LoRA weights beside the base. False: all weights were trained, and there is a whole checkpoint."""
    tokenizer: str
    """Fingerprint of the motion tokenizer."""
    max_length: int
    """Most tokens of a movement, a question and an answer together."""
    history: bool
    """True: training read conversations, questions with an earlier question before them."""
    longest_answer: int
    """Tokens of the longest answer of training."""
    median_tokens: int
    """Median number of motion tokens of a training movement."""
    labels: dict[str, list[str]]
    """Labels of training participants, for each task that names none of its own."""
    training_settings: dict[str, Any]
    """Settings of the fine-tuning, for the model card."""


def read_info(adapter: Artifact) -> AdapterInfo:
    return validate(AdapterInfo, adapter.read_json(INFO), adapter.path(INFO))


def labels_of(questions: Artifact) -> dict[str, list[str]]:
    """{task: labels that training participants have}, for tasks that list no labels of their own."""
    labels: dict[str, set[str]] = {}
    tasks = read_tasks(questions.uri)
    for row in read_questions(questions):
        task = tasks[row["task"]]
        if row["split"] == "train" and isinstance(task, ClassificationTask) and not task.labels:
            labels.setdefault(task.name, set()).add(row["label"])
    return {name: sorted(values) for name, values in labels.items()}


def require_same_adapter(info: AdapterInfo, settings: FinetuneSettings) -> None:
    """Raise InputError if training with these settings cannot go on from the weights that `info` describes."""
    expected = info.training_settings.get("adapter") or {} if info.adapter else {}
    found = {} if settings.adapter is None else settings.adapter.model_dump(mode="json")
    for key in ("rank", "alpha"):
        if expected.get(key) != found.get(key):
            raise InputError(
                f"language.finetune.adapter.{key}: expected {expected.get(key)}, that of the model to start from, "
                f"found {found.get(key)}"
            )
