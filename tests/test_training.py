"""The training loop: exact over workers and over interruptions."""

import numpy as np
import pytest
import torch
from torch import nn

from biomechgpt import storage, training

pytestmark = pytest.mark.cluster


class Line(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))

    def forward(self, x, y, valid):
        error = (x @ self.weight - y) ** 2
        return {"squared": ((error * valid).sum(), valid.sum())}


class FitLine(training.Trainee):
    """Fits a line; dies once at `die_at` where a flag file says it has not died yet."""

    def __init__(self, die_at: int | None = None, flag: str = "") -> None:
        rng = np.random.default_rng(0)
        self.x = torch.tensor(rng.normal(size=(40, 3)), dtype=torch.float32)
        self.y = self.x @ torch.tensor([1.0, -2.0, 0.5])
        # Samples count unequally, so an average of averages would differ from the average.
        self.valid = torch.tensor(rng.integers(1, 4, size=40), dtype=torch.float32)
        self.die_at, self.flag, self.calls = die_at, flag, 0

    def model(self):
        return Line()

    def plan(self):
        return [[(step * 5 + i) % 40 for i in range(5)] for step in range(30)]

    def collate(self, samples):
        self.calls += 1
        if self.calls == self.die_at and not storage.exists(self.flag):
            storage.write_bytes(self.flag, b"died")
            raise SystemError("killed")
        return {"x": self.x[samples], "y": self.y[samples], "valid": self.valid[samples]}

    def finish(self, model):
        return {"weight": model.weight.detach().tolist()}


def run(tmp_path, name, arguments=None, **settings):
    settings = training.TrainingSettings(learning_rate=0.1, checkpoint_every=10, **settings)
    return training.fit(FitLine, arguments or {}, settings, str(tmp_path / name), name)


def test_two_workers_and_a_killed_run_give_the_result_of_one(ray_cluster, tmp_path):
    one = run(tmp_path, "one")
    assert one["steps"] == 30
    assert one["loss"] < 6
    two = run(tmp_path, "two", workers=2, zero_stage=2)
    np.testing.assert_allclose(two["weight"], one["weight"], rtol=1e-5)
    killed = run(tmp_path, "killed", {"die_at": 25, "flag": str(tmp_path / "flag")})
    assert (tmp_path / "flag").exists()
    np.testing.assert_array_equal(killed["weight"], one["weight"])
    assert not (tmp_path / "one" / "run").exists()
