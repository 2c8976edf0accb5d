"""Prefix trees as padded batches, with the attention masks that keep branches apart.

Worked example: a tree with prefix `p q` and the branches `a b` and `c` is the row `p q a b c`.
- position_ids are 0 1 2 3 2: each branch continues after the prefix, as in a sample of its own.
- segment is 0 0 1 1 2; `c` sees `p q` and itself, but neither `a` nor `b`.
- parent is 0 0 1 2 1: the state after `q` predicts `a` and also `c`.

Knows tensors. Knows nothing about models.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from biomechgpt.prompts.encoding import PrefixTree


def pack(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Indices of the sequences that share each row of at most `max_tokens` tokens.

    Best fit, the longest first. A sequence that is longer than a row gets a row of its own.
    """
    rows: list[list[int]] = []
    free: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        wide_enough = [row for row, n_free in enumerate(free) if n_free >= lengths[i]]
        if wide_enough:
            fullest = min(wide_enough, key=lambda row: free[row])
            rows[fullest].append(i)
            free[fullest] -= lengths[i]
        else:
            rows.append([i])
            free.append(max_tokens - lengths[i])
    return rows


def batch_trees(
    trees: Sequence[PrefixTree],
    pad: int,
    weights: tuple[float, float, float],
    max_tokens: int = 0,
) -> dict[str, Tensor]:
    """Trees as one padded batch of tensors (B, L).

    weights: weight of a prefix, a question and an answer token in the loss; (1, 1, 1) is the whole sequence. A
        prefix token counts once for every branch, as it would in separate samples.
    max_tokens: trees share rows of so many tokens; 0: each has a row of its own.
    Returns:
    input_ids, position_ids: as transformers takes them.
    tree: index of the token's tree in its row, -1 for padding.
    segment: 0 for the prefix, 1, 2, ... for the branches, -1 for padding.
    parent: column of the token whose state predicts this one.
    weight: weight of the token in the loss.
    """
    lengths = [len(tree) for tree in trees]
    rows = pack(lengths, max_tokens) if max_tokens else [[i] for i in range(len(trees))]
    shape = (len(rows), max(sum(lengths[i] for i in row) for row in rows))
    batch: dict[str, Any] = {
        "input_ids": np.full(shape, pad, dtype=np.int64),
        "position_ids": np.zeros(shape, dtype=np.int64),
        "tree": np.full(shape, -1, dtype=np.int64),
        "segment": np.full(shape, -1, dtype=np.int64),
        "parent": np.zeros(shape, dtype=np.int64),
        "weight": np.zeros(shape, dtype=np.float32),
    }
    for row, members in enumerate(rows):
        begin = 0
        for number, i in enumerate(members):
            columns = slice(begin, begin + lengths[i])
            batch["tree"][row, columns] = number
            views = {name: values[row, columns] for name, values in batch.items()}
            _write(trees[i], views, begin, weights)
            begin += lengths[i]
    return {name: torch.from_numpy(values) for name, values in batch.items()}


def _write(
    tree: PrefixTree, views: dict[str, np.ndarray], first_column: int, weights: tuple[float, float, float]
) -> None:
    """Write a tree's tokens into its columns of a row, of which `views` are views."""
    prefix_weight, question_weight, answer_weight = weights
    n_prefix = len(tree.prefix)
    views["input_ids"][:n_prefix] = tree.prefix
    views["position_ids"][:n_prefix] = np.arange(n_prefix)
    views["segment"][:n_prefix] = 0
    # The first token of a tree is predicted by none: its parent stays 0, and its weight 0.
    views["parent"][1:n_prefix] = first_column + np.arange(n_prefix - 1)
    views["weight"][1:n_prefix] = prefix_weight * len(tree.branches)
    begin = n_prefix
    loss_weights = tree.loss_weights or [1.0] * len(tree.branches)
    for number, (question, answer) in enumerate(tree.branches, start=1):
        n_tokens = len(question) + len(answer)
        end, answer_begin = begin + n_tokens, begin + len(question)
        branch = slice(begin, end)
        views["input_ids"][branch] = np.concatenate([question, answer])
        # Positions go on from the prefix, whichever branches stand between.
        views["position_ids"][branch] = n_prefix + np.arange(n_tokens)
        views["segment"][branch] = number
        # The end of the prefix predicts the first token of every branch.
        views["parent"][branch] = first_column + np.concatenate(
            [[n_prefix - 1], begin + np.arange(n_tokens - 1)]
        )
        views["weight"][begin:answer_begin] = question_weight
        views["weight"][answer_begin:end] = answer_weight * loss_weights[number - 1]
        begin = end


def attention_mask(tree: Tensor, segment: Tensor, position: Tensor, window: int | None = None) -> Tensor:
    """Which token sees which: bool (B, 1, L, L), True where the query (third axis) sees the key (fourth).

    A token sees the prefix of its tree and its own branch, up to itself.
    tree, segment, position: (B, L), as `batch_trees` makes them.
    window: of a sliding-window layer: a token sees only tokens less than so many positions before it.
    """
    length = segment.shape[1]
    up_to_itself = torch.ones(length, length, dtype=torch.bool, device=segment.device).tril()
    query_segment, key_segment = segment[:, :, None], segment[:, None, :]
    prefix_or_own_branch = (key_segment == 0) | (key_segment == query_segment)
    same_tree = tree[:, :, None] == tree[:, None, :]
    visible = up_to_itself & prefix_or_own_branch & same_tree & (key_segment >= 0)
    if window is not None:
        # Distances are between positions, not columns: other branches may stand between a token and its prefix.
        visible &= position[:, :, None] - position[:, None, :] < window
    # Padding sees itself: attention over an empty row would be NaN.
    return (visible | torch.eye(length, dtype=torch.bool, device=segment.device))[:, None]
