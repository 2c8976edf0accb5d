"""Pictures of a movement for a clinician: stick figures over time, joint angles with norm bands.

Draws arrays with matplotlib. Knows nothing about files or cohorts.
"""

import io
import re
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

RIGHT, LEFT, TRUNK = "#2b6cb0", "#c05621", "#4a5568"
"""Colours of the sides of the body, in every picture and page."""
BAND, NORM, AXIS = "#cbd5e0", "#718096", "#a0aec0"
"""Colours of a norm's band, of its mean and notes, and of a zero line."""
MIN_RANGE_DEG = 10.0
"""Smallest range of a joint angle's axis, so that a joint at rest looks at rest."""
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
"""Number of stick figures in a row."""


@contextmanager
def style() -> Iterator[None]:
    """Style of all figures that are made and saved inside this context."""
    with matplotlib.rc_context(_STYLE):
        yield


def svg(figure: Figure) -> str:
    """A figure as an `<svg>` element for a page."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    text = buffer.getvalue()
    # A hundredth of a point is not seen, and the digits after it are a third of the page.
    return re.sub(r"(\d\.\d\d)\d+", r"\1", text[text.index("<svg") :])


def png(figure: Figure, dpi: int = 90) -> bytes:
    """A figure as a PNG."""
    buffer = io.BytesIO()
    with style():
        figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def trial_figure(
    angles_rad: np.ndarray,
    pelvis: np.ndarray,
    rate_hz: float,
    *,
    title: str,
    how: str,
    joint_mask: np.ndarray | None = None,
) -> Figure:
    """A picture of one trial: stick figures and joint angles.

    A walk's curves are drawn over the gait cycle of their own side, one line per cycle, with the norm's mean and
    +-1 SD. Other movements are drawn over time.

    angles_rad: (T, 34) radians.
    pelvis: (T, 7) as in `Trial`.
    how: how the file was read, shown under the title.
    joint_mask: (34,) True where a joint was recorded; the others are marked "not recorded".
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
    return figure


def curves_figure(
    angles_rad: np.ndarray, pelvis: np.ndarray, rate_hz: float, joint_mask: np.ndarray | None = None
) -> Figure:
    """Joint curves alone, as `trial_figure` has them, in a fixed layout: drawn in a fraction of its time."""
    walk = gait.measure(angles_rad, pelvis, rate_hz)
    with style(), matplotlib.rc_context({"figure.constrained_layout.use": False}):
        figure = Figure(figsize=(15, 7.5))
        axes = figure.subplots(len(_PANELS), len(_PANELS[0]))
        for row, names in zip(axes, _PANELS, strict=True):
            for place, name in zip(row, names, strict=True):
                _curves(place, name, angles_rad, rate_hz, walk, joint_mask)
        figure.subplots_adjust(left=0.03, right=0.99, bottom=0.07, top=0.96, hspace=0.45, wspace=0.18)
    return figure


def measures(walk: gait.Gait, seconds: float) -> str:
    """The gait parameters of a walk in one line of text."""
    if not np.isfinite(walk.cadence_steps_min):
        return f"{seconds:.1f} s, no steps found"
    where = "overground" if walk.overground else "treadmill, or pelvis not recorded"
    return (
        f"{seconds:.1f} s, {walk.steps} steps, cadence {walk.cadence_steps_min:.0f}/min, "
        f"speed {walk.speed_pelvis_m_s:.2f} m/s by the pelvis, {walk.speed_legs_m_s:.2f} by the legs; {where}"
    )


def stick_figures(axes: Axes, points: np.ndarray, pelvis: np.ndarray, rate_hz: float, across: int) -> None:
    """Draw stick figures of points (T, P, 3) in a row, at even times, each above its time.

    Every figure is turned so that the pelvis faces forward. across: 0 is the view from the right side, 2 from the
    front.
    """
    frames = np.unique(np.linspace(0, len(points) - 1, _FIGURES).round().astype(int))
    for place, frame in enumerate(frames):
        # Heading: rotation about the vertical axis Y of the quaternion (w, x, y, z).
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
    axes.axhline(0, color=AXIS, linewidth=1)
    axes.set_aspect("equal")
    axes.set_xticks(1.1 * np.arange(len(frames)), [f"{frame / rate_hz:.2f} s" for frame in frames])
    axes.set_yticks([0, 1], ["0", "1 m"])


def band(axes: Axes, joint: str) -> None:
    """Draw the norm of a joint over the gait cycle, mean and +-1 SD; nothing if there is no norm."""
    norm = norms.gait_band(joint)
    if norm is not None:
        mean, sd = norm
        axes.fill_between(gait.CYCLE, mean - sd, mean + sd, color=BAND, alpha=0.7, linewidth=0)
        axes.plot(gait.CYCLE, mean, color=NORM, linewidth=1, linestyle="--")
        if not norms.CURVES.verified:
            axes.text(0.99, 0.02, "norm unverified", transform=axes.transAxes, ha="right", color=NORM)


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
            axes.text(0.5, 0.5, "not recorded", transform=axes.transAxes, ha="center", color=NORM)
            continue
        degrees = np.degrees(angles_rad[:, INDEX[full]])
        if walks:
            for frames, percent in pieces["l" if full.endswith("_l") else "r"]:
                axes.plot(percent, degrees[frames], color=colour, linewidth=1.2, alpha=0.8)
        else:
            axes.plot(np.arange(len(degrees)) / rate_hz, degrees, color=colour, linewidth=1.2)
    axes.set_xlabel("% of the gait cycle" if walks else "s")
    low, high = axes.get_ylim()
    if high - low < MIN_RANGE_DEG:
        axes.set_ylim((low + high - MIN_RANGE_DEG) / 2, (low + high + MIN_RANGE_DEG) / 2)
