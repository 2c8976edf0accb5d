"""Quality control of a recording: what is wrong with it, where, and which setting decides.

A recording with a problem is kept out, never repaired in silence. Only short gaps are ever filled, if the settings
allow it, and the trial then says so. Signs of a person's impairment (a foot that drags, a stiff knee, an arm that
does not swing) are no problem, and neither is a joint that a model locks. Knows nothing about file formats,
annotations or participants.
"""

import hashlib
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from pydantic import Field
from scipy.interpolate import pchip_interpolate
from scipy.ndimage import median_filter
from scipy.signal import detrend, hilbert
from scipy.spatial.transform import Rotation

from biomechgpt.core.settings import InputError, Settings
from biomechgpt.motion.skeleton import HIGH_RAD, INDEX, LOW_RAD, N_JOINTS, NAMES, TRACKED
from biomechgpt.recordings.readers import Recording

_SHOULDERS = {"r": ("arm_flex_r", "arm_add_r", "arm_rot_r"), "l": ("arm_flex_l", "arm_add_l", "arm_rot_l")}
_SHOULDER = np.isin(NAMES, sum(_SHOULDERS.values(), ()))
_SPEED_S = 1 / 30
"""Time window for speeds, so that single-frame noise at high frame rates averages out."""
_UNEVEN = 1.5
"""A time step longer than 1.5 median steps means dropped frames; shorter ones are rounding."""
_MOVING_RAD = np.radians(2)
"""A joint with a larger range moves; one with a smaller range may be locked by the model."""
_SWINGING_RAD = np.radians(5)
"""Smallest range or standard deviation of a joint that takes part in a movement."""
_ALTERNATING = -0.6
"""Right and left hip (or shoulder) alternate, as in a walk, if they correlate at most this much."""
_COHERENT = 0.7
"""Hips and knees that move together in one rhythm, as in a walk, are coherent at least this much."""
_WRONG_KNEE_DEG = (65.0, 115.0)
"""Hips lead knees by this phase only if right and left of one of them have changed places: in most walks knees lead
hips by 65 to 115 degrees."""
_JUMP_DEG = 8.0
"""A step between two frames that differs by more from the steps around it is a jump."""
_JUMPING_JOINTS = (8, 0.55)
"""Joints that jump at once, and their share of those that move, where one trial ends and another begins."""
_HIGHEST_PELVIS_M = 30.0
"""A pelvis that is higher is not in metres. Stairs and force plates' origins lie far below."""


class QualitySettings(Settings):
    """Limits that a usable recording keeps. Runners and severe impairments pass the defaults."""

    min_duration_s: float = Field(0.5, gt=0)
    """Shortest recording."""
    interpolate_gaps_s: float = Field(0.0, ge=0)
    """Longest gap that is interpolated; the trial says so. 0: no gap is."""
    rate_tolerance: float = Field(0.02, gt=0)
    """Largest relative difference between a declared frame rate and that of the times."""
    spike_s: float = Field(0.05, gt=0)
    """Longest excursion that counts as a spike; a longer one is movement."""
    spike_deg: float = Field(40.0, gt=0)
    """Smallest spike of a joint of the legs, trunk or neck."""
    arm_spike_deg: float = Field(90.0, gt=0)
    """Smallest spike of a shoulder or elbow; markerless capture is often rough there."""
    range_margin_deg: float = Field(20.0, ge=0)
    """Largest angle outside the skeleton's range of the joint."""
    max_speed_deg_s: float = Field(2000.0, gt=0)
    """Highest speed of a joint of the legs, trunk or neck; walking knees reach 450."""
    max_arm_speed_deg_s: float = Field(3000.0, gt=0)
    """Highest speed of a shoulder or elbow."""
    frozen_s: float = Field(1.0, gt=0)
    """Longest time for which a moving joint may keep exactly one value."""
    min_movement_deg: float = Field(0.5, ge=0)
    """Smallest range of motion of the joint that moves most; 0 accepts a pose that never changes."""
    max_pelvis_speed_m_s: float = Field(13.0, gt=0)
    """Highest speed of the pelvis; sprinters reach 12."""
    max_stride_hz: float = Field(3.2, gt=0)
    """Most strides a second; sprinters reach 2.5."""
    max_side_correlation: float = Field(0.85, ge=0, le=1)
    """Highest correlation of leg and arm of one side in a walk with swinging arms; 1 switches the
    checks of sides off."""
    max_residual_mm: float = Field(40.0, gt=0)
    """Largest residual of inverse kinematics (RMS over markers and frames), for recordings of markers or
    keypoints."""
    max_marker_residual_mm: float = Field(100.0, gt=0)
    """Largest residual of one marker (median over frames) and of one frame (RMS over markers)."""


@dataclass(frozen=True)
class Problem:
    """One problem of a recording.

    kind: gap, too short, rate mismatch, no movement, impossible angle, spike, impossible speed, frozen, mislabelled
        side, wrong unit, wrong rate, joined trials or residual.
    text: what is wrong, where, and the setting that decides.
    joint: None if it concerns all joints.
    time_s: where it begins.
    value: the measured value, in the unit of the text.
    """

    kind: str
    text: str
    joint: str | None = None
    time_s: float | None = None
    value: float | None = None

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


def accept(
    name: str, recording: Recording, settings: QualitySettings, declared_rate_hz: float | None = None
) -> tuple[Recording, str | None]:
    """The recording with its short gaps filled, and what was filled ("2 gaps interpolated, ..."; None: nothing).

    name: the file, in messages.
    declared_rate_hz: the annotated frame rate; the one that the recording states is checked as well.
    Raises InputError with every problem.
    """
    problems = find_problems(recording, settings, declared_rate_hz)
    if problems:
        raise InputError(f"{name}: " + "; ".join(map(str, problems)))
    return fill_gaps(recording)


def find_problems(
    recording: Recording, settings: QualitySettings, declared_rate_hz: float | None = None
) -> list[Problem]:
    """All problems of a recording.

    Gaps that `interpolate_gaps_s` allows are no problem. Only recorded joints are checked; untracked joints, which
    no tokenizer sees, only for gaps.
    """
    problems = [
        *_gaps(recording, settings.interpolate_gaps_s),
        *_duration(recording.time_s, settings.min_duration_s),
        *_rate(recording, declared_rate_hz, settings.rate_tolerance),
    ]
    if len(recording.time_s) < 3:
        return problems
    # The other checks need a value in every frame. What is filled here is not kept.
    filled, _ = fill_gaps(recording)
    spikes = list(_spikes(filled, settings))
    spiked = {problem.joint for problem in spikes}
    joined = list(_joined(filled))
    return [
        *problems,
        *joined,
        *_unit_of_pelvis(filled),
        *(() if joined else _pelvis_speed(filled, settings.max_pelvis_speed_m_s)),
        *_stride_rate(filled, settings.max_stride_hz),
        *_movement(filled, settings.min_movement_deg),
        *_ranges(filled, settings.range_margin_deg),
        *spikes,
        # A spike is also an impossible speed: it is reported once.
        *(problem for problem in _speeds(filled, settings) if problem.joint not in spiked),
        *_frozen(filled, settings.frozen_s),
        *_sides(filled, settings.max_side_correlation),
        *(() if settings.max_side_correlation == 1 else _knee_sides(filled)),
        *_residuals(recording, settings),
    ]


def fill_gaps(recording: Recording) -> tuple[Recording, str | None]:
    """The recording with missing values interpolated, and a text that counts the gaps (None: there was none).

    Monotone cubics (PCHIP) do not overshoot between the frames around a gap. Frames that a jump in time lost count
    as a gap too, since resampling interpolates over them. A gap at an end holds the nearest value. A joint without
    any value is 0; a pelvis without any is upright in the origin.
    """
    values = np.concatenate([recording.angles_rad, recording.pelvis], axis=1)
    for j in np.flatnonzero(np.isnan(values).any(axis=0)):
        there = np.flatnonzero(~np.isnan(values[:, j]))
        if len(there) < 2:
            # Column N_JOINTS + 3 is the quaternion's w: 1 is upright.
            values[:, j] = values[there[0], j] if len(there) else float(j == N_JOINTS + 3)
            continue
        absent = np.isnan(values[:, j])
        time_s = np.clip(recording.time_s[absent], recording.time_s[there[0]], recording.time_s[there[-1]])
        values[absent, j] = pchip_interpolate(recording.time_s[there], values[there, j], time_s)
    filled = replace(recording, angles_rad=values[:, :N_JOINTS], pelvis=values[:, N_JOINTS:])
    gaps = {(start, end) for _, start, end in _missing(recording)} | set(_jumps(recording.time_s))
    if not gaps:
        return filled, None
    longest = max(end - start for start, end in gaps)
    return filled, f"{len(gaps)} gap{'s' * (len(gaps) > 1)} interpolated, longest {longest:.2f} s"


def content_hash(angles_rad: np.ndarray) -> str:
    """16 hex digits over angles (T, 34), to a thousandth of a radian: the same in whichever format a file is."""
    rounded = np.ascontiguousarray(np.round(angles_rad * 1000).astype("<i4"))
    return hashlib.sha256(rounded.tobytes()).hexdigest()[:16]


def find_duplicates(contents: Iterable[tuple[str, Hashable, tuple[str, ...]]]) -> dict[str, str]:
    """{recording: reason} for recordings that have the same content as another.

    contents: (recording, its annotations, hashes of its content) of each.
    Of equally annotated duplicates the first stays. If any annotation differs none stays, since nobody can tell
    whose movement it is.
    """
    holders: dict[str, list[tuple[str, Hashable]]] = {}
    for name, annotations, hashes in contents:
        for content in hashes:
            holders.setdefault(content, []).append((name, annotations))
    reasons: dict[str, str] = {}
    for same in holders.values():
        if len({name for name, _ in same}) < 2:
            continue
        (first, annotations), *later = same
        if all(annotated == annotations for _, annotated in later):
            reasons |= {name: f"duplicate: the same content as {first}" for name, _ in later}
            continue
        for name, _ in same:
            rest = ", ".join(duplicate for duplicate, _ in same if duplicate != name)
            reasons[name] = f"duplicate: the same content as {rest}, annotated otherwise"
    return reasons


def _step_s(time_s: np.ndarray) -> float:
    return float(np.median(np.diff(time_s))) if len(time_s) > 1 else 0.0


def _missing(recording: Recording) -> Iterator[tuple[str, float, float]]:
    """(joint or "pelvis", start, end) of each run of frames without its value; `end` is one frame past it."""
    columns = {NAMES[j]: recording.angles_rad[:, j] for j in np.flatnonzero(recording.joint_mask)}
    columns["pelvis"] = recording.pelvis.sum(axis=1)
    step = _step_s(recording.time_s)
    for name, values in columns.items():
        absent = np.isnan(values)
        if absent.any():
            for first, last in _runs(absent):
                yield name, float(recording.time_s[first]), float(recording.time_s[last]) + step


def _jumps(time_s: np.ndarray) -> list[tuple[float, float]]:
    """(start, end) of each run of frames that is missing from the times."""
    step = _step_s(time_s)
    return [
        (float(time_s[i]) + step, float(time_s[i + 1]))
        for i in np.flatnonzero(np.diff(time_s) > _UNEVEN * step)
    ]


def _runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """(first, last) index of every run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(int)))
    return [(int(a), int(b) - 1) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _gaps(recording: Recording, allowed_s: float) -> Iterator[Problem]:
    time_s = recording.time_s
    step = _step_s(time_s)
    found: dict[str, list[tuple[float, float]]] = {"every joint": _jumps(time_s)}
    for joint, start, end in _missing(recording):
        found.setdefault(joint, []).append((start, end))
    for joint, gaps in found.items():
        # A gap at the beginning or end has no frame on its other side to interpolate from.
        bad = [
            (start, end)
            for start, end in gaps
            if end - start > allowed_s + 1e-6 or start <= time_s[0] or end > time_s[-1] + step / 2
        ]
        if bad:
            start, end = max(bad, key=lambda gap: gap[1] - gap[0])
            yield Problem(
                "gap",
                f"{joint} has no values from {start:.2f} to {end:.2f} s{_more(len(bad))} "
                f"(interpolate_gaps_s is {allowed_s:g})",
                None if joint == "every joint" else joint,
                start,
                end - start,
            )


def _more(count: int) -> str:
    return f", and in {count - 1} more places" if count > 1 else ""


def _duration(time_s: np.ndarray, shortest_s: float) -> Iterator[Problem]:
    lasts = float(time_s[-1] - time_s[0]) if len(time_s) else 0.0
    # The last frame lasts one step too.
    if lasts + _step_s(time_s) < shortest_s - 1e-6:
        text = f"expected at least {shortest_s:g} s (min_duration_s), found {len(time_s)} frames over {lasts:.2f} s"
        yield Problem("too short", text, value=lasts)


def _rate(recording: Recording, annotated: float | None, tolerance: float) -> Iterator[Problem]:
    time_s = recording.time_s
    if len(time_s) < 2:
        return
    # The mean rate, right if no frame is lost, and the rate of the usual step, right if some are.
    measured = ((len(time_s) - 1) / float(time_s[-1] - time_s[0]), 1 / _step_s(time_s))
    declared = {"the file": recording.declared_rate_hz, "the annotation": annotated}
    for who, rate in declared.items():
        if rate is not None and all(abs(rate / m - 1) > tolerance for m in measured):
            yield Problem(
                "rate mismatch",
                f"{who} declares {rate:g} Hz, its times give {measured[0]:.4g} Hz "
                f"(rate_tolerance is {tolerance:g})",
                value=measured[0],
            )


def _movement(recording: Recording, smallest_deg: float) -> Iterator[Problem]:
    angles = np.degrees(recording.angles_rad[:, _judged(recording)])
    largest = float(np.ptp(angles, axis=0).max()) if angles.shape[1] else 0.0
    if largest < smallest_deg:
        lasts = float(recording.time_s[-1] - recording.time_s[0])
        yield Problem(
            "no movement",
            f"no joint moves by more than {largest:.2g} degrees in {lasts:.1f} s, "
            f"expected {smallest_deg:g} (min_movement_deg)",
            value=largest,
        )


def _judged(recording: Recording) -> np.ndarray:
    return np.asarray(recording.joint_mask & TRACKED)


def _ranges(recording: Recording, margin_deg: float) -> Iterator[Problem]:
    angles = np.degrees(recording.angles_rad)
    # At some shoulder poses two sets of angles, half a turn apart, describe the same orientation.
    margin = margin_deg + 180.0 * _SHOULDER
    low, high = np.degrees(LOW_RAD), np.degrees(HIGH_RAD)
    beyond = np.maximum(low - margin - angles, angles - high - margin)
    for j in np.flatnonzero(_judged(recording) & (beyond.max(axis=0) > 0)):
        i = int(beyond[:, j].argmax())
        yield Problem(
            "impossible angle",
            f"{NAMES[j]} is {angles[i, j]:.0f} degrees at {recording.time_s[i]:.2f} s, expected {low[j]:.0f} to "
            f"{high[j]:.0f} (range_margin_deg is {margin_deg:g})",
            NAMES[j],
            float(recording.time_s[i]),
            float(angles[i, j]),
        )


def _turns(recording: Recording) -> Iterator[tuple[str, Rotation]]:
    """(name, orientation) of each shoulder. Its angles jump near a singularity, its orientation does not."""
    for side, joints in _SHOULDERS.items():
        columns = [INDEX[joint] for joint in joints]
        if recording.joint_mask[columns].all():
            # The left shoulder's adduction and rotation are mirrored, so the signs change.
            sign = np.array([1.0, 1.0, 1.0] if side == "r" else [1.0, -1.0, -1.0])
            yield (
                f"arm_{side} (flex, add, rot)",
                Rotation.from_euler("ZXY", recording.angles_rad[:, columns] * sign),
            )


def _is_arm(name: str) -> bool:
    return name.startswith(("arm", "elbow"))


def _spikes(recording: Recording, settings: QualitySettings) -> Iterator[Problem]:
    """Frames that leave a joint's course and come back: too far from the running median."""
    frames = max(1, round(settings.spike_s / _step_s(recording.time_s)))
    window = 2 * frames + 1

    def course(values: np.ndarray) -> np.ndarray:
        return np.asarray(median_filter(values, size=(window, 1), mode="mirror"))

    if len(recording.time_s) < window:
        return
    columns = np.flatnonzero(_judged(recording) & ~_SHOULDER)
    angles = np.degrees(recording.angles_rad[:, columns])
    away = dict(zip((NAMES[j] for j in columns), np.abs(angles - course(angles)).T, strict=True))
    for name, turn in _turns(recording):
        matrix = turn.as_matrix().reshape(-1, 9)
        # The distance of two rotation matrices, sqrt(8) sin(angle / 2), gives the angle between them.
        chord = np.linalg.norm(matrix - course(matrix), axis=1) / np.sqrt(8)
        away[name] = np.degrees(2 * np.arcsin(np.minimum(chord, 1)))
    for name, size in away.items():
        key = "arm_spike_deg" if _is_arm(name) else "spike_deg"
        limit = getattr(settings, key)
        if size.max() > limit:
            i = int(size.argmax())
            yield Problem(
                "spike",
                f"{name} leaves its course by {size[i]:.0f} degrees at {recording.time_s[i]:.2f} s"
                f"{_more(len(_runs(size > limit)))} ({key} is {limit:g})",
                name,
                float(recording.time_s[i]),
                float(size[i]),
            )


def _speeds(recording: Recording, settings: QualitySettings) -> Iterator[Problem]:
    time_s = recording.time_s
    frames = max(1, round(_SPEED_S / _step_s(time_s)))
    if len(time_s) <= frames:
        return
    over_s = time_s[frames:] - time_s[:-frames]
    columns = np.flatnonzero(_judged(recording) & ~_SHOULDER)
    turned = np.abs(recording.angles_rad[frames:, columns] - recording.angles_rad[:-frames, columns])
    speeds = dict(zip((NAMES[j] for j in columns), np.degrees(turned).T / over_s, strict=True))
    for name, turn in _turns(recording):
        speeds[name] = np.degrees((turn[:-frames].inv() * turn[frames:]).magnitude()) / over_s
    for name, speed in speeds.items():
        key = "max_arm_speed_deg_s" if _is_arm(name) else "max_speed_deg_s"
        if speed.max() > getattr(settings, key):
            i = int(speed.argmax())
            yield Problem(
                "impossible speed",
                f"{name} turns at {speed[i]:.0f} degrees a second at {time_s[i]:.2f} s "
                f"({key} is {getattr(settings, key):g})",
                name,
                float(time_s[i]),
                float(speed[i]),
            )


def _frozen(recording: Recording, longest_s: float) -> Iterator[Problem]:
    """A moving joint that keeps one value to the last digit while others move, or all joints at once.

    A joint that rests at its own lowest or highest value is at a limit of the model (a knee clamped at 0): no
    problem.
    """
    time_s, angles = recording.time_s, recording.angles_rad
    moving = np.flatnonzero(_judged(recording) & (np.ptp(angles, axis=0) > _MOVING_RAD))
    if not len(moving):
        return
    same = np.abs(np.diff(angles[:, moving], axis=0)) < 1e-9

    def long_runs(flags: np.ndarray) -> list[tuple[int, int]]:
        return [(a, b + 1) for a, b in _runs(flags) if time_s[b + 1] - time_s[a] > longest_s + 1e-6]

    def problem(joint: str | None, a: int, b: int) -> Problem:
        lasts = float(time_s[b] - time_s[a])
        return Problem(
            "frozen",
            f"{joint or 'every joint'} keeps one value to the last digit from {time_s[a]:.2f} to "
            f"{time_s[b]:.2f} s (frozen_s is {longest_s:g})",
            joint,
            float(time_s[a]),
            lasts,
        )

    for a, b in long_runs(np.logical_and.reduce(same, axis=1)):
        yield problem(None, a, b)
    for k, j in enumerate(moving):
        stops = angles[:, j].min(), angles[:, j].max()
        for a, b in long_runs(same[:, k]):
            moving_meanwhile = np.ptp(angles[a : b + 1, moving], axis=0) > _SWINGING_RAD
            if moving_meanwhile.sum() >= 3 and not np.isclose(angles[a, j], stops, atol=1e-6).any():
                yield problem(NAMES[j], a, b)
                break


def _sides(recording: Recording, most: float) -> Iterator[Problem]:
    """A left column that is a copy of the right one, or arms on the wrong side of a walk's legs."""
    angles, judged = recording.angles_rad, _judged(recording)
    for name in NAMES:
        if not name.endswith("_r"):
            continue
        r, l = INDEX[name], INDEX[f"{name[:-2]}_l"]  # noqa: E741
        moves = judged[[r, l]].all() and np.ptp(angles[:, r]) > _SWINGING_RAD
        if moves and np.allclose(angles[:, r], angles[:, l], atol=1e-6):
            yield Problem("mislabelled side", f"{name[:-2]}_l is a copy of {name}", f"{name[:-2]}_l")
    legs, arms = ([INDEX[f"{joint}_{side}"] for side in "rl"] for joint in ("hip_flexion", "arm_flex"))
    if not judged[[*legs, *arms]].all() or recording.time_s[-1] - recording.time_s[0] < 1.0:
        return
    hip, arm = angles[:, legs], angles[:, arms]
    # Only a walk in which both hips and both shoulders swing and alternate tells the sides apart. A hemiplegic arm
    # or hands on a walking frame do not.
    if min(hip.std(axis=0).min(), arm.std(axis=0).min()) < _SWINGING_RAD:
        return
    if max(np.corrcoef(hip.T)[0, 1], np.corrcoef(arm.T)[0, 1]) > _ALTERNATING:
        return
    # In a walk each arm swings with the opposite leg, so leg and arm of one side should not go together.
    together = float(np.corrcoef(hip[:, 0] - hip[:, 1], arm[:, 0] - arm[:, 1])[0, 1])
    if together > most:
        yield Problem(
            "mislabelled side",
            f"arms swing with the leg of their own side (hip_flexion and arm_flex correlate at {together:.2f}): "
            f"right and left of one of them have changed places (max_side_correlation is {most:g})",
            value=together,
        )


def _hips_and_knees(recording: Recording) -> tuple[np.ndarray, np.ndarray] | None:
    """(T, 2) hip flexion and (T, 2) knee flexion in degrees, right and left, where both sides swing
    and alternate."""
    hips, knees = ([INDEX[f"{joint}_{side}"] for side in "rl"] for joint in ("hip_flexion", "knee_angle"))
    if not _judged(recording)[[*hips, *knees]].all() or recording.time_s[-1] - recording.time_s[0] < 1.0:
        return None
    hip, knee = np.degrees(recording.angles_rad[:, hips]), -np.degrees(recording.angles_rad[:, knees])
    if min(hip.std(axis=0).min(), knee.std(axis=0).min()) < np.degrees(_SWINGING_RAD):
        return None
    return (hip, knee) if np.corrcoef(hip.T)[0, 1] <= _ALTERNATING else None


def _knee_sides(recording: Recording) -> Iterator[Problem]:
    """Knees that bend with the hip of the other side.

    In a stride a knee bends before its hip does. With right and left of one of them exchanged it bends after it.
    """
    legs = _hips_and_knees(recording)
    if legs is None:
        return
    hip, knee = (hilbert(detrend(side[:, 0] - side[:, 1])) for side in legs)
    product = (hip * np.conj(knee)).sum() / np.sqrt((np.abs(hip) ** 2).sum() * (np.abs(knee) ** 2).sum())
    phase, (low, high) = float(np.degrees(np.angle(product))), _WRONG_KNEE_DEG
    if abs(product) >= _COHERENT and low < phase < high:
        yield Problem(
            "mislabelled side",
            f"knees bend with the hip of the other side (hip_flexion leads knee_angle by {phase:.0f} degrees of a "
            "stride): right and left of one of them have changed places (max_side_correlation: 1 accepts it)",
            value=phase,
        )


def _joined(recording: Recording) -> Iterator[Problem]:
    """Most joints jump at one frame: one trial ends there, and another begins."""
    moving = np.flatnonzero(_judged(recording) & (np.ptp(recording.angles_rad, axis=0) > _SWINGING_RAD))
    steps = np.degrees(np.diff(recording.angles_rad[:, moving], axis=0))
    if len(steps) < 3 or not len(moving):
        return
    apart_deg = np.abs(steps[1:-1] - (steps[:-2] + steps[2:]) / 2)
    # Fast movements at a low frame rate differ from step to step all the time.
    jumps = apart_deg > np.maximum(_JUMP_DEG, 6 * np.median(apart_deg, axis=0))
    least, share = _JUMPING_JOINTS
    # A shoulder near its singularity jumps without any movement.
    jumps[:, _SHOULDER[moving]] = False
    counts = jumps.sum(axis=1)
    places = np.flatnonzero((counts >= least) & (counts >= share * (~_SHOULDER[moving]).sum()))
    place = recording.pelvis[:, :3]
    apart = np.linalg.norm(np.diff(place, axis=0), axis=1)
    returns = np.flatnonzero(
        (apart > 1.0) & (apart > 50 * np.median(apart)) & (np.ptp(place, axis=0).max() < 100)
    )
    found = np.union1d(places + 1, returns)
    # Where frames are lost, that is the fault.
    found = found[np.diff(recording.time_s)[found] <= _UNEVEN * _step_s(recording.time_s)]
    if len(found):
        i = int(found[0])
        yield Problem(
            "joined trials",
            f"at {recording.time_s[i + 1]:.2f} s the whole body jumps{_more(len(found))}: several trials seem to "
            "follow one another in this file; save each in a file of its own",
            time_s=float(recording.time_s[i + 1]),
        )


def _unit_of_pelvis(recording: Recording) -> Iterator[Problem]:
    height_m = float(np.median(np.abs(recording.pelvis[:, 1])))
    if height_m > _HIGHEST_PELVIS_M:
        unit = "millimetres" if height_m > 300 else "centimetres"
        yield Problem(
            "wrong unit",
            f"the pelvis is {height_m:.0f} m high: expected metres, found what look like {unit} "
            "(units: mm in a joint map reads them)",
            value=height_m,
        )


def _pelvis_speed(recording: Recording, highest_m_s: float) -> Iterator[Problem]:
    time_s, place = recording.time_s, recording.pelvis[:, :3]
    frames = max(1, round(_SPEED_S / _step_s(time_s)))
    if len(time_s) <= frames or np.median(np.abs(place[:, 1])) > _HIGHEST_PELVIS_M:
        return
    speed = np.linalg.norm(place[frames:] - place[:-frames], axis=1) / (time_s[frames:] - time_s[:-frames])
    if speed.max() > highest_m_s:
        i = int(speed.argmax())
        yield Problem(
            "impossible speed",
            f"the pelvis moves at {speed[i]:.0f} m/s at {time_s[i]:.2f} s (max_pelvis_speed_m_s is "
            f"{highest_m_s:g}): it jumps, or its place is not in metres",
            time_s=float(time_s[i]),
            value=float(speed[i]),
        )


def _stride_rate(recording: Recording, most_hz: float) -> Iterator[Problem]:
    """Legs that alternate faster than a sprinter's: the times are too short."""
    legs = _hips_and_knees(recording)
    if legs is None:
        return
    power = np.abs(np.fft.rfft(detrend(legs[0][:, 0] - legs[0][:, 1]))) ** 2
    stride_hz = float(np.fft.rfftfreq(len(legs[0]), _step_s(recording.time_s))[power.argmax()])
    if stride_hz > most_hz:
        yield Problem(
            "wrong rate",
            f"the legs make {stride_hz:.1f} strides a second, expected at most {most_hz:g} (max_stride_hz): "
            "the times or the frame rate of the file are wrong",
            value=stride_hz,
        )


def _residuals(recording: Recording, settings: QualitySettings) -> Iterator[Problem]:
    """Markers that are not where the body's segments can bring them: wrong names, swapped sides, wrong markers."""
    if not recording.marker_residuals_m:
        return
    names = list(recording.marker_residuals_m)
    residual_mm = 1000 * np.stack(list(recording.marker_residuals_m.values()), axis=1)
    seen = np.isfinite(residual_mm).any(axis=1)
    if not seen.any():  # then there is nothing but gaps, which are a problem of their own
        return
    residual_mm, time_s = residual_mm[seen], recording.time_s[seen]
    whole, of_frames = (np.sqrt(np.nanmean(residual_mm**2, axis=axis)) for axis in (None, 1))
    of_markers = np.nanmedian(residual_mm, axis=0)
    order = np.argsort(-of_markers)
    worst = ", ".join(f"{names[i]} {of_markers[i]:.0f}" for i in order[:3])
    if whole > settings.max_residual_mm:
        yield Problem(
            "residual",
            f"markers are {whole:.0f} mm (RMS) from where a body of this size can have them, expected at most "
            f"{settings.max_residual_mm:g} (max_residual_mm); largest medians in mm: {worst}",
            value=float(whole),
        )
    limit = settings.max_marker_residual_mm
    if of_markers[order[0]] > limit:
        yield Problem(
            "residual",
            f"the markers {worst} mm are off in half of the frames, expected at most {limit:g} "
            "(max_marker_residual_mm): wrong names, or left and right exchanged",
            value=float(of_markers[order[0]]),
        )
    i = int(np.nanargmax(of_frames))
    if of_frames[i] > limit:
        yield Problem(
            "residual",
            f"the frame at {time_s[i]:.2f} s has {of_frames[i]:.0f} mm (RMS), and "
            f"{int((of_frames > limit).sum())} frames have more than {limit:g} (max_marker_residual_mm)",
            None,
            float(time_s[i]),
            float(of_frames[i]),
        )
