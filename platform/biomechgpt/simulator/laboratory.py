"""Laboratories: what the same movement looks like, recorded by different people with different cameras and models.

A laboratory's model sets zero angles and ranges of its own, its marker or camera set tracks some joints badly or
not at all, its cameras have a rate and its filter a cut-off. Knows nothing about people, activities and labels.

Offsets and ranges: the walks of six public sources differ by this much in their mean angles; comparisons of models
and marker sets report 2 to 9 degrees for the pelvis, the hip's rotation and the ankle. Noise: markerless against
marker-based capture differs by 2 to 5 degrees at hip, knee and ankle flexion, most of it slow, and by 6 to 14 in
rotations of the hip and of the forearm (docs/results/simulator.md).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field
from scipy.ndimage import gaussian_filter1d

from biomechgpt.core.settings import Settings
from biomechgpt.motion.skeleton import N_JOINTS
from biomechgpt.simulator.movement import COLUMNS, columns, joint, per_column, smooth_noise

_ZERO_SD = {
    "pelvis_tilt": 4.0, "hip_flexion": 3.0, "hip_adduction": 1.5, "hip_rotation": 4.0, "knee_angle": 2.5,
    "ankle_angle": 4.0, "subtalar_angle": 6.0, "mtp_angle": 3.0, "lumbar_extension": 5.0, "lumbar_bending": 1.0,
    "neck_extension": 6.0, "arm_flex": 6.0, "arm_add": 6.0, "arm_rot": 12.0, "elbow_flex": 5.0, "pro_sup": 22.0,
    "wrist_flex": 8.0, "wrist_dev": 5.0,
}  # fmt: skip
"""SD between laboratories of the angle that they call zero, degrees."""
_RANGE_SD = {"hip_adduction": 0.15, "hip_rotation": 0.3, "ankle_angle": 0.1, "subtalar_angle": 0.5, "arm_rot": 0.3,
             "pelvis_list": 0.2, "pelvis_rotation": 0.15,
             "lumbar_bending": 0.25, "lumbar_rotation": 0.25}  # fmt: skip
"""SD between laboratories of a joint's excursion, relative."""
_SESSION_SD = {
    "hip_flexion": 1.5, "hip_adduction": 1.0, "hip_rotation": 3.0, "knee_angle": 1.5, "ankle_angle": 1.5,
    "subtalar_angle": 2.0, "mtp_angle": 2.0, "arm_flex": 2.0, "arm_add": 2.0, "arm_rot": 4.0, "elbow_flex": 2.0,
    "pro_sup": 8.0, "wrist_flex": 6.0, "wrist_dev": 4.0, "pelvis_tilt": 1.0, "lumbar_extension": 1.5,
    "neck_extension": 2.0,
}  # fmt: skip
"""SD between a person's sessions, for each side alone: where markers or models are put, degrees."""
_NOISE_SD = {
    "hip_flexion": 0.9, "hip_adduction": 0.8, "hip_rotation": 2.0, "knee_angle": 1.0, "ankle_angle": 1.3,
    "subtalar_angle": 1.8, "mtp_angle": 2.5, "lumbar_extension": 1.0, "lumbar_bending": 0.8, "lumbar_rotation": 1.0,
    "neck_extension": 1.8, "neck_bending": 1.5, "neck_rotation": 2.0, "arm_flex": 1.5, "arm_add": 1.3,
    "arm_rot": 3.0,
    "elbow_flex": 1.6, "pro_sup": 6.0, "wrist_flex": 6.0, "wrist_dev": 4.0, "pelvis_tilt": 0.5, "pelvis_list": 0.4,
    "pelvis_rotation": 0.5,
}  # fmt: skip
"""SD of the error from frame to frame, degrees. Most of it is slow: body models bend with clothes and soft
tissue."""
_SLOW_S, _FAST_S = 0.35, 0.05
"""Width of the Gaussian kernel of the slow and the fast part of the noise, in seconds."""
_FAST_SHARE = 0.35
"""SD of the fast part, relative to the slow part."""
_ABSENT = {
    "neck": (("neck_extension", "neck_bending", "neck_rotation"), 0.4),
    "wrists": (("wrist_flex", "wrist_dev"), 0.35),
    "feet": (("subtalar_angle", "mtp_angle"), 0.3),
    "forearms": (("pro_sup",), 0.15),
    "arms": (("arm_flex", "arm_add", "arm_rot", "elbow_flex", "pro_sup", "wrist_flex", "wrist_dev"), 0.06),
}
"""{group: (its joints, share of laboratories that do not record them)}. All 52 public files that were looked at
lack neck and wrists. The paper's recordings have them, so here most laboratories do."""


class LaboratorySettings(Settings):
    """How different the laboratories of the simulated recordings are."""

    variety: float = Field(1.0, ge=0)
    """Factor on the SDs of zero angles, ranges and noise. 0: one exact laboratory."""
    absent: float = Field(1.0, ge=0)
    """Factor on the shares of laboratories that do not record the neck, the wrists, the feet or the arms."""
    count: int = Field(60, ge=1)
    """Number of laboratories."""
    each: Literal["participant", "trial"] = "participant"
    """Whether a laboratory is drawn for each participant or for each trial. With one for each trial, a model sees
    more laboratories, and cannot recognise people by theirs."""
    seed: int = Field(0, ge=0)
    """Seed of the laboratories. Another one changes them and not the movements."""


@dataclass(frozen=True)
class Laboratory:
    """One laboratory.

    zero: (COLUMNS,) degrees added to each angle.
    excursion: (COLUMNS,) factor on the excursion about the standing angle.
    noise: factor on the noise.
    recorded: (34,) bool: the joints that its model has.
    cutoff_s: width of the Gaussian kernel that its filter amounts to.
    dropped: share of the frames that are lost and filled in.
    """

    zero: np.ndarray
    excursion: np.ndarray
    noise: float
    recorded: np.ndarray
    cutoff_s: float
    dropped: float


def laboratory(settings: LaboratorySettings, number: int) -> Laboratory:
    """The laboratory of this number; it depends on nothing else."""
    rng = np.random.default_rng([settings.seed, 2, number % settings.count])
    zero, excursion = np.zeros(len(COLUMNS)), np.ones(len(COLUMNS))
    # A model has the same zero on both sides.
    for table, result in ((_ZERO_SD, zero), (_RANGE_SD, excursion)):
        for name, sd in table.items():
            value = settings.variety * sd * rng.standard_normal()
            for i in columns(name):
                result[i] += value
    # A model that tilts the pelvis leaves thighs and trunk where they are.
    for i in (joint("hip_flexion", "r"), joint("hip_flexion", "l"), joint("lumbar_extension")):
        zero[i] -= zero[joint("pelvis_tilt")]
    recorded = np.ones(N_JOINTS, dtype=bool)
    for joints, share in _ABSENT.values():
        if rng.random() < share * settings.absent:
            recorded &= ~np.isin(
                [name.removesuffix("_r").removesuffix("_l") for name in COLUMNS[:N_JOINTS]], joints
            )
    return Laboratory(
        zero=zero,
        excursion=np.clip(excursion, 0.3, 1.8),
        noise=settings.variety * float(np.exp(0.25 * rng.standard_normal())),
        recorded=recorded,
        cutoff_s=settings.variety * float(rng.uniform(0.01, 0.028)),
        dropped=settings.variety * float(rng.choice([0.0, 0.0, 0.01, 0.03])),
    )


def recorded_in(
    settings: LaboratorySettings, seed: int, person: int, trial: int
) -> tuple[Laboratory, np.ndarray]:
    """The laboratory of a trial, and the degrees (COLUMNS,) that its session adds to each angle.

    A session adds the laboratory's zero, and how a person was prepared.
    """
    if settings.each == "participant":
        rng = np.random.default_rng([seed, 3, person])
        where = laboratory(settings, person)
    else:
        rng = np.random.default_rng([seed, 3, person, trial])
        where = laboratory(settings, int(rng.integers(settings.count)))
    prepared = settings.variety * per_column(_SESSION_SD) * rng.standard_normal(len(COLUMNS))
    return where, np.asarray(where.zero + prepared)


def record(
    where: Laboratory,
    added: np.ndarray,
    stand: np.ndarray,
    angles_deg: np.ndarray,
    rate_hz: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """The angles (T, COLUMNS) in degrees that a laboratory records of a movement.

    added: degrees of `recorded_in`.
    stand: (COLUMNS,) standing posture, about which excursions are scaled.
    """
    frames = len(angles_deg)
    angles = stand + where.excursion * (angles_deg - stand) + added
    noise = smooth_noise(rng, frames, len(COLUMNS), _SLOW_S, rate_hz)
    noise += _FAST_SHARE * smooth_noise(rng, frames, len(COLUMNS), _FAST_S, rate_hz)
    angles += where.noise * per_column(_NOISE_SD) * noise / np.hypot(1, _FAST_SHARE)
    if where.cutoff_s:
        angles = gaussian_filter1d(angles, where.cutoff_s * rate_hz, axis=0, mode="nearest")
    kept = rng.random(frames) >= where.dropped
    kept[[0, -1]] = True
    if not kept.all():
        at = np.arange(frames)
        for i in range(angles.shape[1]):
            angles[:, i] = np.interp(at, at[kept], angles[kept, i])
    return np.asarray(angles)
