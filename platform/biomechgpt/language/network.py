"""The language model as a network: Gemma 3 over question trees, its vocabulary, its 4-bit form.

Knows tensors and checkpoints on local disk; knows nothing about trials, tasks or artifacts.
"""

import logging
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from biomechgpt.core.training import LossTerms
from biomechgpt.prompts.encoding import motion_vocabulary
from biomechgpt.prompts.packing import visible

LOGITS = 2**26
"""Logits in memory at once, 256 MB in fp32: those of 256 tokens with Gemma's vocabulary of 262,208."""

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """transformers' "sdpa", right for heads that share one key and value (Gemma 3 1B) too; (B, heads, L, D).

    It gives each head a view of what they share, which a GPU's memory-efficient kernel, the one that takes masks,
    misreads at some lengths, as 65 (pytorch/pytorch#191937): here each gets a copy.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    heads = query.shape[1]
    if attention_mask is not None and key.shape[1] == 1 < heads and query.shape[2] > 1:
        module = SimpleNamespace(is_causal=module.is_causal)
        key, value = key.repeat(1, heads, 1, 1), value.repeat(1, heads, 1, 1)
    return sdpa_attention_forward(module, query, key, value, attention_mask, **options)


def sdpa() -> str:
    """The name of `attention` for transformers, which knows it from now on."""
    transformers.AttentionInterface.register("sdpa", attention)
    return "sdpa"


class TreeModel(nn.Module):
    """A causal language model whose forward is the loss over a batch of question trees."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        tree: Tensor,
        segment: Tensor,
        parent: Tensor,
        weight: Tensor,
    ) -> LossTerms:
        """All arguments (B, L), as `dialogue.chat.batch_trees` makes them."""
        base = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        decoder = base.get_decoder()
        masks = {
            "full_attention": visible(tree, segment, position_ids),
            "sliding_attention": visible(tree, segment, position_ids, decoder.config.sliding_window),
        }
        hidden = decoder(
            input_ids=input_ids, position_ids=position_ids, attention_mask=masks, use_cache=False
        ).last_hidden_state
        row, column = torch.nonzero(weight > 0, as_tuple=True)
        states = hidden[row, parent[row, column]]
        loss = weighted_loss(
            base.get_output_embeddings(),
            states,
            input_ids[row, column],
            weight[row, column],
            tokens_at_once(base),
        )
        return {"language": (loss, weight.sum())}


def tokens_at_once(model: Any) -> int:
    """How many tokens' logits are in memory at once."""
    return max(1, LOGITS // model.config.get_text_config().vocab_size)


def weighted_loss(head: nn.Module, states: Tensor, targets: Tensor, weights: Tensor, rows: int) -> Tensor:
    """Sum of weights x cross-entropy; (N, D) states, (N,) targets. Never the logits of more than `rows`."""

    def part(s: Tensor, t: Tensor, w: Tensor) -> Tensor:
        return (functional.cross_entropy(head(s).float(), t, reduction="none") * w).sum()

    if len(targets) <= rows:
        return part(states, targets, weights)
    chunks = zip(states.split(rows), targets.split(rows), weights.split(rows), strict=True)
    return torch.stack([checkpoint(part, *chunk, use_reentrant=False) for chunk in chunks]).sum()


def codebook_rows(codebook: np.ndarray, existing: Tensor, seed: int = 0) -> Tensor:
    """Embedding rows for motion tokens: a fixed random projection of each code's vector, (codes, width).

    Similar movements start as similar tokens; their mean and spread are those of the existing rows.
    """
    codes = torch.from_numpy(np.asarray(codebook, dtype=np.float32))
    codes = (codes - codes.mean(0)) / codes.std().clamp(min=1e-8)
    generator = torch.Generator().manual_seed(seed)
    rows = codes @ torch.randn(codes.shape[1], existing.shape[1], generator=generator)
    known = existing.float()
    spread = (known - known.mean(0)).std()
    return known.mean(0) + rows / rows.std().clamp(min=1e-8) * spread


def extend_vocabulary(
    model: Any, tokenizer: Any, codebook: np.ndarray, rows: Literal["codebook", "random"], seed: int = 0
) -> list[int]:
    """Add `<motion_start>`, `<motion_end>` and a token a code; returns their ids.

    The embedding never shrinks: Gemma 3 has more rows than its tokenizer has tokens.
    """
    vocabulary = motion_vocabulary(len(codebook))
    if not set(vocabulary) - set(tokenizer.get_vocab()):
        return tokenizer.convert_tokens_to_ids(vocabulary)
    known = len(tokenizer)
    tokenizer.add_tokens(motion_vocabulary(len(codebook)), special_tokens=True)
    ids = list(range(known, len(tokenizer)))
    current = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > current:
        size = (len(tokenizer) + 63) // 64 * 64
        model.resize_token_embeddings(size, mean_resizing=False)
    weight = model.get_input_embeddings().weight
    with torch.no_grad():
        existing = weight[:known].float().cpu()
        generator = torch.Generator().manual_seed(seed)
        spread = (existing - existing.mean(0)).std()
        fresh = existing.mean(0) + spread * torch.randn(len(ids), weight.shape[1], generator=generator)
        if rows == "codebook":
            fresh[2:] = codebook_rows(codebook, existing, seed)
        weight[ids] = fresh.to(weight)
    return ids


def load_tokenizer(folder: str | Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(str(folder))


def device() -> str:
    """Where this process runs a model: its GPU, where it has one."""
    return f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else "cpu"


def load_model(
    folder: str | Path, quantization: Literal["nf4", "none"], compute: Literal["fp32", "bf16"]
) -> Any:
    """A causal language model from a local folder (or a name in the local cache), 4-bit where asked for."""
    options: dict[str, Any] = {"dtype": DTYPES[compute], "attn_implementation": sdpa()}
    if quantization == "nf4":
        options["quantization_config"] = transformers.BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=DTYPES[compute],
        )
        options["device_map"] = {"": device()}
    return transformers.AutoModelForCausalLM.from_pretrained(str(folder), **options)


def load_merged(
    base: Path, adapter: Path | None, quantization: Literal["nf4", "none"], compute: Literal["fp32", "bf16"]
) -> Any:
    """The model of a base's folder: unpacked from 4 bits once, with the adapter of a folder, if any, added.

    The same model as in training but for rounding (packed weights are multiplied in 16 bits), quicker, and in fp32
    the same whatever else is in a batch.
    """
    model = load_model(base, quantization, compute)
    model = model.to(device()) if quantization == "none" else model.dequantize()
    if adapter is None:
        return model
    from peft import PeftModel  # takes 4 s to load, which only a process that has a model has to wait for

    return PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()


def quiet() -> None:
    """Keep what the libraries say while loading out of a job's progress lines."""
    logging.getLogger("transformers").setLevel(logging.ERROR)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", message=".*ensure_weight_tying.*")
