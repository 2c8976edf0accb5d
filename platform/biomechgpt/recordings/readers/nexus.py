"""Reads what Vicon Nexus exports as ASCII (.csv): sections such as Devices, Joints, Model Outputs and Trajectories.

A section is its title, its frame rate, a line of names, a line of components, a line of units, and rows. The angles
of Joints and Model Outputs become columns `<name>.x`, `.y` and `.z` without the subject's prefix, as in a C3D file,
so that the same joint map reads both (configs/joint_maps/plug_in_gait.yaml).
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from biomechgpt.core.settings import InputError
from biomechgpt.recordings.readers.recording import Columns, ReaderSettings, Recording, assemble
from biomechgpt.recordings.readers.text import cells, decode, numbers

SUFFIXES = ()
_SECTIONS = ("devices", "joints", "model outputs", "segments", "trajectories", "marker trajectories")
_WITH_ANGLES = ("model outputs", "joints")
_DELIMITERS = ",;\t"
_UNITS = {"deg": "degrees", "degrees": "degrees", "°": "degrees", "rad": "radians", "radians": "radians"}


def matches(content: bytes) -> bool:
    """Whether this begins with a section's title, its frame rate and a line of names."""
    head = decode(content[:65536])
    lines = [line for line in head.text.splitlines() if line.strip()] if head else []
    return len(lines) > 2 and _is_title(lines[0]) and _rate(lines[1]) is not None


def read(name: str, content: bytes, settings: ReaderSettings) -> Recording:
    """The recording in `content`. Raises InputError naming file, line and column."""
    decoded = decode(content)
    sections = _sections(name, decoded.text.splitlines() if decoded else [])
    chosen = [section for section in sections if section.title in _WITH_ANGLES]
    angles = [section for section in chosen if section.columns]
    if not angles:
        raise InputError(
            f"{name}: expected a section 'Model Outputs' or 'Joints' with angles, found "
            f"{', '.join(repr(section.title) for section in sections) or 'no section'}: "
            "export the model outputs of a model that computes angles, such as Plug-in Gait"
        )
    first = max(angles, key=lambda section: len(section.columns))
    values: dict[str, np.ndarray] = {}
    for section in (first, *(s for s in angles if s is not first)):
        if len(section.frames) == len(first.frames):
            values = dict(section.columns) | values
    file = Columns(
        format="Vicon Nexus CSV",
        values=values,
        units="radians" if first.units == "radians" else "degrees",
        place=lambda i: f"line {first.lines[i]}",
        time_s=first.frames / first.rate_hz,
        notes=(decoded.note,) if decoded and decoded.note else (),
    )
    if settings.units != "header":
        file = replace(file, units=settings.units)
    return assemble(name, file, settings)


@dataclass(frozen=True)
class _Section:
    """One section of an export.

    title: in small letters.
    rate_hz: its frame rate.
    frames: (T,) numbers of its frames.
    columns: {name.axis: (T,)} of its angles.
    units: of the angles.
    lines: number (from 1) of each row's line.
    """

    title: str
    rate_hz: float
    frames: np.ndarray
    columns: dict[str, np.ndarray]
    units: str
    lines: list[int]


def _sections(name: str, lines: Sequence[str]) -> list[_Section]:
    numbered = [(i + 1, line) for i, line in enumerate(lines) if line.strip(" \t" + _DELIMITERS)]
    starts = [k for k, (_, line) in enumerate(numbered) if _is_title(line)]
    return [_section(name, numbered[a:b]) for a, b in itertools.pairwise([*starts, len(numbered)])]


def _section(name: str, lines: Sequence[tuple[int, str]]) -> _Section:
    title = _title(lines[0][1])
    rate_hz = _rate(lines[1][1]) if len(lines) > 1 else None
    if len(lines) < 6 or not rate_hz:
        raise InputError(
            f"{name}: line {lines[0][0]}: section {title!r}: expected a frame rate, names, components, units and "
            f"rows, found {len(lines) - 1} lines"
        )
    if title not in _WITH_ANGLES:
        return _Section(title, rate_hz, np.zeros(0), {}, "", [])
    delimiter = next((d for d in _DELIMITERS if d in lines[3][1]), ",")
    names, components, units = (cells(line, delimiter) for _, line in lines[2:5])
    rows = lines[5:]
    table = numbers(name, rows, delimiter, components, least=len(components))
    columns, unit_of_angles = {}, ""
    label = ""
    for j, component in enumerate(components):
        label = (names[j] if j < len(names) and names[j] else label).rpartition(":")[2].strip()
        unit, axis = units[j].lower() if j < len(units) else "", component.lower().lstrip("r")
        if unit in _UNITS and label and axis in ("x", "y", "z"):
            columns[f"{label}.{axis}"] = table[:, j]
            unit_of_angles = _UNITS[unit]
    return _Section(title, rate_hz, table[:, 0], columns, unit_of_angles, [number for number, _ in rows])


def _title(line: str) -> str:
    return line.strip(' \t"' + _DELIMITERS).lower()


def _is_title(line: str) -> bool:
    return _title(line) in _SECTIONS


def _rate(line: str) -> float | None:
    """The frame rate that is alone in a line."""
    try:
        rate_hz = float(line.strip(' \t"' + _DELIMITERS))
    except ValueError:
        return None
    return rate_hz if np.isfinite(rate_hz) and rate_hz > 0 else None
