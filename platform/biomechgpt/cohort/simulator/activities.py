"""What simulated participants are recorded doing: a timeline an activity, and the times that follow.

Each function returns an `Act`: the drives, and the seconds that a timed test took, read off its own timeline.
Knows nothing about impairments: only how fast, how large and how steadily this person moves today.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from biomechgpt.cohort.simulator.movement import Timeline, joint, wander

Segment = tuple[str, float, float]
"""(what, seconds, amount): sit, rise, walk, turn (amount: half turns to the left), lower, stand."""


@dataclass(frozen=True)
class Manner:
    """How a person moves today. stride_hz and size of a steady walk, its speed_m_s; unsteady: 0 to about 1;
    slow: seconds that a transition takes, 1 is brisk."""

    stride_hz: float
    size: float
    speed_m_s: float
    unsteady: float
    slow: float


@dataclass(frozen=True)
class Act:
    """A played activity: pelvis speed (T,) m/s, turning rate (T,) rad/s, seconds that a timed test took."""

    drive: Timeline
    speed: np.ndarray
    turning: np.ndarray
    test_s: float | None = None


Activity = Callable[[np.random.Generator, Manner, float], Act]


def _strides(rng: np.random.Generator, manner: Manner, pace: np.ndarray, rate: float) -> np.ndarray:
    """Strides done by each frame at `pace` (T,) times the usual rate, unsteadily."""
    jitter = 0.02 + 0.09 * manner.unsteady
    beat = 1 + jitter * wander(rng, len(pace), 1, 0.4, rate)[:, 0]
    return rng.random() + np.cumsum(manner.stride_hz * pace * beat) / rate


def _sequence(rng: np.random.Generator, manner: Manner, segments: list[Segment], rate: float) -> Act:
    """Sitting, rising, walking and turning, one after the other."""
    ends = np.cumsum([seconds for _, seconds, _ in segments])
    frames = round(ends[-1] * rate)
    time = np.arange(frames) / rate
    drive = Timeline.still(frames)
    turning, pace = np.zeros(frames), np.ones(frames)
    for (what, seconds, amount), end in zip(segments, ends, strict=True):
        here = (time >= end - seconds) & (time < end)
        part = (time[here] - (end - seconds)) / seconds
        if what == "sit":
            drive.sit[here] = 1.0
        elif what in ("rise", "lower"):
            up = 0.5 - 0.5 * np.cos(np.pi * np.clip((part - 0.25) / 0.75, 0, 1))
            drive.sit[here] = 1 - up if what == "rise" else up[::-1]
            drive.lean[here] = np.sin(np.pi * part) * amount
        elif what == "walk":
            drive.size[here] = manner.size * amount
        elif what == "turn":
            drive.size[here] = 0.4 * manner.size
            drive.turn[here] = np.sign(amount) * np.sin(np.pi * part)
            turning[here] = np.pi * amount / seconds
            pace[here] = 1.05
    drive.strides[:] = _strides(rng, manner, pace, rate)
    speed = manner.speed_m_s * drive.size / manner.size
    return Act(drive, speed, turning)


def walk(rng: np.random.Generator, manner: Manner, rate: float) -> Act:
    """Steady walking, recorded from mid-stride to mid-stride."""
    return _sequence(rng, manner, [("walk", rng.uniform(5, 13), 1.0)], rate)


def sit(rng: np.random.Generator, manner: Manner, rate: float) -> Act:
    """Sitting, now and then leaning or looking about."""
    act = _sequence(rng, manner, [("sit", rng.uniform(5, 13), 0.0)], rate)
    frames = len(act.speed)
    act.drive.lean[:] = 0.18 * wander(rng, frames, 1, 1.2, rate)[:, 0]
    look, arms = wander(rng, frames, 1, 0.7, rate)[:, 0], wander(rng, frames, 4, 0.8, rate)
    act.drive.extra[:, joint("neck_rotation")] = 11 * look
    for k, name in enumerate(("arm_flex_r", "elbow_flex_r", "arm_flex_l", "elbow_flex_l")):
        act.drive.extra[:, joint(name)] = 5 * arms[:, k]
    return act


def _timed(rng: np.random.Generator, manner: Manner, middle: list[Segment], rate: float) -> Act:
    """Sit, rise, `middle`, turn, sit down: the clock runs from leaving the chair to sitting again."""
    rise = ("rise", 1.25 * manner.slow * rng.uniform(0.9, 1.1), 1.0)
    lower = ("lower", 1.35 * manner.slow * rng.uniform(0.9, 1.1), 0.9)
    body: list[Segment] = [rise, *middle, _turn(rng, manner, 1.0), lower]
    before, after = (("sit", rng.uniform(0.4, 1.2), 0.0) for _ in range(2))
    act = _sequence(rng, manner, [before, *body, after], rate)
    return Act(act.drive, act.speed, act.turning, sum(seconds for _, seconds, _ in body))


def _turn(rng: np.random.Generator, manner: Manner, half_turns: float) -> Segment:
    seconds = (0.4 + 1.1 * abs(half_turns)) * manner.slow * rng.uniform(0.9, 1.1)
    return "turn", seconds, half_turns * (1 if rng.random() < 0.5 else -1)


def _way(manner: Manner, metres: float) -> Segment:
    """A straight walk; starting and stopping cost half a stride."""
    return "walk", metres / manner.speed_m_s + 0.5 / manner.stride_hz, 1.0


def tug(rng: np.random.Generator, manner: Manner, rate: float) -> Act:
    """Timed up and go: 3 m there and back (Podsiadlo and Richardson 1991)."""
    return _timed(rng, manner, [_way(manner, 3), _turn(rng, manner, 1.0), _way(manner, 3)], rate)


def l_test(rng: np.random.Generator, manner: Manner, rate: float) -> Act:
    """L-test: 3 m, a right angle, 7 m, and back (Deathe and Miller 2005)."""
    half = [_way(manner, 3), _turn(rng, manner, 0.5), _way(manner, 7)]
    middle = [*half, _turn(rng, manner, 1.0), _way(manner, 7), _turn(rng, manner, -0.5), _way(manner, 3)]
    return _timed(rng, manner, middle, rate)


def fsst(rng: np.random.Generator, manner: Manner, rate: float) -> Act:
    """Four square step test: forward, right, back, left, and the same way back (Dite and Temple 2002)."""
    moves = ["forward", "right", "back", "left", "right", "forward", "left", "back"]
    pause = rng.uniform(0.3, 0.8, 2)
    lasts = (0.45 + 0.55 / manner.stride_hz) * manner.slow * rng.uniform(0.9, 1.1, len(moves))
    frames = round((pause.sum() + lasts.sum()) * rate)
    time, drive = np.arange(frames) / rate, Timeline.still(frames)
    speed, pace, start = np.zeros(frames), np.zeros(frames), pause[0]
    for move, seconds in zip(moves, lasts, strict=True):
        here = (time >= start) & (time < start + seconds)
        part = (time[here] - start) / seconds
        way = {"forward": 1.0, "back": -1.0, "right": 0.0, "left": 0.0}[move]
        drive.size[here] = (0.8 if way > 0 else 0.6) * manner.size * abs(way)
        # One foot goes to that side, then the other follows.
        drive.side[here] = {"right": 1.0, "left": -1.0}.get(move, 0.0) * np.sin(2 * np.pi * part)
        pace[here] = way / seconds / manner.stride_hz
        speed[here] = 0.35 * way / seconds
        start += seconds
    drive.strides[:] = _strides(rng, manner, pace, rate)
    return Act(drive, speed, np.zeros(frames), float(lasts.sum()))


def fga(rng: np.random.Generator, manner: Manner, rate: float) -> Act:
    """One item of the functional gait assessment (Wrisley et al. 2004), drawn at random."""
    frames = round(rng.uniform(5, 12) * rate)
    time, drive, pace = np.arange(frames) / rate, Timeline.still(frames), np.ones(frames)
    drive.size[:] = manner.size
    item = rng.choice(["turn head", "nod", "tandem", "backward", "change speed", "obstacle"])
    look = np.sin(2 * np.pi * (rng.uniform(0.28, 0.4) * time + rng.random()))
    if item == "turn head":
        drive.extra[:, joint("neck_rotation")] = 38 * np.tanh(2 * look) * rng.uniform(0.7, 1.1)
        drive.size *= 0.92
    elif item == "nod":
        drive.extra[:, joint("neck_extension")] = 24 * np.tanh(2 * look) * rng.uniform(0.7, 1.1)
        drive.size *= 0.92
    elif item == "tandem":
        drive.size *= 0.45
        pace *= 0.65
        for s in "rl":
            drive.extra[:, joint("hip_adduction", s)] += 5
            drive.extra[:, joint("arm_add", s)] -= 18
    elif item == "backward":
        drive.size *= 0.55
        pace *= -0.85
    elif item == "change speed":
        change = np.where((time * 3 / time[-1]).astype(int) % 2 == 1, 1.0, -1.0) * rng.choice([-1, 1])
        pace *= 1 + 0.3 * change
        drive.size *= 1 + 0.3 * change
    else:
        for centre in time[-1] * (np.arange(3) + rng.uniform(0.3, 0.7, 3)) / 3:
            for s, delay in (("r", 0.0), ("l", 0.5 / manner.stride_hz)):
                over = np.exp(-0.5 * ((time - centre - delay) / 0.22) ** 2)
                drive.extra[:, joint("hip_flexion", s)] += 38 * over
                drive.extra[:, joint("knee_angle", s)] -= 55 * over
        drive.size *= 0.9
    drive.strides[:] = _strides(rng, manner, pace, rate)
    speed = manner.speed_m_s * pace * drive.size / manner.size
    return Act(drive, speed, np.zeros(frames))


ACTIVITIES: dict[str, tuple[Activity, float]] = {
    "walkway": (walk, 0.26),
    "overground walking": (walk, 0.16),
    "TUG": (tug, 0.13),
    "L-test": (l_test, 0.06),
    "FSST": (fsst, 0.11),
    "FGA": (fga, 0.18),
    "sitting": (sit, 0.10),
}
"""Each kind of trial and its share of a cohort's trials. A walkway trial is overground walking, measured."""
