"""Gait analysis from joint angles: gait events, gait cycles, cadence, speed, step length.

Events follow Zeni, Richards and Higginson (Gait & Posture 2008; 27: 710-714): heel strike is when the heel is
furthest in front of the pelvis, toe-off when the toes are furthest behind it, on a treadmill as on the ground.
Landmark positions come from `kinematics`, so lengths hold for its proportions at a given body height.
Pure functions of arrays. Knows nothing about files, annotations or norms.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import scipy  # loads a part when it is used: scipy.signal and scipy.stats take a second
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from biomechgpt.motion.kinematics import HEIGHT_M, LANDMARKS, pelvis_path, points_m
from biomechgpt.motion.skeleton import NAMES

Side = Literal["r", "l"]
SIDES: tuple[Side, Side] = ("r", "l")

CYCLE = np.arange(101)
"""Percent of a gait cycle at which `cycles` are sampled."""

_SMOOTH_S = 0.04
"""Standard deviation of the Gaussian that smooths the landmarks' positions."""
_MIN_AMPLITUDE_M = 0.06
"""Smallest amplitude of a foot relative to the pelvis that counts as stepping."""
_OTHER: dict[Side, Side] = {"r": "l", "l": "r"}
_MAX_GAP_PERCENT = 10.0
"""Largest gap (% of the cycle) allowed when assembling a cycle from partial strides."""
_MIN_SEPARATION = 0.6
"""Minimum ratio of foot separation to single-foot excursion for a movement to count as stepping."""
_LOAD_FALLOFF = 0.15
"""Load share falls by 1/e when a foot moves forward faster than the other by this fraction of its typical speed."""
_SHORTEST_STEP_S = 0.2
"""Shortest time between two crossings of the feet that is a step; sprinters take about 0.22 s."""
_TREADMILL_RATIO = 0.25
"""Pelvis speed over leg speed below which the walk was on a treadmill, or the pelvis was not recorded."""


@dataclass(frozen=True)
class Events:
    """Gait events by side, in frames (fractional, increasing).

    heel_strikes: when each foot lands.
    toe_offs: when each foot leaves the ground.
    """

    heel_strikes: Mapping[Side, np.ndarray]
    toe_offs: Mapping[Side, np.ndarray]

    def steps(self) -> list[tuple[Side, float, float]]:
        """(side, start, end) of each step: from a heel strike to the next heel strike of the foot `side`."""
        strikes = sorted((float(frame), side) for side in SIDES for frame in self.heel_strikes[side])
        pairs = pairwise(strikes)
        return [(side, start, end) for (start, before), (end, side) in pairs if side != before]

    def strides(self, side: Side) -> list[tuple[float, float]]:
        """(start, end) between heel strikes of one foot, if the other foot strikes exactly once in between."""
        own, opposite = self.heel_strikes[side], self.heel_strikes[_OTHER[side]]
        return [
            (float(start), float(end))
            for start, end in pairwise(own)
            if np.count_nonzero((opposite > start) & (opposite < end)) == 1
        ]


@dataclass(frozen=True)
class Gait:
    """Spatiotemporal parameters of one walk; NaN if too few events were found.

    cadence_steps_min: steps per minute.
    speed_m_s: speed by the pelvis if it was recorded moving, else by the legs.
    speed_pelvis_m_s: speed of the recorded pelvis.
    speed_legs_m_s: speed reconstructed from the legs (`kinematics.pelvis_path`).
    step_length_m: (right, left), how far the heel lands in front of the other heel.
    stance_fraction: (right, left), fraction of the stride in which the foot is on the ground.
    step_time_symmetry: shorter over longer mean step time; 1 is symmetric.
    stride_frames: mean stride time in frames.
    overground: the recorded pelvis moved over the ground; False on a treadmill.
    events: the events it was measured from.
    """

    cadence_steps_min: float
    speed_m_s: float
    speed_pelvis_m_s: float
    speed_legs_m_s: float
    step_length_m: tuple[float, float]
    stance_fraction: tuple[float, float]
    step_time_symmetry: float
    stride_frames: float
    overground: bool
    events: Events

    @property
    def steps(self) -> int:
        return len(self.events.steps())


def events(angles_rad: np.ndarray, pelvis: np.ndarray, rate_hz: float) -> Events:
    """Gait events of angles (T, 34) and pelvis (T, 7) at `rate_hz`.

    There are no events if nobody steps: feet that move together, as in a squat, do not count as stepping.
    """
    return events_of(foot_positions(angles_rad, pelvis, rate_hz), rate_hz)


def events_of(feet: Mapping[str, np.ndarray], rate_hz: float) -> Events:
    """Gait events of feet as `foot_positions` returns them."""
    excursion = max(_amplitude(feet["heel_r"]), _amplitude(feet["heel_l"]))
    if _amplitude(feet["heel_r"] - feet["heel_l"]) < max(_MIN_SEPARATION * excursion, _MIN_AMPLITUDE_M):
        none = dict.fromkeys(SIDES, np.empty(0))
        return Events(heel_strikes=none, toe_offs=none)
    return Events(
        heel_strikes={side: _peaks(feet[f"heel_{side}"], rate_hz) for side in SIDES},
        toe_offs={side: _peaks(-feet[f"toe_{side}"], rate_hz) for side in SIDES},
    )


def partial_strides(walk: "Gait", n_frames: int, side: Side) -> list[tuple[np.ndarray, np.ndarray]]:
    """(frames, percent of the gait cycle) of every complete or cut-off stride in a recording of `n_frames`.

    Frames before the first and after the last heel strike belong to strides at the walk's cadence that the
    recording cuts off. Empty if nobody walks.
    """
    strikes = walk.events.heel_strikes
    if not len(strikes["r"]) + len(strikes["l"]) or not np.isfinite(walk.stride_frames):
        return []
    # A side without a heel strike: half a stride before those of the other side.
    own = strikes[side] if len(strikes[side]) else strikes[_OTHER[side]] - walk.stride_frames / 2
    edges = [own[0] - walk.stride_frames, *own, own[-1] + walk.stride_frames]
    all_frames = np.arange(n_frames)
    strides = [
        (all_frames[(all_frames >= start) & (all_frames <= end)], start, end)
        for start, end in pairwise(edges)
    ]
    return [(frames, 100 * (frames - start) / (end - start)) for frames, start, end in strides if len(frames)]


def cycles(angles: np.ndarray, walk: "Gait", side: Side) -> np.ndarray:
    """Gait cycles of one side, sampled at `CYCLE`: angles (T, J) of any unit -> (n, 101, J).

    One cycle per complete stride. A recording without a complete stride gives the one cycle that its partial
    strides make together, if they cover it.
    """
    strides = walk.events.strides(side)
    if strides:
        frames_at = np.array([np.linspace(start, end, len(CYCLE)) for start, end in strides])
        return np.stack(
            [np.interp(frames_at, np.arange(len(angles)), column) for column in angles.T], axis=-1
        )
    partial = partial_strides(walk, len(angles), side)
    frames = np.concatenate([frames for frames, _ in partial]) if partial else np.empty(0, dtype=int)
    percent = np.concatenate([percent for _, percent in partial]) if partial else np.empty(0)
    order = np.argsort(percent)
    frames, percent = frames[order], percent[order]
    # The cycle is periodic: the gap from the last sample to the first of the next cycle counts too.
    if not len(percent) or np.diff([*percent, percent[0] + 100]).max() > _MAX_GAP_PERCENT:
        return np.empty((0, len(CYCLE), angles.shape[1]))
    curves = [np.interp(CYCLE, percent, column[frames], period=100) for column in angles.T]
    return np.stack(curves, axis=-1)[None]


def own_cycles(angles: np.ndarray, walk: "Gait") -> dict[str, np.ndarray]:
    """{joint: (n, 101)} of angles (T, 34): each joint over its own side's cycles, the trunk over the right
    side's."""
    by_side = {side: cycles(angles, walk, side) for side in SIDES}
    return {name: by_side["l" if name.endswith("_l") else "r"][..., i] for i, name in enumerate(NAMES)}


def measure(
    angles_rad: np.ndarray, pelvis: np.ndarray, rate_hz: float, *, height_m: float = HEIGHT_M
) -> Gait:
    """Spatiotemporal parameters of a walk: angles (T, 34) radians, pelvis (T, 7) as in `Trial`.

    Speed is measured over complete strides, or over the whole recording if it has none. Speed by the legs
    (`kinematics.pelvis_path`) scales with `height_m` and is too low for runners, who have a flight phase.
    Cadence is 60 over the mean step time from heel strike to heel strike; with fewer than two steps, the times
    between crossings of the feet are used too.
    """
    feet = foot_positions(angles_rad, pelvis, rate_hz)
    gait_events = events_of(feet, rate_hz)
    steps = gait_events.steps()
    times = {side: [(end - start) / rate_hz for s, start, end in steps if s == side] for side in SIDES}
    step_times = times["r"] + times["l"]
    mean_times = [float(np.mean(times[side])) for side in SIDES if times[side]]
    recorded_path = pelvis[:, [0, 2]].astype(float)
    legs_path = pelvis_path(angles_rad, pelvis[:, 3:], foot_load(feet), height_m=height_m)[:, [0, 2]]
    by_pelvis, by_legs = (
        _speed(path.astype(float), gait_events, rate_hz) for path in (recorded_path, legs_path)
    )
    overground = bool(by_pelvis > _TREADMILL_RATIO * by_legs)
    if len(step_times) < 2:
        step_times += [(end - start) / rate_hz for _, start, end in crossings(feet, rate_hz)]
    step_s = float(np.mean(step_times)) if step_times else np.nan
    return Gait(
        cadence_steps_min=60 / step_s,
        speed_m_s=by_pelvis if overground else by_legs,
        speed_pelvis_m_s=by_pelvis,
        speed_legs_m_s=by_legs,
        step_length_m=_step_lengths(feet, gait_events, height_m),
        stance_fraction=(_stance_fraction(gait_events, "r"), _stance_fraction(gait_events, "l")),
        step_time_symmetry=min(mean_times) / max(mean_times) if len(mean_times) == 2 else np.nan,
        stride_frames=2 * step_s * rate_hz,
        overground=overground,
        events=gait_events,
    )


def walked(angles_rad: np.ndarray, rate_hz: float) -> np.ndarray:
    """Pelvis (T, 7) for a movement of which only the angles (T, 34) are known: upright, moved by the legs
    (`kinematics.pelvis_path`)."""
    pelvis = np.zeros((len(angles_rad), 7), np.float32)
    pelvis[:, 3] = 1
    load = foot_load(foot_positions(angles_rad, pelvis, rate_hz))
    pelvis[:, :3] = pelvis_path(angles_rad, pelvis[:, 3:], load)
    return pelvis


def foot_load(feet: Mapping[str, np.ndarray]) -> np.ndarray:
    """Estimated fraction of body weight on the right and the left foot (T, 2).

    The foot that moves backward relative to the pelvis is in stance and bears the weight; if both do, they share
    it.
    """
    middle = np.stack([feet[f"heel_{side}"] + feet[f"toe_{side}"] for side in SIDES], axis=1) / 2
    forward = np.gradient(middle, axis=0) if len(middle) > 1 else np.zeros_like(middle)
    unit = max(_LOAD_FALLOFF * forward.std(), 1e-9)
    weight = np.exp(-(forward - forward.min(axis=1, keepdims=True)) / unit)
    return np.asarray(weight / weight.sum(axis=1, keepdims=True))


def foot_positions(angles_rad: np.ndarray, pelvis: np.ndarray, rate_hz: float) -> dict[str, np.ndarray]:
    """Position of heels and toes in front of the pelvis, along its heading: (T,) metres at HEIGHT_M each."""
    points = points_m(angles_rad, pelvis, ground="none").astype(float)
    heading = Rotation.from_quat(pelvis[:, 3:], scalar_first=True).apply([1.0, 0.0, 0.0])[:, [0, 2]]
    heading /= np.maximum(np.linalg.norm(heading, axis=1, keepdims=True), 1e-9)
    horizontal = points[:, :, [0, 2]]
    positions = {}
    for name in ("heel_r", "heel_l", "toe_r", "toe_l"):
        offset = horizontal[:, LANDMARKS.index(name)] - horizontal[:, LANDMARKS.index("pelvis")]
        forward = (offset * heading).sum(axis=1)
        positions[name] = gaussian_filter1d(forward, _SMOOTH_S * rate_hz, mode="nearest")
    return positions


def _amplitude(signal: np.ndarray) -> float:
    """Range of a signal (T,) from its 5th to its 95th percentile."""
    return float(np.subtract(*np.percentile(signal, [95, 5])))


def _peaks(position: np.ndarray, rate_hz: float) -> np.ndarray:
    """Frames of the peaks of a foot's position, refined between frames by a parabola through three samples."""
    min_distance = max(1, round(0.4 * rate_hz))
    prominence = max(0.35 * _amplitude(position), _MIN_AMPLITUDE_M)
    peak, _ = scipy.signal.find_peaks(position, prominence=prominence, distance=min_distance)
    before, at, after = position[peak - 1], position[peak], position[peak + 1]
    return np.asarray(peak + 0.5 * (before - after) / np.minimum(before - 2 * at + after, -1e-12))


def crossings(feet: Mapping[str, np.ndarray], rate_hz: float) -> list[tuple[Side, float, float]]:
    """(side, start, end) in frames between the moments at which one foot swings past the other.

    side: the foot that lands in between.
    """
    separation = feet["heel_r"] - feet["heel_l"]
    if _amplitude(separation) < 2 * _MIN_AMPLITUDE_M:
        return []
    before = np.flatnonzero(np.diff(np.signbit(separation)))
    # Linear interpolation to the zero crossing between two frames.
    at = before + separation[before] / (separation[before] - separation[before + 1])
    sides: list[Side] = ["r" if separation[frame] < 0 else "l" for frame in before]
    # A shorter time is noise around one crossing, not a step.
    return [
        (side, float(start), float(end))
        for side, (start, end) in zip(sides, pairwise(at), strict=False)
        if end - start > _SHORTEST_STEP_S * rate_hz
    ]


def _speed(path: np.ndarray, gait_events: Events, rate_hz: float) -> float:
    """Mean speed along a path (T, 2), over complete strides."""
    strides = [stride for side in SIDES for stride in gait_events.strides(side)]
    if not strides:
        strides = [(0.0, len(path) - 1.0)]
    frames = np.arange(len(path))
    ends = np.stack([np.interp(np.array(strides), frames, axis) for axis in path.T], axis=-1)
    metres = np.linalg.norm(ends[:, 1] - ends[:, 0], axis=-1).sum()
    seconds = sum(end - start for start, end in strides) / rate_hz
    return float(metres / seconds) if seconds > 0 else np.nan


def _step_lengths(
    feet: Mapping[str, np.ndarray], gait_events: Events, height_m: float
) -> tuple[float, float]:
    """(right, left): mean distance from the other heel to the landing heel at heel strike, in metres."""
    separation = feet["heel_r"] - feet["heel_l"]
    frames = np.arange(len(separation))
    lengths = []
    for side, sign in (("r", 1.0), ("l", -1.0)):
        strikes = [end for s, _, end in gait_events.steps() if s == side]
        lengths.append(sign * float(np.mean(np.interp(strikes, frames, separation))) if strikes else np.nan)
    return lengths[0] * height_m / HEIGHT_M, lengths[1] * height_m / HEIGHT_M


def _stance_fraction(gait_events: Events, side: Side) -> float:
    """Mean fraction of a stride before toe-off, over strides with exactly one toe-off."""
    fractions = []
    for start, end in gait_events.strides(side):
        inside = (gait_events.toe_offs[side] > start) & (gait_events.toe_offs[side] < end)
        toe_offs = gait_events.toe_offs[side][inside]
        if len(toe_offs) == 1:
            fractions.append((toe_offs[0] - start) / (end - start))
    return float(np.mean(fractions)) if fractions else np.nan
