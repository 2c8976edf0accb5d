"""Reads C3D files that carry angles: points whose three coordinates are a joint's angles, as Plug-in Gait writes.

Columns are `<point>.x`, `.y` and `.z`, without a subject's prefix; a joint map says which joint each of them is
(configs/skeletons/plug_in_gait.yaml). Which points are angles the parameter POINT:ANGLES says, or without it the
joint map; in what unit, POINT:ANGLE_UNITS or the map. Markers are not read: angles come of them by a model.
Binary parsing is ezc3d's.
"""

import tempfile
from pathlib import Path
from typing import Any, Literal

import ezc3d
import numpy as np

from biomechgpt.cohort.readers.joint_map import AngleUnits
from biomechgpt.cohort.readers.recording import Columns, ReaderSettings, Recording, assemble
from biomechgpt.settings import InputError

SUFFIXES = (".c3d",)
_UNITS: dict[str, AngleUnits] = {
    "deg": "degrees",
    "degrees": "degrees",
    "rad": "radians",
    "radians": "radians",
}


def matches(content: bytes) -> bool:
    """Whether this is a C3D: where its parameters are, then the format's mark."""
    return content[1:2] == b"\x50" and 1 < content[0] < 32


def read(name: str, content: bytes, settings: ReaderSettings) -> Recording:
    """The recording in `content`. Raises InputError naming file and point."""
    file = _open(name, content)
    parameters = file["parameters"]["POINT"]
    labels = [label.rpartition(":")[2] for label in _texts(parameters, "LABELS")]
    angles = {label.rpartition(":")[2] for label in _texts(parameters, "ANGLES")} or {
        part.rpartition(".")[0] for m in settings.skeleton for c in m.joints.values() for part in c.parts
    }
    chosen = [i for i, label in enumerate(labels) if label in angles]
    if not chosen:
        raise InputError(
            f"{name}: expected angles among its points (in POINT:ANGLES or named by a joint map), found "
            f"{', '.join(labels[:8]) or 'no points'}{', ...' * (len(labels) > 8)}: markers alone are not read"
        )
    for i in chosen:
        if labels.count(labels[i]) > 1:
            raise InputError(
                f"{name}: point {labels[i]!r}: expected one subject, found {labels.count(labels[i])}"
            )
    points, rate_hz = file["data"]["points"], float(parameters["RATE"]["value"][0])
    first, promised = _frames(content)
    if points.shape[2] < promised:
        raise InputError(
            f"{name}: the header promises {promised} frames, found {points.shape[2]}: "
            "the file is cut off or damaged"
        )
    if not rate_hz > 0:
        raise InputError(f"{name}: POINT:RATE: expected a frame rate above 0, found {rate_hz:g}")
    stated = [unit.lower() for unit in _texts(parameters, "ANGLE_UNITS")]
    read_as = Columns(
        format="C3D",
        # An occluded point is NaN, by ezc3d.
        values={f"{labels[i]}.{axis}": points[k, i] for i in chosen for k, axis in enumerate("xyz")},
        units=_UNITS.get(stated[0]) if stated else None,
        place=lambda i: f"frame {first + i}",
        time_s=(first - 1 + np.arange(points.shape[2])) / rate_hz,
        declared_rate_hz=float(file["header"]["points"]["frame_rate"]),
    )
    return assemble(name, read_as, settings)


def _frames(content: bytes) -> tuple[int, int]:
    """Number (from 1) of the first frame, and how many the header promises: ezc3d says how many there are."""
    processor = content[512 * (content[0] - 1) + 3 :][:1]
    order: Literal["big", "little"] = "big" if processor == b"\x56" else "little"  # 86: SGI's
    first, last = (int.from_bytes(content[i : i + 2], order) for i in (6, 8))
    return first, last - first + 1


def _open(name: str, content: bytes) -> Any:
    """ezc3d opens paths only."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.c3d"
        path.write_bytes(content)
        try:
            return ezc3d.c3d(str(path))
        except (OSError, RuntimeError, ValueError) as error:
            raise InputError(f"{name}: expected a C3D file, found a damaged one: {error}") from None


def _texts(parameters: Any, key: str) -> list[str]:
    """A parameter's texts, those too that the format continues under KEY2, KEY3 (more than 255 labels)."""
    keys = [key, *(f"{key}{i}" for i in range(2, 10))]
    return [str(text).strip() for k in keys if k in parameters for text in parameters[k]["value"]]
