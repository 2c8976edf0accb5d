"""What 500, 50 000 and 5 million participants would take: storage, requests, tokenization, GPU hours, replicas.

    python benchmarks/scale.py [--rows 1000000] [--trials 20] [--questions-a-day 5]

Three rates are measured here: reading a recording, tokenizing it, and the memory of the driver's rows. The others
are those of docs/results/scale.md. The rest is arithmetic, on a cluster that `Cluster` describes. The last line is
JSON.
"""

import argparse
import json
import resource
import time
from dataclasses import dataclass

import numpy as np
import torch

from biomechgpt import simulator
from biomechgpt.cohort.annotations import AnnotationTable
from biomechgpt.motion.skeleton import NAMES
from biomechgpt.recordings import readers
from biomechgpt.recordings.load import prepare
from biomechgpt.recordings.quality import QualitySettings
from biomechgpt.recordings.readers import opensim
from biomechgpt.tokenizer.network import MotionVQVAE
from biomechgpt.tokenizer.settings import LossSettings, NetworkSettings

FRAME_HZ = 30.0
SECONDS_OF_A_TRIAL = 17.6
RECORDING_MB, TRIAL_MB = 1.0, 0.085
"""A recording as OpenSim writes it, and its trial in Parquet (docs/results/scale.md)."""
PAIRS_OF_A_TRIAL, TOKENS_OF_A_PAIR, EPOCHS = 3.8, 170, 1.2
"""The paper's questions and answers of a trial, tokens of each, and epochs."""
GPU_TOKENS_S = 9800.0
"""Training of the 1B model on one H200 with checkpointing (docs/results/scale.md)."""
ANSWERS_S = 348.0
"""Questions a second that the demo's model scores on two cores, without the server (docs/results/scale.md)."""
DRIVER_KB = 3.7
"""Memory of the driver for a recording: row, inputs and results of tasks, hash, listing (docs/results/scale.md)."""
DOLLARS_A_GB_MONTH, DOLLARS_A_GET, DOLLARS_A_PUT = 0.023, 0.4e-6, 5e-6
"""S3 Standard."""


@dataclass(frozen=True)
class Cluster:
    """Where it runs."""

    nodes: int = 20
    """Machines for data."""
    cores: int = 16
    """Cores of each."""
    network_mb_s: float = 125.0
    """Network of each, 1 Gbit/s."""
    gpus: int = 8
    """GPUs for training."""
    driver_gb: float = 64.0
    """Memory of the driver's machine."""
    requests_s: float = 5500.0
    """GET requests a second of one prefix of S3."""


def seconds_to_read(recordings: int = 20) -> float:
    """Core seconds to read, check and resample one recording of SECONDS_OF_A_TRIAL, as a task does."""
    rng = np.random.default_rng(0)
    frames = int(100 * SECONDS_OF_A_TRIAL)
    time_s = np.arange(frames) / 100
    angles = 0.3 * np.sin(time_s[:, None] * 6 + rng.uniform(0, 6, len(NAMES)))
    pelvis = np.tile([0.0, 0.95, 0.0, 1.0, 0.0, 0.0, 0.0], (frames, 1))
    content = opensim.write(time_s, angles, pelvis).encode()
    begin = time.process_time()
    for _ in range(recordings):
        recording = readers.parse("walk.mot", content, readers.ReaderSettings())
        prepare("walk.mot", recording, QualitySettings(), FRAME_HZ)
    return (time.process_time() - begin) / recordings


def real_time_of_tokenizing(seconds: float = 3.0) -> float:
    """How many seconds of movement one core tokenizes a second, with the paper's network."""
    torch.set_num_threads(1)
    network = MotionVQVAE(NetworkSettings(), LossSettings()).eval()
    movement = torch.randn(16, int(FRAME_HZ * SECONDS_OF_A_TRIAL) // 4 * 4, len(NAMES))
    done, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        network.encode(movement, torch.ones(movement.shape[:2]))
        done += len(movement)
    return done * SECONDS_OF_A_TRIAL / (time.perf_counter() - begin)


def kb_of_a_row(rows: int) -> float:
    """Kilobytes that a row of annotations.csv takes in the driver, with so many rows and no annotation in them.

    The later steps add the rows' annotations and the results of tasks: 3.7 kB in all (docs/results/scale.md).
    """
    columns = [name for name in simulator.COLUMNS if name != "trial"]
    header = ",".join(["path", "participant", *columns])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    lines = (f"p{i // 20}/t{i % 20}.mot,p{i // 20}" + "," * len(columns) for i in range(rows))
    table = AnnotationTable.parse("annotations.csv", "\n".join([header, *lines]).encode())
    assert len(table.rows) == rows
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / rows


def plan(
    participants: int, trials: int, questions_a_day: float, rates: dict[str, float], cluster: Cluster
) -> dict[str, float | str]:
    """Storage, requests, hours and replicas for so many participants.

    `bottleneck` names the longest step, or the driver's memory where that is too small.
    """
    recordings = participants * trials
    cores = cluster.nodes * cluster.cores
    raw_gb, stored_gb = recordings * RECORDING_MB / 1000, recordings * TRIAL_MB / 1000
    shards = max(1, round(stored_gb * 1000 / 87))
    gets, puts = 3 * recordings, shards
    hours = {
        "requests": gets / cluster.requests_s / 3600,
        "network": 3 * raw_gb * 1000 / (cluster.nodes * cluster.network_mb_s) / 3600,
        "reading": 2 * recordings * rates["read_s"] / cores / 3600,
        "tokenization": recordings * SECONDS_OF_A_TRIAL / rates["tokenize_x"] / cores / 3600,
        "training": recordings
        * (PAIRS_OF_A_TRIAL * TOKENS_OF_A_PAIR * EPOCHS / GPU_TOKENS_S)
        / cluster.gpus
        / 3600,
    }
    driver_gb = recordings * max(rates["row_kb"], DRIVER_KB) / 1e6
    slowest = max(hours, key=lambda name: hours[name])
    return {
        "participants": participants,
        "recordings_gb": round(raw_gb, 1),
        "stored_gb": round(stored_gb, 2),
        "shards": shards,
        "requests": gets + puts,
        "request_dollars": round(gets * DOLLARS_A_GET + puts * DOLLARS_A_PUT, 2),
        "storage_dollars_month": round((raw_gb + stored_gb) * DOLLARS_A_GB_MONTH, 2),
        **{f"{name}_hours": round(value, 2) for name, value in hours.items()},
        "gpu_hours": round(hours["training"] * cluster.gpus, 1),
        "driver_gb": round(driver_gb, 2),
        # All questions of a day in eight hours, at half of what a replica can.
        "replicas": max(1, round(participants * questions_a_day / 8 / 3600 / (ANSWERS_S / 2))),
        "bottleneck": "the driver's memory" if driver_gb > cluster.driver_gb else slowest,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the table that is measured")
    parser.add_argument("--trials", type=int, default=20, help="recordings of a participant")
    parser.add_argument("--questions-a-day", type=float, default=5.0, help="about each participant")
    options = parser.parse_args()
    rates = {
        "row_kb": round(kb_of_a_row(options.rows), 3),
        "read_s": round(seconds_to_read(), 4),
        "tokenize_x": round(real_time_of_tokenizing()),
    }
    print(f"measured: {rates}")
    plans = [
        plan(n, options.trials, options.questions_a_day, rates, Cluster()) for n in (500, 50_000, 5_000_000)
    ]
    for name in plans[0]:
        print(f"{name:>24}", *(f"{one[name]!s:>20}" for one in plans))
    print(json.dumps({**rates, "rows": options.rows, "plans": plans}))


if __name__ == "__main__":
    main()
