"""The body as a MuJoCo model: the skeleton's segments and hinges, scaled, with a site for each marker.

The XML is written from `motion.kinematics`, so both have the same axes, signs and order of hinges.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from xml.etree import ElementTree as Xml

import numpy as np

from biomechgpt.core.settings import InputError
from biomechgpt.motion.kinematics import HEIGHT_M, MID_HIP, SEGMENTS
from biomechgpt.motion.skeleton import HIGH_RAD, INDEX, LOW_RAD

logger = logging.getLogger("biomechgpt")
_MARGIN_RAD = np.radians(15)
"""How far a solution may leave the skeleton's range of a joint."""


@dataclass(frozen=True)
class Site:
    """Where a marker is on the body.

    body: the segment that carries it, called by its end (`knee_r` is the thigh), or `pelvis`.
    position_m: (3,) in that segment's frame, whose origin is the segment's start.
    """

    body: str
    position_m: np.ndarray


def engine(name: str) -> tuple[ModuleType, ModuleType]:
    """mujoco and mink. Raises InputError that names the extra if they are not installed."""
    try:
        import mink
        import mujoco
    except ImportError as error:
        raise InputError(
            f"{name}: expected the packages mujoco and mink, which compute joint angles from markers, found none "
            f"({error}). Install them: pip install 'biomechgpt[markers]'"
        ) from None
    # MuJoCo would write its warnings into a file in the working folder.
    mujoco.set_mju_user_warning(logger.debug)
    return mujoco, mink


def bodies(lengths: Mapping[str, float]) -> dict[str, str]:
    """{landmark: the rigid segment that carries it}."""
    return {landmark: body for landmark, (body, _) in places(lengths).items()}


def places(lengths: Mapping[str, float]) -> dict[str, tuple[str, np.ndarray]]:
    """{landmark: (segment that carries it, its position (3,) in that segment's frame)} in metres.

    lengths: {end of a segment: its length as a multiple of the 1.70 m figure's}.
    """
    found = {"pelvis": ("pelvis", HEIGHT_M * lengths["hip_r"] * np.array(MID_HIP))}
    for segment in SEGMENTS:
        offset = HEIGHT_M * lengths[segment.end] * np.array(segment.offset)
        body, start = found[segment.start]
        found[segment.end] = (segment.end, offset) if segment.hinges else (body, start + offset)
    return found


def xml(lengths: Mapping[str, float], sites: Sequence[Site]) -> str:
    """The model's MJCF. Site i is named `i`; the pelvis has a free joint."""
    root = Xml.Element("mujoco")
    Xml.SubElement(root, "compiler", angle="radian")
    Xml.SubElement(root, "option", gravity="0 0 0")
    world = Xml.SubElement(root, "worldbody")
    elements = {"pelvis": _body(world, "pelvis", np.zeros(3))}
    Xml.SubElement(elements["pelvis"], "freejoint", name="pelvis")
    where = places(lengths)
    for segment in SEGMENTS:
        if not segment.hinges:
            continue
        parent, position = where[segment.start]
        elements[segment.end] = _body(elements[parent], segment.end, position)
        for joint, axis in segment.hinges:
            low, high = LOW_RAD[INDEX[joint]] - _MARGIN_RAD, HIGH_RAD[INDEX[joint]] + _MARGIN_RAD
            Xml.SubElement(
                elements[segment.end], "joint",
                name=joint, type="hinge", axis=_text(np.array(axis)), range=f"{low} {high}",
            )  # fmt: skip
    for i, site in enumerate(sites):
        Xml.SubElement(elements[site.body], "site", name=str(i), pos=_text(site.position_m))
    return Xml.tostring(root, encoding="unicode")


def _body(parent: Xml.Element, name: str, position: np.ndarray) -> Xml.Element:
    element = Xml.SubElement(parent, "body", name=name, pos=_text(position))
    # Inverse kinematics needs no mass, but MuJoCo wants one for whatever moves.
    Xml.SubElement(element, "inertial", pos="0 0 0", mass="1", diaginertia="1 1 1")
    return element


def _text(vector: np.ndarray) -> str:
    return " ".join(f"{value:.9g}" for value in vector)
