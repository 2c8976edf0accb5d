"""The training loop: exact over workers, their number and interruptions; bad input is not tried again."""

import shutil

import numpy as np
import pytest
import torch
import torch.distributed as dist
from ray.train import TrainingFailedError
from torch import nn

from biomechgpt.core import cluster, storage, training
from biomechgpt.core.settings import InputError, load, validate
from biomechgpt.core.training_settings import TrainingSettings


class Line(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))

    def forward(self, x, y, valid):
        error = ((x.to(self.weight.dtype) @ self.weight).float() - y) ** 2
        return {"squared": ((error * valid).sum(), valid.sum())}


class FitLine(training.TrainingTask):
    """Fits a line; fails once at `die_at` where a flag file says it has not failed yet."""

    def __init__(
        self, die_at: int | None = None, flag: str = "", error: type[BaseException] = SystemError
    ) -> None:
        rng = np.random.default_rng(0)
        self.x = torch.tensor(rng.normal(size=(40, 3)), dtype=torch.float32)
        self.y = self.x @ torch.tensor([1.0, -2.0, 0.5])
        # Samples count unequally, so an average of averages would differ from the average.
        self.valid = torch.tensor(rng.integers(1, 4, size=40), dtype=torch.float32)
        self.die_at, self.flag, self.error, self.calls = die_at, flag, error, 0

    def build_model(self):
        self.line = Line()
        return self.line

    def batches(self):
        return [[(step * 5 + i) % 40 for i in range(5)] for step in range(30)]

    def collate(self, samples):
        self.calls += 1
        if self.calls == self.die_at and not storage.exists(self.flag):
            storage.write_bytes(self.flag, b"died")
            raise self.error("trials.csv: line 3: expected a number, found 'x'")
        return {"x": self.x[samples], "y": self.y[samples], "valid": self.valid[samples]}

    def log_metrics(self):
        return {"weight": float(self.line.weight.sum())}

    def export(self, model):
        return {"weight": model.weight.detach().tolist(), "workers": dist.get_world_size()}


class FitHalf(FitLine):
    """Its held-out samples are best fitted half way: from zero, half the line is reached before the whole."""

    validations = 3

    def validation_batches(self):
        return [[0, 1, 2, 3], [4, 5, 6], [7]]

    def collate_validation(self, samples):
        return {"x": self.x[samples], "y": self.y[samples] / 2, "valid": self.valid[samples]}


def run(tmp_path, name, arguments=None, task=FitLine, **settings):
    settings = TrainingSettings(learning_rate=0.1, checkpoint_every=10, **settings)
    return training.fit(task, arguments or {}, settings, str(tmp_path / name), name)


@pytest.fixture(scope="module")
def one(ray_cluster, tmp_path_factory):
    """What one worker makes of it, undisturbed."""
    return run(tmp_path_factory.mktemp("one"), "one")


@pytest.mark.cluster
def test_two_workers_of_which_one_is_killed_give_the_result_of_one(one, tmp_path):
    assert one["steps"] == 30
    assert one["loss"] < 6
    # Each with a part of the weights, their optimizer in the CPU's memory, and one of them killed.
    dies = {"die_at": 25, "flag": str(tmp_path / "flag of two")}
    two = run(tmp_path, "two", dies, workers=2, zero_stage=3, offload=True)
    assert (tmp_path / "flag of two").exists()
    np.testing.assert_allclose(two["weight"], one["weight"], rtol=1e-5)
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)
    assert [row["step"] for row in one["history"]] == list(range(1, 31))
    assert [row["step"] for row in two["history"]] == list(range(1, 31))
    assert not (tmp_path / "two" / "run").exists()


@pytest.mark.cluster
def test_a_killed_run_gives_the_result_of_an_undisturbed_one(ray_cluster, tmp_path):
    """With weights in bf16, which go on from their copy in fp32, as on A100s (configs/language/paper_1b.yaml).

    The best ones on held-out samples are kept.
    """
    how = {"task": FitHalf, "precision": "bf16", "zero_stage": 2}
    whole = run(tmp_path, "whole", **how)
    killed = run(tmp_path, "killed", {"die_at": 25, "flag": str(tmp_path / "flag")}, **how)
    assert (tmp_path / "flag").exists()
    assert whole["loss"] < 6
    assert whole["best_step"] < 30
    for name in ("weight", "loss", "best_step", "validation_loss"):
        assert killed[name] == whole[name], name
    assert killed["history"] == whole["history"]


@pytest.fixture(scope="module")
def died(ray_cluster, tmp_path_factory):
    """The folder of a training that died in step 25, after checkpoints of steps 10 and 20."""
    folder = tmp_path_factory.mktemp("died")
    with pytest.raises(TrainingFailedError):
        run(folder, "training", {"die_at": 25, "flag": str(folder / "flag")}, max_failures=0)
    assert (folder / "flag").exists()
    return folder / "training"


def begin(died, folder):
    """Copy that training to a folder; returns the folders of its two checkpoints."""
    shutil.copytree(died, folder)
    folders = sorted((folder / "run/train").glob("checkpoint_2*"))
    assert len(folders) == 2
    return folders


@pytest.mark.cluster
def test_a_run_that_one_worker_began_is_ended_by_two(one, died, tmp_path):
    begin(died, tmp_path / "elastic")
    two = run(tmp_path, "elastic", workers=(1, 2))
    assert (one["workers"], two["workers"]) == (1, 2)
    np.testing.assert_allclose(two["weight"], one["weight"], rtol=1e-5)
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)


@pytest.mark.cluster
def test_the_weights_with_the_lowest_validation_loss_are_kept(one, tmp_path):
    """Also by two workers with a part of the weights each, of which one is killed after the best step."""
    alone = run(tmp_path, "alone", task=FitHalf)
    losses = {row["step"]: row["validation_loss"] for row in alone["history"] if "validation_loss" in row}
    assert list(losses) == [10, 20, 30]
    assert alone["best_step"] == min(losses, key=losses.get) < 30
    assert alone["validation_loss"] == losses[alone["best_step"]]
    assert alone["seconds_validation"] >= 0
    # Training itself is that without validation, whatever is kept of it.
    assert alone["loss"] == one["loss"]
    data = FitHalf()
    held_out = data.collate_validation(range(8))
    squared = (held_out["x"] @ torch.tensor(alone["weight"]) - held_out["y"]) ** 2
    loss = (squared * held_out["valid"]).sum() / held_out["valid"].sum()
    assert alone["validation_loss"] == pytest.approx(float(loss), abs=1e-5)
    dies = {"die_at": 25, "flag": str(tmp_path / "flag")}
    two = run(tmp_path, "two", dies, FitHalf, workers=2, zero_stage=3)
    assert (tmp_path / "flag").exists()
    assert two["best_step"] == alone["best_step"]
    np.testing.assert_allclose(two["weight"], alone["weight"], rtol=1e-5)


@pytest.mark.cluster
def test_input_errors_of_workers_come_out_as_they_are_and_at_once(ray_cluster, tmp_path):
    """One of the data, and one of the settings: a checkpoint in parts is for as many workers as wrote it."""
    fails = {"die_at": 15, "flag": str(tmp_path / "flag"), "error": InputError}
    # Tried again it would find the flag, and succeed.
    with pytest.raises(InputError, match=r"^trials.csv: line 3: expected a number, found 'x'$"):
        run(tmp_path, "parts", fails, workers=2, zero_stage=2, max_failures=5)
    with pytest.raises(InputError, match=r"workers 1 .* in 2 parts"):
        run(tmp_path, "parts", fails, zero_stage=2)


def damage(folder, how):
    file = folder / "state.pt"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content[: len(content) if how == "flipped" else 100]))


@pytest.mark.cluster
@pytest.mark.parametrize("how", ["truncated", "flipped", "half a snapshot"])
def test_a_damaged_checkpoint_is_left_out_for_the_one_before_it(one, died, tmp_path, caplog, how):
    _, newest = begin(died, tmp_path / "damaged")
    if how == "half a snapshot":
        snapshot = newest.parent / "checkpoint_manager_snapshot.json"
        snapshot.write_text(snapshot.read_text()[:100])
    else:
        damage(newest, how)
    with caplog.at_level("WARNING", "biomechgpt"):
        again = run(tmp_path, "damaged")
    (message,) = [record.getMessage() for record in caplog.records if "going on from" in record.getMessage()]
    step = 20 if how == "half a snapshot" else 10
    assert message.startswith("damaged: damaged (")
    assert message.endswith(f"going on from the checkpoint of step {step}")
    assert (again["weight"], again["loss"]) == (one["weight"], one["loss"])


@pytest.mark.cluster
def test_two_damaged_checkpoints_are_an_error_that_says_what_to_remove(died, tmp_path):
    for folder in begin(died, tmp_path / "damaged"):
        damage(folder, "truncated")
    for _ in range(2):
        with pytest.raises(
            InputError, match=rf"damaged: .*state.pt is altered.* Remove {tmp_path}/damaged/run"
        ):
            run(tmp_path, "damaged")


@pytest.mark.parametrize(("said", "workers"), [("2", 2), ("[1,4]", (1, 4))])
def test_workers_on_the_command_line(said, workers):
    assert load(TrainingSettings, None, ["--workers", said]).workers == workers


@pytest.mark.parametrize(
    "wrong", [{"workers": 0}, {"workers": [0, 2]}, {"workers": [4, 1]}, {"workers": [1, 4], "zero_stage": 2}]
)
def test_workers_that_cannot_be_are_refused(wrong):
    with pytest.raises(InputError, match="workers"):
        validate(TrainingSettings, wrong, "test")


@pytest.mark.cluster
def test_without_gpus_their_use_is_refused_before_anything_starts(ray_cluster, tmp_path):
    with pytest.raises(InputError, match="accelerator: expected a cluster with GPUs, found none"):
        run(tmp_path, "gpus", accelerator="gpu")


@pytest.mark.cluster
@pytest.mark.parametrize(("accelerator", "expected"), [("auto", True), ("gpu", True), ("cpu", False)])
def test_gpus_that_the_autoscaler_may_add_count(ray_cluster, monkeypatch, accelerator, expected):
    from ray._private.state import state

    later = {"GPU": 4.0, "CPU": 1000.0}
    monkeypatch.setattr(type(state), "get_max_resources_from_cluster_config", lambda self: later)
    assert cluster.uses_gpus(accelerator) is expected
    cluster.require(4, 12, 1)
    with pytest.raises(InputError, match="5 workers of 1 GPU need 5, the cluster has 4"):
        cluster.require(5, 12, 1)
