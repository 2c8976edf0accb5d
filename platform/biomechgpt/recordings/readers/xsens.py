"""Reads Xsens MVN's XML (.mvnx): joint angles in degrees, and the pelvis as the place and orientation of a segment.

Columns have the names of Xsens' own table of joint angles, so that one joint map reads both
(configs/joint_maps/xsens.yaml). Angles are about X (abduction), Y (rotation) and Z (flexion), in the order Z-X-Y.
The world is Z-up, X forward. Layout and axes: MVN User Manual, "MVNX" and "Joint angles".
"""

import io
from collections.abc import Mapping
from xml.etree import ElementTree

import numpy as np
from scipy.spatial.transform import Rotation

from biomechgpt.core.settings import InputError
from biomechgpt.recordings.readers.joint_map import PELVIS_ROTATIONS, PELVIS_TRANSLATIONS
from biomechgpt.recordings.readers.recording import Columns, ReaderSettings, Recording, assemble
from biomechgpt.recordings.readers.text import MAX_CELLS

SUFFIXES = (".mvnx",)
_SPINE = {
    "jL5S1": "L5S1",
    "jL4L3": "L4L3",
    "jL1T12": "L1T12",
    "jT9T8": "T9T8",
    "jT1C7": "T1C7",
    "jC1Head": "C1 Head",
}
_LIMBS = {
    "Hip": ("Hip Abduction/Adduction", "Hip Internal/External Rotation", "Hip Flexion/Extension"),
    "Knee": ("Knee Abduction/Adduction", "Knee Internal/External Rotation", "Knee Flexion/Extension"),
    "Ankle": (
        "Ankle Abduction/Adduction",
        "Ankle Internal/External Rotation",
        "Ankle Dorsiflexion/Plantarflexion",
    ),
    "BallFoot": (
        "Ball Foot Abduction/Adduction",
        "Ball Foot Internal/External Rotation",
        "Ball Foot Flexion/Extension",
    ),
    "Shoulder": (
        "Shoulder Abduction/Adduction",
        "Shoulder Internal/External Rotation",
        "Shoulder Flexion/Extension",
    ),
    "Elbow": (
        "Elbow Ulnar Deviation/Radial Deviation",
        "Elbow Pronation/Supination",
        "Elbow Flexion/Extension",
    ),
    "Wrist": (
        "Wrist Ulnar Deviation/Radial Deviation",
        "Wrist Pronation/Supination",
        "Wrist Flexion/Extension",
    ),
}
# Turns Xsens' Z-up world into OpenSim's Y-up world: z becomes y, and y (left) becomes -z.
_TO_Y_UP = Rotation.from_euler("x", -90, degrees=True)


def matches(content: bytes) -> bool:
    """Whether this is XML whose root is `mvnx`."""
    head = content[:4096]
    return b"<mvnx" in head and head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<")


def read(name: str, content: bytes, settings: ReaderSettings) -> Recording:
    """The recording in `content`. Raises InputError naming file and frame."""
    if b"<!DOCTYPE" in content[:4096] or b"<!ENTITY" in content:
        raise InputError(f"{name}: expected MVNX without a document type, found one: it is not read")
    joints, segments, rate_hz, frames = _elements(name, content)
    if not joints:
        raise InputError(
            f"{name}: expected joints and their angles, found none: export them with MVN Analyze"
        )
    angles = _table(name, "jointAngle", frames, 3 * len(joints))
    columns = {
        label: angles[:, 3 * j + k]
        for j, joint in enumerate(joints)
        for k, label in enumerate(_labels(joint))
    }
    if segments and all("orientation" in frame and "position" in frame for frame in frames):
        orientation = _table(name, "orientation", frames, 4 * len(segments))
        columns |= _pelvis(_table(name, "position", frames, 3 * len(segments))[:, :3], orientation[:, :4])
    if not rate_hz > 0:
        raise InputError(f"{name}: frameRate: expected a number above 0, found {rate_hz:g}")
    file = Columns(
        format="Xsens MVNX",
        values=columns,
        units="degrees",
        place=lambda i: f"frame {i}",
        time_s=np.arange(len(frames)) / rate_hz,
    )
    return assemble(name, file, settings)


def _elements(name: str, content: bytes) -> tuple[list[str], list[str], float, list[dict[str, str]]]:
    """Labels of joints and segments, the frame rate, and the texts of each recorded frame."""
    joints: list[str] = []
    segments: list[str] = []
    rate_hz = 0.0
    frames: list[dict[str, str]] = []
    try:
        found = ElementTree.iterparse(io.BytesIO(content), events=("start", "end"))  # noqa: S314 see SECURITY.md
        for event, element in found:
            tag = element.tag.rpartition("}")[2]
            if event == "start":
                if tag == "subject":
                    rate_hz = float(element.get("frameRate", "0"))
            elif tag == "joint":
                joints.append(element.get("label", ""))
            elif tag == "segment":
                segments.append(element.get("label", ""))
            elif tag == "frame":
                # Calibration poses have other types: identity, tpose, npose.
                if element.get("type", "normal") == "normal":
                    frames.append({child.tag.rpartition("}")[2]: child.text or "" for child in element})
                element.clear()
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise InputError(f"{name}: expected MVNX, found a damaged file: {error}") from None
    return joints, segments, rate_hz, frames


def _labels(joint: str) -> tuple[str, str, str]:
    """The table's names of a joint's three angles, about X, Y and Z."""
    if joint in _SPINE:
        spine = _SPINE[joint]
        axial = "Axial Bending" if spine == "L5S1" else "Axial Rotation"
        return f"{spine} Lateral Bending", f"{spine} {axial}", f"{spine} Flexion/Extension"
    for side in ("Right", "Left"):
        limb = _LIMBS.get(joint.removeprefix(f"j{side}"))
        if limb and joint.startswith(f"j{side}"):
            return f"{side} {limb[0]}", f"{side} {limb[1]}", f"{side} {limb[2]}"
    return f"{joint} x", f"{joint} y", f"{joint} z"


def _table(name: str, tag: str, frames: list[dict[str, str]], width: int) -> np.ndarray:
    """(T, width) numbers of an element of each frame."""
    if len(frames) * width > MAX_CELLS:
        raise InputError(
            f"{name}: {tag}: expected at most {MAX_CELLS} numbers, found {len(frames)} x {width}"
        )
    result = np.empty((len(frames), width))
    for i, frame in enumerate(frames):
        cells = frame.get(tag, "").split()
        if len(cells) != width:
            raise InputError(f"{name}: frame {i}: {tag}: expected {width} numbers, found {len(cells)}")
        try:
            result[i] = cells
        except ValueError:
            raise InputError(f"{name}: frame {i}: {tag}: expected numbers, found {cells[:3]}") from None
    return result


def _pelvis(place_m: np.ndarray, quaternion: np.ndarray) -> Mapping[str, np.ndarray]:
    """OpenSim's six coordinates, in degrees and metres, from place (T, 3) and orientation (T, 4) of the pelvis."""
    if not np.isfinite(quaternion).all() or (np.linalg.norm(quaternion, axis=1) < 0.5).any():
        return {}
    # The segment's own frame is X forward, Y left, Z up, as the world's.
    turn = _TO_Y_UP * Rotation.from_quat(quaternion, scalar_first=True) * _TO_Y_UP.inv()
    angles = np.unwrap(turn.as_euler("ZXY"), axis=0)
    table = np.column_stack([_TO_Y_UP.apply(place_m), np.degrees(angles)])
    return dict(zip((*PELVIS_TRANSLATIONS, *PELVIS_ROTATIONS), table.T, strict=True))
