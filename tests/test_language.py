"""Language: a tree's loss and gradient are those of its pairs, motion gets into the vocabulary, 4-bit adapters
train what they should, and a bundle answers alone as in a batch. Every model is a tiny random Gemma 3."""

import copy
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import bitsandbytes
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from scipy.spatial.distance import pdist
from torch.nn import functional
from transformers import Gemma3Config, Gemma3ForCausalLM, Gemma3ForConditionalGeneration

from biomechgpt import artifact, storage
from biomechgpt.dialogue.chat import (
    MOTION_END,
    Encoder,
    Mirrored,
    Person,
    batch_trees,
    motion_vocabulary,
    prefix_text,
    question_text,
)
from biomechgpt.dialogue.questions import QuestionsSettings, make_questions, read_questions
from biomechgpt.experiment.pipeline import LanguageSettings
from biomechgpt.language import finetune, stand_in
from biomechgpt.language import model as network
from biomechgpt.language.answer import Answerer
from biomechgpt.language.base import BaseSettings, check, make_base
from biomechgpt.language.calibration import TaskCalibration
from biomechgpt.language.export import export_model
from biomechgpt.language.samples import plan_batches
from biomechgpt.settings import InputError, load, override, validate
from biomechgpt.tasks import load_tasks
from biomechgpt.tokenizer import MotionTokenizer
from biomechgpt.tokenizer.model import LossSettings, MotionVQVAE, NetworkSettings

CONFIGS = Path(__file__).parents[1] / "configs"
TASKS = load_tasks(CONFIGS / "tasks")
CODES = 32
WINDOW = 16
# Six layers: in Gemma's pattern five look through the window and one sees everything.
SIZE = stand_in.StandInSettings(
    vocabulary=320, hidden_size=64, intermediate_size=64, layers=6, heads=2, key_value_heads=1, head_dim=32,
    sliding_window=WINDOW,
)  # fmt: skip
PAIRS = [
    ("What is the walking speed?", "1.25 m/s"),
    ("Which assistive device is being used?", "cane"),
    ("Is this person's movement impaired?", "unimpaired"),
]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    network.quiet()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def codebook():
    """Codes of very unlike distances: eight groups, each of its own size."""
    rng = np.random.default_rng(0)
    groups = rng.normal(size=(8, 24)) * rng.uniform(0.5, 4, size=(8, 1))
    return (np.repeat(groups, CODES // 8, axis=0) + 0.1 * rng.normal(size=(CODES, 24))).astype(np.float32)


def text_tokenizer():
    return stand_in.train_text_tokenizer([text for task in TASKS.values() for text in task.phrasings], 320)


def new_text_model(tokenizer):
    torch.manual_seed(0)
    return stand_in.new_model(tokenizer, SIZE)


def new_image_model(tokenizer):
    """The form of gemma-3-4b-it: the same language model beside a vision tower."""
    torch.manual_seed(0)
    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
              "image_size": 28, "patch_size": 14}  # fmt: skip
    config = Gemma3Config(
        text_config=stand_in.new_model(tokenizer, SIZE).config,
        vision_config=vision,
        mm_tokens_per_image=4,
        image_token_index=3,
        eos_token_id=[1, 5],
    )
    return Gemma3ForConditionalGeneration(config)


FORMS = {
    "text": (new_text_model, Gemma3ForCausalLM),
    "image": (new_image_model, Gemma3ForConditionalGeneration),
}


@pytest.fixture(scope="module")
def extended(codebook):
    """(model, tokenizer) with motion in the vocabulary."""
    tokenizer = text_tokenizer()
    model = new_text_model(tokenizer)
    assert set(model.config.layer_types) == {"sliding_attention", "full_attention"}
    network.extend_vocabulary(model, tokenizer, codebook, "codebook")
    return model.train(), tokenizer


@pytest.fixture(scope="module")
def trees(extended):
    """Of unlike lengths, movements longer than the window and one shorter."""
    encoder, rng = Encoder(extended[1]), np.random.default_rng(1)
    return [
        encoder.tree(rng.integers(CODES, size=length).tolist(), pairs, 512)
        for length, pairs in ((40, PAIRS), (5, PAIRS[:2]), (23, PAIRS[1:]))
    ]


def pairs_of(tree):
    return [type(tree)(tree.prefix, [branch]) for branch in tree.branches]


def learn(model, trees, weights=(1, 1, 1), room=0):
    """(loss's sum, its count, gradients as one vector) of one batch."""
    model.zero_grad()
    total, count = network.TreeModel(model)(**batch_trees(trees, 0, weights, room))["language"]
    (total / count).backward()
    return total.item(), count.item(), gradients(model)


def gradients(model):
    return torch.cat([p.grad.flatten().double() for p in model.parameters() if p.grad is not None])


def relative(a, b):
    a, b = torch.as_tensor(a, dtype=torch.float64), torch.as_tensor(b, dtype=torch.float64)
    return ((a - b).norm() / b.norm()).item()


def assert_same(one, other, tolerance=1e-5):
    assert one[1] == other[1]
    assert relative(one[0], other[0]) < tolerance
    assert one[2].shape == other[2].shape
    assert relative(one[2], other[2]) < tolerance


@pytest.mark.parametrize("weights", [(1, 1, 1), (0.25, 0.5, 2), (0, 0, 1)])
def test_a_tree_is_its_pairs_in_loss_and_gradient(extended, trees, weights):
    model = extended[0]
    for tree in trees:
        assert_same(learn(model, [tree], weights), learn(model, pairs_of(tree), weights))


def test_each_time_a_tree_is_read_it_is_one_of_its_views():
    lengths = [*(5, 90, 6, 7), *(9, 50, 80, 3), *(7, 60, 5, 70)]
    batches = plan_batches(lengths, 2, 40.0, seed=1, views=4)
    assert Counter(i // 4 for batch in batches for i in batch) == {0: 40, 1: 40, 2: 40}
    assert batches == plan_batches(lengths, 2, 40.0, seed=1, views=4)
    assert {i % 4 for batch in batches for i in batch if i // 4 == 2} == {0, 1, 2, 3}
    # Alike lengths together are those of the views that are read.
    assert np.mean([np.ptp([lengths[i] for i in batch]) for batch in batches]) < np.ptp(lengths) / 4


def test_a_padded_batch_of_trees_is_the_trees_alone(extended, trees):
    model = extended[0]
    alone = [learn(model, [tree]) for tree in trees]
    count = sum(n for _, n, _ in alone)
    summed = sum(gradient * n / count for _, n, gradient in alone)
    assert_same(learn(model, trees), (sum(total for total, _, _ in alone), count, summed))


@pytest.mark.parametrize("room", [1, 250, 1000])
def test_trees_that_share_a_row_learn_what_they_learn_alone(extended, trees, room):
    model, many = extended[0], trees + [pair for tree in trees for pair in pairs_of(tree)]
    rows = batch_trees(many, 0, (1, 1, 1), room)["input_ids"].shape[0]
    assert rows == len(many) if room == 1 else rows < len(many)
    assert_same(learn(model, many, room=room), learn(model, many))


def test_the_loss_of_a_pair_is_that_of_transformers_over_the_whole_sequence(extended, trees):
    model = extended[0]
    for pair in pairs_of(trees[0]):
        total, count, gradient = learn(model, [pair])
        ids = torch.from_numpy(np.concatenate([pair.prefix, *pair.branches[0]]))[None]
        model.zero_grad()
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        assert count == ids.shape[1] - 1
        assert_same((total / count, 1, gradient), (loss.item(), 1, gradients(model)))


def test_weights_can_leave_only_the_answers_in_the_loss(extended, trees):
    model, expected = extended[0], 0.0
    for pair in pairs_of(trees[0]):
        ids = torch.from_numpy(np.concatenate([pair.prefix, *pair.branches[0]]))
        answer = len(pair.branches[0][1])
        logits = model(input_ids=ids[None]).logits[0, -answer - 1 : -1]
        expected += functional.cross_entropy(logits, ids[-answer:], reduction="sum").item()
    total, count, _ = learn(model, trees[:1], (0, 0, 1))
    assert count == sum(len(answer) for _, answer in trees[0].branches)
    assert total == pytest.approx(expected, rel=1e-5)


def test_heads_that_share_a_key_get_a_copy_each_beside_a_mask(monkeypatch):
    """A GPU misreads views there; what is read alike on a CPU has to be laid out alike."""
    asked = []
    whole = functional.scaled_dot_product_attention

    def attend(query, key, value, **options):
        asked.append((options["attn_mask"] is not None and query.shape[2] > 1, key.stride(1), value.stride(1)))
        return whole(query, key, value, **options)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", attend)
    model = new_text_model(text_tokenizer()).eval()
    ids = torch.arange(2 * 65).view(2, 65)
    with torch.inference_mode():
        logits = model(input_ids=ids).logits
        assert {masked for masked, *_ in asked} == {True, False}
        assert not [strides for masked, *strides in asked if masked and 0 in strides]
        model.set_attn_implementation("eager")
        assert relative(logits, model(input_ids=ids).logits) < 1e-5


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_logits_in_chunks_give_the_loss_and_gradient_of_all_at_once(extended, trees, monkeypatch, chunk):
    whole = learn(extended[0], trees)
    monkeypatch.setattr(network, "LOGITS", chunk * extended[0].config.vocab_size)
    assert_same(learn(extended[0], trees), whole)


@pytest.mark.parametrize(("rows", "words"), [(512, 0), (320, 0), (320, 5)])
def test_extending_adds_a_row_a_token_and_takes_none_away(codebook, rows, words):
    tokenizer = text_tokenizer()
    model = new_text_model(tokenizer)
    model.resize_token_embeddings(rows, mean_resizing=False)
    while len(tokenizer) < 320:
        tokenizer.add_tokens([f"<unused{len(tokenizer)}>"], special_tokens=True)
    tokenizer.add_tokens([f"<image_soft_token{i}>" for i in range(words)], special_tokens=True)
    known, shared = len(tokenizer), min(len(tokenizer), rows)
    before = model.get_input_embeddings().weight.detach().clone()[:shared]
    ids = torch.from_numpy(Encoder(tokenizer).text(question_text(PAIRS[0][0])))[None]
    logits = model(input_ids=ids).logits[..., :shared]

    added = network.extend_vocabulary(model, tokenizer, codebook, "codebook")
    vocabulary = motion_vocabulary(CODES)
    assert added == list(range(known, known + CODES + 2))
    assert [tokenizer(token, add_special_tokens=False)["input_ids"] for token in vocabulary] == [
        [i] for i in added
    ]
    after = model.get_input_embeddings().weight
    assert len(after) == max(rows, 64 * -(-len(tokenizer) // 64))
    assert model.config.vocab_size == len(after)
    assert model.get_output_embeddings().weight is after
    assert torch.equal(after[:shared], before)
    assert torch.equal(model(input_ids=ids).logits[..., :shared], logits)


def test_motion_rows_keep_the_distances_of_their_codes_and_the_spread_of_words(codebook):
    made = {}
    for rows in ("codebook", "random"):
        tokenizer = text_tokenizer()
        model = new_text_model(tokenizer)
        weight = model.get_input_embeddings().weight
        torch.nn.init.normal_(weight, mean=0.3, std=0.05)
        words = weight[: len(tokenizer)].detach().clone()
        ids = network.extend_vocabulary(model, tokenizer, codebook, rows)
        made[rows] = model.get_input_embeddings().weight[ids].detach()
        motion = made[rows][2:]
        assert relative(motion.mean(), words.mean()) < 0.1
        assert relative((motion - motion.mean(0)).std(), (words - words.mean(0)).std()) < 0.1
    distances = pdist(codebook)
    assert np.corrcoef(distances, pdist(made["codebook"][2:].numpy()))[0, 1] > 0.9
    assert abs(np.corrcoef(distances, pdist(made["random"][2:].numpy()))[0, 1]) < 0.3


@pytest.mark.parametrize("rows", ["codebook", "random"])
def test_a_base_that_has_motion_already_is_left_as_it_is(extended, codebook, rows):
    model, tokenizer = copy.deepcopy(extended)
    before = model.get_input_embeddings().weight.detach().clone()
    network.extend_vocabulary(model, tokenizer, codebook, rows)
    assert torch.equal(model.get_input_embeddings().weight, before)


def test_batches_hold_every_sample_once_an_epoch():
    lengths = np.random.default_rng(0).integers(5, 50, size=103).tolist()
    batches = plan_batches(lengths, 8, 2.3, seed=1)
    seen = Counter(i for batch in batches for i in batch)
    assert sum(seen.values()) == round(2.3 * 103)
    assert set(seen.values()) == {2, 3}
    assert max(map(len, batches)) == 8
    assert batches == plan_batches(lengths, 8, 2.3, seed=1) != plan_batches(lengths, 8, 2.3, seed=2)
    gaps = [np.ptp([lengths[i] for i in batch]) for batch in batches]
    assert np.mean(gaps) < np.ptp(lengths) / 4


def made(kind, root, build, inputs=None):
    """An artifact with what `build` writes into its folder."""
    return artifact.make(kind, 1, {}, inputs or {}, build, str(root), data="synthetic")


@pytest.fixture(scope="module")
def room(tmp_path_factory, codebook):
    """Artifacts of 12 trials: (root, {questions, tokens, tokenizer})."""
    root, rng = tmp_path_factory.mktemp("room"), np.random.default_rng(2)
    trials = [
        {
            "trial": f"t{n:02}", "participant": f"p{n // 2}", "split": "test" if n > 9 else "train",
            "tokens": rng.integers(CODES, size=int(rng.integers(8, 40))).tolist(),
            "activity": ["sitting", "FGA: gait with vertical head turns"][n % 2],
            "impaired": ["yes", "no"][n // 2 % 2],
            "walking_speed": round(rng.uniform(0.3, 2), 2),
            "rmse_deg": 3.0,
        }
        for n in range(12)
    ]  # fmt: skip

    def write_tokens(uri):
        Path(uri, "tokens").mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(trials), f"{uri}/tokens/0.parquet")
        columns = {"activity": "text", "impaired": "text", "walking_speed": "number"}
        storage.write_json(f"{uri}/tokens.json", {"codes": CODES, "annotations": columns})
        return {}

    def write_tokenizer(uri):
        settings = NetworkSettings(quantizer={"codes": CODES}, code_dim=codebook.shape[1], width=8)
        vqvae = MotionVQVAE(settings, LossSettings())
        vqvae.quantizer.codebook.copy_(torch.from_numpy(codebook))
        MotionTokenizer(vqvae, 30.0).save(uri)
        return {}

    tokenizer = made("tokenizer", root, write_tokenizer)
    tokens = made("tokens", root, write_tokens, {"tokenizer": tokenizer})
    questions = make_questions(tokens, QuestionsSettings(tasks=str(CONFIGS / "tasks")), str(root))
    return root, {
        "questions": questions,
        "tokens": tokens,
        "tokenizer": tokenizer,
    }


@pytest.fixture(scope="module", params=FORMS)
def base(request, room, tmp_path_factory):
    """(the form's name, the base artifact of a checkpoint in that form): what `name: folder` becomes."""
    folder, tokenizer = tmp_path_factory.mktemp(request.param), text_tokenizer()
    stand_in.save(FORMS[request.param][0](tokenizer), tokenizer, folder)
    # As on the hub.
    generation = {"do_sample": True, "top_k": 64, "top_p": 0.95, "cache_implementation": "hybrid",
                  "bos_token_id": 2, "eos_token_id": [1, 5], "pad_token_id": 0}  # fmt: skip
    (folder / "generation_config.json").write_text(json.dumps(generation))
    settings = BaseSettings(name=str(folder), compute="fp32")
    check(settings)
    root, inputs = room
    return request.param, make_base(**inputs, settings=settings, root=str(root))


def settings_of(**values):
    return finetune.FinetuneSettings(
        compute="fp32", batch_size=8, epochs=2, adapter={"rank": 4, "alpha": 8, "dropout": 0}, **values
    )


def trainee_of(base, room, **values):
    inputs = {"base": base.uri, "questions": room[1]["questions"].uri, "tokens": room[1]["tokens"].uri}
    return finetune._QLoRA(**inputs, settings=settings_of(**values).model_dump())


LAST = {}


def on_device(batch):
    return {name: value.to(network.device()) for name, value in batch.items()}


def fit_here(trainee, arguments, settings, uri, name):
    """`training.fit` in this process; keeps the trained model in LAST."""
    it = trainee(**arguments)
    it.uri = uri
    torch.manual_seed(0)
    model = it.model().to(network.device()).train()
    LAST["frozen"] = {n: p.detach().clone() for n, p in model.named_parameters() if not p.requires_grad}
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=0.002, weight_decay=0
    )
    for samples in it.plan():
        total, count = model(**on_device(it.collate(samples)))["language"]
        optimizer.zero_grad()
        (total / count).backward()
        optimizer.step()
    assert torch.isfinite(total)
    LAST["model"] = model.eval()
    return it.finish(model)


@pytest.fixture(scope="module")
def bundle(base, room):
    """(the trained model, the bundle artifact)."""
    root, inputs = room
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetune, "fit", fit_here)
        model = finetune.make_model(base[1], **inputs, settings=settings_of(), root=str(root))
    return LAST["model"], model


def test_a_local_checkpoint_becomes_a_base_with_motion_in_either_form(base):
    form, made_base = base
    folder = made_base.path("model")
    tokenizer, model = network.load_tokenizer(folder), network.load_model(folder, "none", "fp32")
    assert type(model) is FORMS[form][1]
    original = FORMS[form][0](text_tokenizer())
    known = len(tokenizer) - CODES - 2
    words = model.get_input_embeddings().weight[:known]
    assert torch.equal(words, original.get_input_embeddings().weight[:known])
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    tree = Encoder(tokenizer).tree([3] * 30, PAIRS, 512)
    total, count, gradient = learn(model, [tree])
    assert np.isfinite(total / count)
    assert_same((total, count, gradient), learn(model, pairs_of(tree)))


def test_four_bits_in_every_linear_layer_of_the_language_model_but_its_head(base):
    model = network.load_model(base[1].path("model"), "nf4", "fp32")
    layers = {n: m for n, m in model.get_decoder().named_modules() if isinstance(m, torch.nn.Linear)}
    assert len(layers) == SIZE.layers * 7
    assert all(isinstance(layer, bitsandbytes.nn.Linear4bit) for layer in layers.values())
    assert {layer.weight.quant_type for layer in layers.values()} == {"nf4"}
    assert not isinstance(model.get_output_embeddings(), bitsandbytes.nn.Linear4bit)


def test_adapters_go_into_every_linear_layer_of_the_language_model(base, room):
    trainee = trainee_of(base[1], room)
    model = trainee.model()
    trained = [n for n, p in model.named_parameters() if p.requires_grad]
    adapters = [n for n in trained if "lora_" in n and ".layers." in n and "vision" not in n]
    assert len(adapters) == SIZE.layers * 7 * 2
    (rows,) = (p for n, p in model.named_parameters() if p.requires_grad and "lora_" not in n)
    assert rows.shape == (CODES + 2, SIZE.hidden_size)


@pytest.mark.parametrize("base", ["text", "image"], indirect=True, scope="module")
def test_no_adapter_goes_into_a_vision_tower(base, room):
    trainee = trainee_of(base[1], room)
    trained = [n for n, p in trainee.model().named_parameters() if p.requires_grad]
    assert not [n for n in trained if "vision" in n or "projector" in n]


def test_fresh_adapters_change_nothing_and_motion_rows_learn_as_in_the_whole_model(base, room):
    trainee = trainee_of(base[1], room, quantization="none")
    plain = network.load_model(trainee.folder, "none", "fp32").train()
    adapted = trainee.model().train()
    batch = trainee.collate(trainee.plan()[0])
    losses = []
    for model in (network.TreeModel(plain), adapted):
        total, count = model(**batch)["language"]
        (total / count).backward()
        losses.append(total.item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    ids = trainee.tokenizer.convert_tokens_to_ids(motion_vocabulary(CODES))
    (rows,) = (p.grad for n, p in adapted.named_parameters() if p.requires_grad and "lora_" not in n)
    assert relative(rows, plain.get_input_embeddings().weight.grad[ids]) < 1e-5


@pytest.mark.parametrize("quantization", ["nf4", "none"])
def test_gradient_checkpointing_recomputes_and_changes_nothing(base, room, quantization):
    results = []
    for checkpointing in (False, True):
        trainee = trainee_of(base[1], room, quantization=quantization, gradient_checkpointing=checkpointing)
        torch.manual_seed(0)
        model = trainee.model().train()
        assert model.model.get_base_model().is_gradient_checkpointing == checkpointing
        model.zero_grad()
        total, count = model.to(network.device())(**on_device(trainee.collate(trainee.plan()[0])))["language"]
        (total / count).backward()
        results.append((total.item(), count.item(), gradients(model)))
    assert_same(*results)


def test_training_leaves_everything_but_adapters_and_motion_rows_alone(bundle):
    model, _ = bundle
    now = dict(model.named_parameters())
    assert len(LAST["frozen"]) > SIZE.layers * 7
    assert all(torch.equal(now[name], before) for name, before in LAST["frozen"].items())


def prompts(answerer, movements, questions):
    texts = [prefix_text(m) + question_text(q) for m, q in zip(movements, questions, strict=True)]
    read = [answerer.tokenizer(t, add_special_tokens=False, return_tensors="pt")["input_ids"] for t in texts]
    return [ids.to(answerer.model.device) for ids in read]


def test_rare_tasks_and_short_answers_weigh_more_where_that_is_wanted():
    rows = [{"task": "activity"}] * 90 + [{"task": "tug_time"}] * 10
    worth = lambda **said: finetune._worth(rows, finetune.FinetuneSettings(**said))  # noqa: E731
    for tokens in (1, 100):
        assert worth()(rows[0], tokens) == worth()(rows[-1], tokens) == 1
    evenly = worth(balance=1)
    assert 90 * evenly(rows[0], 5) == pytest.approx(10 * evenly(rows[-1], 5))
    assert worth(balance=0.5)(rows[-1], 5) / worth(balance=0.5)(rows[0], 5) == pytest.approx(3)
    assert worth(answer_weight=32)(rows[0], 64) == 0.5
    assert worth(answer_weight=32)(rows[0], 5) == 1


def test_a_learning_curve_adds_people_to_those_before():
    rows = [{"participant": f"p{i % 7}", "n": i} for i in range(30)]
    some = [{r["participant"] for r in finetune._of_some(rows, n, 3)} for n in (1, 3, 7)]
    assert [len(people) for people in some] == [1, 3, 7]
    assert some[0] < some[1] < some[2]
    assert finetune._of_some(rows, 7, 3) == finetune._of_some(rows, None, 3) == rows
    assert finetune._of_some(rows, 3, 3) != finetune._of_some(rows, 3, 6)
    with pytest.raises(InputError, match="at most 7, found 8"):
        finetune._of_some(rows, 8, 3)


def test_a_bundle_loads_to_the_model_that_was_trained(bundle):
    trained, made_bundle = bundle
    answerer = Answerer(made_bundle.uri)
    (ids,) = prompts(answerer, [[1, 2, 3] * 9], [PAIRS[0][0]])
    with torch.inference_mode():
        expected, logits = trained.model(input_ids=ids).logits, answerer.model(input_ids=ids).logits
        with trained.model.disable_adapter():
            base_logits = trained.model(input_ids=ids).logits
    # Packed 4-bit weights are multiplied in 16 bits, unpacked ones in full.
    assert relative(logits, expected) < 0.03
    assert relative(base_logits, expected) > 0.06


def test_a_batch_is_answered_as_each_question_alone_word_for_word(bundle):
    _, made_bundle = bundle
    answerer, rng = Answerer(made_bundle.uri), np.random.default_rng(5)
    movements = [rng.integers(CODES, size=n).tolist() for n in (1, 3, 17, 33, 60, 25)]
    questions = [question for question, _ in PAIRS * 2]
    together = answerer.generate(movements, questions)
    alone = [answerer.generate([m], [q])[0] for m, q in zip(movements, questions, strict=True)]
    by_hand = []
    for ids in prompts(answerer, movements, questions):
        start = ids.shape[1]
        with torch.inference_mode():
            while ids.shape[1] - start < answerer.max_new_tokens and ids[0, -1] != answerer.stop:
                best = answerer.model(input_ids=ids, use_cache=False).logits[0, -1].argmax()
                ids = torch.cat([ids, best.view(1, 1)], dim=1)
        by_hand.append(answerer.tokenizer.decode(ids[0, start:], skip_special_tokens=True))
    assert together == alone == by_hand
    asked = zip(movements, questions, strict=True)
    assert [w.text for w in answerer.answer([(m, None, q) for m, q in asked])] == together
    assert len(set(together)) > 1


def test_a_weighed_answer_is_what_generation_says_and_has_its_probability(bundle):
    answerer = Answerer(bundle[1].uri)
    rng = np.random.default_rng(6)
    movements = [rng.integers(CODES, size=n).tolist() for n in (4, 30)]
    asked = [(task.name, task.phrasings[0]) for task in answerer.tasks.values()]
    weighed = iter(answerer.weigh([(movement, *pair) for movement in movements for pair in asked]))
    for movement in movements:
        answers = [next(weighed) for _ in asked]
        said = answerer.generate([movement] * len(asked), [question for _, question in asked])
        for (name, _), answer, text in zip(asked, answers, said, strict=True):
            task = answerer.tasks[name]
            if task.kind == "regression":
                assert answer.low <= task.parse(answer.text) <= answer.high
            else:
                assert sum(answer.probability) == pytest.approx(1)
                assert answer.probability == sorted(answer.probability, reverse=True)
                assert answer.text == task.answer(answer.choices[0])
                if text in map(task.answer, answer.choices) and answer.probability[0] > 0.5:
                    assert answer.text == text


def test_two_movements_are_compared_by_what_is_said_of_each_alone(bundle):
    answerer = Answerer(bundle[1].uri)
    answerer.tasks |= load_tasks(CONFIGS / "dialogue", ["which_impaired"])
    both = [[7] * 20, [*range(20)]]
    alone = answerer.weigh([(movement, "impaired", TASKS["impaired"].phrasings[0]) for movement in both])
    a, b = (dict(zip(one.choices, one.probability, strict=True))["yes"] for one in alone)
    first, second = answerer.weigh([(m, "which_impaired", "Who?") for m in (both, both[::-1])])
    for answer, only, other in ((first, a * (1 - b), b * (1 - a)), (second, b * (1 - a), a * (1 - b))):
        said = dict(zip(answer.choices, answer.probability, strict=True))
        assert said["A"] == pytest.approx(only / (only + other))
    assert first.familiar == min(one.familiar for one in alone)
    # Without a task that asks it of one movement, the two are read together.
    del answerer.tasks["impaired"]
    (together,) = answerer.weigh([(both, "which_impaired", "Who?")])
    assert sum(together.probability) == pytest.approx(1)
    assert together.familiar != first.familiar


def test_a_persons_answer_is_the_mean_over_their_movements(bundle):
    answerer = Answerer(bundle[1].uri)
    asked = ("impaired", TASKS["impaired"].phrasings[0])
    movements = [[7] * 20, [*range(20)], [3] * 9]
    answerer.calibration.people["impaired"] = TaskCalibration(risks=[(0.5, 0.3)])
    (about,) = answerer.answer([(Person(movements), *asked)])
    alone = answerer.answer([(movement, *asked) for movement in movements])
    for label, p in zip(about.choices, about.probability, strict=True):
        assert p == pytest.approx(np.mean([w.probability[w.choices.index(label)] for w in alone]))
    assert about.familiar == min(w.familiar for w in alone)
    assert about.risk == 0.3
    with pytest.raises(InputError, match="expected a task with answers to choose from"):
        answerer.answer([(movements[0], *asked), (Person(movements), None, "Why?")])


def test_an_answer_about_a_movement_and_its_mirror_image_is_their_mean(bundle):
    answerer = Answerer(bundle[1].uri)
    answerer.tasks |= load_tasks(CONFIGS / "dialogue", ["which_impaired"])
    asked = ("impaired", TASKS["impaired"].phrasings[0])
    both = [Mirrored([7] * 20, [3] * 20), Mirrored([*range(30)], [*range(30, 0, -1)])]
    as_recorded = answerer.weigh([(movement.tokens, *asked) for movement in both])
    assert answerer.weigh([(movement, *asked) for movement in both]) == as_recorded
    answerer.mirrored = True
    images = answerer.weigh([(movement.image, *asked) for movement in both])
    together = answerer.weigh([*((movement, *asked) for movement in both), (both[0].tokens, *asked)])
    for answer, one, other in zip(together, as_recorded, images, strict=False):
        for label, p in zip(answer.choices, answer.probability, strict=True):
            assert p == pytest.approx(np.mean([w.probability[w.choices.index(label)] for w in (one, other)]))
        assert answer.familiar == min(one.familiar, other.familiar)
    np.testing.assert_allclose(together[2].probability, as_recorded[0].probability, atol=1e-6)
    # A person's movements, two that are compared, and what is generated, which is about the movement itself.
    answerer.calibration.people["impaired"] = TaskCalibration()
    person, pair, text = answerer.answer(
        [(Person(both), *asked), (both, "which_impaired", "Who?"), (both[0], None, "Why?")]
    )
    yes = [answer.probability[answer.choices.index("yes")] for answer in together[:2]]
    assert person.probability[person.choices.index("yes")] == pytest.approx(np.mean(yes))
    a, b = yes[0] * (1 - yes[1]), yes[1] * (1 - yes[0])
    assert pair.probability[pair.choices.index("A")] == pytest.approx(a / (a + b))
    assert [text.text] == answerer.generate([both[0].tokens], ["Why?"])


def test_an_answer_over_phrasings_is_their_mean_whichever_of_them_was_asked(bundle):
    answerer = Answerer(bundle[1].uri)
    movement = [*range(20)]
    for task in answerer.tasks.values():
        first = task.phrasings[:3]
        alone = [answerer.weigh([(movement, task.name, words)])[0] for words in first]
        assert [len(one.by_phrasing) for one in alone] == [1, 1, 1]
        answerer.bundle["phrasings"] = 3
        together = [answerer.weigh([(movement, task.name, words)] * 2) for words in first]
        answerer.bundle["phrasings"] = 1
        for one, other in together:
            assert (one.text, one.by_phrasing) == (other.text, other.by_phrasing)
            assert sorted(one.by_phrasing) == sorted(each.text for each in alone)
            if task.kind == "classification":
                for label, p in zip(one.choices, one.probability, strict=True):
                    mean = np.mean([w.probability[w.choices.index(label)] for w in alone])
                    assert p == pytest.approx(mean, abs=1e-4)
            else:
                low, high = min(w.low for w in alone), max(w.high for w in alone)
                assert low <= task.parse(one.text) <= high


def test_a_mixed_batch_is_answered_in_order_and_as_each_alone(bundle):
    answerer = Answerer(bundle[1].uri)
    tasks = list(answerer.tasks.values())
    asked = [
        ([1, 2, 3], tasks[0].name, tasks[0].phrasings[0]),
        ([4] * 9, None, "Is this a walk?"),
        ([1, 2, 3], tasks[1].name, tasks[1].phrasings[1]),
        ([5, 6], tasks[0].name, tasks[0].phrasings[0]),
    ]
    together = answerer.answer(asked)
    for one, answer in zip(asked, together, strict=True):
        (alone,) = answerer.answer([one])
        assert (alone.text, alone.choices) == (answer.text, answer.choices)
        np.testing.assert_allclose(alone.probability, answer.probability, atol=1e-4)


def test_there_is_room_for_every_answer_that_was_trained(bundle, room):
    answerer = Answerer(bundle[1].uri)
    answers = set(read_questions(room[1]["questions"])["answer"])
    longest = max(len(answerer.encoder.answer(answer)) for answer in answers)
    assert longest <= answerer.max_new_tokens


def test_a_movement_longer_than_was_trained_on_loses_its_end(bundle, monkeypatch):
    answerer, asked = Answerer(bundle[1].uri), []
    limit = answerer.bundle["max_length"]
    monkeypatch.setattr(
        answerer.model, "generate", lambda **given: asked.append(given["input_ids"]) or asked[-1]
    )
    question = PAIRS[0][0]
    answerer.generate([[7] * (2 * limit)], [question])
    ids, tail = asked[0][0].tolist(), answerer.encoder.text(MOTION_END + question_text(question)).tolist()
    assert len(ids) + answerer.max_new_tokens == limit
    assert ids[-len(tail) :] == tail
    assert ids[: -len(tail)] == answerer.encoder.prefix([7] * limit)[: len(ids) - len(tail)].tolist()


def test_the_longest_movement_read_whole_is_so_whatever_is_asked(bundle):
    answerer = Answerer(bundle[1].uri)
    encoder, longest = answerer.encoder, answerer.longest_movement
    phrasings = [text for task in answerer.tasks.values() for text in task.phrasings]
    room = answerer.bundle["max_length"] - answerer.max_new_tokens
    spare = [
        room - len(encoder.prefix([0] * longest)) - len(encoder.text(question_text(q))) for q in phrasings
    ]
    assert min(spare) == 0


def test_the_longest_question_is_answered_and_a_longer_one_refused(bundle):
    answerer = Answerer(bundle[1].uri)
    spare = answerer.longest_question - len(answerer.encoder.question("?"))
    question = "?" * (spare + 1)
    assert len(answerer.encoder.question(question)) == answerer.longest_question
    assert len(answerer.generate([[7] * 50], [question])) == 1
    with pytest.raises(InputError, match="for a movement"):
        answerer.generate([[7] * 50], [question + "?"])


def test_all_weights_may_be_trained_and_the_bundle_has_no_adapter(base, room):
    root, inputs = room
    settings = finetune.FinetuneSettings(
        compute="fp32", batch_size=8, epochs=2, adapter=None, quantization="none"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetune, "fit", fit_here)
        made = finetune.make_model(base[1], **inputs, settings=settings, root=str(root))
    trained, frozen = LAST["model"], LAST["frozen"]
    assert all("vision_tower" in name or "multi_modal_projector" in name for name in frozen)
    assert not any(name.startswith("adapter/") for name in made.manifest["files"])
    answerer, own = Answerer(made.uri), trained.model.state_dict()
    start = network.load_model(base[1].path("model"), "none", "fp32").state_dict()
    for name, value in answerer.model.state_dict().items():
        assert torch.equal(value, own[name])
        assert torch.equal(value.cpu(), start[name]) == any(name in held for held in frozen)
    assert answerer.weigh([([7] * 20, "activity", "What is this?")])[0].text


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"adapter": None}, "4-bit weights cannot be trained"),
        ({"training": {"zero_stage": 3}}, "packed in blocks"),
    ],
)
def test_what_four_bits_cannot_do_is_refused_with_the_reason(wrong, said):
    with pytest.raises(InputError, match=said):
        validate(finetune.FinetuneSettings, wrong, "test")
    validate(finetune.FinetuneSettings, {**wrong, "quantization": "none"}, "test")


PLAIN = """
import sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
assert not [name for name in sys.modules if name.startswith("biomechgpt")]
assert model.dtype == torch.bfloat16 and not getattr(model, "is_quantized", False)
asked = [{"role": "user", "content": "<motion_start><motion_3><motion_7><motion_end>What is it?"}]
ids = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt", return_dict=True)
torch.save((ids["input_ids"], model.float()(**ids).logits[0]), sys.argv[2])
"""


def test_an_exported_checkpoint_is_the_bundle_for_plain_transformers(bundle, room, tmp_path):
    made = export_model(bundle[1], str(room[0]))
    assert export_model(bundle[1], str(room[0])).fingerprint == made.fingerprint
    command = [sys.executable, "-c", PLAIN, made.uri, str(tmp_path / "out.pt")]
    subprocess.run(command, check=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    ids, logits = torch.load(tmp_path / "out.pt")
    answerer = Answerer(bundle[1].uri)
    asked = [*answerer.encoder.prefix([3, 7]), *answerer.encoder.question("What is it?")]
    assert ids[0].tolist() == [int(i) for i in asked]
    with torch.inference_mode():
        expected = answerer.model(torch.tensor([asked]).to(answerer.model.device)).logits[0].float().cpu()
    assert (logits - expected).abs().max() < 0.05 * expected.abs().max()
    names = {"model.safetensors", "config.json", "tasks.json", "README.md", "motion_tokenizer/manifest.json"}
    assert names <= set(made.manifest["files"])
    card = storage.read_bytes(made.path("README.md")).decode()
    for said in (
        made.data,
        bundle[1].fingerprint,
        "walking_speed | m/s",
        "no clinical claim",
        "None were given",
    ):
        assert said in card


@pytest.mark.parametrize(
    ("name", "base", "batch", "rank", "dropout"),
    [
        ("paper_1b", "google/gemma-3-1b-it", 6, 32, 0.1),
        ("paper_1b_rank16", "google/gemma-3-1b-it", 6, 16, 0.005),
        ("paper_4b", "google/gemma-3-4b-it", 10, 32, 0.1),
    ],
)
def test_the_papers_settings_are_the_papers(name, base, batch, rank, dropout):
    made = language(CONFIGS / "language" / f"{name}.yaml")
    assert (made.base.name, made.base.rows, made.base.motion.epochs) == (base, "random", 0)
    tuned = made.finetune
    assert tuned.adapter.model_dump() == {"rank": rank, "alpha": rank, "dropout": dropout}
    assert (tuned.samples, tuned.batch_size, tuned.max_length) == ("pairs", batch, 1024)
    assert (tuned.epochs, tuned.weights, tuned.training.learning_rate) == (1.2, (1, 1, 1), 2e-4)
    assert (tuned.quantization, tuned.compute) == ("nf4", "bf16")


@pytest.mark.parametrize("name", ["paper_1b", "paper_4b"])
def test_a_named_gemma_gets_no_motion_pretraining_unless_asked(name, tmp_path):
    assert language(CONFIGS / "language" / f"{name}.yaml").base.motion.epochs == 0
    assert language(write(tmp_path, base={"name": "x", "motion": {"epochs": 2}})).base.motion.epochs == 2
    assert BaseSettings().motion.epochs > 0


@pytest.mark.parametrize("option", ["--base.name=x", "--base.seed=1", "--base.motion.questions=4"])
def test_nor_when_an_option_is_given(option):
    assert language(CONFIGS / "language" / "paper_1b.yaml", [option]).base.motion.epochs == 0


def test_a_file_means_the_same_with_an_option_beside_it(tmp_path):
    file = write(tmp_path, base={"motion": {"training": {"seed": 1}}})
    assert language(file, ["--base.seed", "0"]) == language(file)


def test_nor_when_a_variant_of_an_experiment_names_it():
    assert override(LanguageSettings(), {"base.name": "x"}, "variant").base.motion.epochs == 0


def test_a_part_that_is_given_leaves_the_rest_as_it_was():
    given = BaseSettings(motion={"training": {"seed": 1}}).motion.training
    assert given.model_copy(update={"seed": 0}) == BaseSettings().motion.training


def test_a_base_that_is_not_on_the_machine_is_refused_with_what_to_do():
    with pytest.raises(InputError, match=r"no weights of 'nobody/nothing'.*hf download nobody/nothing"):
        check(BaseSettings(name="nobody/nothing"))


def language(file, arguments=()):
    return load(LanguageSettings, file, arguments)


def write(folder, **settings):
    (folder / "settings.yaml").write_text(json.dumps(settings))
    return folder / "settings.yaml"
