"""Movement of the simulated body, built from one gait cycle per person.

A person's gait is a table (CYCLE, 34) of degrees over one stride (row 0: right heel strike), with a standing and a
sitting posture (34,). Impairments and devices change these tables. `animate` turns a timeline (stride phase, stride
size, sitting, leaning, turning) into joint angles. Pure functions of arrays. Knows nothing about participants,
labels or files.

Curves: digitised by hand from the textbook means of self-selected walking (Perry and Burnfield, Gait
Analysis, 2nd ed. 2010; Winter, Biomechanics and Motor Control of Human Movement, 4th ed. 2009), a few
degrees off at most places.
"""

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.ndimage import gaussian_filter1d

from biomechgpt.motion.kinematics import pelvis_path
from biomechgpt.motion.skeleton import INDEX, N_JOINTS, mirror

CYCLE = 100
"""Rows of a gait table: one per percent of a stride."""
HIP_HEIGHT = 0.53
"""Height of the hip above the ground, in fractions of body height (Winter 2009, figure 4.1)."""

_RIGHT_LEG: dict[str, dict[int, float]] = {
    "hip_flexion": {0: 30, 10: 26, 30: 6, 50: -10, 60: -5, 75: 21, 86: 33},
    "hip_adduction": {0: 0, 15: 6, 35: 3, 55: -1, 65: -6, 85: -3},
    "hip_rotation": {0: -2, 20: 4, 50: 1, 65: -4, 85: -3},
    "knee_angle": {0: -4, 13: -18, 38: -5, 50: -12, 60: -36, 72: -62, 86: -28, 95: -4},
    "ankle_angle": {0: 0, 7: -6, 30: 7, 46: 11, 55: -2, 63: -18, 76: 0, 88: 2},
    "subtalar_angle": {0: 2, 15: -4, 40: -1, 60: 5, 80: 2},
    "mtp_angle": {0: 8, 12: 0, 40: 4, 58: 28, 72: 6, 90: 10},
    "arm_flex": {0: -14, 25: -2, 50: 20, 75: 6},
    "elbow_flex": {0: 16, 50: 36, 75: 24},
}

_STAND = {"lumbar_extension": -4, "arm_flex": 2, "arm_add": -8, "arm_rot": 4, "elbow_flex": 16,
          "hip_flexion": 4, "knee_angle": -5, "hip_adduction": -1, "hip_rotation": -2,
          "ankle_angle": 2, "pro_sup": 40, "wrist_flex": 6, "wrist_dev": 2}  # fmt: skip
_SIT = {"hip_flexion": 82, "knee_angle": -88, "ankle_angle": 4, "hip_adduction": -7, "hip_rotation": -3,
        "lumbar_extension": -12, "arm_flex": 24, "arm_add": -9, "arm_rot": 14, "elbow_flex": 62,
        "pro_sup": 60, "wrist_flex": 10, "wrist_dev": 0}  # fmt: skip


@dataclass(frozen=True)
class Body:
    """A person's gait and postures, in degrees.

    cycle: (CYCLE, 34) one stride.
    stand: (34,) standing posture.
    sit: (34,) sitting posture.
    leg_m: height of the hip above the ground.
    rhythm: asymmetry of stance. Above 0 the right stance is shorter than the left; 0.2 shifts about 5 % of the
        stride.
    """

    cycle: np.ndarray
    stand: np.ndarray
    sit: np.ndarray
    leg_m: float
    rhythm: float = 0.0

    def position(self, strides: np.ndarray) -> np.ndarray:
        """Row of the cycle (T,), fractional, after `strides` (T,) completed strides."""
        rows = np.arange(CYCLE + 1) / CYCLE
        load = stance(rows)
        # Relative duration of each row: shorter while only the affected foot bears load.
        duration = 1 + self.rhythm * (load[:, 1] - load[:, 0])
        ends = np.concatenate([[0.0], np.cumsum(duration[:-1])])
        return np.interp(strides % 1.0, ends / ends[-1], rows) * CYCLE % CYCLE

    def mirrored(self) -> "Body":
        """The mirror image: sides change, and the right heel strike moves by half a stride."""
        cycle = np.roll(mirror(self.cycle), CYCLE // 2, axis=0)
        return Body(cycle, mirror(self.stand), mirror(self.sit), self.leg_m, -self.rhythm)


def joint(name: str, side: str = "") -> int:
    """Index of a joint by name and side, e.g. "knee_angle" and "r"; no side for the trunk and neck."""
    return INDEX[f"{name}_{side}" if side else name]


def typical(leg_m: float) -> Body:
    """The textbook gait and postures."""
    phase = np.arange(CYCLE)
    cycle, stand, sit = np.zeros((CYCLE, N_JOINTS)), np.zeros(N_JOINTS), np.zeros(N_JOINTS)
    for table, posture in ((_STAND, stand), (_SIT, sit)):
        for name, value in table.items():
            for i in [INDEX[name]] if name in INDEX else [joint(name, "r"), joint(name, "l")]:
                posture[i] = value
    cycle[:] = stand
    for name, points in _RIGHT_LEG.items():
        at = [*points, CYCLE]
        curve = CubicSpline(at, [*points.values(), points[0]], bc_type="periodic")(phase)
        cycle[:, joint(name, "r")] = curve
        cycle[:, joint(name, "l")] = np.roll(curve, CYCLE // 2)
    radians = 2 * np.pi * phase / CYCLE
    cycle[:, joint("lumbar_extension")] += 1.5 * np.cos(2 * radians)
    cycle[:, joint("lumbar_bending")] += 3.5 * np.sin(radians)
    cycle[:, joint("lumbar_rotation")] -= 6.0 * np.cos(radians)
    cycle[:, joint("neck_rotation")] += 4.0 * np.cos(radians)
    return Body(cycle, stand, sit, leg_m)


def stance(phase: np.ndarray) -> np.ndarray:
    """Load (T, 2) on the right and left foot at `phase` (T,), in strides since a right heel strike.

    Stance is 62 % of the stride, with 12 % of double support at both ends (Perry and Burnfield).
    """

    def foot(since: np.ndarray) -> np.ndarray:
        since = since % 1.0
        return np.clip(np.minimum(since, 0.62 - since) / 0.12, 0, 1)

    return np.stack([foot(phase), foot(phase + 0.5)], axis=1) + 1e-3


def stride_m(body: Body, sizes: np.ndarray) -> np.ndarray:
    """Stride length (N,) in metres for each of `sizes` (N,), which scale the excursion of the gait table."""
    phase = np.arange(CYCLE + 1)
    level = np.tile([1.0, 0.0, 0.0, 0.0], (CYCLE + 1, 1))
    load = stance(phase / CYCLE)
    lengths = []
    for size in sizes:
        angles = body.stand + size * (body.cycle[phase % CYCLE] - body.stand)
        place = pelvis_path(np.radians(angles), level, load, height_m=body.leg_m / HIP_HEIGHT)
        lengths.append(place[-1, 0])
    return np.array(lengths)


@dataclass
class Timeline:
    """Time course of one trial, each field (T,).

    strides: completed strides; the fraction is the phase.
    size: size of the gait; 0 is standing.
    sit: 1 is sitting.
    lean: trunk leaning forward; 1 is full.
    side: side step, 1 with the right foot lifted, -1 with the left.
    turn: turning to the left; 1 is full.
    climb: metres climbed.
    extra: (T, 34) degrees added by the activity.
    """

    strides: np.ndarray
    size: np.ndarray
    sit: np.ndarray
    lean: np.ndarray
    side: np.ndarray
    turn: np.ndarray
    climb: np.ndarray
    extra: np.ndarray

    @classmethod
    def still(cls, frames: int) -> "Timeline":
        shapes: list[tuple[int, ...]] = [*[(frames,)] * 7, (frames, N_JOINTS)]
        return cls(*(np.zeros(shape) for shape in shapes))


def animate(body: Body, timeline: Timeline, rate_hz: float) -> np.ndarray:
    """Angles (T, 34) in degrees of `body` along `timeline`, which is smoothed to imitate the inertia of limbs."""
    sit, size, lean, side, turn = (
        gaussian_filter1d(x, 0.16 * rate_hz, mode="nearest")
        for x in (timeline.sit, timeline.size, timeline.lean, timeline.side, timeline.turn)
    )
    # Interpolate linearly between two rows of the gait cycle.
    row = body.position(timeline.strides)
    low = row.astype(int) % CYCLE
    part = (row - low)[:, None]
    stride = body.cycle[low] * (1 - part) + body.cycle[(low + 1) % CYCLE] * part
    angles = body.stand + size[:, None] * (stride - body.stand)
    angles = angles + sit[:, None] * (body.sit - angles)
    angles[:, joint("lumbar_extension")] -= 32 * lean
    for s in "rl":
        angles[:, joint("hip_flexion", s)] += 16 * lean
        angles[:, joint("ankle_angle", s)] += 10 * lean
        angles[:, joint("arm_flex", s)] += 14 * lean
    angles[:, joint("hip_adduction", "r")] -= 16 * np.abs(side)
    angles[:, joint("hip_adduction", "l")] -= 16 * np.abs(side)
    for s, lifted in (("r", np.maximum(side, 0)), ("l", np.maximum(-side, 0))):
        angles[:, joint("hip_flexion", s)] += 22 * lifted
        angles[:, joint("knee_angle", s)] -= 38 * lifted
    # The head and the trunk lead a turn; the inner leg rotates outward.
    angles[:, joint("neck_rotation")] += 22 * turn
    angles[:, joint("lumbar_rotation")] += 9 * turn
    angles[:, joint("hip_rotation", "l")] -= 11 * np.maximum(turn, 0)
    angles[:, joint("hip_rotation", "r")] -= 11 * np.maximum(-turn, 0)
    return np.asarray(angles + gaussian_filter1d(timeline.extra, 0.1 * rate_hz, axis=0, mode="nearest"))


def pelvis(
    body: Body, angles_deg: np.ndarray, timeline: Timeline, turn_rad_s: np.ndarray, rate_hz: float
) -> np.ndarray:
    """Pelvis (T, 7), float32, such that the stance foot does not slide; turn_rad_s (T,): turning rate of the
    heading."""
    heading = np.cumsum(turn_rad_s) / rate_hz
    zero = np.zeros_like(heading)
    # Unit quaternion (w, x, y, z) of a rotation about the vertical axis Y.
    orientation = np.stack([np.cos(heading / 2), zero, np.sin(heading / 2), zero], axis=1)
    # Load follows the stance phases while walking and is shared equally while standing.
    walking = np.clip(timeline.size / 0.1, 0, 1)[:, None]
    load = walking * stance(body.position(timeline.strides) / CYCLE) + (1 - walking) * 0.5
    lifted = np.clip(np.stack([timeline.side, -timeline.side], axis=1), 0, 1)
    load = np.maximum(load * (1 - lifted), 1e-3)
    position = pelvis_path(np.radians(angles_deg), orientation, load, height_m=body.leg_m / HIP_HEIGHT)
    position[:, 1] += timeline.climb
    return np.concatenate([position, orientation], axis=1).astype(np.float32)


def smooth_noise(
    rng: np.random.Generator, frames: int, channels: int, seconds: float, rate_hz: float
) -> np.ndarray:
    """Gaussian noise (T, channels) of unit variance, smoothed with a Gaussian kernel of `seconds`."""
    sigma = max(seconds * rate_hz, 1e-3)
    noise = gaussian_filter1d(rng.standard_normal((frames, channels)), sigma, axis=0, mode="wrap")
    return np.asarray(noise * np.sqrt(2 * np.sqrt(np.pi) * sigma) if sigma > 0.5 else noise)
