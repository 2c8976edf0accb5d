"""Reads what Visual3D exports as ASCII: five lines of file, signal, type, folder and component above the numbers.

Columns are `<signal>.x`, `.y` and `.z`; a joint map names the signals (configs/joint_maps/visual3d.yaml has the
usual ones). Signals are named as people like, so names are compared in small letters without marks between words. A
signal TIME gives the times. Layout: Visual3D documentation, "Export Data To ASCII File".
"""

import re

import numpy as np

from biomechgpt.core.settings import InputError
from biomechgpt.recordings.readers import table
from biomechgpt.recordings.readers.recording import Columns, ReaderSettings, Recording, assemble
from biomechgpt.recordings.readers.text import decode

SUFFIXES = ()
_TYPES = {"LINK_MODEL_BASED", "DERIVED", "FRAME_NUMBERS", "TARGET", "KINETIC_KINEMATIC", "ANALOG", "METRIC"}
_HEADER = 5


def matches(content: bytes) -> bool:
    """Whether the third line names types of signals, and the fifth their components."""
    head = decode(content[:65536])
    lines = head.text.splitlines()[:_HEADER] if head else []
    if len(lines) < _HEADER:
        return False
    types = {cell.strip().upper() for cell in lines[2].split("\t")}
    return bool(types & _TYPES) and {cell.strip().upper() for cell in lines[4].split("\t")} <= {
        "", "ITEM", "X", "Y", "Z", "0", "1", "2", "3", "4", "5", "6", "7", "8",
    }  # fmt: skip


def read(name: str, content: bytes, settings: ReaderSettings) -> Recording:
    """The recording in `content`. Raises InputError naming file, line and signal."""
    decoded = decode(content)
    lines = decoded.text.splitlines() if decoded else []
    files, signals, types, _, components = (
        [cell.strip() for cell in line.split("\t")] for line in lines[:_HEADER]
    )
    rows = [(i + 1, line) for i, line in enumerate(lines) if i >= _HEADER and line.strip()]
    width = len(components)
    numbers = np.full((len(rows), width), np.nan)
    for row, (number, line) in enumerate(rows):
        cells = line.split("\t")
        if len(cells) < width and any(cell.strip() for cell in cells[len(cells) - 1 :]):
            cells += [""] * (width - len(cells))
        for j, cell in enumerate(cells[:width]):
            try:
                numbers[row, j] = float(cell.replace(",", ".").strip() or "nan")
            except ValueError:
                raise InputError(
                    f"{name}: line {number}, signal {signals[j]!r}: expected a number, found {cell!r}"
                ) from None
    recorded = {files[j] for j in range(1, min(len(files), width)) if files[j] and j < len(types)}
    if len(recorded) > 1:
        raise InputError(
            f"{name}: expected the signals of one trial, found those of {len(recorded)} files "
            f"({', '.join(sorted(recorded)[:4])}{', ...' * (len(recorded) > 4)}): export each trial by itself"
        )
    values: dict[str, np.ndarray] = {}
    for j in range(1, width):
        if j < len(types) and types[j].upper() == "FRAME_NUMBERS":
            values[signals[j].lower()] = numbers[:, j]
        elif j < len(types) and types[j].upper() in ("LINK_MODEL_BASED", "DERIVED"):
            axis = {"0": "x", "1": "y", "2": "z"}.get(components[j], components[j].lower())
            values.setdefault(f"{signal_name(signals[j])}.{axis}", numbers[:, j])
    file = Columns(
        format="Visual3D ASCII",
        values=values,
        units="degrees",
        place=lambda i: f"line {rows[i][0]}",
        notes=("axes as Visual3D's default (X to the right, Y forward, Z up)",),
    )
    if not any(table.is_time(column) for column in values):
        raise InputError(
            f"{name}: expected a signal TIME (type FRAME_NUMBERS) beside the angles, found none, so that the frame "
            "rate is not known: export TIME with them"
        )
    return assemble(name, table.with_units(file, settings), settings)


def signal_name(signal: str) -> str:
    """A signal's usual name: `rhipangle` of `R_HIP_ANGLE`, `Right Hip Angles` and `r_hip_angle`."""
    words = re.sub(r"[^a-z0-9]+", " ", signal.lower()).split()
    words = [
        {"right": "r", "rt": "r", "left": "l", "lt": "l", "kne": "knee", "ank": "ankle"}.get(w, w)
        for w in words
    ]
    # The side may stand behind the joint.
    words.sort(key=lambda w: w not in ("r", "l"))
    joined = re.sub(r"^(right|rt)(?=[a-z])", "r", re.sub(r"^(left|lt)(?=[a-z])", "l", "".join(words)))
    return re.sub(r"angles$", "angle", joined)
