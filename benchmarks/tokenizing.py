"""Tokenizing trials of unequal length: in batches of alike length against one at a time, as the peers do it.

python benchmarks/tokenizing.py [--trials 256] [--width 128] [--rounds 3]
"""

import argparse
import json
import statistics
import time

import numpy as np
import torch

from biomechgpt.skeleton import N_JOINTS
from biomechgpt.tokenizer import MotionTokenizer
from biomechgpt.tokenizer.model import LossSettings, MotionVQVAE, NetworkSettings


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, value in (("trials", 256), ("width", 128), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    network = MotionVQVAE(NetworkSettings(code_dim=options.width, width=options.width), LossSettings())
    network.quantizer.codebook.normal_()
    tokenizer = MotionTokenizer(network, 30.0)
    lengths = rng.integers(90, 900, size=options.trials)
    trials = [rng.normal(size=(n, N_JOINTS)).astype(np.float32) for n in lengths]

    def timed(batch_size: int) -> tuple[float, list[np.ndarray]]:
        started = time.perf_counter()
        tokens = tokenizer.encode(trials, batch_size=batch_size)
        return time.perf_counter() - started, tokens

    timed(32)
    ratios, frames_per_s = [], []
    for _ in range(options.rounds):
        together, tokens = timed(32)
        alone, same = timed(1)
        assert all((a == b).all() for a, b in zip(tokens, same, strict=True))
        ratios.append(alone / together)
        frames_per_s.append(lengths.sum() / together)
        print(f"in batches {together:.2f} s, one at a time {alone:.2f} s", flush=True)
    print(
        json.dumps(
            {
                "speedup_of_batches_over_one_at_a_time": round(statistics.median(ratios), 2),
                "lowest": round(min(ratios), 2),
                "highest": round(max(ratios), 2),
                "frames_per_s": round(statistics.median(frames_per_s)),
            }
        )
    )


if __name__ == "__main__":
    main()
