"""Inverse kinematics with OpenSim, on a model that is scaled to the person and has the recording's markers.

OpenSim runs in a process of its own: it is large, and it writes a log into the working folder. Knows nothing about
files of recordings.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from xml.etree import ElementTree as Xml

import numpy as np

from biomechgpt.core import storage
from biomechgpt.core.settings import InputError
from biomechgpt.recordings import separate_process
from biomechgpt.recordings.markers.points import Points

logger = logging.getLogger("biomechgpt")
_FEWEST = 6
"""Fewest markers of the model that tell a posture."""
_SHARE = 0.5
"""Smallest share of the model's markers that a recording must have."""
_SECONDS = 900.0
"""Longest time for one recording."""
_SCRIPT = """
import sys
import numpy as np
import opensim

opensim.Logger.setLevelString("Error")
opensim.Logger.removeFileSink()
tool = opensim.InverseKinematicsTool()
model = opensim.Model("model.osim")  # the tool keeps no reference of its own
tool.setModel(model)
tool.setMarkerDataFileName("markers.trc")
tool.setStartTime(0.0)
tool.setEndTime(float(sys.argv[1]))
tool.setResultsDir(".")
tool.set_report_marker_locations(True)
tool.setOutputMotionFileName("angles.mot")
if not tool.run():
    raise SystemExit("OpenSim found no pose")

def arrays(path):
    table = opensim.TimeSeriesTable(path)
    return np.array(table.getIndependentColumn()), list(table.getColumnLabels()), table.getMatrix().to_numpy()

time, columns, values = arrays("angles.mot")
_, places, metres = arrays("_ik_model_marker_locations.sto")
np.savez("arrays.npz", time=time, columns=columns, values=values, places=places, metres=metres)
"""


@dataclass(frozen=True)
class Motion:
    """What OpenSim found.

    time_s: (T,).
    values: {coordinate of the model: (T,)}, rotations in degrees and translations in metres.
    residuals_m: {marker: (T,) its distance from its place on the model}.
    """

    time_s: np.ndarray
    values: Mapping[str, np.ndarray]
    residuals_m: Mapping[str, np.ndarray]


def model_markers(uri: str) -> tuple[bytes, list[str]]:
    """An OpenSim model's content, and the names of its markers.

    Raises InputError if there is no such file, or if it is no OpenSim model.
    """
    try:
        content = storage.read_bytes(uri)
    except OSError as error:
        raise InputError(f"opensim_model: {uri}: expected an OpenSim model, found {error}") from None
    return content, _marker_names(uri, content)


@lru_cache(maxsize=4)  # the same for every recording of a folder
def _marker_names(uri: str, content: bytes) -> list[str]:
    # No model has a document type, and its entities can fill all memory. UTF-16 would hide it from this search.
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content or b"\0" in content:
        raise InputError(f"opensim_model: {uri}: expected an OpenSim model, found XML with a document type")
    try:
        root = Xml.fromstring(content)  # noqa: S314 (entities are refused above)
    except (
        Xml.ParseError,
        LookupError,
        ValueError,
    ) as error:  # the latter two: an encoding that it does not know
        raise InputError(f"opensim_model: {uri}: expected an OpenSim model (.osim), found {error}") from None
    if root.tag != "OpenSimDocument" or root.find("Model") is None:
        raise InputError(f"opensim_model: {uri}: expected an OpenSim model (.osim), found <{root.tag}>")
    return [marker.get("name", "") for marker in root.iter("Marker")]


def matches(names: Iterable[str], markers: list[str]) -> bool:
    """Whether a recording with points of these names has enough of a model's markers."""
    common = set(markers) & set(names)
    return len(common) >= max(_FEWEST, _SHARE * len(markers))


def solve(name: str, points: Points, model: bytes, markers: list[str]) -> Motion:
    """The poses of a model whose markers are nearest to the recorded ones.

    name: the file, in messages. points: in metres, Y-up. model: content of the .osim. markers: its markers.
    Raises InputError if the package is not installed, or if OpenSim fails.
    """
    if find_spec("opensim") is None:
        raise InputError(
            f"{name}: expected the package opensim, which `opensim_model` needs, found none. Install it: "
            "pip install 'biomechgpt[opensim]'"
        )
    wanted = set(markers)
    used = [i for i, marker in enumerate(points.names) if marker in wanted]
    names = [points.names[i] for i in used]
    # From 0 on: OpenSim's files round times to a fixed number of digits.
    time_s = points.time_s - points.time_s[0]
    trc = _trc(time_s, names, points.positions[:, used]).encode()
    try:
        end_s = repr(float(time_s[-1]))
        found = separate_process.run(_SCRIPT, {"model.osim": model, "markers.trc": trc}, [end_s], _SECONDS)
    except separate_process.Failed as failed:
        if failed.seconds is not None:
            raise InputError(f"{name}: OpenSim took longer than {_SECONDS:.0f} s") from None
        logger.debug("%s", "\n".join([*failed.output, *failed.errors]))
        # OpenSim prints its own errors, and raises one that only says that there are some.
        own = [line for line in failed.output if line.startswith("[error]")]
        why = own[-1] if own else str(failed)
        raise InputError(f"{name}: expected markers that the OpenSim model can follow: {why}") from None
    values = dict(zip(found["columns"].tolist(), found["values"].T, strict=True))
    # The recorded frame that is nearest to each time.
    half_s = float(np.median(np.diff(time_s))) / 2
    rows = np.minimum(np.searchsorted(time_s, found["time"] - half_s), len(time_s) - 1)
    return Motion(points.time_s[rows], values, _residuals_m(found, points, names, used, rows))


def _residuals_m(
    found: Mapping[str, np.ndarray], points: Points, names: list[str], used: list[int], rows: np.ndarray
) -> dict[str, np.ndarray]:
    """{marker: (T,)} distances of the recorded markers from the model's; NaN where one was not seen.

    rows: (T,) the recorded frame of each pose.
    """
    columns = {str(label): column for label, column in zip(found["places"], found["metres"].T, strict=True)}
    result = {}
    for marker, i in zip(names, used, strict=True):
        if f"{marker}_tx" in columns:
            model = np.stack([columns[f"{marker}_t{axis}"] for axis in "xyz"], axis=1)
            result[marker] = np.linalg.norm(points.positions[rows, i] - model, axis=1)
    return result


def _trc(time_s: np.ndarray, names: list[str], positions: np.ndarray) -> str:
    """A marker file in metres: positions (T, M, 3), empty cells where a marker was not seen."""
    rate = 1 / float(np.median(np.diff(time_s)))
    head = f"{rate:.9g}\t{rate:.9g}\t{len(time_s)}\t{len(names)}\tm\t{rate:.9g}\t1\t{len(time_s)}"
    lines = [
        "PathFileType\t4\t(X/Y/Z)\tmarkers.trc",
        "DataRate\tCameraRate\tNumFrames\tNumMarkers\tUnits\tOrigDataRate\tOrigDataStartFrame\tOrigNumFrames",
        head,
        "Frame#\tTime\t" + "\t\t\t".join(names) + "\t\t",
        "\t\t" + "\t".join(f"{axis}{k + 1}" for k in range(len(names)) for axis in "XYZ"),
        "",
    ]
    for k, (t, row) in enumerate(zip(time_s, positions.reshape(len(time_s), -1), strict=True), 1):
        cells = ("" if np.isnan(value) else f"{value:.6f}" for value in row)
        lines.append(f"{k}\t{t:.9f}\t" + "\t".join(cells))
    return "\n".join(lines) + "\n"
