"""Reads loco-mujoco trajectories: .npz with an array `q_<joint>` a joint, in radians and metres.

Files of its "reduced" humanoid have the skeleton's signs. Those of the "full" one bend the knee positively,
and then the left hip's adduction and rotation have the other sign too: the knee tells which file it is.
The MJCF model itself is Y-up like OpenSim's, so the pelvis needs no turning.
"""

import io
import zipfile
import zlib

import numpy as np

from biomechgpt.cohort.readers.recording import ReaderSettings, Recording, assemble
from biomechgpt.settings import InputError

SUFFIXES = (".npz",)
_RATES = ("frequency", "frame_rate", "frame_rate_hz", "fps")


def matches(content: bytes) -> bool:
    """Whether this is an archive, as .npz files are."""
    return content[:4] == b"PK\x03\x04"


def read(name: str, content: bytes, settings: ReaderSettings) -> Recording:
    """The recording in `content`. Raises InputError naming file, frame and array."""
    arrays = _arrays(name, content)
    joints = {k.removeprefix("q_"): v for k, v in arrays.items() if k.startswith("q_")}
    if not joints:
        raise InputError(f"{name}: expected arrays named q_<joint>, found {', '.join(arrays) or 'none'}")
    frames = len(next(iter(joints.values())))
    for key, values in joints.items():
        if values.shape != (frames,):
            raise InputError(f"{name}: array 'q_{key}': expected shape ({frames},), found {values.shape}")
    time_s = _time(name, arrays, frames, settings)
    turn = ("hip_adduction_l", "hip_rotation_l")
    return assemble(name, time_s, joints, settings, lambda i: f"frame {i}", turn_with_knee=turn)


def _arrays(name: str, content: bytes) -> dict[str, np.ndarray]:
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays = {k: np.atleast_1d(file[k]) for k in file.files if _wanted(k)}
        return {k: v.astype(float) for k, v in arrays.items()}
    except (zipfile.BadZipFile, zlib.error, ValueError, OSError, EOFError) as error:
        raise InputError(
            f"{name}: expected an .npz of numbers, found a damaged or foreign file: {error}"
        ) from None


def _wanted(key: str) -> bool:
    return key.startswith("q_") or key == "time" or key in _RATES


def _time(name: str, arrays: dict[str, np.ndarray], frames: int, settings: ReaderSettings) -> np.ndarray:
    """The file's own times; or from its rate; or from the setting's."""
    if "time" in arrays:
        if arrays["time"].shape != (frames,):
            raise InputError(
                f"{name}: array 'time': expected shape ({frames},), found {arrays['time'].shape}"
            )
        return arrays["time"]
    rate = next((float(arrays[k].flat[0]) for k in _RATES if k in arrays), settings.mujoco_rate_hz)
    if not rate > 0:
        raise InputError(f"{name}: expected a frame rate above 0, found {rate:g}")
    return np.arange(frames) / rate
