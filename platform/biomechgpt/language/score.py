"""Weighs every answer that a question can have: a movement and its questions are read once, answers after them.

A trial is one sequence: its movement, each question after it, tokens of answers after that; a token sees what it
follows and nothing else, and stands where it would stand alone, so probabilities are those of separate passes.
Answers of many tokens (numbers) are followed only where the model goes with any likelihood, a token deeper a
pass, or two where the first leaves no choice. Knows tokens and models; nothing about files or tasks' wording.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import transformers
from torch.nn import functional

from biomechgpt.dialogue.choices import Choices
from biomechgpt.language.model import tokens_at_once

Asked = tuple[np.ndarray, Choices]
"""A question's token ids and what it can be answered with."""

_AT_ONCE = 16
"""A tree of answers with at most so many tokens to read is read with the question; larger ones by and by, their
first tokens with the question where those are no more."""


@dataclass(frozen=True)
class Scores:
    """probability: (A,) of each answer given that it is one of them, sums to 1. mass: of all of them together,
    in the model's own view: little where it would rather say something else. familiar: mean log probability of the
    prefix's tokens, so of the movement: little of one unlike those that the model has learned."""

    probability: np.ndarray
    mass: float
    familiar: float = 0.0


@dataclass
class _Open:
    """A question being weighed. total: (N,) log probability of its choices' tokens with all before them.
    place: (N,) where in the trial's sequence a token was read, -1 not yet; `end` is the question's last."""

    tree: Choices
    start: int
    end: int
    total: np.ndarray
    place: np.ndarray

    def see(self, nodes: np.ndarray, seen: np.ndarray) -> None:
        """Set in (n, length) what these tokens of answers see of the question and of those before them."""
        seen[:, self.start : self.end + 1] = True
        rows = np.arange(len(nodes))
        while len(nodes):
            seen[rows, self.place[nodes]] = True
            nodes = self.tree.parent[nodes]
            rows, nodes = rows[nodes >= 0], nodes[nodes >= 0]

    def next(self, least: float) -> np.ndarray:
        """Tokens to read next: those that others follow, whose own likelihood is known and enough; the
        likeliest in any case, as long as no answer is complete. And what follows them, where that is one."""
        inner = self.tree.inner
        unread = inner[(self.place[inner] < 0) & np.isfinite(self.total[inner])]
        if not len(unread):
            return unread
        if least > 0:
            known = self.total[unread]
            likely = known > np.logaddexp.reduce(self.total[self.tree.parent < 0]) + np.log(least)
            if not likely.any() and not np.isfinite(self.total[self.tree.leaf]).any():
                likely[known.argmax()] = True
            unread = unread[likely]
        after = self.tree.only[unread]
        return np.union1d(unread, after[after >= 0])


@dataclass
class _Trial:
    prefix: int
    questions: list[_Open] = field(default_factory=list)
    familiar: float = 0.0


@torch.inference_mode()
def score(
    model: Any,
    prefixes: Sequence[np.ndarray],
    asked: Sequence[Sequence[Asked]],
    least: float = 1e-4,
) -> list[list[Scores]]:
    """Scores of each question's answers, for trials (their prefixes' ids) with their questions, as one batch.

    least: beginnings of an answer less likely than this, of all answers together, are not followed: whatever
    lies behind one has probability 0. 0 follows all.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    reader = _Reader(base)
    trials, tokens, parents = [], [], []
    for prefix, questions in zip(prefixes, asked, strict=True):
        trial, token, parent = _first(prefix, questions)
        trials.append(trial)
        tokens.append(token)
        parents.append(parent)
    seen = [_seen(parent) for parent in parents]
    reader.read(tokens, [s.sum(axis=1) - 1 for s in seen], seen)
    for row, trial in enumerate(trials):
        trial.familiar = reader.familiar(row, prefixes[row])
        for q in trial.questions:
            reader.wanted(row, q, np.concatenate([[-1], np.flatnonzero(q.place >= 0)]))
    reader.weigh()
    going = trials
    while True:
        nexts = [[q.next(least) for q in trial.questions] for trial in going]
        # Trials whose answers are all weighed are not read on as padding.
        rest = [row for row, of_trial in enumerate(nexts) if any(map(len, of_trial))]
        if not rest:
            return [[_scores(q, trial.familiar) for q in trial.questions] for trial in trials]
        if len(rest) < len(going):
            reader.keep(rest)
            going, nexts = [going[row] for row in rest], [nexts[row] for row in rest]
        tokens, seen, positions = [], [], []
        for row, trial in enumerate(going):
            some = [(q, nodes) for q, nodes in zip(trial.questions, nexts[row], strict=True) if len(nodes)]
            new = sum(len(nodes) for _, nodes in some)
            sees = np.zeros((new, reader.length + new), dtype=bool)
            sees[:, : trial.prefix] = True
            at = 0
            for q, nodes in some:
                q.place[nodes] = reader.length + at + np.arange(len(nodes))
                q.see(nodes, sees[at : at + len(nodes)])
                reader.wanted(row, q, nodes)
                at += len(nodes)
            tokens.append(np.concatenate([q.tree.token[nodes] for q, nodes in some]))
            positions.append(
                np.concatenate(
                    [trial.prefix + q.end - q.start + 1 + q.tree.depth[nodes] for q, nodes in some]
                )
            )
            seen.append(sees)
        reader.read(tokens, positions, seen)
        reader.weigh()


def quantile(numbers: np.ndarray, probability: np.ndarray, share: float) -> float:
    """The smallest of rising numbers (A,) up to which at least `share` of the probability (A,) lies."""
    return float(numbers[int(np.argmax(np.cumsum(probability) >= share - 1e-9))])


def _first(prefix: np.ndarray, questions: Sequence[Asked]) -> tuple[_Trial, np.ndarray, np.ndarray]:
    """A trial's prefix, questions and small trees in one sequence: tokens (L,) and parents (L,), -1 none."""
    trial, tokens, parents = _Trial(len(prefix)), [prefix], [np.arange(len(prefix)) - 1]
    at = len(prefix)
    for question, tree in questions:
        end = at + len(question) - 1
        now = tree.inner
        if len(now) > _AT_ONCE:
            now = now[tree.depth[now] == 0]
        if len(now) > _AT_ONCE:
            now = now[:0]
        place = np.full(len(tree.token) + 1, -1)
        place[now] = end + 1 + np.arange(len(now))
        place[-1] = end
        tokens += [question, tree.token[now]]
        parents += [np.array([len(prefix) - 1]), np.arange(at, end), place[tree.parent[now]]]
        total = np.full(len(tree.token), -np.inf)
        trial.questions.append(_Open(tree, at, end, total, place[:-1]))
        at = end + 1 + len(now)
    return trial, np.concatenate(tokens), np.concatenate(parents)


def _seen(parent: np.ndarray) -> np.ndarray:
    """(L, L) bool: whether each token sees each, from parents that stand before their children."""
    seen = np.eye(len(parent), dtype=bool)
    for i, above in enumerate(parent):
        if above >= 0:
            seen[i] |= seen[above]
    return seen


def _scores(q: _Open, familiar: float) -> Scores:
    total = q.total[q.tree.leaf]
    mass = np.logaddexp.reduce(total)
    return Scores(np.exp(total - mass), float(np.exp(mass)), familiar)


class _Reader:
    """The model with what it has read: a row a trial, all rows as long as the longest."""

    def __init__(self, base: Any) -> None:
        self.decoder, self.head = base.get_decoder(), base.get_output_embeddings()
        self.rows = tokens_at_once(base)
        # Whatever a layer's window: which tokens it sees, the masks say.
        self.cache = transformers.DynamicCache()
        self.length, self.device = 0, self.head.weight.device
        self._at: torch.Tensor | None = None
        self._want: list[tuple[int, _Open, np.ndarray]] = []

    def read(
        self, tokens: Sequence[np.ndarray], positions: Sequence[np.ndarray], seen: Sequence[np.ndarray]
    ) -> None:
        """Read on: tokens (n,), positions (n,) and what they see (n, length + n) of each row."""
        new = max(map(len, tokens))
        ids, where = (np.zeros((len(tokens), new), dtype=np.int64) for _ in range(2))
        mask = np.zeros((len(tokens), new, self.length + new), dtype=bool)
        mask[:, np.arange(new), self.length + np.arange(new)] = True  # padding sees itself
        for row, token in enumerate(tokens):
            n = len(token)
            ids[row, :n], where[row, :n] = token, positions[row]
            mask[row, :n, : self.length + n] = seen[row]
        at = torch.from_numpy(where).to(self.device)
        self._at = at if self._at is None else torch.cat([self._at, at], dim=1)
        full = torch.from_numpy(mask).to(self.device)[:, None]
        near = at[:, None, :, None] - self._at[:, None, None, :] < self.decoder.config.sliding_window
        self._states = self.decoder(
            input_ids=torch.from_numpy(ids).to(self.device),
            position_ids=at,
            attention_mask={"full_attention": full, "sliding_attention": full & near},
            past_key_values=self.cache,
            use_cache=True,
        ).last_hidden_state
        self._begin, self.length = self.length, self.length + new

    def familiar(self, row: int, prefix: np.ndarray) -> float:
        """Mean log probability of a prefix's tokens, each after those before it; asked after the first `read`."""
        states, after = self._states[row, : len(prefix) - 1], torch.from_numpy(prefix[1:]).to(self.device)
        parts = zip(states.split(self.rows), after.split(self.rows), strict=True)
        return float(torch.cat([-functional.cross_entropy(self.head(s).float(), t, reduction="none")
                                for s, t in parts]).mean())  # fmt: skip

    def keep(self, rows: list[int]) -> None:
        """Forget all rows but these, which are numbered anew."""
        at = torch.tensor(rows, device=self.device)
        self.cache.batch_select_indices(at)
        self._at = None if self._at is None else self._at[at]

    def wanted(self, row: int, q: _Open, nodes: np.ndarray) -> None:
        """Ask for the tokens after these nodes of a question (-1: after the question itself)."""
        self._want.append((row, q, nodes))

    def weigh(self) -> None:
        """Fill in `total` of the tokens after those asked for, from the states just read."""
        rows, columns, states, children, at = [], [], [], [], 0
        for row, q, nodes in self._want:
            rows.append(np.full(len(nodes), row))
            columns.append(np.where(nodes < 0, q.end, q.place[nodes]) - self._begin)
            child, follows = q.tree.after(nodes)
            states.append(at + follows)
            children.append(child)
            at += len(nodes)
        read = self._states[torch.from_numpy(np.concatenate(rows)), torch.from_numpy(np.concatenate(columns))]
        state = np.concatenate(states)
        token = np.concatenate([q.tree.token[c] for (_, q, _), c in zip(self._want, children, strict=True)])
        found = np.empty(len(token))
        for begin in range(0, len(read), self.rows):
            log_p = self.head(read[begin : begin + self.rows]).float().log_softmax(dim=-1)
            here = np.flatnonzero((state >= begin) & (state < begin + self.rows))
            found[here] = (
                log_p[torch.from_numpy(state[here] - begin), torch.from_numpy(token[here])].cpu().numpy()
            )
        at = 0
        for (_, q, _), child in zip(self._want, children, strict=True):
            value, depth = found[at : at + len(child)], q.tree.depth[child]
            for level in range(depth.min(), depth.max() + 1):
                here = depth == level
                above = q.tree.parent[child[here]]
                q.total[child[here]] = value[here] + np.where(above >= 0, q.total[above], 0.0)
            at += len(child)
        self._want = []
