"""Joint angles from orientations of segments: a conversion without inverse kinematics.

SMPL and BVH state how segments turn from a rest pose. The rest pose's joint positions tell how each segment of
ours lies in it (the shortest turn that brings the parent's axis onto the bone), so any rest pose will do: a
T, an A, or legs astride. In it the feet stand flat on the ground. Theia3D states the orientations themselves.
Knows nothing about files.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.spatial.transform import Rotation

from biomechgpt.core.settings import InputError
from biomechgpt.motion.kinematics import HEIGHT_M, MID_HIP, SEGMENTS
from biomechgpt.motion.skeleton import INDEX, N_JOINTS
from biomechgpt.recordings.markers.points import upward, y_up_matrix

_AXES = {joint: axis for segment in SEGMENTS for joint, axis in segment.hinges}
_SHANK = 0.246 * HEIGHT_M


@dataclass(frozen=True)
class _Bone:
    """A segment that hangs on another, and points down while every angle is 0.

    start, end: its landmarks; none if the rest pose does not tell its direction.
    joints: between it and its parent.
    flat: it stands flat on the ground in the rest pose, and looks forward as the shank does.
    """

    segment: str
    parent: str
    start: str
    end: str
    joints: tuple[str, ...]
    flat: bool = False


def _bones() -> tuple[_Bone, ...]:
    limbs = [
        bone
        for s in "rl"
        for bone in (
            _Bone(f"thigh_{s}", "pelvis", f"hip_{s}", f"knee_{s}",
                  (f"hip_flexion_{s}", f"hip_adduction_{s}", f"hip_rotation_{s}")),
            _Bone(f"shank_{s}", f"thigh_{s}", f"knee_{s}", f"ankle_{s}", (f"knee_angle_{s}",)),
            _Bone(f"foot_{s}", f"shank_{s}", "", "",
                  (f"ankle_angle_{s}", f"subtalar_angle_{s}"), flat=True),
            _Bone(f"upper_arm_{s}", "trunk", f"shoulder_{s}", f"elbow_{s}",
                  (f"arm_flex_{s}", f"arm_add_{s}", f"arm_rot_{s}")),
            _Bone(f"forearm_{s}", f"upper_arm_{s}", f"elbow_{s}", f"wrist_{s}",
                  (f"elbow_flex_{s}", f"pro_sup_{s}")),
            _Bone(f"hand_{s}", f"forearm_{s}", f"wrist_{s}", f"hand_{s}",
                  (f"wrist_flex_{s}", f"wrist_dev_{s}")),
        )
    ]  # fmt: skip
    upright = [
        _Bone("trunk", "pelvis", "", "", ("lumbar_extension", "lumbar_bending", "lumbar_rotation")),
        _Bone("head", "trunk", "", "", ("neck_extension", "neck_bending", "neck_rotation")),
    ]
    return (*upright, *limbs)


BONES = _bones()
SEGMENT_NAMES = ("pelvis", *(bone.segment for bone in BONES))


@dataclass(frozen=True)
class Poses:
    """A movement as orientations.

    rest: {landmark: (3,)} positions of joints in the rest pose, in any unit; hips, knees and ankles at least.
    turns: {segment: T rotations} from the rest pose, in the world; `pelvis` at least. See SEGMENT_NAMES.
    root: (T, 3) position of the landmark `root` of the rest pose, in the same unit.
    unit_m: metres in a unit.
    """

    rest: Mapping[str, np.ndarray]
    turns: Mapping[str, Rotation]
    root: np.ndarray
    unit_m: float


@dataclass(frozen=True)
class Orientations:
    """A movement as orientations of our segments: X forward, Y up and Z to the right while every angle is 0.

    turned: {segment: T rotations} in the world; `pelvis` at least. See SEGMENT_NAMES.
    hips_m: (T, 3) midway between the hips, in metres.
    shank_m: knee to ankle.
    seen: {segment: (T,) bool}, where its rotation is recorded; default: everywhere.
    """

    turned: Mapping[str, Rotation]
    hips_m: np.ndarray
    shank_m: float
    seen: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Converted:
    """Joint angles (T, 34), the pelvis (T, 7), the joints that the file has (34,), and the upward axis in words.

    Angles and pelvis are NaN where a segment was not seen.
    """

    angles_rad: np.ndarray
    pelvis: np.ndarray
    joint_mask: np.ndarray
    up: str


def from_rest_pose(name: str, poses: Poses) -> Orientations:
    """The orientations of a movement that is stated by turns. Raises InputError for a rest pose of no person."""
    rest, lying = poses.rest, _rest_frames(name, poses.rest)
    turned = {segment: turn * lying[segment] for segment, turn in poses.turns.items() if segment in lying}
    hips = poses.root + poses.turns["pelvis"].apply((rest["hip_r"] + rest["hip_l"]) / 2 - rest["root"])
    return Orientations(turned, hips * poses.unit_m, shank(rest) * poses.unit_m)


def convert(name: str, orientations: Orientations) -> Converted:
    """Joint angles of a movement. Raises InputError if the world has no upward axis."""
    turned, frames = orientations.turned, len(orientations.hips_m)
    angles, mask = np.zeros((frames, N_JOINTS)), np.zeros(N_JOINTS, dtype=bool)
    seen = {segment: orientations.seen.get(segment, np.ones(frames, dtype=bool)) for segment in turned}
    for bone in BONES:
        if bone.segment not in turned or bone.parent not in turned:
            continue
        columns = [INDEX[joint] for joint in bone.joints]
        between = turned[bone.parent].inv() * turned[bone.segment]
        values = np.unwrap(hinge_angles(between, [_AXES[joint] for joint in bone.joints]), axis=0)
        both = seen[bone.parent] & seen[bone.segment]
        if both.any():
            # A joint that never turns is one that the file's skeleton holds.
            mask[columns] = np.ptp(values[both], axis=0) > 1e-6
            angles[:, columns] = np.where(both[:, None], values, np.nan)
    standing = turned["pelvis"].apply([0.0, 1.0, 0.0])[seen["pelvis"]]
    axis, sign = upward(name, standing, np.zeros(3))
    to_y_up = Rotation.identity() if (axis, sign) == (1, 1) else Rotation.from_matrix(y_up_matrix(axis, sign))
    pelvis = np.where(seen["pelvis"][:, None], _pelvis(orientations, to_y_up), np.nan)
    return Converted(angles, pelvis, mask, f"{'-' * (sign < 0)}{'XYZ'[axis]} is up")


def hinge_angles(turned: Rotation, axes: Sequence[tuple[float, float, float]]) -> np.ndarray:
    """(T, n) angles about one to three hinges, each in the frame that those before have turned.

    What fewer than three hinges cannot do is left out.
    """
    units = [np.array(axis) / np.linalg.norm(axis) for axis in axes]
    if len(units) == 1:
        units.append(np.cross(units[0], np.eye(3)[np.abs(units[0]).argmin()]))
        units[1] /= np.linalg.norm(units[1])
    if len(units) == 2:
        units.append(np.cross(units[0], units[1]) / np.linalg.norm(np.cross(units[0], units[1])))
    second = units[1] - units[0] * (units[0] @ units[1])
    second /= np.linalg.norm(second)
    straight = np.array([units[0], second, np.cross(units[0], second)])
    handed = 1.0 if np.dot(straight[2], units[2]) > 0 else -1.0
    angles = turned.as_davenport(straight * [[1.0], [1.0], [handed]], "intrinsic")
    # Hinges that are not at right angles: Newton's method from the angles of the nearest ones that are.
    for _ in range(8):
        first, middle, last = (Rotation.from_rotvec(angles[:, i, None] * units[i]) for i in range(3))
        away = ((first * middle * last).inv() * turned).as_rotvec()
        columns = [
            (middle * last).inv().apply(units[0]),
            last.inv().apply(units[1]),
            np.tile(units[2], (len(angles), 1)),
        ]
        jacobian = np.stack(columns, axis=2)
        # Damped, since at a singularity two hinges are one.
        square = jacobian.transpose(0, 2, 1) @ jacobian + 1e-6 * np.eye(3)
        angles = angles + np.linalg.solve(square, (jacobian.transpose(0, 2, 1) @ away[:, :, None]))[:, :, 0]
    return np.asarray(angles[:, : len(axes)])


def bent(segment: Rotation, joint: str, angles_rad: np.ndarray) -> Rotation:
    """The T orientations of what hangs on a segment by one hinge, at angles (T,) of its joint."""
    axis = np.array(_AXES[joint]) / np.linalg.norm(_AXES[joint])
    return segment * Rotation.from_rotvec(angles_rad[:, None] * axis)


def _rest_frames(name: str, rest: Mapping[str, np.ndarray]) -> dict[str, Rotation]:
    """{segment: its orientation in the rest pose}."""
    hips = (rest["hip_r"] + rest["hip_l"]) / 2
    ankles = (rest["ankle_r"] + rest["ankle_l"]) / 2
    for start, end in (("hip_r", "hip_l"), *((b.start, b.end) for b in BONES)):
        if start in rest and end in rest and not 0 < np.linalg.norm(rest[end] - rest[start]) < np.inf:
            raise InputError(
                f"{name}: expected {start} and {end} apart in the rest pose, found one place for both"
            )
    axis, sign = upward(name, hips[None], ankles[None])
    up = sign * np.eye(3)[axis]
    frames = {"pelvis": _upright(np.cross(up, rest["hip_r"] - rest["hip_l"]), up)}
    for bone in BONES:
        frame = frames[bone.parent]
        if bone.start in rest and bone.end in rest:
            frame = _shortest(frame.apply([0, -1, 0]), rest[bone.end] - rest[bone.start]) * frame
        elif bone.flat:
            frame = _upright(frame.apply([1, 0, 0]), up)
        frames[bone.segment] = frame
    return frames


def _upright(forward: np.ndarray, up: np.ndarray) -> Rotation:
    """The orientation that looks along the horizontal part of a direction."""
    forward = forward - up * (forward @ up)
    forward = forward / np.linalg.norm(forward)
    return Rotation.from_matrix(np.stack([forward, up, np.cross(forward, up)], axis=1))


def _shortest(start: np.ndarray, end: np.ndarray) -> Rotation:
    """The smallest rotation that turns one direction into another."""
    start, end = start / np.linalg.norm(start), end / np.linalg.norm(end)
    axis = np.cross(start, end)
    sine = np.linalg.norm(axis)
    if sine < 1e-9:
        return Rotation.identity()
    return Rotation.from_rotvec(axis / sine * np.arctan2(sine, start @ end))


def _pelvis(orientations: Orientations, to_y_up: Rotation) -> np.ndarray:
    """(T, 7): position of the skeleton's pelvis in metres, and its quaternion, in a Y-up world."""
    upright = to_y_up * orientations.turned["pelvis"]
    mid_hip_m = HEIGHT_M * orientations.shank_m / _SHANK * np.array(MID_HIP)
    origin = to_y_up.apply(orientations.hips_m) - upright.apply(mid_hip_m)
    return np.concatenate([origin, upright.as_quat(scalar_first=True)], axis=1)


def shank(rest: Mapping[str, np.ndarray]) -> float:
    """Knee to ankle in the rest pose, mean of both sides, in the file's unit."""
    return float(np.mean([np.linalg.norm(rest[f"knee_{s}"] - rest[f"ankle_{s}"]) for s in "rl"]))
