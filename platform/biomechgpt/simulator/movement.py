"""How the simulated body moves: one gait cycle a person, and the movements built from it.

A person's gait is a table (CYCLE, 34) of degrees over one stride, row 0 the right heel strike, beside a
standing and a sitting posture (34,). Impairments and devices change these tables; `play` turns a timeline
of drives (how far a stride has come, how large it is, sitting, leaning, turning) into angles. Pure functions
of arrays: knows nothing about participants, labels or files.

Curves: digitised by hand from the textbook means of self-selected walking (Perry and Burnfield, Gait
Analysis, 2nd ed. 2010; Winter, Biomechanics and Motor Control of Human Movement, 4th ed. 2009), a few
degrees off at most places.
"""

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.ndimage import gaussian_filter1d

from biomechgpt.motion.kinematics import travel_m
from biomechgpt.motion.skeleton import INDEX, N_JOINTS, mirror

CYCLE = 100
"""Rows of a gait table: percent of a stride."""
HIP_HEIGHT = 0.53
"""Hip to ground, of height (Winter 2009, figure 4.1)."""

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
    """A person's tables, in degrees: cycle (CYCLE, 34), stand (34,), sit (34,); leg_m: hip to ground.

    rhythm: above 0 the right foot stands shorter than the left, 0.2 by about 5 % of the stride each.
    """

    cycle: np.ndarray
    stand: np.ndarray
    sit: np.ndarray
    leg_m: float
    rhythm: float = 0.0

    def position(self, strides: np.ndarray) -> np.ndarray:
        """Rows of the cycle (T,), with fractions, that are played at `strides` (T,) done so far."""
        rows = np.arange(CYCLE + 1) / CYCLE
        load = stance(rows)
        # The time that each row takes: less while the foot that is favoured stands alone.
        takes = 1 + self.rhythm * (load[:, 1] - load[:, 0])
        ends = np.concatenate([[0.0], np.cumsum(takes[:-1])])
        return np.interp(strides % 1.0, ends / ends[-1], rows) * CYCLE % CYCLE

    def mirrored(self) -> "Body":
        """The same person in a mirror: sides change, and the strike of the right heel is half a stride on."""
        cycle = np.roll(mirror(self.cycle), CYCLE // 2, axis=0)
        return Body(cycle, mirror(self.stand), mirror(self.sit), self.leg_m, -self.rhythm)


def joint(name: str, side: str = "") -> int:
    """Index of `knee_angle`, side "r" (or of a joint without sides)."""
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
    turn = 2 * np.pi * phase / CYCLE
    cycle[:, joint("lumbar_extension")] += 1.5 * np.cos(2 * turn)
    cycle[:, joint("lumbar_bending")] += 3.5 * np.sin(turn)
    cycle[:, joint("lumbar_rotation")] -= 6.0 * np.cos(turn)
    cycle[:, joint("neck_rotation")] += 4.0 * np.cos(turn)
    return Body(cycle, stand, sit, leg_m)


def stance(phase: np.ndarray) -> np.ndarray:
    """Load (T, 2) on the right and left foot at `phase` (T,), in strides since a right heel strike.

    Stance is 62 % of the stride, 12 % of it shared with the other foot at either end (Perry and Burnfield).
    """

    def foot(since: np.ndarray) -> np.ndarray:
        since = since % 1.0
        return np.clip(np.minimum(since, 0.62 - since) / 0.12, 0, 1)

    return np.stack([foot(phase), foot(phase + 0.5)], axis=1) + 1e-3


def stride_m(body: Body, sizes: np.ndarray) -> np.ndarray:
    """Stride lengths (N,) of walking at `sizes` (N,), which scale the gait table's excursion."""
    phase = np.arange(CYCLE + 1)
    level = np.tile([1.0, 0.0, 0.0, 0.0], (CYCLE + 1, 1))
    load = stance(phase / CYCLE)
    lengths = []
    for size in sizes:
        angles = body.stand + size * (body.cycle[phase % CYCLE] - body.stand)
        place = travel_m(np.radians(angles), level, load, height_m=body.leg_m / HIP_HEIGHT)
        lengths.append(place[-1, 0])
    return np.array(lengths)


@dataclass
class Timeline:
    """What drives the body, each (T,): the person's own time course of one trial.

    strides: strides done so far (its fraction is the phase). size: of the gait, 0 is standing.
    sit: 1 is sitting. lean, turn: trunk forward, turning to the left; 1 is full.
    side: a side step, 1 with the right foot lifted, -1 with the left.
    climb: metres up so far. extra: (T, 34) degrees on top, what an activity asks for.
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


def play(body: Body, drive: Timeline, rate_hz: float) -> np.ndarray:
    """Angles (T, 34) in degrees of `body` driven by `drive`; drives are smoothed as limbs' inertia would."""
    sit, size, lean, side, turn = (
        gaussian_filter1d(x, 0.16 * rate_hz, mode="nearest")
        for x in (drive.sit, drive.size, drive.lean, drive.side, drive.turn)
    )
    at = body.position(drive.strides)
    low = at.astype(int) % CYCLE
    part = (at - low)[:, None]
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
    # Head, then trunk lead a turn; the inner leg turns out.
    angles[:, joint("neck_rotation")] += 22 * turn
    angles[:, joint("lumbar_rotation")] += 9 * turn
    angles[:, joint("hip_rotation", "l")] -= 11 * np.maximum(turn, 0)
    angles[:, joint("hip_rotation", "r")] -= 11 * np.maximum(-turn, 0)
    return angles + gaussian_filter1d(drive.extra, 0.1 * rate_hz, axis=0, mode="nearest")


def pelvis(
    body: Body, angles_deg: np.ndarray, drive: Timeline, turn_rad_s: np.ndarray, rate_hz: float
) -> np.ndarray:
    """(T, 7) float32: where the pelvis goes because the standing foot stays, heading turned at turn_rad_s (T,)."""
    heading = np.cumsum(turn_rad_s) / rate_hz
    zero = np.zeros_like(heading)
    turned = np.stack([np.cos(heading / 2), zero, np.sin(heading / 2), zero], axis=1)
    going = np.clip(drive.size / 0.1, 0, 1)[:, None]
    load = going * stance(body.position(drive.strides) / CYCLE) + (1 - going) * 0.5
    lifted = np.clip(np.stack([drive.side, -drive.side], axis=1), 0, 1)
    load = np.maximum(load * (1 - lifted), 1e-3)
    place = travel_m(np.radians(angles_deg), turned, load, height_m=body.leg_m / HIP_HEIGHT)
    place[:, 1] += drive.climb
    return np.concatenate([place, turned], axis=1).astype(np.float32)


def wander(
    rng: np.random.Generator, frames: int, channels: int, seconds: float, rate_hz: float
) -> np.ndarray:
    """Smooth noise (T, channels) of unit variance whose memory is about `seconds`."""
    sigma = max(seconds * rate_hz, 1e-3)
    noise = gaussian_filter1d(rng.standard_normal((frames, channels)), sigma, axis=0, mode="wrap")
    return noise * np.sqrt(2 * np.sqrt(np.pi) * sigma) if sigma > 0.5 else noise
