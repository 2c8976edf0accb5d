"""Reads angle logs: a line `#angles rate=100`, a line of joint names, then a row of degrees per frame."""

import numpy as np

from biomechgpt.core.settings import InputError
from biomechgpt.recordings.readers.recording import Columns, ReaderSettings, Recording, assemble

SUFFIXES = (".ang",)
_BEGINNING = "#angles rate="


def matches(content: bytes) -> bool:
    """Whether this is an angle log."""
    return content.startswith(_BEGINNING.encode())


def read(name: str, content: bytes, settings: ReaderSettings) -> Recording:
    """The recording in `content`. Raises InputError naming the file."""
    try:
        header, names, *rows = content.decode().splitlines()
        rate_hz = float(header.removeprefix(_BEGINNING))
        values = np.array([row.split() for row in rows], dtype=float)
        columns = dict(zip(names.split(), values.T, strict=True))
    except ValueError as error:
        raise InputError(f"{name}: expected an angle log, found a damaged file: {error}") from None
    file = Columns(
        format="angle log",
        values=columns,
        units="degrees",
        place=lambda i: f"line {i + 3}",
        time_s=np.arange(len(rows)) / rate_hz,
        declared_rate_hz=rate_hz,
    )
    return assemble(name, file, settings)
