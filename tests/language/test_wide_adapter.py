"""Adapters that are added to the weights before tokens are multiplied give what PEFT's three products give."""

import pytest
import torch
from peft.tuners.lora.layer import Linear
from test_output_layer import adapted, as_peft, learn

from biomechgpt.language import network
from biomechgpt.language.finetune import with_adapter
from biomechgpt.language.settings import AdapterSettings
from biomechgpt.language.wide_adapter import WideLinear, is_wide
from tiny_language import new_text_model, text_tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")


def loss_of(model, batch):
    with torch.no_grad():
        return network.TreeModel(model)(**batch)["language"][0].item()


def test_loss_gradients_and_merged_weights_are_those_of_peft(codebook):
    model, batch = adapted(codebook, "flat", rank=64)
    plain = as_peft(model, WideLinear, Linear)
    (loss, gradients), (expected, of_peft) = learn(model, batch), learn(plain, batch)
    assert loss == pytest.approx(expected, rel=1e-5)
    assert gradients.keys() == of_peft.keys()
    assert any("lora_A" in name for name in gradients)
    for name, gradient in of_peft.items():
        torch.testing.assert_close(
            gradients[name], gradient, rtol=1e-4, atol=1e-5 * float(gradient.abs().max())
        )
    with model.disable_adapter(), plain.disable_adapter():
        assert loss_of(model, batch) == loss_of(plain, batch) != pytest.approx(loss, rel=1e-3)
    assert loss_of(model.merge_and_unload(), batch) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("rank", "dropout"), [(64, 0.1), (1, 0.0)])
def test_narrow_adapters_and_those_with_dropout_are_computed_as_peft_does(codebook, rank, dropout):
    model, batch = adapted(codebook, "flat", dropout=dropout, rank=rank)
    if rank == 1:
        assert not any(type(layer) is WideLinear for layer in model.modules())
        return
    plain = as_peft(model, WideLinear, Linear)
    losses = []
    for one in (model, plain):
        torch.manual_seed(3)
        losses.append(learn(one.train(), batch)[0])
    assert losses[0] == losses[1]


def test_mixed_precision_is_computed_as_peft_does(codebook):
    """The sum in 16 bits would round a small adapter away."""
    model, batch = adapted(codebook, "flat", rank=64)
    with torch.autocast("cpu", torch.bfloat16):
        assert loss_of(model, batch) == loss_of(as_peft(model, WideLinear, Linear), batch)


def test_the_sum_is_taken_where_it_needs_fewer_multiplications():
    assert is_wide(256, 896, 128)  # the stand-in's
    assert not is_wide(640, 2048, 16)  # Gemma 3 270M with the paper's rank


def test_trained_rows_and_names_stay_those_of_peft():
    model = with_adapter(new_text_model(text_tokenizer()), AdapterSettings(rank=64), [])
    names = {name for name, p in model.named_parameters() if p.requires_grad}
    assert names
    assert all(".lora_A." in name or ".lora_B." in name for name in names)
