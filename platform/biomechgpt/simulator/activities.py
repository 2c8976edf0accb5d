"""Activities of simulated participants: walking, sitting, standing and clinical tests.

Each function returns an `ActivityTrace`: the timeline of one activity and, for a timed test, the seconds it took.
Knows nothing about impairments, only about a person's gait style: how fast, how large and how steady.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np

from biomechgpt.simulator.movement import Timeline, joint, smooth_noise

Segment = tuple[str, float, float]
"""(name, seconds, amount). Names: sit, rise, walk, turn (amount: half turns to the left), lower, stand."""


@dataclass(frozen=True)
class GaitStyle:
    """How a person moves in one trial.

    stride_hz: strides per second of a steady walk.
    size: excursion of the gait relative to the person's gait table.
    speed_m_s: walking speed.
    unsteady: unsteadiness, 0 to about 1.
    slow: seconds of a transition such as rising; 1 is brisk.
    duration_s: time of an activity without an end of its own, such as walking.
    """

    stride_hz: float
    size: float
    speed_m_s: float
    unsteady: float
    slow: float
    duration_s: float

    def at_speed(self, factor: float) -> "GaitStyle":
        """Walking `factor` times as fast, by longer and by faster strides alike."""
        root = factor**0.5
        return replace(
            self, stride_hz=self.stride_hz * root, size=self.size * root, speed_m_s=self.speed_m_s * factor
        )

    def at_rate(self, factor: float) -> "GaitStyle":
        """Taking `factor` times as many strides a second, as long as before."""
        return replace(self, stride_hz=self.stride_hz * factor, speed_m_s=self.speed_m_s * factor)


@dataclass(frozen=True)
class ActivityTrace:
    """One performance of an activity.

    timeline: time course of the movement.
    turning: (T,) turning rate in rad/s.
    test_s: seconds that a timed test took; None if the activity is not timed.
    item: item of a test battery.
    frames: the frames of the activity within the recording; None: all.
    treadmill: whether the ground moves and the person stays in place.
    """

    timeline: Timeline
    turning: np.ndarray
    test_s: float | None = None
    item: str | None = None
    frames: slice | None = None
    treadmill: bool = False

    def cropped(self, first: int, last: int) -> "ActivityTrace":
        """The frames from `first` to before `last` alone."""
        t = self.timeline
        timeline = Timeline(*(getattr(t, f.name)[first:last] for f in fields(t)))
        return replace(self, timeline=timeline, turning=self.turning[first:last])

    def within(self, before: int, after: int, change: int) -> "ActivityTrace":
        """The same in a recording that begins `before` frames earlier and ends `after` frames later.

        Before and after, the person sits or stands as at the activity's begin and end. `change`: frames that
        getting into and out of a pose takes.
        """
        ends = before, after
        into = np.clip(1 - np.arange(before)[::-1] / max(change, 1), 0, 1)
        out_of = np.clip(1 - np.arange(after) / max(change, 1), 0, 1)
        share = np.concatenate([into, np.ones(len(self.turning)), out_of])
        share = 0.5 - 0.5 * np.cos(np.pi * share)

        def held(x: np.ndarray) -> np.ndarray:
            return np.pad(x, [ends] + [(0, 0)] * (x.ndim - 1), mode="edge")

        def zero(x: np.ndarray) -> np.ndarray:
            return np.pad(x, [ends] + [(0, 0)] * (x.ndim - 1))

        t = self.timeline
        timeline = Timeline(
            strides=held(t.strides), size=zero(t.size), sit=held(t.sit), lean=zero(t.lean), side=zero(t.side),
            turn=zero(t.turn), climb=held(t.climb), extra=zero(t.extra),
            pose=share[:, None] * held(t.pose), lift=zero(t.lift),
        )  # fmt: skip
        frames = slice(before, before + len(self.turning))
        return replace(self, timeline=timeline, turning=zero(self.turning), frames=frames)


Activity = Callable[[np.random.Generator, GaitStyle, float], ActivityTrace]


def _strides(rng: np.random.Generator, style: GaitStyle, pace: np.ndarray, rate: float) -> np.ndarray:
    """Strides completed by each frame (T,), at `pace` (T,) times the person's stride rate, with random jitter."""
    jitter = 0.02 + 0.09 * style.unsteady
    beat = 1 + jitter * smooth_noise(rng, len(pace), 1, 0.4, rate)[:, 0]
    return rng.random() + np.cumsum(style.stride_hz * pace * beat) / rate


def _sequence(
    rng: np.random.Generator, style: GaitStyle, segments: list[Segment], rate: float
) -> ActivityTrace:
    """A trace of segments, one after the other."""
    ends = np.cumsum([seconds for _, seconds, _ in segments])
    frames = round(ends[-1] * rate)
    time = np.arange(frames) / rate
    timeline = Timeline.still(frames)
    turning, pace = np.zeros(frames), np.ones(frames)
    for (name, seconds, amount), end in zip(segments, ends, strict=True):
        here = (time >= end - seconds) & (time < end)
        part = (time[here] - (end - seconds)) / seconds  # 0 to 1 within the segment
        if name == "sit":
            timeline.sit[here] = 1.0
        elif name in ("rise", "lower"):
            # The trunk leans first; the body rises during the last three quarters.
            up = 0.5 - 0.5 * np.cos(np.pi * np.clip((part - 0.25) / 0.75, 0, 1))
            # Sitting down is rising backwards in time.
            timeline.sit[here] = 1 - up if name == "rise" else 1 - up[::-1]
            timeline.lean[here] = np.sin(np.pi * part) * amount
        elif name == "walk":
            timeline.size[here] = style.size * amount
        elif name == "turn":
            timeline.size[here] = 0.4 * style.size
            timeline.turn[here] = np.sign(amount) * np.sin(np.pi * part)
            turning[here] = np.pi * amount / seconds
            pace[here] = 1.05
    timeline.strides[:] = _strides(rng, style, pace, rate)
    return ActivityTrace(timeline, turning)


_PACES = {"as usual": (1.0, 1.0), "fast": (1.1, 1.4), "slowly": (0.7, 0.9)}
"""Least and greatest speed for what a person is asked to do, as a share of their usual speed."""
_ASKED = {"as usual": 0.4, "fast": 0.25, "slowly": 0.1, "to a beat": 0.25}
"""Share of the passes over a walkway by what the person is asked to do."""
_BEAT = (0.8, 1.25)
"""Least and greatest rate of a metronome, as a share of the usual step rate. Chosen."""


def straight(rng: np.random.Generator, style: GaitStyle, rate: float) -> ActivityTrace:
    """One pass of steady walking, recorded from mid-stride to mid-stride."""
    return _sequence(rng, style, [("walk", style.duration_s, 1.0)], rate)


def walkway(rng: np.random.Generator, style: GaitStyle, rate: float) -> ActivityTrace:
    """One pass of steady walking as it was asked for: as usual, fast, slowly, or in time with a metronome.

    Walking tests ask for usual and for maximum speed, which is 1.2 to 1.5 times as fast (Bohannon, Age Ageing 1997;
    26: 15-19; quoted from memory, unverified). With usual pace alone, the length of a person's strides follows from
    their cadence, and a model need not read it from the joints. At any pace without a beat, the cadence follows
    from the person's posture and the size of their strides, and a model need not read it from the timing.
    """
    asked = str(rng.choice(list(_ASKED), p=list(_ASKED.values())))
    if asked == "to a beat":
        return straight(rng, style.at_rate(rng.uniform(*_BEAT)), rate)
    return straight(rng, style.at_speed(rng.uniform(*_PACES[asked])), rate)


def treadmill(rng: np.random.Generator, style: GaitStyle, rate: float) -> ActivityTrace:
    """Steady walking on a treadmill, at a speed that somebody chose."""
    return replace(straight(rng, style.at_speed(rng.uniform(0.75, 1.15)), rate), treadmill=True)


def overground(rng: np.random.Generator, style: GaitStyle, rate: float) -> ActivityTrace:
    """Steady walking, often up and down a room with turns between."""
    if rng.random() < 0.5:
        return straight(rng, style, rate)
    passes = int(rng.integers(2, 5))
    walk: Segment = ("walk", style.duration_s / passes, 1.0)
    segments = [walk]
    for _ in range(passes - 1):
        segments += [_turn(rng, style, 1.0), walk]
    return _sequence(rng, style, segments, rate)


def sit(rng: np.random.Generator, style: GaitStyle, rate: float) -> ActivityTrace:
    """Sitting, with occasional leaning and looking around."""
    trace = _sequence(rng, style, [("sit", style.duration_s, 0.0)], rate)
    frames = len(trace.turning)
    trace.timeline.lean[:] = 0.18 * smooth_noise(rng, frames, 1, 1.2, rate)[:, 0]
    look, arms = smooth_noise(rng, frames, 1, 0.7, rate)[:, 0], smooth_noise(rng, frames, 4, 0.8, rate)
    trace.timeline.extra[:, joint("neck_rotation")] = 11 * look
    for k, name in enumerate(("arm_flex_r", "elbow_flex_r", "arm_flex_l", "elbow_flex_l")):
        trace.timeline.extra[:, joint(name)] = 5 * arms[:, k]
    return trace


def stand(rng: np.random.Generator, style: GaitStyle, rate: float) -> ActivityTrace:
    """Quiet standing, with sway about the ankles and occasional looking around."""
    trace = _sequence(rng, style, [("stand", style.duration_s, 0.0)], rate)
    sway = smooth_noise(rng, len(trace.turning), 2, 0.8, rate) * (0.5 + 1.2 * style.unsteady)
    for s in "rl":
        trace.timeline.extra[:, joint("ankle_angle", s)] = 1.2 * sway[:, 0]
        trace.timeline.extra[:, joint("hip_adduction", s)] = (0.8 if s == "r" else -0.8) * sway[:, 1]
    trace.timeline.extra[:, joint("neck_rotation")] = (
        5 * smooth_noise(rng, len(trace.turning), 1, 1.0, rate)[:, 0]
    )
    return trace


def sit_to_stand(rng: np.random.Generator, style: GaitStyle, rate: float) -> ActivityTrace:
    """Five times sit to stand (Csuka and McCarty 1985; as a test of five, Whitney et al. 2005)."""
    segments: list[Segment] = [("sit", rng.uniform(0.5, 2.0), 0.0)]
    for _ in range(5):
        segments += [_rise(rng, style), ("stand", rng.uniform(0.15, 0.5), 0.0), _lower(rng, style),
                     ("sit", rng.uniform(0.1, 0.5) * style.slow, 0.0)]  # fmt: skip
    trace = _sequence(rng, style, segments, rate)
    # The arms are crossed on the chest as the test asks, held forwards, or left as they are.
    elbow, shoulder, swing = {
        0: (rng.uniform(70, 115), rng.uniform(-5, 30), rng.uniform(20, 60)),
        1: (rng.uniform(-10, 20), rng.uniform(40, 85), rng.uniform(0, 20)),
        2: (0.0, 0.0, 0.0),
    }[int(rng.choice(3, p=[0.6, 0.15, 0.25]))]
    # To rise, people draw their feet back under the knees.
    tucked = rng.uniform(0, 22) * trace.timeline.sit
    for s in "rl":
        trace.timeline.pose[:, joint("knee_angle", s)] -= tucked
        trace.timeline.pose[:, joint("ankle_angle", s)] += tucked
        trace.timeline.pose[:, joint("elbow_flex", s)] += elbow
        # An upper arm that stays where it is flexes against a trunk that leans.
        trace.timeline.pose[:, joint("arm_flex", s)] += shoulder + swing * trace.timeline.lean
    return trace


def _rise(rng: np.random.Generator, style: GaitStyle) -> Segment:
    return "rise", 1.0 * style.slow * rng.uniform(0.9, 1.1), 1.0


def _lower(rng: np.random.Generator, style: GaitStyle) -> Segment:
    return "lower", 1.1 * style.slow * rng.uniform(0.9, 1.1), 0.9


def _turn(rng: np.random.Generator, style: GaitStyle, half_turns: float) -> Segment:
    seconds = (0.3 + 0.85 * abs(half_turns)) * style.slow * rng.uniform(0.9, 1.1)
    return "turn", seconds, half_turns * (1 if rng.random() < 0.5 else -1)


def _distance(style: GaitStyle, metres: float) -> Segment:
    """A straight walk of this length. The steps of the following turn cover the last half metre; starting to walk
    costs a third of a stride."""
    return "walk", (metres - 0.5) / style.speed_m_s + 0.33 / style.stride_hz, 1.0


def _timed(rng: np.random.Generator, style: GaitStyle, middle: list[Segment], rate: float) -> ActivityTrace:
    """Sit, rise, `middle`, turn, sit down. The clock runs from leaving the chair to sitting again."""
    body: list[Segment] = [_rise(rng, style), *middle, _turn(rng, style, 1.0), _lower(rng, style)]
    before, after = (("sit", rng.uniform(0.5, 3.0), 0.0) for _ in range(2))
    trace = _sequence(rng, style, [before, *body, after], rate)
    return replace(trace, test_s=sum(seconds for _, seconds, _ in body))


def tug(rng: np.random.Generator, style: GaitStyle, rate: float) -> ActivityTrace:
    """Timed up and go: 3 m there and back (Podsiadlo and Richardson 1991), a little faster than usual walking."""
    quick = style.at_speed(1.15)
    return _timed(rng, quick, [_distance(quick, 3), _turn(rng, quick, 1.0), _distance(quick, 3)], rate)


def l_test(rng: np.random.Generator, style: GaitStyle, rate: float) -> ActivityTrace:
    """L-test: 3 m, a right angle, 7 m, and back (Deathe and Miller 2005)."""
    quick = style.at_speed(1.1)
    half = [_distance(quick, 3), _turn(rng, quick, 0.5), _distance(quick, 7)]
    middle = [
        *half,
        _turn(rng, quick, 1.0),
        _distance(quick, 7),
        _turn(rng, quick, -0.5),
        _distance(quick, 3),
    ]
    return _timed(rng, quick, middle, rate)


def fsst(rng: np.random.Generator, style: GaitStyle, rate: float) -> ActivityTrace:
    """Four square step test: forward, right, back, left, and the same way back (Dite and Temple 2002)."""
    moves = ["forward", "right", "back", "left", "right", "forward", "left", "back"]
    pause = rng.uniform(0.3, 1.5, 2)
    durations = (0.37 + 0.44 / style.stride_hz) * style.slow * rng.uniform(0.9, 1.1, len(moves))
    frames = round((pause.sum() + durations.sum()) * rate)
    time, timeline = np.arange(frames) / rate, Timeline.still(frames)
    pace, start = np.zeros(frames), pause[0]
    for move, seconds in zip(moves, durations, strict=True):
        here = (time >= start) & (time < start + seconds)
        part = (time[here] - start) / seconds
        direction = {"forward": 1.0, "back": -1.0, "right": 0.0, "left": 0.0}[move]
        timeline.size[here] = (0.8 if direction > 0 else 0.6) * style.size * abs(direction)
        # One foot steps to the side, then the other foot follows.
        timeline.side[here] = {"right": 1.0, "left": -1.0}.get(move, 0.0) * np.sin(2 * np.pi * part)
        pace[here] = direction / seconds / style.stride_hz
        start += seconds
    timeline.strides[:] = _strides(rng, style, pace, rate)
    return ActivityTrace(timeline, np.zeros(frames), float(durations.sum()))


_Change = Callable[[np.random.Generator, GaitStyle, "_Walk", float], None]


@dataclass(frozen=True)
class _Walk:
    """A walk that an item of the functional gait assessment changes in place.

    time: (T,) seconds.
    timeline: of steady walking, before the item changes it.
    pace: (T,) pace relative to the person's usual one.
    head_swing: (T,) -1 to 1, a slow sine wave for looking to and fro.
    """

    time: np.ndarray
    timeline: Timeline
    pace: np.ndarray
    head_swing: np.ndarray


def _level_surface(rng: np.random.Generator, style: GaitStyle, walk: _Walk, rate: float) -> None:
    pass


def _change_of_speed(rng: np.random.Generator, style: GaitStyle, walk: _Walk, rate: float) -> None:
    """Thirds of the walk in turn slower and faster, or faster and slower."""
    third = (walk.time * 3 / walk.time[-1]).astype(int)
    change = np.where(third % 2 == 1, 1.0, -1.0) * rng.choice([-1, 1])
    walk.pace[:] *= 1 + 0.3 * change
    walk.timeline.size[:] *= 1 + 0.3 * change


def _head_turns(rng: np.random.Generator, style: GaitStyle, walk: _Walk, rate: float) -> None:
    walk.timeline.extra[:, joint("neck_rotation")] = 45 * np.tanh(2 * walk.head_swing) * rng.uniform(0.7, 1.1)
    walk.timeline.size[:] *= 0.92


def _nods(rng: np.random.Generator, style: GaitStyle, walk: _Walk, rate: float) -> None:
    walk.timeline.extra[:, joint("neck_extension")] = (
        28 * np.tanh(2 * walk.head_swing) * rng.uniform(0.7, 1.1)
    )
    walk.timeline.size[:] *= 0.92


def _obstacle(rng: np.random.Generator, style: GaitStyle, walk: _Walk, rate: float) -> None:
    """Three obstacles; each leg is lifted over them, the left half a stride after the right."""
    for centre in walk.time[-1] * (np.arange(3) + rng.uniform(0.3, 0.7, 3)) / 3:
        for s, delay in (("r", 0.0), ("l", 0.5 / style.stride_hz)):
            over = np.exp(-0.5 * ((walk.time - centre - delay) / 0.22) ** 2)
            walk.timeline.extra[:, joint("hip_flexion", s)] += 38 * over
            walk.timeline.extra[:, joint("knee_angle", s)] -= 55 * over
    walk.timeline.size[:] *= 0.9


def _narrow_base(rng: np.random.Generator, style: GaitStyle, walk: _Walk, rate: float) -> None:
    walk.timeline.size[:] *= 0.45
    walk.pace[:] *= 0.65
    for s in "rl":
        walk.timeline.extra[:, joint("hip_adduction", s)] += 5
        walk.timeline.extra[:, joint("arm_add", s)] -= 18


def _eyes_closed(rng: np.random.Generator, style: GaitStyle, walk: _Walk, rate: float) -> None:
    walk.timeline.size[:] *= 0.75
    walk.pace[:] *= 0.85
    sway = smooth_noise(rng, len(walk.time), 3, 0.5, rate) * (1 + 2 * style.unsteady)
    walk.timeline.extra[:, joint("lumbar_bending")] += 2.0 * sway[:, 0]
    for s in "rl":
        walk.timeline.extra[:, joint("hip_adduction", s)] += 1.5 * sway[:, 1] - 3
        walk.timeline.extra[:, joint("arm_add", s)] += 3.0 * sway[:, 2] - 8


def _backwards(rng: np.random.Generator, style: GaitStyle, walk: _Walk, rate: float) -> None:
    walk.timeline.size[:] *= 0.55
    walk.pace[:] *= -0.85


def _stairs(rng: np.random.Generator, style: GaitStyle, walk: _Walk, rate: float) -> None:
    """Slower and smaller strides; `_climb` lifts the legs once the strides are known."""
    walk.pace[:] *= 0.75
    walk.timeline.size[:] *= 0.7


def _pivot_turn(rng: np.random.Generator, style: GaitStyle, rate: float) -> ActivityTrace:
    """A walk that ends with a half turn on the spot."""
    pivot = ("turn", 1.1 * style.slow * rng.uniform(0.9, 1.1), rng.choice([-1.0, 1.0]))
    walk: Segment = ("walk", 0.7 * style.duration_s, 1.0)
    return _sequence(rng, style, [walk, pivot, ("stand", rng.uniform(1, 3), 0.0)], rate)


def _walk_with(change: _Change, *, climbs: bool = False) -> Activity:
    """A walk as `change` alters it; climbs: each leg is lifted onto the next step."""

    def perform(rng: np.random.Generator, style: GaitStyle, rate: float) -> ActivityTrace:
        frames = round(style.duration_s * rate)
        time = np.arange(frames) / rate
        head_swing = np.sin(2 * np.pi * (rng.uniform(0.28, 0.4) * time + rng.random()))
        walk = _Walk(time, Timeline.still(frames), np.ones(frames), head_swing)
        walk.timeline.size[:] = style.size
        change(rng, style, walk, rate)
        walk.timeline.strides[:] = _strides(rng, style, walk.pace, rate)
        if climbs:
            _climb(walk.timeline)
        return ActivityTrace(walk.timeline, np.zeros(frames))

    return perform


def _climb(timeline: Timeline) -> None:
    """Climb stairs: each swing leg is lifted onto the next step (17 cm), the trunk leans forward a little."""
    for s, late in (("r", 0.0), ("l", 0.5)):
        swing = np.clip(np.sin(np.pi * ((timeline.strides + late) % 1.0 - 0.45) / 0.55), 0, 1)
        held = np.clip(1 - ((timeline.strides + late) % 1.0) / 0.3, 0, 1)
        timeline.extra[:, joint("hip_flexion", s)] += 22 * swing + 26 * held
        timeline.extra[:, joint("knee_angle", s)] -= 24 * swing + 42 * held
        timeline.extra[:, joint("ankle_angle", s)] += 8 * swing + 10 * held
    timeline.lean[:] += 0.15
    timeline.climb[:] = 2 * 0.17 * (timeline.strides - timeline.strides[0])


FGA_ITEMS: dict[str, Activity] = {
    "level surface": _walk_with(_level_surface),
    "change of speed": _walk_with(_change_of_speed),
    "head turns": _walk_with(_head_turns),
    "nods": _walk_with(_nods),
    "pivot turn": _pivot_turn,
    "obstacle": _walk_with(_obstacle),
    "narrow base": _walk_with(_narrow_base),
    "eyes closed": _walk_with(_eyes_closed),
    "backwards": _walk_with(_backwards),
    "stairs": _walk_with(_stairs, climbs=True),
}
"""The ten items of the functional gait assessment (Wrisley et al. 2004)."""


def fga(rng: np.random.Generator, style: GaitStyle, rate: float) -> ActivityTrace:
    """One item of the functional gait assessment, drawn at random."""
    item = str(rng.choice(list(FGA_ITEMS)))
    return replace(FGA_ITEMS[item](rng, style, rate), item=item)


WALKING = "overground walking"

ACTIVITIES: dict[str, tuple[Activity, str]] = {
    "walkway": (walkway, WALKING),
    "overground": (overground, WALKING),
    "TUG": (tug, "TUG"),
    "L-test": (l_test, "L-test"),
    "FSST": (fsst, "FSST"),
    "FGA": (fga, "FGA"),
    "sitting": (sit, "sitting"),
    "sit to stand": (sit_to_stand, "sit to stand"),
    "standing": (stand, "standing"),
    "treadmill": (treadmill, "treadmill walking"),
}
"""{kind of trial: (its function, its annotated activity)}. A walkway trial is a walk with measured speed and
cadence."""

OTHERS = {
    "overground": 0.56,
    "FGA": 0.17,
    "sitting": 0.05,
    "L-test": 0.05,
    "sit to stand": 0.13,  # people record it often
    "standing": 0.04,
}
"""Shares of the kinds of trials without a timed test."""
