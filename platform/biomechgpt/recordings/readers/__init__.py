"""Readers of recordings. A new file format is one module with SUFFIXES, `matches` and `read`, in READERS.

opensim      .mot and .sto
mujoco       .npz with q_ arrays or qpos
c3d          angles among the points of a C3D file
b3d          subjects of AddBiomechanics
nexus        what Vicon Nexus exports as CSV
xsens        .mvnx
visual3d     what Visual3D exports as ASCII
matlab       .mat
spreadsheet  .xlsx
table        CSV and Parquet
joint_map    a lab's own column names, from a YAML file
recording    the result of every reader: angles in the skeleton's order and signs
archive      files in .gz and .zip
foreign      names a file that no reader reads
"""

from pathlib import PurePosixPath
from typing import Protocol

from biomechgpt.core import storage
from biomechgpt.core.settings import InputError
from biomechgpt.recordings.readers import (
    archive,
    b3d,
    c3d,
    matlab,
    mujoco,
    nexus,
    opensim,
    spreadsheet,
    table,
    visual3d,
    xsens,
)
from biomechgpt.recordings.readers.foreign import SUFFIXES as FOREIGN
from biomechgpt.recordings.readers.foreign import by_suffix, foreign
from biomechgpt.recordings.readers.joint_map import JointMap
from biomechgpt.recordings.readers.recording import ReaderSettings, Recording

__all__ = [
    "LIKELY",
    "READERS",
    "SUFFIXES",
    "JointMap",
    "ReaderSettings",
    "Recording",
    "parse",
    "parse_each",
    "read",
    "read_each",
    "recognizes",
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


READERS: tuple[Reader, ...] = (opensim, mujoco, c3d, b3d, xsens, matlab, spreadsheet, nexus, visual3d, table)
"""The first reader that matches reads the file. `table` stands last, since many formats look like a table."""

_MAY_HOLD_ANYTHING: tuple[Reader, ...] = (matlab, spreadsheet, table)

SUFFIXES: tuple[str, ...] = (*(suffix for reader in READERS for suffix in reader.SUFFIXES), ".zip", ".gz")
"""Usual suffixes of all formats, for file pickers and messages. Files are recognized by their content."""

LIKELY: tuple[str, ...] = (*SUFFIXES, *FOREIGN)
"""Suffixes of files in a folder that a person takes for recordings: each is read, or named for what it is."""

HEAD_BYTES = 65536
"""Enough of a file's beginning to recognize its format."""


def recognizes(head: bytes) -> bool:
    """Whether a file that begins with these (HEAD_BYTES) bytes is surely a recording.

    A table may hold anything: it is a recording only where annotations say so.
    """
    if archive.is_gzip(head):
        head = archive.gzip_head(head, HEAD_BYTES)
    return any(reader.matches(head) for reader in READERS if reader not in _MAY_HOLD_ANYTHING)


def read(uri: str, settings: ReaderSettings, name: str | None = None) -> Recording:
    """The recording at a path or URI, read by the first reader that matches its content.

    name: what messages call the file (default: its URI). Raises InputError.
    """
    name = name or uri
    try:
        return parse(name, storage.read_bytes(uri), settings)
    except FileNotFoundError:
        raise InputError(f"{name}: no such recording") from None


def read_each(
    uri: str, settings: ReaderSettings, name: str | None = None
) -> dict[str, Recording | InputError]:
    """{name: recording, or why it cannot be read} of the file or archive at a path or URI.

    name: what messages call the file (default: its URI). Raises InputError if there is no such file.
    """
    name = name or uri
    try:
        return parse_each(name, storage.read_bytes(uri), settings)
    except FileNotFoundError:
        raise InputError(f"{name}: no such recording") from None


def parse(name: str, content: bytes, settings: ReaderSettings) -> Recording:
    """The one recording in a file's content, or in an archive that holds one.

    Raises InputError, which calls the file `name`.
    """
    name, content = _unpacked(name, content)
    if archive.is_zip(content):
        found = _members(name, content)
        if len(found) != 1:
            raise InputError(
                f"{name}: expected one recording, found {len(found)} in this archive "
                f"({', '.join(list(found)[:8])}{', ...' * (len(found) > 8)}): unpack it, or use "
                "biomechgpt.read_all "
                "or `biomechgpt answer`, which read each of them"
            )
        ((name, content),) = found.items()
    for reader in READERS:
        if reader is table and (what := foreign(content)):
            raise InputError(f"{name}: expected a recording ({', '.join(SUFFIXES)}), {what}")
        if reader.matches(content):
            return reader.read(name, content, settings)
    raise InputError(
        f"{name}: expected a recording ({', '.join(SUFFIXES)}), "
        + (by_suffix(name) or "found content of no known format")
    )


def parse_each(name: str, content: bytes, settings: ReaderSettings) -> dict[str, Recording | InputError]:
    """{name: recording, or why it cannot be read} of each recording in a file or an archive.

    A recording in an archive is called by the archive and its trial, such as `session.zip/walk`.
    """
    try:
        name, content = _unpacked(name, content)
        files = _members(name, content) if archive.is_zip(content) else {name: content}
    except InputError as error:
        return {name: error}
    result: dict[str, Recording | InputError] = {}
    for each, inside in files.items():
        try:
            several = next((reader for reader in (mujoco, b3d) if reader.matches(inside)), None)
            result |= (
                several.read_each(each, inside, settings)
                if several
                else {each: parse(each, inside, settings)}
            )
        except InputError as error:
            result[each] = error
    return result


def _unpacked(name: str, content: bytes) -> tuple[str, bytes]:
    """A file's name and content, out of its .gz if it is in one."""
    if not archive.is_gzip(content):
        return name, content
    inner = name[:-3] if name.lower().endswith(".gz") else name
    return inner, archive.gunzip(name, content)


def _members(name: str, content: bytes) -> dict[str, bytes]:
    """{archive/trial: content} of the recordings in a .zip; trials with the same name keep their folders.

    Raises InputError if there is none, naming what is there.
    """
    recordings: list[tuple[str, bytes]] = []
    others: list[str] = []
    for path, packed in archive.members(name, content):
        inner, unpacked = _unpacked(path, packed)
        if recognizes(unpacked[:HEAD_BYTES]) and not _is_by_product(inner):
            recordings.append((inner, unpacked))
        else:
            others.append(path)
    if not recordings:
        listed = ", ".join(others[:8]) or "no files"
        raise InputError(
            f"{name}: expected recordings in this archive ({', '.join(SUFFIXES)}), found {listed}"
            + (
                ": an OpenCap session has them in OpenSimData/Kinematics"
                if any("MarkerData" in path for path in others)
                else ""
            )
        )
    trials = [PurePosixPath(path).stem for path, _ in recordings]
    return {
        f"{name}/{trial if trials.count(trial) == 1 else path}": unpacked
        for trial, (path, unpacked) in zip(trials, recordings, strict=True)
    }


def _is_by_product(path: str) -> bool:
    """Files of an OpenCap session that look like a motion and are none: forces and muscles of its simulations."""
    folders = {part.lower() for part in PurePosixPath(path).parts[:-1]}
    return bool(folders & {"dynamics", "forcedata", "emgdata"})
