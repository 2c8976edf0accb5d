"""Training on proper scores: a model learns how good its probabilities are, not how likely the true answer was.

Cross-entropy of the true answer's tokens rewards one number as much as any other wrong one. A proper score looks at
the probabilities of all possible answers, and is lowest for honest ones: the Brier score for labels, the continuous
ranked probability score (CRPS) for numbers, which knows which numbers are close (Gneiting and Raftery, J Am Stat
Assoc 2007; 102: 359-378). Every possible answer of a question is a branch of a tree.

The gradient takes two steps, so that no logits are kept. The score is a function of the log-likelihoods of the
branches. Its derivative by each of them is the weight of that branch's tokens in a weighted cross-entropy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from biomechgpt.prompts.encoding import PrefixTree, PromptEncoder
from biomechgpt.prompts.packing import batch_trees
from biomechgpt.questions.tasks import ClassificationTask, RegressionTask, Tasks

_EDGE = 0.005
"""Share of the training numbers beyond either end of the numbers that are scored."""


class Scores(NamedTuple):
    """How each branch enters the score. Each field is (N,): a value for each branch of a batch.

    The branches of one question are neighbours.
    """

    question: Tensor
    """Number of the branch's question, rising from 0."""
    target: Tensor
    """1 for the true label; 1 for each number from the true one on; else 0."""
    weight: Tensor
    """Weight of the squared difference between probability and target."""
    cumulative: Tensor
    """Bool: the answer is a number, whose cumulative probability is compared."""


def proper_score(log_likelihood: Tensor, scores: Scores) -> Tensor:
    """The sum over questions of the Brier score (labels) or the CRPS (numbers).

    log_likelihood: (N,) of each possible answer. Within a question they are scaled to probabilities of sum 1.
    """
    question = scores.question
    n = int(question[-1]) + 1
    largest = torch.full((n,), -torch.inf, device=question.device, dtype=log_likelihood.dtype)
    largest = largest.scatter_reduce(0, question, log_likelihood.detach(), "amax")
    likelihood = (log_likelihood - largest[question]).exp()
    p = likelihood / torch.zeros_like(largest).index_add(0, question, likelihood)[question]
    # The cumulative sum within a question: that over all branches, without what came before the question.
    up_to = p.cumsum(0)
    first = torch.searchsorted(question, torch.arange(n, device=question.device))
    within = up_to - (up_to - p)[first][question]
    value = torch.where(scores.cumulative, within, p)
    return (scores.weight * (value - scores.target).square()).sum()


@dataclass(frozen=True)
class ScoredTree:
    """A movement with the possible answers to some questions.

    tree: a branch for each answer of each question.
    rows: (branches, 4) question number, target, weight, cumulative: the fields of `Scores`.
    """

    tree: PrefixTree
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.tree)


class AnswerSets:
    """The possible answers of tasks, as branches.

    tasks: definitions of the tasks. labels: {task: its labels}, for tasks that name none.
    rows: training questions, whose numbers say which are possible and how much they differ.
    numbers: how many numbers are scored, evenly spread.
    """

    def __init__(
        self,
        tasks: Tasks,
        labels: Mapping[str, Sequence[str]],
        rows: Sequence[Mapping[str, Any]],
        numbers: int,
        rng: np.random.Generator,
    ) -> None:
        self.tasks, self.rng, self.numbers = tasks, rng, numbers
        self.labels = {
            name: list(task.labels or labels.get(name, ()))
            for name, task in tasks.items()
            if isinstance(task, ClassificationTask)
        }
        values: dict[str, list[float]] = {}
        for row in rows:
            if isinstance(tasks[row["task"]], RegressionTask):
                values.setdefault(row["task"], []).append(row["value"])
        # Of numbers that are all the same no distribution can be learned.
        spread = {name: float(np.std(v)) for name, v in values.items()}
        self.spread = {name: sd for name, sd in spread.items() if sd > 0}
        self.ends = {name: np.quantile(values[name], [_EDGE, 1 - _EDGE]) for name in self.spread}

    def knows(self, row: Mapping[str, Any]) -> bool:
        """Whether a question has a set of possible answers, one of which is true in the mirror too."""
        if row.get("answer_mirrored"):
            return False
        return row["label"] in self.labels.get(row["task"], ()) or row["task"] in self.spread

    def of(self, row: Mapping[str, Any]) -> list[tuple[str, float, float, bool]]:
        """(text, target, weight, cumulative) of each possible answer to a question that is known."""
        task = self.tasks[row["task"]]
        if isinstance(task, ClassificationTask):
            return [
                (task.answer(label), float(label == row["label"]), 1.0, False)
                for label in self.labels[task.name]
            ]
        assert isinstance(task, RegressionTask)
        low, high = self.ends[task.name]
        step = (high - low) / self.numbers
        # Another place within the steps each time: over the training all numbers are scored.
        numbers = low + step * (np.arange(self.numbers) + self.rng.random())
        weight = step / self.spread[task.name]
        return [(task.answer(x), float(x >= row["value"]), weight, True) for x in numbers.tolist()]


def scored_tree(
    encoder: PromptEncoder,
    movement: Sequence[int],
    questions: Sequence[tuple[Mapping[str, Any], float]],
    answers: AnswerSets,
    max_length: int,
) -> ScoredTree:
    """A movement with all possible answers to these questions, each with the weight of its score."""
    pairs, rows = [], []
    for number, (row, of_question) in enumerate(questions):
        for text, target, weight, cumulative in answers.of(row):
            pairs.append((row["question"], text))
            rows.append((number, target, of_question * weight, cumulative))
    return ScoredTree(encoder.build_tree([movement], pairs, max_length), np.array(rows, dtype=np.float64))


def batch_scored(trees: Sequence[ScoredTree], pad: int) -> dict[str, Tensor]:
    """The arguments of `TreeModel.forward`: those of `batch_trees`, the branch of each token, and the scores.

    branch: (B, L) number of the branch whose answer a token belongs to, -1 for all other tokens.
    scores: (N, 4) the fields of `Scores`.
    """
    batch = batch_trees([tree.tree for tree in trees], pad, (0.0, 0.0, 1.0))
    n_branches = np.array([len(tree.rows) for tree in trees])
    first = torch.from_numpy(np.cumsum(n_branches) - n_branches)
    is_answer = batch["weight"] > 0
    batch["branch"] = torch.where(is_answer, first[:, None] + batch["segment"] - 1, -1)
    n_questions = np.array([tree.rows[-1, 0] + 1 for tree in trees])
    rows = np.concatenate([tree.rows for tree in trees])
    rows[:, 0] += np.repeat(np.cumsum(n_questions) - n_questions, n_branches)
    batch["scores"] = torch.from_numpy(rows.astype(np.float32))
    return batch


def scores_of(rows: Tensor) -> Scores:
    """The fields of `Scores` from the tensor (N, 4) of a batch."""
    return Scores(rows[:, 0].long(), rows[:, 1], rows[:, 2], rows[:, 3].bool())
