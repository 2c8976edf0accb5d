"""A trial: one recording of one participant, and how trials are stored.

On disk a cohort is Parquet, one row a trial, angles as a flat list<float> of n_frames x 34, so that any
Parquet reader opens it. Annotations are nullable columns: text or numbers, whatever the cohort has.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from biomechgpt.motion.skeleton import N_JOINTS

FIXED = pa.schema(
    [
        pa.field("trial", pa.string(), nullable=False),
        pa.field("participant", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("provenance", pa.string(), nullable=False),
        pa.field("source", pa.string()),
        pa.field("frame_rate_hz", pa.float32(), nullable=False),
        pa.field("n_frames", pa.int32(), nullable=False),
        pa.field("angles_rad", pa.list_(pa.float32()), nullable=False),
        pa.field("pelvis", pa.list_(pa.float32()), nullable=False),
        pa.field("joint_mask", pa.list_(pa.bool_()), nullable=False),
        pa.field("import_notes", pa.string()),
        pa.field("repairs", pa.string()),
    ]
)
"""Columns every cohort has. `split` is train, validation or test; `provenance` is synthetic or recorded."""


@dataclass
class Trial:
    """One trajectory.

    angles_rad: (T, 34) float32, order and signs of `skeleton`.
    pelvis: (T, 7) float32: position in metres (X forward, Y up, Z right), unit quaternion (w, x, y, z).
    joint_mask: (34,) bool, True where the joint was recorded.
    import_notes: how its file was read (format, units, knee sign, rate); None without a file.
    repairs: gaps filled before it was stored ("2 gaps interpolated, longest 0.10 s"); None: no gaps.
    annotations: text or numbers by column; a missing key or None was not collected.
    latent: true traits of a simulated trial, stored in a separate table and never in the cohort's rows.
    """

    trial: str
    participant: str
    angles_rad: np.ndarray
    pelvis: np.ndarray
    frame_rate_hz: float
    provenance: str = "recorded"
    source: str | None = None
    split: str = "train"
    joint_mask: np.ndarray = field(default_factory=lambda: np.ones(N_JOINTS, dtype=bool))
    import_notes: str | None = None
    repairs: str | None = None
    annotations: dict[str, str | float | None] = field(default_factory=dict)
    latent: dict[str, str | float | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        frames = len(self.angles_rad)
        if self.angles_rad.shape != (frames, N_JOINTS) or self.pelvis.shape != (frames, 7):
            raise ValueError(
                f"trial {self.trial}: expected angles (T, {N_JOINTS}) and pelvis (T, 7), "
                f"found {self.angles_rad.shape} and {self.pelvis.shape}"
            )

    @property
    def duration_s(self) -> float:
        return len(self.angles_rad) / self.frame_rate_hz

    def row(self) -> dict[str, Any]:
        """The trial as a row of `schema`."""
        return {
            "trial": self.trial,
            "participant": self.participant,
            "split": self.split,
            "provenance": self.provenance,
            "source": self.source,
            "frame_rate_hz": self.frame_rate_hz,
            "n_frames": len(self.angles_rad),
            "angles_rad": np.asarray(self.angles_rad, dtype=np.float32).ravel(),
            "pelvis": np.asarray(self.pelvis, dtype=np.float32).ravel(),
            "joint_mask": np.asarray(self.joint_mask, dtype=bool),
            "import_notes": self.import_notes,
            "repairs": self.repairs,
            **self.annotations,
        }


def from_row(row: Mapping[str, Any]) -> Trial:
    """The trial of a row (of Arrow's `to_pylist`, pandas or Ray Data)."""
    frames = int(row["n_frames"])
    return Trial(
        trial=row["trial"],
        participant=row["participant"],
        angles_rad=np.asarray(row["angles_rad"], dtype=np.float32).reshape(frames, N_JOINTS),
        pelvis=np.asarray(row["pelvis"], dtype=np.float32).reshape(frames, 7),
        frame_rate_hz=float(row["frame_rate_hz"]),
        provenance=row["provenance"],
        source=row["source"],
        split=row["split"],
        joint_mask=np.asarray(row["joint_mask"], dtype=bool),
        import_notes=row["import_notes"],
        repairs=row["repairs"],
        annotations={k: v for k, v in row.items() if k not in FIXED.names},
    )


def schema(columns: Mapping[str, str]) -> pa.Schema:
    """The Arrow schema of a cohort with these annotation columns: {name: "text" | "number"}."""
    types = {"text": pa.string(), "number": pa.float64()}
    return pa.schema([*FIXED, *(pa.field(name, types[kind]) for name, kind in columns.items())])


def table(trials: Iterable[Trial], columns: Mapping[str, str]) -> pa.Table:
    """Trials as an Arrow table of `schema(columns)`."""
    wanted = schema(columns)
    rows = [trial.row() for trial in trials]
    return pa.table({name: pa.array([row.get(name) for row in rows], wanted.field(name).type)
                     for name in wanted.names}, schema=wanted)  # fmt: skip
