"""The output layer of a model whose vocabulary is frozen but for the rows of motion tokens.

PEFT copies the whole embedding in every step to put the trained rows into it, and computes a gradient for every
row. Gemma's vocabulary has 262,144 rows; some 500 rows of motion tokens are trained. Here the frozen rows get no
gradient and no copy: their logits and those of the trained rows are computed separately. Results are the same.

Cross-entropy is computed in chunks of states. Each chunk's gradient is computed while its logits are in memory, so
that no logits are kept and none are computed twice. Knows tensors only.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from biomechgpt.language.stacked import cross_entropy
from biomechgpt.prompts.stack import Stack

ELEMENTS_IN_CACHE = 2**22
"""Logits that a CPU turns into probabilities at once: 16 MB in fp32, which its cache holds."""


class SplitWeights(NamedTuple):
    """The rows of an embedding or output layer, in two parts."""

    frozen: Tensor
    """All rows (V, D) as they were before training. Those of `trained` are not used."""
    trained: Tensor
    """Rows (n, D) that are trained."""
    first: int
    """Number of the first trained row. The others follow it."""

    @property
    def columns(self) -> slice:
        """Where the logits of the trained rows are."""
        return slice(self.first, self.first + len(self.trained))


def split_weights(layer: nn.Module) -> SplitWeights | None:
    """The two parts of an embedding or output layer that `motion_rows` has changed; None for another layer."""
    find = getattr(getattr(layer, "token_adapter", None), "split_weights", None)
    return None if find is None else find()


def _split_logits(states: Tensor, split: SplitWeights) -> Tensor:
    """Logits (N, V) of states (N, D), both parts in the number format of the states."""
    logits = states @ split.frozen.T
    logits[:, split.columns] = states @ split.trained.T
    return logits


def weighted_loss(
    head: nn.Module, states: Tensor, targets: Tensor, weights: Tensor, rows: int, stack: Stack | None = None
) -> Tensor:
    """Sum of weights x cross-entropy, for states (N, D), targets (N,) and weights (N,).

    rows: most states whose logits are in memory at once.
    """
    split = split_weights(head)
    if split is not None:
        device = states.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else split.frozen.dtype
        # Conversions do nothing where states and weights have one type already, as in training in bf16.
        trained = split.trained.to(dtype)
        with torch.autocast(device, enabled=False):
            loss: Tensor = _SplitCrossEntropy.apply(  # type: ignore[no-untyped-call]
                states.to(dtype),
                split.frozen.detach().to(dtype),
                trained,
                split.first,
                targets,
                weights,
                rows,
                stack,
                torch.is_grad_enabled(),
            )
        return loss

    def loss_of(s: Tensor, t: Tensor, w: Tensor) -> Tensor:
        return (cross_entropy(head(s).float(), t, stack) * w).sum()

    if len(targets) <= rows:
        return loss_of(states, targets, weights)
    chunks = zip(states.split(rows), targets.split(rows), weights.split(rows), strict=True)
    return torch.stack([checkpoint(loss_of, *chunk, use_reentrant=False) for chunk in chunks]).sum()


@torch.no_grad()
def token_losses(
    head: nn.Module, states: Tensor, targets: Tensor, rows: int, stack: Stack | None = None
) -> Tensor:
    """The cross-entropy (N,) of each target, without a gradient. Arguments as in `weighted_loss`."""
    split = split_weights(head)

    def logits_of(s: Tensor) -> Tensor:
        if split is None:
            return torch.as_tensor(head(s)).float()
        dtype = split.frozen.dtype
        return _split_logits(s.to(dtype), split._replace(trained=split.trained.to(dtype))).float()

    chunks = zip(states.split(rows), targets.split(rows), strict=True)
    return torch.cat([cross_entropy(logits_of(s), t, stack) for s, t in chunks])


class _SplitCrossEntropy(torch.autograd.Function):
    """`weighted_loss` of split weights. Gradients are those of the states and of the trained rows."""

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        frozen: Tensor,
        trained: Tensor,
        first: int,
        targets: Tensor,
        weights: Tensor,
        rows: int,
        stack: Stack | None,
        learns: bool,
    ) -> Tensor:
        split = SplitWeights(frozen, trained, first)
        total = torch.zeros((), device=states.device)
        of_states = torch.empty_like(states) if learns else None
        of_trained = torch.zeros_like(trained, dtype=torch.float32) if learns else None
        for begin in range(0, len(states), rows):
            chunk = slice(begin, begin + rows)
            logits = _split_logits(states[chunk], split)
            total += _loss_and_gradient(logits, targets[chunk], weights[chunk], stack, learns)
            if of_states is not None and of_trained is not None:
                gradient = logits  # of the logits, in their place
                of_columns = gradient[:, split.columns].contiguous()
                of_trained += of_columns.T @ states[chunk]
                gradient[:, split.columns] = 0  # the frozen rows in their place are not used
                torch.mm(gradient, frozen, out=of_states[chunk])
                of_states[chunk] += of_columns @ trained
        if of_states is not None and of_trained is not None:
            ctx.save_for_backward(of_states, of_trained.to(trained.dtype))
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        of_states, of_trained = ctx.saved_tensors
        return of_states * gradient, None, of_trained * gradient, None, None, None, None, None, None


def _loss_and_gradient(
    logits: Tensor, targets: Tensor, weights: Tensor, stack: Stack | None, learns: bool
) -> Tensor:
    """Sum of weights x cross-entropy of logits (N, V). If it learns, the logits' gradient takes their place."""
    first, *further = [targets] if stack is None else stack.split(targets)
    total, of_places = torch.zeros((), device=logits.device), []
    if stack is not None:
        # The further tokens of a stack are each one of its place's few: plain softmax of a few columns.
        is_stack = targets >= stack.first_stack
        weight_of_stack = is_stack * weights
        for begin, size, ids in zip(stack.first_of_place[1:], stack.sizes[1:], further, strict=True):
            columns = slice(begin, begin + size)
            token = torch.where(is_stack, ids - begin, 0)[:, None]
            log_p = logits[:, columns].float().log_softmax(dim=-1)
            total -= (log_p.gather(1, token)[:, 0] * weight_of_stack).sum()
            of_place = log_p.exp_().scatter_add_(1, token, -torch.ones_like(token, dtype=log_p.dtype))
            of_places.append((columns, of_place.mul_(weight_of_stack[:, None])))
    # On a CPU so few rows at once that the passes over them stay in its cache.
    n_rows = max(1, ELEMENTS_IN_CACHE // logits.shape[1]) if logits.device.type == "cpu" else len(logits)
    for begin in range(0, len(logits), n_rows):
        block = slice(begin, begin + n_rows)
        token, weight = first[block, None], weights[block, None]
        p = logits[block].float()
        largest = p.amax(dim=-1, keepdim=True)
        of_token = p.gather(1, token) - largest
        p.sub_(largest).exp_()
        sums = p.sum(dim=-1, keepdim=True)
        total += ((sums.log() - of_token) * weight).sum()
        if learns:
            p.mul_(weight / sums)
            p.scatter_add_(1, token, -weight.to(p.dtype))
            logits[block] = p
    if learns:
        for columns, of_place in of_places:
            logits[:, columns] += of_place.to(logits.dtype)
    return total


def split_embedding(ids: Tensor, split: SplitWeights) -> Tensor:
    """Rows (..., D) of ids (...): of frozen rows without a gradient."""
    local = ids - split.first
    is_trained = (local >= 0) & (local < len(split.trained))
    trained = functional.embedding(torch.where(is_trained, local, 0), split.trained)
    frozen = functional.embedding(ids, split.frozen.detach())
    return torch.where(is_trained[..., None], trained.to(frozen.dtype), frozen)
