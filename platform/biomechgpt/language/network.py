"""The language model as a network: its loss over question trees, its vocabulary, its 4-bit form.

Knows tensors and checkpoints on local disk; knows nothing about trials, tasks or artifacts.
"""

import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import torch
import transformers
from torch import Tensor, nn
from transformers.masking_utils import sdpa_mask

from biomechgpt.core.settings import InputError
from biomechgpt.core.training import LossTerms
from biomechgpt.language.families import family_of
from biomechgpt.language.output_layer import token_losses, weighted_loss
from biomechgpt.language.proper_scores import proper_score, scores_of
from biomechgpt.language.stacked import describe_stack, read_stacks, stack_of
from biomechgpt.prompts import packing
from biomechgpt.prompts.encoding import motion_vocabulary
from biomechgpt.prompts.stack import Stack

LOGITS = 2**26
"""Logits in memory at once, 256 MB in fp32: those of 256 tokens with Gemma's vocabulary of 262,208."""

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """transformers' "sdpa" attention, (B, heads, L, D), with a workaround for heads that share one key and value.

    With one key head, as in Gemma 3 1B, transformers gives each query head a view of it. A GPU's memory-efficient
    kernel, the one that takes masks, misreads such views at some lengths, such as 65 (pytorch/pytorch#191937).
    Here each query head gets a copy.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    heads = query.shape[1]
    if attention_mask is not None and key.shape[1] == 1 < heads and query.shape[2] > 1:
        module = SimpleNamespace(is_causal=module.is_causal)
        key, value = key.repeat(1, heads, 1, 1), value.repeat(1, heads, 1, 1)
    return sdpa_attention_forward(module, query, key, value, attention_mask, **options)


ATTENTION = "biomechgpt"
"""Name of `attention` in transformers. A name of its own, so that other models in the process keep their "sdpa"."""


def register_attention() -> str:
    """Make `attention` known to transformers; returns its name."""
    transformers.AttentionInterface.register(ATTENTION, attention)
    # Without a mask function of the same name, transformers would call `attention` without any mask.
    transformers.AttentionMaskInterface.register(ATTENTION, sdpa_mask)
    return ATTENTION


class TreeModel(nn.Module):
    """A causal language model whose forward is the loss over a batch of question trees."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        read_stacks(model)

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        tree: Tensor,
        segment: Tensor,
        parent: Tensor,
        weight: Tensor,
        branch: Tensor | None = None,
        scores: Tensor | None = None,
    ) -> LossTerms:
        """All arguments (B, L), as `prompts.packing.batch_trees` makes them.

        branch, scores: as `proper_scores.batch_scored` makes them. The loss is then the mean proper score of the
        questions, and not the cross-entropy of the answers.
        """
        base = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        decoder = base.get_decoder()
        masks = family_of(base.config).attention_masks(
            decoder.config, lambda window: packing.attention_mask(tree, segment, position_ids, window)
        )
        hidden = decoder(
            input_ids=input_ids, position_ids=position_ids, attention_mask=masks, use_cache=False
        ).last_hidden_state
        # A token is predicted from the state of its parent: of the token before it, and for the first token of each
        # branch of the end of the prefix. A prefix token's weight is multiplied by the number of branches, because
        # each of them would read the prefix again if it were a sample of its own.
        row, column = torch.nonzero(weight > 0, as_tuple=True)
        states, targets, weights = (
            hidden[row, parent[row, column]],
            input_ids[row, column],
            weight[row, column],
        )
        head, at_once, stack = base.get_output_embeddings(), tokens_at_once(base), stack_of(base.config)
        if branch is None or scores is None:
            return {"language": (weighted_loss(head, states, targets, weights, at_once, stack), weight.sum())}
        of_branch, fields = branch[row, column], scores_of(scores)
        losses = token_losses(head, states, targets, at_once, stack)
        log_likelihood = losses.new_zeros(len(scores)).index_add(0, of_branch, -losses).requires_grad_()
        with torch.enable_grad():
            score = proper_score(log_likelihood, fields)
            (slope,) = torch.autograd.grad(score, log_likelihood)
        # A sum of cross-entropies with the gradient of the score. Its own value means nothing.
        loss = weighted_loss(head, states, targets, -slope[of_branch], at_once, stack)
        return {"score": (loss - loss.detach() + score.detach(), fields.question[-1] + 1)}


def tokens_at_once(model: Any) -> int:
    """How many tokens' logits are in memory at once."""
    return max(1, LOGITS // int(model.config.get_text_config().vocab_size))


def codebook_rows(codebook: np.ndarray, existing: Tensor, seed: int = 0) -> Tensor:
    """Embedding rows of motion tokens: a fixed random projection of each code's vector, (codes, width).

    A random projection keeps distances, so similar movements start as similar tokens. The rows have the mean and
    the spread of the existing rows.
    """
    codes = torch.from_numpy(np.asarray(codebook, dtype=np.float32))
    codes = (codes - codes.mean(0)) / codes.std().clamp(min=1e-8)
    generator = torch.Generator().manual_seed(seed)
    rows = codes @ torch.randn(codes.shape[1], existing.shape[1], generator=generator)
    words = existing.float()
    spread = (words - words.mean(0)).std()
    return words.mean(0) + rows / rows.std().clamp(min=1e-8) * spread


def extend_vocabulary(
    model: Any,
    tokenizer: Any,
    codebook: np.ndarray,
    embedding_init: Literal["codebook", "random"],
    seed: int = 0,
    stacked: Sequence[int] = (),
) -> list[int]:
    """Add `<motion_start>`, `<motion_end>` and a token for each code; returns their ids.

    A tokenizer that has them already is left as it is.
    stacked: how many tokens each place of a step chooses from, if they share a position; without them each motion
        token has its own.
    """
    vocabulary = motion_vocabulary(len(codebook))
    if not set(vocabulary) - set(tokenizer.get_vocab()):
        return list(tokenizer.convert_tokens_to_ids(vocabulary))
    n_words = len(tokenizer)
    tokenizer.add_tokens(vocabulary, special_tokens=True)
    ids = list(range(n_words, len(tokenizer)))
    if len(stacked) > 1:
        if len(tokenizer) + math.prod(stacked) > 2**62:
            raise InputError(f"tokens.layout: expected flat, as stacks of {len(stacked)} tokens are too many")
        describe_stack(model.config, Stack(ids[2], len(codebook), tuple(stacked)))
    # The embedding may grow but never shrinks: Gemma 3 has more rows than its tokenizer has tokens.
    if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings((len(tokenizer) + 63) // 64 * 64, mean_resizing=False)
    weights = [model.get_input_embeddings().weight]
    # Tied: the output layer is the embedding itself, whose new rows serve both. Untied: it has rows of its own.
    if model.get_output_embeddings().weight is not weights[0]:
        weights.append(model.get_output_embeddings().weight)
    with torch.no_grad():
        for weight in weights:
            existing = weight[:n_words].float().cpu()
            weight[ids] = _new_rows(existing, codebook, embedding_init, seed).to(weight)
    return ids


def _new_rows(
    existing: Tensor, codebook: np.ndarray, embedding_init: Literal["codebook", "random"], seed: int
) -> Tensor:
    """Rows of the start, the end and each code, with mean and spread of the existing rows."""
    generator = torch.Generator().manual_seed(seed)
    spread = (existing - existing.mean(0)).std()
    noise = torch.randn(len(codebook) + 2, existing.shape[1], generator=generator)
    rows = existing.mean(0) + spread * noise
    if embedding_init == "codebook":
        rows[2:] = codebook_rows(codebook, existing, seed)
    return rows


def load_tokenizer(folder: str | Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(str(folder))


def device() -> str:
    """Where this process runs a model: its GPU, where it has one."""
    return f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else "cpu"


def load_model(
    folder: str | Path, quantization: Literal["nf4", "none"], compute_dtype: Literal["fp32", "bf16"]
) -> Any:
    """A causal language model from a local folder, or a name in the local cache.

    quantization: nf4 packs the linear layers in 4 bits. Embedding and output layer keep `compute_dtype`: their rows
    for motion tokens are trained, and a packed row cannot be.
    """
    options: dict[str, Any] = {"dtype": DTYPES[compute_dtype], "attn_implementation": register_attention()}
    if quantization == "nf4":
        options["quantization_config"] = transformers.BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=DTYPES[compute_dtype],
        )
        options["device_map"] = {"": device()}
    return transformers.AutoModelForCausalLM.from_pretrained(str(folder), **options)


def packed_layers(model: Any) -> list[Any]:
    """The linear layers that are packed in 4 bits."""
    # Takes 4 s to load, for which only a process with a model has to wait.
    from bitsandbytes.nn.modules import Linear4bit

    return [layer for layer in model.modules() if isinstance(layer, Linear4bit)]


def unpacked_where_it_fits(model: Any) -> Any:
    """A model with its 4-bit weights as numbers of the compute dtype, for training on a CPU.

    A CPU would unpack every weight again in each step, forwards and backwards. The values are the rounded ones, so
    results are the same. A GPU keeps packed weights, and so does a machine where unpacked ones would take more than
    a quarter of the memory that is free.
    """
    import psutil

    layers = packed_layers(model)
    n_bytes = sum(layer.in_features * layer.out_features for layer in layers) * model.dtype.itemsize
    if not layers or model.device.type != "cpu" or n_bytes > psutil.virtual_memory().available / 4:
        return model
    return model.dequantize()


def load_merged(
    base: Path,
    adapter: Path | None,
    quantization: Literal["nf4", "none"],
    compute_dtype: Literal["fp32", "bf16"],
) -> Any:
    """The model of a base's folder, unpacked from 4 bits, with the adapter of a folder, if any, merged into it.

    It differs from the model in training by rounding alone, as packed weights are multiplied in 16 bits. It is
    quicker, and in fp32 its output does not depend on what else is in a batch.
    """
    with quietly():
        model = load_model(base, quantization, compute_dtype)
        model = model.to(device()) if quantization == "none" else model.dequantize()
        if adapter is not None:
            from peft import PeftModel  # takes 4 s to load, for which only a process with a model has to wait

            model = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    read_stacks(model)
    return model


@contextmanager
def quietly() -> Iterator[None]:
    """`quiet` for a while: a program that loads a model keeps its own filters of warnings and messages."""
    logs = transformers.utils.logging
    verbosity, shows_progress = logs.get_verbosity(), logs.is_progress_bar_enabled()
    with warnings.catch_warnings():
        quiet()
        try:
            yield
        finally:
            logs.set_verbosity(verbosity)
            if shows_progress:
                logs.enable_progress_bar()


def quiet() -> None:
    """Keep the messages of libraries that load a model out of a job's progress lines."""
    logging.getLogger("transformers").setLevel(logging.ERROR)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", message=".*ensure_weight_tying.*")
