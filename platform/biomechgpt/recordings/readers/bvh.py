"""Reads BVH files (.bvh): a skeleton of joints with offsets, and rotations of each joint in every frame.

Joints are found by the names that programs use (CMU, Mixamo, MotionBuilder, Blender, Rokoko); their rotations are
converted. A BVH has no unit: it is the one in which the shanks have the length of a person's.
"""

import re
from dataclasses import dataclass, field

import numpy as np
from scipy.spatial.transform import Rotation

from biomechgpt.core.settings import InputError
from biomechgpt.motion.kinematics import HEIGHT_M
from biomechgpt.recordings.readers.from_rotations import recording_of
from biomechgpt.recordings.readers.recording import ReaderSettings, Recording
from biomechgpt.recordings.rotations import Poses, from_rest_pose, shank

SUFFIXES = (".bvh",)
_UNITS_M = {"m": 1.0, "cm": 0.01, "mm": 0.001, "inches / 0.45 (CMU)": 0.0254 / 0.45, "inches": 0.0254}
_SHANK_M = (0.3, 0.55)
_JUMP_DEG = 15.0
_MOST_JOINTS = 500
_CHANNELS = frozenset(f"{axis}{kind}" for axis in "xyz" for kind in ("position", "rotation"))
_SIDES = {"r": ("right", "r"), "l": ("left", "l")}
_NAMES: dict[str, tuple[str, ...]] = {
    "thigh": ("upleg", "upperleg", "thigh", "hip", "femur"),
    "shank": ("leg", "lowleg", "lowerleg", "shin", "calf", "knee", "tibia"),
    "foot": ("foot", "ankle"),
    "upper_arm": ("arm", "uparm", "upperarm", "shldr", "humerus", "shoulder"),
    "forearm": ("forearm", "lowarm", "lowerarm", "elbow", "radius"),
    "hand": ("hand", "wrist"),
}
"""{segment: names of its joint without the side, the likeliest first}."""


@dataclass
class _Joint:
    """A joint of the file: its parent's number, offset from it, channels, and the first one's number in a frame."""

    name: str
    parent: int
    offset: np.ndarray
    channels: list[str] = field(default_factory=list)
    first: int = 0


def matches(content: bytes) -> bool:
    """Whether this is a BVH file: it begins with the word HIERARCHY."""
    return content[:64].removeprefix(b"\xef\xbb\xbf").lstrip().upper().startswith(b"HIERARCHY")


def read(name: str, content: bytes, settings: ReaderSettings) -> Recording:
    """The recording in `content`. Raises InputError naming file, line and joint."""
    joints, motion, step_s = _parsed(name, content.decode("utf-8-sig", errors="replace"))
    numbers = _segments(joints)
    begins = int(_begins_at_rest(joints, motion))
    motion = motion[begins:]
    turns, root = _turns(joints, motion)
    found = {segment: turns[i] for segment, i in numbers.items()}
    missing = [k for k in ("thigh_r", "thigh_l", "shank_r", "shank_l") if k not in found]
    if missing:
        raise InputError(
            f"{name}: expected a person's skeleton with thighs and shanks in this BVH file, found no "
            f"{', '.join(missing)} among {', '.join(joint.name for joint in joints[:8])}"
        )
    rest = _rest(name, joints, numbers)
    unit, note = _unit(name, shank(rest))
    return recording_of(
        name,
        from_rest_pose(name, Poses(rest, found, root, unit)),
        np.arange(len(motion)) * step_s,
        settings,
        format="BVH",
        rate_hz=1 / step_s,
        notes=(note, "rotations converted", *["first frame, a rest pose, left out"][:begins]),
    )


def _begins_at_rest(joints: list[_Joint], motion: np.ndarray) -> bool:
    """Whether the first frame is a T pose, which many programs write before the movement: the body jumps out
    of it."""
    turning = [
        i for joint in joints for i, c in enumerate(joint.channels, joint.first) if c.endswith("rotation")
    ]
    steps = np.diff(motion[:3][:, turning], axis=0)
    jumps = np.abs((steps + 180) % 360 - 180).max(axis=1, initial=0)
    return len(jumps) == 2 and bool(jumps[0] > _JUMP_DEG) and bool(jumps[1] < jumps[0] / 4)


def _parsed(name: str, text: str) -> tuple[list[_Joint], np.ndarray, float]:
    """Joints in order (an end has the name of its parent and `end`), (T, channels), and seconds between frames."""
    head, keyword, tail = text.partition("MOTION")
    found = re.search(r"Frames\s*:\s*(\d+)\s+Frame\s+Time\s*:\s*(\S+)\s*\n(.*)", tail, re.I | re.S)
    if not keyword or not found:
        raise InputError(f"{name}: expected MOTION, Frames and Frame Time after the hierarchy, found none")
    joints = _hierarchy(name, head)
    width = sum(len(joint.channels) for joint in joints)
    try:
        frames, step_s = int(found[1]), float(found[2])
        values = np.array(found[3].split(), dtype=float)
    except ValueError as error:
        raise InputError(
            f"{name}: frames: expected numbers ({error}): the file is cut off or damaged"
        ) from None
    if not width or not frames or len(values) % width or len(values) < width * frames or not step_s > 0:
        raise InputError(
            f"{name}: expected {frames} frames of {width} channels, found {len(values)} numbers, and a Frame Time "
            f"of {found[2]}: the file is cut off or damaged"
        )
    if not np.isfinite(values).all():
        raise InputError(
            f"{name}: frame {int(np.isfinite(values).argmin()) // width}: expected a number in every channel, "
            "found one that is none"
        )
    return joints, values.reshape(-1, width), step_s


def _hierarchy(name: str, text: str) -> list[_Joint]:
    joints: list[_Joint] = []
    stack: list[int] = []
    count = 0
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words:
            continue
        try:
            match words[0].upper():
                case "ROOT" | "JOINT" | "END":
                    parent = stack[-1] if stack else -1
                    label = " ".join(words[1:]) if words[0].upper() != "END" else f"{joints[parent].name} end"
                    joints.append(_Joint(label, parent, np.zeros(3)))
                case "{":
                    stack.append(len(joints) - 1)
                case "}":
                    stack.pop()
                case "OFFSET":
                    x, y, z = (float(word) for word in words[1:4])
                    joints[-1].offset = np.array([x, y, z])
                case "CHANNELS":
                    joints[-1].channels = _channels(joints[-1], words)
                    joints[-1].first, count = count, count + len(joints[-1].channels)
        except (ValueError, IndexError):
            raise InputError(
                f"{name}: line {number}: expected a joint of the hierarchy, found {line[:80]!r}"
            ) from None
        if len(joints) > _MOST_JOINTS:
            raise InputError(f"{name}: line {number}: expected at most {_MOST_JOINTS} joints, found more")
    return joints


def _channels(joint: _Joint, words: list[str]) -> list[str]:
    """Names of a joint's channels in small letters, from its line. Raises ValueError."""
    channels = [word.lower() for word in words[2:]]
    different = set(channels)
    if joint.channels or len(channels) != int(words[1]) or len(different) < len(channels):
        raise ValueError("channels twice")
    if not different <= _CHANNELS:
        raise ValueError("no channel")
    return channels


def _plain(name: str) -> str:
    """A joint's name without a prefix, capitals and punctuation: `mixamorig:RightUpLeg` is `rightupleg`."""
    return re.sub(r"[^a-z0-9]", "", name.rpartition(":")[2].lower())


def _segments(joints: list[_Joint]) -> dict[str, int]:
    """{segment: number of the joint that turns it}."""
    numbers: dict[str, int] = {}
    for i, joint in enumerate(joints):
        if joint.channels:
            numbers.setdefault(_plain(joint.name), i)
    found = {"pelvis": 0}
    for segment, words in _NAMES.items():
        for side, starts in _SIDES.items():
            names = [n for word in words for start in starts for n in (f"{start}{word}", f"{word}{start}")]
            number = next((numbers[n] for n in names if n in numbers), None)
            if number is not None:
                found[f"{segment}_{side}"] = number
    chains = [_ancestors(joints, found[f"upper_arm_{side}"]) for side in "rl" if f"upper_arm_{side}" in found]
    if len(chains) == 2:
        found["trunk"] = next((i for i in chains[0] if i in chains[1]), 0)
    heads = [numbers[n] for n in ("head", "neckhead", "head1") if n in numbers]
    return found | ({"head": heads[0]} if heads else {})


def _ancestors(joints: list[_Joint], number: int) -> list[int]:
    """The joints above a joint, the nearest first."""
    found = []
    while joints[number].parent >= 0:
        number = joints[number].parent
        found.append(number)
    return found


def _turns(joints: list[_Joint], motion: np.ndarray) -> tuple[list[Rotation], np.ndarray]:
    """World rotations of every joint, and (T, 3) position of the root."""
    turns: list[Rotation] = []
    root = np.tile(joints[0].offset, (len(motion), 1))
    for joint in joints:
        columns = {channel: motion[:, joint.first + i] for i, channel in enumerate(joint.channels)}
        axes = "".join(channel[0].upper() for channel in columns if channel.endswith("rotation"))
        angles = [values for channel, values in columns.items() if channel.endswith("rotation")]
        own = Rotation.identity(len(motion))
        if axes:
            own = Rotation.from_euler(axes, np.stack(angles, axis=1), degrees=True)
        turns.append(turns[joint.parent] * own if joint.parent >= 0 else own)
        if joint.parent < 0:
            for i, axis in enumerate("xyz"):
                root[:, i] += columns.get(f"{axis}position", 0)
    return turns, root


def _rest(name: str, joints: list[_Joint], numbers: dict[str, int]) -> dict[str, np.ndarray]:
    """{landmark: (3,)} of the rest pose."""
    positions: list[np.ndarray] = []
    for joint in joints:
        positions.append(joint.offset + (positions[joint.parent] if joint.parent >= 0 else 0))
    starts = {"thigh": "hip", "shank": "knee", "foot": "ankle", "upper_arm": "shoulder",
              "forearm": "elbow", "hand": "wrist"}  # fmt: skip
    rest = {"root": positions[0]}
    for segment, i in numbers.items():
        if segment[:-2] in starts:
            rest[f"{starts[segment[:-2]]}_{segment[-1]}"] = positions[i]
    for side in "rl":
        for segment, landmark in (("shank", "ankle"), ("forearm", "wrist")):
            children = [
                i for i, joint in enumerate(joints) if joint.parent == numbers.get(f"{segment}_{side}")
            ]
            if children:
                rest.setdefault(f"{landmark}_{side}", positions[children[0]])
    missing = [k for k in ("hip_r", "hip_l", "knee_r", "knee_l", "ankle_r", "ankle_l") if k not in rest]
    if missing:
        raise InputError(
            f"{name}: expected joints of both legs, found no {', '.join(missing)} in the hierarchy"
        )
    return rest


def _unit(name: str, length: float) -> tuple[float, str]:
    """Metres in a unit of the file, and a note; length: of a shank."""
    if not 0 < length < np.inf:
        raise InputError(f"{name}: expected shanks with a length, found {length:g} from knee to ankle")
    for unit, metres in _UNITS_M.items():
        if _SHANK_M[0] < length * metres < _SHANK_M[1]:
            return metres, f"positions in {unit}"
    return (
        0.246 * HEIGHT_M / length,
        f"positions in an unknown unit, taken as those of a person of {HEIGHT_M:g} m",
    )
