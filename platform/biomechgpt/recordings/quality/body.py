"""Checks of the whole body: right and left, one movement throughout, a pelvis and steps that are possible."""

from collections.abc import Iterator

import numpy as np
import scipy  # loads a part when it is used: scipy.signal and scipy.stats take a second
from scipy.spatial.transform import Rotation

from biomechgpt.motion.skeleton import INDEX, NAMES
from biomechgpt.recordings.quality.problem import (
    SHOULDER,
    SPEED_S,
    SWINGING_RAD,
    UNEVEN,
    Problem,
    QualitySettings,
    judged,
    more,
    step_s,
)
from biomechgpt.recordings.readers import Recording

_ALTERNATING = -0.6
"""Right and left hip (or shoulder) alternate, as in a walk, if they correlate at most this much."""
_COHERENT = 0.7
"""Hips and knees that move together in one rhythm, as in a walk, are coherent at least this much."""
_WRONG_KNEE_DEG = (65.0, 115.0)
"""Hips lead knees by this phase only if right and left of one of them have changed places: in most walks knees lead
hips by 65 to 115 degrees."""
_BACKWARDS_M = -0.5
"""Displacement along the direction that the pelvis faces, in metres. Below it a person walks backward."""
_JUMP_DEG = 8.0
"""A step between two frames that differs by more from the steps around it is a jump."""
_JUMPING_JOINTS = (8, 0.55)
"""Joints that jump at once, and their share of those that move, where one trial ends and another begins."""
_HIGHEST_PELVIS_M = 30.0
"""A pelvis that is higher is not in metres. Stairs and force plates' origins lie far below."""


def sides(recording: Recording, most: float) -> Iterator[Problem]:
    """A left column that is a copy of the right one, or arms on the wrong side of a walk's legs."""
    angles, counts = recording.angles_rad, judged(recording)
    for name in NAMES:
        if not name.endswith("_r"):
            continue
        r, l = INDEX[name], INDEX[f"{name[:-2]}_l"]  # noqa: E741
        moves = counts[[r, l]].all() and np.ptp(angles[:, r]) > SWINGING_RAD
        if moves and np.allclose(angles[:, r], angles[:, l], atol=1e-6):
            yield Problem("mislabelled side", f"{name[:-2]}_l is a copy of {name}", f"{name[:-2]}_l")
    # Only a walk in which both hips and both shoulders swing and alternate tells the sides apart. A hemiplegic arm
    # or hands on a walking frame do not.
    swinging = _swinging(recording, "hip_flexion", "arm_flex")
    if swinging is None:
        return
    hip, arm = swinging
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


def knee_sides(recording: Recording) -> Iterator[Problem]:
    """Knees that bend with the hip of the other side.

    In a stride a knee bends before its hip does. With right and left of one of them exchanged it bends after it.
    It also does so in walking backward, which is left out.
    """
    legs = _hips_and_knees(recording)
    if legs is None or _forward_m(recording) < _BACKWARDS_M:
        return
    hip, knee = (scipy.signal.hilbert(scipy.signal.detrend(side[:, 0] - side[:, 1])) for side in legs)
    product = (hip * np.conj(knee)).sum() / np.sqrt((np.abs(hip) ** 2).sum() * (np.abs(knee) ** 2).sum())
    phase, (low, high) = float(np.degrees(np.angle(product))), _WRONG_KNEE_DEG
    if abs(product) >= _COHERENT and low < phase < high:
        yield Problem(
            "mislabelled side",
            f"knees bend with the hip of the other side (hip_flexion leads knee_angle by {phase:.0f} degrees of a "
            "stride): right and left of one of them have changed places (max_side_correlation: 1 accepts it)",
            value=phase,
        )


def _forward_m(recording: Recording) -> float:
    """How far the pelvis moves in the direction that it faces; 0 if its place was not recorded."""
    pelvis = recording.pelvis[np.isfinite(recording.pelvis).all(axis=1)]
    if len(pelvis) < 2:
        return 0.0
    place, turn = pelvis[:, :3], Rotation.from_quat(pelvis[:, 3:], scalar_first=True)
    return float((np.diff(place, axis=0) * turn.apply([1.0, 0.0, 0.0])[:-1]).sum())


def joined_trials(recording: Recording) -> Iterator[Problem]:
    """Most joints jump at one frame: one trial ends there, and another begins."""
    moving = np.flatnonzero(judged(recording) & (np.ptp(recording.angles_rad, axis=0) > SWINGING_RAD))
    steps = np.degrees(np.diff(recording.angles_rad[:, moving], axis=0))
    if len(steps) < 3 or not len(moving):
        return
    apart_deg = np.abs(steps[1:-1] - (steps[:-2] + steps[2:]) / 2)
    # Fast movements at a low frame rate differ from step to step all the time.
    jumps = apart_deg > np.maximum(_JUMP_DEG, 6 * np.median(apart_deg, axis=0))
    least, share = _JUMPING_JOINTS
    # A shoulder near its singularity jumps without any movement.
    jumps[:, SHOULDER[moving]] = False
    counts = jumps.sum(axis=1)
    places = np.flatnonzero((counts >= least) & (counts >= share * (~SHOULDER[moving]).sum()))
    place = recording.pelvis[:, :3]
    apart = np.linalg.norm(np.diff(place, axis=0), axis=1)
    returns = np.flatnonzero(
        (apart > 1.0) & (apart > 50 * np.median(apart)) & (np.ptp(place, axis=0).max() < 100)
    )
    found = np.union1d(places + 1, returns)
    # Where frames are lost, that is the fault.
    found = found[np.diff(recording.time_s)[found] <= UNEVEN * step_s(recording.time_s)]
    if len(found):
        i = int(found[0])
        yield Problem(
            "joined trials",
            f"at {recording.time_s[i + 1]:.2f} s the whole body jumps{more(len(found))}: several trials seem to "
            "follow one another in this file; save each in a file of its own",
            time_s=float(recording.time_s[i + 1]),
        )


def unit_of_pelvis(recording: Recording) -> Iterator[Problem]:
    height_m = float(np.median(np.abs(recording.pelvis[:, 1])))
    if height_m > _HIGHEST_PELVIS_M:
        unit = "millimetres" if height_m > 300 else "centimetres"
        yield Problem(
            "wrong unit",
            f"the pelvis is {height_m:.0f} m high: expected metres, found what look like {unit} "
            "(units: mm in a joint map reads them)",
            value=height_m,
        )


def pelvis_speed(recording: Recording, highest_m_s: float) -> Iterator[Problem]:
    time_s, place = recording.time_s, recording.pelvis[:, :3]
    frames = max(1, round(SPEED_S / step_s(time_s)))
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


def stride_rate(recording: Recording, most_hz: float) -> Iterator[Problem]:
    """Legs that alternate faster than a sprinter's: the times are too short."""
    legs = _hips_and_knees(recording)
    if legs is None:
        return
    power = np.abs(np.fft.rfft(scipy.signal.detrend(legs[0][:, 0] - legs[0][:, 1]))) ** 2
    stride_hz = float(np.fft.rfftfreq(len(legs[0]), step_s(recording.time_s))[power.argmax()])
    if stride_hz > most_hz:
        yield Problem(
            "wrong rate",
            f"the legs make {stride_hz:.1f} strides a second, expected at most {most_hz:g} (max_stride_hz): "
            "the times or the frame rate of the file are wrong",
            value=stride_hz,
        )


def residuals(recording: Recording, settings: QualitySettings) -> Iterator[Problem]:
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


def _hips_and_knees(recording: Recording) -> tuple[np.ndarray, np.ndarray] | None:
    """(T, 2) hip and (T, 2) knee flexion in radians, right and left, where both swing and hips alternate."""
    swinging = _swinging(recording, "hip_flexion", "knee_angle")
    if swinging is None or np.corrcoef(swinging[0].T)[0, 1] > _ALTERNATING:
        return None
    hip, knee = swinging
    return hip, -knee


def _swinging(recording: Recording, *joints: str) -> list[np.ndarray] | None:
    """(T, 2) angles of each joint in radians, right and left; None for less than a second, or where one rests."""
    columns = [[INDEX[f"{joint}_{side}"] for side in "rl"] for joint in joints]
    if not judged(recording)[np.ravel(columns)].all() or recording.time_s[-1] - recording.time_s[0] < 1.0:
        return None
    angles = [recording.angles_rad[:, pair] for pair in columns]
    return angles if min(pair.std(axis=0).min() for pair in angles) >= SWINGING_RAD else None
