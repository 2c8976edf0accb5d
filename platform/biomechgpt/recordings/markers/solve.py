"""Inverse kinematics with mink: in every frame the pose whose markers are nearest to the recorded ones.

Each frame is a least-squares problem with the joints' ranges as limits: distances of the markers, each
divided by how far it may be off, and weakly the distance of each joint from rest, divided by how far it may
be from it. So a joint that the markers do not tell stays at rest, and noise does not throw a joint that they
hardly tell.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from biomechgpt.core.settings import InputError
from biomechgpt.motion.skeleton import HIGH_RAD, INDEX, LOW_RAD, N_JOINTS, NAMES
from biomechgpt.recordings.markers import model
from biomechgpt.recordings.markers.model import Site

_FREE = 6
"""Degrees of freedom of the pelvis."""
_TILT_RAD = np.radians(15)
"""How far a pelvis may be tilted, where the markers do not tell. As far as `lumbar_extension`: hips and
shoulders alone show their sum. In 19 real recordings of walks, squats, jumps and rising from chairs the
pelvis had half of the trunk's lean, within 7.5 degrees (RMS)."""
_REST_RAD = np.zeros(N_JOINTS)
_REST_RAD[[INDEX["elbow_flex_r"], INDEX["elbow_flex_l"]]] = np.radians(20)
_REST_RAD[[INDEX["knee_angle_r"], INDEX["knee_angle_l"]]] = np.radians(-5)
_REST_RAD[[INDEX["subtalar_angle_r"], INDEX["subtalar_angle_l"]]] = np.radians(-7)
"""In 12 feet of real walks that OpenSim solved, the subtalar angle is -7 degrees on average, and 6 (SD) between
them. Malleoli and foot hardly tell it, and through its oblique axis the ankle's angle depends on it: RMSE beside
OpenSim's ankle 4.0 (right) and 6.8 degrees (left) with this, 5.4 and 8.7 with a rest of 0 +- 12 degrees."""
_SPREAD_RAD = (HIGH_RAD - LOW_RAD) / 4
"""How far joints may be from rest: half of the range is two of these."""
# Joints that move little; the others' ranges are wide.
for _joint, _degrees in {"subtalar_angle": 6, "mtp_angle": 8, "lumbar_extension": 15}.items():
    _SPREAD_RAD[[i for i, k in enumerate(NAMES) if k.startswith(_joint)]] = np.radians(_degrees)
_TOLD = 0.3
"""A joint is told by the markers if they narrow the variance of its angle to this share."""
_FIRST_STEPS, _STEPS, _SMALL_RAD = 60, 4, 2e-3
"""Most steps in the first and in every other frame; a step smaller than the last is the last."""


@dataclass(frozen=True)
class Solution:
    """The poses of a recording.

    angles_rad: (T, 34).
    pelvis: (T, 7).
    residual_m: (T, M) distance of each marker from its place on the body; NaN where it was not seen.
    told: (T, 34) bool, the joints that the frame's markers tell.
    turned: (M, T, 3) position of each recorded marker in the frame of the segment that carries it.
    """

    angles_rad: np.ndarray
    pelvis: np.ndarray
    residual_m: np.ndarray
    told: np.ndarray
    turned: np.ndarray


def solve(
    name: str,
    lengths: Mapping[str, float],
    sites: Sequence[Site],
    positions: np.ndarray,
    error_m: np.ndarray,
    start: np.ndarray,
    steps: int = _STEPS,
) -> Solution:
    """The poses of a recording. Raises InputError if the engine is not installed or finds no pose.

    name: the file, in messages.
    lengths: of the segments, as in `model.places`.
    positions: (T, M, 3) of the markers at `sites`, in metres and Y-up; NaN where one was not seen.
    error_m: (M,) how far each marker may be off.
    start: (7,) a first guess of the pelvis' position and quaternion.
    steps: most steps in each frame after the first, which starts at the pose of the frame before.
    """
    mujoco, mink = model.engine(name)
    body = mujoco.MjModel.from_xml_string(model.xml(lengths, sites))
    configuration = mink.Configuration(body)

    limits = [mink.ConfigurationLimit(body)]
    order = np.array([INDEX[body.joint(j).name] for j in range(1, body.njnt)])
    # MuJoCo numbers sites along the tree of bodies, not as they are listed.
    ids = np.array([body.site(str(i)).id for i in range(body.nsite)])
    carrier = body.site_bodyid[ids]
    task = _marker_task(mujoco, mink, body, ids, 1 / error_m)
    pose = np.zeros(body.nq)
    pose[:7], pose[7:] = start, _REST_RAD[order]
    configuration.update(pose)
    task.rest, task.spread = _REST_RAD[order], _SPREAD_RAD[order]
    frames, markers = positions.shape[:2]
    angles, pelvis = np.zeros((frames, N_JOINTS)), np.zeros((frames, 7))
    residual, told = np.full((frames, markers), np.nan), np.zeros((frames, N_JOINTS), dtype=bool)
    turned = np.full((markers, frames, 3), np.nan)
    for t in range(frames):
        task.target = positions[t]
        for _ in range(steps if t else _FIRST_STEPS):
            try:
                velocity = mink.solve_ik(configuration, [task], 1.0, "daqp", damping=1e-6, limits=limits)
            except (mink.MinkError, AssertionError, ValueError) as error:
                raise InputError(
                    f"{name}: frame {t}: expected points that a body can have, found none: {error}"
                ) from None
            configuration.integrate_inplace(velocity, 1.0)
            if np.abs(velocity).max() < _SMALL_RAD:
                break
        data = configuration.data
        angles[t, order], pelvis[t] = configuration.q[7:], configuration.q[:7]
        offset = positions[t] - data.site_xpos[ids]
        residual[t] = np.linalg.norm(offset, axis=1)
        told[t, order] = task.tells(configuration)
        frame = data.xmat[carrier].reshape(-1, 3, 3)
        turned[:, t] = np.einsum("mji,mj->mi", frame, positions[t] - data.xpos[carrier])
    return Solution(angles, pelvis, residual, told, turned)


def _marker_task(mujoco: Any, mink: Any, body: Any, ids: np.ndarray, cost: np.ndarray) -> Any:
    """A mink task: all markers, the joints' rest and an upright pelvis, as one residual vector."""

    class MarkerTask(mink.Task):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(cost=np.ones(3 * body.nsite + body.nv - _FREE + 2), gain=1.0, lm_damping=0.0)
            self.target = np.zeros((body.nsite, 3))
            self.rest = self.spread = np.ones(body.nv - _FREE)

        def compute_error(self, configuration: Any) -> np.ndarray:
            away = np.nan_to_num((configuration.data.site_xpos[ids] - self.target) * cost[:, None])
            rest = (configuration.q[7:] - self.rest) / self.spread
            up = configuration.data.xmat[1].reshape(3, 3)[1]  # the world's Y in the pelvis' frame
            return np.concatenate([away.ravel(), rest, up[[0, 2]] / _TILT_RAD])

        def compute_jacobian(self, configuration: Any) -> np.ndarray:
            result = np.zeros((3 * body.nsite + body.nv - _FREE + 2, body.nv))
            for i in np.flatnonzero(np.isfinite(self.target[:, 0])):
                part = np.zeros((3, body.nv))
                mujoco.mj_jacSite(body, configuration.data, part, None, ids[i])
                result[3 * i : 3 * i + 3] = cost[i] * part
            prior = np.arange(body.nv - _FREE)
            result[3 * body.nsite + prior, _FREE + prior] = 1 / self.spread
            up = configuration.data.xmat[1].reshape(3, 3)[1]
            # A free joint turns in the pelvis' own frame: there the world's Y moves by up x turn.
            cross = np.array([[0, -up[2], up[1]], [up[2], 0, -up[0]], [-up[1], up[0], 0]])
            result[-2:, 3:6] = cross[[0, 2]] / _TILT_RAD
            return result

        def tells(self, configuration: Any) -> np.ndarray:
            """(joints,) whether the markers narrow each joint's angle."""
            weighted = self.compute_jacobian(configuration)
            covariance = np.linalg.inv(weighted.T @ weighted + 1e-9 * np.eye(body.nv))
            return np.asarray(np.diag(covariance)[_FREE:] < _TOLD * self.spread**2)

    return MarkerTask()


def upright_pelvis(forward: np.ndarray, position: np.ndarray) -> np.ndarray:
    """(7,) an upright pelvis at `position` that looks along the horizontal part of `forward`."""
    yaw = np.arctan2(-forward[2], forward[0])
    return np.concatenate([position, Rotation.from_euler("y", yaw).as_quat(scalar_first=True)])
