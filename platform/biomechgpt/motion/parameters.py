"""Motion parameters: numbers measured from a movement's joint angles, without any annotation.

Spatiotemporal parameters (duration, cadence, speed, symmetry) and ranges of motion. A description of a movement is
made of them, so everything it states can be measured again. They are the subset of `quantities.QUANTITIES` that
the language model is trained on; another value or another parameter changes every description.
Knows nothing about tokens or models.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from biomechgpt.motion import gait, norms
from biomechgpt.motion.skeleton import INDEX


@dataclass(frozen=True)
class Movement:
    """A movement from which parameters are measured.

    angles_rad: (T, 34) radians.
    rate_hz: frames per second.
    walk: its gait, of which the parameters are measured if it has at least two steps.
    ranges_deg: (34,) range of motion of each joint, from the 2nd to the 98th percentile; NaN if not recorded.
    """

    angles_rad: np.ndarray
    rate_hz: float
    walk: gait.Gait
    ranges_deg: np.ndarray

    def of_walk(self, value: float) -> float:
        """`value` if the movement is a walk of at least two steps, else NaN."""
        return value if self.walk.steps >= 2 else np.nan


@dataclass(frozen=True)
class MotionParameter:
    """One parameter of a movement.

    label: its name in a description.
    unit: unit of its value, empty for a ratio.
    decimals: decimals shown.
    tolerance: difference allowed between two correct measurements, in `unit`.
    measure: its value for a movement; NaN if the movement does not have it.
    joint: the joint, if the parameter is a range of motion.
    """

    label: str
    unit: str
    decimals: int
    tolerance: float
    measure: Callable[[Movement], float]
    joint: str | None = None


def _range_of_motion(label: str, joint: str) -> MotionParameter:
    return MotionParameter(label, "deg", 0, 6, lambda m: float(m.ranges_deg[INDEX[joint]]), joint)


PARAMETERS: dict[str, MotionParameter] = {
    "duration": MotionParameter("duration", "s", 1, 0.5, lambda m: len(m.angles_rad) / m.rate_hz),
    "cadence": MotionParameter("cadence", "steps/min", 0, 6, lambda m: m.of_walk(m.walk.cadence_steps_min)),
    "speed": MotionParameter("speed", "m/s", 2, 0.15, lambda m: m.of_walk(m.walk.speed_m_s)),
    "symmetry": MotionParameter("step time symmetry", "", 2, 0.07, lambda m: m.of_walk(m.walk.step_time_symmetry)),
    **{
        f"{name}_{side}": _range_of_motion(f"{word} {name}", f"{joint}_{side}")
        for name, joint in (("hip", "hip_flexion"), ("knee", "knee_angle"), ("ankle", "ankle_angle"),
                            ("shoulder", "arm_flex"))
        for side, word in (("r", "right"), ("l", "left"))
    },
}  # fmt: skip
"""Parameters by name, in the order of a description. Names that end in `_r` and `_l` belong together: they change
places in the mirror image. Cadence, speed and symmetry exist for walks only (symmetry: shorter over longer mean
step time)."""

ParameterValues = Mapping[str, float | None]
"""{name: value} of one movement; None if the movement does not have the parameter."""


def ranges_deg(angles_rad: np.ndarray) -> np.ndarray:
    """(34,) range of motion of each joint of angles (T, 34), from the 2nd to the 98th percentile."""
    low, high = np.percentile(angles_rad, [2, 98], axis=0)
    return np.asarray(np.degrees(high - low))


def measure_parameters(
    angles_rad: np.ndarray, pelvis: np.ndarray, rate_hz: float, joint_mask: np.ndarray | None = None
) -> dict[str, float | None]:
    """The parameters of a movement; None if the movement does not have one.

    angles_rad: (T, 34) radians.
    pelvis: (T, 7) as in `Trial`.
    joint_mask: (34,), True where a joint was recorded.
    """
    ranges = ranges_deg(angles_rad)
    if joint_mask is not None:
        ranges = np.where(joint_mask, ranges, np.nan)
    movement = Movement(angles_rad, rate_hz, gait.measure(angles_rad, pelvis, rate_hz), ranges)
    values = {name: parameter.measure(movement) for name, parameter in PARAMETERS.items()}
    return {name: float(value) if np.isfinite(value) else None for name, value in values.items()}


def mirror_parameters(values: ParameterValues) -> dict[str, float | None]:
    """The parameters of the mirrored movement: right and left change places."""
    opposite = {"_r": "_l", "_l": "_r"}
    return {name: values.get(name[:-2] + opposite.get(name[-2:], name[-2:])) for name in values}


def format_parameter(name: str, value: float) -> str:
    """One parameter in words: `right knee 58 deg`."""
    parameter = PARAMETERS[name]
    return f"{parameter.label} {value:.{parameter.decimals}f} {parameter.unit}".rstrip()


def format_description(values: ParameterValues, names: Sequence[str] = tuple(PARAMETERS)) -> str:
    """A description of the parameters that are not None, in the order of `names`."""
    return ", ".join(
        format_parameter(name, value) for name in names if (value := values.get(name)) is not None
    )


_STATED = re.compile(
    "|".join(
        rf"(?P<{name}>{re.escape(fact.label)}) (?P<{name}_is>\d+(?:\.\d+)?)"
        for name, fact in PARAMETERS.items()
    )
)


def parse_description(description: str) -> dict[str, float]:
    """The parameters that a description states; the first value if it states one twice."""
    stated: dict[str, float] = {}
    for match in _STATED.finditer(description):
        name = str(match.lastgroup).removesuffix("_is")
        stated.setdefault(name, float(match[f"{name}_is"]))
    return stated


_NORMS = {"cadence": norms.cadence_steps_min, "speed": norms.walking_speed_m_s}


def normal_range(name: str) -> tuple[float, float] | None:
    """Normal range of a parameter in healthy walking, in its unit; None if there is no norm.

    Speed and cadence: mean -+ 2 SD of adults aged 50 (`norms`, both sexes). Range of motion: the range of the
        norm's
    mean curve over the gait cycle, -+ 2 times the curve's mean SD.
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
    """Source of the norm behind `normal_range`; None if there is no norm."""
    if name in _NORMS:
        return _NORMS[name](50, "").source
    return norms.CURVES if normal_range(name) is not None else None
