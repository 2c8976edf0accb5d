"""Checks of each joint by itself: it moves, within its range, without spikes, not too fast, and does not stick."""

from collections.abc import Iterator

import numpy as np
from scipy.ndimage import median_filter
from scipy.spatial.transform import Rotation

from biomechgpt.motion.skeleton import HIGH_RAD, INDEX, LOW_RAD, NAMES
from biomechgpt.recordings.quality.problem import (
    SHOULDER,
    SHOULDERS,
    SPEED_S,
    SWINGING_RAD,
    Problem,
    QualitySettings,
    judged,
    more,
    runs,
    step_s,
)
from biomechgpt.recordings.readers import Recording

_MOVING_RAD = np.radians(2)
"""A joint with a larger range moves; one with a smaller range may be locked by the model."""


def movement(recording: Recording, smallest_deg: float) -> Iterator[Problem]:
    angles = np.degrees(recording.angles_rad[:, judged(recording)])
    largest = float(np.ptp(angles, axis=0).max()) if angles.shape[1] else 0.0
    if largest < smallest_deg:
        lasts = float(recording.time_s[-1] - recording.time_s[0])
        yield Problem(
            "no movement",
            f"no joint moves by more than {largest:.2g} degrees in {lasts:.1f} s, "
            f"expected {smallest_deg:g} (min_movement_deg)",
            value=largest,
        )


def ranges(recording: Recording, margin_deg: float) -> Iterator[Problem]:
    angles = np.degrees(recording.angles_rad)
    # At some shoulder poses two sets of angles, half a turn apart, describe the same orientation.
    margin = margin_deg + 180.0 * SHOULDER
    low, high = np.degrees(LOW_RAD), np.degrees(HIGH_RAD)
    beyond = np.maximum(low - margin - angles, angles - high - margin)
    for j in np.flatnonzero(judged(recording) & (beyond.max(axis=0) > 0)):
        i = int(beyond[:, j].argmax())
        yield Problem(
            "impossible angle",
            f"{NAMES[j]} is {angles[i, j]:.0f} degrees at {recording.time_s[i]:.2f} s, expected {low[j]:.0f} to "
            f"{high[j]:.0f} (range_margin_deg is {margin_deg:g})",
            NAMES[j],
            float(recording.time_s[i]),
            float(angles[i, j]),
        )


def spikes(recording: Recording, settings: QualitySettings) -> Iterator[Problem]:
    """Frames that leave a joint's course and come back: too far from the running median."""
    frames = max(1, round(settings.spike_s / step_s(recording.time_s)))
    window = 2 * frames + 1

    def course(values: np.ndarray) -> np.ndarray:
        return np.asarray(median_filter(values, size=(window, 1), mode="mirror"))

    if len(recording.time_s) < window:
        return
    columns = np.flatnonzero(judged(recording) & ~SHOULDER)
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
                f"{more(len(runs(size > limit)))} ({key} is {limit:g})",
                name,
                float(recording.time_s[i]),
                float(size[i]),
            )


def speeds(recording: Recording, settings: QualitySettings) -> Iterator[Problem]:
    time_s = recording.time_s
    frames = max(1, round(SPEED_S / step_s(time_s)))
    if len(time_s) <= frames:
        return
    over_s = time_s[frames:] - time_s[:-frames]
    columns = np.flatnonzero(judged(recording) & ~SHOULDER)
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


def frozen(recording: Recording, longest_s: float) -> Iterator[Problem]:
    """A moving joint that keeps one value to the last digit while others move, or all joints at once.

    A joint that rests at its own lowest or highest value is at a limit of the model (a knee clamped at 0): no
    problem.
    """
    time_s, angles = recording.time_s, recording.angles_rad
    moving = np.flatnonzero(judged(recording) & (np.ptp(angles, axis=0) > _MOVING_RAD))
    if not len(moving):
        return
    same = np.abs(np.diff(angles[:, moving], axis=0)) < 1e-9

    def long_runs(flags: np.ndarray) -> list[tuple[int, int]]:
        return [(a, b + 1) for a, b in runs(flags) if time_s[b + 1] - time_s[a] > longest_s + 1e-6]

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
            moving_meanwhile = np.ptp(angles[a : b + 1, moving], axis=0) > SWINGING_RAD
            if moving_meanwhile.sum() >= 3 and not np.isclose(angles[a, j], stops, atol=1e-6).any():
                yield problem(NAMES[j], a, b)
                break


def _turns(recording: Recording) -> Iterator[tuple[str, Rotation]]:
    """(name, orientation) of each shoulder. Its angles jump near a singularity, its orientation does not."""
    for side, joints in SHOULDERS.items():
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
