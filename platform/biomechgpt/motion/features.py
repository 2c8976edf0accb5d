"""Kinematic features of a movement: where its joints are, how far and how fast they move.

They tell movements that resemble one another from those that do not, without any model. Knows nothing about tokens.
"""

import numpy as np

from biomechgpt.motion.skeleton import N_JOINTS

N_FEATURES = 3 * N_JOINTS

# Ranges and speeds are compared as ratios. These floors keep a joint that hardly moves from counting too much.
_RANGE_FLOOR_DEG = 2.0
_SPEED_FLOOR_DEG_S = 10.0
# One unit of a logarithm counts as much as this many degrees.
_DEG_PER_LOG = 10.0


def kinematic_features(angles_rad: np.ndarray, rate_hz: float, joint_mask: np.ndarray) -> np.ndarray:
    """(102,) features of a movement: for each joint its median angle, range and speed; NaN if not recorded.

    angles_rad: (T, 34) radians.
    rate_hz: frames per second.
    joint_mask: (34,) bool, the recorded joints.
    Median in degrees. Range (5th to 95th percentile) and root mean square speed as logarithms, scaled so that the
    spread of all three is alike.
    """
    degrees = np.degrees(np.asarray(angles_rad, dtype=float))
    low, median, high = np.percentile(degrees, [5, 50, 95], axis=0)
    speed = np.zeros(N_JOINTS)
    if len(degrees) > 1:
        speed = np.sqrt(np.mean(np.diff(degrees, axis=0) ** 2, axis=0)) * rate_hz
    features = np.concatenate(
        [
            median,
            _DEG_PER_LOG * np.log(high - low + _RANGE_FLOOR_DEG),
            _DEG_PER_LOG * np.log(speed + _SPEED_FLOOR_DEG_S),
        ]
    )
    return np.where(np.tile(np.asarray(joint_mask, dtype=bool), 3), features, np.nan)
