"""Posture tokens: a joint's mean angle has a token, and the motion tokens describe the movement about it."""

import numpy as np
import pytest
import torch

from biomechgpt.core.settings import InputError
from biomechgpt.motion.skeleton import INDEX, N_JOINTS, TRACKED
from biomechgpt.tokenizer.layout import PostureCodes, TokenLayout
from biomechgpt.tokenizer.motion_tokenizer import MotionTokenizer
from biomechgpt.tokenizer.network import MotionVQVAE
from biomechgpt.tokenizer.settings import LossSettings, NetworkSettings

ALL = np.ones(N_JOINTS, bool)


@pytest.fixture(scope="module")
def tokenizer() -> MotionTokenizer:
    settings = NetworkSettings(
        quantizer={"codebook_size": 32}, code_dim=18, width=24, joints="all", posture_bin_deg=4
    )
    network = MotionVQVAE(settings, LossSettings(), seed=0)
    network.quantizer.codebook.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
    return MotionTokenizer(network, 30.0)


def movement(frames: int = 80, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(frames, N_JOINTS)).astype(np.float32)


def test_a_mean_angle_comes_back_within_half_a_bin():
    codes = PostureCodes(4.0, ALL, first=100)
    angles = np.radians(np.linspace(-180, 180, N_JOINTS))
    tokens = codes.encode(angles, ALL)
    assert codes.size == 92
    assert ((tokens >= 100) & (tokens < 191)).all()
    assert np.degrees(np.abs(codes.decode(tokens) - angles)).max() <= 2.0 + 1e-9


def test_a_joint_that_was_not_recorded_has_a_token_of_its_own():
    codes, mask = PostureCodes(4.0, TRACKED, first=0), ALL.copy()
    mask[INDEX["knee_angle_l"]] = False
    tokens = codes.encode(np.full(N_JOINTS, 0.5), mask)
    assert len(tokens) == TRACKED.sum()
    assert (tokens == codes.absent).sum() == 1
    assert codes.decode(tokens)[INDEX["knee_angle_l"]] == 0
    assert not codes.vectors(18)[-1].any()
    nearer, farther = (np.linalg.norm(codes.vectors(18)[45] - codes.vectors(18)[k]) for k in (46, 60))
    assert nearer < farther


def test_only_posture_tokens_tell_how_somebody_stands(tokenizer):
    still, other = movement(), movement() + np.float32(0.8)
    first, second = tokenizer.encode([still, other])
    assert len(first) == N_JOINTS + 20 == tokenizer.n_posture + 20
    np.testing.assert_array_equal(first[N_JOINTS:], second[N_JOINTS:])
    np.testing.assert_array_equal(second[:N_JOINTS] - first[:N_JOINTS] > 0, True)
    one, two = tokenizer.decode([first, second])
    # 0.8 radians are 11.5 bins of 4 degrees.
    assert np.degrees(np.abs(two - one - 0.8)).max() < 4.0
    np.testing.assert_array_equal(tokenizer.encode([other], [ALL])[0], second)


def test_the_codebook_has_a_row_for_every_token(tokenizer):
    assert tokenizer.layout == TokenLayout(N_JOINTS, 92, (32,))
    assert tokenizer.codebook.shape == (32 + 92, 18)
    spread = tokenizer.codebook.std(axis=1)
    assert spread[32:-1].mean() == pytest.approx(spread[:32].mean(), rel=0.5)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([*[40] * 34, 32], "motion token 1: expected 0 to 31, found 32"),
        ([*[40] * 33, 5, 1], "posture token 34 of 34: expected 32 to 123, found 5"),
        ([124, *[40] * 33, 1], "posture token 1 of 34: expected 32 to 123, found 124"),
        ([40] * 30, "expected 34 posture tokens, found 30 tokens"),
    ],
)
def test_a_token_in_a_wrong_place_is_an_error(tokenizer, tokens, message):
    with pytest.raises(InputError, match=message):
        tokenizer.decode([tokens])


def test_a_posture_without_its_end_is_refused_before_anything_is_decoded():
    layout = TokenLayout(3, 10, (8,))
    layout.check([8, 9, 17])
    with pytest.raises(InputError, match="expected 3 posture tokens, found 2 tokens"):
        layout.check([8, 9])


def test_whole_steps_come_after_the_posture():
    layout = TokenLayout(3, 10, (8, 8))
    assert [layout.whole(n) for n in range(9)] == [0, 0, 0, 0, 0, 5, 5, 7, 7]
    assert TokenLayout(0, 0, (8,)).whole(5) == 5
