"""Held-out movements of the cohort that a model was trained on."""

from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from biomechgpt.cohort import Cohort
from biomechgpt.core.artifact import Artifact
from biomechgpt.motion.skeleton import N_JOINTS


@dataclass(frozen=True)
class Movement:
    """One trial of a test participant.

    angles_rad: (T, 34).
    joint_mask: (34,), True where a joint was recorded.
    """

    trial: str
    angles_rad: np.ndarray
    joint_mask: np.ndarray


def read_held_out(model: Artifact, count: int) -> list[Movement]:
    """At most `count` movements of test participants, evenly spread over the trials."""
    cohort = Cohort(model.input("tokens").input("cohort"))
    table = cohort.table(["trial", "split", "angles_rad", "joint_mask"])
    table = table.filter(pc.field("split") == "test").sort_by("trial")
    rows = list(range(0, len(table), max(len(table) // count, 1)))[:count]
    chosen = table.take(rows)
    return [
        Movement(
            trial.as_py(),
            angles.values.to_numpy().reshape(-1, N_JOINTS),
            np.array(mask.as_py(), dtype=bool),
        )
        for trial, angles, mask in zip(
            chosen["trial"], chosen["angles_rad"], chosen["joint_mask"], strict=True
        )
    ]
