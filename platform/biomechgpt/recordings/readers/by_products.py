"""Files of OpenCap and Pose2Sim beside a recording: the same trial, or another quantity of it."""

from collections.abc import Iterable
from pathlib import PurePosixPath

_MARKER_FOLDERS = ("markerdata", "pose-3d")
_OTHER_QUANTITIES = frozenset({"dynamics", "forcedata", "emgdata"})


def is_other_quantity(path: str) -> bool:
    """Whether a file of an OpenCap session only looks like a motion: forces and muscles of its simulations."""
    return not _OTHER_QUANTITIES.isdisjoint(part.lower() for part in PurePosixPath(path).parts[:-1])


def without_markers_of_trials(paths: Iterable[str]) -> list[str]:
    """The paths but for marker files (.trc) of trials whose joint angles another file of the session has.

    Joint angles lie in the same folder or elsewhere in the session, under the markers' name, perhaps with something
    added: MarkerData/walk.trc and OpenSimData/Kinematics/walk.mot.
    """
    paths = list(paths)
    angles = [PurePosixPath(path) for path in paths if not path.lower().endswith(".trc")]

    def has_angles(path: str) -> bool:
        markers = PurePosixPath(path)
        root = _session(markers)
        return any(
            other.stem.startswith(markers.stem) and other.is_relative_to(root)
            for other in angles
            if other.suffix.lower() in (".mot", ".sto")
        )

    return [path for path in paths if not path.lower().endswith(".trc") or not has_angles(path)]


def _session(markers: PurePosixPath) -> PurePosixPath:
    """The folder that holds the folder of markers; else the markers' own."""
    for parent in markers.parents:
        if parent.name.lower() in _MARKER_FOLDERS:
            return parent.parent
    return markers.parent
