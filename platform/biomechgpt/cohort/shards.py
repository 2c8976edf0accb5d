"""A finished cohort: the one place that reads its Parquet shards, `cohort.json` and `splits.json`.

A shard is a Parquet file of `trial.schema` that holds all trials of its participants. Every reader of a cohort uses
`Cohort`, so only this module knows the layout on disk. Knows nothing about how a cohort is made.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from biomechgpt.cohort.splits import SplitSettings
from biomechgpt.core import cluster, storage
from biomechgpt.core.artifact import Artifact
from biomechgpt.core.settings import Settings, validate
from biomechgpt.motion import trial
from biomechgpt.motion.outcome_measures import ColumnKind
from biomechgpt.motion.trial import Trial

TRIALS, INFO, SPLITS_FILE = "trials", "cohort.json", "splits.json"
"""Names in a cohort's folder: the folder of shards, and what `CohortInfo` and `CohortSplits` hold."""


class Quarantined(Settings):
    """A recording that was kept out of a cohort."""

    path: str
    """Path of the recording in its folder."""
    reason: str
    """Why it was kept out."""


class CohortInfo(Settings):
    """Content of `cohort.json`: what the cohort contains, and what was left out."""

    annotations: dict[str, ColumnKind]
    """Kind of each annotation column: text or number."""
    frame_rate_hz: float
    """Frame rate of every trial."""
    participants: dict[str, int]
    """Number of participants in each split."""
    trials: int
    """Number of trials."""
    hours: float
    """Duration of all trials together."""
    quarantined: list[Quarantined]
    """Recordings that were kept out, each with the reason."""


class CohortSplits(SplitSettings):
    """Content of `splits.json`: the split of each participant and the settings."""

    participants: dict[str, str]
    """Each participant's split."""


@dataclass(frozen=True)
class Shard:
    """One Parquet file of trials; small enough to be sent to a Ray task.

    uri: where the file is.
    """

    uri: str

    @property
    def name(self) -> str:
        """The file's own name, the same in every artifact that keeps a cohort's shards."""
        return self.uri.rsplit("/", 1)[1]

    def table(self, columns: list[str] | None = None, where: pc.Expression | None = None) -> pa.Table:
        """The rows, with all columns or these; where: which rows. ArrowInvalid for a column that it lacks."""
        fs, path = storage.arrow_filesystem(self.uri)
        with storage.whole(self.uri):
            return pq.read_table(
                path, columns=columns, filesystem=fs, filters=where, page_checksum_verification=True
            )

    def batches(self, size: int, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        """The rows, `size` at a time, without ever holding the whole shard."""
        fs, path = storage.arrow_filesystem(self.uri)
        with storage.whole(self.uri), fs.open_input_file(path) as file:
            pages = pq.ParquetFile(file, page_checksum_verification=True)
            yield from pages.iter_batches(size, columns=columns)

    def schema(self) -> pa.Schema:
        """Names and types of the columns."""
        fs, path = storage.arrow_filesystem(self.uri)
        return pq.read_schema(path, filesystem=fs)

    def trials(self, split: str | None = None, names: Collection[str] | None = None) -> Iterator[Trial]:
        """The trials, all of them or those of a split or of these names."""
        conditions = []
        if split is not None:
            conditions.append(pc.field("split") == split)
        if names is not None:
            conditions.append(pc.field("trial").isin(pa.array(sorted(names), pa.string())))
        where = None
        for condition in conditions:
            where = condition if where is None else where & condition
        rows = self.table(where=where)
        # One row at a time: as Python numbers a trial takes ten times the memory that it takes in Arrow.
        for i in range(rows.num_rows):
            yield trial.from_row(rows.slice(i, 1).to_pylist()[0])


def list_shards(uri: str) -> list[Shard]:
    """The shards in a cohort's folder, finished or not, in order."""
    folder = storage.join(uri, TRIALS)
    return [Shard(storage.join(folder, name)) for name in storage.list_files(folder)]


def map_shards(
    shards: Iterable[Shard], function: Callable[[Shard], dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """`function` of every shard, each in a Ray task; the results come in the order of the shards."""
    items = ({"uri": shard.uri} for shard in shards)
    return cluster.map_ordered(items, lambda item: function(Shard(item["uri"])))


class Cohort:
    """Reads a cohort artifact."""

    def __init__(self, artifact: Artifact) -> None:
        self.artifact = artifact

    @cached_property
    def info(self) -> CohortInfo:
        """Content of `cohort.json`. Raises InputError if the file has another form."""
        return validate(CohortInfo, self.artifact.read_json(INFO), self.artifact.path(INFO))

    @cached_property
    def splits(self) -> dict[str, str]:
        """Each participant's split. Raises InputError if the file has another form."""
        path = self.artifact.path(SPLITS_FILE)
        return validate(CohortSplits, self.artifact.read_json(SPLITS_FILE), path).participants

    @cached_property
    def shards(self) -> list[Shard]:
        """The Parquet files of trials, in order."""
        return list_shards(self.artifact.uri)

    def trials(self, split: str | None = None, names: Collection[str] | None = None) -> Iterator[Trial]:
        """Trials one by one, in the order of the shards: all, or those of a split or of these names.

        Never more than a shard is in memory.
        """
        for shard in self.shards:
            yield from shard.trials(split, names)

    def table(self, columns: list[str] | None = None) -> pa.Table:
        """All trials, in the order of the shards, with all columns or these. ArrowInvalid for one it lacks."""
        return pa.concat_tables([shard.table(columns) for shard in self.shards])

    def map_shards(self, function: Callable[[Shard], dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """`function` of every shard, each in a Ray task; the results come in the order of the shards."""
        return map_shards(self.shards, function)
