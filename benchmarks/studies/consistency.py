"""Whether tokens get better if the tokenizer is told to give the same tokens in two laboratories.

    python benchmarks/studies/consistency.py --cohort URI [--tokenizer FILE] [--weights 0 0.1 1] [--steps 600]

Trains a tokenizer for each weight of the consistency loss, on the same windows. The loss is the mean squared
distance between the encoder's vectors of a window and of the same window in another laboratory, whose ranges and
noise differ (`simulator.laboratory`). Zero angles need no loss: posture tokens take them out. Prints for each
weight the errors of validation participants in degrees, the share of equal tokens in two laboratories, and the F1
of XGBoost on histograms of tokens. The last line is JSON.
"""

import argparse
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from laboratories import compare, recorded
from torch import Tensor
from torch.nn import functional
from variants import TASKS, scores

from biomechgpt.cohort import Cohort
from biomechgpt.core import artifact
from biomechgpt.core.settings import load
from biomechgpt.core.training_loop import learning_rate
from biomechgpt.evaluation.baselines.xgboost import histograms
from biomechgpt.motion.skeleton import N_JOINTS
from biomechgpt.questions.tasks import load_tasks
from biomechgpt.simulator.laboratory import LaboratorySettings, laboratory, record
from biomechgpt.simulator.movement import COLUMNS
from biomechgpt.tokenizer.motion_tokenizer import MotionTokenizer
from biomechgpt.tokenizer.network import MotionVQVAE
from biomechgpt.tokenizer.reconstruction import held_out
from biomechgpt.tokenizer.settings import TokenizerSettings
from biomechgpt.tokenizer.training_task import TokenizerTask


@dataclass
class _Elsewhere:
    """Records windows of joint angles in random laboratories.

    rate_hz: frames per second of the windows.
    rng: draws the laboratory of each window.
    """

    rate_hz: float
    rng: np.random.Generator

    def __call__(self, angles: Tensor) -> Tensor:
        """(B, T, 34) radians -> the same windows elsewhere."""
        settings, nothing = LaboratorySettings(count=1000, absent=0), np.zeros(len(COLUMNS))
        result = []
        for window in np.degrees(angles.numpy()):
            columns = np.zeros((len(window), len(COLUMNS)))
            columns[:, :N_JOINTS] = window
            stand = columns.mean(axis=0)
            where = laboratory(settings, int(self.rng.integers(settings.count)))
            result.append(record(where, nothing, stand, columns, self.rate_hz, self.rng)[:, :N_JOINTS])
        return torch.from_numpy(np.radians(np.stack(result)).astype(np.float32))


def train(cohort: artifact.Artifact, settings: TokenizerSettings, weight: float) -> MotionTokenizer:
    """A tokenizer of these settings, with this weight of the consistency loss, without Ray."""
    task = TokenizerTask(cohort.uri, settings.model_dump())
    network, rate_hz = task.build_model(), Cohort(cohort).info.frame_rate_hz
    assert isinstance(network, MotionVQVAE)
    elsewhere = _Elsewhere(rate_hz, np.random.default_rng(settings.training.seed))
    optimizer = torch.optim.AdamW(network.parameters(), settings.training.learning_rate)
    batches = task.batches()
    for step, samples in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(settings.training, step, len(batches))
        batch = task.collate(samples)
        loss = sum(total / count.clamp(min=1) for total, count in network(**batch).values())
        if weight:
            joints, mask = batch["joints"], batch.get("frames")
            mask = None if mask is None else mask[:, None]
            here = network._standardize(batch["angles"], joints)
            there = network._standardize(elsewhere(batch["angles"]), joints)
            # Both move: with one held still, a constant encoder would be as good.
            vectors = network.encoder(
                torch.cat([here, there]), None if mask is None else mask.repeat(2, 1, 1)
            )[0]
            loss = loss + weight * functional.mse_loss(*vectors.chunk(2))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return MotionTokenizer(network.eval(), rate_hz)


def laboratories(tokenizer: MotionTokenizer, people: int) -> dict[str, float]:
    """How alike the motion tokens of the same movements in two laboratories are."""
    here, there = (recorded(people, tokenizer.frame_rate_hz, seed=seed) for seed in (1, 2))
    tokens = [
        [codes[tokenizer.n_posture :] for codes in tokenizer.encode(
            [t.angles_rad for t in made.values()], [t.joint_mask for t in made.values()])]
        for made in (here, there)
    ]  # fmt: skip
    alike: dict[str, float] = compare(*tokens, tokenizer.layout.codes)
    return alike


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cohort", required=True, help="URI of a simulated cohort artifact")
    parser.add_argument("--tokenizer", default="configs/tokenizer/demo.yaml")
    parser.add_argument("--weights", type=float, nargs="+", default=[0.0, 0.1, 1.0])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--people", type=int, default=30)
    options = parser.parse_args()
    cohort = artifact.load(options.cohort)
    settings = load(TokenizerSettings, options.tokenizer).model_copy(update={"steps": options.steps})
    table = Cohort(cohort).table()
    movements = [row.values.to_numpy().reshape(-1, N_JOINTS) for row in table["angles_rad"]]
    masks = np.array(table["joint_mask"].to_pylist(), dtype=np.float32)
    table, tasks = (
        table.drop_columns(["angles_rad", "pelvis", "joint_mask"]),
        load_tasks("configs/tasks", TASKS),
    )
    result: dict[str, Any] = {}
    for weight in options.weights:
        tokenizer = train(cohort, settings, weight)
        tokens = [codes.tolist() for codes in tokenizer.encode(movements, masks)]
        X = histograms(tokens, tokenizer.layout.codes + tokenizer.layout.posture_size, tokenizer.n_posture)
        errors = held_out(tokenizer, cohort, "validation")
        result[f"{weight:g}"] = {
            "rmse_deg": errors["rmse_deg_tracked"],
            **laboratories(tokenizer, options.people),
            **scores("xgboost", table, X, tasks, "validation"),
        }
        print(f"weight {weight:g}: {result[f'{weight:g}']}", flush=True)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
