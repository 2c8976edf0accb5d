"""A bundle as other software takes it: one merged checkpoint that plain transformers (or vLLM) loads, and its card.

Adapter and motion rows are added to the unpacked base, in bf16. The motion tokenizer and the tasks go along: a
checkpoint reads and writes motion tokens, which are made by this package.
"""

from collections.abc import Mapping
from tempfile import TemporaryDirectory
from typing import Any

import jinja2
import torch

from biomechgpt.core import artifact, storage
from biomechgpt.core.artifact import Artifact
from biomechgpt.core.settings import InputError
from biomechgpt.language import network
from biomechgpt.language.tiny_model import save
from biomechgpt.questions.dataset import read_tasks

VERSION = 1


def export_model(model: Artifact, root: str, evaluation: Artifact | None = None) -> Artifact:
    """The `checkpoint` artifact of a bundle: `model.safetensors`, `config.json`, the tokenizer with motion tokens
    and chat template, `motion_tokenizer/`, `tasks.json` and the model card `README.md`.

    evaluation: of this bundle; its figures go into the card. InputError where it is of another.
    """
    if evaluation is not None:
        answered = evaluation.input("answers").manifest["inputs"]["model"]["fingerprint"]
        if answered != model.fingerprint:
            raise InputError(
                f"{evaluation.uri}: expected an evaluation of model {model.fingerprint}, found one of {answered}"
            )

    def build(uri: str) -> dict[str, Any]:
        folder = storage.local_copy(model.uri)
        bundle = storage.read_json(str(folder / "bundle.json"))
        weights = folder / "adapter" if bundle["adapter"] else None
        merged = network.load_merged(
            folder / "base", weights, bundle["quantization"], bundle["compute_dtype"]
        ).to(torch.bfloat16)
        with TemporaryDirectory() as made:
            save(merged, network.load_tokenizer(folder / "base"), made)
            storage.upload(made, uri)
        storage.upload(folder / "motion_tokenizer", storage.join(uri, "motion_tokenizer"))
        storage.write_bytes(storage.join(uri, "tasks.json"), (folder / "tasks.json").read_bytes())
        metrics = evaluation.read_json("metrics.json")["tasks"] if evaluation else {}
        storage.write_bytes(storage.join(uri, "README.md"), card(model, bundle, metrics).encode())
        return {
            "base": model.metrics["base"],
            "parameters": sum(parameter.numel() for parameter in merged.parameters()),
        }

    inputs = {"model": model, **({"evaluation": evaluation} if evaluation else {})}
    return artifact.make("checkpoint", VERSION, {}, inputs, build, root)


def card(model: Artifact, bundle: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    """The model card, in Markdown. metrics: {task: {source: figures}} of an evaluation, or nothing."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("biomechgpt.language", "."), trim_blocks=True, lstrip_blocks=True
    )

    def number(figures: Mapping[str, Any]) -> str:
        main = ("f1_weighted", "pearson_r", "agreement", "refused")
        value = next((figures[name] for name in main if name in figures), None)
        return "-" if value is None else f"{value:.2f}"

    return environment.get_template("model_card.md.j2").render(
        model=model, bundle=bundle, tasks=read_tasks(model.uri), metrics=metrics, number=number
    )
