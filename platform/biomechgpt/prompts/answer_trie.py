"""The answer trie: every answer to a question, as a tree of tokens, so that a model can score all of them together.

A label's sequence is its whole answer with the end of the turn, so no label is a prefix of another. A number's
sequence is its digits: with fixed decimals they end by themselves; a whole number ends with the token after it.

Worked example: a time from 3.0 to 120.0 s, whose digits and point are one token each (1,171 answers).
- The question's children are `1`, `2`, ..., `9`. Behind `1` lie 10.0 to 19.9 and 100.0 to 120.0; its `answer_span`,
  from 10.0 to 120.0, also covers answers that begin otherwise, such as 20.0.
- `12` is followed by `.` (12.0 to 12.9) or by `0` (120.0). `120` is a prefix of one number only: it is not
  `internal`, and the model never reads it.
- `30` is followed by `.` and nothing else, so `.` is its `only_child`: there is nothing to choose, and both are
  read in one pass. `30.` is followed by `0` to `9`, which are `leaves`.

Knows tasks and token ids. Knows nothing about models.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from biomechgpt.core.settings import InputError
from biomechgpt.prompts.encoding import PromptEncoder
from biomechgpt.questions.tasks import AnnotatedTask, NumberTask


@dataclass(frozen=True)
class AnswerTrie:
    """A trie of N nodes over a question's A answers.

    token: (N,) the token id of each node.
    parent: (N,) the node before each, which has a smaller index; -1 is the end of the question.
    leaves: (A,) the node that completes each answer.
    answers: the labels, or the numbers in rising order.
    """

    token: np.ndarray
    parent: np.ndarray
    leaves: np.ndarray
    answers: list[str] | list[float]

    @cached_property
    def internal(self) -> np.ndarray:
        """The nodes (M,) that a model has to read, in order: those with children.

        A prefix of a single number is left out: it already determines the number.
        """
        internal = np.unique(self.parent[self.parent >= 0])
        return internal[self.n_answers[internal] > 1] if self.is_numeric else internal

    @cached_property
    def is_numeric(self) -> bool:
        """True if the answers are numbers."""
        return not isinstance(self.answers[0], str)

    @cached_property
    def answer_span(self) -> tuple[np.ndarray, np.ndarray]:
        """The first and the last answer (N,) each behind each node, as indices into `answers`."""
        first, last = np.full(len(self.token), len(self.leaves)), np.full(len(self.token), -1)
        for answer, node in self.ancestors():
            np.minimum.at(first, node, answer)
            np.maximum.at(last, node, answer)
        return first, last

    @cached_property
    def n_answers(self) -> np.ndarray:
        """Number of answers (N,) behind each node, a leaf's own included."""
        return np.bincount(np.concatenate([node for _, node in self.ancestors()]), minlength=len(self.token))

    def ancestors(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """All (answer, node) pairs with the node on the answer's path: first the leaves, then their parents, ..."""
        answer, node = np.arange(len(self.leaves)), self.leaves
        while len(node):
            yield answer, node
            has_parent = self.parent[node] >= 0
            answer, node = answer[has_parent], self.parent[node][has_parent]

    @cached_property
    def depth(self) -> np.ndarray:
        """Number of nodes (N,) before each node on its path."""
        depth = np.zeros(len(self.token), dtype=np.int64)
        for node in np.flatnonzero(self.parent >= 0):  # parents have smaller indices, so their depth is known
            depth[node] = depth[self.parent[node]] + 1
        return depth

    @cached_property
    def only_child(self) -> np.ndarray:
        """The only child (N,) of each node, if it is internal, else -1. Both can be read in one pass."""
        only_child = np.full(len(self.token), -1)
        n_children = np.bincount(self.parent[self.parent >= 0], minlength=len(only_child))
        nodes = np.flatnonzero(n_children == 1)
        child, _ = self.children(nodes)
        only_child[nodes] = np.where(np.isin(child, self.internal), child, -1)
        return only_child

    def children(self, nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The children (M,) of these nodes (-1: the question), and the index (M,) of each one's parent."""
        by_parent, begin = self._children_by_parent
        first = begin[nodes + 1]
        count = begin[nodes + 2] - first
        owner = np.repeat(np.arange(len(nodes)), count)
        # Child number k overall is the (k - children of the nodes before)-th child of its own parent.
        offset = (first - np.cumsum(count) + count)[owner]
        return by_parent[np.arange(len(owner)) + offset], owner

    @cached_property
    def _children_by_parent(self) -> tuple[np.ndarray, np.ndarray]:
        """All nodes ordered by parent, and where the children of -1, 0, 1, ... begin in that order."""
        order = np.argsort(self.parent, kind="stable")
        return order, np.searchsorted(self.parent[order], np.arange(-1, len(self.token) + 1))


def answer_trie(encoder: PromptEncoder, task: AnnotatedTask, labels: Sequence[str] = ()) -> AnswerTrie:
    """The trie of all answers to `task`.

    labels: those of a task without its own.
    Raises InputError if there are no labels, or if two answers have the same tokens.
    """
    answers = task.answers(labels)
    return _trie([_answer_ids(encoder, task, answer) for answer in answers], answers)


def _answer_ids(encoder: PromptEncoder, task: AnnotatedTask, answer: str | float) -> np.ndarray:
    """The token ids that tell an answer from all others."""
    text = task.answer(answer)
    ids = encoder.answer(text)
    if not isinstance(task, NumberTask):
        return ids
    # Without the unit, except for the first token after a whole number: it shows that no digit follows.
    n_digits = len(encoder.text(text.removesuffix(f" {task.unit}")))
    return ids[: n_digits + (task.decimals == 0)]


def _trie(sequences: list[np.ndarray], answers: list[str] | list[float]) -> AnswerTrie:
    """Merges token sequences by their common prefixes."""
    node_of: dict[tuple[int, ...], int] = {(): -1}  # a prefix of token ids -> its node
    token: list[int] = []
    parent: list[int] = []
    for sequence in sequences:
        for n in range(1, len(sequence) + 1):
            prefix = tuple(sequence[:n].tolist())
            if prefix not in node_of:
                node_of[prefix] = len(token)
                token.append(prefix[-1])
                parent.append(node_of[prefix[:-1]])
    leaves = np.array([node_of[tuple(sequence.tolist())] for sequence in sequences])
    if len(set(leaves.tolist())) != len(leaves):
        raise InputError(f"expected a different answer each, found the same tokens twice: {answers}")
    return AnswerTrie(np.array(token), np.array(parent), leaves, answers)
