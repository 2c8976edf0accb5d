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
from biomechgpt.recordings.readers.text import decode, listed, numbers

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
    header = [[cell.strip() for cell in line.split("\t")] for line in lines[:_HEADER]]
    width = len(header[4])
    files, signals, types, _, components = ([*row[:width], *[""] * (width - len(row))] for row in header)
    rows = [(i + 1, line) for i, line in enumerate(lines) if i >= _HEADER and line.strip()]
    # A signal that ends before the others leaves its cells out.
    grid = numbers(name, rows, "\t", signals, least=1)
    recorded = {file for file in files[1:] if file}
    if len(recorded) > 1:
        raise InputError(
            f"{name}: expected the signals of one trial, found those of {len(recorded)} files "
            f"({listed(sorted(recorded), 4)}): export each trial by itself"
        )
    values: dict[str, np.ndarray] = {}
    for j, (signal, kind, component) in enumerate(zip(signals, types, components, strict=True)):
        if j and kind.upper() == "FRAME_NUMBERS":
            values[signal.lower()] = grid[:, j]
        elif j and kind.upper() in ("LINK_MODEL_BASED", "DERIVED"):
            axis = {"0": "x", "1": "y", "2": "z"}.get(component, component.lower())
            values.setdefault(f"{signal_name(signal)}.{axis}", grid[:, j])
    if not any(table.is_time(column) for column in values):
        raise InputError(
            f"{name}: expected a signal TIME (type FRAME_NUMBERS) beside the angles, found none, so that the frame "
            "rate is not known: export TIME with them"
        )
    file = Columns(
        format="Visual3D ASCII",
        values=values,
        units="degrees",
        place=lambda i: f"line {rows[i][0]}",
        notes=("axes as Visual3D's default (X to the right, Y forward, Z up)",),
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
