"""Readers of recordings. A new file format is one module with SUFFIXES, `matches` and `read`, in READERS."""

from typing import Protocol

from biomechgpt import storage
from biomechgpt.cohort.readers import mujoco, opensim
from biomechgpt.cohort.readers.recording import ReaderSettings, Recording
from biomechgpt.settings import InputError

__all__ = ["READERS", "SUFFIXES", "ReaderSettings", "Recording", "parse", "read"]


class Reader(Protocol):
    """What a reader module has."""

    @property
    def SUFFIXES(self) -> tuple[str, ...]: ...

    def matches(self, content: bytes, /) -> bool: ...

    def read(self, name: str, content: bytes, settings: ReaderSettings, /) -> Recording: ...


READERS: tuple[Reader, ...] = (opensim, mujoco)
SUFFIXES: tuple[str, ...] = tuple(suffix for reader in READERS for suffix in reader.SUFFIXES)


def read(uri: str, settings: ReaderSettings, name: str | None = None) -> Recording:
    """The recording at a path or URI; which reader, its content decides.

    Raises InputError, which calls the file `name` (default: its URI).
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
