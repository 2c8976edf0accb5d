"""The tokenizer over workers: neither codebook nor tokens depend on how many there are, or which are killed."""

import os
import signal

import numpy as np
import pytest
import torch
import torch.distributed as dist
from safetensors.numpy import load_file

from biomechgpt.cohort import Cohort, CohortSettings, make_cohort
from biomechgpt.core import artifact, storage
from biomechgpt.core.settings import InputError, load, validate
from biomechgpt.core.training import fit
from biomechgpt.motion.skeleton import N_JOINTS
from biomechgpt.tokenizer.motion_tokenizer import MotionTokenizer
from biomechgpt.tokenizer.settings import TokenizerSettings, TokensSettings
from biomechgpt.tokenizer.tokens import Tokens, make_tokens, mirror_movement, view
from biomechgpt.tokenizer.training_task import TokenizerTask
from conftest import ROOT

pytestmark = pytest.mark.cluster
STEPS = 12


class Watched(TokenizerTask):
    """Looks before each step that all workers have one codebook, to the last bit; the last worker is killed once
    before its step `die_at`, where a flag file says that it has not been yet."""

    def __init__(self, die_at: int, flag: str, **arguments) -> None:
        super().__init__(**arguments)
        self.die_at, self.flag = die_at, flag

    def collate(self, samples):
        quantizer = self.network.quantizer
        here = torch.cat([quantizer.codebook, quantizer.total, quantizer.count[:, None]], dim=1)
        workers = [torch.empty_like(here) for _ in range(dist.get_world_size())]
        dist.all_gather(workers, here)
        assert all(torch.equal(here, other) for other in workers)
        last = dist.get_rank() == dist.get_world_size() - 1
        if last and quantizer.steps == self.die_at and not storage.exists(self.flag):
            storage.write_bytes(self.flag, b"killed")
            os.kill(os.getpid(), signal.SIGKILL)
        return super().collate(samples)

    def export(self, model):
        restarted = int((self.network.quantizer.count == 1).sum())
        return {**super().export(model), "workers": dist.get_world_size(), "restarted": restarted}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("tokenizers")


@pytest.fixture(scope="module")
def cohort(ray_cluster, root):
    few = ["--simulator.scale", "0.3", "--shard_trials", "8"]
    return make_cohort(load(CohortSettings, ROOT / "configs/cohort/tiny.yaml", few), str(root))


@pytest.fixture(scope="module")
def train(cohort, root):
    """Trains a tokenizer and returns its metrics and weights; `die_at` 0: undisturbed."""

    def run(name, die_at=0, **training):
        settings = load(TokenizerSettings, ROOT / "configs/tokenizer/tiny.yaml").model_dump()
        training = {**settings["training"], "checkpoint_every": 5, **training}
        settings = {**settings, "steps": STEPS, "batch_size": 16, "training": training}
        # So many codes that some are not in use, and restart.
        settings["network"]["quantizer"]["codebook_size"] = 256
        settings = validate(TokenizerSettings, settings, "test")
        flag = str(root / f"{name}.killed")
        if not die_at:
            storage.write_bytes(flag, b"never")
        arguments = {"die_at": die_at, "flag": flag, "cohort": cohort.uri, "settings": settings.model_dump()}
        metrics = fit(Watched, arguments, settings.training, str(root / name), name)
        return metrics, load_file(root / name / "model.safetensors")

    return run


@pytest.fixture(scope="module")
def one(train):
    """Made by one worker, undisturbed."""
    return train("one")


def test_two_workers_of_which_one_is_killed_learn_the_codebook_of_one(train, one):
    """Each has half of each batch. One is killed between two checkpoints; the run goes on from the first."""
    two = train("two", die_at=8, workers=2)
    assert (one[0]["workers"], two[0]["workers"]) == (1, 2)
    assert one[0]["restarted"] > 0
    for name, value in one[1].items():
        np.testing.assert_allclose(two[1][name], value, rtol=1e-3, atol=1e-4, err_msg=name)
    assert two[0]["loss"] == pytest.approx(one[0]["loss"], rel=1e-4)


def test_tokens_are_the_encoders_whatever_the_workers(cohort, one, root, tmp_path):
    """Two workers are all cores of a small machine: nothing may wait for a third."""

    def copy(uri):
        storage.upload(root / "one", uri)
        return {}

    tokenizer = artifact.make("tokenizer", 1, {}, {"cohort": cohort}, copy, str(tmp_path))
    made = [
        make_tokens(
            cohort,
            tokenizer,
            TokensSettings(workers=workers, batch_size=5, views=4),
            str(tmp_path / str(workers)),
        )
        for workers in (1, 2)
    ]
    assert Tokens(made[0]).table().equals(Tokens(made[1]).table())
    assert made[0].metrics == made[1].metrics
    encoder = MotionTokenizer.load(tokenizer.uri)
    tokens = {row["trial"]: row["tokens"] for row in Tokens(made[0]).table().to_pylist()}
    trials = Cohort(cohort).table().to_pylist()
    assert made[0].metrics["trials"] == len(trials) == len(tokens)

    def encode(row, *changes):
        """Tokens of each change of a trial's movement, with the joints that were recorded."""
        angles = np.asarray(row["angles_rad"], np.float32).reshape(-1, N_JOINTS)
        pairs = [change(angles, np.asarray(row["joint_mask"], bool)) for change in changes]
        return [some.tolist() for some in encoder.encode([a for a, _ in pairs], [mask for _, mask in pairs])]

    for row in trials:
        assert tokens[row["trial"]] == encode(row, lambda *own: own)[0]
    # Also in other tokens: mirrored, begun half a step later, both.
    everywhere = ["train", "validation", "test"]
    views = Tokens(made[0]).views(everywhere)
    assert set(views) == set(tokens)
    assert Tokens(made[1]).views(everywhere) == views
    for split in everywhere:
        row = next(row for row in trials if row["split"] == split)
        expected = encode(
            row,
            lambda *own: own,
            mirror_movement,
            lambda angles, mask: (angles[2:], mask),
            lambda angles, mask: mirror_movement(angles[2:], mask),
        )
        assert views[row["trial"]] == expected
        assert Tokens(made[0]).views([split], 2)[row["trial"]] == expected[:2]
    alone = make_tokens(cohort, tokenizer, TokensSettings(), str(tmp_path / "alone"))
    assert Tokens(alone).views(everywhere) == {trial: [codes] for trial, codes in tokens.items()}
    with pytest.raises(InputError, match="expected 2 views, found 1"):
        Tokens(alone).views(["test"], 2)


def test_a_view_begins_later_within_a_step_and_so_do_mirrored_ones():
    angles, mask = np.arange(40 * N_JOINTS, dtype=np.float32).reshape(40, N_JOINTS), np.ones(N_JOINTS, bool)
    starts = [40 - len(view(angles, mask, number, 4)[0]) for number in range(9)]
    assert starts == [0, 0, 2, 2, 1, 1, 3, 3, 0]
    np.testing.assert_array_equal(view(angles, mask, 4, 4)[0], angles[1:])
    np.testing.assert_array_equal(view(angles, mask, 5, 4)[0], mirror_movement(angles[1:], mask)[0])
    # A frame always stays.
    assert len(view(angles[:1], mask, 6, 4)[0]) == 1
