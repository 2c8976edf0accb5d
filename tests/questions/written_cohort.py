"""A cohort artifact written without Ray: eight trials of four participants."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from biomechgpt.core import artifact, storage
from biomechgpt.core.artifact import Artifact
from biomechgpt.motion import trial
from biomechgpt.motion.skeleton import N_JOINTS

N_TRIALS = 8
COLUMNS = {"activity": "text", "freezing": "text", "cadence": "number"}


def write_cohort(root: Path) -> Artifact:
    """Trials t0 to t7; every second one freezes; those of p3 are test trials."""
    trials = [
        trial.Trial(
            trial=f"t{n}",
            participant=f"p{n // 2}",
            angles_rad=np.zeros((30, N_JOINTS), dtype=np.float32),
            pelvis=np.zeros((30, 7), dtype=np.float32),
            frame_rate_hz=30.0,
            split="test" if n // 2 == 3 else "train",
            annotations={"activity": "turning", "freezing": ["no", "yes"][n % 2], "cadence": 90.0 + n},
        )
        for n in reversed(range(N_TRIALS))
    ]

    def build(uri: str) -> dict:
        Path(uri, "trials").mkdir(parents=True)
        pq.write_table(trial.table(trials, COLUMNS), f"{uri}/trials/0.parquet")
        info = {"annotations": COLUMNS, "frame_rate_hz": 30.0, "participants": {"train": 3, "test": 1},
                "trials": N_TRIALS, "hours": 0.1, "quarantined": []}  # fmt: skip
        storage.write_json(f"{uri}/cohort.json", info)
        return {}

    return artifact.make("cohort", 1, {}, {}, build, str(root), provenance="synthetic")
