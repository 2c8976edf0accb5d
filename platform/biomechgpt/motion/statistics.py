"""What is known of a recording before any question: whether it is like the training data, and what it contains."""

from dataclasses import dataclass

import numpy as np

from biomechgpt.motion.skeleton import INDEX

NEEDED = tuple(
    INDEX[f"{joint}_{side}"]
    for joint in ("hip_flexion", "hip_adduction", "knee_angle", "ankle_angle")
    for side in "rl"
)
"""Joints of the legs without which no movement is judged. Many laboratories' models lack the subtalar joint."""


@dataclass(frozen=True)
class MovementStatistics:
    """Figures of one recording that decide whether, and which, questions about it can be answered.

    duration_s: its duration, in seconds.
    steps: number of steps in it.
    phases: what else it contains: `rise` from a chair, `lower` onto one.
    legs_recorded: whether hips, knees and ankles were recorded, the joints of NEEDED.
    distance: distance to the most similar training movements (`answering.ood`); None without reference movements.
    rmse_deg: reconstruction error of its motion tokens in degrees; None if it is not known.
    provenance: recorded or synthetic; None if it is not known.
    """

    duration_s: float
    steps: int
    phases: tuple[str, ...] = ()
    legs_recorded: bool = True
    distance: float | None = None
    rmse_deg: float | None = None
    provenance: str | None = None


def measure_statistics(angles_rad: np.ndarray, joint_mask: np.ndarray, rate_hz: float) -> MovementStatistics:
    """What the joint angles of a recording tell by themselves: duration, steps, phases, recorded legs.

    angles_rad: (T, 34) radians.
    joint_mask: (34,) bool, True for each recorded joint.
    """
    # They load scipy.signal, which takes a second. Training and a prompt need only the class above.
    from biomechgpt.motion import gait
    from biomechgpt.motion.phases import posture, transitions

    # Steps and phases do not depend on where the pelvis is, so it may stay upright in one place.
    pelvis = np.zeros((len(angles_rad), 7), np.float32)
    pelvis[:, 3] = 1
    steps = gait.events(angles_rad, pelvis, rate_hz).steps()
    kinds = {transition.kind for transition in transitions(posture(angles_rad, pelvis, rate_hz))}
    return MovementStatistics(
        duration_s=len(angles_rad) / rate_hz,
        steps=len(steps),
        phases=tuple(sorted(kinds)),
        legs_recorded=bool(np.asarray(joint_mask)[list(NEEDED)].all()),
    )
