"""Checks of the frames: gaps, length and rate; and the interpolation of short gaps."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from scipy.interpolate import pchip_interpolate

from biomechgpt.motion.skeleton import N_JOINTS, NAMES
from biomechgpt.recordings.quality.problem import UNEVEN, Problem, more, runs, step_s
from biomechgpt.recordings.readers import Recording


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


def gaps(recording: Recording, allowed_s: float) -> Iterator[Problem]:
    time_s = recording.time_s
    step = step_s(time_s)
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
                f"{joint} has no values from {start:.2f} to {end:.2f} s{more(len(bad))} "
                f"(interpolate_gaps_s is {allowed_s:g})",
                None if joint == "every joint" else joint,
                start,
                end - start,
            )


def duration(time_s: np.ndarray, shortest_s: float) -> Iterator[Problem]:
    lasts = float(time_s[-1] - time_s[0]) if len(time_s) else 0.0
    # The last frame lasts one step too.
    if lasts + step_s(time_s) < shortest_s - 1e-6:
        text = f"expected at least {shortest_s:g} s (min_duration_s), found {len(time_s)} frames over {lasts:.2f} s"
        yield Problem("too short", text, value=lasts)


def rate(recording: Recording, annotated: float | None, tolerance: float) -> Iterator[Problem]:
    time_s = recording.time_s
    if len(time_s) < 2:
        return
    # The mean rate, right if no frame is lost, and the rate of the usual step, right if some are.
    measured = ((len(time_s) - 1) / float(time_s[-1] - time_s[0]), 1 / step_s(time_s))
    declared = {"the file": recording.declared_rate_hz, "the annotation": annotated}
    for who, rate in declared.items():
        if rate is not None and all(abs(rate / m - 1) > tolerance for m in measured):
            yield Problem(
                "rate mismatch",
                f"{who} declares {rate:g} Hz, its times give {measured[0]:.4g} Hz "
                f"(rate_tolerance is {tolerance:g})",
                value=measured[0],
            )


def _missing(recording: Recording) -> Iterator[tuple[str, float, float]]:
    """(joint or "pelvis", start, end) of each run of frames without its value; `end` is one frame past it."""
    columns = {NAMES[j]: recording.angles_rad[:, j] for j in np.flatnonzero(recording.joint_mask)}
    columns["pelvis"] = recording.pelvis.sum(axis=1)
    step = step_s(recording.time_s)
    for name, values in columns.items():
        absent = np.isnan(values)
        if absent.any():
            for first, last in runs(absent):
                yield name, float(recording.time_s[first]), float(recording.time_s[last]) + step


def _jumps(time_s: np.ndarray) -> list[tuple[float, float]]:
    """(start, end) of each run of frames that is missing from the times."""
    step = step_s(time_s)
    return [
        (float(time_s[i]) + step, float(time_s[i + 1]))
        for i in np.flatnonzero(np.diff(time_s) > UNEVEN * step)
    ]
