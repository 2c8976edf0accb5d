"""What the three language trainings have in common: trees of a cohort's questions, in batches of alike length.

A `TreeTrainee` says which trees there are and which model reads them; see base.py and finetune.py.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field
from torch import Tensor

from biomechgpt.core.settings import Settings
from biomechgpt.core.training import TrainingTask
from biomechgpt.prompts.encoding import Answer, Branch, Encoder, Motion, Question, Tree
from biomechgpt.prompts.packing import batch_trees
from biomechgpt.tokenizer.tokens import is_mirrored


class SampleSettings(Settings):
    """samples: `tree` reads a trial's movement once for all its questions, `pairs` once a question (the
    paper's batches); the loss is the same. weights: of prefix, question and answer tokens in the loss. packing:
    a batch's trees share rows of `max_length` tokens, or else have a row each; they do not see each other. turns:
    share of questions that come after another one about the same movement, with its answer (none in `pairs`).
    """

    samples: Literal["tree", "pairs"] = "tree"
    batch_size: int = Field(8, ge=1, description="trees or pairs a step, over all workers")
    epochs: float = Field(1.2, gt=0)
    max_length: int = Field(1024, ge=64)
    packing: bool = Field(False, exclude=True)
    turns: float = Field(0.0, ge=0, le=1)
    weights: tuple[float, float, float] = (1.0, 1.0, 1.0)


def read_trees(
    encoder: Encoder,
    views: Mapping[str, Sequence[Sequence[int]]],
    questions: Sequence[Mapping[str, Any]],
    settings: SampleSettings,
    seed: int = 0,
    worth: Callable[[Mapping[str, Any], int], float] = lambda row, tokens: 1.0,
) -> list[list[Tree]]:
    """Trees of question rows (`dialogue.questions`), each once a view of its movement.

    views: {trial: motion tokens of each view, as many for every trial}. Rows without an answer in words are
    answered by the movement, which is not shown then. seed: draws which questions come after another. worth: what
    each token of a row's answer of so many tokens counts in the loss.
    """
    together = defaultdict(list)
    for number, q in enumerate(questions):
        key = (q["trial"], q.get("other"), q["answer"] == "")
        together[(*key, number) if settings.samples == "pairs" else key].append(q)
    rng = np.random.default_rng((seed, 1))
    return [
        _views(encoder, views, rows, _before(rows, settings.turns, rng), settings.max_length, worth)
        for rows in together.values()
    ]


def _before(
    rows: Sequence[Mapping[str, Any]], share: float, rng: np.random.Generator
) -> list[Mapping[str, Any] | None]:
    """For each question another one of the same movement to come before it, or None."""
    if len(rows) < 2 or not share:
        return [None] * len(rows)
    others = (np.arange(len(rows)) + rng.integers(1, len(rows), size=len(rows))) % len(rows)
    return [rows[i] if rng.random() < share else None for i in others]


def _views(
    encoder: Encoder,
    views: Mapping[str, Sequence[Sequence[int]]],
    rows: Sequence[Mapping[str, Any]],
    before: Sequence[Mapping[str, Any] | None],
    max_length: int,
    worth: Callable[[Mapping[str, Any], int], float],
) -> list[Tree]:
    def grow(motion: Motion | None, made: list[Branch]) -> Tree:
        each = [worth(row, len(answer)) for row, (_, answer) in zip(rows, made, strict=True)]
        return encoder.grow(motion, made, max_length, each)

    trial, other = rows[0]["trial"], rows[0].get("other")
    if rows[0]["answer"] == "":
        asked = [row["question"] for row in rows]
        return [grow(None, encoder.branches([(q, view) for q in asked], max_length)) for view in views[trial]]
    branches = {}
    for in_mirror in {is_mirrored(number) for number in range(len(views[trial]))}:
        pairs: list[tuple[Question, Answer]] = []
        for row, earlier in zip(rows, before, strict=True):
            turns = [earlier["question"], _answer(earlier, in_mirror)] if earlier else []
            asked = [*turns, row["question"]] if turns else row["question"]
            pairs.append((asked, _answer(row, in_mirror)))
        branches[in_mirror] = encoder.branches(pairs, max_length)
    return [
        grow([view, views[other][n]] if other else view, branches[is_mirrored(n)])
        for n, view in enumerate(views[trial])
    ]


def _answer(row: Mapping[str, Any], in_mirror: bool) -> str:
    return (row.get("answer_mirrored") if in_mirror else None) or row["answer"]


def plan_batches(
    lengths: Sequence[int], batch_size: int, epochs: float, seed: int, views: int = 1
) -> list[list[int]]:
    """Shuffled batches of sample numbers over `epochs` (a fraction allowed), alike lengths together: little is
    padding. Of each `views` samples in a row one is drawn each time."""
    rng = np.random.default_rng((seed, views))
    n = len(lengths) // views
    order = np.concatenate([rng.permutation(n) for _ in range(int(np.ceil(epochs)))])[: round(epochs * n)]
    order = order * views + rng.integers(views, size=len(order))
    batches: list[list[int]] = []
    pool = batch_size * 16
    for at in range(0, len(order), pool):
        alike = sorted(order[at : at + pool].tolist(), key=lambda i: lengths[i])
        cut = [alike[i : i + batch_size] for i in range(0, len(alike), batch_size)]
        batches += [cut[i] for i in rng.permutation(len(cut))]
    return batches


class TreeTrainee(TrainingTask):
    """Trains a model on trees; a subclass fills `trees`, `settings`, `seed` and `tokenizer` when built."""

    trees: list[list[Tree]]
    """Of each tree its views, equally many."""
    settings: SampleSettings
    seed: int
    tokenizer: Any

    @property
    def views(self) -> int:
        return len(self.trees[0]) if self.trees else 1

    def batches(self) -> list[list[int]]:
        lengths = [len(view) for views in self.trees for view in views]
        return plan_batches(lengths, self.settings.batch_size, self.settings.epochs, self.seed, self.views)

    def collate(self, samples: list[int]) -> dict[str, Tensor]:
        trees = [self.trees[i // self.views][i % self.views] for i in samples]
        room = self.settings.max_length if self.settings.packing else 0
        pad = self.tokenizer.pad_token_id
        return batch_trees(trees, pad, self.settings.weights, room)
