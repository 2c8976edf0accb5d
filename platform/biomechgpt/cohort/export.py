"""Writes a cohort as files that other software opens: an OpenSim .mot a trial, and annotations.csv.

The folder is what the cohort's own readers take: a cohort made of it has the same participants, annotations and
splits, what was synthetic is so again, and at the same frame rate its angles are the same to 1e-4 degrees. A Ray
task a shard, so that no more than some shards are in memory.
"""

import csv
import io
from collections import Counter
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from biomechgpt.cohort.folder import ANNOTATIONS
from biomechgpt.core import artifact, cluster, storage
from biomechgpt.core.artifact import Artifact
from biomechgpt.core.settings import InputError
from biomechgpt.motion import trial
from biomechgpt.recordings.readers import opensim

_VERSION = 1


def export_mot(cohort: Artifact, root: str) -> Artifact:
    """The `recordings` artifact under `root`: <trial>.mot files and annotations.csv.

    Joints that were not recorded have no column. Raises InputError where two trials' names would be one file's.
    """
    return artifact.make(
        "recordings", _VERSION, {}, {"cohort": cohort}, lambda uri: _write(cohort, uri), root
    )


def _write(cohort: Artifact, uri: str) -> dict[str, Any]:
    shards = storage.list_files(cohort.path("trials"))
    # Before anything is written, and without the angles: names alone.
    names = [name for shard in shards for name in _read(cohort, shard, ["trial"])["trial"].to_pylist()]
    twice = [path for path, count in Counter(_path(name) for name in names).items() if count > 1]
    if twice:
        raise InputError(f"{cohort.uri}: expected a file a trial, found several trials for {twice[0]!r}")
    fs, path = storage.arrow_filesystem(cohort.path("trials"))
    schema = pq.read_schema(f"{path}/{shards[0]}", filesystem=fs)
    columns = [name for name in schema.names if name not in trial.FIXED.names]

    def write(item: dict[str, Any]) -> dict[str, Any]:
        return {"lines": _shard(cohort, item["shard"], uri, columns)}

    lines = [row["lines"] for row in cluster.each(({"shard": shard} for shard in shards), write)]
    header = _line(["path", "participant", "source", "data", "split", *columns])
    storage.write_bytes(storage.join(uri, ANNOTATIONS), (header + "".join(lines)).encode())
    return {"trials": len(names)}


def _read(cohort: Artifact, shard: str, columns: list[str] | None = None) -> Any:
    fs, path = storage.arrow_filesystem(cohort.path("trials"))
    return pq.read_table(f"{path}/{shard}", columns=columns, filesystem=fs)


def _shard(cohort: Artifact, shard: str, uri: str, columns: list[str]) -> str:
    """Write the files of one shard's trials; returns their lines of annotations.csv."""
    lines = []
    table = _read(cohort, shard)
    for i in range(table.num_rows):  # a row at a time: Python's numbers take ten times the room of Arrow's
        made = trial.from_row(table.slice(i, 1).to_pylist()[0])
        text = opensim.write(
            np.arange(len(made.angles_rad)) / made.frame_rate_hz,
            made.angles_rad,
            made.pelvis,
            made.joint_mask,
        )
        storage.write_bytes(storage.join(uri, _path(made.trial)), text.encode())
        cells = [made.annotations.get(column) for column in columns]
        lines.append(_line([_path(made.trial), made.participant, made.source, made.data, made.split, *cells]))
    return "".join(lines)


def _line(cells: list[Any]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow("" if cell is None else cell for cell in cells)
    return buffer.getvalue()


def _path(name: str) -> str:
    """A trial's file: its own name, under which its recording came if it was a .mot, or else with .mot behind."""
    return name if PurePosixPath(name).suffix.lower() == ".mot" else f"{name}.mot"
