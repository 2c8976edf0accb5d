"""Trees of a cohort's questions in batches of similar length: what pre-training and fine-tuning have in common.

A `TreeTrainingTask` builds the trees and the model that reads them; see pretrain.py and finetune.py.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from torch import Tensor

from biomechgpt.core.training import TrainingTask
from biomechgpt.language.settings import SampleSettings
from biomechgpt.prompts.encoding import Answer, Branch, PrefixTree, PromptEncoder, Question
from biomechgpt.prompts.packing import batch_trees
from biomechgpt.tokenizer.tokens import is_mirrored

DrawAnswer = Callable[[Mapping[str, Any]], str | None]
"""From a question row to an answer that training reads in its place; None: the row's own."""
LossWeight = Callable[[Mapping[str, Any], int], float]
"""From a question row and the number of tokens of its answer to the weight of each of these tokens in the loss."""


def read_trees(
    encoder: PromptEncoder,
    views: Mapping[str, Sequence[Sequence[int]]],
    questions: Sequence[Mapping[str, Any]],
    settings: SampleSettings,
    seed: int = 0,
    loss_weight: LossWeight = lambda row, n_tokens: 1.0,
    draw_answer: DrawAnswer | None = None,
) -> list[list[PrefixTree]]:
    """Trees of question rows (`questions.dataset`), each once a view of its movement.

    views: {trial: motion tokens of each view}, equally many views for every trial.
    questions: rows; one with an empty answer is answered by the movement, which is not shown then.
    seed: decides which questions follow another question.
    draw_answer: called for each question in each view; None: all views have the rows' answers.
    """
    # One tree for each movement or pair of movements, or with `pairs` one for each question. Questions that are
    # answered by the movement have a tree of their own, whose prefix does not show it.
    groups = defaultdict(list)
    for number, row in enumerate(questions):
        key = (row["trial"], row.get("other"), row["answer"] == "")
        groups[(*key, number) if settings.samples == "pairs" else key].append(row)
    rng = np.random.default_rng((seed, 1))
    return [
        _tree_of_each_view(
            encoder,
            views,
            rows,
            _draw_history(rows, settings.history_share, rng),
            settings.max_length,
            loss_weight,
            draw_answer,
        )
        for rows in groups.values()
    ]


def _draw_history(
    rows: Sequence[Mapping[str, Any]], share: float, rng: np.random.Generator
) -> list[Mapping[str, Any] | None]:
    """For each question another question about the same movement to come before it, or None."""
    if len(rows) < 2 or not share:
        return [None] * len(rows)
    # A random step of 1 to n - 1 around the circle: never the question itself.
    earlier = (np.arange(len(rows)) + rng.integers(1, len(rows), size=len(rows))) % len(rows)
    return [rows[i] if rng.random() < share else None for i in earlier]


def _tree_of_each_view(
    encoder: PromptEncoder,
    views: Mapping[str, Sequence[Sequence[int]]],
    rows: Sequence[Mapping[str, Any]],
    history: Sequence[Mapping[str, Any] | None],
    max_length: int,
    loss_weight: LossWeight,
    draw_answer: DrawAnswer | None,
) -> list[PrefixTree]:
    def tree_about(movements: Sequence[Sequence[int]], branches: list[Branch]) -> PrefixTree:
        weights = [loss_weight(row, len(answer)) for row, (_, answer) in zip(rows, branches, strict=True)]
        return encoder.tree_of_branches(movements, branches, max_length, weights)

    trial, second = rows[0]["trial"], rows[0].get("other")
    if rows[0]["answer"] == "":
        questions = [row["question"] for row in rows]
        return [
            tree_about([], encoder.branches([(question, view) for question in questions], max_length))
            for view in views[trial]
        ]

    def branches_of(in_mirror: bool) -> list[Branch]:
        pairs: list[tuple[Question, Answer]] = []
        for row, earlier in zip(rows, history, strict=True):
            turns = [earlier["question"], _answer(earlier, in_mirror)] if earlier else []
            drawn = draw_answer(row) if draw_answer else None
            pairs.append(
                ([*turns, row["question"]] if turns else row["question"], drawn or _answer(row, in_mirror))
            )
        return encoder.branches(pairs, max_length)

    # Views that are mirrored share their branches, and so do those that are not: an answer may name a side. With
    # drawn answers each view has its own.
    branches = branches_of if draw_answer else cache(branches_of)
    return [
        tree_about([view, views[second][number]] if second else [view], branches(is_mirrored(number)))
        for number, view in enumerate(views[trial])
    ]


def _answer(row: Mapping[str, Any], in_mirror: bool) -> str:
    """A row's answer about the movement, or about its mirror image, where left and right trade places."""
    return str((row.get("answer_mirrored") if in_mirror else None) or row["answer"])


def plan_batches(
    lengths: Sequence[int], batch_size: int, epochs: float, seed: int, views: int = 1
) -> list[list[int]]:
    """Shuffled batches of sample numbers over `epochs`, a fraction allowed.

    lengths: tokens of each sample; a batch holds samples of similar length, so that little of it is padding.
    views: so many samples in a row are views of one movement, and each time one of them is drawn.
    """
    rng = np.random.default_rng((seed, views))
    n = len(lengths) // views
    order = np.concatenate([rng.permutation(n) for _ in range(int(np.ceil(epochs)))])[: round(epochs * n)]
    order = order * views + rng.integers(views, size=len(order))
    batches: list[list[int]] = []
    # Samples are sorted by length within a pool of 16 batches, not over all: batches differ from epoch to epoch.
    pool = batch_size * 16
    for start in range(0, len(order), pool):
        by_length = sorted(order[start : start + pool].tolist(), key=lambda i: lengths[i])
        of_pool = [by_length[i : i + batch_size] for i in range(0, len(by_length), batch_size)]
        batches += [of_pool[i] for i in rng.permutation(len(of_pool))]
    return batches


class TreeTrainingTask(TrainingTask):
    """Trains a model on trees; a subclass sets `trees`, `settings`, `seed` and `tokenizer` when it is built."""

    trees: list[list[PrefixTree]]
    """Each tree in each of its views, equally many."""
    settings: SampleSettings
    seed: int
    tokenizer: Any

    @property
    def views(self) -> int:
        """Views of each tree."""
        return len(self.trees[0]) if self.trees else 1

    def batches(self) -> list[list[int]]:
        lengths = [len(view) for views in self.trees for view in views]
        return plan_batches(lengths, self.settings.batch_size, self.settings.epochs, self.seed, self.views)

    def workload(self, batches: list[list[int]]) -> str:
        tokens = sum(len(self.trees[i // self.views][i % self.views]) for batch in batches for i in batch)
        return f"{len(batches)} steps with {tokens} tokens"

    def collate(self, samples: list[int]) -> dict[str, Tensor]:
        return self.batch_of([self.trees[i // self.views][i % self.views] for i in samples])

    def batch_of(self, trees: list[PrefixTree]) -> dict[str, Tensor]:
        """The arguments of the model's `forward` for these trees."""
        row_length = self.settings.max_length if self.settings.packing else 0
        return batch_trees(trees, self.tokenizer.pad_token_id, self.settings.loss_weights, row_length)
