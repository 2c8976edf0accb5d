"""Reads MuJoCo trajectories: .npz with an array `q_<joint>` per joint, or a matrix `qpos`, in radians and metres.

loco-mujoco's `q_` files of the "reduced" humanoid have the skeleton's signs. In those of the "full" humanoid knee
flexion is positive, and then the left hip's adduction and rotation have the opposite sign too: the knee's sign
tells the two apart. The root is three slides (tx, tz, ty) and three hinges (tilt, list, rotation) in OpenSim's own
Y-up frame, so the pelvis needs no conversion.

A `qpos` (T, nq) begins either with that root or with a free joint: x, y, z and a quaternion (w, x, y, z). If
columns 3 to 6 have length 1 in every frame, they are a quaternion. The hinges are named by `joint_names` (or
`jnt_names`), or they are the skeleton's 34 joints, or its 31 without the neck, in its order. The world of a free
joint is Z-up (as in MuJoCo) or Y-up; the upward axis is the one along which the pelvis has, and keeps, the height
of a pelvis. For people who lie down the setting `mujoco_up` states it.
"""

import itertools

import numpy as np
from scipy.spatial.transform import Rotation

from biomechgpt.core.settings import InputError
from biomechgpt.motion.skeleton import NAMES, NECK
from biomechgpt.recordings.readers import archive, numpy_files
from biomechgpt.recordings.readers.foreign import foreign_arrays
from biomechgpt.recordings.readers.joint_map import PELVIS_ROTATIONS, PELVIS_TRANSLATIONS
from biomechgpt.recordings.readers.recording import Columns, ReaderSettings, Recording, assemble

SUFFIXES = (".npz",)
_RATES = ("frequency", "frame_rate", "frame_rate_hz", "fps")
_JOINT_NAMES = ("joint_names", "jnt_names")
_SPLITS = "split_points"
_SLIDING_ROOT = ("pelvis_tx", "pelvis_tz", "pelvis_ty", *PELVIS_ROTATIONS)
_HEIGHT_M = (0.2, 1.5)
"""Height of a pelvis, from sitting on a low seat to standing tall."""
# Turns MuJoCo's Z-up world into OpenSim's Y-up world: z becomes y, and y becomes -z.
_TO_Y_UP = Rotation.from_euler("x", -90, degrees=True)


def matches(content: bytes) -> bool:
    """Whether this is an archive of arrays."""
    return archive.is_npz(content)


def read(name: str, content: bytes, settings: ReaderSettings) -> Recording:
    """The recording in `content`. Raises InputError naming file, frame and array."""
    arrays = _arrays(name, content)
    starts = splits(arrays)
    if len(starts) > 2:
        raise InputError(
            f"{name}: expected one recording, found {len(starts) - 1} that follow one another (split_points "
            f"{', '.join(map(str, starts))}): joined, they would be one walk with a jump. `biomechgpt answer` and "
            "biomechgpt.read_all read each of them; a cohort needs a file for each"
        )
    return _recording(name, arrays, settings)


def read_each(name: str, content: bytes, settings: ReaderSettings) -> dict[str, Recording | InputError]:
    """{name: recording, or why it cannot be read} of each trajectory between split points:
    `name#1`, `name#2` ..."""
    arrays = _arrays(name, content)
    starts = splits(arrays)
    if len(starts) <= 2:
        return {name: _recording(name, arrays, settings)}
    result: dict[str, Recording | InputError] = {}
    for k, (first, end) in enumerate(itertools.pairwise(starts), start=1):
        part = {
            key: v[first:end] if len(v) == starts[-1] and key not in (*_RATES, *_JOINT_NAMES) else v
            for key, v in arrays.items()
        }
        try:
            result[f"{name}#{k}"] = _recording(f"{name}#{k}", part, settings)
        except InputError as error:
            result[f"{name}#{k}"] = error
    return result


def splits(arrays: dict[str, np.ndarray]) -> list[int]:
    """Frames at which loco-mujoco's trajectories begin, and the frame after the last one."""
    points = sorted({int(v) for v in arrays.get(_SPLITS, np.zeros(0)).ravel() if np.isfinite(v)})
    moving = [len(v) for k, v in arrays.items() if k.startswith("q_") or k == "qpos"]
    frames = max(moving, default=0)
    return [0, *(p for p in points if 0 < p < frames), frames]


def _recording(name: str, arrays: dict[str, np.ndarray], settings: ReaderSettings) -> Recording:
    joints = {k.removeprefix("q_"): v for k, v in arrays.items() if k.startswith("q_")}
    kind = "MuJoCo .npz, q_ arrays"
    if "qpos" in arrays:
        kind, joints = _columns(name, arrays, settings)
    frames = len(next(iter(joints.values())))
    for key, values in joints.items():
        if values.shape != (frames,):
            raise InputError(f"{name}: array 'q_{key}': expected shape ({frames},), found {values.shape}")
    rate_hz = next((float(arrays[k].flat[0]) for k in _RATES if k in arrays), None)
    file = Columns(
        format=kind,
        values=joints,
        units="radians",
        place=lambda i: f"frame {i}",
        time_s=_time(name, arrays, frames, settings.mujoco_rate_hz if rate_hz is None else rate_hz),
        declared_rate_hz=rate_hz,
        turn_with_knee=("hip_adduction_l", "hip_rotation_l"),
    )
    return assemble(name, file, settings)


def _arrays(name: str, content: bytes) -> dict[str, np.ndarray]:
    found, names = numpy_files.load(name, content, _wanted, texts=_JOINT_NAMES)
    if not any(k.startswith("q_") or k == "qpos" for k in found):
        raise InputError(f"{name}: {foreign_arrays(names)}")
    return found


def _wanted(key: str) -> bool:
    return key.startswith("q_") or key in ("qpos", "time", _SPLITS, *_RATES, *_JOINT_NAMES)


def _time(name: str, arrays: dict[str, np.ndarray], frames: int, rate_hz: float) -> np.ndarray:
    """The file's own times, or those of the rate."""
    if "time" in arrays:
        if arrays["time"].shape != (frames,):
            raise InputError(
                f"{name}: array 'time': expected shape ({frames},), found {arrays['time'].shape}"
            )
        return arrays["time"]
    if not rate_hz > 0:
        raise InputError(f"{name}: expected a frame rate above 0, found {rate_hz:g}")
    return np.arange(frames) / rate_hz


def _columns(
    name: str, arrays: dict[str, np.ndarray], settings: ReaderSettings
) -> tuple[str, dict[str, np.ndarray]]:
    """The kind of qpos, and its columns by joint, the pelvis in OpenSim's coordinates."""
    qpos = arrays["qpos"]
    if qpos.ndim != 2 or qpos.shape[1] < 7 or not len(qpos):
        raise InputError(
            f"{name}: array 'qpos': expected frames of a root and hinges, found shape {qpos.shape}"
        )
    lengths = np.linalg.norm(qpos[:, 3:7], axis=1)
    free = bool(np.allclose(lengths[np.isfinite(lengths)], 1, atol=1e-3))
    root = 7 if free else len(_SLIDING_ROOT)
    hinges = _hinges(name, arrays, qpos.shape[1], root, free)
    columns = dict(zip(hinges, qpos[:, root:].T, strict=True))
    if not free:
        return "MuJoCo .npz, qpos with sliding root", columns | dict(
            zip(_SLIDING_ROOT, qpos[:, :root].T, strict=True)
        )
    up = _up(name, qpos[:, :3]) if settings.mujoco_up == "auto" else settings.mujoco_up
    return f"MuJoCo .npz, qpos with free joint, {up.upper()} up", columns | _pelvis(qpos[:, :7], up)


def _hinges(name: str, arrays: dict[str, np.ndarray], nq: int, root: int, free: bool) -> list[str]:
    """Names of the columns after the root, by the file or else by the skeleton."""
    count = nq - root
    given = next((arrays[k] for k in _JOINT_NAMES if k in arrays), None)
    if given is not None:
        names = [str(k) for k in given.ravel()]
        root_joints = 1 if free else root  # a free joint is one joint, six slides and hinges are six
        if len(names) not in (count, count + root_joints):
            raise InputError(
                f"{name}: array 'qpos': expected a root of {root} columns and {len(names)} named joints, "
                f"the root among them or not, found {nq} columns"
            )
        return names[len(names) - count :]
    without_neck = [k for k in NAMES if k not in NECK]
    if count not in (len(NAMES), len(without_neck)):
        raise InputError(
            f"{name}: array 'qpos': expected {len(without_neck)} or {len(NAMES)} hinges after a root of {root} "
            f"columns, found {count} (an array joint_names may name them)"
        )
    return list(NAMES) if count == len(NAMES) else without_neck


def _up(name: str, place_m: np.ndarray) -> str:
    """The axis, y or z, along which the pelvis (T, 3) has the height of a pelvis; if both fit, the steadier one."""
    low, high = _HEIGHT_M
    fits = [i for i in (1, 2) if low < np.nanmedian(place_m[:, i]) < high]
    if not fits:
        raise InputError(
            f"{name}: array 'qpos': expected the pelvis {low} to {high} m high along y or z, found it at "
            f"{np.nanmedian(place_m[:, 1]):.2f} and {np.nanmedian(place_m[:, 2]):.2f} (mujoco_up: y or z says it)"
        )
    return "xyz"[min(fits, key=lambda i: np.ptp(place_m[:, i][np.isfinite(place_m[:, i])]))]


def _pelvis(root: np.ndarray, up: str) -> dict[str, np.ndarray]:
    """OpenSim's six coordinates from a free joint (T, 7); up: the world's upward axis, y or z.

    The pelvis' own frame may be Y-up, as in OpenSim's models, or Z-up with Y to the left: the axis that is upright
    most of the time decides.
    """
    is_recorded = np.isfinite(root[:, 3:]).all(axis=1)
    place, turn = root[:, :3], Rotation.from_quat(root[is_recorded, 3:], scalar_first=True)
    if up == "z":
        upright = turn.as_matrix()[:, 2].mean(axis=0)  # the world's z in the pelvis' frame
        place, turn = _TO_Y_UP.apply(place), _TO_Y_UP * turn
        if upright[2] > upright[1]:
            turn = turn * _TO_Y_UP.inv()
    angles = np.full_like(place, np.nan)
    angles[is_recorded] = turn.as_euler("ZXY")
    return dict(
        zip((*PELVIS_TRANSLATIONS, *PELVIS_ROTATIONS), np.column_stack([place, angles]).T, strict=True)
    )
