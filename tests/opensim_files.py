"""OpenSim motion files made up for tests: a walk of every joint, in any unit, sign, order and header."""

import numpy as np

from biomechgpt.motion.skeleton import NAMES, NECK

PELVIS = ("pelvis_tilt", "pelvis_list", "pelvis_rotation", "pelvis_tx", "pelvis_ty", "pelvis_tz")
HEADER = "Coordinates\nversion=1\nnRows={rows}\nnColumns={columns}\ninDegrees=yes\n\nendheader\n"


def walk(seconds: float = 2.0, rate_hz: float = 100.0) -> dict[str, np.ndarray]:
    """Columns in degrees and metres, the skeleton's signs: knees bend to -62 degrees once a second, and the arms
    swing against the legs."""
    time = np.arange(round(seconds * rate_hz)) / rate_hz
    swing = np.sin(2 * np.pi * time)
    columns = {"time": time}
    for i, name in enumerate(PELVIS):
        columns[name] = {"pelvis_tx": 1.2 * time, "pelvis_ty": 0.95 + 0 * time}.get(name, 0.1 * i * swing)
    for i, name in enumerate(name for name in NAMES if name not in NECK):
        phase = np.pi if name.endswith("_l") != name.startswith("arm_flex") else 0.0
        columns[name] = 5 + (10 + i % 7) * np.sin(2 * np.pi * time + phase)
        if name.startswith("knee_angle"):
            columns[name] = -32 + 30 * np.sin(2 * np.pi * time + phase)
    return columns


def mot(columns: dict[str, np.ndarray], header: str = HEADER, separator: str = "\t") -> str:
    """The text of a file with these columns under this header."""
    table = np.stack(list(columns.values()), axis=1)
    lines = [separator.join(columns), *(separator.join(f"{v:.8f}" for v in row) for row in table)]
    return header.format(rows=len(table), columns=len(columns)) + "\n".join(lines) + "\n"


def in_radians(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """All but time and the pelvis' place, in radians."""
    kept = ("time", "pelvis_tx", "pelvis_ty", "pelvis_tz")
    return {name: v if name in kept else np.radians(v) for name, v in columns.items()}
