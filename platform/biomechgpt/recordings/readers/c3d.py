"""Reads C3D files with angles, markers or rotations. Angles are points that hold a joint's angles, as Plug-in Gait
writes them.

Columns are `<point>.x`, `.y` and `.z`, without a subject's prefix; a joint map says which joint each of them
is (configs/joint_maps/plug_in_gait.yaml). The parameter POINT:ANGLES names the points that are angles;
without it the joint map does. Their unit is POINT:ANGLE_UNITS, or the map's. A file without angles is read by
its markers, from which inverse kinematics makes angles, or by rotations of segments (`theia`).

ezc3d parses the file in a process of its own, since a damaged file may crash it.
"""

from typing import Literal

import numpy as np

from biomechgpt.core.settings import InputError
from biomechgpt.recordings import separate_process
from biomechgpt.recordings.markers import Points, known, opensim_engine
from biomechgpt.recordings.readers import theia
from biomechgpt.recordings.readers.from_points import recording_of
from biomechgpt.recordings.readers.joint_map import AngleUnits
from biomechgpt.recordings.readers.recording import Columns, ReaderSettings, Recording, assemble
from biomechgpt.recordings.readers.text import listed

SUFFIXES = (".c3d",)
_UNITS: dict[str, AngleUnits] = {
    "deg": "degrees",
    "degrees": "degrees",
    "rad": "radians",
    "radians": "radians",
}
_SECONDS = 30
_SCRIPT = (
    separate_process.LIMITS
    + """
import ezc3d, numpy
file = ezc3d.c3d(sys.argv[1])
point = file["parameters"]["POINT"]
rotation = file["parameters"].get("ROTATION", {})
def texts(key, group=point):  # more than 255 go on under KEY2, KEY3
    keys = [key, *(f"{key}{i}" for i in range(2, 10))]
    return numpy.array([str(t).strip() for k in keys if k in group for t in group[k]["value"]], dtype=str)
numpy.savez(
    sys.argv[2],
    points=file["data"]["points"],  # an occluded point is NaN
    rate_hz=point["RATE"]["value"],
    header_rate_hz=file["header"]["points"]["frame_rate"],
    labels=texts("LABELS"), angles=texts("ANGLES"), units=texts("ANGLE_UNITS"),
    rotations=file["data"]["rotations"], rotation_labels=texts("LABELS", rotation), position_units=texts("UNITS"),
)
"""
)


def matches(content: bytes) -> bool:
    """Whether this is a C3D file: the block of its parameters, then the byte 0x50."""
    return content[1:2] == b"\x50" and 1 < content[0] < 32


def read(name: str, content: bytes, settings: ReaderSettings) -> Recording:
    """The recording in `content`. Raises InputError naming file and point."""
    # points (4, N, T), rotations (4, 4, N, T), rates, and texts
    file = separate_process.arrays_of(name, content, _SCRIPT, "a C3D file", _SECONDS)
    labels, angles = (
        [label.rpartition(":")[2] for label in file[key].tolist()] for key in ("labels", "angles")
    )
    labels = labels[: file["points"].shape[1]]
    first, rate_hz = _timing(name, content, file)
    if file["rotations"].size and known(labels) is None and not angles:
        return _rotations(name, file, first, rate_hz, settings)
    chosen = _angles(name, labels, angles, settings)
    if not chosen:
        return recording_of(name, _markers(labels, file["points"][:3], first, rate_hz), settings)
    stated = [unit.lower() for unit in file["units"].tolist()]
    points = file["points"]
    return assemble(
        name,
        Columns(
            format="C3D",
            values={f"{labels[i]}.{axis}": points[k, i] for i in chosen for k, axis in enumerate("xyz")},
            units=_UNITS.get(stated[0]) if stated else None,
            place=lambda i: f"frame {first + i}",
            time_s=(first - 1 + np.arange(points.shape[2])) / rate_hz,
            declared_rate_hz=float(file["header_rate_hz"]),
        ),
        settings,
    )


def _rotations(
    name: str, file: dict[str, np.ndarray], first: int, rate_hz: float, settings: ReaderSettings
) -> Recording:
    """The recording of a file that has rotations of segments, and neither angles nor markers."""
    matrices = file["rotations"]
    # Rotations may be recorded several times in each frame of the points.
    ratio = max(1, matrices.shape[3] // max(1, file["points"].shape[2]))
    labels = file["rotation_labels"].tolist()[: matrices.shape[2]]
    unit = file["position_units"].tolist()
    return theia.read(
        name, matrices, labels, ratio * (first - 1) + 1, ratio * rate_hz, unit[0] if unit else "mm", settings
    )


def _timing(name: str, content: bytes, file: dict[str, np.ndarray]) -> tuple[int, float]:
    """Number (from 1) of the first frame, and the frame rate. Raises InputError if frames are missing."""
    first, promised = _frames(content)
    if file["points"].shape[2] < promised:
        raise InputError(
            f"{name}: the header promises {promised} frames, found {file['points'].shape[2]}: "
            "the file is cut off or damaged"
        )
    rate_hz = float(file["rate_hz"].flat[0]) if file["rate_hz"].size else 0.0
    if not rate_hz > 0:
        raise InputError(f"{name}: POINT:RATE: expected a frame rate above 0, found {rate_hz:g}")
    return first, rate_hz


def _angles(name: str, labels: list[str], angles: list[str], settings: ReaderSettings) -> list[int]:
    """Numbers of the points that are angles; none if the file is to be read by its markers.

    angles: the points that the file itself calls angles. A map may know others too.
    Raises InputError for a file that has neither, and for angles of several subjects.
    """
    mapped = {
        part.rpartition(".")[0] + suffix
        for m in settings.joint_map
        for c in m.joints.values()
        for part in c.parts
        if "." in part
        for suffix in {"", m.optional_suffix}
    }
    chosen = [i for i, label in enumerate(labels) if label in mapped]
    if not chosen and (known(labels) is not None or _are_of_the_model(labels, settings)):
        return []
    chosen = [i for i, label in enumerate(labels) if label in mapped.union(angles)]
    if not chosen:
        raise InputError(
            f"{name}: expected angles among its points (in POINT:ANGLES or named by a joint map), or markers of a "
            f"known set, found {listed(labels, 8) or 'no points'}"
        )
    for i in chosen:
        if labels.count(labels[i]) > 1:
            raise InputError(
                f"{name}: point {labels[i]!r}: expected one subject, found {labels.count(labels[i])}"
            )
    return chosen


def _are_of_the_model(labels: list[str], settings: ReaderSettings) -> bool:
    """Whether these are markers of the person's OpenSim model."""
    if settings.opensim_model is None:
        return False
    return opensim_engine.matches(labels, opensim_engine.model_markers(settings.opensim_model)[1])


def _markers(labels: list[str], points: np.ndarray, first: int, rate_hz: float) -> Points:
    """The markers that have names; points: (3, N, T)."""
    named = [i for i, label in enumerate(labels) if label and not label.startswith("*")]
    return Points(
        format="C3D markers",
        names=tuple(labels[i] for i in named),
        positions=points[:, named].transpose(2, 1, 0),
        time_s=(first - 1 + np.arange(points.shape[2])) / rate_hz,
        declared_rate_hz=rate_hz,
    )


def _frames(content: bytes) -> tuple[int, int]:
    """Number (from 1) of the first frame, and how many frames the header promises; ezc3d does not check it."""
    processor = content[512 * (content[0] - 1) + 3 :][:1]
    order: Literal["big", "little"] = "big" if processor == b"\x56" else "little"  # 86: SGI's
    first, last = (int.from_bytes(content[i : i + 2], order) for i in (6, 8))
    return first, last - first + 1
