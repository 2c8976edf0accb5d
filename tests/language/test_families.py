"""Every family of language models goes the whole way: base, 4-bit fine-tuning, answering, export. All are tiny."""

import json
from dataclasses import replace

import bitsandbytes
import numpy as np
import pytest
import torch
import transformers

from biomechgpt.answering.answerer import Answerer
from biomechgpt.core.settings import InputError, validate
from biomechgpt.experiment.checkpoint import export_model
from biomechgpt.language import network, pretrain, tiny_model
from biomechgpt.language.families import FAMILIES, family_at, family_of
from biomechgpt.language.finetune import load_weights, with_adapter
from biomechgpt.language.settings import AdapterSettings, BaseSettings
from biomechgpt.prompts.encoding import PromptEncoder, motion_vocabulary
from biomechgpt.prompts.packing import batch_trees
from biomechgpt.questions.dataset import read_questions
from tiny_language import (
    CODES,
    LAST,
    PAIRS,
    SIZE,
    about,
    base_of,
    fit_here,
    model_of,
    new_text_model,
    relative,
    settings_of,
    text_tokenizer,
    training_task_of,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return FAMILIES[request.param]


@pytest.fixture(scope="module")
def extended(family, codebook):
    """(model, tokenizer) with motion in the vocabulary."""
    tokenizer = text_tokenizer(family.name)
    model = new_text_model(tokenizer, family.name)
    network.extend_vocabulary(model, tokenizer, codebook, "codebook")
    return model, tokenizer


@pytest.fixture(scope="module")
def trained(family, artifacts, tmp_path_factory):
    """(the base artifact, the trained model, the model artifact)."""
    tokenizer = text_tokenizer(family.name)
    folder = tmp_path_factory.mktemp(family.name)
    base = base_of(new_text_model(tokenizer, family.name), tokenizer, folder, artifacts)
    model = model_of(base, artifacts, settings_of())
    return base, LAST["model"], model


def loss_and_gradients(model, trees):
    model.zero_grad()
    total, count = network.TreeModel(model)(**batch_trees(trees, 0, (1, 1, 1)))["language"]
    (total / count).backward()
    gradients = [p.grad.flatten().double() for p in model.parameters() if p.grad is not None]
    return total.item() / count.item(), torch.cat(gradients)


def test_a_dialogue_is_what_the_chat_template_writes(family, extended):
    _, tokenizer = extended
    encoder, turns = PromptEncoder(tokenizer, family.turns), ["What is it?", "a walk", "How fast?"]
    speakers = ["user", "assistant", "user"]
    motion = "<motion_start><motion_3><motion_7><motion_end>"
    messages = [
        {"role": speaker, "content": (motion if number == 0 else "") + words}
        for number, (speaker, words) in enumerate(zip(speakers, turns, strict=True))
    ]
    template = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    ids = [*encoder.prefix([[3, 7]]), *encoder.question(turns)]
    # Gemma's template ends an answer with a line break, which is the turn marker's own.
    assert tokenizer.decode(ids) == template
    assert tokenizer(template, add_special_tokens=False)["input_ids"] == [int(i) for i in ids]
    assert len(encoder.text(family.turns.answer_end)) == 1


def test_a_tree_is_its_pairs_in_loss_and_gradient(family, extended):
    model, encoder = extended[0].train(), PromptEncoder(extended[1], family.turns)
    tree = encoder.build_tree([np.random.default_rng(1).integers(CODES, size=40).tolist()], PAIRS, 512)
    pairs = [replace(tree, branches=[branch]) for branch in tree.branches]
    (loss, gradients), (loss_of_pairs, gradients_of_pairs) = (
        loss_and_gradients(model, trees) for trees in ([tree], pairs)
    )
    assert loss == pytest.approx(loss_of_pairs, rel=1e-5)
    assert relative(gradients, gradients_of_pairs) < 1e-5


def test_a_family_is_known_by_the_model_type_of_its_checkpoints(family, trained):
    base, _, _ = trained
    assert family_at(base.path("model")) is family
    assert family_of(network.load_model(base.path("model"), "none", "fp32").config) is family


def test_four_bits_and_adapters_are_in_every_linear_layer(family, trained, artifacts):
    base, _, _ = trained
    model = network.load_model(base.path("model"), "nf4", "fp32")
    layers = [m for m in model.get_decoder().modules() if isinstance(m, torch.nn.Linear)]
    assert len(layers) == SIZE.layers * 7
    assert all(isinstance(layer, bitsandbytes.nn.Linear4bit) for layer in layers)
    trained_parameters = [
        (n, p)
        for n, p in training_task_of(base, artifacts).build_model().named_parameters()
        if p.requires_grad
    ]
    assert len([n for n, _ in trained_parameters if "lora_" in n]) == SIZE.layers * 7 * 2
    (rows,) = (p for n, p in trained_parameters if "lora_" not in n)
    assert rows.shape == (CODES + 2, SIZE.hidden_size)


def test_an_answer_alone_is_the_answer_in_a_batch(family, trained, artifacts):
    answerer, rng = Answerer.load(trained[2].uri), np.random.default_rng(5)
    rows = read_questions(artifacts[1]["questions"]).to_pandas().drop_duplicates("task")
    queries = [
        about(rng.integers(CODES, size=int(n)).tolist(), task, question)
        for n, task, question in zip((3, 33, 60), rows["task"], rows["question"], strict=False)
    ]
    together = answerer.answer(queries)
    alone = [answerer.answer([query])[0] for query in queries]
    assert [a.text for a in together] == [a.text for a in alone]
    for one, other in zip(together, alone, strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)
        assert one.valid_probability == pytest.approx(other.valid_probability, rel=1e-4)


def test_generation_alone_is_generation_in_a_batch_and_stops_at_the_end_of_the_turn(family, trained):
    answerer, rng = Answerer.load(trained[2].uri), np.random.default_rng(5)
    movements = [rng.integers(CODES, size=n).tolist() for n in (3, 17, 33)]
    questions = [question for question, _ in PAIRS]
    queries = [about(tokens, None, question) for tokens, question in zip(movements, questions, strict=True)]
    together = answerer.generate(queries)
    assert together == [answerer.generate([query])[0] for query in queries]
    assert not any(token in text for text in together for token in family.tiny.special_tokens)
    assert answerer.stop == answerer.tokenizer.convert_tokens_to_ids(family.turns.answer_end)


def test_an_exported_checkpoint_is_the_model_for_plain_transformers(family, trained, artifacts):
    exported = export_model(trained[2], str(artifacts[0]))
    tokenizer = transformers.AutoTokenizer.from_pretrained(exported.uri)
    model = transformers.AutoModelForCausalLM.from_pretrained(exported.uri).float()
    assert model.config.model_type in family.model_types
    assert model.config._attn_implementation == "sdpa"
    asked = [{"role": "user", "content": "<motion_start><motion_3><motion_7><motion_end>What is it?"}]
    ids = tokenizer.apply_chat_template(
        asked, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    answerer = Answerer.load(trained[2].uri)
    with torch.inference_mode():
        logits = model(**ids).logits
        expected = answerer.model(ids["input_ids"].to(answerer.model.device)).logits.float().cpu()
    assert (logits - expected).abs().max() < 0.05 * expected.abs().max()


def test_the_local_stand_in_is_pretrained_in_each_family(family, artifacts, monkeypatch):
    root, inputs = artifacts
    motion = {"epochs": 0.5, "descriptions": 0, "pairwise_share": 0, "text_to_motion_share": 0}
    settings = BaseSettings(
        family=family.name, stand_in=SIZE, text_steps=1, compute_dtype="fp32", motion=motion
    )
    monkeypatch.setattr(pretrain, "fit", fit_here)
    base = pretrain.make_base(**inputs, settings=settings, root=str(root))
    assert family_at(base.path("model")) is family
    assert base.metrics["base"] == f"local stand-in (a small {family.label} trained here)"
    assert tiny_model.is_stand_in(base.metrics["base"])
    assert not tiny_model.is_stand_in("google/gemma-3-1b-it")


def test_an_output_layer_of_its_own_gets_and_trains_rows_for_motion(codebook):
    """Larger Llamas do not tie their output layer to the embedding."""
    tokenizer = text_tokenizer("llama")
    config = new_text_model(tokenizer, "llama").config
    config.tie_word_embeddings = False
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config)
    model.set_attn_implementation(network.register_attention())
    ids = network.extend_vocabulary(model, tokenizer, codebook, "codebook")
    head = model.get_output_embeddings().weight
    assert head is not model.get_input_embeddings().weight
    start, words = head.detach().clone(), head[: ids[0]].detach().clone()
    assert start[ids].std().item() == pytest.approx(words.std().item(), rel=0.2)
    adapted = with_adapter(model, AdapterSettings(rank=4, dropout=0), ids)
    rows = [p for n, p in adapted.named_parameters() if p.requires_grad and "lora_" not in n]
    assert [p.shape for p in rows] == [(CODES + 2, SIZE.hidden_size)] * 2
    encoder = PromptEncoder(tokenizer, FAMILIES["llama"].turns)
    batch = batch_trees([encoder.build_tree([[3] * 20], PAIRS, 512)], 0, (1, 1, 1))
    optimizer = torch.optim.AdamW(rows, lr=0.01)
    total, count = network.TreeModel(adapted)(**batch)["language"]
    (total / count).backward()
    optimizer.step()
    merged = adapted.merge_and_unload().get_output_embeddings().weight
    assert torch.equal(merged[: ids[0]], words)
    assert not torch.equal(merged[ids], start[ids])


def test_training_goes_on_from_the_weights_of_a_finished_adapter(family, codebook, tmp_path):
    """LoRA's matrices and the rows of motion tokens."""

    def new():
        tokenizer = text_tokenizer(family.name)
        torch.manual_seed(0)
        model = new_text_model(tokenizer, family.name)
        ids = network.extend_vocabulary(model, tokenizer, codebook, "codebook")
        return with_adapter(model, AdapterSettings(rank=4), ids)

    def trained(model):
        return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}

    finished, start = new(), new()
    with torch.no_grad():
        for parameter in trained(finished).values():
            parameter += 0.1 * torch.randn(parameter.shape)
    finished.save_pretrained(tmp_path, save_embedding_layers=False)
    load_weights(start, str(tmp_path))
    before, after = trained(finished), trained(start)
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert torch.equal(after[name], value), name
    other = with_adapter(
        new_text_model(text_tokenizer(family.name), family.name), AdapterSettings(rank=4), []
    )
    with pytest.raises(InputError, match="expected weights of this model's layers"):
        load_weights(other, str(tmp_path))


def test_an_unknown_family_is_refused_with_the_known_ones(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    known = r"gemma3 \(gemma3, gemma3_text\), llama \(llama\), found 'gpt2'"
    with pytest.raises(InputError, match=known):
        pretrain.check(BaseSettings(name=str(tmp_path)))
    with pytest.raises(InputError, match=r"base\.yaml.*\n.*family.*gemma3, llama.*'gpt2'"):
        validate(BaseSettings, {"family": "gpt2"}, "base.yaml")


def test_other_models_in_the_process_keep_the_attention_of_transformers():
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    tokenizer = text_tokenizer("llama")
    model = new_text_model(tokenizer, "llama")
    assert model.config._attn_implementation == network.ATTENTION == "biomechgpt"
    functions = transformers.AttentionInterface()
    assert functions["sdpa"] is sdpa_attention_forward
    assert functions["biomechgpt"] is network.attention
    stranger = transformers.LlamaForCausalLM(transformers.LlamaConfig(**model.config.to_diff_dict()))
    assert stranger.config._attn_implementation == "sdpa"


def test_motion_tokens_are_known_to_the_tokenizer_of_every_family(extended):
    ids = extended[1].convert_tokens_to_ids(motion_vocabulary(CODES))
    assert ids == list(range(ids[0], ids[0] + CODES + 2))
