"""The answer trie: the worked example of its docstring, and what holds for every task's trie."""

import numpy as np
import pytest

from biomechgpt.prompts.answer_trie import AnswerTrie, answer_trie
from biomechgpt.prompts.encoding import PromptEncoder
from biomechgpt.questions.tasks import AnnotatedTask
from example_trials import ALL_TASKS

ANNOTATED = [task for task in ALL_TASKS.values() if isinstance(task, AnnotatedTask)]
LABELS = ["sitting", "sit to stand", "TUG"]


class Characters:
    """A tokenizer whose every character is a token."""

    def __call__(self, text: str, **_) -> dict[str, list[int]]:
        return {"input_ids": [ord(character) for character in text]}


ENCODER = PromptEncoder(Characters())


def texts(trie: AnswerTrie) -> list[str]:
    """The text from the question to each node."""
    names: list[str] = []
    for token, parent in zip(trie.token, trie.parent, strict=True):
        names.append(("" if parent < 0 else names[parent]) + chr(token))
    return names


def test_the_worked_example_of_the_docstring():
    trie = answer_trie(ENCODER, ALL_TASKS["tug_time"])
    assert (len(trie.answers), trie.answers[0], trie.answers[-1]) == (1171, 3.0, 120.0)
    names = texts(trie)
    node = {name: n for n, name in enumerate(names)}

    def children(name: str) -> list[str]:
        found, _ = trie.children(np.array([node[name] if name else -1]))
        return sorted(names[n] for n in found)

    assert children("") == list("123456789")
    first, last = (trie.answers[edge[node["1"]]] for edge in trie.answer_span)
    assert (first, last) == (10.0, 120.0)
    assert trie.n_answers[node["1"]] == 100 + 201
    assert children("12") == ["12.", "120"]
    assert node["12"] in trie.internal
    assert node["120"] not in trie.internal
    assert names[trie.only_child[node["30"]]] == "30."
    assert children("30.") == [f"30.{n}" for n in range(10)]
    assert {node[f"30.{n}"] for n in range(10)} <= set(trie.leaves.tolist())


@pytest.mark.parametrize("task", ANNOTATED, ids=lambda task: task.name)
def test_spans_counts_and_children_are_those_of_the_paths(task):
    trie = answer_trie(ENCODER, task, LABELS)
    names = texts(trie)
    behind = [{n for n, leaf in enumerate(trie.leaves) if names[leaf].startswith(name)} for name in names]
    assert trie.n_answers.tolist() == [len(answers) for answers in behind]
    first, last = trie.answer_span
    assert first.tolist() == [min(answers) for answers in behind]
    assert last.tolist() == [max(answers) for answers in behind]
    assert trie.depth.tolist() == [len(name) - 1 for name in names]
    nodes = np.arange(-1, len(names))
    child, owner = trie.children(nodes)
    assert trie.parent[child].tolist() == nodes[owner].tolist()
    assert sorted(child.tolist()) == list(range(len(names)))
    least = 2 if trie.is_numeric else 1
    has_children = set(trie.parent.tolist())
    assert set(trie.internal.tolist()) == {
        n for n, answers in enumerate(behind) if n in has_children and len(answers) >= least
    }


@pytest.mark.parametrize("task", ANNOTATED, ids=lambda task: task.name)
def test_no_answer_is_the_beginning_of_another(task):
    trie = answer_trie(ENCODER, task, LABELS)
    assert not set(trie.leaves.tolist()) & set(trie.parent.tolist())
