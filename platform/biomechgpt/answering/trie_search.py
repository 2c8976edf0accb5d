"""Which nodes of an answer trie the model reads next: only those that decide the answer.

Worked example: the answers are times from 3.0 to 120.0 s, whose digits and point are one token each. The median and
the 5 % and 95 % quantiles are wanted (`calibration.INTERVAL_SHARES`).
- Pass 1 reads the question with the first digits `1` to `9`. It gives P(8.) = .1, P(9.) = .2, P(12) = .5 and
  P(13) = .2. The 5 % quantile lies behind `8.`. Below 10.0 lies .3. Where the median lies depends on `12`, which
  begins 12.0 to 12.9 and also 120.0; so does the 95 % quantile.
- Pass 2 reads `8.` and `12`. `13` waits, because `12` tells whether it is needed. P(12.) = .5, so P(120) = 0.
- Pass 3 reads `12.` for the median, and `13` for the 95 % quantile. After `13` only `.` can follow, so `13.` is
  read in the same pass. Now all three quantiles are known; what is behind `9.`, for example, is never read.

Knows numpy and tries. Knows nothing about models.
"""

from collections.abc import Sequence

import numpy as np

from biomechgpt.answering.calibration import INTERVAL_SHARES
from biomechgpt.answering.scores import ROUNDING
from biomechgpt.prompts.answer_trie import AnswerTrie

MAX_FIRST_NODES = 16
"""Most nodes of a trie that are read with the question. They cost little there, and save a pass."""


class TrieSearch:
    """The search in one trie. Several prompts can share it: movements, mirror images and wordings of a question.

    trie: all answers to the question.
    full_distribution: True: expand all likely numbers; False: only those that decide the wanted quantiles.
    min_probability: a node that is less likely than this, among all answers, is not expanded. 0: expand all.
    is_read: (N,) bool, True for the nodes that were read.
    """

    def __init__(
        self, trie: AnswerTrie, full_distribution: bool = False, min_probability: float = 1e-4
    ) -> None:
        self.trie = trie
        self.full_distribution = full_distribution
        self.min_probability = min_probability
        self.is_read = np.zeros(len(trie.token), dtype=bool)

    def first_nodes(self) -> np.ndarray:
        """The nodes to read with the question: the whole trie if it is small, else its first level, or nothing."""
        nodes = self.trie.internal
        if len(nodes) > MAX_FIRST_NODES:
            nodes = nodes[self.trie.depth[nodes] == 0]
        if len(nodes) > MAX_FIRST_NODES:
            nodes = nodes[:0]
        self.is_read[nodes] = True
        return nodes

    def expand(self, log_probability: Sequence[np.ndarray]) -> np.ndarray:
        """The nodes to read next; empty when the answer is known. They count as read from now on.

        log_probability: for each wording of the question an array (M, N), a row for each of its prompts: the log
            probability of each node with all before it, -inf where it is not known yet.
        """
        nodes = self._candidates(log_probability)
        if len(nodes) and self.min_probability > 0:
            nodes = nodes[self._is_likely(nodes, log_probability)]
            if self.trie.is_numeric and not self.full_distribution:
                nodes = nodes[self._decides_quantile(nodes, log_probability)]
        # Where only one token can follow, both are read in one pass.
        next_nodes = self.trie.only_child[nodes]
        nodes = np.union1d(nodes, next_nodes[next_nodes >= 0])
        self.is_read[nodes] = True
        return nodes

    def _candidates(self, log_probability: Sequence[np.ndarray]) -> np.ndarray:
        """The nodes (n,) that have children, whose probability is known, and that were not read."""
        nodes, is_known = self.trie.internal, _is_known(log_probability)
        return np.asarray(nodes[~self.is_read[nodes] & is_known[nodes]])

    def _is_likely(self, nodes: np.ndarray, log_probability: Sequence[np.ndarray]) -> np.ndarray:
        """Which of these nodes (n,) are likely enough to be expanded."""
        first = self.trie.parent < 0
        # Given that the answer is a valid one: relative to all first tokens together.
        probability = np.mean(
            [np.exp(row[nodes] - np.logaddexp.reduce(row[first])) for row in np.concatenate(log_probability)],
            axis=0,
        )
        is_likely = np.asarray(probability > self.min_probability)
        # As long as no answer is complete, there must be a way on, however unlikely.
        if not is_likely.any() and not _is_known(log_probability)[self.trie.leaves].any():
            is_likely[probability.argmax()] = True
        return is_likely

    def _decides_quantile(self, nodes: np.ndarray, log_probability: Sequence[np.ndarray]) -> np.ndarray:
        """Which of these nodes (n,) to expand for the quantiles: those that have, or may have, one behind them.

        While that is uncertain, nodes with other numbers between theirs come first (12.x and 120.x after `12`):
        they tell where the others lie.
        """
        lowest, highest = self.trie.answer_span
        begin, end = lowest[nodes], highest[nodes] + 1
        # Complete answers, and prefixes after which nothing was read. Their probabilities sum to 1.
        frontier = np.flatnonzero(~self.is_read & _is_known(log_probability))
        # The answer needs its median and its interval. Each wording is reported by its own median.
        wanted: list[tuple[np.ndarray, tuple[float, ...]]] = [
            (np.concatenate(log_probability), INTERVAL_SHARES)
        ]
        if len(log_probability) > 1:
            wanted += [(rows, INTERVAL_SHARES[1:2]) for rows in log_probability]
        is_possible, is_certain = np.zeros(len(nodes), dtype=bool), np.zeros(len(nodes), dtype=bool)
        for rows, shares in wanted:
            probability = np.mean(np.exp(rows), axis=0)
            # The probability of all numbers before number i is not known exactly, because a prefix has it all at
            # once. At least: all of it lies at the prefix's highest number. At most: at its lowest.
            at_least, at_most = (
                np.concatenate(
                    [
                        [0],
                        np.bincount(edge[frontier], probability[frontier], len(self.trie.answers)).cumsum(),
                    ]
                )
                for edge in (highest, lowest)
            )
            for share in np.asarray(shares) - ROUNDING:
                may_hold = (at_least[begin] < share) & (share <= at_most[end])
                is_possible |= may_hold
                # Between the node's numbers lies nothing but the node's own probability.
                is_certain |= may_hold & (at_most[end] - at_least[begin] <= probability[nodes] + ROUNDING)
        is_interleaved = end - begin > self.trie.n_answers[nodes]
        is_first = is_possible & (is_certain | is_interleaved)
        return is_first if is_first.any() else is_possible


def _is_known(log_probability: Sequence[np.ndarray]) -> np.ndarray:
    """(N,) bool: the nodes whose probability is known. All prompts of a search read the same nodes."""
    return np.asarray(np.isfinite(log_probability[0][0]))
