"""Question trees as padded batches with the masks that keep their branches apart. Knows tensors, not models."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from biomechgpt.prompts.encoding import Tree


def pack(lengths: Sequence[int], room: int) -> list[list[int]]:
    """Numbers of what shares a row of `room` tokens: best fit, the longest first. What is longer has its own."""
    rows: list[list[int]] = []
    left: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        fitting = [row for row, spare in enumerate(left) if spare >= lengths[i]]
        if fitting:
            row = min(fitting, key=lambda row: left[row])
            rows[row].append(i)
            left[row] -= lengths[i]
        else:
            rows.append([i])
            left.append(room - lengths[i])
    return rows


def batch_trees(
    trees: Sequence[Tree],
    pad: int,
    weights: tuple[float, float, float],
    room: int = 0,
) -> dict[str, Tensor]:
    """Trees as one padded batch.

    weights: of a prefix, a question and an answer token in the loss; (1, 1, 1) is the whole sequence. A
    prefix token counts once for every branch, as it would in separate samples.
    room: trees share rows of as many tokens; by default each has its own.
    Returns input_ids, position_ids, tree (which of its row's, -1 padding), segment (0 prefix, 1.. branch, -1
    padding), parent (whose state predicts the token) and weight, each (B, L).
    """
    lengths = [len(tree) for tree in trees]
    rows = pack(lengths, room) if room else [[i] for i in range(len(trees))]
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
        at = 0
        for number, i in enumerate(members):
            here = slice(at, at + lengths[i])
            at += lengths[i]
            batch["tree"][row, here] = number
            mine = {name: values[row, here] for name, values in batch.items()}
            _write(trees[i], mine, here.start, weights)
    return {name: torch.from_numpy(values) for name, values in batch.items()}


def _write(tree: Tree, into: dict[str, np.ndarray], first: int, weights: tuple[float, float, float]) -> None:
    """A tree's tokens into the part of a row that begins at `first`."""
    n = len(tree.prefix)
    into["input_ids"][:n] = tree.prefix
    into["position_ids"][:n] = np.arange(n)
    into["segment"][:n] = 0
    into["parent"][1:n] = first + np.arange(n - 1)
    into["weight"][1:n] = weights[0] * len(tree.branches)
    at = n
    worth = tree.worth or [1.0] * len(tree.branches)
    for number, (question, answer) in enumerate(tree.branches, start=1):
        m = len(question) + len(answer)
        here = slice(at, at + m)
        into["input_ids"][here] = np.concatenate([question, answer])
        into["position_ids"][here] = n + np.arange(m)
        into["segment"][here] = number
        into["parent"][here] = first + np.concatenate([[n - 1], at + np.arange(m - 1)])
        into["weight"][at : at + len(question)] = weights[1]
        into["weight"][at + len(question) : at + m] = weights[2] * worth[number - 1]
        at += m


def visible(tree: Tensor, segment: Tensor, position: Tensor, window: int | None = None) -> Tensor:
    """Which positions see which: (B, L) trees, segments and positions -> (B, 1, L, L) bool.

    A token sees its tree's prefix and its own branch up to itself, within `window` positions where given. Padding
    sees itself, so that no row is empty.
    """
    length = segment.shape[1]
    earlier = torch.ones(length, length, dtype=torch.bool, device=segment.device).tril()
    of, to = segment[:, :, None], segment[:, None, :]
    seen = earlier & ((to == 0) | (to == of)) & (tree[:, :, None] == tree[:, None, :]) & (to >= 0)
    if window is not None:
        seen &= position[:, :, None] - position[:, None, :] < window
    return (seen | torch.eye(length, dtype=torch.bool, device=segment.device))[:, None]
