"""Uploaded recordings, as the gateway keeps them, and what the response shows of them.

Knows nothing about HTTP paths or the model.
"""

import hashlib
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.spatial.transform import Rotation

from biomechgpt.core.settings import InputError
from biomechgpt.motion import gait, kinematics, norms
from biomechgpt.motion.plots import LEFT, RIGHT, TRUNK
from biomechgpt.motion.skeleton import INDEX, NAMES
from biomechgpt.recordings.bounded import Reader
from biomechgpt.recordings.upload import TooLarge, UploadSettings
from serve.errors import ApiError
from serve.schema import CurveNorm, Figure, FigureColors, JointCurve, RecordingInfo, Strides
from serve.settings import GatewaySettings

MAX_NAME_CHARS = 200
CURVES = (
    ("hip", "hip_flexion", "Hip flexion", "flexion", 1),
    ("knee", "knee_angle", "Knee flexion", "flexion", -1),
    ("ankle", "ankle_angle", "Ankle dorsiflexion", "toes up", 1),
    ("trunk", "lumbar_extension", "Trunk flexion", "forward, against the pelvis", -1),
)
"""Joint curves to show: name, joint, label, direction of positive angles, sign against the skeleton's."""
NORM_GROUP = "healthy walkers (children and adolescents)"
"""Whose gait bands `norms.gait_band` has."""
NORM_STEP = 2
"""Percent of the gait cycle between the points of a norm."""
UPRIGHT = 1e-3
"""A pelvis with smaller quaternion parts about the forward and the side axis was recorded upright."""


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


def joint_curves(recording: LoadedRecording) -> list[JointCurve]:
    """Joint angles over time in the signs of the clinic: flexion, dorsiflexion and forward tilt are positive."""
    recorded = recording.info.joint_mask()
    degrees = np.degrees(recording.angles_rad)

    def values(joint: str, sign: int) -> list[float] | None:
        if joint not in INDEX or not recorded[INDEX[joint]]:
            return None
        return _rounded(sign * degrees[:, INDEX[joint]])

    curves = []
    for name, joint, label, positive, sign in CURVES:
        right, left = (values(f"{joint}_{side}", sign) for side in "rl")
        middle = values(joint, sign)
        if right is left is middle is None:
            continue
        curves.append(
            JointCurve(
                name=name, label=label, positive=positive, right=right, left=left, middle=middle,
                norm=_curve_norm(f"{joint}_r", sign),
            )
        )  # fmt: skip
    before_trunk = len(curves) - any(curve.name == "trunk" for curve in curves)
    return curves[:before_trunk] + _pelvis_curves(recording.pelvis) + curves[before_trunk:]


def strides(recording: LoadedRecording) -> Strides:
    """The complete strides of a recording; if a side has none, those that the recording cuts off."""
    rate = recording.info.frame_rate_hz
    walk = gait.measure(recording.angles_rad, recording.pelvis, rate)
    seconds: dict[str, list[tuple[float, float]]] = {}
    for side in gait.SIDES:
        strikes = [float(frame) for frame in walk.events.heel_strikes[side]]
        edges = list(pairwise(strikes)) or _cut_off(walk, recording.info.frames, side)
        seconds[side] = [(round(begin / rate, 3), round(end / rate, 3)) for begin, end in edges]
    return Strides(right=seconds["r"], left=seconds["l"])


def _cut_off(walk: gait.Gait, frames: int, side: gait.Side) -> list[tuple[float, float]]:
    """(begin, end) in frames of the strides that a recording cuts off: as long as a mean stride of the walk."""
    edges = []
    for within, percent in gait.partial_strides(walk, frames, side):
        if len(within) > 1:
            length = 100 * float(within[-1] - within[0]) / float(percent[-1] - percent[0])
            begin = float(within[0]) - float(percent[0]) * length / 100
            edges.append((begin, begin + length))
    return edges


def _pelvis_curves(pelvis: np.ndarray) -> list[JointCurve]:
    """Tilt and list of the pelvis; none if it was recorded upright throughout."""
    if np.abs(pelvis[:, [4, 6]]).max() <= UPRIGHT:
        return []
    turned = Rotation.from_quat(pelvis[:, 3:], scalar_first=True)
    # The skeleton's pelvis: X forward, Y up, Z right.
    forward_down = -np.degrees(np.arcsin(np.clip(turned.apply([1.0, 0.0, 0.0])[:, 1], -1, 1)))
    right_up = np.degrees(np.arcsin(np.clip(turned.apply([0.0, 0.0, 1.0])[:, 1], -1, 1)))
    drawn = (
        ("pelvis_tilt", "Pelvic tilt", "forward", forward_down),
        ("pelvis_list", "Pelvic obliquity", "right side up", right_up),
    )
    return [
        JointCurve(
            name=name,
            label=label,
            positive=positive,
            right=None,
            left=None,
            middle=_rounded(values),
            norm=None,
        )
        for name, label, positive, values in drawn
    ]


def _curve_norm(joint: str, sign: int) -> CurveNorm | None:
    band = norms.gait_band(joint)
    if band is None:
        return None
    mean, sd = band
    return CurveNorm(
        mean=_rounded(sign * mean[::NORM_STEP]),
        sd=_rounded(sd[::NORM_STEP]),
        group=NORM_GROUP,
        source=norms.CURVES.shown,
        verified=norms.CURVES.verified,
    )


def _rounded(degrees: np.ndarray) -> list[float]:
    return [float(value) for value in np.round(degrees.astype(float), 1)]
