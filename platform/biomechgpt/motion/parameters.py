"""Motion parameters: numbers measured from a movement's joint angles, without any annotation.

Spatiotemporal parameters (duration, cadence, speed, symmetry) and ranges of motion. A description of a movement is
made of them, so everything it states can be measured again. Knows nothing about tokens or models.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from biomechgpt.motion import gait, norms
from biomechgpt.motion.skeleton import INDEX


@dataclass(frozen=True)
class MotionParameter:
    """One parameter of a movement.

    label: its name in a description.
    unit: unit of its value, empty for a ratio.
    decimals: decimals shown.
    tolerance: difference allowed between two correct measurements, in `unit`.
    joint: the joint, if the parameter is a range of motion.
    """

    label: str
    unit: str
    decimals: int
    tolerance: float
    joint: str | None = None


PARAMETERS: dict[str, MotionParameter] = {
    "duration": MotionParameter("duration", "s", 1, 0.5),
    "cadence": MotionParameter("cadence", "steps/min", 0, 6),
    "speed": MotionParameter("speed", "m/s", 2, 0.15),
    "symmetry": MotionParameter("step time symmetry", "", 2, 0.07),
    **{
        f"{name}_{side}": MotionParameter(f"{word} {name}", "deg", 0, 6, f"{joint}_{side}")
        for name, joint in (("hip", "hip_flexion"), ("knee", "knee_angle"), ("ankle", "ankle_angle"),
                            ("shoulder", "arm_flex"))
        for side, word in (("r", "right"), ("l", "left"))
    },
}  # fmt: skip
"""Parameters by name. A joint's parameter is its range of motion, 2nd to 98th percentile of its angle. Cadence,
speed and symmetry exist for walks only (`motion.gait`; symmetry: shorter over longer mean step time)."""

ParameterValues = Mapping[str, float | None]


def measure_parameters(
    angles_rad: np.ndarray, pelvis: np.ndarray, rate_hz: float, joint_mask: np.ndarray | None = None
) -> dict[str, float | None]:
    """Parameters of a movement: angles (T, 34), pelvis (T, 7) as in `Trial`; None if not measurable.

    joint_mask: (34,), True where a joint was recorded.
    """
    low, high = np.percentile(angles_rad, [2, 98], axis=0)
    ranges = np.degrees(high - low)
    walk = gait.measure(angles_rad, pelvis, rate_hz)
    steps = walk.steps >= 2
    found: dict[str, float] = {
        "duration": len(angles_rad) / rate_hz,
        "cadence": walk.cadence_steps_min if steps else np.nan,
        "speed": walk.speed_m_s if steps else np.nan,
        "symmetry": walk.step_time_symmetry if steps else np.nan,
    }
    for name, fact in PARAMETERS.items():
        if fact.joint is not None:
            i = INDEX[fact.joint]
            found[name] = float(ranges[i]) if joint_mask is None or joint_mask[i] else np.nan
    return {name: float(found[name]) if np.isfinite(found[name]) else None for name in PARAMETERS}


def mirror_parameters(facts: ParameterValues) -> dict[str, float | None]:
    """The facts of the movement in a mirror."""
    other = {"_r": "_l", "_l": "_r"}
    return {name: facts.get(name[:-2] + other.get(name[-2:], name[-2:])) for name in facts}


def format_parameter(name: str, value: float) -> str:
    """One fact in words: `right knee 58 deg`."""
    fact = PARAMETERS[name]
    return f"{fact.label} {value:.{fact.decimals}f} {fact.unit}".rstrip()


def format_description(facts: ParameterValues, names: Sequence[str] = tuple(PARAMETERS)) -> str:
    """A description of the facts that are known, in the order of `names`."""
    return ", ".join(
        format_parameter(name, value) for name in names if (value := facts.get(name)) is not None
    )


_STATED = re.compile(
    "|".join(
        rf"(?P<{name}>{re.escape(fact.label)}) (?P<{name}_is>\d+(?:\.\d+)?)"
        for name, fact in PARAMETERS.items()
    )
)


def parse_description(description: str) -> dict[str, float]:
    """The facts that a description states, whoever wrote it; the first where it states one twice."""
    found: dict[str, float] = {}
    for match in _STATED.finditer(description):
        name = str(match.lastgroup).removesuffix("_is")
        found.setdefault(name, float(match[f"{name}_is"]))
    return found


_NORMS = {"cadence": norms.cadence_steps_min, "speed": norms.walking_speed_m_s}


def normal_range(name: str) -> tuple[float, float] | None:
    """What a fact lies between in most healthy walks, in its unit; None where no norm is at hand.

    Speed and cadence: mean -+ 2 SD of adults of 50 (`norms`, both sexes). A joint: the range of the mean curve of
    a gait cycle, -+ 2 SD of a place on it.
    """
    if name in _NORMS:
        norm = _NORMS[name](50, "")
        return norm.mean - 2 * norm.sd, norm.mean + 2 * norm.sd
    joint = PARAMETERS[name].joint
    band = norms.gait_band(joint) if joint else None
    if band is None:
        return None
    mean, sd = band
    spread = 2 * float(sd.mean())
    return float(np.ptp(mean)) - spread, float(np.ptp(mean)) + spread


def normal_range_source(name: str) -> norms.Source | None:
    """Source of the norm behind `normal_range`; None where no norm is at hand."""
    if name in _NORMS:
        return _NORMS[name](50, "").source
    return norms.CURVES if normal_range(name) is not None else None
