"""A model for other software: one merged checkpoint that transformers or vLLM loads, and its model card.

The card says whether its motion tokens are flat, which any software can read, or stacked (`prompts.stack`).

The adapter and the embedding rows of the motion tokens are merged into the dequantized base, in bf16. The motion
tokenizer and the tasks are exported too: a checkpoint reads and writes motion tokens, and this package makes them.
"""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jinja2
import torch

from biomechgpt.answering.bundle import MOTION_TOKENIZER, TASKS, ModelBundle
from biomechgpt.core import artifact, storage
from biomechgpt.core.artifact import Artifact
from biomechgpt.core.settings import InputError
from biomechgpt.evaluation.metrics import METRICS
from biomechgpt.language import network, packaged, tiny_model
from biomechgpt.language.stacked import stack_of
from biomechgpt.prompts.stack import Stack

_VERSION = 1
_CARD = "README.md"


def export_model(model: Artifact, root: str, evaluation: Artifact | None = None) -> Artifact:
    """The `checkpoint` artifact of a model.

    It has `model.safetensors`, `config.json`, the tokenizer with motion tokens and chat template,
    `motion_tokenizer/`, `tasks.json` and the model card `README.md`.
    evaluation: evaluation of this model, whose metrics go into the card.
    Raises InputError for an evaluation of another model.
    """
    if evaluation is not None:
        evaluated = evaluation.input("answers").manifest["inputs"]["model"]["fingerprint"]
        if evaluated != model.fingerprint:
            raise InputError(
                f"{evaluation.uri}: expected an evaluation of model {model.fingerprint}, found one of {evaluated}"
            )

    def build(uri: str) -> dict[str, Any]:
        copy = str(artifact.local_copy(model.uri))
        bundle = ModelBundle(copy)
        parts, info = bundle.parts, bundle.info
        adapter = Path(parts.adapter) if parts.adapter else None
        merged = network.load_merged(Path(parts.base), adapter, info.quantization, info.compute_dtype)
        merged = merged.to(torch.bfloat16)
        with TemporaryDirectory() as folder:
            tiny_model.save(merged, network.load_tokenizer(parts.base), folder)
            packaged.write_notice(folder, info.base)
            storage.upload(folder, uri)
        storage.upload(bundle.motion_tokenizer, storage.join(uri, MOTION_TOKENIZER))
        storage.write_bytes(storage.join(uri, TASKS), storage.read_bytes(storage.join(copy, TASKS)))
        scores = evaluation.read_json("metrics.json")["tasks"] if evaluation else {}
        stack = stack_of(merged.config)
        storage.write_bytes(storage.join(uri, _CARD), model_card(model, bundle, scores, stack).encode())
        return {
            "layout": "flat" if stack is None else "stacked",
            "base": model.metrics["base"],
            "parameters": sum(parameter.numel() for parameter in merged.parameters()),
        }

    inputs = {"model": model, **({"evaluation": evaluation} if evaluation else {})}
    return artifact.make("checkpoint", _VERSION, {}, inputs, build, root)


def model_card(model: Artifact, bundle: ModelBundle, scores: Mapping[str, Any], stack: Stack | None) -> str:
    """The model card, in Markdown.

    scores: {task: {source: scores}} of an evaluation, or empty.
    stack: how motion tokens share a position; None: each has its own.
    """
    environment = jinja2.Environment(  # noqa: S701 Markdown, no HTML
        loader=jinja2.PackageLoader("biomechgpt.experiment", "."), trim_blocks=True, lstrip_blocks=True
    )

    def number(scores_of_source: Mapping[str, Any]) -> str:
        """The value of the task's main metric."""
        main = (name for name, metric in METRICS.items() if metric.is_main and name in scores_of_source)
        value = scores_of_source[name] if (name := next(main, None)) else None
        return "-" if value is None else f"{value:.2f}"

    return environment.get_template("model_card.md.j2").render(
        model=model,
        bundle=bundle.info,
        tasks=bundle.tasks,
        metrics=scores,
        number=number,
        stack=stack,
        notice=packaged.notice(bundle.info.base),
    )
