"""Reads poses of SMPL, SMPL-H and SMPL-X (.npz), as AMASS and tools for video write them.

Poses are rotation vectors of joints, so no licensed body model is needed: the rotations are converted.
Arrays, of which the first that is there counts: `poses` or `pose` (T, 66 or more: pelvis, then the joints of
the body), or `root_orient` (or `global_orient`) with `pose_body` (or `body_pose`); `trans` (or `transl`),
metres; `mocap_framerate`, `mocap_frame_rate` or `fps`. A file holds one movement of one person.
"""

import io
import struct
import zipfile

import numpy as np
from scipy.spatial.transform import Rotation

from biomechgpt.core.settings import InputError
from biomechgpt.recordings.readers import numpy_files
from biomechgpt.recordings.readers.archive import is_npz
from biomechgpt.recordings.readers.from_rotations import recording_of
from biomechgpt.recordings.readers.recording import ReaderSettings, Recording
from biomechgpt.recordings.rotations import Poses, from_rest_pose

SUFFIXES = (".npz",)
_WHOLE = ("poses", "pose", "smpl_poses", "fullpose")
_ROOT, _BODY = ("root_orient", "global_orient", "root_pose"), ("pose_body", "body_pose")
_PLACE = ("trans", "transl", "translation")
_RATES = ("mocap_framerate", "mocap_frame_rate", "fps", "framerate", "frame_rate", "mocap_fps")
_KEYS = {*_WHOLE, *_ROOT, *_BODY}
_BODY_JOINTS = 22
_JOINT_COUNTS = (22, 24, 52, 55)
"""Joints of the body alone, and of SMPL, SMPL-H and SMPL-X."""

_JOINTS: tuple[tuple[str, int, tuple[float, float, float]], ...] = (
    ("root", -1, (0.0, 0.0, 0.0)),
    ("hip_l", 0, (0.060, -0.086, -0.016)), ("hip_r", 0, (-0.060, -0.086, -0.016)),
    ("spine1", 0, (0.0, 0.124, -0.038)),
    ("knee_l", 1, (0.043, -0.385, 0.002)), ("knee_r", 2, (-0.043, -0.385, 0.002)),
    ("spine2", 3, (0.0, 0.138, 0.027)),
    ("ankle_l", 4, (-0.017, -0.423, -0.036)), ("ankle_r", 5, (0.017, -0.423, -0.036)),
    ("spine3", 6, (0.0, 0.056, 0.003)),
    ("toes_l", 7, (0.038, -0.061, 0.126)), ("toes_r", 8, (-0.038, -0.061, 0.126)),
    ("neck", 9, (0.0, 0.212, -0.034)),
    ("collar_l", 9, (0.077, 0.113, -0.021)), ("collar_r", 9, (-0.077, 0.113, -0.021)),
    ("head", 12, (0.0, 0.089, 0.050)),
    ("shoulder_l", 13, (0.118, 0.046, -0.014)), ("shoulder_r", 14, (-0.118, 0.046, -0.014)),
    ("elbow_l", 16, (0.258, -0.015, -0.027)), ("elbow_r", 17, (-0.258, -0.015, -0.027)),
    ("wrist_l", 18, (0.267, 0.011, -0.007)), ("wrist_r", 19, (-0.267, 0.011, -0.007)),
)  # fmt: skip
"""(joint, number of its parent, its position from there in metres) of the rest pose: X to the left, Y up, Z
forward. The offsets are those of the mean male body, as public programs that retarget SMPL motion list them;
both sides are averaged and rounded. People differ by a few degrees in them."""
_SEGMENTS = {
    "pelvis": 0, "thigh_l": 1, "thigh_r": 2, "shank_l": 4, "shank_r": 5, "foot_l": 7, "foot_r": 8,
    "trunk": 9, "head": 15,
    "upper_arm_l": 16, "upper_arm_r": 17, "forearm_l": 18, "forearm_r": 19, "hand_l": 20, "hand_r": 21,
}  # fmt: skip


def matches(content: bytes) -> bool:
    """Whether this is an archive of arrays with a pose of SMPL among them."""
    if not is_npz(content):
        return False
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = {name.removesuffix(".npy") for name in archive.namelist()}
    # Of a file's beginning only: its directory is at its end. zipfile raises the others for damaged ones.
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, struct.error):
        names = {key for key in (*_KEYS, *_PLACE, "betas") if f"{key}.npy".encode() in content}
        return len(names) > 1
    return not _KEYS.isdisjoint(names) and "qpos" not in names


def read(name: str, content: bytes, settings: ReaderSettings) -> Recording:
    """The recording in `content`. Raises InputError naming file and array."""
    arrays = _arrays(name, content)
    poses = _poses(name, arrays)
    frames = len(poses)
    place = next((arrays[k] for k in _PLACE if k in arrays), np.zeros((frames, 3)))
    if place.shape != (frames, 3):
        raise InputError(f"{name}: translation: expected shape ({frames}, 3), found {place.shape}")
    rate_hz = next((float(arrays[k].flat[0]) for k in _RATES if k in arrays), 0.0)
    if not rate_hz > 0:
        raise InputError(
            f"{name}: expected a frame rate ({', '.join(_RATES)}), found {', '.join(arrays)}: add it to the file"
        )
    return recording_of(
        name,
        from_rest_pose(name, Poses(rest_positions(), _turns(poses), place, 1.0)),
        np.arange(frames) / rate_hz,
        settings,
        format="SMPL poses",
        rate_hz=rate_hz,
        notes=("rotations converted, mean body's rest pose",),
    )


def _arrays(name: str, content: bytes) -> dict[str, np.ndarray]:
    wanted = {*_KEYS, *_PLACE, *_RATES}
    return numpy_files.load(name, content, lambda key: key in wanted)[0]


def _poses(name: str, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """(T, 22, 3) rotation vectors of the pelvis and the body's joints."""
    whole = next((arrays[k] for k in _WHOLE if k in arrays), None)
    if whole is None:
        root, body = (next((arrays[k] for k in keys if k in arrays), None) for keys in (_ROOT, _BODY))
        if root is None or body is None or len(root) != len(body):
            found = ", ".join(f"{k} {v.shape}" for k, v in arrays.items())
            raise InputError(
                f"{name}: expected {_WHOLE[0]!r}, or {_ROOT[0]!r} and {_BODY[0]!r} of the same frames, "
                f"found {found}"
            )
        # The body alone has no hands: 21 joints, or 23 with two for the whole hands.
        body = _vectors(name, body)[:, : _BODY_JOINTS - 1]
        joints = np.concatenate([_vectors(name, root), body], axis=1)
    else:
        joints = _vectors(name, whole)
        if joints.shape[1] not in _JOINT_COUNTS:
            raise InputError(
                f"{name}: poses: expected rotation vectors of {', '.join(map(str, _JOINT_COUNTS))} joints, "
                f"found an array of shape {whole.shape}"
            )
    if joints.shape[1] < _BODY_JOINTS or not np.isfinite(joints).all():
        raise InputError(
            f"{name}: poses: expected rotation vectors of {_BODY_JOINTS} joints or more, found {joints.shape[1]}"
            f"{'' if np.isfinite(joints).all() else ', some of them without a number'}"
        )
    return joints[:, :_BODY_JOINTS]


def _vectors(name: str, array: np.ndarray) -> np.ndarray:
    """(T, joints, 3) rotation vectors from such, from (T, 3 * joints), or from matrices (T, joints, 3, 3)."""
    if array.shape[-2:] == (3, 3) and array.ndim == 4:
        if not np.isfinite(array).all() or (np.linalg.det(array) < 0.5).any():
            raise InputError(f"{name}: poses: expected rotation matrices, found others (shape {array.shape})")
        return np.reshape(Rotation.from_matrix(array.reshape(-1, 3, 3)).as_rotvec(), (*array.shape[:2], 3))
    if array.ndim == 2 and array.shape[1] % 3 == 0:
        return array.reshape(len(array), -1, 3)
    if array.ndim == 3 and array.shape[2] == 3 and array.shape[1] != 3:
        return array
    raise InputError(
        f"{name}: poses: expected rotation vectors (T, 3 * joints), (T, joints, 3) or matrices (T, joints, 3, 3), "
        f"found shape {array.shape}"
    )


def _turns(poses: np.ndarray) -> dict[str, Rotation]:
    """{segment: its rotations from the rest pose}."""
    joints: list[Rotation] = []
    for i, (_, parent, _) in enumerate(_JOINTS):
        own = Rotation.from_rotvec(poses[:, i])
        joints.append(joints[parent] * own if i else own)
    return {segment: joints[i] for segment, i in _SEGMENTS.items()}


def rest_positions() -> dict[str, np.ndarray]:
    """{joint: (3,)} of the rest pose, in metres."""
    found: list[np.ndarray] = []
    for _, parent, offset in _JOINTS:
        found.append(np.array(offset) + (found[parent] if parent >= 0 else 0))
    return {joint: position for (joint, _, _), position in zip(_JOINTS, found, strict=True)}
