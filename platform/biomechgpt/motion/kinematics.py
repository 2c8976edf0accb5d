"""A stick figure of a movement: where joints and limbs' ends are, from the 34 angles and the pelvis.

Axes and signs are those of loco-mujoco's humanoid_torque.xml, as `skeleton` has them; proportions are a
textbook's for one height, since recordings do not say how long a person's limbs are. Good for looking at a
movement and for telling left from right; not for measuring steps. Knows nothing about files or drawing.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.spatial.transform import Rotation

from biomechgpt.motion.skeleton import INDEX, N_JOINTS

Vector = tuple[float, float, float]

HEIGHT_M = 1.70

X, Y, Z = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)


@dataclass(frozen=True)
class _Segment:
    """A rigid rod from one point to another.

    offset: where it ends while every angle is 0, from where it begins, in fractions of height.
    hinges: (joint, axis) at its beginning, each about the axes that those before it have turned.
    """

    start: str
    end: str
    offset: Vector
    hinges: tuple[tuple[str, Vector], ...] = ()

    def sides(self) -> Iterator["_Segment"]:
        """Itself; one of the right side also as its mirror image, whose axes keep their angles' signs."""
        yield self
        if self.end.endswith("_r"):
            x, y, z = self.offset
            mirrored = tuple((_left(joint), (-a, -b, c)) for joint, (a, b, c) in self.hinges)
            yield replace(
                self, start=_left(self.start), end=_left(self.end), offset=(x, y, -z), hinges=mirrored
            )


def _left(name: str) -> str:
    return f"{name[:-2]}_l" if name.endswith("_r") else name


# Lengths along limbs: Winter, Biomechanics and Motor Control of Human Movement, 4th ed. 2009, figure 4.1
# (after Drillis and Contini 1966): knee .285, hip .530, shoulder .818, eyes .936 of height above the ground.
# It has no joint centres within the pelvis and no ankle along the foot: these are OpenSim's gait2392, whose
# unscaled model is 1.80 m tall (hips (-.0707 -.0661 +-.0835) m, lumbar joint (-.1007 .0815 0) m from the
# pelvis' origin, heel (-.0488 -.042) m from the ankle, ball of the foot .1788 m before the heel). The XML
# has the same pelvis, 1.021 times as large.
_MID_HIP: Vector = (-0.0393, -0.0367, 0.0)
"""Of the pelvis' origin, which is where `Trial.pelvis` is: between the front rims of the hip bones."""

_SEGMENTS: tuple[_Segment, ...] = tuple(
    side
    for segment in (
        _Segment("pelvis", "hip_r", (0, 0, 0.0464)),
        _Segment("hip_r", "knee_r", (0, -0.245, 0),
                 (("hip_flexion_r", Z), ("hip_adduction_r", X), ("hip_rotation_r", Y))),
        _Segment("knee_r", "ankle_r", (0, -0.246, 0), (("knee_angle_r", Z),)),
        _Segment("ankle_r", "heel_r", (-0.0271, -0.039, 0),
                 (("ankle_angle_r", (-0.105014, -0.174022, 0.979126)),)),
        _Segment("heel_r", "ball_r", (0.0993, 0, 0), (("subtalar_angle_r", (0.78718, 0.604747, -0.120949)),)),
        _Segment("ball_r", "toe_r", (0.0527, 0, 0), (("mtp_angle_r", (-0.580954, 0, 0.813936)),)),
        _Segment("pelvis", "lumbar", (-0.0167, 0.0820, 0)),
        _Segment("lumbar", "neck", (0, 0.2060, 0),
                 (("lumbar_extension", Z), ("lumbar_bending", X), ("lumbar_rotation", Y))),
        _Segment("neck", "head", (0, 0.118, 0),
                 (("neck_extension", Z), ("neck_bending", X), ("neck_rotation", Y))),
        _Segment("head", "crown", (0, 0.064, 0)),
        _Segment("head", "face", (0.056, 0, 0)),  # nobody's measure: shows which way the head looks
        _Segment("neck", "shoulder_r", (0, 0, 0.129)),
        _Segment("shoulder_r", "elbow_r", (0, -0.186, 0),
                 (("arm_flex_r", Z), ("arm_add_r", X), ("arm_rot_r", Y))),
        _Segment("elbow_r", "wrist_r", (0, -0.146, 0),
                 (("elbow_flex_r", (0.226047, 0.022269, 0.973862)),
                  ("pro_sup_r", (0.056398, 0.998406, 0.001952)))),
        _Segment("wrist_r", "hand_r", (0, -0.108, 0), (("wrist_flex_r", Z), ("wrist_dev_r", X))),
    )
    for side in segment.sides()
)  # fmt: skip

POINTS: tuple[str, ...] = ("pelvis", *(segment.end for segment in _SEGMENTS))
"""`pelvis` is midway between the hips, `head` its centre at eye height, `hand` its finger tips."""

PIVOTS: dict[str, str] = {
    joint: segment.start for segment in reversed(_SEGMENTS) for joint, _ in segment.hinges
}
"""{joint: the point of POINTS where it turns}."""

BONES: tuple[tuple[int, int], ...] = tuple(
    (POINTS.index(segment.start), POINTS.index(segment.end)) for segment in _SEGMENTS
)
"""Pairs of indices into POINTS: the figure's lines. Their lengths never change."""


def points_m(
    angles_rad: np.ndarray,
    pelvis: np.ndarray,
    *,
    height_m: float = HEIGHT_M,
    ground: Literal["recording", "frame", "none"] = "recording",
) -> np.ndarray:
    """Places of POINTS: angles (T, 34) radians and pelvis (T, 7) as in `Trial` -> (T, P, 3) float32 metres.

    Frame: X forward, Y up, Z to the subject's right. Whose legs are longer than this figure's would walk
    above the ground, so it is raised or lowered: `recording`, as a whole, until its lowest point of all
    frames is at Y = 0; `frame`, every frame (no jumps, but a pelvis whose height nobody recorded moves as
    it must); `none`, not at all. A pelvis position with anything in it that is not finite is taken as not
    recorded (all zero), an orientation that is none as upright. Raises ValueError for other shapes, or
    angles that are not finite.
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
        return np.empty((0, len(POINTS), 3), dtype=np.float32)
    origin, upright = _placement(place)
    turns = {"pelvis": upright}
    at = {"pelvis": origin + upright.apply(height_m * np.array(_MID_HIP))}
    for segment in _SEGMENTS:
        turn = turns[segment.start]
        for joint, axis in segment.hinges:
            unit = np.array(axis) / np.linalg.norm(axis)
            turn = turn * Rotation.from_rotvec(angles[:, INDEX[joint], None] * unit)
        turns[segment.end] = turn
        at[segment.end] = at[segment.start] + turn.apply(height_m * np.array(segment.offset))
    points = np.stack([at[name] for name in POINTS], axis=1)
    if ground != "none":
        lowest = points[:, :, 1].min(axis=1)
        points[:, :, 1] -= (lowest if ground == "frame" else lowest.min(keepdims=True))[:, None]
    return points.astype(np.float32)


def _placement(pelvis: np.ndarray) -> tuple[np.ndarray, Rotation]:
    """Position (T, 3) and orientation, each made usable."""
    position, quaternion = pelvis[:, :3], pelvis[:, 3:]
    if not np.isfinite(position).all():
        position = np.zeros_like(position)
    with np.errstate(invalid="ignore"):
        usable = np.isfinite(quaternion).all(axis=1) & (np.linalg.norm(quaternion, axis=1) > 1e-6)
    quaternion = np.where(usable[:, None], quaternion, [1.0, 0.0, 0.0, 0.0])
    return position, Rotation.from_quat(quaternion, scalar_first=True)


_FEET = [[POINTS.index(f"{part}_{side}") for part in ("heel", "ball", "toe")] for side in "rl"]
_ROLL_M = 0.01
"""A point of a foot this far above its lowest one bears 1/e of its load."""


def travel_m(
    angles_rad: np.ndarray, orientation: np.ndarray, load: np.ndarray, *, height_m: float = HEIGHT_M
) -> np.ndarray:
    """Where the pelvis goes while the feet on the ground stay where they are: (T, 3) float32 metres.

    angles (T, 34) radians; orientation (T, 4), the pelvis' unit quaternion; load (T, 2), the share of the
    body's weight on the right and the left foot. Starts over X = Z = 0; at every frame as high as puts the
    lowest point of the feet at Y = 0. It tells of walking on level ground what a treadmill, or a recording
    without the pelvis' position, does not. Raises ValueError as `points_m`.
    """
    still = np.concatenate([np.zeros((len(angles_rad), 3)), orientation], axis=1)
    points = points_m(angles_rad, still, height_m=height_m, ground="none").astype(float)
    feet = points[:, _FEET]  # (T, 2, 3, 3): side, part, axis
    above = feet[..., 1] - feet[..., 1].min(axis=2, keepdims=True)
    rolled = np.exp(-above / _ROLL_M)
    share = load[:, :, None] * rolled / rolled.sum(axis=2, keepdims=True)
    share = share[1:] + share[:-1]
    share /= share.sum(axis=(1, 2), keepdims=True)
    steps = -(share[..., None] * np.diff(feet, axis=0)).sum(axis=(1, 2))
    place = np.concatenate([np.zeros((min(len(feet), 1), 3)), np.cumsum(steps, axis=0)])
    place[:, 1] = -feet[..., 1].min(axis=(1, 2))
    return place.astype(np.float32)
