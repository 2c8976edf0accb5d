"""MiniRocket features of joint angles: 5,040 shares of frames in which a convolution kernel responds.

Source: Dempster, Schmidt and Webb, KDD 2021 (arXiv:2012.08791). There are 84 kernels of nine weights: six of -1 and
three of 2. Each is used at rising dilations, over a few joints drawn at random. A feature is the share of frames in
which the kernel's output is above a threshold, a quantile of its output on training movements. The published
libraries need movements of the same length. This implementation takes any length.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import Any, TypeVar

import numpy as np
import ray
import torch
from sklearn.base import BaseEstimator
from sklearn.linear_model import Ridge, RidgeClassifier
from torch.nn import functional

from biomechgpt.cohort.shards import Cohort, Shard
from biomechgpt.evaluation.baselines.baseline import Baseline, BaselineInputs, Prediction, Problem
from biomechgpt.evaluation.baselines.linear import fit_predict_linear
from biomechgpt.motion.skeleton import N_JOINTS

T = TypeVar("T")

KERNELS = tuple(combinations(range(9), 3))
"""Positions of the weights of 2 in each of the 84 kernels."""
DILATIONS = (1, 2, 4, 8, 16, 32)
"""In frames: at 30 Hz the kernels span 0.3 to 8.6 s."""
BIASES = 10
"""Thresholds per kernel and dilation: 5,040 features in all."""
FITTING_TRIALS = 32
"""Number of training trials, spread over the cohort, that the thresholds are taken from."""


class MiniRocket:
    """The feature extractor, fitted on some training movements.

    series: movements (T, C) of any length, all with the same C channels, without NaN.
    """

    def __init__(self, series: Sequence[np.ndarray], seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        frames = np.concatenate(series)
        self.mean, self.scale = frames.mean(axis=0), np.maximum(frames.std(axis=0), 1e-6)
        channels = frames.shape[1]
        # Six weights of -1 and three of 2 sum to 0, so a constant added to a joint angle changes no response.
        kernel_weights = np.full((len(KERNELS), 9), -1.0)
        for row, positions in zip(kernel_weights, KERNELS, strict=True):
            row[list(positions)] = 2
        # The number of channels of a kernel is drawn log-uniformly from 1 to 9, as in the paper.
        max_log2 = np.log2(min(channels, 9) + 1)
        self.weights = np.zeros((len(DILATIONS), len(KERNELS), channels, 9), dtype=np.float32)
        for dilation_weights in self.weights:
            for kernel, weights in zip(dilation_weights, kernel_weights, strict=True):
                # The kernel reads the drawn channels. Its weights of all others stay 0.
                drawn_channels = rng.choice(channels, int(2 ** rng.uniform(0, max_log2)), replace=False)
                kernel[drawn_channels] = weights
        # The quantiles fill the unit interval evenly (multiples of the golden ratio, modulo 1), as in the paper.
        # Each kernel takes its thresholds from one movement that is drawn for it.
        golden_ratio = (np.sqrt(5) + 1) / 2
        quantiles = (np.arange(1, len(DILATIONS) * len(KERNELS) * BIASES + 1) * golden_ratio) % 1
        quantiles = quantiles.reshape(len(DILATIONS), len(KERNELS), BIASES)
        self.biases = np.empty_like(quantiles, dtype=np.float32)
        movement_of_kernel = rng.integers(len(series), size=len(KERNELS))
        for number in np.unique(movement_of_kernel):
            responses = self._responses(series[number])
            for kernel in np.flatnonzero(movement_of_kernel == number):
                for d in range(len(DILATIONS)):
                    self.biases[d, kernel] = np.quantile(responses[d, kernel], quantiles[d, kernel])

    def _responses(self, series: np.ndarray) -> np.ndarray:
        """Output of each kernel in each frame: (dilations, kernels, T)."""
        scaled = ((series - self.mean) / self.scale).astype(np.float32)
        x = torch.from_numpy(np.ascontiguousarray(scaled.T))[None]
        # A kernel of nine weights with dilation d reaches 4 d frames to either side. This padding keeps T frames.
        with torch.inference_mode():
            outputs = [
                functional.conv1d(x, torch.tensor(weights), padding=4 * dilation, dilation=dilation)[0]
                for weights, dilation in zip(self.weights, DILATIONS, strict=True)
            ]
        return torch.stack(outputs).numpy()

    def features(self, series: np.ndarray) -> np.ndarray:
        """(5040,) float32 between 0 and 1, of a movement (T, C)."""
        responses = torch.from_numpy(self._responses(series))
        biases = torch.tensor(self.biases)
        shares = [(responses > biases[..., b, None]).float().mean(dim=-1) for b in range(BIASES)]
        return torch.stack(shares, dim=-1).numpy().ravel()


def fitting_trials(training: Sequence[T]) -> list[T]:
    """At most `FITTING_TRIALS` of these training trials, evenly spread."""
    return list(training[:: -(-len(training) // FITTING_TRIALS)])


class RidgeOnMiniRocket(Baseline):
    """Ridge regression or ridge classification on MiniRocket features."""

    name = "minirocket"
    label = "MiniRocket, joint angles"
    description = "ridge regression on MiniRocket features of the joint angles"

    def features(self, inputs: BaselineInputs) -> np.ndarray:
        cohort, trials = Cohort(inputs.cohort), inputs.trials
        fitted_on = set(fitting_trials(trials.loc[trials["split"] == "train", "trial"].tolist()))
        series = [
            np.asarray(angles).reshape(-1, N_JOINTS)
            for shard in cohort.map_shards(lambda shard: _angles(shard, fitted_on))
            for angles in shard["angles"]
        ]
        extractor = ray.put(MiniRocket(series, inputs.seed))
        rows: dict[str, np.ndarray] = {}
        for shard in cohort.map_shards(lambda shard: _features(shard, extractor)):
            X = np.asarray(shard["features"], dtype=np.float32).reshape(len(shard["trials"]), -1)
            rows |= dict(zip(shard["trials"], X, strict=True))
        return np.stack([rows[trial] for trial in trials["trial"]])

    def fit_predict(self, problem: Problem) -> Prediction:
        model: BaseEstimator = RidgeClassifier() if problem.kind == "classification" else Ridge()
        return Prediction(fit_predict_linear(model, {"alpha": [10.0, 100.0, 1e3, 1e4, 1e5]}, problem))


def _angles(shard: Shard, names: set[str]) -> dict[str, Any]:
    return {"angles": [trial.angles_rad.ravel() for trial in shard.trials(names=names)]}


def _features(shard: Shard, extractor: Any) -> dict[str, Any]:
    torch.set_num_threads(1)
    minirocket: MiniRocket = ray.get(extractor)
    names, rows = [], []
    for trial in shard.trials():
        names.append(trial.trial)
        rows.append(minirocket.features(trial.angles_rad))
    return {"trials": names, "features": np.concatenate(rows)}
