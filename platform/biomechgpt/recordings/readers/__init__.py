"""Readers of recordings. A new file format is one module with SUFFIXES, `matches` and `read`, in READERS.

opensim      .mot and .sto
mujoco       .npz with q_ arrays or qpos
c3d          angles or markers among the points of a C3D file, or rotations (theia)
b3d          subjects of AddBiomechanics
nexus        what Vicon Nexus exports as CSV
xsens        .mvnx
visual3d     what Visual3D exports as ASCII
matlab       .mat
spreadsheet  .xlsx
table        CSV and Parquet
smpl, bvh    rotations of joints
trc          positions of markers or keypoints, by inverse kinematics
qualisys     the same in .tsv
motive       the same in the CSV of OptiTrack Motive
keypoints    the same in CSV and .npy
joint_map    a lab's own column names, from a YAML file
column_names what the names of columns tell
cells        numbers in the cells of a text
recording    the result of every reader: angles in the skeleton's order and signs
archive      files in .gz and .zip
by_products  files beside a recording that are none of their own
foreign      names a file that no reader reads
"""

from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Protocol

from biomechgpt.core import storage
from biomechgpt.core.settings import InputError
from biomechgpt.recordings.readers import (
    archive,
    b3d,
    bvh,
    c3d,
    keypoints,
    matlab,
    motive,
    mujoco,
    nexus,
    opensim,
    qualisys,
    smpl,
    spreadsheet,
    table,
    trc,
    visual3d,
    xsens,
)
from biomechgpt.recordings.readers.by_products import is_other_quantity, without_markers_of_trials
from biomechgpt.recordings.readers.foreign import SUFFIXES as FOREIGN
from biomechgpt.recordings.readers.foreign import by_suffix, foreign, foreign_archive, unknown
from biomechgpt.recordings.readers.joint_map import JointMap
from biomechgpt.recordings.readers.recording import ReaderSettings, Recording
from biomechgpt.recordings.readers.text import listed

__all__ = [
    "LIKELY",
    "MAYBE",
    "READERS",
    "SUFFIXES",
    "JointMap",
    "ReaderSettings",
    "Recording",
    "is_likely",
    "parse",
    "parse_each",
    "read",
    "read_each",
    "recognizes",
    "without_markers_of_trials",
]


class Reader(Protocol):
    """Interface of a reader module.

    SUFFIXES: usual suffixes of files of the format.
    matches: whether content, or its first HEAD_BYTES bytes, is of the format.
    read: the recording in a file's content. Raises InputError that calls the file by the name given.
    """

    @property
    def SUFFIXES(self) -> tuple[str, ...]: ...

    def matches(self, content: bytes, /) -> bool: ...

    def read(self, name: str, content: bytes, settings: ReaderSettings, /) -> Recording: ...


class ReaderOfSeveral(Reader, Protocol):
    """Interface of a reader of files that may hold several recordings.

    read_each: {name of the file and the trial: recording, or why it cannot be read}.
    """

    def read_each(
        self, name: str, content: bytes, settings: ReaderSettings, /
    ) -> dict[str, Recording | InputError]: ...


READERS: tuple[Reader, ...] = (
    opensim, trc, qualisys, motive, bvh, smpl, mujoco, c3d, b3d, xsens, matlab, spreadsheet, nexus, visual3d,
    keypoints, table,
)  # fmt: skip
"""The first reader that matches reads the file. `table` stands last, since many formats look like a table."""

_OF_SEVERAL: tuple[ReaderOfSeveral, ...] = (mujoco, b3d)
_MAY_HOLD_ANYTHING: tuple[Reader, ...] = (matlab, spreadsheet, table)

SUFFIXES: tuple[str, ...] = (
    *dict.fromkeys(suffix for reader in READERS for suffix in reader.SUFFIXES), ".zip", ".gz",
)  # fmt: skip
"""Usual suffixes of all formats, for file pickers and messages. Files are recognized by their content."""

LIKELY: tuple[str, ...] = (*SUFFIXES, *FOREIGN)
"""Suffixes of files in a folder that a person takes for recordings: each is read, or named for what it is."""

TEXTS: tuple[str, ...] = (".txt", ".dat", ".asc", ".tab")
"""Suffixes of any text, which may be a table of joint angles."""

MAYBE: tuple[str, ...] = (
    *(suffix for reader in _MAY_HOLD_ANYTHING for suffix in reader.SUFFIXES), *TEXTS,
)  # fmt: skip
"""Suffixes of files that only the whole content tells from another table."""

HEAD_BYTES = 65536
"""Enough of a file's beginning to recognize its format."""


def recognizes(head: bytes) -> bool:
    """Whether a file that begins with these (HEAD_BYTES) bytes is surely a recording.

    A table may hold anything: it is a recording only where annotations say so.
    """
    if archive.is_gzip(head):
        head = archive.gzip_head(head, HEAD_BYTES)
    return any(reader.matches(head) for reader in READERS if reader not in _MAY_HOLD_ANYTHING)


def is_likely(name: str, head: Callable[[], bytes]) -> bool:
    """Whether a person takes a file for a recording: by its suffix, else by its first (HEAD_BYTES) bytes.

    Files that a system hides, such as those that macOS leaves beside each file, are none.
    """
    path = PurePosixPath(name)
    if any(part.startswith(".") or part == "__MACOSX" for part in path.parts):
        return False
    if name.lower().endswith(LIKELY):
        return True
    try:
        first = head()
    except OSError:  # one of another kind that cannot be opened is missed by nobody
        return False
    return recognizes(first) or (name.lower().endswith(TEXTS) and table.matches(first))


def read(uri: str, settings: ReaderSettings, name: str | None = None) -> Recording:
    """The recording at a path or URI, read by the first reader that matches its content.

    name: what messages call the file (default: its URI). Raises InputError.
    """
    name = name or uri
    return parse(name, _content(uri, name), settings)


def read_each(
    uri: str, settings: ReaderSettings, name: str | None = None
) -> dict[str, Recording | InputError]:
    """{name: recording, or why it cannot be read} of the file or archive at a path or URI.

    name: what messages call the file (default: its URI). Raises InputError if there is no such file.
    """
    name = name or uri
    return parse_each(name, _content(uri, name), settings)


def _content(uri: str, name: str) -> bytes:
    """A file's bytes. Raises InputError for one that is absent, is a folder, or that this user may not read."""
    try:
        return storage.read_bytes(uri)
    except FileNotFoundError:
        raise InputError(f"{name}: no such recording") from None
    except OSError as error:
        raise InputError(
            f"{name}: expected a file that can be read, found: {error.strerror or error}"
        ) from None


def parse(name: str, content: bytes, settings: ReaderSettings) -> Recording:
    """The one recording in a file's content, or in an archive that holds one.

    Raises InputError, which calls the file `name`.
    """
    name, content = _unpacked(name, content, archive.MAX_BYTES)
    if archive.is_zip(content):
        found = _members(name, content, settings)
        if len(found) != 1:
            raise InputError(
                f"{name}: expected one recording, found {len(found)} in this archive "
                f"({listed(found, 8)}): unpack it, or use "
                "biomechgpt.read_all or `biomechgpt answer`, which read each of them"
            )
        ((name, content),) = found.items()
    return _reader_of(name, content).read(name, content, settings)


def _reader_of(name: str, content: bytes) -> Reader:
    """The first reader that matches. Raises InputError that names what no reader reads."""
    for reader in READERS:
        if reader is table and (what := foreign(content)):
            raise InputError(f"{name}: expected a recording, {what}")
        if reader.matches(content):
            return reader
    if what := by_suffix(name):
        raise InputError(f"{name}: expected a recording, {what}")
    what = unknown(content)
    suffixes = f" ({', '.join(SUFFIXES)})" if "known format" in what else ""
    raise InputError(f"{name}: expected a recording{suffixes}, {what}")


def parse_each(name: str, content: bytes, settings: ReaderSettings) -> dict[str, Recording | InputError]:
    """{name: recording, or why it cannot be read} of each recording in a file or an archive.

    A recording in an archive is called by the archive and its trial, such as `session.zip/walk`.
    """
    try:
        name, content = _unpacked(name, content, archive.MAX_BYTES)
        files = _members(name, content, settings) if archive.is_zip(content) else {name: content}
    except InputError as error:
        return {name: error}
    result: dict[str, Recording | InputError] = {}
    for each, inside in files.items():
        try:
            reader = _reader_of(each, inside)
            several = next((one for one in _OF_SEVERAL if one is reader), None)
            if several:
                result |= several.read_each(each, inside, settings)
            else:
                result[each] = reader.read(each, inside, settings)
        except InputError as error:
            result[each] = error
    return result


def _unpacked(name: str, content: bytes, most: int) -> tuple[str, bytes]:
    """A file's name and content, out of its .gz if it is in one; most: bytes that it may unpack to."""
    for _ in range(2):  # some files were packed twice
        if archive.is_gzip(content):
            content = archive.gunzip(name, content, most)
            name = name[:-3] if name.lower().endswith(".gz") else name
    return name, content


def _members(name: str, content: bytes, settings: ReaderSettings) -> dict[str, bytes]:
    """{archive/trial: content} of the recordings in a .zip; trials with the same name keep their folders.

    Raises InputError if there is none, naming what is there.
    """
    recordings: dict[str, bytes] = {}
    others: list[str] = []
    reasons: list[InputError] = []
    for path, unpacked in _unpacked_members(name, content):
        if is_other_quantity(path):
            others.append(path)
        elif recognizes(unpacked[:HEAD_BYTES]):
            recordings[path] = unpacked
        elif path.lower().endswith(MAYBE):
            try:
                _reader_of(f"{name}/{path}", unpacked).read(f"{name}/{path}", unpacked, settings)
                recordings[path] = unpacked
            except InputError as error:
                reasons.append(error)
                others.append(path)
        else:
            others.append(path)
    if not recordings:
        if what := foreign_archive(others):
            raise InputError(f"{name}: expected a recording, found {what}")
        raise InputError(
            f"{name}: expected recordings in this archive ({', '.join(SUFFIXES)}), "
            f"found {listed(others, 8) or 'no files'}" + (f"; {reasons[0]}" if reasons else "")
        )
    paths = without_markers_of_trials(recordings)
    trials = [PurePosixPath(path).stem for path in paths]
    return {
        f"{name}/{trial if trials.count(trial) == 1 else path}": recordings[path]
        for trial, path in zip(trials, paths, strict=True)
    }


def _unpacked_members(name: str, content: bytes) -> Iterator[tuple[str, bytes]]:
    """(path, content) of each file in a .zip, out of its own .gz, and of the files in each .zip within it."""
    left = archive.MAX_BYTES
    for path, packed in archive.members(name, content):
        inner, unpacked = _unpacked(f"{name}/{path}", packed, left)
        inner = inner.removeprefix(f"{name}/")
        if not archive.is_zip(unpacked):
            left -= len(unpacked)
            yield inner, unpacked
            continue
        for deeper, packed_deeper in archive.members(f"{name}/{inner}", unpacked, left):
            left -= len(packed_deeper)
            yield f"{PurePosixPath(inner).with_suffix('')}/{deeper}", packed_deeper
