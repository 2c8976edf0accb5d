"""The phases of three clinical tests: sit to stand, timed up and go (TUG), four square step test (FSST).

A phase is found by posture (thighs, shanks and trunk against the vertical), by the pelvis' heading and by its way
over the ground. A recording that does not contain a test gives the reason in plain words.
Pure functions of arrays. Knows nothing about norms.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from scipy.ndimage import gaussian_filter1d

from biomechgpt.motion.kinematics import LANDMARKS, points_m
from biomechgpt.motion.walking import heading, turning_deg_s

_SMOOTH_S = 0.1
"""Standard deviation of the Gaussian that smooths angles and positions before they are judged."""
_SEATED_THIGH_DEG = 58.0
"""On a chair the thighs are at least this far from hanging down."""
_SEATED_SHANK_DEG = 25.0
"""On a chair the shanks are at most this far from vertical; at the bottom of a squat they lean forward more."""
_SEATED_TRUNK_DEG = 52.0
"""On a chair the trunk leans less than this; at the bottom of a squat more."""
_SEATED_S = 0.2
"""Shortest time on the chair."""
_UPRIGHT_THIGH_DEG = 38.0
"""A standing person's thighs are closer to hanging down than this."""
_ONSET_DEG_S = 16.0
"""Trunk or thighs that turn faster than this move; slower changes are sway."""
_TURN_DEG_S = 25.0
"""The pelvis turns faster than this during a turn."""
_SMALLEST_TURN_DEG = 45.0
"""Smaller changes of heading are no turn."""
_HALF_TURN_DEG = (120.0, 250.0)
"""Smallest and largest turn that counts as half a turn."""
_MOVE_M = 0.25
"""Shortest move from one square to the next that the pelvis shows."""
_MOVING_M_S = 0.06
"""The pelvis moves faster than this between two squares."""
_PAUSE_S = 0.5
"""Longest pause within a step of a four square step test."""
_MOVING_SHARE = 0.2
"""The pelvis moves faster than this share of the fastest of its move; unsteady people sway at lower speeds."""
_LARGEST_SQUARES_M = 2.5
"""Largest way of the pelvis in any direction during a four square step test."""


@dataclass(frozen=True)
class Phase:
    """A part of a test, in seconds from the start of the recording."""

    name: str
    begin_s: float
    end_s: float

    @property
    def duration_s(self) -> float:
        return self.end_s - self.begin_s


@dataclass(frozen=True)
class Posture:
    """How the body is held, over time: (T,) degrees from the vertical, smoothed.

    thigh, shank: the more upright of both legs.
    trunk: from the lumbar joint to the neck.
    rate_hz: frames per second.
    """

    thigh: np.ndarray
    shank: np.ndarray
    trunk: np.ndarray
    rate_hz: float

    def speed_deg_s(self) -> np.ndarray:
        """(T,) the faster one of trunk and thighs."""
        both = np.stack([np.gradient(self.trunk), np.gradient(self.thigh)])
        return np.asarray(np.abs(both).max(axis=0) * self.rate_hz)


def posture(angles_rad: np.ndarray, pelvis: np.ndarray, rate_hz: float) -> Posture:
    """The posture in each frame: angles (T, 34) radians, pelvis (T, 7) as in `Trial`."""
    points = points_m(angles_rad, pelvis, ground="none").astype(float)

    def tilt(upper: str, lower: str) -> np.ndarray:
        down = points[:, LANDMARKS.index(lower)] - points[:, LANDMARKS.index(upper)]
        degrees = np.degrees(np.arctan2(np.hypot(down[:, 0], down[:, 2]), -down[:, 1]))
        return np.asarray(gaussian_filter1d(degrees, _SMOOTH_S * rate_hz, mode="nearest"))

    thigh = np.minimum(tilt("hip_r", "knee_r"), tilt("hip_l", "knee_l"))
    shank = np.minimum(tilt("knee_r", "ankle_r"), tilt("knee_l", "ankle_l"))
    return Posture(thigh, shank, tilt("neck", "lumbar"), rate_hz)


@dataclass(frozen=True)
class Transition:
    """Standing up (`rise`) or sitting down (`lower`)."""

    kind: Literal["rise", "lower"]
    begin_s: float
    end_s: float


def transitions(held: Posture) -> list[Transition]:
    """Every time somebody stands up from a chair, or sits down on one.

    Rising begins when trunk or thighs start to move on the chair, and ends when the thighs hang down. Sitting down
    is the same backwards.
    """
    seated = (
        (held.thigh > _SEATED_THIGH_DEG) & (held.shank < _SEATED_SHANK_DEG) & (held.trunk < _SEATED_TRUNK_DEG)
    )
    stays = [(a, b) for a, b in runs(seated) if (b - a) / held.rate_hz >= _SEATED_S]
    found: list[Transition] = []
    frames = len(held.thigh)
    for number, (first, last) in enumerate(stays):
        before = stays[number - 1][1] if number else 0
        after = stays[number + 1][0] if number + 1 < len(stays) else frames - 1
        up = _first(held.thigh[last : after + 1] < _UPRIGHT_THIGH_DEG)
        down = _first(held.thigh[before : first + 1][::-1] < _UPRIGHT_THIGH_DEG)
        middle = (first + last) // 2
        if down is not None:
            begin = _settled(held, first - down, -1, before)
            end = _still(held, first, +1, max(middle, first + 1))
            found.append(Transition("lower", begin / held.rate_hz, end / held.rate_hz))
        if up is not None:
            begin = _still(held, last, -1, min(middle, last - 1))
            end = _settled(held, last + up, +1, after)
            found.append(Transition("rise", begin / held.rate_hz, end / held.rate_hz))
    return found


def _still(held: Posture, start: int, direction: int, limit: int) -> int:
    """The first frame from `start` on, in a direction, in which neither trunk nor thighs move; at most `limit`."""
    speed = held.speed_deg_s()
    frame = start
    while frame != limit and speed[frame] > _ONSET_DEG_S:
        frame += direction
    # The trunk stops where it turns back: the movement begins before that moment of rest.
    return frame


def _settled(held: Posture, start: int, direction: int, limit: int) -> int:
    """The first frame from `start` on in which the thighs no longer straighten; at most `limit`."""
    straightening = -np.gradient(held.thigh) * held.rate_hz * direction
    frame = start
    while frame != limit and straightening[frame] > 2 * _ONSET_DEG_S:
        frame += direction
    return frame


def turns(pelvis: np.ndarray, rate_hz: float) -> list[tuple[Phase, float]]:
    """Every turn of the pelvis (T, 7) on the ground by at least `_SMALLEST_TURN_DEG`, and its degrees."""
    rate = turning_deg_s(pelvis, rate_hz)
    found = []
    for sign in (1.0, -1.0):
        for first, last in runs(sign * rate > _TURN_DEG_S):
            turned = float(np.abs(rate[first : last + 1]).sum() / rate_hz)
            if turned >= _SMALLEST_TURN_DEG:
                found.append((Phase("turn", first / rate_hz, last / rate_hz), turned))
    return sorted(found, key=lambda turn: turn[0].begin_s)


def sit_to_stand(held: Posture) -> list[Phase] | str:
    """The rises ("standing up") and descents ("sitting down") of a recording, or why it has none."""
    names = {"rise": "standing up", "lower": "sitting down"}
    found = [Phase(names[t.kind], t.begin_s, t.end_s) for t in transitions(held)]
    return found or "nobody stands up from a chair or sits down on one"


def tug(held: Posture, pelvis: np.ndarray) -> list[Phase] | str:
    """The five phases of a timed up and go, or why the recording is none.

    Somebody who bounces while sitting down has sat down at the end of the last attempt.
    """
    moves = transitions(held)
    rises = [move for move in moves if move.kind == "rise"]
    if not rises:
        return "nobody stands up from a chair"
    rise = rises[0]
    descents = [move for move in moves if move.kind == "lower" and move.end_s > rise.end_s]
    if not descents:
        return "nobody sits down again after standing up"
    lower = descents[-1]
    between = [
        (turn, degrees)
        for turn, degrees in turns(pelvis, held.rate_hz)
        if rise.begin_s < turn.begin_s < lower.end_s
    ]
    if not between:
        return "the pelvis' heading shows no turn, or was not recorded"
    if len(between) != 2 or not all(_HALF_TURN_DEG[0] <= d <= _HALF_TURN_DEG[1] for _, d in between):
        found = ", ".join(f"{degrees:.0f} degrees" for _, degrees in between)
        return f"a timed up and go has two half turns, this recording turns of {found}"
    (out, _), (back, _) = between
    if any(rise.begin_s < move.begin_s < back.begin_s for move in moves):
        return "the person sits down before the second turn"
    return [
        Phase("sit to stand", rise.begin_s, rise.end_s),
        Phase("walk out", rise.end_s, out.begin_s),
        Phase("turn", out.begin_s, out.end_s),
        Phase("walk back", out.end_s, back.begin_s),
        Phase("turn and sit", back.begin_s, lower.end_s),
    ]


_SQUARES = ("forward", "right", "back", "left and right again", "forward again", "left", "back again")
"""Moves of a four square step test as the pelvis shows them: from the square behind left to the one in front,
right, back, left, and the same way back. Where the way turns round (left, then right) it shows one phase."""


def fsst(pelvis: np.ndarray, rate_hz: float) -> list[Phase] | str:
    """The phases of a four square step test as far as the pelvis shows them, or why the recording is none."""
    position = pelvis[:, [0, 2]].astype(float)
    if not np.ptp(position, axis=0).max() > _MOVE_M:
        return "the pelvis does not move over the ground, or its position was not recorded"
    if np.abs(turning_deg_s(pelvis, rate_hz)).sum() / rate_hz > _HALF_TURN_DEG[0]:
        return "the person turns round; in a four square step test they face one way"
    facing = heading(pelvis).mean(axis=0)
    forward = gaussian_filter1d(position @ facing, _SMOOTH_S * rate_hz, mode="nearest")
    sideways = gaussian_filter1d(position @ [-facing[1], facing[0]], _SMOOTH_S * rate_hz, mode="nearest")
    if max(np.ptp(forward), np.ptp(sideways)) > _LARGEST_SQUARES_M:
        return "the pelvis goes further than four squares"
    moves = _moves(forward)
    if [sign for sign, _, _ in moves] != [1, -1, 1, -1]:
        return "the pelvis does not go forward and back twice, as round four squares and back"
    speed = np.gradient(forward) * rate_hz
    edges: list[float] = []
    for sign, first, last in moves:
        of_move = sign * speed[first : last + 1]
        fastest = of_move.max()
        moving = np.flatnonzero(of_move >= min(max(_MOVING_M_S, _MOVING_SHARE * fastest), fastest))
        # A step may pause between its two feet. Whoever sways long before or after it does not step yet.
        parts = np.split(moving, np.flatnonzero(np.diff(moving) > _PAUSE_S * rate_hz) + 1)
        step = next(part for part in parts if of_move.argmax() in part)
        edges += [(first + float(step[0])) / rate_hz, (first + float(step[-1])) / rate_hz]
    return [Phase(name, begin, end) for name, (begin, end) in zip(_SQUARES, pairwise(edges), strict=True)]


def _moves(forward: np.ndarray) -> list[tuple[int, int, int]]:
    """(1 forward or -1 back, first frame, last frame) between the turning points of a way (T,) in metres.

    A turning point is one that the way leaves by at least `_MOVE_M`.
    """
    pivots, low, high, sign = [0], 0, 0, 0
    for frame, value in enumerate(forward):
        low = frame if value < forward[low] else low
        high = frame if value > forward[high] else high
        if sign >= 0 and forward[high] - value >= _MOVE_M:
            if sign > 0 or high > 0:
                pivots.append(high)
            sign, low = -1, frame
        elif sign <= 0 and value - forward[low] >= _MOVE_M:
            if sign < 0 or low > 0:
                pivots.append(low)
            sign, high = 1, frame
    pivots.append(high if sign > 0 else low)
    moves = [(1 if forward[b] > forward[a] else -1, a, b) for a, b in pairwise(pivots)]
    return [move for move in moves if abs(forward[move[2]] - forward[move[1]]) >= _MOVE_M]


def runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """(first, last) index of every run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(int)))
    return [(int(a), int(b) - 1) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _first(flags: np.ndarray | Sequence[bool]) -> int | None:
    at = np.flatnonzero(flags)
    return int(at[0]) if len(at) else None
