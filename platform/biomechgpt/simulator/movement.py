"""Movement of the simulated body, built from one gait cycle per person.

A person's gait is a table (CYCLE, COLUMNS) of degrees over one stride (row 0: right heel strike), with a standing
and a sitting posture (COLUMNS,). The columns are the 34 joints, then tilt, list and rotation of the pelvis.
Impairments and devices change these tables. `animate` turns a timeline (stride phase, stride size, sitting,
leaning, turning) into angles. `pelvis_of` places the pelvis so that loaded feet stay where they are. Pure functions
of arrays. Knows nothing about participants, labels or files.

Curves: digitised by hand from the textbook means of self-selected walking (Perry and Burnfield, Gait Analysis, 2nd
ed. 2010; Winter, Biomechanics and Motor Control of Human Movement, 4th ed. 2009), a few degrees off at most places.
In the models that recordings come from, the pelvis of a standing person is nearly level (tilt -2 to 9 degrees
backwards in ten walks of five sources), where clinical models have 10 degrees forwards. So the textbook's hip
flexion is 8 degrees less here. Subtalar angle, adduction and rotation of the arm, which textbooks do not show, are
the medians of nine of these walks.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from biomechgpt.motion.kinematics import LANDMARKS, pelvis_path, points_m
from biomechgpt.motion.norms import gait_band
from biomechgpt.motion.skeleton import INDEX, N_JOINTS
from biomechgpt.motion.skeleton import mirror as mirror_joints

CYCLE = 100
"""Rows of a gait table: one per percent of a stride."""
PELVIS = ("pelvis_tilt", "pelvis_list", "pelvis_rotation")
"""Columns after the joints: about Z (positive: backwards), X (to the right) and Y (to the left), in this order."""
COLUMNS = (*INDEX, *PELVIS)
HIP_HEIGHT = 0.53
"""Height of the hip above the ground, in fractions of body height (Winter 2009, figure 4.1)."""

_RIGHT_LEG: dict[str, dict[int, float]] = {
    "hip_flexion": {0: 20, 10: 16, 30: -2, 50: -19, 60: -13, 75: 14, 86: 25},
    "knee_angle": {0: -4, 13: -18, 38: -5, 50: -12, 60: -36, 72: -62, 86: -28, 95: -4},
    "subtalar_angle": {0: 4, 20: -4, 40: 0, 55: 7, 64: 5, 75: -2, 88: -5},
    "mtp_angle": {0: 8, 12: 0, 40: 4, 58: 28, 72: 6, 90: 10},
    "arm_flex": {0: -14, 25: -2, 50: 20, 75: 6},
    "arm_add": {0: 1, 45: -2, 70: 0},
    "arm_rot": {0: -5, 25: -3, 50: 5, 70: 4},
    "elbow_flex": {0: 16, 50: 36, 75: 24},
}
_FROM_NORM = ("hip_adduction", "hip_rotation", "ankle_angle")
"""Joints of the leg whose curves are the means of `motion.norms.gait_band`. Curves of textbooks are too smooth
here: people's hips turn in and out twice a stride."""
# At the right heel strike the pelvis is turned to the left. It drops to the unloaded side after each heel strike.
# It drops as quickly, and the trunk turns against it as far, as in public recordings.
_PELVIS: dict[str, dict[int, float]] = {
    "pelvis_tilt": {0: 0.3, 12: -0.7, 30: 0.6, 45: 0.7},
    "pelvis_list": {
        0: 0.6,
        9: -3.2,
        17: -4.8,
        28: -1.4,
        40: -0.6,
        50: -0.6,
        59: 3.2,
        67: 4.8,
        78: 1.4,
        90: 0.6,
    },
    "pelvis_rotation": {0: 4.5, 25: 0.5, 50: -4.5, 75: -0.5},
}

_STAND = {"pelvis_tilt": 2, "lumbar_extension": -9, "arm_flex": 2, "arm_add": -8, "arm_rot": 4, "elbow_flex": 16,
          "hip_flexion": 2, "knee_angle": -5, "hip_adduction": -1, "hip_rotation": -2,
          "ankle_angle": 1, "pro_sup": 60, "wrist_flex": 6, "wrist_dev": 2}  # fmt: skip
_SIT = {"pelvis_tilt": 12, "hip_flexion": 72, "knee_angle": -93, "ankle_angle": 9, "hip_adduction": -7,
        "hip_rotation": -3, "lumbar_extension": -22, "arm_flex": 24, "arm_add": -9, "arm_rot": 14, "elbow_flex": 62,
        "pro_sup": 70, "wrist_flex": 10, "wrist_dev": 0}  # fmt: skip


@dataclass(frozen=True)
class Body:
    """A person's gait and postures, in degrees.

    cycle: (CYCLE, COLUMNS) one stride.
    stand: (COLUMNS,) standing posture.
    sit: (COLUMNS,) sitting posture.
    leg_m: height of the hip above the ground.
    rhythm: asymmetry of stance. Above 0 the right stance is shorter than the left; 0.2 shifts about 5 % of the
        stride.
    """

    cycle: np.ndarray
    stand: np.ndarray
    sit: np.ndarray
    leg_m: float
    rhythm: float = 0.0

    def durations(self) -> np.ndarray:
        """(CYCLE,) share of the stride's time that each row takes: less while only the affected foot bears load."""
        load = stance(np.arange(CYCLE) / CYCLE)
        relative = 1 + self.rhythm * (load[:, 1] - load[:, 0])
        return np.asarray(relative / relative.sum())

    def position(self, strides: np.ndarray) -> np.ndarray:
        """Row of the cycle (T,), fractional, after `strides` (T,) completed strides."""
        ends = np.concatenate([[0.0], np.cumsum(self.durations())])
        return np.interp(strides % 1.0, ends, np.arange(CYCLE + 1)) % CYCLE

    def mirrored(self) -> "Body":
        """The mirror image: sides change, and the right heel strike moves by half a stride."""
        cycle = np.roll(mirror(self.cycle), CYCLE // 2, axis=0)
        return Body(cycle, mirror(self.stand), mirror(self.sit), self.leg_m, -self.rhythm)


_COLUMN = {name: k for k, name in enumerate(COLUMNS)}


def joint(name: str, side: str = "") -> int:
    """Column of a joint by name and side, e.g. "knee_angle" and "r"; no side for trunk, neck and pelvis."""
    return _COLUMN[f"{name}_{side}" if side else name]


def columns(name: str) -> list[int]:
    """The column of a name as it stands, or the right and the left column of a joint without its side."""
    return [joint(name)] if name in _COLUMN else [joint(name, "r"), joint(name, "l")]


def per_column(values: Mapping[str, float], absent: float = 0.0) -> np.ndarray:
    """(COLUMNS,) of a table by joint name, with or without side; `absent` for joints that it lacks."""
    return np.array([values.get(name, values.get(name[:-2], absent)) for name in COLUMNS])


def mirror(table: np.ndarray) -> np.ndarray:
    """The mirror image of a table (..., COLUMNS): sides change, the pelvis lists and turns to the other side."""
    return np.concatenate(
        [mirror_joints(table[..., :N_JOINTS]), table[..., N_JOINTS:] * [1, -1, -1]], axis=-1
    )


def bump(centre: float, width: float) -> np.ndarray:
    """Gaussian (CYCLE,) with its peak of 1 at `centre` percent of the stride and standard deviation `width`."""
    distance = (np.arange(CYCLE) - centre + CYCLE / 2) % CYCLE - CYCLE / 2
    return np.asarray(np.exp(-0.5 * (distance / width) ** 2))


def typical(leg_m: float) -> Body:
    """The textbook gait and postures."""
    phase = np.arange(CYCLE)
    cycle, stand, sit = np.zeros((CYCLE, len(COLUMNS))), np.zeros(len(COLUMNS)), np.zeros(len(COLUMNS))
    for table, posture in ((_STAND, stand), (_SIT, sit)):
        for name, value in table.items():
            for i in [joint(name)] if name in _COLUMN else [joint(name, "r"), joint(name, "l")]:
                posture[i] = value
    cycle[:] = stand

    def periodic(points: dict[int, float]) -> np.ndarray:
        at = [*points, CYCLE]
        return np.asarray(CubicSpline(at, [*points.values(), points[0]], bc_type="periodic")(phase))

    right_leg = {name: periodic(points) for name, points in _RIGHT_LEG.items()}
    for name in _FROM_NORM:
        band = gait_band(f"{name}_r")
        assert band is not None
        right_leg[name] = band[0][:CYCLE]
    for name, curve in right_leg.items():
        cycle[:, joint(name, "r")] = curve
        cycle[:, joint(name, "l")] = np.roll(curve, CYCLE // 2)
    for name, points in _PELVIS.items():
        cycle[:, joint(name)] += periodic(points)
    radians = 2 * np.pi * phase / CYCLE
    cycle[:, joint("lumbar_extension")] += 1.5 * np.cos(2 * radians)
    # The trunk stays upright over the listing pelvis.
    cycle[:, joint("lumbar_bending")] += 3.5 * np.sin(radians) - cycle[:, joint("pelvis_list")]
    cycle[:, joint("lumbar_rotation")] -= 8.0 * np.cos(radians)
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


def orientation(pelvis_deg: np.ndarray, heading_rad: np.ndarray | float = 0.0) -> np.ndarray:
    """Unit quaternions (T, 4; w, x, y, z) of a pelvis with tilt, list and rotation (T, 3), turned by a heading.

    heading_rad: (T,) turn to the left about the vertical.
    """
    heading = np.broadcast_to(heading_rad, len(pelvis_deg))
    turned = Rotation.from_euler("Y", heading[:, None]) * Rotation.from_euler("ZXY", pelvis_deg, degrees=True)
    return np.asarray(turned.as_quat(scalar_first=True))


_GROWTH = {"ankle_angle": 0.5, "subtalar_angle": 0.5, "mtp_angle": 0.5}
"""Power of a stride's size with which a joint's excursion grows; 1 for the others. Longer strides come from the
hips."""
_SWING_KNEE = 0.4
"""The same for the knee of a swinging leg; that of a loaded leg bends in proportion. In swing it bends about 53
degrees in very slow walking and 60 in free walking (Schwartz 2008, quoted from memory): the power was chosen so."""


def _powers() -> np.ndarray:
    """(CYCLE, COLUMNS) power of a stride's size with which each excursion grows."""
    powers = np.tile(per_column(_GROWTH, absent=1.0), (CYCLE, 1))
    load = stance(np.arange(CYCLE) / CYCLE)
    for k, side in enumerate("rl"):
        powers[:, joint("knee_angle", side)] = _SWING_KNEE + (1 - _SWING_KNEE) * np.minimum(load[:, k], 1)
    return powers


_POWERS = _powers()


def excursion(size: np.ndarray | float, row: np.ndarray) -> np.ndarray:
    """Factors (..., COLUMNS) on the excursion of each joint about standing, in strides of this size (...).

    Strides below half the size are beginnings and ends of walking: there all excursions are proportional to it.
    row: (...) int, row of the cycle.
    """
    size = np.maximum(size, 0)[..., None]
    return np.asarray(np.maximum(size, 0.5) ** _POWERS[row] * np.minimum(size / 0.5, 1))


def stride_m(body: Body, sizes: np.ndarray) -> np.ndarray:
    """Stride length (N,) in metres for each of `sizes` (N,), which scale the excursion of the gait table."""
    return np.array([path_m(body, size)[-1, 0] for size in sizes])


def path_m(body: Body, size: float = 1.0) -> np.ndarray:
    """(CYCLE + 1, 2) metres by which the pelvis has moved forward and to the right at each row of a stride."""
    rows = np.arange(CYCLE + 1)
    row = rows % CYCLE
    angles = body.stand + excursion(size, row) * (body.cycle[row] - body.stand)
    level = orientation(angles[:, N_JOINTS:])
    path = pelvis_path(
        np.radians(angles[:, :N_JOINTS]), level, stance(rows / CYCLE), height_m=body.leg_m / HIP_HEIGHT
    )
    return path[:, [0, 2]].astype(float)


_FEET = [[LANDMARKS.index(f"{part}_{side}") for part in ("heel", "ball", "toe")] for side in "rl"]


def foot_heights_m(body: Body) -> np.ndarray:
    """Height of the lowest point of each foot (CYCLE, 2; right, left), where the pelvis keeps its height."""
    pelvis = np.concatenate([np.zeros((CYCLE, 3)), orientation(body.cycle[:, N_JOINTS:])], axis=1)
    angles = np.radians(body.cycle[:, :N_JOINTS])
    points = points_m(angles, pelvis, height_m=body.leg_m / HIP_HEIGHT, ground="none").astype(float)
    return np.asarray(points[:, _FEET, 1].min(axis=2))


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
    extra: (T, COLUMNS) degrees added by the activity, smoothed like the other courses.
    pose: (T, COLUMNS) degrees added by an exercise as they are.
    lift: 1 where the right foot bears no load, -1 where the left bears none.
    """

    strides: np.ndarray
    size: np.ndarray
    sit: np.ndarray
    lean: np.ndarray
    side: np.ndarray
    turn: np.ndarray
    climb: np.ndarray
    extra: np.ndarray
    pose: np.ndarray
    lift: np.ndarray

    @classmethod
    def still(cls, frames: int) -> "Timeline":
        table = (frames, len(COLUMNS))
        shapes: list[tuple[int, ...]] = [*[(frames,)] * 7, table, table, (frames,)]
        return cls(*(np.zeros(shape) for shape in shapes))


def animate(body: Body, timeline: Timeline, rate_hz: float) -> np.ndarray:
    """Angles (T, COLUMNS) in degrees of `body` along `timeline`, smoothed to imitate the inertia of limbs."""
    sit, size, lean, side, turn = (
        gaussian_filter1d(x, 0.16 * rate_hz, mode="nearest")
        for x in (timeline.sit, timeline.size, timeline.lean, timeline.side, timeline.turn)
    )
    # Interpolate linearly between two rows of the gait cycle.
    row = body.position(timeline.strides)
    low = row.astype(int) % CYCLE
    part = (row - low)[:, None]
    stride = body.cycle[low] * (1 - part) + body.cycle[(low + 1) % CYCLE] * part
    angles = body.stand + excursion(size, low) * (stride - body.stand)
    angles = angles + sit[:, None] * (body.sit - angles)
    # The pelvis tilts with the trunk, so the hips bend. The thighs rise a little.
    angles[:, joint("pelvis_tilt")] -= 36 * lean
    angles[:, joint("lumbar_extension")] -= 5 * lean
    for s in "rl":
        angles[:, joint("hip_flexion", s)] += 40 * lean
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
    extra = gaussian_filter1d(timeline.extra, 0.1 * rate_hz, axis=0, mode="nearest")
    return np.asarray(angles + extra + timeline.pose)


def pelvis_of(
    body: Body,
    angles_rad: np.ndarray,
    pelvis_deg: np.ndarray,
    timeline: Timeline,
    turn_rad_s: np.ndarray,
    rate_hz: float,
) -> np.ndarray:
    """Pelvis (T, 7), float32, such that loaded feet do not slide.

    angles_rad: (T, 34) as they are recorded, with noise: the feet are where these angles put them.
    pelvis_deg: (T, 3) tilt, list and rotation of the pelvis.
    turn_rad_s: (T,) turning rate of the heading.
    """
    turned = orientation(pelvis_deg, np.cumsum(turn_rad_s) / rate_hz)
    # Load follows the stance phases while walking and is shared equally while standing.
    walking = np.clip(timeline.size / 0.1, 0, 1)[:, None]
    load = walking * stance(body.position(timeline.strides) / CYCLE) + (1 - walking) * 0.5
    lift = timeline.side + timeline.lift
    lifted = np.clip(np.stack([lift, -lift], axis=1), 0, 1)
    load = np.maximum(load * (1 - lifted), 1e-3)
    position = pelvis_path(angles_rad, turned, load, height_m=body.leg_m / HIP_HEIGHT)
    position[:, 1] += timeline.climb
    return np.concatenate([position, turned], axis=1).astype(np.float32)


def smooth_noise(
    rng: np.random.Generator, frames: int, channels: int, seconds: float, rate_hz: float
) -> np.ndarray:
    """Gaussian noise (T, channels) of unit variance, smoothed with a Gaussian kernel of `seconds`."""
    sigma = max(seconds * rate_hz, 1e-3)
    noise = gaussian_filter1d(rng.standard_normal((frames, channels)), sigma, axis=0, mode="wrap")
    return np.asarray(noise * np.sqrt(2 * np.sqrt(np.pi) * sigma) if sigma > 0.5 else noise)
