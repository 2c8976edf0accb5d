"""The recipe "add a family of language models", carried out: one record, and the family goes the whole way.

In the package the record is a module of biomechgpt/language/families, listed in `FAMILIES`.
"""

import pytest
import torch
import transformers

from biomechgpt.answering.answerer import Answerer
from biomechgpt.language import network
from biomechgpt.language.families import FAMILIES, family_at
from biomechgpt.language.families.family import Family, TinyFamily, attention_of_each_type, tiny_config
from biomechgpt.language.settings import BaseSettings
from biomechgpt.prompts.encoding import Encoder, TurnMarkers
from biomechgpt.prompts.packing import batch_trees
from tiny_language import (
    CODES,
    PAIRS,
    base_of,
    model_of,
    new_text_model,
    relative,
    settings_of,
    text_tokenizer,
)

pytestmark = pytest.mark.usefixtures("one_thread", "registered")


def new_qwen(tokenizer, settings):
    return transformers.Qwen2ForCausalLM(
        transformers.Qwen2Config(**tiny_config(tokenizer, settings), eos_token_id=tokenizer.eos_token_id)
    )


QWEN2 = Family(
    name="qwen2",
    label="Qwen 2",
    model_types=("qwen2",),
    turns=TurnMarkers(
        dialogue_start="<|im_start|>user\n",
        question_end="<|im_end|>\n<|im_start|>assistant\n",
        answer_end="<|im_end|>",
        next_question="<|im_end|>\n<|im_start|>user\n",
    ),
    attention_masks=attention_of_each_type,
    lora_layers="(?:[qkvo]|gate|up|down)_proj",
    tiny=TinyFamily(
        special_tokens=("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        roles={"pad_token": "<|endoftext|>", "eos_token": "<|im_end|>"},
        speakers=("user", "assistant"),
        chat_template=(
            "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] "
            "+ '<|im_end|>\n' }}{% endfor %}"
            "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
        ),
        new_model=new_qwen,
    ),
)


@pytest.fixture(scope="module")
def registered():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FAMILIES, "qwen2", QWEN2)
        yield


def test_the_turn_markers_are_those_of_the_chat_template(codebook):
    tokenizer = text_tokenizer("qwen2")
    network.extend_vocabulary(new_text_model(tokenizer, "qwen2"), tokenizer, codebook, "codebook")
    encoder = Encoder(tokenizer, QWEN2.turns)
    speakers, turns = ("user", "assistant", "user"), ["What is it?", "a walk", "How fast?"]
    messages = [{"role": speaker, "content": words} for speaker, words in zip(speakers, turns, strict=True)]
    written = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert tokenizer.decode([*encoder.prefix(None), *encoder.question(turns)]) == written


def test_a_tree_is_its_pairs(codebook):
    tokenizer = text_tokenizer("qwen2")
    model = new_text_model(tokenizer, "qwen2")
    network.extend_vocabulary(model, tokenizer, codebook, "codebook")
    encoder = Encoder(tokenizer, QWEN2.turns)
    results = []
    for trees in (
        [encoder.tree([3, 1, 4] * 9, PAIRS, 512)],
        [encoder.tree([3, 1, 4] * 9, [pair], 512) for pair in PAIRS],
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
    queries = [([n % CODES for n in range(length)], "activity", "What is this?") for length in (8, 30)]
    answerer = Answerer.load(model.uri)
    together, alone = answerer.answer(queries), [answerer.answer([query])[0] for query in queries]
    assert [answer.text for answer in together] == [answer.text for answer in alone]
    assert all(sum(answer.probability) == pytest.approx(1) for answer in together)


def test_the_family_is_a_value_of_the_setting():
    assert BaseSettings(family="qwen2").family == "qwen2"
