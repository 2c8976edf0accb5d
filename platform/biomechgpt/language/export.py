"""A bundle as other software takes it: one merged checkpoint that plain transformers (or vLLM) loads.

Adapter and motion rows are added to the unpacked base, in bf16. The motion tokenizer and the tasks go along: a
checkpoint reads and writes motion tokens, which are made by this package.
"""

from collections.abc import Mapping
from tempfile import TemporaryDirectory
from typing import Any

import torch

from biomechgpt.core import artifact, storage
from biomechgpt.core.artifact import Artifact
from biomechgpt.language import network
from biomechgpt.language.tiny_gemma import save

VERSION = 1


def export_model(
    model: Artifact, root: str, readme: str = "", inputs: Mapping[str, Artifact] | None = None
) -> Artifact:
    """The `checkpoint` artifact of a bundle: `model.safetensors`, `config.json`, the tokenizer with motion tokens
    and chat template, `motion_tokenizer/`, `tasks.json` and `README.md`.

    readme: text of README.md.
    inputs: artifacts that the text was made from.
    """

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
        storage.write_bytes(storage.join(uri, "README.md"), readme.encode())
        return {
            "base": model.figures["base"],
            "parameters": sum(parameter.numel() for parameter in merged.parameters()),
        }

    return artifact.make("checkpoint", VERSION, {}, {"model": model, **(inputs or {})}, build, root)
