"""Reads AddBiomechanics' subjects (.b3d): each trial's joint angles, under the names of the model's coordinates.

A file is the size of its header (8 bytes), the header, and the frames, all of one size: for each time what was
measured, then a frame for each processing pass. Headers and frames are Protocol Buffers. The layout is
SubjectOnDisk.proto of nimblephysics. The coordinates are those of the OpenSim model in the header, in its order.
The first pass, kinematics, is read.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree import ElementTree

import numpy as np

from biomechgpt.core.settings import InputError
from biomechgpt.recordings.readers.recording import Columns, ReaderSettings, Recording, assemble
from biomechgpt.recordings.readers.text import listed

SUFFIXES = (".b3d",)
_SIZE_BYTES = 8
# Numbers of the fields in SubjectOnDisk.proto.
_DOFS, _SENSOR_SIZE, _PASS_SIZE, _PASSES, _TRIALS = 1, 3, 4, 5, 9
_TRIAL_NAME, _TRIAL_LENGTH, _TRIAL_TIMESTEP, _TRIAL_PASSES = 1, 3, 4, 5
_OBSERVED = 2
_MODEL = 2
_POSITIONS = 1
_DAMAGED = (ValueError, IndexError, struct.error, ElementTree.ParseError, KeyError)


def matches(content: bytes) -> bool:
    """Whether a header of Protocol Buffers holds an OpenSim model."""
    size = int.from_bytes(content[:_SIZE_BYTES], "little")
    return 0 < size < 1 << 31 and content[8:9] == b"\x08" and b"<OpenSimDocument" in content[:4096]


def read(name: str, content: bytes, settings: ReaderSettings) -> Recording:
    """The one trial in `content`. Raises InputError naming the file."""
    trials = _trials(name, content)
    if len(trials) != 1:
        raise InputError(
            f"{name}: expected one recording, found {len(trials)} trials of a subject of AddBiomechanics "
            f"({listed((trial.name for trial in trials), 6)}): `biomechgpt answer` "
            "and biomechgpt.read_all read each of them; a cohort needs a file for each, such as the .mot files of "
            "the subject's OpenSim results"
        )
    return _recording(name, trials[0], settings)


def read_each(name: str, content: bytes, settings: ReaderSettings) -> dict[str, Recording | InputError]:
    """{name#trial: recording, or why it cannot be read} of each trial."""
    result: dict[str, Recording | InputError] = {}
    for trial in _trials(name, content):
        try:
            result[f"{name}#{trial.name}"] = _recording(f"{name}#{trial.name}", trial, settings)
        except InputError as error:
            result[f"{name}#{trial.name}"] = error
    return result


@dataclass(frozen=True)
class _Trial:
    """One trial.

    name: of the trial.
    step_s: time from frame to frame.
    columns: {coordinate: (T,)} that were observed, in radians and metres.
    """

    name: str
    step_s: float
    columns: dict[str, np.ndarray]


def _recording(name: str, trial: _Trial, settings: ReaderSettings) -> Recording:
    frames = len(next(iter(trial.columns.values()), ()))
    if not frames or not trial.step_s > 0:
        raise InputError(f"{name}: expected frames and a time step, found {frames} and {trial.step_s:g} s")
    file = Columns(
        format="AddBiomechanics .b3d",
        values=trial.columns,
        units="radians",
        place=lambda i: f"frame {i}",
        time_s=trial.step_s * np.arange(frames),
        declared_rate_hz=1 / trial.step_s,
    )
    return assemble(name, file, settings)


def _trials(name: str, content: bytes) -> list[_Trial]:
    try:
        return list(_parsed(content))
    except _DAMAGED as error:
        raise InputError(
            f"{name}: expected a subject of AddBiomechanics, found a damaged file: {error}"
        ) from None


def _parsed(content: bytes) -> Iterator[_Trial]:
    start = _SIZE_BYTES + int.from_bytes(content[:_SIZE_BYTES], "little")
    header = _message(content[_SIZE_BYTES:start])
    sensor, size = (_integer(header[key][0]) for key in (_SENSOR_SIZE, _PASS_SIZE))
    first_pass = _message(_packed(header[_PASSES][0]))
    coordinates = _coordinates(_packed(first_pass[_MODEL][0]), _integer(header[_DOFS][0]))
    for packed in header.get(_TRIALS, []):
        trial = _message(_packed(packed))
        frames, passes = _integer(trial[_TRIAL_LENGTH][0]), trial.get(_TRIAL_PASSES, [])
        whole = sensor + len(passes) * size
        if not whole or frames * whole > len(content) - start:
            raise ValueError(f"it ends within {frames} frames of a trial")
        if passes:
            places = [start + i * whole + sensor for i in range(frames)]
            rows = [_numbers(_message(content[at : at + size]), _POSITIONS) for at in places]
            table = np.array(rows).reshape(frames, len(coordinates))
            observed = _message(_packed(passes[0])).get(_OBSERVED, [b""])[0] or bytes([1] * len(coordinates))
            columns = {k: table[:, j] for j, k in enumerate(coordinates) if _packed(observed)[j]}
            step_s = struct.unpack("<d", _packed(trial[_TRIAL_TIMESTEP][0]))[0]
            yield _Trial(_packed(trial[_TRIAL_NAME][0]).decode(), step_s, columns)
        start += frames * whole


def _integer(value: bytes | int) -> int:
    if isinstance(value, bytes):
        raise ValueError("bytes stand where a number should")
    return value


def _packed(value: bytes | int) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number stands where bytes should")
    return value


def _coordinates(model: bytes, dofs: int) -> list[str]:
    """The model's coordinates, in its order; those of patellae follow the knees and are no degrees of freedom."""
    if b"<!DOCTYPE" in model[:2048]:
        raise ValueError("its model has a document type")
    names = [e.get("name", "") for e in ElementTree.fromstring(model).iter("Coordinate")]  # noqa: S314 see SECURITY.md
    free = [name for name in names if not name.endswith("_beta")]
    found = next((some for some in (free, names) if len(some) == dofs), None)
    if found is None:
        raise ValueError(f"its model has {len(free)} coordinates for {dofs} degrees of freedom")
    return found


def _numbers(message: dict[int, list[bytes | int]], field: int) -> np.ndarray:
    return np.frombuffer(_packed(message[field][0]), "<f8")


def _message(packed: bytes) -> dict[int, list[bytes | int]]:
    """{number of a field: its values} of a Protocol Buffers message: numbers, or bytes."""
    result: dict[int, list[bytes | int]] = {}
    place = 0
    while place < len(packed):
        key, place = _varint(packed, place)
        kind = key & 7
        if kind == 0:
            number, place = _varint(packed, place)
            result.setdefault(key >> 3, []).append(number)
            continue
        if kind == 2:
            size, place = _varint(packed, place)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"a field of kind {kind}")
        value = packed[place : place + size]
        if len(value) != size:
            raise ValueError("it ends within a field")
        place += size
        result.setdefault(key >> 3, []).append(value)
    return result


def _varint(packed: bytes, place: int) -> tuple[int, int]:
    """A number in groups of seven bits, and the place behind it."""
    number = 0
    for shift in range(0, 70, 7):
        byte = packed[place]
        place += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, place
    raise ValueError("a number of more than ten bytes")
