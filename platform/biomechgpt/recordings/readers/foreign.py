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
_ANGLES_THEMSELVES = "export the joint angles themselves, as CSV or C3D"
_FROM_VIDEO = "compute joint angles of it with OpenCap or Pose2Sim"
_AS_CSV = "export the joint angles as CSV, with a column of time and one for each joint"
_UNPACK = "unpack it, or pack its files as .zip, which is read"
_SAME_TRIAL = "use the recording of joint angles of the same trial"
_MARKERS_OR_ANGLES = "use the markers or joint angles of the same trial (.trc, C3D or .mot)"
_TRAJECTORIES = "export the trajectories of the markers as TSV or C3D, which are read"
_PICKLE_STEP = (
    "a pickle may run code, so it is never opened: load it where you trust it, and save its arrays. Of WHAM, "
    "4DHumans or other models of SMPL, an .npz with poses, trans and fps is read"
)
_MAGIC: tuple[tuple[bytes, str, str], ...] = (
    *((bytes([0x80, protocol]), "a Python pickle", _PICKLE_STEP) for protocol in (2, 3, 4, 5)),
    (
        b"\x89HDF\r\n\x1a\n",
        "an HDF5 file",
        "write its joint angles as CSV or Parquet, with a column for each joint",
    ),
    (b"CDF\x01", "a NetCDF file", _AS_CSV),
    (b"CDF\x02", "a NetCDF file", _AS_CSV),
    (b"ARROW1", "an Arrow or Feather file", "write the table as Parquet or CSV"),
    (b"RDX", "data of R", "write the table in R with write.csv"),
    (b"X\n\x00\x00\x00", "data of R", "write the table in R with write.csv"),
    (b"$FL2", "a table of SPSS", _AS_CSV),
    (b"<stata_dta>", "a table of Stata", _AS_CSV),
    (b"Kaydara FBX", "an FBX animation", _ANGLES_FIRST),
    (b"glTF", "a glTF animation", _ANGLES_FIRST),
    (b"PXR-USDC", "a USD animation", _ANGLES_FIRST),
    (b"BLENDER", "a project of Blender", "export its armature as BVH, which is read"),
    (b"\xffBIOSEMI", "signals of EMG or EEG (BDF)", _SAME_TRIAL),
    (b"%PDF", "a PDF document", _ANGLES_THEMSELVES),
    (b"{\\rtf", "a document (RTF)", _ANGLES_THEMSELVES),
    (b"\xd0\xcf\x11\xe0", "an old Excel or Word file", "save the table as .xlsx or CSV"),
    (b"SQLite format 3", "an SQLite database", "export the joint angles as CSV"),
    (b"Rar!", "a RAR archive", _UNPACK),
    (b"7z\xbc\xaf", "a 7-Zip archive", _UNPACK),
    (b"\xfd7zXZ", "an xz archive", _UNPACK),
    (b"BZh", "a bzip2 archive", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive", _UNPACK),
    (b"\x89PNG", "a picture", _ANGLES_THEMSELVES),
    (b"\xff\xd8\xff", "a picture", _ANGLES_THEMSELVES),
    (b"GIF8", "a picture", _ANGLES_THEMSELVES),
    (b"II*\x00", "a picture", _ANGLES_THEMSELVES),
    (b"MM\x00*", "a picture", _ANGLES_THEMSELVES),
    (b"\x1aE\xdf\xa3", "a video", _FROM_VIDEO),
    (b"\x00\x00\x01\xba", "a video", _FROM_VIDEO),
    (b"\x00\x00\x01\xb3", "a video", _FROM_VIDEO),
    (b"ID3", "a sound", _SAME_TRIAL),
    (b"fLaC", "a sound", _SAME_TRIAL),
    (b"OggS", "a sound or a video", _FROM_VIDEO),
    (b"ply\n", "the mesh of a body", _ANGLES_FIRST),
    (b"solid ", "the mesh of a body", _ANGLES_FIRST),
    (b"\x00\x05\x16\x07", "a hidden file of macOS", "use the file of the same name without ._ before it"),
    (b"bplist00", "the placeholder of a file that macOS keeps elsewhere", "download the file itself"),
    (b"L\x00\x00\x00\x01\x14\x02\x00", "a shortcut of Windows", "use the file that it points to"),
    (b"MZ", "a program", "use the recording that it writes"),
    (b"\x7fELF", "a program", "use the recording that it writes"),
)
"""How foreign binary files begin, what they are, and the next step."""
_TEXTS: tuple[tuple[str, str, str], ...] = (
    (
        r"(FILE_VERSION\b|NO_OF_FRAMES\b)(?=[\s\S]*^(SEGMENT_NAMES|NO_OF_SEGMENTS|SKELETON)\b)",
        "a skeleton of Qualisys (TSV)",
        _TRAJECTORIES,
    ),
    (
        r"(FILE_VERSION\b|NO_OF_FRAMES\b)(?=[\s\S]*^(BODY_NAMES|NO_OF_BODIES)\b)",
        "rigid bodies of Qualisys (TSV, 6DOF)",
        _TRAJECTORIES,
    ),
    (
        r"(FILE_VERSION\b|NO_OF_FRAMES\b|TIME_STAMP\b)",
        "forces or signals of Qualisys (TSV)",
        _TRAJECTORIES,
    ),
    (
        r"File_Type:\s*Analog",
        "signals of force plates or EMG (.anc)",
        _MARKERS_OR_ANGLES,
    ),
    (
        r"\[Force Data\]",
        "forces of Motion Analysis (.forces)",
        _MARKERS_OR_ANGLES,
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
        r"(# AST/ASF|#!OML:ASF|:version\s)",
        "a motion of Acclaim (ASF and AMC)",
        "convert both files to BVH, which is read (Blender does)",
    ),
    (r"#[^\n]*\n(?:#[^\n]*\n)*(?:o [^\n]*\n)?v [-\d]|v [-\d]", "the mesh of a body", _ANGLES_FIRST),
    (
        r"\s*\{[^{}]*\"people\"",
        "keypoints of one video frame (OpenPose JSON)",
        "run Pose2Sim or OpenCap on the videos",
    ),
    (
        r"\s*[\[{][\s\S]{0,4000}\"(keypoints|pose_keypoints_2d|landmarks)\"",
        "keypoints of a video (JSON)",
        "run Pose2Sim or OpenCap on the videos: keypoints in three dimensions are read as .trc or CSV",
    ),
    (
        r"\s*\{[\s\S]{0,4000}\"massKg\"",
        "a person's data of AddBiomechanics (_subject.json)",
        "use the recordings beside it (.mot or .b3d)",
    ),
    (r"\s*\{[\s\S]{0,4000}\"resourceType\"", "a resource of FHIR", "send it to the server's /fhir address"),
    (r"\s*\{\s*\"cells\"", "a Jupyter notebook", _AS_CSV),
    (r"\s*<\?xml", "an XML file of another kind", "export joint angles as CSV, C3D or .mot"),
    (
        r"\s*[\[{]\s*([\[{\"\]}]|-?\d|true|false|null)",
        "a JSON file of another kind",
        "write its joint angles as CSV, with a column for each joint",
    ),
)
"""How foreign texts begin (from their first character), what they are, and the next step."""
_NO_TABLES: tuple[tuple[str, str, str], ...] = (
    (r"\s*\[[A-Za-z][\w ]*\]\s*$", "a file of settings", "use the recordings beside it"),
    (
        r"[^\n]*\bpath\b[^\n]*\bparticipant\b|[^\n]*\bparticipant\b[^\n]*\bpath\b",
        "a table of annotations",
        "give the folder that it lies in",
    ),
    (r"file,participant,[^\n]*\btask,status\b", "a table of answers of this program", "give the recordings"),
    (r"(\w[\w ]*:[^\n]*\n){3}", "a text of notes or settings", "use the recordings beside it"),
    (
        r"(%|#!|import |from \w|function )[^\n]*\n[\s\S]*(\bimport\b|\bfunction\b|\bdef\b|=)",
        "a program's text",
        "use the recording that it reads or writes",
    ),
)
"""The same of texts that no reader knows: such lines may also stand above a table."""


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
    if not content.strip():
        return "found an empty file"
    if not content.strip(b"\0"):
        return "found nothing but zeros: copying or downloading it has failed, so get it again"
    if content.startswith(b"\x93NUMPY"):
        return f"found {_npy(content)}"
    head = decode(content[:65536])
    for magic, what, step in _MAGIC:
        # A text may begin with the letters of a short mark.
        if content.startswith(magic) and (len(magic) > 4 or head is None or not magic.isalnum()):
            return f"found {what}: {step}"
    if found := _by_place(content, is_text=head is not None):
        return f"found {found}"
    if head is None:
        return None
    for pattern, what, step in _TEXTS:
        if re.match(pattern, head.text, re.MULTILINE):
            return f"found {what}: {step}"
    return None


def unknown(content: bytes) -> str:
    """'found ...' of a file that no reader and no mark knows: what its text looks like, or how that begins."""
    head = decode(content[:65536])
    if head is None:
        return "found binary data of no known format"
    for pattern, what, step in _NO_TABLES:
        if re.match(pattern, head.text, re.MULTILINE):
            return f"found {what}: {step}"
    line = next((line.strip() for line in head.text.splitlines() if line.strip()), "")
    return f"found text of no known format, which begins {line[:60]!r}"


def foreign_archive(names: Iterable[str]) -> str | None:
    """'a ..., next step' of an office document that is a .zip, by its files; None for other archives."""
    for name in names:
        for beginning, what in _OFFICE.items():
            if name.startswith(beginning):
                return f"{what}: save the table of joint angles as .xlsx or CSV"
    return None


_OFFICE = {
    "word/": "a Word document",
    "ppt/": "a presentation",
    "mimetype": "a document of LibreOffice",
    "Index/": "a document of Numbers or Pages",
}
"""{how the path of a file in a document begins: what the document is}."""


def _by_place(content: bytes, is_text: bool) -> str | None:
    """What a file is that has its mark elsewhere than at its beginning, and the next step."""
    if re.match(rb"0       [\s\S]{160}\d\d\.\d\d\.\d\d", content):
        return f"signals of EMG or EEG (EDF): {_SAME_TRIAL}"
    if is_text:
        return None
    picture, video = f"a picture: {_ANGLES_THEMSELVES}", f"a video: {_FROM_VIDEO}"
    if content[:2] == b"BM":
        return picture
    if content[4:8] == b"ftyp":
        return picture if content[8:12] in (b"heic", b"heix", b"mif1", b"avif") else video
    if content[4:8] in (b"moov", b"mdat", b"wide", b"skip") or content[:1] == content[188:189] == b"G":
        return video
    if content[:4] == b"RIFF":
        sound = f"a sound: {_SAME_TRIAL}"
        return {b"WEBP": picture, b"WAVE": sound}.get(content[8:12], video)
    if content[257:262] == b"ustar":
        return f"a tar archive: {_UNPACK}"
    if content[128:132] == b"DICM":
        return f"a medical image (DICOM): {_ANGLES_THEMSELVES}"
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
