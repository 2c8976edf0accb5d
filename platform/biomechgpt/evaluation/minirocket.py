"""MiniRocket features of joint angles: at what share of a movement each of some thousand kernels responds.

After Dempster, Schmidt and Webb, KDD 2021 (arXiv:2012.08791): 84 kernels of nine weights, six of -1 and three of 2,
at rising dilations, each over a few joints drawn at random; a feature is the share of frames at which a kernel's
output is above a quantile of what it was on training movements. Movements may be of any length. Our own, as kept
libraries' want movements of one length.
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import torch
from torch.nn import functional

KERNELS = tuple(combinations(range(9), 3))
"""Where the 84 kernels have their 2s."""
DILATIONS = (1, 2, 4, 8, 16, 32)
"""In frames: at 30 Hz kernels see 0.3 to 8.6 s."""
BIASES = 10
"""Thresholds a kernel and dilation: 5,040 features in all."""


class MiniRocket:
    """Fitted on some training movements; then `features` of any.

    series: (T, C) each, movements of any length with the same C channels, NaN nowhere.
    """

    def __init__(self, series: Sequence[np.ndarray], seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        whole = np.concatenate(series)
        self.mean, self.scale = whole.mean(axis=0), np.maximum(whole.std(axis=0), 1e-6)
        channels = whole.shape[1]
        base = np.full((len(KERNELS), 9), -1.0)
        for row, places in zip(base, KERNELS, strict=True):
            row[list(places)] = 2
        most = np.log2(min(channels, 9) + 1)
        self.weights = np.zeros((len(DILATIONS), len(KERNELS), channels, 9), dtype=np.float32)
        for of_dilation in self.weights:
            for kernel, weights in zip(of_dilation, base, strict=True):
                chosen = rng.choice(channels, int(2 ** rng.uniform(0, most)), replace=False)
                kernel[chosen] = weights
        # Quantiles that fill the unit evenly, as the paper's; each kernel's of one movement drawn for it.
        golden = (np.sqrt(5) + 1) / 2
        shares = (np.arange(1, len(DILATIONS) * len(KERNELS) * BIASES + 1) * golden) % 1
        shares = shares.reshape(len(DILATIONS), len(KERNELS), BIASES)
        self.biases = np.empty_like(shares, dtype=np.float32)
        drawn = rng.integers(len(series), size=len(KERNELS))
        for number in np.unique(drawn):
            out = self._responses(series[number])
            for kernel in np.flatnonzero(drawn == number):
                for d in range(len(DILATIONS)):
                    self.biases[d, kernel] = np.quantile(out[d, kernel], shares[d, kernel])

    def _responses(self, series: np.ndarray) -> np.ndarray:
        """(dilations, kernels, T)."""
        scaled = ((series - self.mean) / self.scale).astype(np.float32)
        x = torch.from_numpy(np.ascontiguousarray(scaled.T))[None]
        with torch.inference_mode():
            made = [
                functional.conv1d(x, torch.tensor(weights), padding=4 * dilation, dilation=dilation)[0]
                for weights, dilation in zip(self.weights, DILATIONS, strict=True)
            ]
        return torch.stack(made).numpy()

    def features(self, series: np.ndarray) -> np.ndarray:
        """(5040,) float32 between 0 and 1 of a movement (T, C)."""
        out = torch.from_numpy(self._responses(series))
        biases = torch.tensor(self.biases)
        parts = [(out > biases[..., b, None]).float().mean(dim=-1) for b in range(BIASES)]
        return torch.stack(parts, dim=-1).numpy().ravel()
