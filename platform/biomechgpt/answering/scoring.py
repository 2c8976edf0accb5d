"""Weighs every answer that a question can have: a movement and its questions are read once, answers after them.

A trial is one sequence: its movement, each question after it, tokens of answers after that; a token sees what it
follows and nothing else, and stands where it would stand alone, so probabilities are those of separate passes.
Answers of many tokens are followed only where the model goes with any likelihood, a token deeper a pass, or two
where the first leaves no choice; numbers only where their distribution's median and interval lie, which are those
of all followed. Knows tokens and models; nothing about files or tasks' wording.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
import transformers
from torch.nn import functional

from biomechgpt.answering.calibration import INTERVAL_SHARES
from biomechgpt.language.families import family_of
from biomechgpt.language.network import tokens_at_once
from biomechgpt.prompts.answer_trie import AnswerTrie


class Asked(NamedTuple):
    """A question's token ids and what it can be answered with.

    answer: all questions with the same have one tree, and the mean over them is an answer; None: this alone is.
    whole: whether a number's whole distribution is wanted, not its quantiles alone.
    """

    question: np.ndarray
    tree: AnswerTrie
    answer: Hashable = None
    whole: bool = False


_AT_ONCE = 16
"""A tree of answers with at most so many tokens to read is read with the question; larger ones by and by, their
first tokens with the question where those are no more."""
_ROUNDING = 1e-9
"""What a share of the probability may lack for a quantile."""


@dataclass(frozen=True)
class Scores:
    """How probable each answer to a question is.

    probability: (A,) of each answer, given that the answer is one of them; sums to 1. For numbers, probabilities
        are conditional on valid continuations; numbers that were not expanded to the end share the probability of
        their prefix equally.
    valid_probability: of all answers together, for numbers of all valid first tokens. Low if the model would rather
        say something else.
    log_likelihood: mean log-likelihood of the tokens before the question, that is, of the movement.
    """

    probability: np.ndarray
    valid_probability: float
    log_likelihood: float = 0.0


@dataclass
class _Open:
    """A question being weighed. asked: where in the trial's sequence its tokens are. total: (N,) log probability of
    its choices' tokens with all before them, of numbers' each among those that may follow. place: (N,) where each
    was read, -1 not yet. first: log probability of all first tokens of numbers together."""

    tree: AnswerTrie
    asked: np.ndarray
    total: np.ndarray
    place: np.ndarray
    first: float = 0.0

    def see(self, nodes: np.ndarray, seen: np.ndarray) -> None:
        """Set in (n, length) what these tokens of answers see of the question and of those before them."""
        seen[:, self.asked] = True
        rows = np.arange(len(nodes))
        while len(nodes):
            seen[rows, self.place[nodes]] = True
            nodes = self.tree.parent[nodes]
            rows, nodes = rows[nodes >= 0], nodes[nodes >= 0]

    def scores(self, log_likelihood: float) -> Scores:
        tree, at = self.tree, self.tree.leaves
        if tree.is_numeric:
            while np.isneginf(self.total[at]).any():
                at = np.where(np.isneginf(self.total[at]), tree.parent[at], at)
        total = self.total[at] - np.log(tree.n_answers[at])
        mass = np.logaddexp.reduce(total)
        return Scores(
            np.exp(total - mass), float(np.exp(self.first if tree.is_numeric else mass)), log_likelihood
        )


@dataclass
class _Answer:
    """Questions of one tree, the mean over which is an answer; the same tokens are read after each.

    parts: the questions, of those in the same words together.
    """

    tree: AnswerTrie
    whole: bool
    parts: dict[bytes, list[_Open]] = field(default_factory=dict)

    @property
    def every(self) -> list[_Open]:
        return [q for of_one in self.parts.values() for q in of_one]

    def next(self, least: float) -> np.ndarray:
        """Tokens to read next, of those that others follow and whose own likelihood is known and enough, of numbers
        those that a quantile lies behind; the likeliest in any case, as long as no answer is complete. And what
        follows them, where that is one."""
        tree, every = self.tree, self.every
        unread = tree.internal[
            (every[0].place[tree.internal] < 0) & np.isfinite(every[0].total[tree.internal])
        ]
        if not len(unread):
            return np.asarray(unread)
        if least > 0:
            first = tree.parent < 0
            known = np.mean(
                [np.exp(q.total[unread] - np.logaddexp.reduce(q.total[first])) for q in every], axis=0
            )
            follow = known > least
            if not follow.any() and not np.isfinite(every[0].total[tree.leaves]).any():
                follow[known.argmax()] = True
            unread = unread[follow]
            if tree.is_numeric and not self.whole:
                unread = unread[self._holding(unread)]
        after = tree.only_child[unread]
        return np.union1d(unread, after[after >= 0])

    def _holding(self, nodes: np.ndarray) -> np.ndarray:
        """Which of these tokens to follow for the quantiles: those with one among their numbers, or with one that
        may be. Where that is not certain, first those between whose numbers others lie (12.x and 120.x after 12):
        they tell where."""
        tree, every = self.tree, self.every
        lowest, highest = tree.answer_span
        begin, end = lowest[nodes], highest[nodes] + 1
        may, sure = np.zeros(len(nodes), dtype=bool), np.zeros(len(nodes), dtype=bool)
        # Complete answers, and beginnings after which nothing was read.
        ends = np.flatnonzero((every[0].place < 0) & np.isfinite(every[0].total))
        ways = (
            [(of_one, INTERVAL_SHARES[1:2]) for of_one in self.parts.values()] if len(self.parts) > 1 else []
        )
        for questions, shares in [(every, INTERVAL_SHARES), *ways]:
            likely = np.mean([np.exp(q.total) for q in questions], axis=0)
            # What lies below each number at least, and at most.
            least, most = (
                np.concatenate([[0], np.bincount(edge[ends], likely[ends], len(tree.answers)).cumsum()])
                for edge in (highest, lowest)
            )
            for share in np.asarray(shares) - _ROUNDING:
                holds = (least[begin] < share) & (share <= most[end])
                may |= holds
                sure |= holds & (most[end] - least[begin] <= likely[nodes] + _ROUNDING)
        first = may & (sure | (end - begin > tree.n_answers[nodes]))
        return first if first.any() else may


@dataclass
class _Trial:
    prefix: int
    questions: list[tuple[_Open, Hashable]] = field(default_factory=list)
    log_likelihood: float = 0.0


@torch.inference_mode()
def score(
    model: Any,
    prefixes: Sequence[np.ndarray],
    asked: Sequence[Sequence[Asked]],
    least: float = 1e-4,
) -> list[list[Scores]]:
    """Scores of each question's answers, for trials (their prefixes' ids) with their questions, as one batch.

    least: beginnings of an answer less likely than this, of all answers together, are not followed; a label
    behind one has probability 0. 0 follows all.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    reader = _Reader(base)
    trials, tokens, parents = [], [], []
    answers: dict[Hashable, _Answer] = {}
    for prefix, questions in zip(prefixes, asked, strict=True):
        trial, token, parent = _first(prefix, questions, answers)
        trials.append(trial)
        tokens.append(token)
        parents.append(parent)
    seen = [_seen(parent) for parent in parents]
    reader.read(tokens, [s.sum(axis=1) - 1 for s in seen], seen)
    for row, trial in enumerate(trials):
        trial.log_likelihood = reader.log_likelihood(row, prefixes[row])
        for q, _ in trial.questions:
            reader.wanted(row, q, np.concatenate([[-1], np.flatnonzero(q.place >= 0)]))
    reader.weigh()
    going, left = trials, list(answers)
    while nexts := {key: nodes for key in left if len(nodes := answers[key].next(least))}:
        left = list(nexts)
        # Trials whose answers are all weighed are not read on as padding.
        rest = [row for row, trial in enumerate(going) if any(key in nexts for _, key in trial.questions)]
        if len(rest) < len(going):
            reader.keep(rest)
            going = [going[row] for row in rest]
        tokens, seen, positions = [], [], []
        for row, trial in enumerate(going):
            some = [(q, nexts[key]) for q, key in trial.questions if key in nexts]
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
                np.concatenate([trial.prefix + len(q.asked) + q.tree.depth[nodes] for q, nodes in some])
            )
            seen.append(sees)
        reader.read(tokens, positions, seen)
        reader.weigh()
    return [[q.scores(trial.log_likelihood) for q, _ in trial.questions] for trial in trials]


def quantile(numbers: np.ndarray, probability: np.ndarray, share: float) -> float:
    """The smallest of rising numbers (A,) up to which at least `share` of the probability (A,) lies."""
    return float(numbers[int(np.argmax(np.cumsum(probability) >= share - _ROUNDING))])


def _first(
    prefix: np.ndarray, questions: Sequence[Asked], answers: dict[Hashable, _Answer]
) -> tuple[_Trial, np.ndarray, np.ndarray]:
    """A trial's prefix, questions and small trees in one sequence: tokens (L,) and parents (L,), -1 none. Adds to
    {answer: its questions}."""
    trial = _Trial(len(prefix))
    tokens, parents = prefix.tolist(), list(range(-1, len(prefix) - 1))
    known: dict[tuple[int, int], int] = {}
    for question, tree, key, whole in questions:
        asked, above = np.empty(len(question), dtype=np.int64), len(prefix) - 1
        # Questions that begin alike are read once as far as they do.
        for n, token in enumerate(question.tolist()):
            above = asked[n] = known.setdefault((above, token), len(tokens))
            if above == len(tokens):
                tokens.append(token)
                parents.append(int(asked[n - 1]) if n else len(prefix) - 1)
        now = tree.internal
        if len(now) > _AT_ONCE:
            now = now[tree.depth[now] == 0]
        if len(now) > _AT_ONCE:
            now = now[:0]
        place = np.full(len(tree.token) + 1, -1)
        place[now] = len(tokens) + np.arange(len(now))
        place[-1] = above
        tokens += tree.token[now].tolist()
        parents += place[tree.parent[now]].tolist()
        one = _Open(tree, asked, np.full(len(tree.token), -np.inf), place[:-1])
        key = ("alone", len(answers)) if key is None else key
        answers.setdefault(key, _Answer(tree, whole)).parts.setdefault(question.tobytes(), []).append(one)
        trial.questions.append((one, key))
    return trial, np.array(tokens), np.array(parents)


def _seen(parent: np.ndarray) -> np.ndarray:
    """(L, L) bool: whether each token sees each, from parents that stand before their children."""
    seen = np.eye(len(parent), dtype=bool)
    for i, above in enumerate(parent):
        if above >= 0:
            seen[i] |= seen[above]
    return seen


class _Reader:
    """The model with what it has read: a row a trial, all rows as long as the longest."""

    def __init__(self, base: Any) -> None:
        self.decoder, self.head = base.get_decoder(), base.get_output_embeddings()
        self.family = family_of(base.config)
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
        back = at[:, None, :, None] - self._at[:, None, None, :]
        self._states = self.decoder(
            input_ids=torch.from_numpy(ids).to(self.device),
            position_ids=at,
            attention_mask=self.family.attention_masks(
                self.decoder.config, lambda window: full if window is None else full & (back < window)
            ),
            past_key_values=self.cache,
            use_cache=True,
        ).last_hidden_state
        self._begin, self.length = self.length, self.length + new

    def log_likelihood(self, row: int, prefix: np.ndarray) -> float:
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
            columns.append(np.where(nodes < 0, q.asked[-1], q.place[nodes]) - self._begin)
            child, follows = q.tree.children(nodes)
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
        together = np.full(len(read), -np.inf)
        np.logaddexp.at(together, state, found)
        at = 0
        for (_, q, nodes), child in zip(self._want, children, strict=True):
            value, depth = found[at : at + len(child)], q.tree.depth[child]
            if q.tree.is_numeric:
                value = value - together[state[at : at + len(child)]]
                if nodes[0] < 0:
                    q.first = float(together[state[at]])
            for level in range(depth.min(), depth.max() + 1):
                here = depth == level
                above = q.tree.parent[child[here]]
                q.total[child[here]] = value[here] + np.where(above >= 0, q.total[above], 0.0)
            at += len(child)
        self._want = []
