"""A language model that reads and predicts stacks (`prompts.stack`): several motion tokens at one position.

The model stays one of transformers. Its embedding is taught to read stacks by hooks, and its `config.json` says how
they are numbered. Knows tensors only.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from biomechgpt.prompts.stack import Stack

_CONFIG = "motion_stack"
"""Name of the stack in the configuration of a model."""


def describe_stack(config: Any, stack: Stack) -> None:
    """Write into a model's configuration that its prompts have stacks."""
    setattr(config, _CONFIG, stack._asdict())


def stack_of(config: Any) -> Stack | None:
    """The stack of a model's configuration; None: each motion token has a position of its own."""
    found = getattr(config, _CONFIG, None)
    return None if found is None else Stack(found["first_id"], found["n_tokens"], tuple(found["sizes"]))


def read_stacks(model: Any) -> None:
    """Let a model's embedding read ids of stacks. PEFT replaces the embedding: call this after it."""
    stack, embedding = stack_of(model.config), model.get_input_embeddings()
    if stack is None or getattr(embedding, "reads_stacks", False):
        return
    embedding.reads_stacks = True

    def split(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (torch.stack(stack.split(inputs[0]), dim=-1), *inputs[1:])

    def add_up(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        # A token that is no stack stands in each place, and counts once.
        ids = inputs[0]
        counts = torch.cat([torch.ones_like(ids[..., :1]), ids[..., 1:] != ids[..., :1]], dim=-1)
        return (output * counts[..., None].to(output.dtype)).sum(dim=-2)

    embedding.register_forward_pre_hook(split)
    embedding.register_forward_hook(add_up)


def cross_entropy(logits: Tensor, targets: Tensor, stack: Stack | None) -> Tensor:
    """The negative log-likelihood (N,) of targets (N,), ids of tokens or of stacks, given logits (N, vocabulary).

    The first token of a stack is one of the vocabulary. Each further one is one of its place's; given the state it
    does not depend on the tokens before it.
    """
    if stack is None:
        return functional.cross_entropy(logits, targets, reduction="none")
    first, *further = stack.split(targets)
    loss = functional.cross_entropy(logits, first, reduction="none")
    is_stack = targets >= stack.first_stack
    for begin, size, ids in zip(stack.first_of_place[1:], stack.sizes[1:], further, strict=True):
        # Of a target that is no stack any token is looked up, and multiplied by 0.
        token = torch.where(is_stack, ids - begin, 0)
        of_place = functional.cross_entropy(logits[:, begin : begin + size], token, reduction="none")
        loss = loss + of_place * is_stack
    return loss
