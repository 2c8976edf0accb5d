"""Exercises and movements of everyday life that are neither walking nor a clinical test.

Each is a sequence of postures, given by the orientation of segments in the sagittal plane, so that a foot that
stands is flat on the ground. Amplitudes and times differ between performances. Largest angles of squats, jumps and
runs are near those of public recordings: squat knee 87 to 117, hip 90 to 116, ankle 28 to 39 degrees; run of 2 m/s
knee 88, hip 52; jump knee 100, hip 113. Stairs: Protopapadaki et al., Clin Biomech 2007; 22: 203-210. Running:
Novacheck, Gait Posture 1998; 7: 77-95, from memory. Lunges, step-ups and ranges of motion are chosen. Knows nothing
about impairments and labels.
"""

from collections.abc import Callable

import numpy as np
from scipy.interpolate import CubicSpline, PchipInterpolator

from biomechgpt.simulator.activities import Activity, ActivityTrace, GaitStyle
from biomechgpt.simulator.movement import COLUMNS, CYCLE, Timeline, columns, joint, mirror, smooth_noise

Posture = np.ndarray
"""(COLUMNS,) degrees beside the standing posture."""


def posture(
    *,
    tilt: float = 0.0,
    trunk: float = 0.0,
    thigh: tuple[float, float] = (0.0, 0.0),
    shank: tuple[float, float] = (0.0, 0.0),
    foot: tuple[float, float] = (0.0, 0.0),
    **joints: float,
) -> Posture:
    """A posture by the orientation of segments, in degrees beside standing.

    tilt, trunk: of pelvis and trunk; forwards is negative.
    thigh, shank, foot: right and left; the thigh forwards and the toes up are positive.
    joints: further joints by name, with or without side, such as arm_flex or arm_add_r.
    """
    result = np.zeros(len(COLUMNS))
    result[joint("pelvis_tilt")] = tilt
    result[joint("lumbar_extension")] = trunk - tilt
    for k, side in enumerate("rl"):
        result[joint("hip_flexion", side)] = thigh[k] - tilt
        result[joint("knee_angle", side)] = shank[k] - thigh[k]
        result[joint("ankle_angle", side)] = foot[k] - shank[k]
    return np.asarray(result + of_joints(joints))


def of_joints(joints: dict[str, float]) -> Posture:
    """A posture by joints alone, each by name with or without side, in degrees beside standing."""
    result = np.zeros(len(COLUMNS))
    for name, value in joints.items():
        for i in columns(name):
            result[i] += value
    return result


STAND = posture()
Key = tuple[float, Posture]
"""(seconds since the last key, posture)."""


def _through(keys: list[Key], rate: float) -> np.ndarray:
    """Postures (T, COLUMNS) through these keys, without overshoot; the first key is at its own time."""
    ends = np.cumsum([seconds for seconds, _ in keys])
    table = np.stack([keys[0][1], *(p for _, p in keys)])
    at = np.concatenate([[0.0], np.maximum(ends, 1e-3)])
    time = np.arange(round(ends[-1] * rate)) / rate
    return np.asarray(PchipInterpolator(at, table)(time))


def _trace(poses: np.ndarray) -> ActivityTrace:
    timeline = Timeline.still(len(poses))
    timeline.pose[:] = poses
    return ActivityTrace(timeline, np.zeros(len(poses)))


def _repeated(
    rng: np.random.Generator,
    style: GaitStyle,
    rate: float,
    cycle_s: float,
    once: Callable[[], list[Key]],
    stand: Posture = STAND,
) -> ActivityTrace:
    """An exercise, as often as its time allows, three times at least. stand: posture at its beginning."""
    keys: list[Key] = [(rng.uniform(0.1, 0.4), stand)]
    for _ in range(max(3, round(style.duration_s / cycle_s))):
        keys += once()
    return _trace(_through(keys, rate))


def _arms(rng: np.random.Generator) -> tuple[Posture, Posture]:
    """Two postures of the arms: the one they keep all the time, and what is added while the body is lowest.

    Arms hang, are held forwards, in front of the chest, across it, or on the hips; or they rise while the body
    sinks.
    """
    held: dict[str, float] = {}
    raised: dict[str, float] = {}
    match int(rng.choice(6, p=[0.2, 0.1, 0.35, 0.12, 0.08, 0.15])):
        case 0:
            raised = {"arm_flex": rng.uniform(60, 110), "elbow_flex": rng.uniform(-10, 15)}
        case 1:
            held = {"arm_flex": rng.uniform(60, 95), "elbow_flex": rng.uniform(-10, 15)}
        case 2:  # hands together in front of the chest
            held = {"arm_flex": rng.uniform(-5, 30), "elbow_flex": rng.uniform(50, 110), "arm_rot": 20.0}
            raised = {
                "arm_flex": rng.uniform(20, 115),
                "elbow_flex": rng.uniform(-20, 15),
                "arm_rot": rng.uniform(-30, 30),
                "arm_add": rng.uniform(-15, 15),
            }
        case 3:  # across the chest
            held = {"arm_flex": rng.uniform(10, 45), "elbow_flex": rng.uniform(80, 120), "arm_rot": 30.0}
            raised = {"arm_flex": rng.uniform(0, 50)}
        case 4:  # on the hips
            held = {"arm_add": -rng.uniform(25, 40), "elbow_flex": rng.uniform(60, 90)}
        case _:
            raised = {"arm_flex": rng.uniform(-5, 25)}
    return of_joints(held), of_joints(raised)


def squat(rng: np.random.Generator, style: GaitStyle, rate: float) -> ActivityTrace:
    """Squats with both feet flat, some with more load on one side."""
    depth, lean, tempo = rng.uniform(0.7, 1.12), rng.uniform(0.6, 1.2), rng.uniform(0.8, 1.5)
    aside, (held, raised) = rng.normal(0, 2.5), _arms(rng)
    stand, rest_s = STAND + held, rng.choice([0.6, rng.uniform(0.6, 2.5)], p=[0.65, 0.35])

    def once() -> list[Key]:
        d = depth * rng.uniform(0.93, 1.05)
        low = posture(tilt=-36 * d * lean, trunk=-52 * d * lean, thigh=(78 * d, 78 * d - aside),
                      hip_adduction=-6 * d,
                      shank=(-30 * d, -30 * d + aside), neck_extension=18 * d * lean)  # fmt: skip
        low += held + raised
        return [(tempo * rng.uniform(0.9, 1.2), low), (rng.uniform(0.05, 0.3), low),
                (tempo * rng.uniform(0.8, 1.1), stand), (rest_s * rng.uniform(0.2, 1.0), stand)]  # fmt: skip

    return _repeated(rng, style, rate, 2.1 * tempo + 0.6 * rest_s, once, stand)


def jump(rng: np.random.Generator, style: GaitStyle, rate: float) -> ActivityTrace:
    """Countermovement jumps, with or without the arms."""
    depth, height_m, arms = rng.uniform(0.7, 1.15), rng.uniform(0.1, 0.42), rng.random() < 0.6
    flight_s = float(np.sqrt(8 * height_m / 9.81))
    keys: list[Key] = [(rng.uniform(0.3, 0.8), STAND)]
    take_offs = []
    swing = rng.uniform(60, 130) if arms else 0.0
    for _ in range(int(np.clip(round(style.duration_s / 3.5), 1, 5))):
        d = depth * rng.uniform(0.9, 1.05)
        low = posture(tilt=-34 * d, trunk=-54 * d, thigh=(68 * d, 68 * d), shank=(-29 * d, -29 * d),
                      arm_flex=-40.0 if arms else 0.0, neck_extension=12)  # fmt: skip
        off = posture(tilt=2, trunk=4, thigh=(-4, -4), shank=(2, 2), foot=(-44, -44), arm_flex=swing)
        air = posture(thigh=(6, 6), shank=(-8, -8), foot=(-34, -34), arm_flex=0.8 * swing)
        land = posture(tilt=-20, trunk=-32, thigh=(46, 46), shank=(-22, -22), arm_flex=0.3 * swing)
        keys += [(rng.uniform(0.45, 0.65), low), (rng.uniform(0.24, 0.34), off)]
        take_offs.append(sum(seconds for seconds, _ in keys))
        keys += [(flight_s / 2, air), (flight_s / 2, off * 0.6), (rng.uniform(0.18, 0.3), land),
                 (rng.uniform(0.4, 0.8), STAND), (rng.uniform(0.4, 1.6), STAND)]  # fmt: skip
    trace = _trace(_through(keys, rate))
    time = np.arange(len(trace.turning)) / rate
    for start in take_offs:
        since = np.clip(time - start, 0, flight_s)
        trace.timeline.climb[:] += 9.81 / 2 * since * (flight_s - since)
    return trace


def lunge(rng: np.random.Generator, style: GaitStyle, rate: float) -> ActivityTrace:
    """Lunges with a step forward and back, the legs in turn or one alone."""
    depth, tempo, alternate = rng.uniform(0.7, 1.1), rng.uniform(0.8, 1.3), rng.random() < 0.7
    (held, raised), left = _arms(rng), [bool(rng.random() < 0.5)]
    stand = STAND + held

    def once() -> list[Key]:
        d = depth * rng.uniform(0.92, 1.06)
        step = held + posture(thigh=(34, -14), shank=(4, -24), foot=(6, -22))
        low = posture(tilt=-6, trunk=-10 * d, thigh=(72 * d, -18), shank=(-4, -72 * d), foot=(0, -62 * d))
        low += held + raised
        keys = [(0.6 * tempo, step), (0.8 * tempo * rng.uniform(0.9, 1.1), low), (0.7 * tempo, step),
                (0.7 * tempo, stand), (rng.uniform(0.2, 0.8), stand)]  # fmt: skip
        if left[0]:
            keys = [(seconds, mirror(p)) for seconds, p in keys]
        left[0] ^= alternate
        return keys

    return _repeated(rng, style, rate, 3.4 * tempo, once, stand)


def step_up(rng: np.random.Generator, style: GaitStyle, rate: float) -> ActivityTrace:
    """Steps onto a box and down again, the legs in turn or one alone."""
    height_m, tempo, alternate = rng.uniform(0.12, 0.3), rng.uniform(0.8, 1.3), rng.random() < 0.5
    lift = float(np.interp(height_m, [0.1, 0.3], [0.75, 1.25]))
    left, ups = [bool(rng.random() < 0.5)], []
    keys: list[Key] = [(rng.uniform(0.1, 0.4), STAND)]
    for _ in range(max(2, round(style.duration_s / (4.0 * tempo)))):
        place = posture(trunk=-12, tilt=-6, thigh=(58 * lift, -2), shank=(-14, -6), foot=(0, -4))
        push = posture(trunk=-18, tilt=-9, thigh=(34 * lift, -6), shank=(-20, -14), foot=(0, -28))
        bring = posture(trunk=-6, thigh=(4, 48 * lift), shank=(-2, -38), foot=(0, -42))
        down = posture(trunk=-12, tilt=-6, thigh=(38 * lift, 6), shank=(-26, -4), foot=(0, -12))
        one: list[Key] = [
            (0.6 * tempo, place),
            (0.4 * tempo, push),
            (0.5 * tempo, bring),
            (0.5 * tempo, STAND),
        ]
        ups.append((sum(s for s, _ in [*keys, *one[:2]]), 0.5 * tempo))
        one += [
            (rng.uniform(0.1, 0.6), STAND),
            (0.6 * tempo, down),
            (0.6 * tempo, STAND),
            (rng.uniform(0.1, 0.6), STAND),
        ]
        ups.append((sum(s for s, _ in [*keys, *one[:5]]), -0.6 * tempo))
        keys += [(s, mirror(p)) for s, p in one] if left[0] else one
        left[0] ^= alternate
    trace = _trace(_through(keys, rate))
    time = np.arange(len(trace.turning)) / rate
    for start, seconds in ups:
        part = np.clip((time - start) / abs(seconds), 0, 1)
        trace.timeline.climb[:] += np.sign(seconds) * height_m * (0.5 - 0.5 * np.cos(np.pi * part))
    return trace


def single_leg_stance(rng: np.random.Generator, style: GaitStyle, rate: float) -> ActivityTrace:
    """Standing on one leg; unsteady people sway more and put the foot down."""
    thigh, shank, left = rng.uniform(5, 55), -rng.uniform(40, 80), rng.random() < 0.5
    spread, shank = -rng.uniform(0, 25), min(shank, thigh - 30)
    up = posture(
        thigh=(thigh, 0),
        shank=(shank, 0),
        foot=(shank - rng.uniform(0, 20), 0),  # the raised foot hangs
        pelvis_list=-2.0,
        lumbar_bending=3.0,
        arm_add=spread,
    )
    keys: list[Key] = [(rng.uniform(0.3, 1.0), STAND)]
    while sum(seconds for seconds, _ in keys) < style.duration_s:
        held = rng.exponential(25 / (0.4 + 3 * style.unsteady)) + 1.5
        held = min(held, max(style.duration_s - sum(s for s, _ in keys), 1.5))
        keys += [(0.8, up), (held, up), (0.7, STAND), (rng.uniform(0.3, 1.5), STAND)]
    trace = _trace(_through([(s, mirror(p)) for s, p in keys] if left else keys, rate))
    sway = smooth_noise(rng, len(trace.turning), 3, 0.3, rate) * (1 + 2 * style.unsteady)
    for name, size, k in (
        ("lumbar_bending", 1.2, 0),
        ("arm_add_r", 3.0, 1),
        ("arm_add_l", 3.0, 2),
        ("pelvis_list", 0.6, 0),
    ):
        trace.timeline.pose[:, joint(name)] += size * sway[:, k]
    stands = "l" if not left else "r"
    trace.timeline.pose[:, joint("hip_adduction", stands)] += 1.0 * sway[:, 0]
    trace.timeline.pose[:, joint("ankle_angle", stands)] += 1.2 * sway[:, 1]
    lifted = np.clip(-trace.timeline.pose[:, joint("knee_angle", "l" if left else "r")] / 20, 0, 1)
    trace.timeline.lift[:] = -lifted if left else lifted
    return trace


_RANGES: dict[str, tuple[float, float]] = {
    "arm_flex": (-30, 150), "arm_add": (-150, 20), "arm_rot": (-50, 60), "elbow_flex": (0, 125),
    "hip_flexion": (-12, 85), "hip_adduction": (-35, 12), "knee_angle": (-100, 0), "ankle_angle": (-30, 15),
    "lumbar_extension": (-60, 18), "lumbar_bending": (-28, 28), "lumbar_rotation": (-32, 32),
    "neck_extension": (-40, 40), "neck_bending": (-30, 30), "neck_rotation": (-60, 60),
}  # fmt: skip
"""Least and largest angle of an active range of motion beside standing, degrees; chosen."""


def range_of_motion(rng: np.random.Generator, style: GaitStyle, rate: float) -> ActivityTrace:
    """Some joints, one after the other, through their range."""
    keys: list[Key] = [(rng.uniform(0.3, 1.0), STAND)]
    while sum(seconds for seconds, _ in keys) < style.duration_s:
        name = str(rng.choice(list(_RANGES)))
        sides = name in COLUMNS or (
            ("hip", "knee", "ankle").count(name.split("_")[0]) == 0 and rng.random() < 0.5
        )
        column = name if sides else f"{name}_{'r' if rng.random() < 0.5 else 'l'}"
        low, high = (end * rng.uniform(0.6, 1.05) for end in _RANGES[name])
        for _ in range(int(rng.integers(2, 5))):
            bent = {
                "knee_angle": {column: low},
                "hip_flexion": {column: high, column.replace("hip_flexion", "knee_angle"): -high},
            }
            most, least = (bent.get(name, {column: end}) for end in (high, low))
            keys += [
                (rng.uniform(0.7, 1.6), of_joints(most)),
                (rng.uniform(0.7, 1.6), of_joints(least) if name not in bent else STAND),
            ]
        keys.append((rng.uniform(0.5, 1.0), STAND))
    return _trace(_through(keys, rate))


def static_pose(rng: np.random.Generator, style: GaitStyle, rate: float) -> ActivityTrace:
    """A pose that is held for the calibration of cameras and models: T, N, or arms half raised."""
    arms = {
        0: {"arm_add": -85.0, "elbow_flex": -14.0},
        1: {"elbow_flex": -10.0},
        2: {"arm_add": -35.0, "elbow_flex": -8.0},
    }
    held = of_joints(arms[int(rng.integers(3))] | {"arm_rot": rng.normal(0, 8)})
    frames = round(style.duration_s * rate)
    sway = smooth_noise(rng, frames, len(COLUMNS), 0.8, rate) * (0.4 + 0.4 * style.unsteady)
    return _trace(held + sway)


_RUN: dict[str, dict[int, float]] = {
    "hip_flexion": {0: 30, 14: 24, 38: -12, 46: -10, 70: 32, 84: 40},
    "knee_angle": {0: -12, 14: -38, 34: -18, 46: -34, 68: -92, 86: -48, 95: -16},
    "ankle_angle": {0: 4, 17: 24, 38: -20, 52: -10, 75: 4, 92: 8},
    "hip_adduction": {0: 0, 14: 8, 38: 0, 65: -4, 85: -2},
    "arm_flex": {0: -26, 25: -6, 50: 22, 75: 2},
    "elbow_flex": {0: 82, 50: 66, 75: 74},
}
_ASCENT: dict[str, dict[int, float]] = {
    "hip_flexion": {0: 52, 20: 40, 45: 12, 62: 6, 80: 58, 90: 62},
    "knee_angle": {0: -62, 20: -48, 45: -14, 60: -22, 78: -92, 92: -72},
    "ankle_angle": {0: 8, 20: 14, 45: 4, 62: -26, 80: 4, 92: 10},
}
_DESCENT: dict[str, dict[int, float]] = {
    "hip_flexion": {0: 10, 20: 12, 45: 16, 65: 32, 80: 34, 92: 18},
    "knee_angle": {0: -10, 12: -24, 40: -34, 62: -88, 78: -68, 92: -14},
    "ankle_angle": {0: -24, 12: 4, 45: 28, 62: 14, 80: -12, 92: -24},
}


def _cyclic(table: dict[str, dict[int, float]], phase: np.ndarray, factor: float) -> np.ndarray:
    """Postures (T, COLUMNS) of a table of curves at `phase` (T,), in strides; the left leg half a stride later."""
    result = np.zeros((len(phase), len(COLUMNS)))
    for name, points in table.items():
        curve = CubicSpline([*points, CYCLE], [*points.values(), points[0]], bc_type="periodic")
        for side, late in (("r", 0.0), ("l", 0.5)):
            result[:, joint(name, side)] += factor * curve((phase + late) % 1.0 * CYCLE)
    return result


def run(rng: np.random.Generator, style: GaitStyle, rate: float) -> ActivityTrace:
    """Running, from a jog to a sprint: faster means larger excursions and more strides."""
    effort = rng.choice([rng.uniform(0.85, 1.15), rng.uniform(1.15, 1.75)], p=[0.65, 0.35])
    frames = round(style.duration_s * rate)
    stride_hz = (0.65 + 0.78 * effort) * rng.normal(1, 0.04)
    beat = 1 + (0.015 + 0.04 * style.unsteady) * smooth_noise(rng, frames, 1, 0.4, rate)[:, 0]
    phase = rng.random() + np.cumsum(stride_hz * beat) / rate
    poses = _cyclic(_RUN, phase, effort)
    behind = rng.normal(-10, 12)
    # Hips and arms gain more than knees do. A sprinter's elbow opens and closes by 80 degrees.
    for s in "rl":
        poses[:, joint("hip_flexion", s)] *= effort**0.4
        # Many runners keep their upper arms behind the trunk.
        poses[:, joint("arm_flex", s)] = effort**0.8 * poses[:, joint("arm_flex", s)] + behind
        elbow = poses[:, joint("elbow_flex", s)] / effort
        poses[:, joint("elbow_flex", s)] = 74 + effort**3 * (elbow - 74) + rng.normal(0, 6)
    lean = rng.uniform(4, 14) * effort
    radians = 2 * np.pi * phase
    poses += posture(tilt=-rng.uniform(7, 18), trunk=-lean)
    for name, size in (("lumbar_rotation", -11), ("pelvis_rotation", 5)):
        poses[:, joint(name)] += size * effort * np.cos(radians)
    # The pelvis drops to the side of the free leg, in a sprint by 10 degrees and more.
    poses[:, joint("pelvis_list")] -= 2.5 * effort**2.5 * np.sin(radians)
    poses[:, joint("lumbar_bending")] += 5 * np.sin(radians)
    trace = _trace(poses)
    # The right foot bears load from its strike on for 37 % of the stride, then nobody's foot does, then the left.
    right, left = (phase % 1.0) < 0.43, ((phase + 0.5) % 1.0) < 0.43
    trace.timeline.lift[:] = np.where(right & ~left, -1.0, np.where(left & ~right, 1.0, 0.0))
    return trace


def _stairs(table: dict[str, dict[int, float]], cycle_s: float, direction: int) -> Activity:
    def perform(rng: np.random.Generator, style: GaitStyle, rate: float) -> ActivityTrace:
        frames = round(style.duration_s * rate)
        stride_s = cycle_s * style.slow**0.7 * rng.normal(1, 0.07)
        beat = 1 + (0.025 + 0.09 * style.unsteady) * smooth_noise(rng, frames, 1, 0.4, rate)[:, 0]
        phase = rng.random() + np.cumsum(beat / stride_s) / rate
        poses = _cyclic(table, phase, rng.uniform(0.9, 1.08))
        lean = rng.uniform(4, 16) if direction > 0 else rng.uniform(0, 6)
        poses += posture(tilt=-0.5 * lean, trunk=-lean)
        poses[:, joint("lumbar_bending")] += 3 * np.sin(2 * np.pi * phase)
        trace = _trace(poses)
        trace.timeline.climb[:] = direction * 2 * 0.17 * (phase - phase[0])
        load = np.sin(2 * np.pi * phase)
        trace.timeline.lift[:] = -np.clip(4 * load, -1, 1)
        return trace

    return perform


def turn(rng: np.random.Generator, style: GaitStyle, rate: float) -> ActivityTrace:
    """Turns on the spot to both sides, with small steps."""
    frames = round(style.duration_s * rate)
    timeline = Timeline.still(frames)
    turning = np.zeros(frames)
    start, way = 0.0, 1.0 if rng.random() < 0.5 else -1.0
    time = np.arange(frames) / rate
    while start < style.duration_s:
        seconds = (0.7 + 1.7 * rng.choice([1.0, 2.0])) * style.slow * rng.uniform(0.85, 1.2)
        here = (time >= start) & (time < start + seconds)
        timeline.size[here] = 0.3 * style.size
        timeline.turn[here] = way
        turning[here] = way * rng.uniform(0.8, 1.2) * np.pi / 1.7 / style.slow
        start += seconds + rng.uniform(0.3, 1.5)
        way = -way if rng.random() < 0.7 else way
    timeline.strides[:] = rng.random() + np.cumsum(np.full(frames, 1.1 * style.stride_hz)) / rate
    return ActivityTrace(timeline, turning)


EXERCISES: dict[str, tuple[Activity, float]] = {
    "running": (run, 0.20),
    "squat": (squat, 0.20),
    "jump": (jump, 0.18),
    "stairs up": (_stairs(_ASCENT, 1.45, 1), 0.06),
    "stairs down": (_stairs(_DESCENT, 1.25, -1), 0.05),
    "step-up": (step_up, 0.06),
    "lunge": (lunge, 0.08),
    "single-leg stance": (single_leg_stance, 0.05),
    "range of motion": (range_of_motion, 0.04),
    "static pose": (static_pose, 0.04),
    "turning": (turn, 0.04),
}
"""{activity: (its function, its share of the exercises)}."""

STRENUOUS = ("running", "squat", "jump", "step-up", "lunge", "single-leg stance")
"""Exercises that nobody asks of people with a severe impairment."""
