"""Reads MATLAB files (.mat): arrays with a joint's name, by our names or by a joint map's.

A vector is a column of its own name, or of its field's in a structure. A matrix with three columns (or rows) is
three columns, `<name>.x`, `.y` and `.z`, as Plug-in Gait's angles are; any other matrix is `<name>.1`, `<name>.2`
and so on. A variable named time holds the times; one named rate, fs or frequency the frame rate.

scipy parses files up to version 7, h5py those of version 7.3, which are HDF5. Both run in a process of their own,
since a damaged file may crash them.
"""

import zlib
from importlib.util import find_spec

import numpy as np

from biomechgpt.core.settings import InputError
from biomechgpt.recordings import separate_process
from biomechgpt.recordings.readers import table
from biomechgpt.recordings.readers.column_names import is_known
from biomechgpt.recordings.readers.joint_map import choose
from biomechgpt.recordings.readers.recording import Columns, ReaderSettings, Recording, assemble
from biomechgpt.recordings.readers.text import listed

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
_MAX_BYTES = 256 << 20
"""Most bytes that a file's compressed variables may unpack to."""
_COMPRESSED = 15
"""Type of a compressed element (MAT-File Format, level 5)."""
_MOST_COLUMNS = 1000
"""Most columns of a matrix; larger ones are pictures or the like."""
_SECONDS = 60
_SCRIPT = (
    separate_process.LIMITS
    + """
import numpy, scipy.io
variables = scipy.io.loadmat(sys.argv[1], squeeze_me=True, struct_as_record=True)
variables = {key: value for key, value in variables.items() if not key.startswith("__")}
names, arrays = [], {}
def visit(path, key, value, depth):  # arrays of numbers; those of a structure have its path
    array = numpy.asarray(value)
    if array.dtype.names and depth < 8:
        inside = f"{path}.{key}" if path else key
        for i, record in enumerate(array.ravel()):
            number = f"({i + 1})" if array.size > 1 else ""
            for field in array.dtype.names:
                visit(inside + number, field, record[field], depth + 1)
    elif array.dtype.kind in "fiu" and array.ndim <= 2 and array.size:
        arrays[str(len(names))] = array.astype(float)
        names.append((path, key))
for key, value in variables.items():
    visit("", key, value, 0)
listed = [f"{key} {numpy.shape(value)}" for key, value in variables.items()]
names = numpy.array(names, dtype=str).reshape(-1, 2)
numpy.savez(sys.argv[2], names=names, variables=numpy.array(listed, dtype=str), **arrays)
"""
)
_SCRIPT_73 = (
    separate_process.LIMITS
    + """
import h5py, numpy
file = h5py.File(sys.argv[1], "r")
names, arrays, left = [], {}, 1 << 30
def visit(path, key, item, depth):  # as in older files; HDF5 keeps the axes of an array in the opposite order
    global left
    inside = f"{path}.{key}" if path else key
    if isinstance(item, h5py.Group):
        for field in item if depth < 8 else ():
            visit(inside, field, item[field], depth + 1)
    elif item.dtype.kind == "O":  # references: a field of several records, or cells
        for i, reference in enumerate(item[()].ravel()[:1000]):
            if isinstance(reference, h5py.Reference) and reference and depth < 8:
                visit(f"{path}({i + 1})" if item.size > 1 else path, key, file[reference], depth + 1)
    elif item.dtype.kind in "fiu" and item.ndim <= 2 and item.size and "MATLAB_empty" not in item.attrs:
        left -= item.size * 8
        if left < 0:
            sys.exit("more than 1024 MiB of variables")
        if item.attrs.get("MATLAB_class", b"") != b"char":
            arrays[str(len(names))] = numpy.squeeze(item[()].T).astype(float)
            names.append((path, key))
variables = [key for key in file if not key.startswith("#")]
for key in variables:
    visit("", key, file[key], 0)
listed = [f"{key} {getattr(file[key], 'shape', ())[::-1]}" for key in variables]
names = numpy.array(names, dtype=str).reshape(-1, 2)
numpy.savez(sys.argv[2], names=names, variables=numpy.array(listed, dtype=str), **arrays)
"""
)


def matches(content: bytes) -> bool:
    """Whether this begins as MATLAB's files do."""
    return content.startswith(b"MATLAB ") and b"MAT-file" in content[:128]


def read(name: str, content: bytes, settings: ReaderSettings) -> Recording:
    """The recording in `content`. Raises InputError naming file and variable."""
    script = _SCRIPT
    if content.startswith(b"MATLAB 7.3"):
        if find_spec("h5py") is None:
            raise InputError(
                f"{name}: a MATLAB file of version 7.3 needs h5py (pip install '.[matlab]'). Or save it in MATLAB "
                "with save(file, '-v7', ...), or write a table with a column for each joint"
            )
        script = _SCRIPT_73
    else:
        _check_size(name, content)
    file = separate_process.arrays_of(name, content, script, "a MATLAB file", _SECONDS)
    groups: dict[str, dict[str, np.ndarray]] = {}
    for i, (path, key) in enumerate(file["names"].tolist()):
        groups.setdefault(path, {}).update(_columns(key, file[str(i)]))
    usable = {path: group for path, group in groups.items() if _joints(name, group, settings)}
    if not usable:
        variables = ", ".join(file["variables"].tolist()[:8])
        raise InputError(
            f"{name}: expected arrays of joint angles in this MATLAB file, found {variables or 'no variables'}: "
            "write a joint map for its names (joint_map: FILE), or write each trial as a table (writetable) "
            "with a column of time and one for each joint"
        )
    most = max(_joints(name, group, settings) for group in usable.values())
    usable = {path: group for path, group in usable.items() if _joints(name, group, settings) == most}
    if len(usable) > 1:
        raise InputError(
            f"{name}: expected one recording, found {len(usable)} in this MATLAB file ({listed(usable, 6)}): "
            "save each trial in a file of its own"
        )
    ((path, columns),) = usable.items()
    return assemble(name, table.with_units(_file(name, path, columns, groups), settings), settings)


def _file(
    name: str, path: str, group: dict[str, np.ndarray], groups: dict[str, dict[str, np.ndarray]]
) -> Columns:
    """The columns that are as long as the joints', with the times of the file's frame rate if it states one."""
    lengths = [len(v) for v in group.values() if len(v) > 1] or [1]
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


def _columns(key: str, array: np.ndarray) -> dict[str, np.ndarray]:
    if array.ndim < 2:
        return {key: np.atleast_1d(array)}
    if min(array.shape) > _MOST_COLUMNS:
        return {}
    if array.shape[0] <= 3 < array.shape[1] or array.shape[1] > _MOST_COLUMNS:
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
            packed = content[place + 8 : place + 8 + size]
            if _promised_size(packed, order) <= left:  # else there is no need to count
                left -= _unpacked_size(packed, left + 1)
            else:
                left = -1
        if left < 0:
            raise InputError(f"{name}: expected at most {_MAX_BYTES >> 20} MiB of variables, found more")
        place += 8 + size


def _promised_size(packed: bytes, order: str) -> int:
    """Bytes of a compressed element by the header of what is in it."""
    try:
        header = zlib.decompressobj().decompress(packed, 8)
    except zlib.error:
        return 0
    return int.from_bytes(header[4:8], order)  # type: ignore[arg-type]


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
