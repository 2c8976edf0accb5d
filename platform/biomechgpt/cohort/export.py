"""Writes a cohort as files that other software opens: an OpenSim .mot a trial, and annotations.csv.

The folder is valid input for a cohort: one made from it has the same participants, annotations, splits and
provenance, and at the same frame rate the same angles to 1e-4 degrees. A Ray task writes one shard, so only a few
shards are in memory.
"""

from collections import Counter
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from biomechgpt.cohort.annotations import csv_lines
from biomechgpt.cohort.shards import Cohort, Shard, map_shards
from biomechgpt.core import artifact, storage
from biomechgpt.core.artifact import Artifact
from biomechgpt.core.settings import InputError
from biomechgpt.motion import trial
from biomechgpt.recordings.load import ANNOTATIONS
from biomechgpt.recordings.readers import opensim

_VERSION = 1


def export_mot(cohort: Artifact, root: str) -> Artifact:
    """The `recordings` artifact under `root`: <trial>.mot files and annotations.csv.

    Joints that were not recorded have no column. Raises InputError if two trials would get the same file name.
    """
    return artifact.make(
        "recordings", _VERSION, {}, {"cohort": cohort}, lambda uri: _write(cohort, uri), root
    )


def _write(cohort: Artifact, uri: str) -> dict[str, Any]:
    shards = Cohort(cohort).shards
    # Checked before anything is written. Only the names are read, not the angles.
    names = [name for shard in shards for name in shard.table(["trial"])["trial"].to_pylist()]
    duplicates = [path for path, count in Counter(_path(name) for name in names).items() if count > 1]
    if duplicates:
        raise InputError(f"{cohort.uri}: expected a file a trial, found several trials for {duplicates[0]!r}")
    columns = [name for name in shards[0].schema().names if name not in trial.FIXED.names]

    def write(shard: Shard) -> dict[str, Any]:
        return {"lines": _write_shard(shard, uri, columns)}

    lines = [row["lines"] for row in map_shards(shards, write)]
    header = csv_lines([["path", "participant", "source", "data", "split", *columns]])
    storage.write_bytes(storage.join(uri, ANNOTATIONS), (header + "".join(lines)).encode())
    return {"trials": len(names)}


def _write_shard(shard: Shard, uri: str, columns: list[str]) -> str:
    """Write the files of one shard's trials; returns their lines of annotations.csv."""
    rows = []
    for t in shard.trials():
        text = opensim.write(
            np.arange(len(t.angles_rad)) / t.frame_rate_hz,
            t.angles_rad,
            t.pelvis,
            t.joint_mask,
            provenance=t.provenance,
        )
        storage.write_bytes(storage.join(uri, _path(t.trial)), text.encode())
        cells = [t.annotations.get(column) for column in columns]
        rows.append([_path(t.trial), t.participant, t.source, t.provenance, t.split, *cells])
    return csv_lines(rows)


def _path(name: str) -> str:
    """A trial's file: the trial's name, with .mot appended unless it ends so."""
    return name if PurePosixPath(name).suffix.lower() == ".mot" else f"{name}.mot"
