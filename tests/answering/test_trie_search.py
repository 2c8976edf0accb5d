"""The search in an answer trie reads only what decides the answer. Distributions are given, without a model."""

import subprocess
import sys

import numpy as np
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from biomechgpt.answering.calibration import INTERVAL_SHARES
from biomechgpt.answering.scores import quantile
from biomechgpt.answering.trie_search import MAX_FIRST_NODES, TrieSearch
from biomechgpt.prompts.answer_trie import answer_trie
from biomechgpt.prompts.encoding import PromptEncoder, TurnMarkers
from example_trials import ALL_TASKS


class Characters:
    """A tokenizer whose every character is a token."""

    def __call__(self, text: str, **_) -> dict[str, list[int]]:
        return {"input_ids": [ord(character) for character in text]}


ENCODER = PromptEncoder(Characters(), TurnMarkers(answer_end="$"))
TUG_TIME = answer_trie(ENCODER, ALL_TASKS["tug_time"])


def names_of(trie):
    """The text from the question to each node."""
    names = []
    for token, parent in zip(trie.token, trie.parent, strict=True):
        names.append(("" if parent < 0 else names[parent]) + chr(token))
    return names


def node_probabilities(trie, answers):
    """(N,) probability of each node, from that of each answer (A,)."""
    probability = np.zeros(len(trie.token))
    for answer, node in trie.ancestors():
        np.add.at(probability, node, answers[answer])
    return probability


def known(trie, search, probability):
    """(1, N) log probability of the nodes after the question and after the nodes that were read; -inf elsewhere."""
    is_known = (trie.parent < 0) | search.is_read[trie.parent]
    return np.where(is_known, np.log(probability), -np.inf)[None]


def passes_of(search, wordings):
    """The nodes that each pass reads, from the one with the question on."""
    passes = [search.first_nodes()]
    while len(nodes := search.expand([known(search.trie, search, p) for p in wordings])):
        passes.append(nodes)
    return passes


def searched_answers(search, probability):
    """(A,) probability of each answer as far as the search knows it."""
    trie, log_probability = search.trie, known(search.trie, search, probability)[0]
    node = trie.leaves
    while (unknown := np.isneginf(log_probability[node])).any():
        node = np.where(unknown, trie.parent[node], node)
    return np.exp(log_probability[node]) / trie.n_answers[node]


def test_the_worked_example_of_the_docstring():
    numbers = np.array(TUG_TIME.answers)
    answers = np.full(len(numbers), 1e-9)
    for low, high, share in ((8, 9, 0.1), (9, 10, 0.2), (12, 13, 0.5), (13, 14, 0.2)):
        within = (numbers >= low - 1e-6) & (numbers < high - 1e-6)
        answers[within] = share / within.sum()
    answers /= answers.sum()
    search, names = TrieSearch(TUG_TIME), names_of(TUG_TIME)
    passes = passes_of(search, [node_probabilities(TUG_TIME, answers)])
    assert [sorted(names[node] for node in nodes) for nodes in passes] == [
        list("123456789"),
        ["12", "8."],
        ["12.", "13", "13."],
    ]
    found = searched_answers(search, node_probabilities(TUG_TIME, answers))
    for share in INTERVAL_SHARES:
        assert quantile(numbers, found, share) == quantile(numbers, answers, share)


UNREAD = 5e-4
"""Most probability behind a few nodes of less than `TrieSearch.min_probability` (1e-4) each, which are not read."""


@st.composite
def distributions(draw, n_answers):
    """Probabilities of all answers: nearly all of it at a few of them."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    answers = np.full(n_answers, 1e-9)
    peaks = rng.integers(n_answers, size=draw(st.integers(1, 30)))
    answers[peaks] += rng.dirichlet(np.full(len(peaks), draw(st.sampled_from([0.1, 1.0, 10.0]))))
    return answers / answers.sum()


@given(st.lists(distributions(len(TUG_TIME.answers)), min_size=1, max_size=3))
@hypothesis_settings(max_examples=50, deadline=None)
def test_quantiles_of_the_mean_and_the_median_of_each_wording_are_those_of_all_numbers(answers):
    numbers, wordings = np.array(TUG_TIME.answers), [node_probabilities(TUG_TIME, a) for a in answers]
    search = TrieSearch(TUG_TIME)
    n_read = sum(map(len, passes_of(search, wordings)))
    found = [searched_answers(search, probability) for probability in wordings]
    for share in INTERVAL_SHARES:
        # Another number may be the first to reach the share, within what unlikely nodes that are not read have.
        value = quantile(numbers, np.mean(found, axis=0), share)
        cumulative = np.cumsum(np.mean(answers, axis=0))
        at = int(np.searchsorted(numbers, value - 1e-6))
        assert cumulative[at] >= share - UNREAD
        assert at == 0 or cumulative[at - 1] <= share + UNREAD
    for of_wording, expected in zip(found, answers, strict=True):
        at = int(np.searchsorted(numbers, quantile(numbers, of_wording, 0.5) - 1e-6))
        assert np.cumsum(expected)[at] >= 0.5 - UNREAD
        assert at == 0 or np.cumsum(expected)[at - 1] <= 0.5 + UNREAD
    assert n_read <= len(TUG_TIME.internal)


@given(distributions(len(TUG_TIME.answers)))
@hypothesis_settings(max_examples=20, deadline=None)
def test_without_a_threshold_every_node_is_read_once(answers):
    search = TrieSearch(TUG_TIME, min_probability=0)
    nodes = np.concatenate(passes_of(search, [node_probabilities(TUG_TIME, answers)]))
    assert sorted(nodes.tolist()) == TUG_TIME.internal.tolist()


def test_the_full_distribution_is_read_as_far_as_it_is_likely():
    answers = np.full(len(TUG_TIME.answers), 1e-9)
    answers[::100] = 1.0
    answers /= answers.sum()
    probability = node_probabilities(TUG_TIME, answers)
    search = TrieSearch(TUG_TIME, full_distribution=True)
    passes_of(search, [probability])
    likely = TUG_TIME.internal[probability[TUG_TIME.internal] > search.min_probability]
    assert set(likely.tolist()) <= set(np.flatnonzero(search.is_read).tolist())


def test_a_small_trie_is_read_with_the_question_and_a_large_one_is_not():
    labels = answer_trie(ENCODER, ALL_TASKS["activity"], ["a", "ab", "b"])
    search = TrieSearch(labels)
    assert search.first_nodes().tolist() == labels.internal.tolist()
    many = answer_trie(ENCODER, ALL_TASKS["activity"], [chr(ord("A") + n) for n in range(40)])
    assert len(many.internal) > MAX_FIRST_NODES
    assert len(TrieSearch(many).first_nodes()) == 0


def test_a_way_on_is_found_however_unlikely_all_answers_are():
    labels = answer_trie(ENCODER, ALL_TASKS["activity"], [chr(ord("A") + n) for n in range(40)])
    search = TrieSearch(labels, min_probability=0.5)
    passes_of(search, [node_probabilities(labels, np.full(40, 1 / 40))])
    assert search.is_read[labels.parent[labels.leaves]].sum() == 1


def test_search_and_scores_need_no_torch():
    modules = "biomechgpt.answering.scores, biomechgpt.answering.trie_search"
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
