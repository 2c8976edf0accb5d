"""Uploaded recordings, as the gateway keeps them, and what the response shows of them.

Knows nothing about HTTP paths or the model.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from biomechgpt.core.settings import InputError
from biomechgpt.motion import kinematics
from biomechgpt.motion.plots import LEFT, RIGHT, TRUNK
from biomechgpt.motion.skeleton import NAMES
from biomechgpt.recordings.bounded import Reader
from biomechgpt.recordings.upload import TooLarge, UploadSettings
from serve.errors import ApiError
from serve.schema import Figure, FigureColors, RecordingInfo
from serve.settings import GatewaySettings

MAX_NAME_CHARS = 200


@dataclass(frozen=True)
class LoadedRecording:
    """An uploaded recording at the tokenizer's frame rate.

    info: description for the response.
    angles_rad: (T, 34) joint angles.
    pelvis: (T, 7) position and orientation.
    sha256: checksum of the file, 64 hex digits.
    """

    info: RecordingInfo
    angles_rad: np.ndarray
    pelvis: np.ndarray
    sha256: str


def clean_name(name: str | None) -> str:
    """The last part of a file name, without characters that are not shown or that turn the text around."""
    last = (name or "").replace("\\", "/").rstrip("/").rpartition("/")[2]
    return "".join(c for c in last if c.isprintable())[-MAX_NAME_CHARS:] or "recording"


async def load_recording(
    name: str,
    content: bytes,
    settings: GatewaySettings,
    frame_rate_hz: float,
    max_duration_s: float,
    reader: Reader,
) -> LoadedRecording:
    """A file's content, read by a process with limits. Raises ApiError for one that cannot be used.

    frame_rate_hz: of the result. max_duration_s: longest movement that the model reads.
    """
    wanted = UploadSettings(
        readers=settings.readers,
        quality=settings.quality,
        rate_hz=frame_rate_hz,
        max_frames=settings.max_frames,
        max_duration_s=settings.max_duration_s,
    )
    try:
        upload = await reader.read(name, content, wanted)
    except TooLarge as error:
        raise ApiError("too_large", str(error)) from None
    except InputError as error:
        raise ApiError("bad_recording", str(error)) from None
    duration_s = len(upload.angles_rad) / frame_rate_hz
    info = RecordingInfo(
        name=name,
        frames=len(upload.angles_rad),
        duration_s=round(duration_s, 3),
        used_s=round(min(duration_s, max_duration_s), 3),
        frame_rate_hz=frame_rate_hz,
        knee_flexion=upload.knee_flexion,
        provenance=upload.provenance,
        missing_joints=[
            joint for joint, recorded in zip(NAMES, upload.joint_mask, strict=True) if not recorded
        ],
        repairs="; ".join(upload.notes) or None,
    )
    return LoadedRecording(info, upload.angles_rad, upload.pelvis, hashlib.sha256(content).hexdigest())


def stick_figure(recording: LoadedRecording) -> Figure:
    """The stick figure of a recording."""
    points = kinematics.points_m(recording.angles_rad, recording.pelvis, ground="frame")
    return Figure(
        frame_rate_hz=recording.info.frame_rate_hz,
        points=list(kinematics.LANDMARKS),
        bones=list(kinematics.BONES),
        positions_m=np.round(points.astype(float), 3).tolist(),
        colors=FigureColors(right=RIGHT, left=LEFT, middle=TRUNK),
    )
