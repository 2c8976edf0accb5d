"""Scores every answer that a question can have: the movement and its questions are read once, answers after them.

A prompt is one row: its movement, each question after it, and nodes of each question's answer trie after that. A
token sees the tokens that it follows and nothing else, at the position that it would have alone. So probabilities
are those of separate passes.

Worked example: a movement `m`, two questions `q r` and `q s`, and the answers `yes` and `no` to each.
- The prefill row is `m q r s`: the questions share `q`. The state of `r` gives P(yes) and P(no) of the first
  question, that of `s` those of the second.
- Answers of several tokens go on: nodes that `TrieSearch` chooses are appended to the row, `m q r s | ye ye`. The
  first `ye` sees `m q r`, the second `m q s`; both stand at position 3. Keys and values of `m q r s` come from the
  cache.

Knows tokens and models. Knows nothing about files, or about the wording of tasks.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
import transformers

from biomechgpt.answering.scores import Scores
from biomechgpt.answering.trie_search import TrieSearch
from biomechgpt.language.families import family_of
from biomechgpt.language.network import tokens_at_once
from biomechgpt.language.stacked import cross_entropy, stack_of
from biomechgpt.prompts.answer_trie import AnswerTrie


class CandidateQuery(NamedTuple):
    """A question with the answers that it can have.

    question: token ids.
    trie: the answers.
    group: queries of one group have the same trie, and their mean is one answer; None: this query alone.
    full_distribution: a number's whole distribution is wanted, not only its quantiles.
    """

    question: np.ndarray
    trie: AnswerTrie
    group: Hashable = None
    full_distribution: bool = False


@torch.inference_mode()
def score(
    model: Any,
    prefixes: Sequence[np.ndarray],
    queries: Sequence[Sequence[CandidateQuery]],
    min_probability: float = 1e-4,
) -> list[list[Scores]]:
    """The scores of each query, for several prompts as one batch.

    prefixes: ids of each prompt's movement.
    queries: those of each prompt.
    min_probability: prefixes of answers less likely than this, among all answers, are not expanded; a label behind
        one has probability 0. 0: expand all.
    """
    decoder = CachedDecoder(model)
    groups: dict[Hashable, _AnswerGroup] = {}
    rows = [
        _prefill_row(prefix, row_queries, groups, min_probability)
        for prefix, row_queries in zip(prefixes, queries, strict=True)
    ]
    visible = [_ancestor_mask(row.parents) for row in rows]
    # A token's position is the number of tokens before it on its own path.
    positions = [mask.sum(axis=1) - 1 for mask in visible]
    decoder.read([row.tokens for row in rows], positions, visible)
    for i, row in enumerate(rows):
        row.log_likelihood = decoder.log_likelihood(i, prefixes[i])
    _record(decoder, [(i, state, state.read_nodes) for i, row in enumerate(rows) for state, _ in row.states])
    _search(decoder, rows, groups)
    return [[state.scores(row.log_likelihood) for state, _ in row.states] for row in rows]


def _search(
    decoder: "CachedDecoder", rows: "list[_PromptRow]", groups: "Mapping[Hashable, _AnswerGroup]"
) -> None:
    """Expand the tries of all groups, one pass of the model after another, until every answer is known."""
    open_groups = list(groups)
    while next_nodes := {key: nodes for key in open_groups if len(nodes := groups[key].next_nodes())}:
        open_groups = list(next_nodes)
        # Rows whose answers are all known would only be padding.
        open_rows = [i for i, row in enumerate(rows) if any(key in next_nodes for _, key in row.states)]
        if len(open_rows) < len(rows):
            decoder.keep_rows(open_rows)
            rows = [rows[i] for i in open_rows]
        extensions = [_extend(row, next_nodes, decoder.length) for row in rows]
        tokens, positions, visible = zip(*extensions, strict=True)
        decoder.read(tokens, positions, visible)
        _record(
            decoder,
            [
                (i, state, next_nodes[key])
                for i, row in enumerate(rows)
                for state, key in row.states
                if key in next_nodes
            ],
        )


@dataclass
class _TrieState:
    """What is known of one query's trie, and where its tokens stand in their row.

    question_columns: (Q,) columns of the question's tokens.
    log_probability: (N,) of each node with all before it, -inf: not known yet. For numbers, each token's is
        conditional on the tokens that may stand there.
    column: (N,) where each node was read, -1: not yet.
    log_valid: log probability of all valid first tokens of a number together.
    """

    trie: AnswerTrie
    question_columns: np.ndarray
    log_probability: np.ndarray
    column: np.ndarray
    log_valid: float = 0.0

    @property
    def read_nodes(self) -> np.ndarray:
        """The nodes that were read; first of all -1, the question."""
        return np.concatenate([[-1], np.flatnonzero(self.column >= 0)])

    def columns_of(self, nodes: np.ndarray) -> np.ndarray:
        """The columns (n,) whose states predict what follows these nodes (-1: the question)."""
        return np.asarray(np.where(nodes < 0, self.question_columns[-1], self.column[nodes]))

    def set_visible(self, nodes: np.ndarray, visible: np.ndarray) -> None:
        """Set in `visible` (n, length) what these nodes see: the question, and their path in the trie."""
        visible[:, self.question_columns] = True
        rows = np.arange(len(nodes))
        # All nodes climb to the root together; those that have arrived drop out.
        while len(nodes):
            visible[rows, self.column[nodes]] = True
            nodes = self.trie.parent[nodes]
            rows, nodes = rows[nodes >= 0], nodes[nodes >= 0]

    def record(self, nodes: np.ndarray, children: np.ndarray, owner: np.ndarray, log_p: np.ndarray) -> None:
        """Take in what the model gave for the children of these nodes.

        children, owner: (C,) as `AnswerTrie.children` gives them.
        log_p: (C,) log probability of each child's token after its parent.
        """
        if self.trie.is_numeric:
            # Conditional on a valid continuation: the children of a node sum to 1.
            total = np.full(len(nodes), -np.inf)
            np.logaddexp.at(total, owner, log_p)
            log_p = log_p - total[owner]
            if nodes[0] < 0:
                self.log_valid = float(total[0])
        depth = self.trie.depth[children]
        for level in range(depth.min(), depth.max() + 1):  # parents before their children
            at_level = depth == level
            parent = self.trie.parent[children[at_level]]
            before = np.where(parent >= 0, self.log_probability[parent], 0.0)
            self.log_probability[children[at_level]] = log_p[at_level] + before

    def scores(self, log_likelihood: float) -> Scores:
        """The scores of all answers, when the search is over."""
        trie, node = self.trie, self.trie.leaves
        if trie.is_numeric:
            # A number that was not expanded to its end is found at its longest known prefix.
            while (unknown := np.isneginf(self.log_probability[node])).any():
                node = np.where(unknown, trie.parent[node], node)
        # All answers behind one node share its probability.
        log_p = self.log_probability[node] - np.log(trie.n_answers[node])
        log_total = np.logaddexp.reduce(log_p)
        log_valid = self.log_valid if trie.is_numeric else log_total
        return Scores(np.exp(log_p - log_total), float(np.exp(log_valid)), log_likelihood)


@dataclass
class _AnswerGroup:
    """The queries whose mean is one answer. They have one search: after each of them the same nodes are read.

    states: those of the queries, by the bytes of their question's ids, that is, by wording.
    """

    search: TrieSearch
    states: dict[bytes, list[_TrieState]] = field(default_factory=dict)

    def next_nodes(self) -> np.ndarray:
        """The nodes to read next after each query; empty when the answer is known."""
        return self.search.expand(
            [np.stack([state.log_probability for state in states]) for states in self.states.values()]
        )


@dataclass
class _PromptRow:
    """One prompt: its prefix, its questions and the first nodes of their tries.

    n_prefix: tokens of the prefix.
    tokens: (L,) ids that the first pass reads.
    parents: (L,) column of the token before each one on its path, -1: none.
    states: state and group of each query.
    log_likelihood: mean log-likelihood of the prefix.
    """

    n_prefix: int
    tokens: np.ndarray
    parents: np.ndarray
    states: list[tuple[_TrieState, Hashable]]
    log_likelihood: float = 0.0


def _prefill_row(
    prefix: np.ndarray,
    queries: Sequence[CandidateQuery],
    groups: dict[Hashable, _AnswerGroup],
    min_probability: float,
) -> _PromptRow:
    """The row of one prompt, its queries' states in it. Adds each query to its group in `groups`."""
    tokens, parents = prefix.tolist(), list(range(-1, len(prefix) - 1))
    # (column of a token, id of the next token) -> column of the next: questions that begin alike are read once.
    column_after: dict[tuple[int, int], int] = {}
    states: list[tuple[_TrieState, Hashable]] = []
    for question, trie, key, full_distribution in queries:
        question_columns = np.empty(len(question), dtype=np.int64)
        above = len(prefix) - 1
        for n, token in enumerate(question.tolist()):
            column = column_after.setdefault((above, token), len(tokens))
            if column == len(tokens):  # new: no question before had this beginning
                tokens.append(token)
                parents.append(above)
            above = question_columns[n] = column
        key = ("alone", len(groups)) if key is None else key
        if key not in groups:
            groups[key] = _AnswerGroup(TrieSearch(trie, full_distribution, min_probability))
        group = groups[key]
        nodes = group.search.first_nodes()
        # One more than there are nodes, so that the parent -1 of a first node is found at the end: the question.
        column_of = np.full(len(trie.token) + 1, -1)
        column_of[nodes] = len(tokens) + np.arange(len(nodes))
        column_of[-1] = above
        tokens += trie.token[nodes].tolist()
        parents += column_of[trie.parent[nodes]].tolist()
        state = _TrieState(trie, question_columns, np.full(len(trie.token), -np.inf), column_of[:-1])
        group.states.setdefault(question.tobytes(), []).append(state)
        states.append((state, key))
    return _PromptRow(len(prefix), np.array(tokens), np.array(parents), states)


def _ancestor_mask(parents: np.ndarray) -> np.ndarray:
    """(L, L) bool: True where a token sees another: itself, and all before it on its path.

    parents: (L,) columns that stand before their children, -1: none.
    """
    visible = np.eye(len(parents), dtype=bool)
    for column, parent in enumerate(parents):
        if parent >= 0:
            visible[column] |= visible[parent]
    return visible


def _extend(
    row: _PromptRow, next_nodes: Mapping[Hashable, np.ndarray], length: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Append nodes to a row: their tokens (n,), positions (n,), and what they see (n, length + n).

    next_nodes: {group: nodes to read after each of its queries}.
    length: columns that were read before.
    """
    extended = [(state, next_nodes[key]) for state, key in row.states if key in next_nodes]
    n_new = sum(len(nodes) for _, nodes in extended)
    visible = np.zeros((n_new, length + n_new), dtype=bool)
    visible[:, : row.n_prefix] = True
    begin = 0
    for state, nodes in extended:
        state.column[nodes] = length + begin + np.arange(len(nodes))
        state.set_visible(nodes, visible[begin : begin + len(nodes)])
        begin += len(nodes)
    tokens = [state.trie.token[nodes] for state, nodes in extended]
    positions = [
        row.n_prefix + len(state.question_columns) + state.trie.depth[nodes] for state, nodes in extended
    ]
    return np.concatenate(tokens), np.concatenate(positions), visible


def _record(decoder: "CachedDecoder", requests: Sequence[tuple[int, _TrieState, np.ndarray]]) -> None:
    """Record in each state what the model gives for the children of the nodes that it has just read.

    requests: (row, state, nodes).
    """
    rows = np.concatenate([np.full(len(nodes), row) for row, _, nodes in requests])
    columns = np.concatenate([state.columns_of(nodes) for _, state, nodes in requests])
    # All requests go through the output layer together: child c follows hidden state `index[c]`.
    first = np.cumsum([0, *(len(nodes) for *_, nodes in requests)])
    families = [state.trie.children(nodes) for _, state, nodes in requests]
    index = np.concatenate([begin + owner for begin, (_, owner) in zip(first, families, strict=False)])
    tokens = np.concatenate(
        [state.trie.token[children] for (_, state, _), (children, _) in zip(requests, families, strict=True)]
    )
    log_p = decoder.log_probabilities(rows, columns, index, tokens)
    begin = 0
    for (_, state, nodes), (children, owner) in zip(requests, families, strict=True):
        state.record(nodes, children, owner, log_p[begin : begin + len(children)])
        begin += len(children)


class CachedDecoder:
    """A language model with the keys and values of all that it has read: one row a prompt.

    All rows are as long as the longest; padding is seen by nothing. Knows tokens, positions and masks. Knows
    nothing about tries.
    length: columns that were read.
    """

    def __init__(self, model: Any) -> None:
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.decoder, self.head = base.get_decoder(), base.get_output_embeddings()
        self.family, self.stack = family_of(base.config), stack_of(base.config)
        self.max_states = tokens_at_once(base)
        # A cache that forgets nothing, also for layers with a sliding window: the masks say what each layer sees.
        self.cache = transformers.DynamicCache()
        self.length, self.device = 0, self.head.weight.device
        self._positions: torch.Tensor | None = None

    def read(
        self,
        tokens: Sequence[np.ndarray],
        positions: Sequence[np.ndarray],
        visible: Sequence[np.ndarray],
    ) -> None:
        """Read more tokens of each row, and keep their states until the next call.

        tokens, positions: (n,) of each row; n may differ.
        visible: (n, length + n) bool of each row: the columns that each token sees, whatever a layer's window.
        """
        n_new = max(map(len, tokens))
        ids, position = (np.zeros((len(tokens), n_new), dtype=np.int64) for _ in range(2))
        mask = np.zeros((len(tokens), n_new, self.length + n_new), dtype=bool)
        # Padding sees itself: attention over an empty row would be NaN.
        mask[:, np.arange(n_new), self.length + np.arange(n_new)] = True
        for row, row_tokens in enumerate(tokens):
            n = len(row_tokens)
            ids[row, :n], position[row, :n] = row_tokens, positions[row]
            mask[row, :n, : self.length + n] = visible[row]
        new = torch.from_numpy(position).to(self.device)
        self._positions = new if self._positions is None else torch.cat([self._positions, new], dim=1)
        full_mask = torch.from_numpy(mask).to(self.device)[:, None]
        # A window counts positions, not columns: other questions may stand between a token and what it sees.
        distance = new[:, None, :, None] - self._positions[:, None, None, :]
        self._states = self.decoder(
            input_ids=torch.from_numpy(ids).to(self.device),
            position_ids=new,
            attention_mask=self.family.attention_masks(
                self.decoder.config,
                lambda window: full_mask if window is None else full_mask & (distance < window),
            ),
            past_key_values=self.cache,
            use_cache=True,
        ).last_hidden_state
        self._first_column, self.length = self.length, self.length + n_new

    def log_likelihood(self, row: int, prefix: np.ndarray) -> float:
        """Mean log probability of a prefix's tokens, each after those before it. Only after the first `read`."""
        states = self._states[row, : len(prefix) - 1].split(self.max_states)
        next_tokens = torch.from_numpy(prefix[1:]).to(self.device).split(self.max_states)
        losses = [
            cross_entropy(self.head(state).float(), token, self.stack)
            for state, token in zip(states, next_tokens, strict=True)
        ]
        return float((-torch.cat(losses)).mean())

    def log_probabilities(
        self, rows: np.ndarray, columns: np.ndarray, index: np.ndarray, tokens: np.ndarray
    ) -> np.ndarray:
        """Log probability (C,) of each token after a state of the last `read`.

        rows, columns: (S,) of the states.
        index: (C,) the state, 0 to S - 1, that each token follows.
        tokens: (C,) ids.
        """
        states = self._states[torch.from_numpy(rows), torch.from_numpy(columns - self._first_column)]
        log_probabilities = np.empty(len(tokens))
        # So many states at once, that the logits over the whole vocabulary fit into memory.
        for begin in range(0, len(states), self.max_states):
            log_p = self.head(states[begin : begin + self.max_states]).float().log_softmax(dim=-1)
            here = np.flatnonzero((index >= begin) & (index < begin + self.max_states))
            log_probabilities[here] = (
                log_p[torch.from_numpy(index[here] - begin), torch.from_numpy(tokens[here])].cpu().numpy()
            )
        return log_probabilities

    def keep_rows(self, rows: list[int]) -> None:
        """Forget all rows but these, which are numbered anew."""
        index = torch.tensor(rows, device=self.device)
        self.cache.batch_select_indices(index)
        self._positions = None if self._positions is None else self._positions[index]
