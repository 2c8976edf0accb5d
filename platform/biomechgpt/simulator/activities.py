"""What simulated participants are recorded doing: a timeline an activity, and the times that follow.

Each function returns an `Act`: the drives, and the seconds that a timed test took, read off its own timeline.
Knows nothing about impairments: only how fast, how large and how steadily this person moves today.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from biomechgpt.simulator.movement import Timeline, joint, wander

Segment = tuple[str, float, float]
"""(what, seconds, amount): sit, rise, walk, turn (amount: half turns to the left), lower, stand."""


@dataclass(frozen=True)
class Manner:
    """How a person moves today. stride_hz and size of a steady walk, its speed_m_s; unsteady: 0 to about 1;
    slow: seconds that a transition takes, 1 is brisk; lasts_s: a recording of what has no end of its own."""

    stride_hz: float
    size: float
    speed_m_s: float
    unsteady: float
    slow: float
    lasts_s: tuple[float, float]

    def quicker(self, factor: float) -> "Manner":
        """Walking `factor` times as fast, by longer and by quicker strides alike."""
        root = factor**0.5
        return replace(
            self, stride_hz=self.stride_hz * root, size=self.size * root, speed_m_s=self.speed_m_s * factor
        )


@dataclass(frozen=True)
class Act:
    """A played activity: turning rate (T,) rad/s, seconds that a timed test took, which item of a battery."""

    drive: Timeline
    turning: np.ndarray
    test_s: float | None = None
    item: str | None = None


Activity = Callable[[np.random.Generator, Manner, float], Act]


def _strides(rng: np.random.Generator, manner: Manner, pace: np.ndarray, rate: float) -> np.ndarray:
    """Strides done by each frame at `pace` (T,) times the usual rate, unsteadily."""
    jitter = 0.02 + 0.09 * manner.unsteady
    beat = 1 + jitter * wander(rng, len(pace), 1, 0.4, rate)[:, 0]
    return rng.random() + np.cumsum(manner.stride_hz * pace * beat) / rate


def _sequence(rng: np.random.Generator, manner: Manner, segments: list[Segment], rate: float) -> Act:
    """Sitting, rising, standing, walking and turning, one after the other."""
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
    return Act(drive, turning)


def straight(rng: np.random.Generator, manner: Manner, rate: float) -> Act:
    """One pass of steady walking, recorded from mid-stride to mid-stride."""
    return _sequence(rng, manner, [("walk", rng.uniform(*manner.lasts_s), 1.0)], rate)


def overground(rng: np.random.Generator, manner: Manner, rate: float) -> Act:
    """Steady walking, often up and down a room with turns between."""
    if rng.random() < 0.5:
        return straight(rng, manner, rate)
    passes = int(rng.integers(2, 5))
    way: Segment = ("walk", rng.uniform(*manner.lasts_s) / passes, 1.0)
    segments = [way]
    for _ in range(passes - 1):
        segments += [_turn(rng, manner, 1.0), way]
    return _sequence(rng, manner, segments, rate)


def sit(rng: np.random.Generator, manner: Manner, rate: float) -> Act:
    """Sitting, now and then leaning or looking about."""
    act = _sequence(rng, manner, [("sit", rng.uniform(*manner.lasts_s), 0.0)], rate)
    frames = len(act.turning)
    act.drive.lean[:] = 0.18 * wander(rng, frames, 1, 1.2, rate)[:, 0]
    look, arms = wander(rng, frames, 1, 0.7, rate)[:, 0], wander(rng, frames, 4, 0.8, rate)
    act.drive.extra[:, joint("neck_rotation")] = 11 * look
    for k, name in enumerate(("arm_flex_r", "elbow_flex_r", "arm_flex_l", "elbow_flex_l")):
        act.drive.extra[:, joint(name)] = 5 * arms[:, k]
    return act


def stand(rng: np.random.Generator, manner: Manner, rate: float) -> Act:
    """Quiet standing, swaying about the ankles, now and then looking about."""
    act = _sequence(rng, manner, [("stand", rng.uniform(*manner.lasts_s), 0.0)], rate)
    sway = wander(rng, len(act.turning), 2, 0.8, rate) * (0.5 + 1.2 * manner.unsteady)
    for s in "rl":
        act.drive.extra[:, joint("ankle_angle", s)] = 1.2 * sway[:, 0]
        act.drive.extra[:, joint("hip_adduction", s)] = (0.8 if s == "r" else -0.8) * sway[:, 1]
    act.drive.extra[:, joint("neck_rotation")] = 5 * wander(rng, len(act.turning), 1, 1.0, rate)[:, 0]
    return act


def sit_to_stand(rng: np.random.Generator, manner: Manner, rate: float) -> Act:
    """Five times sit to stand (Csuka and McCarty 1985; as a test of five, Whitney et al. 2005)."""
    segments: list[Segment] = [("sit", rng.uniform(0.5, 2.0), 0.0)]
    for _ in range(5):
        segments += [_rise(rng, manner), ("stand", rng.uniform(0.15, 0.5), 0.0), _lower(rng, manner),
                     ("sit", rng.uniform(0.1, 0.5) * manner.slow, 0.0)]  # fmt: skip
    return _sequence(rng, manner, segments, rate)


def _rise(rng: np.random.Generator, manner: Manner) -> Segment:
    return "rise", 1.0 * manner.slow * rng.uniform(0.9, 1.1), 1.0


def _lower(rng: np.random.Generator, manner: Manner) -> Segment:
    return "lower", 1.1 * manner.slow * rng.uniform(0.9, 1.1), 0.9


def _turn(rng: np.random.Generator, manner: Manner, half_turns: float) -> Segment:
    seconds = (0.3 + 0.85 * abs(half_turns)) * manner.slow * rng.uniform(0.9, 1.1)
    return "turn", seconds, half_turns * (1 if rng.random() < 0.5 else -1)


def _way(manner: Manner, metres: float) -> Segment:
    """A straight walk, but for the last half metre, which the turn's own steps go; starting costs a third
    of a stride."""
    return "walk", (metres - 0.5) / manner.speed_m_s + 0.33 / manner.stride_hz, 1.0


def _timed(rng: np.random.Generator, manner: Manner, middle: list[Segment], rate: float) -> Act:
    """Sit, rise, `middle`, turn, sit down: the clock runs from leaving the chair to sitting again."""
    body: list[Segment] = [_rise(rng, manner), *middle, _turn(rng, manner, 1.0), _lower(rng, manner)]
    before, after = (("sit", rng.uniform(0.5, 3.0), 0.0) for _ in range(2))
    act = _sequence(rng, manner, [before, *body, after], rate)
    return replace(act, test_s=sum(seconds for _, seconds, _ in body))


def tug(rng: np.random.Generator, manner: Manner, rate: float) -> Act:
    """Timed up and go: 3 m there and back (Podsiadlo and Richardson 1991), a little quicker than a stroll."""
    quick = manner.quicker(1.15)
    return _timed(rng, quick, [_way(quick, 3), _turn(rng, quick, 1.0), _way(quick, 3)], rate)


def l_test(rng: np.random.Generator, manner: Manner, rate: float) -> Act:
    """L-test: 3 m, a right angle, 7 m, and back (Deathe and Miller 2005)."""
    quick = manner.quicker(1.1)
    half = [_way(quick, 3), _turn(rng, quick, 0.5), _way(quick, 7)]
    middle = [*half, _turn(rng, quick, 1.0), _way(quick, 7), _turn(rng, quick, -0.5), _way(quick, 3)]
    return _timed(rng, quick, middle, rate)


def fsst(rng: np.random.Generator, manner: Manner, rate: float) -> Act:
    """Four square step test: forward, right, back, left, and the same way back (Dite and Temple 2002)."""
    moves = ["forward", "right", "back", "left", "right", "forward", "left", "back"]
    pause = rng.uniform(0.3, 1.5, 2)
    lasts = (0.42 + 0.5 / manner.stride_hz) * manner.slow * rng.uniform(0.9, 1.1, len(moves))
    frames = round((pause.sum() + lasts.sum()) * rate)
    time, drive = np.arange(frames) / rate, Timeline.still(frames)
    pace, start = np.zeros(frames), pause[0]
    for move, seconds in zip(moves, lasts, strict=True):
        here = (time >= start) & (time < start + seconds)
        part = (time[here] - start) / seconds
        way = {"forward": 1.0, "back": -1.0, "right": 0.0, "left": 0.0}[move]
        drive.size[here] = (0.8 if way > 0 else 0.6) * manner.size * abs(way)
        # One foot goes to that side, then the other follows.
        drive.side[here] = {"right": 1.0, "left": -1.0}.get(move, 0.0) * np.sin(2 * np.pi * part)
        pace[here] = way / seconds / manner.stride_hz
        start += seconds
    drive.strides[:] = _strides(rng, manner, pace, rate)
    return Act(drive, np.zeros(frames), float(lasts.sum()))


FGA_ITEMS = ("level surface", "change of speed", "head turns", "nods", "pivot turn", "obstacle",
             "narrow base", "eyes closed", "backwards", "stairs")  # fmt: skip


def fga(rng: np.random.Generator, manner: Manner, rate: float) -> Act:
    """One of the ten items of the functional gait assessment (Wrisley et al. 2004), drawn at random."""
    item = str(rng.choice(FGA_ITEMS))
    if item == "pivot turn":
        pivot = ("turn", 1.1 * manner.slow * rng.uniform(0.9, 1.1), rng.choice([-1.0, 1.0]))
        ends = [("walk", 0.5 * rng.uniform(*manner.lasts_s), 1.0), pivot, ("stand", rng.uniform(1, 3), 0.0)]
        return replace(_sequence(rng, manner, ends, rate), item=item)
    frames = round(0.75 * rng.uniform(*manner.lasts_s) * rate)
    time, drive, pace = np.arange(frames) / rate, Timeline.still(frames), np.ones(frames)
    drive.size[:] = manner.size
    look = np.sin(2 * np.pi * (rng.uniform(0.28, 0.4) * time + rng.random()))
    if item == "head turns":
        drive.extra[:, joint("neck_rotation")] = 45 * np.tanh(2 * look) * rng.uniform(0.7, 1.1)
        drive.size *= 0.92
    elif item == "nods":
        drive.extra[:, joint("neck_extension")] = 28 * np.tanh(2 * look) * rng.uniform(0.7, 1.1)
        drive.size *= 0.92
    elif item == "narrow base":
        drive.size *= 0.45
        pace *= 0.65
        for s in "rl":
            drive.extra[:, joint("hip_adduction", s)] += 5
            drive.extra[:, joint("arm_add", s)] -= 18
    elif item == "eyes closed":
        drive.size *= 0.75
        pace *= 0.85
        sway = wander(rng, frames, 3, 0.5, rate) * (1 + 2 * manner.unsteady)
        drive.extra[:, joint("lumbar_bending")] += 2.0 * sway[:, 0]
        for s in "rl":
            drive.extra[:, joint("hip_adduction", s)] += 1.5 * sway[:, 1] - 3
            drive.extra[:, joint("arm_add", s)] += 3.0 * sway[:, 2] - 8
    elif item == "backwards":
        drive.size *= 0.55
        pace *= -0.85
    elif item == "change of speed":
        change = np.where((time * 3 / time[-1]).astype(int) % 2 == 1, 1.0, -1.0) * rng.choice([-1, 1])
        pace *= 1 + 0.3 * change
        drive.size *= 1 + 0.3 * change
    elif item == "obstacle":
        for centre in time[-1] * (np.arange(3) + rng.uniform(0.3, 0.7, 3)) / 3:
            for s, delay in (("r", 0.0), ("l", 0.5 / manner.stride_hz)):
                over = np.exp(-0.5 * ((time - centre - delay) / 0.22) ** 2)
                drive.extra[:, joint("hip_flexion", s)] += 38 * over
                drive.extra[:, joint("knee_angle", s)] -= 55 * over
        drive.size *= 0.9
    elif item == "stairs":
        pace *= 0.75
        drive.size *= 0.7
    drive.strides[:] = _strides(rng, manner, pace, rate)
    if item == "stairs":
        _climb(drive)
    return Act(drive, np.zeros(frames), item=item)


def _climb(drive: Timeline) -> None:
    """Up a flight: each leg in swing lifted onto the next step (17 cm), the trunk a little forward."""
    for s, late in (("r", 0.0), ("l", 0.5)):
        swing = np.clip(np.sin(np.pi * ((drive.strides + late) % 1.0 - 0.45) / 0.55), 0, 1)
        held = np.clip(1 - ((drive.strides + late) % 1.0) / 0.3, 0, 1)
        drive.extra[:, joint("hip_flexion", s)] += 22 * swing + 26 * held
        drive.extra[:, joint("knee_angle", s)] -= 24 * swing + 42 * held
        drive.extra[:, joint("ankle_angle", s)] += 8 * swing + 10 * held
    drive.lean[:] += 0.15
    drive.climb[:] = 2 * 0.17 * (drive.strides - drive.strides[0])


WALKING = "overground walking"

ACTIVITIES: dict[str, tuple[Activity, str]] = {
    "walkway": (straight, WALKING),
    "overground": (overground, WALKING),
    "TUG": (tug, "TUG"),
    "L-test": (l_test, "L-test"),
    "FSST": (fsst, "FSST"),
    "FGA": (fga, "FGA"),
    "sitting": (sit, "sitting"),
    "sit to stand": (sit_to_stand, "sit to stand"),
    "standing": (stand, "standing"),
}
"""Each kind of trial and the activity that it is annotated as: a walkway trial is a walk that is measured."""

OTHERS = {
    "overground": 0.62,
    "FGA": 0.19,
    "sitting": 0.06,
    "L-test": 0.05,
    "sit to stand": 0.04,
    "standing": 0.04,
}
"""Shares of the trials that no test is timed in."""
