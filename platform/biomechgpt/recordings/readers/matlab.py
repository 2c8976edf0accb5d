"""Reads MATLAB files (.mat up to version 7): arrays with a joint's name, by our names or by a joint map's.

A vector is a column of its own name, or of its field's in a structure. A matrix with three columns (or rows) is
three columns, `<name>.x`, `.y` and `.z`, as Plug-in Gait's angles are; any other matrix is `<name>.1`, `<name>.2`
and so on. A variable named time holds the times; one named rate, fs or frequency the frame rate.
"""

import io
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.io

from biomechgpt.core.settings import InputError
from biomechgpt.recordings.readers import table
from biomechgpt.recordings.readers.joint_map import choose
from biomechgpt.recordings.readers.recording import Columns, ReaderSettings, Recording, assemble, is_known

SUFFIXES = (".mat",)
_RATES = (
    "rate",
    "fs",
    "frequency",
    "framerate",
    "samplerate",
    "samplingrate",
    "samplingfrequency",
    "freq",
    "hz",
)
_MAX_BYTES = 1 << 30
"""Most bytes that a file's compressed variables may unpack to."""
_COMPRESSED = 15
"""Type of a compressed element (MAT-File Format, level 5)."""
_MOST_DEPTH = 8


def matches(content: bytes) -> bool:
    """Whether this begins as MATLAB's files do."""
    return content.startswith(b"MATLAB ") and b"MAT-file" in content[:128]


def read(name: str, content: bytes, settings: ReaderSettings) -> Recording:
    """The recording in `content`. Raises InputError naming file and variable."""
    if content.startswith(b"MATLAB 7.3"):
        raise InputError(
            f"{name}: expected a MATLAB file up to version 7, found version 7.3: save it in MATLAB with "
            "save(file, '-v7', ...), or write a table with a column for each joint"
        )
    _check_size(name, content)
    try:
        variables = scipy.io.loadmat(io.BytesIO(content), squeeze_me=True, struct_as_record=True)
    except Exception as error:  # its parser raises many kinds for damaged files
        raise InputError(f"{name}: expected a MATLAB file, found a damaged one: {error}") from None
    groups = dict(_groups("", {k: v for k, v in variables.items() if not k.startswith("__")}, 0))
    usable = {path: group for path, group in groups.items() if _joints(name, group, settings)}
    if not usable:
        listed = ", ".join(f"{k} {np.shape(v)}" for k, v in variables.items() if not k.startswith("__"))
        raise InputError(
            f"{name}: expected arrays of joint angles in this MATLAB file, found {listed or 'no variables'}: "
            "write a joint map for its names (joint_map: FILE), or write each trial as a table (writetable) "
            "with a column of time and one for each joint"
        )
    most = max(_joints(name, group, settings) for group in usable.values())
    usable = {path: group for path, group in usable.items() if _joints(name, group, settings) == most}
    if len(usable) > 1:
        listed = ", ".join(list(usable)[:6]) + ", ..." * (len(usable) > 6)
        raise InputError(
            f"{name}: expected one recording, found {len(usable)} in this MATLAB file ({listed}): "
            "save each trial in a file of its own"
        )
    ((path, columns),) = usable.items()
    return assemble(name, table.with_units(_file(name, path, columns, groups), settings), settings)


def _file(
    name: str, path: str, group: dict[str, np.ndarray], groups: dict[str, dict[str, np.ndarray]]
) -> Columns:
    """The columns that are as long as the joints', with the times of the file's frame rate if it states one."""
    lengths = [len(v) for v in group.values() if len(v) > 1]
    frames = max(set(lengths), key=lengths.count)
    values = {k: v for k, v in group.items() if len(v) == frames}
    rate_hz = next(
        (
            float(v[0])
            for where in (group, *groups.values())
            for k, v in where.items()
            if k.lower().replace("_", "") in _RATES and len(v) == 1 and v[0] > 0
        ),
        None,
    )
    has_time = any(table.is_time(column) for column in values)
    return Columns(
        format="MATLAB",
        values=values,
        units=None,
        place=lambda i: f"frame {i}",
        time_s=None if has_time or rate_hz is None else np.arange(frames) / rate_hz,
        declared_rate_hz=rate_hz,
        notes=(f"structure {path}",) if path else (),
    )


def _joints(name: str, columns: dict[str, np.ndarray], settings: ReaderSettings) -> int:
    """How many of a group's columns are joints."""
    chosen = choose(name, settings.joint_map, columns)
    return (len(chosen.present(columns)) if chosen else 0) + sum(is_known(k) for k in columns)


def _groups(path: str, fields: dict[str, Any], depth: int) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """(path, {column: numbers}) of the variables, and of each structure among them."""
    columns: dict[str, np.ndarray] = {}
    for key, value in fields.items():
        array = np.asarray(value)
        inside = f"{path}.{key}" if path else key
        if array.dtype.names and depth < _MOST_DEPTH:
            records = array.ravel()
            for i, record in enumerate(records):
                number = f"({i + 1})" if len(records) > 1 else ""
                named = {field: record[field] for field in array.dtype.names}
                yield from _groups(inside + number, named, depth + 1)
        elif array.dtype.kind in "fiu" and array.ndim <= 2:
            columns |= _columns(key, array.astype(float))
    if columns:
        yield path, columns


def _columns(key: str, array: np.ndarray) -> dict[str, np.ndarray]:
    if array.ndim < 2:
        return {key: np.atleast_1d(array)}
    if array.shape[0] <= 3 < array.shape[1]:
        array = array.T
    axes = "xyz" if array.shape[1] == 3 else [str(i + 1) for i in range(array.shape[1])]
    return {f"{key}.{axis}": column for axis, column in zip(axes, array.T, strict=True)}


def _check_size(name: str, content: bytes) -> None:
    """Raise InputError if the compressed variables unpack to more than the limit."""
    order = "big" if content[126:128] == b"MI" else "little"
    place, left = 128, _MAX_BYTES
    while place + 8 <= len(content):
        kind, size = (int.from_bytes(content[i : i + 4], order) for i in (place, place + 4))  # type: ignore[arg-type]
        if kind == _COMPRESSED:
            left -= _unpacked_size(content[place + 8 : place + 8 + size], left + 1)
        if left < 0:
            raise InputError(f"{name}: expected at most {_MAX_BYTES >> 20} MiB of variables, found more")
        place += 8 + size


def _unpacked_size(packed: bytes, most: int) -> int:
    """How many bytes a compressed element has, counted in pieces up to `most`."""
    stream, size, rest = zlib.decompressobj(), 0, packed
    try:
        while rest and size < most and not stream.eof:
            size += len(stream.decompress(rest, 1 << 20))
            rest = stream.unconsumed_tail
    except zlib.error:
        return size
    return size
