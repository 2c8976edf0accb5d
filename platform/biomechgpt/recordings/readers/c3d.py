"""Reads C3D files with angles: points whose three coordinates are a joint's angles, as Plug-in Gait writes them.

Columns are `<point>.x`, `.y` and `.z`, without a subject's prefix; a joint map says which joint each of them is
(configs/joint_maps/plug_in_gait.yaml). The parameter POINT:ANGLES names the points that are angles; without it the
joint map does. Their unit is POINT:ANGLE_UNITS, or the map's. Markers are not read: angles from markers need
inverse kinematics with a model.

ezc3d parses the file in a process of its own: a damaged file may crash it, which must end neither a run over a
thousand files nor a server.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal

import numpy as np

from biomechgpt.core.settings import InputError
from biomechgpt.recordings.readers.joint_map import AngleUnits
from biomechgpt.recordings.readers.recording import Columns, ReaderSettings, Recording, assemble

SUFFIXES = (".c3d",)
_UNITS: dict[str, AngleUnits] = {
    "deg": "degrees",
    "degrees": "degrees",
    "rad": "radians",
    "radians": "radians",
}
_SECONDS = 30
_SCRIPT = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))  # a damaged header may promise anything
import ezc3d, numpy
file = ezc3d.c3d(sys.argv[1])
point = file["parameters"]["POINT"]
def texts(key):  # more than 255 go on under KEY2, KEY3
    keys = [key, *(f"{key}{i}" for i in range(2, 10))]
    return numpy.array([str(t).strip() for k in keys if k in point for t in point[k]["value"]], dtype=str)
numpy.savez(
    sys.argv[2],
    points=file["data"]["points"],  # an occluded point is NaN
    rate_hz=point["RATE"]["value"],
    header_rate_hz=file["header"]["points"]["frame_rate"],
    labels=texts("LABELS"), angles=texts("ANGLES"), units=texts("ANGLE_UNITS"),
    rotations=numpy.array([str(t).strip() for t in file["parameters"].get("ROTATION", {}).get("LABELS", {}).get(
        "value", [])], dtype=str),
)
"""


def matches(content: bytes) -> bool:
    """Whether this is a C3D file: the block of its parameters, then the byte 0x50."""
    return content[1:2] == b"\x50" and 1 < content[0] < 32


def read(name: str, content: bytes, settings: ReaderSettings) -> Recording:
    """The recording in `content`. Raises InputError naming file and point."""
    file = _parsed(name, content)
    labels, angles = (
        [label.rpartition(":")[2] for label in file[key].tolist()] for key in ("labels", "angles")
    )
    wanted = {
        part.rpartition(".")[0] + suffix
        for m in settings.joint_map
        for c in m.joints.values()
        for part in c.parts
        for suffix in {"", m.optional_suffix}
    }
    # A shipped map knows points that the file's own list leaves out.
    wanted.update(angles)
    chosen = [i for i, label in enumerate(labels[: file["points"].shape[1]]) if label in wanted]
    if not chosen and file["rotations"].size:
        raise InputError(
            f"{name}: expected angles among its points, found rotations of {len(file['rotations'])} segments "
            f"({', '.join(file['rotations'][:4].tolist())}, ...), as Theia3D writes them: they are not read. "
            "Compute joint angles of them (in Visual3D: Compute Model Based Data) and export them as a C3D file "
            "or as ASCII"
        )
    if not chosen:
        raise InputError(
            f"{name}: expected angles among its points (in POINT:ANGLES or named by a joint map), found "
            f"{', '.join(labels[:8]) or 'no points'}{', ...' * (len(labels) > 8)}: markers alone are not read "
            "(run a model that computes angles, such as Plug-in Gait or OpenSim's inverse kinematics, first)"
        )
    for i in chosen:
        if labels.count(labels[i]) > 1:
            raise InputError(
                f"{name}: point {labels[i]!r}: expected one subject, found {labels.count(labels[i])}"
            )
    points = file["points"]
    first, promised = _frames(content)
    if points.shape[2] < promised:
        raise InputError(
            f"{name}: the header promises {promised} frames, found {points.shape[2]}: "
            "the file is cut off or damaged"
        )
    rate_hz = float(file["rate_hz"].flat[0]) if file["rate_hz"].size else 0.0
    if not rate_hz > 0:
        raise InputError(f"{name}: POINT:RATE: expected a frame rate above 0, found {rate_hz:g}")
    stated = [unit.lower() for unit in file["units"].tolist()]
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


def _frames(content: bytes) -> tuple[int, int]:
    """Number (from 1) of the first frame, and how many frames the header promises; ezc3d does not check it."""
    processor = content[512 * (content[0] - 1) + 3 :][:1]
    order: Literal["big", "little"] = "big" if processor == b"\x56" else "little"  # 86: SGI's
    first, last = (int.from_bytes(content[i : i + 2], order) for i in (6, 8))
    return first, last - first + 1


def _parsed(name: str, content: bytes) -> dict[str, np.ndarray]:
    """points (4, N, T), rate_hz, header_rate_hz, and labels, angles and units as texts."""
    with tempfile.TemporaryDirectory() as folder:
        path, arrays_path = Path(folder) / "a.c3d", Path(folder) / "a.npz"
        path.write_bytes(content)
        try:
            done = subprocess.run(
                [sys.executable, "-c", _SCRIPT, str(path), str(arrays_path)],
                capture_output=True,
                timeout=_SECONDS,
            )
        except subprocess.TimeoutExpired:
            raise InputError(
                f"{name}: expected a C3D file, found one that takes {_SECONDS} s to read"
            ) from None
        if done.returncode or not arrays_path.exists():
            error_lines = done.stderr.decode(errors="replace").strip().splitlines()
            why = error_lines[-1] if error_lines else f"its parser ended with {done.returncode}"
            raise InputError(f"{name}: expected a C3D file, found a damaged one: {why}")
        with np.load(arrays_path, allow_pickle=False) as arrays:
            return dict(arrays)
