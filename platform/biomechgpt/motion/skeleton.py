"""The 34 joint angles: their order, names, signs and ranges.

Frame: X forward, Y up, Z to the subject's right. Signs and ranges are those of loco-mujoco's
humanoid_torque.xml (from OpenSim's Hamner 2010 model), widened where people move further. The neck is
added after the lumbar joints. Knows nothing about files, units of files or tokens.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Joint:
    """One joint angle.

    low_deg, high_deg: range that a person can reach, in degrees, with the skeleton's sign.
    positive: direction of positive angles.
    tracked: whether the tokenizer sees it.
    """

    name: str
    low_deg: float
    high_deg: float
    positive: str
    tracked: bool = True


def _leg(side: str) -> list[Joint]:
    return [
        Joint(f"hip_flexion_{side}", -40, 135, "thigh forward"),
        Joint(f"hip_adduction_{side}", -60, 45, "towards the midline"),
        Joint(f"hip_rotation_{side}", -60, 60, "inward"),
        Joint(f"knee_angle_{side}", -160, 20, "extension; flexion is negative"),
        Joint(f"ankle_angle_{side}", -70, 50, "dorsiflexion"),
        Joint(f"subtalar_angle_{side}", -60, 60, "inversion"),
        Joint(f"mtp_angle_{side}", -60, 90, "toes up", tracked=False),
    ]


def _arm(side: str) -> list[Joint]:
    return [
        Joint(f"arm_flex_{side}", -90, 180, "arm forward"),
        Joint(f"arm_add_{side}", -180, 90, "adduction; abduction is negative"),
        Joint(f"arm_rot_{side}", -120, 120, "inward"),
        Joint(f"elbow_flex_{side}", -20, 160, "flexion"),
        Joint(f"pro_sup_{side}", -120, 180, "pronation", tracked=False),
        Joint(f"wrist_flex_{side}", -90, 90, "flexion", tracked=False),
        Joint(f"wrist_dev_{side}", -40, 50, "deviation", tracked=False),
    ]


JOINTS: tuple[Joint, ...] = (
    *_leg("r"),
    *_leg("l"),
    Joint("lumbar_extension", -100, 45, "extension; flexion is negative"),
    Joint("lumbar_bending", -50, 50, "to the right"),
    Joint("lumbar_rotation", -60, 60, "trunk to the left"),
    Joint("neck_extension", -60, 60, "extension"),
    Joint("neck_bending", -45, 45, "to the right"),
    Joint("neck_rotation", -80, 80, "to the left"),
    *_arm("r"),
    *_arm("l"),
)
NAMES: tuple[str, ...] = tuple(joint.name for joint in JOINTS)
INDEX: dict[str, int] = {name: i for i, name in enumerate(NAMES)}
N_JOINTS = len(JOINTS)

TRACKED: np.ndarray = np.array([joint.tracked for joint in JOINTS])
"""(34,) bool: joints that the tokenizer sees. The other eight (mtp, pro_sup, wrists) are set to zero."""

LOW_RAD: np.ndarray = np.radians([joint.low_deg for joint in JOINTS])
HIGH_RAD: np.ndarray = np.radians([joint.high_deg for joint in JOINTS])

_ANATOMICAL = {
    "hip_flexion": "hip flexion",
    "hip_adduction": "hip adduction",
    "hip_rotation": "hip rotation",
    "knee_angle": "knee angle",  # negative is flexion
    "ankle_angle": "ankle dorsiflexion",
    "subtalar_angle": "subtalar inversion",
    "mtp_angle": "toe extension",
    "lumbar_extension": "trunk extension",
    "lumbar_bending": "trunk lateral bending",
    "lumbar_rotation": "trunk rotation",
    "neck_extension": "neck extension",
    "neck_bending": "neck lateral bending",
    "neck_rotation": "neck rotation",
    "arm_flex": "shoulder flexion",
    "arm_add": "shoulder adduction",
    "arm_rot": "shoulder rotation",
    "elbow_flex": "elbow flexion",
    "pro_sup": "forearm pronation",
    "wrist_flex": "wrist flexion",
    "wrist_dev": "wrist deviation",
}
_SIDES = {"_r": "right ", "_l": "left "}


def anatomical_name(joint: str) -> str:
    """A joint angle in the words of anatomy: `arm_rot_l` is `left shoulder rotation`."""
    side = _SIDES.get(joint[-2:], "")
    return side + _ANATOMICAL[joint[:-2] if side else joint]


PARTS: dict[str, np.ndarray] = {
    "legs": np.arange(14),
    "trunk": np.arange(14, 20),
    "arms": np.arange(20, 34),
}
"""Joint indices of each part of the body; the neck belongs to the trunk."""

NECK = ("neck_extension", "neck_bending", "neck_rotation")
"""Joints that most OpenSim models lack. A file without them is complete; the neck is set to zero."""


def _mirror() -> tuple[np.ndarray, np.ndarray]:
    order, sign = np.arange(N_JOINTS), np.ones(N_JOINTS)
    for i, name in enumerate(NAMES):
        if name.endswith("_r"):
            order[i] = INDEX[name[:-2] + "_l"]
        elif name.endswith("_l"):
            order[i] = INDEX[name[:-2] + "_r"]
        elif name.endswith(("bending", "rotation")):
            sign[i] = -1.0
    return order, sign


MIRROR_ORDER, MIRROR_SIGN = _mirror()


def mirror(angles_rad: np.ndarray) -> np.ndarray:
    """The mirrored movement, with left and right exchanged: (..., 34) radians -> (..., 34).

    Side axes are mirrored in the model (left hip adduction turns about -X), so limb angles swap with their
    sign kept and only the trunk's and neck's sideways and turning angles change sign.
    """
    return np.asarray(angles_rad[..., MIRROR_ORDER] * MIRROR_SIGN)
