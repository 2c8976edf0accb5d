"""The tokenizer: padding changes nothing, the codebook learns, perplexity is what it says."""

import numpy as np
import pytest
import torch

from biomechgpt.settings import InputError, validate
from biomechgpt.skeleton import N_JOINTS, TRACKED
from biomechgpt.tokenizer import MotionTokenizer, TokenizerSettings
from biomechgpt.tokenizer.model import LossSettings, MotionVQVAE, NetworkSettings, perplexity
from biomechgpt.tokenizer.quantizer import Quantizer


def small() -> MotionVQVAE:
    torch.manual_seed(0)
    network = MotionVQVAE(NetworkSettings(codes=32, code_dim=16, width=24), LossSettings())
    network.quantizer.codebook.normal_()
    return network


def test_a_sequence_gets_the_codes_and_angles_it_gets_alone():
    rng = np.random.default_rng(0)
    movements = [rng.normal(size=(n, N_JOINTS)).astype(np.float32) for n in (5, 64, 130, 1)]
    tokenizer = MotionTokenizer(small(), 30.0)
    together = tokenizer.encode(movements)
    assert [len(t) for t in together] == [2, 16, 33, 1]
    decoded = tokenizer.decode(together)
    for movement, tokens, angles in zip(movements, together, decoded, strict=True):
        np.testing.assert_array_equal(tokenizer.encode([movement])[0], tokens)
        np.testing.assert_allclose(tokenizer.decode([tokens])[0], angles, atol=1e-5)
        assert angles.shape == (4 * len(tokens), N_JOINTS)
        assert not angles[:, ~TRACKED].any()


def test_untracked_joints_do_not_reach_the_codes():
    movement = np.random.default_rng(1).normal(size=(40, N_JOINTS)).astype(np.float32)
    other = np.where(TRACKED, movement, 9.0).astype(np.float32)
    tokenizer = MotionTokenizer(small(), 30.0)
    np.testing.assert_array_equal(tokenizer.encode([movement])[0], tokenizer.encode([other])[0])


def test_codebook_finds_the_centres_of_its_data():
    torch.manual_seed(0)
    centres = torch.tensor([[5.0, 0.0], [-5.0, 0.0], [0.0, 5.0], [0.0, -5.0]])
    quantizer = Quantizer(16, 2, decay=0.9, reset_below=1.0, seed=0).train()
    for _ in range(200):
        z = centres[torch.randint(4, (8, 16))] + 0.1 * torch.randn(8, 16, 2)
        quantizer(z.transpose(1, 2), torch.ones(8, 1, 16))
    distance = torch.cdist(centres, quantizer.codebook)
    assert distance.min(dim=1).values.max() < 0.2
    assert (
        len(set(distance.argmin(dim=1).tolist())) == 4
    )  # more codes than centres: k-means alone may miss one


def test_perplexity_counts_the_codes_in_even_use():
    assert perplexity([0, 1, 2, 3], 10) == pytest.approx(4)
    assert perplexity([7, 7, 7], 10) == pytest.approx(1)


def test_settings_that_cannot_work_are_refused():
    for wrong, named in (
        ({"window": 66}, "window"),
        ({"batch_size": 5, "training": {"workers": 2}}, "batch_size"),
        ({"network": {"colour": 1}}, "network.colour"),
    ):
        with pytest.raises(InputError, match=named):
            validate(TokenizerSettings, wrong, "test")
