"""Every answer that a question can have, as a tree of tokens, so that a model can weigh them all at once.

A label is its whole answer with the end of the turn, so that none is the beginning of another. A number is its
digits: with fixed decimals these end by themselves; a whole number ends with what follows it in the answer.
Knows tasks and token ids; knows nothing about models.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from biomechgpt.core.settings import InputError
from biomechgpt.prompts.encoding import Encoder
from biomechgpt.questions.tasks import Task


@dataclass(frozen=True)
class Choices:
    """A tree of N tokens over a question's answers.

    token, parent: (N,); a parent stands before its children, -1 is the question's end. leaf: (A,), the token
    that completes each answer. answers: labels, or numbers in rising order.
    """

    token: np.ndarray
    parent: np.ndarray
    leaf: np.ndarray
    answers: list[str] | list[float]

    @cached_property
    def inner(self) -> np.ndarray:
        """Tokens that others follow, (M,) in order: what a model has to read. What only one number begins with is
        that number, and need not be."""
        inner = np.unique(self.parent[self.parent >= 0])
        return inner[self.answers_after[inner] > 1] if self.numbers else inner

    @cached_property
    def numbers(self) -> bool:
        """Whether the answers are numbers."""
        return not isinstance(self.answers[0], str)

    @cached_property
    def range(self) -> tuple[np.ndarray, np.ndarray]:
        """The first and the last of the answers that each token begins or completes, (N,) each."""
        first, last = np.full(len(self.token), len(self.leaf)), np.full(len(self.token), -1)
        for answer, at in self._ends:
            np.minimum.at(first, at, answer)
            np.maximum.at(last, at, answer)
        return first, last

    @cached_property
    def answers_after(self) -> np.ndarray:
        """How many answers each token begins or completes, (N,)."""
        return np.bincount(np.concatenate([at for _, at in self._ends]), minlength=len(self.token))

    @property
    def _ends(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Answers and their last token each, then their last but one, and so on: (answer, token) of those that
        have one."""
        answer, at = np.arange(len(self.leaf)), self.leaf
        while len(at):
            yield answer, at
            answer, at = answer[self.parent[at] >= 0], self.parent[at][self.parent[at] >= 0]

    @cached_property
    def depth(self) -> np.ndarray:
        """How many tokens of the answer stand before each, (N,)."""
        depth = np.zeros(len(self.token), dtype=np.int64)
        for node in np.flatnonzero(self.parent >= 0):
            depth[node] = depth[self.parent[node]] + 1
        return depth

    @cached_property
    def only(self) -> np.ndarray:
        """The one token that may follow each, where that has to be read too, else -1, (N,)."""
        only = np.full(len(self.token), -1)
        alone = np.flatnonzero(np.bincount(self.parent[self.parent >= 0], minlength=len(only)) == 1)
        child, _ = self.after(alone)
        only[alone] = np.where(np.isin(child, self.inner), child, -1)
        return only

    def after(self, nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tokens (M,) that may follow these (-1: the question), and which of `nodes` each follows, (M,)."""
        order, begin = self._children
        first = begin[nodes + 1]
        count = begin[nodes + 2] - first
        follows = np.repeat(np.arange(len(nodes)), count)
        return order[np.arange(len(follows)) + (first - np.cumsum(count) + count)[follows]], follows

    @cached_property
    def _children(self) -> tuple[np.ndarray, np.ndarray]:
        """All tokens by what they follow, and where those after each begin, from the question's on."""
        order = np.argsort(self.parent, kind="stable")
        return order, np.searchsorted(self.parent[order], np.arange(-1, len(self.token) + 1))


def choices(encoder: Encoder, task: Task, labels: Sequence[str] = ()) -> Choices:
    """What `task` can be answered with; labels: of a task without its own. InputError where there are none."""
    if task.kind == "regression":
        assert task.plausible is not None
        step = 10.0**-task.decimals
        low, high = (round(edge / step) for edge in task.plausible)
        numbers = [round(k * step, task.decimals) for k in range(low, high + 1)]
        return _tree([_number(encoder, task, number) for number in numbers], numbers)
    known = list(task.labels or labels)
    if not known:
        raise InputError(f"task {task.name!r}: expected labels to choose from, found none")
    return _tree([encoder.answer(task.answer(label)) for label in known], known)


def compared(task: Task, among: Choices, alone: Choices, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Probability (A,) of each answer `among` those of a task that compares movements A and B.

    a, b: (N,) of each answer to the same question about one of them `alone`, taken to be independent.
    """
    assert task.compare is not None
    if task.compare.how == "which":
        at = alone.answers.index(task.compare.of)  # type: ignore[arg-type]
        likely = {"A": a[at] * (1 - b[at]), "B": b[at] * (1 - a[at])}
        found = np.array([likely[str(label)] for label in among.answers])
    else:
        numbers = np.asarray(alone.answers, dtype=float)
        step = numbers[1] - numbers[0]
        change, likely_change = step * np.arange(1 - len(b), len(b)), np.convolve(b, a[::-1])
        if task.compare.how == "more":
            least = max(task.compare.least, step) - step / 2
            likely = {"A": likely_change[change < -least].sum(), "B": likely_change[change > least].sum()}
            found = np.array([likely[str(label)] for label in among.answers])
        else:
            changes = np.asarray(among.answers, dtype=float)
            apart = np.abs(change[:, None] - changes)
            possible = apart.min(axis=1) < max(step, changes[1] - changes[0]) / 2 + 1e-9
            found = np.bincount(
                apart.argmin(axis=1)[possible], likely_change[possible], minlength=len(among.answers)
            )
    total = found.sum()
    return found / total if total > 0 else np.full(len(found), 1 / len(found))


def _number(encoder: Encoder, task: Task, number: float) -> np.ndarray:
    whole = encoder.answer(task.answer(number))
    digits = len(encoder.text(task.answer(number).removesuffix(f" {task.unit}")))
    return whole[: digits + (task.decimals == 0)]


def _tree(sequences: list[np.ndarray], answers: list[str] | list[float]) -> Choices:
    places: dict[tuple[int, ...], int] = {(): -1}
    token: list[int] = []
    parent: list[int] = []
    for sequence in sequences:
        for n in range(1, len(sequence) + 1):
            path = tuple(sequence[:n].tolist())
            if path not in places:
                places[path] = len(token)
                token.append(path[-1])
                parent.append(places[path[:-1]])
    leaf = np.array([places[tuple(sequence.tolist())] for sequence in sequences])
    if len(set(leaf.tolist())) != len(leaf):
        raise InputError(f"expected a different answer each, found the same tokens twice: {answers}")
    return Choices(np.array(token), np.array(parent), leaf, answers)
