"""OpenCap's shoulder model: plane of elevation, elevation and axial rotation become the skeleton's three angles.

The model (LaiUhlrich2022_shoulder.osim of opencap-core) turns the arm as the International Society of Biomechanics
recommends (Wu et al. 2005, order Y-X-Y): about Y by the plane of elevation, about -X by the elevation, and about
the humerus' long axis by the axial rotation. The left side has the opposite axes. The skeleton's order is Z-X-Y:
flexion, adduction, rotation. Both orders describe the same orientation of the arm.
"""

from collections.abc import Mapping

import numpy as np
from scipy.spatial.transform import Rotation

ANGLES = ("sh_plane_elev", "sh_elev", "sh_axial_rot")
"""The model's angles, without their side."""
ARM = ("arm_flex", "arm_add", "arm_rot")
"""The skeleton's."""
_AXES = {
    "r": np.array([[0, 1, 0], [-1, 0, 0], [-0.0846, 0.9947, -0.0584]]),
    "l": np.array([[0, -1, 0], [1, 0, 0], [0.0846, -0.9947, 0.0584]]),
}
"""The axis of each angle, forward, up and to the right. The model's humerus leans by 6 degrees from Y."""
COLUMNS = tuple(f"{name}_{side}" for name in ANGLES for side in "rl")
"""Columns of both sides."""


def sides(columns: Mapping[str, object]) -> list[str]:
    """The sides (r, l) that have all three angles, and none of the skeleton's."""
    return [
        side
        for side in "rl"
        if all(f"{name}_{side}" in columns for name in ANGLES)
        and not any(f"{name}_{side}" in columns for name in ARM)
    ]


def arms(angles_rad: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """{joint of the skeleton: (T,) in radians} of every side that has the model's three angles."""
    result: dict[str, np.ndarray] = {}
    for side in sides(angles_rad):
        values = np.stack([angles_rad[f"{name}_{side}"] for name in ANGLES], axis=1)
        converted = np.full_like(values, np.nan)
        there = np.isfinite(values).all(axis=1)
        converted[there] = _converted(values[there], side)
        result |= {f"{name}_{side}": converted[:, i] for i, name in enumerate(ARM)}
    return result


def _converted(values: np.ndarray, side: str) -> np.ndarray:
    """(T, 3) flexion, adduction and rotation from the model's angles (T, 3)."""
    plane, elevation, axial = (
        Rotation.from_rotvec(values[:, i : i + 1] * axis / np.linalg.norm(axis))
        for i, axis in enumerate(_AXES[side])
    )
    turned = (plane * elevation * axial).as_matrix()
    # R = Rz(flex) Rx(add) Ry(rot), read off its elements; at add = 90 degrees flex and rot are one angle.
    angles = np.stack(
        [
            np.arctan2(-turned[:, 0, 1], turned[:, 1, 1]),
            np.arcsin(np.clip(turned[:, 2, 1], -1, 1)),
            np.arctan2(-turned[:, 2, 0], turned[:, 2, 2]),
        ],
        axis=1,
    )
    # The left shoulder's adduction and rotation are mirrored.
    return angles if side == "r" else angles * [1, -1, -1]
