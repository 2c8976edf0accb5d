"""What is known of a recording before any question: whether it is like the training data, and what it contains."""

from dataclasses import dataclass

import numpy as np

from biomechgpt.motion import gait
from biomechgpt.motion.skeleton import PARTS, TRACKED


@dataclass(frozen=True)
class MovementStatistics:
    """Figures of one recording that decide whether, and which, questions about it can be answered.

    duration_s: its duration, in seconds.
    steps: number of steps in it.
    legs_recorded: whether every tracked joint of the legs was recorded.
    distance: distance to the most similar training movements (`answering.ood`); None without reference movements.
    rmse_deg: reconstruction error of its motion tokens in degrees; None if it is not known.
    provenance: recorded or synthetic; None if it is not known.
    """

    duration_s: float
    steps: int
    legs_recorded: bool = True
    distance: float | None = None
    rmse_deg: float | None = None
    provenance: str | None = None


def measure_statistics(angles_rad: np.ndarray, joint_mask: np.ndarray, rate_hz: float) -> MovementStatistics:
    """What the joint angles of a recording tell by themselves: duration, steps, and whether the legs were recorded.

    angles_rad: (T, 34) radians.
    joint_mask: (34,) bool, True for each recorded joint.
    """
    walk = gait.measure(angles_rad, gait.walked(angles_rad, rate_hz), rate_hz)
    legs = PARTS["legs"][TRACKED[PARTS["legs"]]]
    return MovementStatistics(
        duration_s=len(angles_rad) / rate_hz,
        steps=walk.steps,
        legs_recorded=bool(np.asarray(joint_mask)[legs].all()),
    )
