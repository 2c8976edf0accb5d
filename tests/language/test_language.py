"""Language: a tree's loss and gradient are those of its pairs, motion gets into the vocabulary, 4-bit adapters
train what they should, and plain transformers takes the result. Every model is a tiny random Gemma 3."""

import copy
import os
import subprocess
import sys
import warnings
from collections import Counter

import bitsandbytes
import numpy as np
import pytest
import torch
import transformers
from scipy.spatial.distance import pdist
from torch.nn import functional

from biomechgpt.answering.answerer import Answerer
from biomechgpt.core import storage
from biomechgpt.core.settings import InputError
from biomechgpt.experiment.checkpoint import export_model
from biomechgpt.language import finetune, network
from biomechgpt.language.batches import plan_batches, read_trees
from biomechgpt.language.settings import FinetuneSettings, SampleSettings
from biomechgpt.prompts.encoding import PromptEncoder, motion_vocabulary
from biomechgpt.prompts.packing import batch_trees
from prompt_text import question_text
from tiny_language import (
    CODES,
    FORMS,
    LAST,
    PAIRS,
    SIZE,
    TASKS,
    about,
    answerer_of,
    model_of,
    new_text_model,
    on_device,
    relative,
    settings_of,
    text_tokenizer,
    training_task_of,
)

pytestmark = pytest.mark.usefixtures("one_thread")


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
    encoder, rng = PromptEncoder(extended[1]), np.random.default_rng(1)
    return [
        encoder.build_tree([rng.integers(CODES, size=length).tolist()], pairs, 512)
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
        asked.append(
            (options["attn_mask"] is not None and query.shape[2] > 1, key.stride(1), value.stride(1))
        )
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
    ids = torch.from_numpy(PromptEncoder(tokenizer).text(question_text(PAIRS[0][0])))[None]
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
    tree = PromptEncoder(tokenizer).build_tree([[3] * 30], PAIRS, 512)
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


@pytest.mark.parametrize("base", ["text"], indirect=True, scope="module")
def test_a_model_loads_without_messages_and_leaves_the_filters_of_its_program(bundle, capfd):
    logs = transformers.utils.logging
    verbosity, showed_progress = logs.get_verbosity(), logs.is_progress_bar_enabled()
    try:
        logs.enable_progress_bar()
        logs.set_verbosity_warning()
        filters = list(warnings.filters)
        capfd.readouterr()
        answerer_of(bundle[1])
        assert capfd.readouterr() == ("", "")
        assert (logs.get_verbosity(), logs.is_progress_bar_enabled()) == (logs.WARNING, True)
        assert warnings.filters == filters
    finally:
        logs.set_verbosity(verbosity)
        if not showed_progress:
            logs.disable_progress_bar()


def test_adapters_go_into_every_linear_layer_of_the_language_model(base, artifacts):
    training_task = training_task_of(base[1], artifacts)
    model = training_task.build_model()
    trained = [n for n, p in model.named_parameters() if p.requires_grad]
    adapters = [n for n in trained if "lora_" in n and ".layers." in n and "vision" not in n]
    assert len(adapters) == SIZE.layers * 7 * 2
    (rows,) = (p for n, p in model.named_parameters() if p.requires_grad and "lora_" not in n)
    assert rows.shape == (CODES + 2, SIZE.hidden_size)


@pytest.mark.parametrize("base", ["text", "image"], indirect=True, scope="module")
def test_no_adapter_goes_into_a_vision_tower(base, artifacts):
    training_task = training_task_of(base[1], artifacts)
    trained = [n for n, p in training_task.build_model().named_parameters() if p.requires_grad]
    assert not [n for n in trained if "vision" in n or "projector" in n]


def test_fresh_adapters_change_nothing_and_motion_rows_learn_as_in_the_whole_model(base, artifacts):
    training_task = training_task_of(base[1], artifacts, quantization="none")
    plain = network.load_model(training_task.folder, "none", "fp32").train()
    adapted = training_task.build_model().train()
    batch = training_task.collate(training_task.batches()[0])
    losses = []
    for model in (network.TreeModel(plain), adapted):
        total, count = model(**batch)["language"]
        (total / count).backward()
        losses.append(total.item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    ids = training_task.tokenizer.convert_tokens_to_ids(motion_vocabulary(CODES))
    (rows,) = (p.grad for n, p in adapted.named_parameters() if p.requires_grad and "lora_" not in n)
    assert relative(rows, plain.get_input_embeddings().weight.grad[ids]) < 1e-5


@pytest.mark.parametrize("quantization", ["nf4", "none"])
def test_gradient_checkpointing_recomputes_and_changes_nothing(base, artifacts, quantization):
    results = []
    for checkpointing in (False, True):
        training_task = training_task_of(
            base[1], artifacts, quantization=quantization, gradient_checkpointing=checkpointing
        )
        torch.manual_seed(0)
        model = training_task.build_model().train()
        assert model.model.get_base_model().is_gradient_checkpointing == checkpointing
        model.zero_grad()
        total, count = model.to(network.device())(
            **on_device(training_task.collate(training_task.batches()[0]))
        )["language"]
        (total / count).backward()
        results.append((total.item(), count.item(), gradients(model)))
    assert_same(*results)


def test_training_leaves_everything_but_adapters_and_motion_rows_alone(bundle):
    model, _ = bundle
    now = dict(model.named_parameters())
    assert len(LAST["frozen"]) > SIZE.layers * 7
    assert all(torch.equal(now[name], before) for name, before in LAST["frozen"].items())


def test_rare_tasks_and_short_answers_weigh_more_where_that_is_wanted():
    rows = [{"task": "activity"}] * 90 + [{"task": "tug_time"}] * 10
    worth = lambda **said: finetune._loss_weight(rows, FinetuneSettings(**said))  # noqa: E731
    for tokens in (1, 100):
        assert worth()(rows[0], tokens) == worth()(rows[-1], tokens) == 1
    evenly = worth(task_reweighting=1)
    assert 90 * evenly(rows[0], 5) == pytest.approx(10 * evenly(rows[-1], 5))
    assert worth(task_reweighting=0.5)(rows[-1], 5) / worth(task_reweighting=0.5)(
        rows[0], 5
    ) == pytest.approx(3)
    assert worth(max_answer_weight=32)(rows[0], 64) == 0.5
    assert worth(max_answer_weight=32)(rows[0], 5) == 1


def test_a_learning_curve_adds_people_to_those_before():
    rows = [{"participant": f"p{i % 7}", "n": i} for i in range(30)]
    some = [{r["participant"] for r in finetune._of_participants(rows, n, 3)} for n in (1, 3, 7)]
    assert [len(people) for people in some] == [1, 3, 7]
    assert some[0] < some[1] < some[2]
    assert finetune._of_participants(rows, 7, 3) == finetune._of_participants(rows, None, 3) == rows
    assert finetune._of_participants(rows, 3, 3) != finetune._of_participants(rows, 3, 6)
    with pytest.raises(InputError, match="at most 7, found 8"):
        finetune._of_participants(rows, 8, 3)


def test_all_weights_may_be_trained_and_the_bundle_has_no_adapter(base, artifacts):
    settings = FinetuneSettings(
        compute_dtype="fp32", batch_size=8, epochs=2, adapter=None, quantization="none"
    )
    made = model_of(base[1], artifacts, settings)
    trained, frozen = LAST["model"], LAST["frozen"]
    assert all("vision_tower" in name or "multi_modal_projector" in name for name in frozen)
    assert not any(name.startswith("adapter/") for name in made.manifest["files"])
    answerer, own = Answerer.load(made.uri), trained.model.state_dict()
    start = network.load_model(base[1].path("model"), "none", "fp32").state_dict()
    for name, value in answerer.model.state_dict().items():
        assert torch.equal(value, own[name])
        assert torch.equal(value.cpu(), start[name]) == any(name in held for held in frozen)
    assert answerer.score_candidates([about([7] * 20, "activity", "What is this?")])[0].text


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


def test_an_exported_checkpoint_is_the_bundle_for_plain_transformers(bundle, artifacts, tmp_path):
    made = export_model(bundle[1], str(artifacts[0]))
    assert export_model(bundle[1], str(artifacts[0])).fingerprint == made.fingerprint
    command = [sys.executable, "-c", PLAIN, made.uri, str(tmp_path / "out.pt")]
    subprocess.run(command, check=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    ids, logits = torch.load(tmp_path / "out.pt")
    answerer = Answerer.load(bundle[1].uri)
    asked = [*answerer.encoder.prefix([[3, 7]]), *answerer.encoder.question("What is it?")]
    assert ids[0].tolist() == [int(i) for i in asked]
    with torch.inference_mode():
        expected = answerer.model(torch.tensor([asked]).to(answerer.model.device)).logits[0].float().cpu()
    assert (logits - expected).abs().max() < 0.05 * expected.abs().max()
    names = {"model.safetensors", "config.json", "tasks.json", "README.md", "motion_tokenizer/manifest.json"}
    assert names <= set(made.manifest["files"])
    card = storage.read_bytes(made.path("README.md")).decode()
    for said in (
        made.provenance,
        bundle[1].fingerprint,
        "walking_speed | m/s",
        "no clinical claim",
        "No evaluation was given",
    ):
        assert said in card


@pytest.mark.parametrize("field", ["packing", "gradient_checkpointing"])
def test_a_setting_that_moves_no_fingerprint_reaches_the_training(base, artifacts, field, monkeypatch):
    received = []

    def stop(training_task, arguments, *rest):
        received.append(FinetuneSettings.model_validate(arguments["settings"]))
        raise InterruptedError

    monkeypatch.setattr(finetune, "fit", stop)
    inputs = {name: artifacts[1][name] for name in ("questions", "tokens")}
    for value in (True, False):
        # Other epochs than elsewhere, so that nothing is there to be reused.
        settings = settings_of(**{field: value}).model_copy(update={"epochs": 0.125})
        with pytest.raises(InterruptedError):
            finetune.make_adapter(base[1], **inputs, settings=settings, root=str(artifacts[0]))
    assert [getattr(settings, field) for settings in received] == [True, False]


def test_numbers_of_training_answers_have_noise_and_each_view_its_own(extended):
    rng = np.random.default_rng(0)
    speeds = rng.normal(1.0, 0.3, 400).clip(0.3, 1.8)
    rows = [
        {"trial": f"t{i}", "other": None, "task": "walking_speed", "question": "How fast?", "value": float(v),
         "answer": TASKS["walking_speed"].answer(v)}
        for i, v in enumerate(speeds)
    ]  # fmt: skip
    rows.append(rows[0] | {"task": "impaired", "question": "Impaired?", "value": None, "answer": "yes"})
    assert finetune._noisy_numbers(rows, TASKS, 0.0, 0) is None
    draw = finetune._noisy_numbers(rows, TASKS, 0.2, 0)
    drawn = [TASKS["walking_speed"].parse(draw(row)) for row in rows[:-1]]
    noise = np.array(drawn) - speeds
    assert np.std(noise) == pytest.approx(0.2 * np.std(speeds), rel=0.15)
    assert abs(np.mean(noise)) < 0.02
    assert draw(rows[-1]) is None
    # Never beyond what the task takes as plausible.
    slow = [row | {"value": TASKS["walking_speed"].plausible[0]} for row in rows[:50]]
    low = TASKS["walking_speed"].plausible[0]
    assert min(TASKS["walking_speed"].parse(draw(row)) for row in slow) >= low

    encoder = PromptEncoder(extended[1])
    views = {row["trial"]: [[1, 2, 3] * 5] * 4 for row in rows}
    trees = read_trees(encoder, views, rows[:20], SampleSettings(max_length=512), draw_answer=draw)
    answers = [{view.branches[0].answer.tobytes() for view in of_tree} for of_tree in trees]
    assert np.mean([len(different) for different in answers]) > 3
