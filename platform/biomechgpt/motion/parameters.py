"""Facts: what a movement's own joint angles say of it in plain numbers, without anybody's annotation.

A description of a movement is made of them, so whatever it states can be measured again. A cohort's are an
artifact, measured once by a Ray task a shard. Knows nothing about tokens or models.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from biomechgpt.motion import gait, norms
from biomechgpt.motion.skeleton import INDEX


@dataclass(frozen=True)
class Fact:
    """One number. says: its name in a description. decimals: those that are worth saying. tolerance: what two
    honest measurements may differ by, in `unit`. joint: whose range of movement it is."""

    says: str
    unit: str
    decimals: int
    tolerance: float
    joint: str | None = None


FACTS: dict[str, Fact] = {
    "duration": Fact("duration", "s", 1, 0.5),
    "cadence": Fact("cadence", "steps/min", 0, 6),
    "speed": Fact("speed", "m/s", 2, 0.15),
    "symmetry": Fact("step time symmetry", "", 2, 0.07),
    **{
        f"{name}_{side}": Fact(f"{word} {name}", "deg", 0, 6, f"{joint}_{side}")
        for name, joint in (("hip", "hip_flexion"), ("knee", "knee_angle"), ("ankle", "ankle_angle"),
                            ("shoulder", "arm_flex"))
        for side, word in (("r", "right"), ("l", "left"))
    },
}  # fmt: skip
"""What can be said of a movement. Joints: the range they move through, 2nd to 98th percentile of their angle.
Cadence, speed and symmetry are of walks alone (`cohort.gait`; symmetry: shorter over longer mean step time)."""

Facts = Mapping[str, float | None]


def measure(
    angles_rad: np.ndarray, pelvis: np.ndarray, rate_hz: float, joint_mask: np.ndarray | None = None
) -> dict[str, float | None]:
    """The facts of a movement: angles (T, 34), pelvis (T, 7) as in `Trial`; None where it does not say.

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
    for name, fact in FACTS.items():
        if fact.joint is not None:
            i = INDEX[fact.joint]
            found[name] = float(ranges[i]) if joint_mask is None or joint_mask[i] else np.nan
    return {name: float(found[name]) if np.isfinite(found[name]) else None for name in FACTS}


def mirrored(facts: Facts) -> dict[str, float | None]:
    """The facts of the movement in a mirror."""
    other = {"_r": "_l", "_l": "_r"}
    return {name: facts.get(name[:-2] + other.get(name[-2:], name[-2:])) for name in facts}


def say(name: str, value: float) -> str:
    """One fact in words: `right knee 58 deg`."""
    fact = FACTS[name]
    return f"{fact.says} {value:.{fact.decimals}f} {fact.unit}".rstrip()


def describe(facts: Facts, names: Sequence[str] = tuple(FACTS)) -> str:
    """A description of the facts that are known, in the order of `names`."""
    return ", ".join(say(name, value) for name in names if (value := facts.get(name)) is not None)


_STATED = re.compile(
    "|".join(
        rf"(?P<{name}>{re.escape(fact.says)}) (?P<{name}_is>\d+(?:\.\d+)?)" for name, fact in FACTS.items()
    )
)


def stated(description: str) -> dict[str, float]:
    """The facts that a description states, whoever wrote it; the first where it states one twice."""
    found: dict[str, float] = {}
    for match in _STATED.finditer(description):
        name = str(match.lastgroup).removesuffix("_is")
        found.setdefault(name, float(match[f"{name}_is"]))
    return found


_NORMS = {"cadence": norms.cadence_steps_min, "speed": norms.walking_speed_m_s}


def usual(name: str) -> tuple[float, float] | None:
    """What a fact lies between in most healthy walks, in its unit; None where no norm is at hand.

    Speed and cadence: mean -+ 2 SD of adults of 50 (`norms`, both sexes). A joint: the range of the mean curve of
    a gait cycle, -+ 2 SD of a place on it.
    """
    if name in _NORMS:
        norm = _NORMS[name](50, "")
        return norm.mean - 2 * norm.sd, norm.mean + 2 * norm.sd
    joint = FACTS[name].joint
    band = norms.gait_band(joint) if joint else None
    if band is None:
        return None
    mean, sd = band
    spread = 2 * float(sd.mean())
    return float(np.ptp(mean)) - spread, float(np.ptp(mean)) + spread


def normal_range_source(name: str) -> norms.Source | None:
    """Source of the norm behind `usual`; None where no norm is at hand."""
    if name in _NORMS:
        return _NORMS[name](50, "").source
    return norms.CURVES if usual(name) is not None else None
