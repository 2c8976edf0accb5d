"""Forward kinematics: positions of body landmarks from the 34 joint angles and the pelvis.

Axes and signs are those of loco-mujoco's humanoid_torque.xml, as in `skeleton`. Segment lengths are textbook
proportions for one body height, because recordings do not contain segment lengths. Positions are good enough to
draw a movement and to find gait events, not to measure a person's own step length.
Knows nothing about files or drawing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.spatial.transform import Rotation

from biomechgpt.motion.skeleton import INDEX, N_JOINTS

Vector = tuple[float, float, float]

HEIGHT_M = 1.70

X, Y, Z = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)


@dataclass(frozen=True)
class Segment:
    """A rigid segment between two landmarks.

    start, end: its landmarks.
    offset: vector from start to end while every angle is 0, in fractions of body height.
    hinges: (joint, axis) at its start, in order. Each axis is expressed in the frame rotated by the hinges
        before it.
    """

    start: str
    end: str
    offset: Vector
    hinges: tuple[tuple[str, Vector], ...] = ()

    def sides(self) -> Iterator["Segment"]:
        """This segment; a right segment is followed by its mirror image, whose axes keep the angles' signs."""
        yield self
        if self.end.endswith("_r"):
            x, y, z = self.offset
            # Mirroring at the sagittal plane flips Z of a vector, and X and Y of a rotation axis.
            mirrored = tuple((_left(joint), (-a, -b, c)) for joint, (a, b, c) in self.hinges)
            yield replace(
                self, start=_left(self.start), end=_left(self.end), offset=(x, y, -z), hinges=mirrored
            )


def _left(name: str) -> str:
    return f"{name[:-2]}_l" if name.endswith("_r") else name


# Lengths along limbs: Winter, Biomechanics and Motor Control of Human Movement, 4th ed. 2009, figure 4.1
# (after Drillis and Contini 1966): knee .285, hip .530, shoulder .818, eyes .936 of height above the ground.
# Winter gives no joint centres within the pelvis and no ankle position along the foot. These come from OpenSim's
# gait2392, whose unscaled model is 1.80 m tall: hips (-.0707 -.0661 +-.0835) m and lumbar joint (-.1007 .0815 0) m
# from the pelvis' origin, heel (-.0488 -.042) m from the ankle, ball of the foot .1788 m in front of the heel.
# The XML's pelvis is 1.021 times as large.
MID_HIP: Vector = (-0.0393, -0.0367, 0.0)
"""From the pelvis' origin (the position in `Trial.pelvis`, midway between the front rims of the hip bones)."""

SEGMENTS: tuple[Segment, ...] = tuple(
    side
    for segment in (
        Segment("pelvis", "hip_r", (0, 0, 0.0464)),
        Segment("hip_r", "knee_r", (0, -0.245, 0),
                 (("hip_flexion_r", Z), ("hip_adduction_r", X), ("hip_rotation_r", Y))),
        Segment("knee_r", "ankle_r", (0, -0.246, 0), (("knee_angle_r", Z),)),
        Segment("ankle_r", "heel_r", (-0.0271, -0.039, 0),
                 (("ankle_angle_r", (-0.105014, -0.174022, 0.979126)),)),
        Segment("heel_r", "ball_r", (0.0993, 0, 0), (("subtalar_angle_r", (0.78718, 0.604747, -0.120949)),)),
        Segment("ball_r", "toe_r", (0.0527, 0, 0), (("mtp_angle_r", (-0.580954, 0, 0.813936)),)),
        Segment("pelvis", "lumbar", (-0.0167, 0.0820, 0)),
        Segment("lumbar", "neck", (0, 0.2060, 0),
                 (("lumbar_extension", Z), ("lumbar_bending", X), ("lumbar_rotation", Y))),
        Segment("neck", "head", (0, 0.118, 0),
                 (("neck_extension", Z), ("neck_bending", X), ("neck_rotation", Y))),
        Segment("head", "crown", (0, 0.064, 0)),
        Segment("head", "face", (0.056, 0, 0)),  # chosen freely: shows where the head looks
        Segment("neck", "shoulder_r", (0, 0, 0.129)),
        Segment("shoulder_r", "elbow_r", (0, -0.186, 0),
                 (("arm_flex_r", Z), ("arm_add_r", X), ("arm_rot_r", Y))),
        Segment("elbow_r", "wrist_r", (0, -0.146, 0),
                 (("elbow_flex_r", (0.226047, 0.022269, 0.973862)),
                  ("pro_sup_r", (0.056398, 0.998406, 0.001952)))),
        Segment("wrist_r", "hand_r", (0, -0.108, 0), (("wrist_flex_r", Z), ("wrist_dev_r", X))),
    )
    for side in segment.sides()
)  # fmt: skip
"""The body's segments, each after the one that ends where it starts."""

LANDMARKS: tuple[str, ...] = ("pelvis", *(segment.end for segment in SEGMENTS))
"""Names of the landmarks. `pelvis`: midway between the hips. `head`: centre of the head, at eye height. `hand`:
finger tips."""

JOINT_LANDMARK: dict[str, str] = {
    joint: segment.start for segment in reversed(SEGMENTS) for joint, _ in segment.hinges
}
"""{joint: the landmark at its centre of rotation}."""

BONES: tuple[tuple[int, int], ...] = tuple(
    (LANDMARKS.index(segment.start), LANDMARKS.index(segment.end)) for segment in SEGMENTS
)
"""Pairs of indices into LANDMARKS: the lines of a stick figure. Their lengths never change."""


def points_m(
    angles_rad: np.ndarray,
    pelvis: np.ndarray,
    *,
    height_m: float = HEIGHT_M,
    ground: Literal["recording", "frame", "none"] = "recording",
) -> np.ndarray:
    """Positions of LANDMARKS (T, P, 3) in metres, float32: X forward, Y up, Z to the subject's right.

    angles_rad: (T, 34) radians.
    pelvis: (T, 7) as in `Trial`. A position that is not finite counts as not recorded (zero), an unusable
        orientation as upright.
    height_m: body height, which scales all segments.
    ground: how the figure is put on the ground, as the person's legs may be longer or shorter than the figure's.
        `recording`: one shift, so that the lowest point of all frames is at Y = 0. `frame`: one shift per frame,
        for recordings without a pelvis height; jumps are lost. `none`: no shift.

    Raises ValueError for other shapes or angles that are not finite.
    """
    angles, place = np.asarray(angles_rad, dtype=float), np.asarray(pelvis, dtype=float)
    frames = len(angles)
    if angles.shape != (frames, N_JOINTS) or place.shape != (frames, 7):
        raise ValueError(
            f"expected angles (T, {N_JOINTS}) and pelvis (T, 7), found {angles.shape} and {place.shape}"
        )
    if not np.isfinite(angles).all():
        raise ValueError("expected finite angles, found NaN or infinity")
    if frames == 0:
        return np.empty((0, len(LANDMARKS), 3), dtype=np.float32)
    origin, upright = _placement(place)
    # Walk down the chain from the pelvis: each segment inherits its parent's rotation, then turns about its hinges.
    # As matrices, which take a quarter of the time of scipy's rotations here.
    rotations = {"pelvis": upright.as_matrix()}
    positions = {"pelvis": origin + rotations["pelvis"] @ (height_m * np.array(MID_HIP))}
    for segment in SEGMENTS:
        rotation = rotations[segment.start]
        for joint, axis in segment.hinges:
            rotation = rotation @ _turn(angles[:, INDEX[joint]], axis)
        rotations[segment.end] = rotation
        offset = rotation @ (height_m * np.array(segment.offset))
        positions[segment.end] = positions[segment.start] + offset
    points = np.stack([positions[name] for name in LANDMARKS], axis=1)
    if ground != "none":
        lowest = points[:, :, 1].min(axis=1)
        points[:, :, 1] -= (lowest if ground == "frame" else lowest.min(keepdims=True))[:, None]
    return points.astype(np.float32)


def _turn(angle_rad: np.ndarray, axis: Sequence[float]) -> np.ndarray:
    """Rotations (T, 3, 3) by angles (T,) about one axis, by Rodrigues' formula."""
    x, y, z = np.array(axis) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    sine, versine = (value[:, None, None] for value in (np.sin(angle_rad), 1 - np.cos(angle_rad)))
    return np.asarray(np.eye(3) + sine * cross + versine * (cross @ cross))


def _placement(pelvis: np.ndarray) -> tuple[np.ndarray, Rotation]:
    """Position (T, 3) and orientation of the pelvis, with defaults for values that are not usable."""
    position, quaternion = pelvis[:, :3], pelvis[:, 3:]
    if not np.isfinite(position).all():
        position = np.zeros_like(position)
    with np.errstate(invalid="ignore"):
        usable = np.isfinite(quaternion).all(axis=1) & (np.linalg.norm(quaternion, axis=1) > 1e-6)
    quaternion = np.where(usable[:, None], quaternion, [1.0, 0.0, 0.0, 0.0])
    return position, Rotation.from_quat(quaternion, scalar_first=True)


_FEET = [[LANDMARKS.index(f"{part}_{side}") for part in ("heel", "ball", "toe")] for side in "rl"]
_ROLL_M = 0.01
"""A point of the foot this far above the foot's lowest point bears 1/e of the lowest point's load."""


def pelvis_path(
    angles_rad: np.ndarray, orientation: np.ndarray, load: np.ndarray, *, height_m: float = HEIGHT_M
) -> np.ndarray:
    """Path of the pelvis (T, 3) in metres, float32, if the loaded feet do not slide on the ground.

    Reconstructs the forward motion of walking on level ground for treadmill recordings and recordings without a
    pelvis position. It starts at X = Z = 0; in every frame the lowest point of the feet is at Y = 0.

    angles_rad: (T, 34) radians.
    orientation: (T, 4) unit quaternion (w, x, y, z) of the pelvis.
    load: (T, 2) fraction of body weight on the right and the left foot.
    height_m: body height, which scales all segments.

    Raises ValueError as `points_m` does.
    """
    fixed_pelvis = np.concatenate([np.zeros((len(angles_rad), 3)), orientation], axis=1)
    points = points_m(angles_rad, fixed_pelvis, height_m=height_m, ground="none").astype(float)
    feet = points[:, _FEET]  # (T, 2, 3, 3): side, part of the foot, axis
    # Load on each part of each foot: the foot's load, mostly on its lowest part (heel, ball or toe).
    height = feet[..., 1] - feet[..., 1].min(axis=2, keepdims=True)
    contact = np.exp(-height / _ROLL_M)
    weight = load[:, :, None] * contact / contact.sum(axis=2, keepdims=True)
    # Between two frames a part bears the mean of both frames' loads.
    weight = weight[1:] + weight[:-1]
    weight /= weight.sum(axis=(1, 2), keepdims=True)
    # Loaded parts stay in place, so the pelvis moves opposite to their motion relative to the pelvis.
    steps = -(weight[..., None] * np.diff(feet, axis=0)).sum(axis=(1, 2))
    path = np.concatenate([np.zeros((min(len(feet), 1), 3)), np.cumsum(steps, axis=0)])
    path[:, 1] = -feet[..., 1].min(axis=(1, 2))
    return path.astype(np.float32)
