"""A movement as a clinician would check it: stick figures over time, joint curves beside norm bands.

Draws arrays with matplotlib; knows nothing about files or cohorts.
"""

import io
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from biomechgpt.motion import gait, norms
from biomechgpt.motion.kinematics import BONES, LANDMARKS, points_m
from biomechgpt.motion.skeleton import INDEX, JOINTS

RIGHT, LEFT, TRUNK, BAND = "#2b6cb0", "#c05621", "#4a5568", "#cbd5e0"
_STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "biomechgpt",
    "figure.constrained_layout.use": True,
}

_PANELS = (
    ("hip_flexion", "knee_angle", "ankle_angle", "hip_adduction", "hip_rotation"),
    ("lumbar_extension", "lumbar_bending", "lumbar_rotation", "neck_rotation", "subtalar_angle"),
    ("arm_flex", "arm_add", "arm_rot", "elbow_flex", "pro_sup"),
)
_FIGURES = 14
"""Stick figures a row."""
_LEAST_DEG = 10.0
"""No panel shows fewer degrees than these: a joint at rest looks at rest."""


@contextmanager
def style() -> Iterator[None]:
    """The house's look, for figures made and saved within."""
    with matplotlib.rc_context(_STYLE):
        yield


def svg(figure: Figure) -> str:
    """A figure as an element of a page."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def trial_png(
    angles_rad: np.ndarray,
    pelvis: np.ndarray,
    rate_hz: float,
    *,
    title: str,
    how: str,
    joint_mask: np.ndarray | None = None,
) -> bytes:
    """One trial as a PNG: angles (T, 34), pelvis (T, 7); `how` it was read.

    Where it walks, curves are over the gait cycle of their own side, every cycle a line, beside the norm's
    mean and +-1 SD; elsewhere over time. joint_mask (34,): a joint that was not recorded is said to be so.
    """
    walk = gait.measure(angles_rad, pelvis, rate_hz)
    with style():
        figure = Figure(figsize=(15, 12.5))
        rows = figure.add_gridspec(2 + len(_PANELS), 1, height_ratios=[1.25, 1.25, *[1] * len(_PANELS)])
        points = points_m(angles_rad, pelvis)
        for row, (name, across) in enumerate((("from the right side", 0), ("from the front", 2))):
            axes = figure.add_subplot(rows[row])
            stick_figures(axes, points, pelvis, rate_hz, across)
            axes.set_title(f"{name}: right leg and arm blue, left orange", loc="left")
        for row, names in enumerate(_PANELS):
            inner = rows[row + 2].subgridspec(1, len(names))
            for column, name in enumerate(names):
                _curves(figure.add_subplot(inner[column]), name, angles_rad, rate_hz, walk, joint_mask)
        figure.suptitle(f"{title}\n{textwrap.fill(how, 150)}\n{measures(walk, len(angles_rad) / rate_hz)}")
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=90)
    return buffer.getvalue()


def measures(walk: gait.Gait, seconds: float) -> str:
    """A walk's measures in a line, or that nobody walks."""
    if not np.isfinite(walk.cadence_steps_min):
        return f"{seconds:.1f} s, no steps found"
    where = "the pelvis travels" if walk.overground else "the pelvis stays: treadmill, or not recorded"
    return (
        f"{seconds:.1f} s, {walk.steps} steps, cadence {walk.cadence_steps_min:.0f}/min, "
        f"speed {walk.speed_pelvis_m_s:.2f} m/s by the pelvis, {walk.speed_legs_m_s:.2f} by the legs; {where}"
    )


def stick_figures(axes: Axes, points: np.ndarray, pelvis: np.ndarray, rate_hz: float, across: int) -> None:
    """Figures (T, P, 3) at even times in a row; across: 0 looks from the right side, 2 from the front.

    Each is turned to where the pelvis faces and set over its own time.
    """
    frames = np.unique(np.linspace(0, len(points) - 1, _FIGURES).round().astype(int))
    for place, frame in enumerate(frames):
        w, x, y, z = pelvis[frame, 3:]
        heading = np.arctan2(2 * (w * y - x * z), 1 - 2 * (y * y + z * z))
        turned = points[frame] - points[frame, LANDMARKS.index("pelvis")] * [1, 0, 1]
        ahead = turned[:, 0] * np.cos(heading) - turned[:, 2] * np.sin(heading)
        right = turned[:, 0] * np.sin(heading) + turned[:, 2] * np.cos(heading)
        # From the front, a person's right is on the viewer's left.
        flat = 1.1 * place + (ahead if across == 0 else -right)
        for start, end in BONES:
            name = LANDMARKS[end]
            colour = RIGHT if name.endswith("_r") else LEFT if name.endswith("_l") else TRUNK
            axes.plot(flat[[start, end]], points[frame, [start, end], 1], color=colour, linewidth=1.6)
    axes.axhline(0, color="#a0aec0", linewidth=1)
    axes.set_aspect("equal")
    axes.set_xticks(1.1 * np.arange(len(frames)), [f"{frame / rate_hz:.2f} s" for frame in frames])
    axes.set_yticks([0, 1], ["0", "1 m"])


def band(axes: Axes, joint: str) -> None:
    """The norm of a joint over the gait cycle, mean and +-1 SD; nothing where there is none."""
    norm = norms.gait_band(joint)
    if norm is not None:
        mean, sd = norm
        axes.fill_between(gait.CYCLE, mean - sd, mean + sd, color=BAND, alpha=0.7, linewidth=0)
        axes.plot(gait.CYCLE, mean, color="#718096", linewidth=1, linestyle="--")
        if not norms.CURVES.verified:
            axes.text(0.99, 0.02, "norm unverified", transform=axes.transAxes, ha="right", color="#718096")


def _curves(
    axes: Axes,
    name: str,
    angles_rad: np.ndarray,
    rate_hz: float,
    walk: gait.Gait,
    joint_mask: np.ndarray | None,
) -> None:
    sides = {name: TRUNK} if name in INDEX else {f"{name}_r": RIGHT, f"{name}_l": LEFT}
    joint = JOINTS[INDEX[next(iter(sides))]]
    axes.set_title(f"{name.replace('_', ' ')}, ° (+ {joint.positive.split(';')[0]})", loc="left")
    pieces = {side: gait.partial_strides(walk, len(angles_rad), side) for side in gait.SIDES}
    walks = bool(pieces["r"])
    if walks:
        band(axes, next(iter(sides)))
    for full, colour in sides.items():
        if joint_mask is not None and not joint_mask[INDEX[full]]:
            axes.text(0.5, 0.5, "not recorded", transform=axes.transAxes, ha="center", color="#718096")
            continue
        degrees = np.degrees(angles_rad[:, INDEX[full]])
        if walks:
            for frames, percent in pieces["l" if full.endswith("_l") else "r"]:
                axes.plot(percent, degrees[frames], color=colour, linewidth=1.2, alpha=0.8)
        else:
            axes.plot(np.arange(len(degrees)) / rate_hz, degrees, color=colour, linewidth=1.2)
    axes.set_xlabel("% of the gait cycle" if walks else "s")
    low, high = axes.get_ylim()
    if high - low < _LEAST_DEG:
        axes.set_ylim((low + high - _LEAST_DEG) / 2, (low + high + _LEAST_DEG) / 2)
