"""Readers of recordings. A new file format is one module with SUFFIXES, `matches` and `read`, in READERS.

opensim      .mot and .sto
mujoco       .npz with q_ arrays or qpos
c3d          angles or markers among the points of a C3D file
table        CSV and Parquet
smpl, bvh    rotations of joints
trc          positions of markers or keypoints, by inverse kinematics
keypoints    the same in CSV and .npy
joint_map    a lab's own column names, from a YAML file
recording    the result of every reader: angles in the skeleton's order and signs
"""

from typing import Protocol

from biomechgpt.core import storage
from biomechgpt.core.settings import InputError
from biomechgpt.recordings.readers import bvh, c3d, keypoints, mujoco, opensim, smpl, table, trc
from biomechgpt.recordings.readers.joint_map import JointMap
from biomechgpt.recordings.readers.recording import ReaderSettings, Recording

__all__ = [
    "READERS",
    "SUFFIXES",
    "JointMap",
    "ReaderSettings",
    "Recording",
    "parse",
    "read",
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


READERS: tuple[Reader, ...] = (trc, bvh, smpl, keypoints, opensim, mujoco, c3d, table)
"""The first reader that matches reads the file. `table` stands last, since many formats look like a table."""

SUFFIXES: tuple[str, ...] = tuple(dict.fromkeys(suffix for reader in READERS for suffix in reader.SUFFIXES))
"""Usual suffixes of all formats, for file pickers and messages. Files are recognized by their content."""

HEAD_BYTES = 65536
"""Enough of a file's beginning to recognize its format."""


def recognizes(head: bytes) -> bool:
    """Whether a file that begins with these (HEAD_BYTES) bytes is surely a recording.

    A table may hold anything: it is a recording only where annotations say so.
    """
    return any(reader.matches(head) for reader in READERS if reader is not table)


def read(uri: str, settings: ReaderSettings, name: str | None = None) -> Recording:
    """The recording at a path or URI, read by the first reader that matches its content.

    name: what messages call the file (default: its URI). Raises InputError.
    """
    name = name or uri
    try:
        return parse(name, storage.read_bytes(uri), settings)
    except FileNotFoundError:
        raise InputError(f"{name}: no such recording") from None


def parse(name: str, content: bytes, settings: ReaderSettings) -> Recording:
    """The recording in a file's content. Raises InputError, which calls the file `name`."""
    for reader in READERS:
        if reader.matches(content):
            return reader.read(name, content, settings)
    raise InputError(
        f"{name}: expected a recording ({', '.join(SUFFIXES)}), found content of no known format"
    )
