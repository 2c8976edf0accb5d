"""The recipe "a language model family" of docs/extending.md, carried out with the page's own code.

In the package the record is a module of biomechgpt/language/families, listed in `FAMILIES`.
"""

import re
import textwrap

import pytest
import torch

from biomechgpt.answering.answerer import Answerer
from biomechgpt.language import network
from biomechgpt.language.families import FAMILIES, family_at
from biomechgpt.language.families.family import Family
from biomechgpt.language.settings import BaseSettings
from biomechgpt.prompts.encoding import PromptEncoder
from biomechgpt.prompts.packing import batch_trees
from conftest import ROOT
from tiny_language import (
    CODES,
    PAIRS,
    about,
    base_of,
    model_of,
    new_text_model,
    relative,
    settings_of,
    text_tokenizer,
)

pytestmark = pytest.mark.usefixtures("one_thread", "registered")


def recipe_record() -> Family:
    """The record that the recipe's first block of code defines."""
    page = (ROOT / "docs" / "extending.md").read_text()
    section = page.split("\n## A language model family\n")[1].split("\n## ")[0]
    block = textwrap.dedent(re.findall(r"```python\n(.*?)```", section, re.DOTALL)[0])
    module: dict[str, object] = {}
    exec(compile(block, "docs/extending.md", "exec"), module)
    return module["QWEN2"]


QWEN2 = recipe_record()


@pytest.fixture(scope="module")
def registered():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FAMILIES, "qwen2", QWEN2)
        yield


def test_the_turn_markers_are_those_of_the_chat_template(codebook):
    tokenizer = text_tokenizer("qwen2")
    network.extend_vocabulary(new_text_model(tokenizer, "qwen2"), tokenizer, codebook, "codebook")
    encoder = PromptEncoder(tokenizer, QWEN2.turns)
    speakers, turns = ("user", "assistant", "user"), ["What is it?", "a walk", "How fast?"]
    messages = [{"role": speaker, "content": words} for speaker, words in zip(speakers, turns, strict=True)]
    written = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert tokenizer.decode([*encoder.prefix([]), *encoder.question(turns)]) == written


def test_a_tree_is_its_pairs(codebook):
    tokenizer = text_tokenizer("qwen2")
    model = new_text_model(tokenizer, "qwen2")
    network.extend_vocabulary(model, tokenizer, codebook, "codebook")
    encoder = PromptEncoder(tokenizer, QWEN2.turns)
    results = []
    for trees in (
        [encoder.build_tree([[3, 1, 4] * 9], PAIRS, 512)],
        [encoder.build_tree([[3, 1, 4] * 9], [pair], 512) for pair in PAIRS],
    ):
        model.zero_grad()
        total, _ = network.TreeModel(model)(**batch_trees(trees, 0, (1, 1, 1)))["language"]
        total.backward()
        gradients = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        results.append((total.item(), gradients))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-5)
    assert relative(results[0][1], results[1][1]) < 1e-5


def test_the_family_is_fine_tuned_in_4_bits_and_answers(artifacts, tmp_path):
    tokenizer = text_tokenizer("qwen2")
    base = base_of(new_text_model(tokenizer, "qwen2"), tokenizer, tmp_path, artifacts)
    assert family_at(base.path("model")) is QWEN2
    model = model_of(base, artifacts, settings_of())
    assert model.input("adapter").metrics["linear_layers_4bit"] == 6 * 7
    queries = [about([n % CODES for n in range(length)], "activity", "What is this?") for length in (8, 30)]
    answerer = Answerer.load(model.uri)
    together, alone = answerer.answer(queries), [answerer.answer([query])[0] for query in queries]
    assert [answer.text for answer in together] == [answer.text for answer in alone]
    assert all(sum(answer.probabilities) == pytest.approx(1) for answer in together)


def test_the_family_is_a_value_of_the_setting():
    assert BaseSettings(family="qwen2").family == "qwen2"
