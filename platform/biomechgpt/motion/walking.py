"""The walking in a recording: its steady, straight steps, and what each step covers.

Gait events come from `gait`. A step counts if it carries the body along and does not turn it. A long recording
needs two such steps in a row, so a jump is no walk. A short laboratory walk (one or two steps) counts from one
step on: then the times between crossings of the feet are used beside those between heel strikes.
Pure functions of arrays. Knows nothing about norms.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # loads a part when it is used: scipy.signal and scipy.stats take a second
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from biomechgpt.motion import gait
from biomechgpt.motion.gait import SIDES, Side
from biomechgpt.motion.kinematics import pelvis_path
from biomechgpt.motion.skeleton import INDEX

SHORT_S = 3.0
"""A recording up to this long is a walk from one step on; laboratory trials take 1.2 to 1.6 s."""
_STEPS_IN_A_ROW = 2
"""Fewest consecutive steps of a walk in a longer recording."""
_STEP_S = (0.2, 2.0)
"""Shortest and longest time of a step."""
_SHORTEST_STEP_M = 0.06
"""A shorter way of the body is no step forward: standing people sway."""
_SMALLEST_SWING_M = 0.15
"""In a step the feet change places by at least this much; swaying feet do not."""
_NO_WAY_M = 1e-6
"""A way up to this long has no direction."""
_TURNING_DEG_S = 30.0
"""A step during which the pelvis turns faster than this is part of a turn."""
_HEADING_SMOOTH_S = 0.3
"""Standard deviation of the Gaussian that removes the pelvis' rotation within a stride from its heading."""
_RECORDED_RATIO = 0.25
"""The pelvis was recorded on its way over the ground if it moves at least this much of what the legs show."""
_SWING_PEAK = 0.4
"""A peak of knee flexion in swing rises by at least this share of the knee's range."""
_SEATED_RAD = np.radians(45)
"""Nobody walks with both hips and both knees flexed by more than this; it is sitting."""


@dataclass(frozen=True)
class Step:
    """One step.

    side: the foot that lands.
    begin, end: frames, fractional.
    length_m: how far the body moved.
    """

    side: Side
    begin: float
    end: float
    length_m: float


@dataclass(frozen=True)
class Walk:
    """The steady, straight steps of a recording.

    rate_hz: frames per second.
    steps: steps between heel strikes, or between crossings of the feet, in the order of time.
    n_steps: number of steps; two views of one step count once.
    strikes, toe_offs: frames of the events that belong to these steps, by side.
    separation_m: (T,) how far the right heel is in front of the left one, for kinematics.HEIGHT_M.
    overground: the recorded pelvis moved; else the way of the body comes from the legs, for kinematics.HEIGHT_M.
    """

    rate_hz: float
    steps: tuple[Step, ...]
    n_steps: int
    strikes: dict[Side, np.ndarray]
    toe_offs: dict[Side, np.ndarray]
    separation_m: np.ndarray
    overground: bool

    @property
    def begin_s(self) -> float:
        return min(step.begin for step in self.steps) / self.rate_hz

    @property
    def end_s(self) -> float:
        return max(step.end for step in self.steps) / self.rate_hz

    @property
    def step_s(self) -> float:
        """Mean time of a step."""
        return float(np.mean([step.end - step.begin for step in self.steps])) / self.rate_hz

    @property
    def speed_m_s(self) -> float:
        seconds = sum(step.end - step.begin for step in self.steps) / self.rate_hz
        return sum(step.length_m for step in self.steps) / seconds

    def step_times_s(self, side: Side) -> list[float]:
        """Times of the steps of a foot, from the other foot's heel strike to its own."""
        at = self.strikes[side]
        return [
            (step.end - step.begin) / self.rate_hz
            for step in self.steps
            if step.side == side and np.isclose(at, step.end).any()
        ]

    def step_lengths_m(self) -> dict[Side, list[float]]:
        """{side: how far its heel lands in front of the other heel, for each landing}.

        With a recorded pelvis the lengths are scaled so that a right and a left step make the stride that the
        pelvis moved; else they hold for kinematics.HEIGHT_M.
        """
        frames = np.arange(len(self.separation_m))
        signs: dict[Side, float] = {"r": 1.0, "l": -1.0}
        lengths: dict[Side, list[float]] = {
            side: (sign * np.interp(self.strikes[side], frames, self.separation_m)).tolist()
            for side, sign in signs.items()
        }
        if self.overground and lengths["r"] and lengths["l"]:
            stride = float(np.mean(lengths["r"]) + np.mean(lengths["l"]))
            scale = 2 * float(np.mean([step.length_m for step in self.steps])) / stride
            lengths = {side: [scale * length for length in found] for side, found in lengths.items()}
        return lengths

    def stance_shares(self, side: Side) -> list[tuple[float, float]]:
        """(frame of heel strike, share of the stride with the foot on the ground) of each stance recorded whole.

        The stride is that from this heel strike to the next one; where it is cut off, twice the mean step.
        """
        own = self.strikes[side]
        shares = []
        for strike in own:
            later = self.toe_offs[side][self.toe_offs[side] > strike]
            following = own[own > strike]
            stride = following[0] - strike if len(following) else 2 * self.step_s * self.rate_hz
            if len(later) and 0.3 < (later[0] - strike) / stride < 0.95:
                shares.append((float(strike), float((later[0] - strike) / stride)))
        return shares

    def swing_peaks(self, knee_flexion: np.ndarray, side: Side) -> list[tuple[float, float]]:
        """(frame, value) of the peak of knee flexion (T,) in each swing that lies within the walk."""
        begin, end = self.begin_s * self.rate_hz, self.end_s * self.rate_hz
        # A walk that is cut off shows swings before its first and after its last event.
        margin = 1.5 * self.step_s * self.rate_hz
        lowest, highest = np.percentile(knee_flexion, [2, 98])
        prominence = max(_SWING_PEAK * (highest - lowest), 1e-6)
        peaks, _ = scipy.signal.find_peaks(
            gaussian_filter1d(knee_flexion, 0.03 * self.rate_hz, mode="nearest"),
            prominence=prominence,
            distance=max(1, round(1.2 * self.step_s * self.rate_hz)),
        )
        # In the swing of the right foot the left one is on the ground, and the right heel comes forward.
        forward = np.gradient(self.separation_m) * (1 if side == "r" else -1)
        return [
            (float(frame), float(knee_flexion[frame]))
            for frame in peaks
            if begin - margin <= frame <= end + margin and forward[frame] > 0
        ]


def find_walk(angles_rad: np.ndarray, pelvis: np.ndarray, rate_hz: float) -> Walk | None:
    """The walk in a recording: angles (T, 34) radians, pelvis (T, 7) as in `Trial`. None: nobody walks."""
    if len(angles_rad) < 0.5 * rate_hz:
        return None
    feet = gait.foot_positions(angles_rad, pelvis, rate_hz)
    events = gait.events_of(feet, rate_hz)
    is_short = len(angles_rad) / rate_hz <= SHORT_S
    intervals = events.steps()
    crossings = gait.crossings(feet, rate_hz) if len(intervals) < 2 and is_short else []
    load = gait.foot_load(feet)
    by_legs = pelvis_path(angles_rad, pelvis[:, 3:], load)[:, [0, 2]].astype(float)
    recorded = pelvis[:, [0, 2]].astype(float)
    turning = np.abs(turning_deg_s(pelvis, rate_hz))
    facing = heading(pelvis)
    seated = _seated(angles_rad)
    separation = feet["heel_r"] - feet["heel_l"]

    def steady(side: Side, begin: float, end: float) -> Step | None:
        lasts_s = (end - begin) / rate_hz
        if not _STEP_S[0] <= lasts_s <= _STEP_S[1]:
            return None
        inside = slice(int(begin), int(np.ceil(end)) + 1)
        if np.ptp(separation[inside]) < _SMALLEST_SWING_M:
            return None
        way = _way(by_legs, begin, end)
        # Towards where the pelvis faces; backward walking is negative.
        forward = float(way @ facing[inside].mean(axis=0))
        if turning[inside].mean() > _TURNING_DEG_S or abs(forward) < _SHORTEST_STEP_M or seated[inside].any():
            return None
        return Step(side, begin, end, forward)

    found = [steady(*interval) for interval in intervals]
    steps = _in_a_row(found, 1 if is_short else _STEPS_IN_A_ROW)
    crossed = [step for interval in crossings if (step := steady(*interval)) is not None]
    n_steps = max(len(steps), len(crossed))
    steps = sorted([*steps, *crossed], key=lambda step: step.begin)
    if not steps:
        return None
    moved = sum(float(np.linalg.norm(_way(recorded, step.begin, step.end))) for step in steps)
    overground = moved > _RECORDED_RATIO * sum(abs(step.length_m) for step in steps)
    path = recorded if overground else by_legs
    lengths = _lengths_m(path, steps)
    steps = [Step(s.side, s.begin, s.end, float(m)) for s, m in zip(steps, lengths, strict=True)]
    # A strike belongs to the walk if a step begins or ends with it. A short walk keeps all of them.
    edges = np.array([edge for step in steps for edge in (step.begin, step.end)])
    strikes = {
        side: np.array([at for at in events.heel_strikes[side] if is_short or np.isclose(edges, at).any()])
        for side in SIDES
    }
    return Walk(
        rate_hz,
        tuple(steps),
        n_steps,
        strikes,
        dict(events.toe_offs),
        separation,
        overground,
    )


def turning_deg_s(pelvis: np.ndarray, rate_hz: float) -> np.ndarray:
    """(T,) turning rate of the pelvis (T, 7) to the left, without the rotation within each stride."""
    facing = heading(pelvis)
    yaw = np.unwrap(np.arctan2(-facing[:, 1], facing[:, 0]))
    smooth = gaussian_filter1d(yaw, _HEADING_SMOOTH_S * rate_hz, mode="nearest")
    return np.asarray(np.degrees(np.gradient(smooth)) * rate_hz)


def heading(pelvis: np.ndarray) -> np.ndarray:
    """(T, 2) unit vector in X and Z of where the pelvis faces."""
    forward = Rotation.from_quat(pelvis[:, 3:], scalar_first=True).apply([1.0, 0.0, 0.0])[:, [0, 2]]
    return np.asarray(forward / np.maximum(np.linalg.norm(forward, axis=1, keepdims=True), 1e-9))


def _way(path: np.ndarray, begin: float, end: float) -> np.ndarray:
    """(2,) from the place on a path (T, 2) at one frame to that at another."""
    frames = np.arange(len(path))
    ends = [[np.interp(at, frames, axis) for axis in path.T] for at in (begin, end)]
    return np.subtract(ends[1], ends[0])


def _lengths_m(path: np.ndarray, steps: Sequence[Step]) -> np.ndarray:
    """(steps,) how far each carries the body along its way over this step and those before and after it.

    The body also sways to the side of the loaded foot and back, which is no progress.
    """
    frames = np.arange(len(path))
    begins, ends = (np.array([getattr(step, edge) for step in steps]) for edge in ("begin", "end"))

    def way(first: np.ndarray, last: np.ndarray) -> np.ndarray:
        """(steps, 2) from the places at these frames to those."""
        return np.stack([np.interp(last, frames, x) - np.interp(first, frames, x) for x in path.T], axis=1)

    own = way(begins, ends)
    around = way(
        np.array([begins[ends >= begin].min() for begin in begins]),
        np.array([ends[begins <= end].max() for end in ends]),
    )
    length = np.linalg.norm(around, axis=1)
    along = np.abs((own * around).sum(axis=1)) / np.maximum(length, _NO_WAY_M)
    return np.asarray(np.where(length > _NO_WAY_M, along, np.linalg.norm(own, axis=1)))


def _seated(angles_rad: np.ndarray) -> np.ndarray:
    """(T,) bool: both hips and both knees are flexed as on a chair."""
    hips = angles_rad[:, [INDEX["hip_flexion_r"], INDEX["hip_flexion_l"]]]
    knees = -angles_rad[:, [INDEX["knee_angle_r"], INDEX["knee_angle_l"]]]
    return np.asarray((np.concatenate([hips, knees], axis=1) > _SEATED_RAD).all(axis=1))


def _in_a_row(found: Sequence[Step | None], fewest: int) -> list[Step]:
    """The steps of all chains of at least `fewest` steps that follow one another in one direction."""
    chains: list[list[Step]] = [[]]
    for step in found:
        last = chains[-1][-1] if chains[-1] else None
        if step is None:
            chains.append([])
        elif last is None or (np.isclose(last.end, step.begin) and last.length_m * step.length_m > 0):
            chains[-1].append(step)
        else:
            chains.append([step])
    return [step for chain in chains if len(chain) >= fewest for step in chain]
