"""An output layer with frozen and trained rows apart gives what PEFT's way gives, without copying the embedding."""

import copy

import numpy as np
import pytest
import torch
from peft.tuners.trainable_tokens import TrainableTokensLayer
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from biomechgpt.language import network, output_layer
from biomechgpt.language.dropout import CheapDropout
from biomechgpt.language.finetune import with_adapter
from biomechgpt.language.motion_rows import SplitTokensLayer
from biomechgpt.language.settings import AdapterSettings
from biomechgpt.language.stacked import cross_entropy, stack_of
from biomechgpt.prompts.encoding import PromptEncoder, motion_vocabulary
from biomechgpt.prompts.packing import batch_trees
from tiny_language import CODES, PAIRS, new_text_model, relative, text_tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")

SIZES = (CODES // 2, CODES - CODES // 2)


def adapted(codebook, layout, tied=True, dropout=0.0, rank=4):
    """(a model with an adapter whose weights are not those of the start, a batch of trees)."""
    tokenizer = text_tokenizer()
    model = new_text_model(tokenizer)
    if not tied:
        model.config.tie_word_embeddings = False
        rows, width = model.get_output_embeddings().weight.shape
        model.set_output_embeddings(torch.nn.Linear(width, rows, bias=False))
    stacked = SIZES if layout == "stacked" else ()
    network.extend_vocabulary(model, tokenizer, codebook, "codebook", stacked=stacked)
    ids = tokenizer.convert_tokens_to_ids(motion_vocabulary(CODES))
    # Rows after the trained ones, as Gemma's padding to a multiple of 64.
    assert ids[-1] + 1 < len(model.get_input_embeddings().weight)
    result = with_adapter(model, AdapterSettings(rank=rank, dropout=dropout), ids)
    torch.manual_seed(1)
    for parameter in result.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn_like(parameter)
    encoder, rng = PromptEncoder(tokenizer, stack=stack_of(model.config)), np.random.default_rng(0)
    steps = np.stack([rng.integers(SIZES[0], size=60), SIZES[0] + rng.integers(SIZES[1], size=60)], 1)
    trees = [
        encoder.build_tree([steps[:n].flatten().tolist()], pairs, 512)
        for n, pairs in ((30, PAIRS), (60, PAIRS[:2]))
    ]
    return result, batch_trees(trees, 0, (1.0, 0.5, 2.0))


def as_peft(model, changed=SplitTokensLayer, original=TrainableTokensLayer):
    """The same model with PEFT's own layers in place of the changed ones, by default those of trained rows."""
    plain = copy.deepcopy(model)
    layers = [layer for layer in plain.modules() if type(layer) is changed]
    assert layers
    for layer in layers:
        layer.__class__ = original
    return plain


def learn(model, batch):
    """(loss, {name: gradient})."""
    model.zero_grad()
    total, count = network.TreeModel(model)(**batch)["language"]
    (total / count).backward()
    return total.item(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("rows", [7, 10_000])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("layout", ["flat", "stacked"])
def test_loss_and_gradients_are_those_of_peft(codebook, monkeypatch, layout, tied, rows):
    model, batch = adapted(codebook, layout, tied)
    monkeypatch.setattr(network, "LOGITS", rows * model.config.vocab_size)
    monkeypatch.setattr(output_layer, "ELEMENTS_IN_CACHE", 3 * model.config.vocab_size)
    expected = learn(as_peft(model), batch)
    loss, gradients = learn(model, batch)
    assert loss == pytest.approx(expected[0], rel=1e-5)
    assert gradients.keys() == expected[1].keys()
    assert sum("trainable_tokens" in name for name in gradients) == (1 if tied else 2)
    for name, gradient in gradients.items():
        assert relative(gradient, expected[1][name]) < 1e-5, name


@pytest.mark.parametrize("layout", ["flat", "stacked"])
def test_logits_and_losses_without_gradients_are_those_of_peft(codebook, layout):
    model, batch = adapted(codebook, layout)
    plain, ids = as_peft(model), torch.arange(model.config.vocab_size)[None]
    with torch.inference_mode():
        states = torch.randn(3, model.config.hidden_size)
        heads = [one.get_base_model().get_output_embeddings() for one in (model, plain)]
        assert relative(*(head(states) for head in heads)) < 1e-6
        if layout == "flat":
            rows = [one.get_base_model().get_input_embeddings()(ids) for one in (model, plain)]
            assert torch.equal(*rows)
        losses = [network.TreeModel(one)(**batch)["language"][0] for one in (model, plain)]
    assert relative(*losses) < 1e-5


@pytest.mark.parametrize("layout", ["flat", "stacked"])
def test_sixteen_bits_round_no_more_than_they_do_in_peft(codebook, layout):
    model, batch = adapted(codebook, layout)
    exact = learn(model, batch)
    errors = []
    for way in (model, as_peft(model)):
        loss, gradients = learn(copy.deepcopy(way).to(torch.bfloat16), batch)
        assert loss == pytest.approx(exact[0], rel=0.01)
        assert {gradient.dtype for gradient in gradients.values()} == {torch.bfloat16}
        joined = [torch.cat([g[name].flatten().float() for name in exact[1]]) for g in (gradients, exact[1])]
        errors.append(relative(*joined))
    assert errors[0] < 1.2 * errors[1]


def test_with_mixed_precision_the_loss_is_that_of_peft_to_rounding(codebook):
    model, batch = adapted(codebook, "flat")
    losses = []
    for one in (model, as_peft(model)):
        with torch.autocast("cpu", torch.bfloat16):
            losses.append(learn(one, batch)[0])
    assert losses[0] == pytest.approx(losses[1], rel=0.01)


class _Sizes(TorchDispatchMode):
    """Records how many values each operation's new tensors have."""

    def __init__(self):
        super().__init__()
        self.sizes = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        held = {a.untyped_storage().data_ptr() for a in args if isinstance(a, torch.Tensor)}
        for value in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(value, torch.Tensor) and value.untyped_storage().data_ptr() not in held:
                self.sizes.add(tuple(value.shape))
        return result


def sizes_of_step(model, batch):
    with _Sizes() as recorded:
        learn(model, batch)
    return recorded.sizes


def test_a_step_makes_no_second_copy_of_the_embedding(codebook):
    model, batch = adapted(codebook, "flat")
    weight = model.get_base_model().model.embed_tokens.original_module.weight
    copies = {tuple(weight.shape), tuple(weight.T.shape)}
    assert model.get_base_model().lm_head.original_module.weight is weight
    assert copies & sizes_of_step(as_peft(model), batch)  # PEFT's way does
    assert not copies & sizes_of_step(model, batch)


def test_rows_that_do_not_follow_each_other_stay_with_peft(codebook):
    tokenizer = text_tokenizer()
    model = with_adapter(new_text_model(tokenizer), AdapterSettings(rank=2), [3, 5, 6])
    kinds = {type(layer) for layer in model.modules() if isinstance(layer, TrainableTokensLayer)}
    assert kinds == {TrainableTokensLayer}


def test_a_disabled_adapter_is_the_base(codebook):
    model, batch = adapted(codebook, "flat")
    with torch.inference_mode(), model.disable_adapter():
        base = network.TreeModel(model)(**batch)["language"][0]
    merged = network.TreeModel(copy.deepcopy(model).unload())
    with torch.inference_mode():
        assert relative(merged(**batch)["language"][0], base) < 1e-6


def test_the_gradient_is_that_of_autograd_where_probabilities_are_small():
    """Logits far apart, one of them the target's: neither overflow nor a lost gradient."""
    torch.manual_seed(0)
    logits = (torch.randn(5, 40, dtype=torch.float64) * 60).float()
    targets, weights = torch.randint(40, (5,)), torch.rand(5)
    leaf = logits.clone().requires_grad_()
    expected = (functional.cross_entropy(leaf, targets, reduction="none") * weights).sum()
    expected.backward()
    total = output_layer._loss_and_gradient(logits, targets, weights, None, True)
    assert relative(total, expected.detach()) < 1e-6
    torch.testing.assert_close(logits, leaf.grad)
    assert torch.isfinite(cross_entropy(leaf, targets, None)).all()


def test_cheap_dropout_drops_its_share_keeps_the_mean_and_follows_the_seed():
    dropout, x = CheapDropout(0.1).train(), torch.ones(301, 1001)
    torch.manual_seed(3)
    first, second = dropout(x), dropout(x)
    torch.manual_seed(3)
    assert torch.equal(dropout(x), first)
    assert not torch.equal(first, second)
    for drawn in (first, second):
        assert drawn.unique().tolist() == [0, pytest.approx(1 / 0.9)]
        dropped = (drawn == 0).double()
        assert dropped.mean() == pytest.approx(0.1, abs=0.003)
        # Each of the values that share a number is dropped alike often, and by itself.
        lanes = dropped.flatten()[: 301 * 1001 // 4 * 4].view(-1, 4)
        assert torch.allclose(lanes.mean(0), torch.tensor(0.1).double(), atol=0.005)
        assert np.abs(np.corrcoef(lanes.T.numpy()) - np.eye(4)).max() < 0.02
    assert np.abs(np.corrcoef((first == 0).flatten(), (second == 0).flatten())[0, 1]) < 0.02
    assert dropout.eval()(x) is x


def test_the_gradient_of_cheap_dropout_passes_where_values_were_kept():
    x = torch.ones(40, 7, requires_grad=True)
    result = CheapDropout(0.5).train()(x)
    result.sum().backward()
    torch.testing.assert_close(x.grad, result.detach())


def test_an_adapters_dropouts_are_the_cheap_ones(codebook):
    model, batch = adapted(codebook, "flat", dropout=0.5)
    dropouts = [m for m in model.modules() if isinstance(m, (CheapDropout, torch.nn.Dropout))]
    assert {type(m) for m in dropouts} == {CheapDropout}
    losses = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        losses.append(learn(model.train(), batch)[0])
    assert losses[0] == losses[1] != losses[2]
