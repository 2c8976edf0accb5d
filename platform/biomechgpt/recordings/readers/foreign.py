"""Names a file that no reader reads: what it is, and the next step. Looks at the content first."""

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from biomechgpt.recordings.readers.text import decode, listed

SUFFIXES = (
    ".pkl", ".mvn", ".fbx", ".h5", ".xls", ".cmo", ".cmz", ".qtm", ".tak",
)  # fmt: skip
"""Usual suffixes of recordings that are not read."""
_ANGLES_FIRST = (
    "compute joint angles first (inverse kinematics, for example with OpenSim) and use its .mot file"
)
_MAGIC: tuple[tuple[bytes, str, str], ...] = (
    (b"\x80\x02", "a Python pickle", ""),
    (b"\x80\x03", "a Python pickle", ""),
    (b"\x80\x04", "a Python pickle", ""),
    (b"\x80\x05", "a Python pickle", ""),
    (
        b"\x89HDF\r\n\x1a\n",
        "an HDF5 file",
        "write its joint angles as CSV or Parquet, with a column for each joint",
    ),
    (b"Kaydara FBX", "an FBX animation", _ANGLES_FIRST),
    (b"glTF", "a glTF animation", _ANGLES_FIRST),
    (b"%PDF", "a PDF document", "export the joint angles themselves, as CSV or C3D"),
    (b"\xd0\xcf\x11\xe0", "an old Excel or Word file", "save the table as .xlsx or CSV"),
    (b"SQLite format 3", "an SQLite database", "export the joint angles as CSV"),
    (b"Rar!", "a RAR archive", "unpack it, or pack it as .zip"),
    (b"7z\xbc\xaf", "a 7-Zip archive", "unpack it, or pack it as .zip"),
    (b"\xfd7zXZ", "an xz archive", "unpack it"),
    (b"BZh", "a bzip2 archive", "unpack it"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive", "unpack it"),
    (b"\x89PNG", "a picture", "export the joint angles themselves, as CSV or C3D"),
    (b"\xff\xd8\xff", "a picture", "export the joint angles themselves, as CSV or C3D"),
    (b"\x1aE\xdf\xa3", "a video", "compute joint angles of it with OpenCap or Pose2Sim"),
    (b"RIFF", "a video or a sound", "compute joint angles of it with OpenCap or Pose2Sim"),
)
"""How foreign binary files begin, what they are, and the next step."""
_PICKLE_STEP = (
    "a pickle may run code, so it is never opened: load it where you trust it, and save its arrays. Of WHAM, "
    "4DHumans or other models of SMPL, an .npz with poses, trans and fps is read"
)
_TEXTS: tuple[tuple[str, str, str], ...] = (
    (
        r"(FILE_VERSION\b|NO_OF_FRAMES\b)",
        "rigid bodies or a skeleton of Qualisys (TSV)",
        "export the trajectories of the markers as TSV or C3D, which are read",
    ),
    (
        r"\s*<\?xml[^>]*>\s*<OpenSimDocument|\s*<OpenSimDocument",
        "an OpenSim model or setup",
        "use its motion (.mot)",
    ),
    (
        r"(?i)\s*(<!doctype html|<html)",
        "a web page",
        "download the file itself: a login page often stands in its place",
    ),
    (
        r"version https://git-lfs",
        "a Git LFS pointer in the file's place",
        "run `git lfs pull` to get the file",
    ),
    (r"; FBX", "an FBX animation", _ANGLES_FIRST),
    (
        r"\s*\{[^{}]*\"people\"",
        "keypoints of one video frame (OpenPose JSON)",
        "run Pose2Sim or OpenCap on the videos",
    ),
    (r"\s*<\?xml", "an XML file of another kind", "export joint angles as CSV, C3D or .mot"),
    (
        r"\s*[\[{]",
        "a JSON file of another kind",
        "write its joint angles as CSV, with a column for each joint",
    ),
)
"""How foreign texts begin (from their first character), what they are, and the next step."""


_SUFFIXES: dict[str, tuple[str, str]] = {
    ".b3d": (
        "a subject of AddBiomechanics (.b3d), of another kind than those that are read",
        "write each trial's joint angles as a .mot file with the Python package nimblephysics (SubjectOnDisk), or "
        "download the subject's OpenSim results, whose IK folder has the .mot files",
    ),
    ".mvn": ("a recording of Xsens MVN (.mvn)", "export it with MVN Analyze as .mvnx or .xlsx"),
    ".cmo": ("a workspace of Visual3D", "export its joint angles as ASCII, with the signal TIME"),
    ".cmz": ("a workspace of Visual3D", "export its joint angles as ASCII, with the signal TIME"),
    ".qtm": ("a recording of Qualisys (.qtm)", "export it as C3D, with joint angles"),
    ".mox": ("a recording of MotionMonitor or MoX", "export its joint angles as CSV"),
    ".tak": ("a recording of OptiTrack (.tak)", "export it as C3D or .trc, and " + _ANGLES_FIRST),
    ".pt": ("weights or arrays of PyTorch", _PICKLE_STEP),
    ".pth": ("weights or arrays of PyTorch", _PICKLE_STEP),
}
"""Formats whose content has no mark: the name of the file is the only hint, once no reader knows the content."""


def by_suffix(name: str) -> str | None:
    """'found ..., next step' of a file whose content no one knows, by its name; None for an unknown suffix."""
    what = _SUFFIXES.get(PurePosixPath(name.lower()).suffix)
    return f"by its name {what[0]}: {what[1]}" if what else None


def foreign(content: bytes) -> str | None:
    """'found ..., next step' of a file that no reader reads; None if it is of no known format."""
    if not content:
        return "found an empty file"
    if content.startswith(b"\x93NUMPY"):
        return f"found {_npy(content)}"
    for magic, what, step in _MAGIC:
        if content.startswith(magic):
            return f"found {what}: {step or _PICKLE_STEP}"
    if content[4:8] == b"ftyp":
        return "found a video: compute joint angles of it with OpenCap or Pose2Sim"
    head = decode(content[:65536])
    if head is None:
        return None
    for pattern, what, step in _TEXTS:
        if re.match(pattern, head.text):
            return f"found {what}: {step}"
    return None


def foreign_arrays(names: Iterable[str]) -> str:
    """Names the content of an .npz without joint angles, by its arrays."""
    found = listed(names, 12) or "none"
    return f"expected arrays named q_<joint> or qpos, or poses of SMPL, found {found}"


def _npy(content: bytes) -> str:
    shape = re.search(rb"'shape': \(([\d, ]*)\)", content[:1024])
    sizes = [int(part) for part in shape.group(1).split(b",") if part.strip()] if shape else []
    if sizes[-1:] == [263]:
        return (
            f"features of HumanML3D (a NumPy array of {sizes[0]} frames and 263 features): they hold no joint "
            "angles. Use the motion that they were made of"
        )
    if sizes[-1:] == [3] and len(sizes) > 1:
        return (
            f"positions of {sizes[-2]} points without names (a NumPy array): write a table with three columns for "
            "each, such as left_knee_x, left_knee_y and left_knee_z"
        )
    return (
        f"a NumPy array of shape {tuple(sizes)}, whose columns have no names: write a table with a column for each "
        "joint, or an .npz with arrays q_<joint>"
    )
