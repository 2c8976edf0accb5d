"""The tokenizer: padding, windows, workers and processes change nothing, and missing joints stay out."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from torch import multiprocessing

from biomechgpt.cohort import CohortInfo
from biomechgpt.core import artifact, storage
from biomechgpt.core.settings import InputError, validate
from biomechgpt.motion.skeleton import N_JOINTS, PARTS, TRACKED
from biomechgpt.motion.trial import Trial, table
from biomechgpt.tokenizer.motion_tokenizer import MotionTokenizer, require_same_tokenizer
from biomechgpt.tokenizer.network import LossSettings, MotionVQVAE, NetworkSettings, perplexity
from biomechgpt.tokenizer.quantizers import QUANTIZERS, EMAQuantizer, build_quantizer
from biomechgpt.tokenizer.reconstruction import held_out
from biomechgpt.tokenizer.settings import EMASettings, ResidualVQSettings, TokenizerSettings
from biomechgpt.tokenizer.train import make_tokenizer
from biomechgpt.tokenizer.training_task import TokenizerTask

QUANTIZER = {kind: {"kind": kind, "codebook_size": 32} for kind in QUANTIZERS} | {
    "residual": {"kind": "residual", "codebook_size": 32, "num_quantizers": 3},
    "fsq": {"kind": "fsq", "levels": (5, 4, 3)},
}


def small(kind: str = "ema", **values: object) -> MotionVQVAE:
    torch.manual_seed(0)
    sizes = {"code_dim": 18, "width": 24, **values}
    network = MotionVQVAE(NetworkSettings(quantizer=QUANTIZER[kind], **sizes), LossSettings())
    for module in network.modules():
        if isinstance(module, EMAQuantizer):
            module.codebook.normal_(std=0.1)
    return network


def movements_of(lengths, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(n, N_JOINTS)).astype(np.float32) for n in lengths]


@pytest.mark.parametrize("kind", QUANTIZERS)
def test_a_sequence_gets_the_codes_and_angles_it_gets_alone(kind):
    movements = movements_of((5, 64, 130, 1, 0))
    tokenizer = MotionTokenizer(small(kind), 30.0)
    together = tokenizer.encode(movements)
    assert [len(t) / tokenizer.tokens_per_step for t in together] == [2, 16, 33, 1, 0]
    decoded = tokenizer.decode(together)
    for movement, tokens, angles in zip(movements, together, decoded, strict=True):
        np.testing.assert_array_equal(tokenizer.encode([movement])[0], tokens)
        np.testing.assert_allclose(tokenizer.decode([tokens])[0], angles, atol=1e-5)
        assert angles.shape == (4 * len(tokens) / tokenizer.tokens_per_step, N_JOINTS)
        assert not angles[:, ~TRACKED].any()


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    st.sampled_from(list(QUANTIZERS)),
    st.lists(st.integers(1, 700), min_size=1, max_size=3),
    st.integers(1, 240),
    st.sampled_from([(1, 3, 2), (2, 2, 3), (3, 1, 3), (0, 1, 1)]),
)
def test_windows_give_the_tokens_and_angles_of_the_whole(kind, lengths, window, shape):
    stages, depth, growth = shape
    network = small(kind, downsampling_stages=stages, depth=depth, dilation_growth=growth)
    movements = movements_of(lengths)
    whole, parts = MotionTokenizer(network, 30.0, window=10**6), MotionTokenizer(network, 30.0, window=window)
    tokens = whole.encode(movements)
    for one, other in zip(tokens, parts.encode(movements), strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(whole.decode(tokens), parts.decode(tokens), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_what_the_network_sees_at_once_is_bounded_by_the_window():
    network = small(downsampling_stages=2, depth=1)
    seen, encode = [], network.encode
    network.encode = lambda angles, *rest: seen.append(angles.shape) or encode(angles, *rest)
    tokenizer = MotionTokenizer(network, 30.0, window=256)
    (tokens,) = tokenizer.encode(movements_of([20_000]), batch_size=4)
    assert len(tokens) == 5000
    assert max(shape[0] for shape in seen) == 4
    assert max(shape[1] for shape in seen) == (64 + 2 * network.settings.context) * 4 < 400


@pytest.mark.parametrize("kind", QUANTIZERS)
def test_a_step_stands_for_the_sum_of_its_tokens_rows(kind):
    network = small(kind).eval()
    tokenizer = MotionTokenizer(network, 30.0)
    sizes = network.quantizer.sizes
    assert tokenizer.codebook.shape == (sum(sizes), 18)
    (tokens,) = tokenizer.encode(movements_of([80]))
    levels = tokens.reshape(-1, len(sizes))
    first = np.cumsum([0, *sizes])
    assert ((levels >= first[:-1]) & (levels < first[1:])).all()
    x = torch.from_numpy(movements_of([80])[0])[None] * network.seen
    with torch.no_grad():
        quantized, _, (_, count) = network.quantizer(
            *network.encoder(x.transpose(1, 2), torch.ones(1, 1, 80))
        )
    rows = tokenizer.codebook[levels].sum(1)
    np.testing.assert_allclose(rows, quantized[0].T, atol=1e-5)
    assert count == 20 * 18


def test_joints_that_are_not_seen_or_not_recorded_do_not_reach_the_tokens():
    (movement,) = movements_of([40], seed=1)
    legs = np.isin(np.arange(N_JOINTS), PARTS["legs"])
    for joints, mask, kept in (
        ("tracked", np.ones(N_JOINTS, bool), TRACKED),
        ("tracked", legs, TRACKED & legs),
        ("all", legs, legs),
    ):
        other = np.where(kept, movement, 9.0).astype(np.float32)
        network = small(joints=joints)
        network.mean.fill_(0.3)
        tokenizer = MotionTokenizer(network, 30.0)
        np.testing.assert_array_equal(*tokenizer.encode([movement, other], [mask, mask]))
    changed = np.where(TRACKED, movement, 9.0).astype(np.float32)
    tokens, others = MotionTokenizer(small(joints="all"), 30.0).encode([movement, changed])
    assert (tokens != others).any()


def test_in_groups_the_legs_tokens_are_those_of_a_recording_of_the_legs_alone():
    tokenizer = MotionTokenizer(small("body_parts"), 30.0)
    (movement,) = movements_of([200])
    legs = np.isin(np.arange(N_JOINTS), PARTS["legs"])
    whole, alone = tokenizer.encode([movement, movement], [np.ones(N_JOINTS, bool), legs])
    np.testing.assert_array_equal(whole[::3], alone[::3])
    assert (whole[1::3] != alone[1::3]).any()


def test_missing_joints_count_neither_in_the_loss_nor_in_the_codes():
    joints, frames = torch.ones(2, N_JOINTS), torch.ones(2, 64)
    joints[:, PARTS["arms"]] = 0
    angles = torch.from_numpy(np.stack(movements_of([64, 64])))
    changed = angles.clone()
    changed[..., PARTS["arms"]] = 7.0
    one, other = (small().train()(x, joints, frames) for x in (angles, changed))
    assert one == other
    assert one["reconstruction"][1] == 2 * 64 * (12 + 6)


def cohort_of(root, movements, masks, split: str):
    """A cohort artifact of trials that are all of one split, half of them walks."""

    def build(uri):
        trials = [
            Trial(str(n), f"p{n}", movement, np.zeros((len(movement), 7)), 30.0, split=split, joint_mask=mask,
                  annotations={"activity": ["walking", "sitting"][n % 2]})
            for n, (movement, mask) in enumerate(zip(movements, masks, strict=True))
        ]  # fmt: skip
        Path(uri, "trials").mkdir(parents=True)
        parquet.write_table(table(trials, {"activity": "text"}), f"{uri}/trials/part-0.parquet")
        info = CohortInfo(
            annotations={"activity": "text"},
            frame_rate_hz=30.0,
            participants={split: len(trials)},
            trials=len(trials),
            hours=sum(t.duration_s for t in trials) / 3600,
            quarantined=[],
        )
        storage.write_json(f"{uri}/cohort.json", info.model_dump(mode="json"))
        return {}

    return artifact.make("cohort", 1, {}, {}, build, str(root), provenance="synthetic")


def test_what_is_not_recorded_counts_nowhere_and_what_is_zeroed_counts_whole(tmp_path):
    movements, legs = movements_of([90, 50]), np.isin(np.arange(N_JOINTS), PARTS["legs"])
    masks = [np.ones(N_JOINTS, bool), legs]
    filled = [movements[0], np.where(legs, movements[1], 9.0).astype(np.float32)]
    one, other = (
        held_out(MotionTokenizer(small(), 30.0), cohort_of(tmp_path / str(n), found, masks, "test"))
        for n, found in enumerate((movements, filled))
    )
    assert one == other
    assert set(one["rmse_deg_by_activity"]) == {"walking", "sitting"}
    toes = np.concatenate(movements)[:, (~TRACKED) & legs]
    wrists = movements[0][:, (~TRACKED) & ~legs]
    lost = sum(np.degrees(np.sqrt((x**2).mean(0))).sum() for x in (toes, wrists))
    assert 34 * one["rmse_deg_all"] == pytest.approx(26 * one["rmse_deg_tracked"] + lost, abs=0.05)


def test_a_share_of_windows_is_seen_without_some_joints_and_the_legs_stay(tmp_path):
    cohort = cohort_of(tmp_path, movements_of([90, 40]), [np.ones(N_JOINTS, bool)] * 2, "train")
    sizes = {"window": 64, "batch_size": 50, "steps": 20}
    plain, hiding = (TokenizerTask(cohort.uri, {**sizes, "joint_dropout": share}) for share in (0, 0.4))
    whole, some = (it.collate([s for step in it.batches() for s in step]) for it in (plain, hiding))
    assert torch.equal(whole["angles"], some["angles"])  # the same windows
    assert whole["joints"].all()
    hidden = (1 - some["joints"]).sum(1)
    assert 0.3 < (hidden > 0).float().mean() < 0.5
    assert not (1 - some["joints"])[hidden > 1][:, PARTS["legs"]].any()
    assert set(hidden.int().tolist()) == {0, 1, 6, 7, 14, 20}


def test_ranges_of_joints_change_about_their_means_by_the_stated_amount(tmp_path):
    cohort = cohort_of(tmp_path, movements_of([400, 300]), [np.ones(N_JOINTS, bool)] * 2, "train")
    sizes = {"window": 64, "batch_size": 50, "steps": 20}
    plain, changing = (TokenizerTask(cohort.uri, {**sizes, "range_change": sd}) for sd in (0, 0.3))
    samples = [s for step in plain.batches() for s in step]
    assert changing.batches() == plain.batches()
    before, after = (task.collate(samples)["angles"] for task in (plain, changing))
    torch.testing.assert_close(after.mean(1), before.mean(1), atol=1e-5, rtol=0)
    factors = after.std(1) / before.std(1)  # a number for each window and joint
    assert factors.log().std() == pytest.approx(0.3, abs=0.01)
    assert factors.log().mean() == pytest.approx(0, abs=0.01)
    torch.testing.assert_close(
        after - after.mean(1, True), (before - before.mean(1, True)) * factors[:, None]
    )
    assert torch.equal(changing.collate(samples[7:9])["angles"], after[7:9])  # it depends on nothing else


def test_codebook_finds_the_centres_of_its_data():
    torch.manual_seed(0)
    centres = torch.tensor([[5.0, 0.0], [-5.0, 0.0], [0.0, 5.0], [0.0, -5.0]])
    quantizer = EMAQuantizer(EMASettings(codebook_size=16, decay=0.9), 2, seed=0).train()
    for _ in range(200):
        z = centres[torch.randint(4, (8, 16))] + 0.1 * torch.randn(8, 16, 2)
        quantizer(z.transpose(1, 2), torch.ones(8, 1, 16))
    distance = torch.cdist(centres, quantizer.codebook)
    assert distance.min(dim=1).values.max() < 0.2
    assert (
        len(set(distance.argmin(dim=1).tolist())) == 4
    )  # more codes than centres: k-means alone may miss one


def test_each_level_leaves_less_than_the_one_before():
    torch.manual_seed(0)
    left = []
    for number in (2, 3, 4):
        settings = ResidualVQSettings(codebook_size=16, num_quantizers=number, decay=0.9)
        quantizer = build_quantizer(settings, 6, 0).train()
        for _ in range(60):
            z = torch.randn(8, 6, 16)
            quantized, _, _ = quantizer(z, torch.ones(8, 1, 16))
        left.append(float((z - quantized).square().mean()))
    assert left[0] < 0.5
    assert left == sorted(left, reverse=True)


def learn(rank: int, world: int, folder: str) -> None:
    """Train every quantizer on a worker's share of five samples, some steps of which are padding."""
    torch.set_num_threads(1)
    if world > 1:
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world
        )
    state = {}
    for kind in QUANTIZERS:
        generator = torch.Generator().manual_seed(0)
        torch.manual_seed(rank)
        decay = {} if kind == "fsq" else {"decay": 0.7}
        chosen = NetworkSettings(quantizer=QUANTIZER[kind] | decay).quantizer
        quantizer = build_quantizer(chosen, 18, 0).train()
        for _ in range(12):
            z = torch.randn(5, 18, 20, generator=generator)
            mask = (torch.rand(5, 1, 20, generator=generator) < 0.7).float()
            quantizer(z[rank::world], mask[rank::world])
        state |= {
            f"{kind}.{name}": value for name, value in quantizer.state_dict().items() if "grid" not in name
        }
    torch.save(state, f"{folder}/{world}-{rank}")


@pytest.mark.slow
def test_codebooks_and_resets_are_those_of_one_worker_though_shares_are_uneven(tmp_path):
    learn(0, 1, str(tmp_path))
    multiprocessing.spawn(learn, (2, str(tmp_path)), nprocs=2)
    one, two, second = (torch.load(tmp_path / name) for name in ("1-0", "2-0", "2-1"))
    assert len(one) == 4 * (1 + 3 + 3)
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-5, msg=name)
        assert torch.equal(two[name], second[name]), name


LOAD = """
import sys
import numpy as np
from biomechgpt.tokenizer.motion_tokenizer import MotionTokenizer

folder, *uris = sys.argv[1:]
for uri in uris:
    tokenizer = MotionTokenizer.load(uri)
    (tokens,) = tokenizer.encode([np.load(f"{folder}/movement.npy")])
    np.savez(f"{folder}/{tokenizer.fingerprint}.npz", tokens=tokens, angles=tokenizer.decode([tokens])[0])
"""


def test_another_process_loads_the_same_tokenizer(tmp_path):
    (movement,) = movements_of([300])
    np.save(tmp_path / "movement.npy", movement)
    made = {}
    for kind in QUANTIZERS:
        tokenizer = MotionTokenizer(small(kind), 30.0)

        def build(uri, tokenizer=tokenizer):
            tokenizer.save(uri)
            return {}

        one = artifact.make("tokenizer", 1, {"kind": kind}, {}, build, str(tmp_path))
        made[one.uri] = (one.fingerprint, tokenizer)
    subprocess.run([sys.executable, "-c", LOAD, tmp_path, *made], check=True)
    for fingerprint, tokenizer in made.values():
        there = np.load(tmp_path / f"{fingerprint}.npz")
        (tokens,) = tokenizer.encode([movement])
        np.testing.assert_array_equal(there["tokens"], tokens)
        np.testing.assert_allclose(there["angles"], tokenizer.decode([tokens])[0], atol=1e-6)


def test_tokens_and_models_of_two_tokenizers_are_an_error_that_names_both(tmp_path):
    one, two = (artifact.make("tokenizer", n, {}, {}, lambda uri: {}, str(tmp_path)) for n in (1, 2))
    tokens = artifact.make("tokens", 1, {}, {"tokenizer": one}, lambda uri: {}, str(tmp_path))
    require_same_tokenizer(tokens, one)
    with pytest.raises(InputError, match=f"{one.fingerprint}[^$]*{two.fingerprint}"):
        require_same_tokenizer(tokens, two)


def test_tokens_that_are_none_are_refused():
    tokenizer = MotionTokenizer(small("residual"), 30.0)
    for tokens, found in (([0, 32, 96], "found 96"), ([-1, 32, 64], "found -1"), ([0, 32], "multiple of 3")):
        with pytest.raises(InputError, match=found):
            tokenizer.decode([np.array(tokens)])


def test_bits_a_second_are_those_of_the_indices():
    assert MotionTokenizer(small(), 30.0).bits_per_s == pytest.approx(7.5 * 5)
    assert MotionTokenizer(small("residual", downsampling_stages=3), 30.0).bits_per_s == pytest.approx(
        3.75 * 3 * 5
    )
    assert MotionTokenizer(small("fsq"), 30.0).bits_per_s == pytest.approx(7.5 * np.log2(60))


def test_perplexity_counts_the_codes_in_even_use():
    assert perplexity([0, 1, 2, 3], 10) == pytest.approx(4)
    assert perplexity([7, 7, 7], 10) == pytest.approx(1)


def test_settings_that_cannot_work_are_refused():
    for wrong, named in (
        ({"window": 66}, "window"),
        ({"batch_size": 1, "training": {"workers": 2}}, "batch_size"),
        ({"network": {"colour": 1}}, "network.colour"),
        ({"network": {"quantizer": {"kind": "best"}}}, "'ema', 'residual', 'body_parts', 'fsq'"),
        ({"network": {"quantizer": {"kind": "fsq", "levels": [8, 2]}}}, "numbers of at least 3"),
    ):
        with pytest.raises(InputError, match=named):
            validate(TokenizerSettings, wrong, "test")


def test_a_batch_without_padding_needs_no_mask():
    joints = torch.ones(2, N_JOINTS)
    angles = torch.from_numpy(np.stack(movements_of([64, 64])))
    masked, unmasked = (small().train()(angles, joints, *frames) for frames in ((torch.ones(2, 64),), ()))
    for name, terms in masked.items():
        assert torch.equal(torch.stack(terms), torch.stack(unmasked[name]))


def test_adaptation_goes_on_from_another_tokenizers_weights_and_scale(tmp_path):
    cohort = cohort_of(tmp_path, movements_of([90, 40]), [np.ones(N_JOINTS, bool)] * 2, "train")
    network = small()
    network.scale.fill_(0.3)

    def build(uri):
        MotionTokenizer(network, 30.0).save(uri)
        return {}

    start = artifact.make("tokenizer", 1, {}, {"cohort": cohort}, build, str(tmp_path))
    own = {"network": network.settings.model_dump(), "loss": {"velocity": 0.25}}
    adapted = TokenizerTask(cohort.uri, own, start.uri).build_model()
    assert adapted.training
    assert adapted.loss.velocity == 0.25
    for name, value in network.state_dict().items():
        assert torch.equal(adapted.state_dict()[name].cpu(), value), name
    other = validate(TokenizerSettings, {"network": {**own["network"], "width": 32}}, "test")
    with pytest.raises(InputError, match="width: expected 24, this tokenizer's, found 32"):
        make_tokenizer(cohort, other, str(tmp_path), start)
