"""What a walk's joint angles say of it: heel strikes, gait cycles, cadence, speed, steps.

Events are those of Zeni, Richards and Higginson (Gait & Posture 2008; 27: 710-714): a foot strikes when its
heel is furthest ahead of the pelvis and leaves when its toes are furthest behind, on a treadmill as on the
ground. Places come from `figure`, so lengths are those of its proportions at a given height. Pure functions
of arrays: knows nothing about files, annotations or norms.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.signal import find_peaks
from scipy.spatial.transform import Rotation

from biomechgpt.motion.kinematics import HEIGHT_M, POINTS, points_m, travel_m
from biomechgpt.motion.skeleton import NAMES

Side = Literal["r", "l"]
SIDES: tuple[Side, Side] = ("r", "l")

CYCLE = np.arange(101)
"""Percent of a gait cycle at which `cycles` are sampled."""

_SMOOTH_S = 0.04
_LEAST_M = 0.06
"""A foot that swings less than this against the pelvis makes no step."""
_OTHER: dict[Side, Side] = {"r": "l", "l": "r"}
_GAP_PERCENT = 10.0
"""Pieces of a cycle that leave more than this between them do not make a cycle."""
_APART = 0.6
"""Who steps swings the feet apart by at least this part of what a foot swings against the pelvis."""
_SHARE = 0.15
"""A foot that goes forward faster than the other, by this part of its usual speed, bears 1/e of its load."""
_STILL = 0.25
"""A pelvis that goes less than this share of what the legs do is on a treadmill, or was not recorded."""


@dataclass(frozen=True)
class Events:
    """Frames (with fractions, increasing) at which each foot strikes and leaves the ground, by side."""

    strikes: Mapping[Side, np.ndarray]
    leaves: Mapping[Side, np.ndarray]

    def steps(self) -> list[tuple[Side, float, float]]:
        """(side, from, to): from one foot's strike to the next of the other, whose step it is."""
        all_strikes = sorted((float(at), side) for side in SIDES for at in self.strikes[side])
        pairs = pairwise(all_strikes)
        return [(side, start, end) for (start, before), (end, side) in pairs if side != before]

    def strides(self, side: Side) -> list[tuple[float, float]]:
        """(from, to): from strike to strike of one foot where the other strikes once in between."""
        mine, other = self.strikes[side], self.strikes[_OTHER[side]]
        pairs = pairwise(mine)
        return [
            (float(start), float(end))
            for start, end in pairs
            if np.count_nonzero((other > start) & (other < end)) == 1
        ]


@dataclass(frozen=True)
class Gait:
    """Measures of one walk; NaN where too few events were seen to say.

    speed_m_s: by the pelvis where it travelled, else by the legs. speed_pelvis_m_s, speed_legs_m_s: each.
    step_length_m, stance_share: right and left; how far its heel lands ahead of the other's, and the part of
    a stride that the foot is down. step_time_symmetry: shorter over longer mean step time, 1 is symmetric.
    stride_frames: of the usual stride. travels: whether the pelvis was seen to travel; not so on a treadmill.
    events: what it was measured from.
    """

    cadence_steps_min: float
    speed_m_s: float
    speed_pelvis_m_s: float
    speed_legs_m_s: float
    step_length_m: tuple[float, float]
    stance_share: tuple[float, float]
    step_time_symmetry: float
    stride_frames: float
    travels: bool
    events: Events

    @property
    def steps(self) -> int:
        return len(self.events.steps())


def events(angles_rad: np.ndarray, pelvis: np.ndarray, rate_hz: float) -> Events:
    """Strikes and leaves of angles (T, 34) and pelvis (T, 7) at `rate_hz`.

    None where nobody steps: feet that swing in step with each other, as in a squat, do not.
    """
    return _events(_ahead(angles_rad, pelvis, rate_hz), rate_hz)


def _events(ahead: Mapping[str, np.ndarray], rate_hz: float) -> Events:
    each = _swing(ahead["heel_r"]), _swing(ahead["heel_l"])
    if _swing(ahead["heel_r"] - ahead["heel_l"]) < max(_APART * max(each), _LEAST_M):
        none = dict.fromkeys(SIDES, np.empty(0))
        return Events(strikes=none, leaves=none)
    return Events(
        strikes={side: _peaks(ahead[f"heel_{side}"], rate_hz) for side in SIDES},
        leaves={side: _peaks(-ahead[f"toe_{side}"], rate_hz) for side in SIDES},
    )


def pieces(found: "Gait", frames: int, side: Side) -> list[tuple[np.ndarray, np.ndarray]]:
    """(frames, percent of the cycle of `side`) for each of its strides, and for what a recording of `frames`
    holds before the first strike and after the last one, at the walk's cadence. None where nobody walks."""
    strikes = found.events.strikes
    if not len(strikes["r"]) + len(strikes["l"]) or not np.isfinite(found.stride_frames):
        return []
    at = strikes[side] if len(strikes[side]) else strikes[_OTHER[side]] - found.stride_frames / 2
    edges = [at[0] - found.stride_frames, *at, at[-1] + found.stride_frames]
    every = np.arange(frames)
    inside = [(every[(every >= start) & (every <= end)], start, end) for start, end in pairwise(edges)]
    return [(here, 100 * (here - start) / (end - start)) for here, start, end in inside if len(here)]


def cycles(angles: np.ndarray, found: "Gait", side: Side) -> np.ndarray:
    """The cycles of one side's leg, at `CYCLE`: angles (T, J) of any unit -> (n, 101, J).

    Each whole stride; in a recording without one the cycle that its pieces make together, if they do.
    """
    strides = found.events.strides(side)
    if strides:
        at = np.array([np.linspace(start, end, len(CYCLE)) for start, end in strides])
        return np.stack([np.interp(at, np.arange(len(angles)), column) for column in angles.T], axis=-1)
    parts = pieces(found, len(angles), side)
    frames = np.concatenate([here for here, _ in parts]) if parts else np.empty(0, dtype=int)
    percent = np.concatenate([part for _, part in parts]) if parts else np.empty(0)
    order = np.argsort(percent)
    frames, percent = frames[order], percent[order]
    if not len(percent) or np.diff([*percent, percent[0] + 100]).max() > _GAP_PERCENT:
        return np.empty((0, len(CYCLE), angles.shape[1]))
    curves = [np.interp(CYCLE, percent, column[frames], period=100) for column in angles.T]
    return np.stack(curves, axis=-1)[None]


def own_cycles(angles: np.ndarray, found: "Gait") -> dict[str, np.ndarray]:
    """{joint: (n, 101)} of angles (T, 34): each joint over its own side's cycles, the trunk's over the right's."""
    by_side = {side: cycles(angles, found, side) for side in SIDES}
    return {name: by_side["l" if name.endswith("_l") else "r"][..., i] for i, name in enumerate(NAMES)}


def measure(
    angles_rad: np.ndarray, pelvis: np.ndarray, rate_hz: float, *, height_m: float = HEIGHT_M
) -> Gait:
    """The measures of a walk: angles (T, 34) radians, pelvis (T, 7) as in `Trial`.

    Speed is over whole strides, or over the recording where it holds none. By the legs it follows
    `figure.travel_m`: it goes with height_m, and is too low for runners, who fly. Cadence is 60 over
    the mean time of a step, from strike to strike; in recordings with one step or none also from one passing
    of the feet to the next.
    """
    ahead = _ahead(angles_rad, pelvis, rate_hz)
    seen = _events(ahead, rate_hz)
    times = {side: [(end - start) / rate_hz for s, start, end in seen.steps() if s == side] for side in SIDES}
    every = times["r"] + times["l"]
    both = [float(np.mean(times[side])) for side in SIDES if times[side]]
    walked = pelvis[:, [0, 2]].astype(float)
    stepped = travel_m(angles_rad, pelvis[:, 3:], _load(ahead), height_m=height_m)[:, [0, 2]]
    by_pelvis, by_legs = (_speed(place.astype(float), seen, rate_hz) for place in (walked, stepped))
    travels = bool(by_pelvis > _STILL * by_legs)
    paced = every if len(every) > 1 else [*every, *_between_passings(ahead, rate_hz)]
    step_s = float(np.mean(paced)) if paced else np.nan
    return Gait(
        cadence_steps_min=60 / step_s,
        speed_m_s=by_pelvis if travels else by_legs,
        speed_pelvis_m_s=by_pelvis,
        speed_legs_m_s=by_legs,
        step_length_m=_step_lengths(ahead, seen, height_m),
        stance_share=(_stance(seen, "r"), _stance(seen, "l")),
        step_time_symmetry=min(both) / max(both) if len(both) == 2 else np.nan,
        stride_frames=2 * step_s * rate_hz,
        travels=travels,
        events=seen,
    )


def walked(angles_rad: np.ndarray, rate_hz: float) -> np.ndarray:
    """The pelvis (T, 7) of a movement whose angles (T, 34) alone are known: upright, and gone as far as the legs
    say (`figure.travel_m`)."""
    still = np.zeros((len(angles_rad), 7), np.float32)
    still[:, 3] = 1
    load = _load(_ahead(angles_rad, still, rate_hz))
    still[:, :3] = travel_m(angles_rad, still[:, 3:], load)
    return still


def _load(ahead: Mapping[str, np.ndarray]) -> np.ndarray:
    """The share of the body's weight on the right and the left foot (T, 2), guessed from how a walk goes:
    the foot that moves back against the pelvis bears it, both where both do."""
    feet = np.stack([ahead[f"heel_{side}"] + ahead[f"toe_{side}"] for side in SIDES], axis=1) / 2
    forward = np.gradient(feet, axis=0) if len(feet) > 1 else np.zeros_like(feet)
    unit = max(_SHARE * forward.std(), 1e-9)
    weight = np.exp(-(forward - forward.min(axis=1, keepdims=True)) / unit)
    return weight / weight.sum(axis=1, keepdims=True)


def _ahead(angles_rad: np.ndarray, pelvis: np.ndarray, rate_hz: float) -> dict[str, np.ndarray]:
    """How far heels and toes are ahead of the pelvis, along where it faces: (T,) metres at HEIGHT_M each."""
    points = points_m(angles_rad, pelvis, ground="none").astype(float)
    facing = Rotation.from_quat(pelvis[:, 3:], scalar_first=True).apply([1.0, 0.0, 0.0])[:, [0, 2]]
    facing /= np.maximum(np.linalg.norm(facing, axis=1, keepdims=True), 1e-9)
    flat = points[:, :, [0, 2]]
    found = {}
    for name in ("heel_r", "heel_l", "toe_r", "toe_l"):
        apart = flat[:, POINTS.index(name)] - flat[:, POINTS.index("pelvis")]
        found[name] = gaussian_filter1d((apart * facing).sum(axis=1), _SMOOTH_S * rate_hz, mode="nearest")
    return found


def _swing(course: np.ndarray) -> float:
    """How far a course (T,) goes to and fro, but for its rarest places."""
    return float(np.subtract(*np.percentile(course, [95, 5])))


def _peaks(ahead: np.ndarray, rate_hz: float) -> np.ndarray:
    """Frames of the peaks of a swinging foot's course, between frames by a parabola through three."""
    apart = max(1, round(0.4 * rate_hz))
    at, _ = find_peaks(ahead, prominence=max(0.35 * _swing(ahead), _LEAST_M), distance=apart)
    before, here, after = ahead[at - 1], ahead[at], ahead[at + 1]
    return at + 0.5 * (before - after) / np.minimum(before - 2 * here + after, -1e-12)


def _between_passings(ahead: Mapping[str, np.ndarray], rate_hz: float) -> list[float]:
    """Seconds between the moments at which one foot swings past the other."""
    apart = ahead["heel_r"] - ahead["heel_l"]
    if _swing(apart) < 2 * _LEAST_M:
        return []
    before = np.flatnonzero(np.diff(np.signbit(apart)))
    passing = before + apart[before] / (apart[before] - apart[before + 1])
    return [float(t) for t in np.diff(passing) / rate_hz if t > 0.2]


def _speed(place: np.ndarray, seen: Events, rate_hz: float) -> float:
    """Mean speed of a place (T, 2), over whole strides."""
    strides = [stride for side in SIDES for stride in seen.strides(side)]
    if not strides:
        strides = [(0.0, len(place) - 1.0)]
    frames = np.arange(len(place))
    ends = np.stack([np.interp(np.array(strides), frames, axis) for axis in place.T], axis=-1)
    metres = np.linalg.norm(ends[:, 1] - ends[:, 0], axis=-1).sum()
    seconds = sum(end - start for start, end in strides) / rate_hz
    return float(metres / seconds) if seconds > 0 else np.nan


def _step_lengths(ahead: Mapping[str, np.ndarray], seen: Events, height_m: float) -> tuple[float, float]:
    apart = ahead["heel_r"] - ahead["heel_l"]
    frames = np.arange(len(apart))
    found = []
    for side, sign in (("r", 1.0), ("l", -1.0)):
        ends = [end for s, _, end in seen.steps() if s == side]
        found.append(sign * float(np.mean(np.interp(ends, frames, apart))) if ends else np.nan)
    return found[0] * height_m / HEIGHT_M, found[1] * height_m / HEIGHT_M


def _stance(seen: Events, side: Side) -> float:
    shares = []
    for start, end in seen.strides(side):
        left = seen.leaves[side][(seen.leaves[side] > start) & (seen.leaves[side] < end)]
        if len(left) == 1:
            shares.append((left[0] - start) / (end - start))
    return float(np.mean(shares)) if shares else np.nan
