"""Writes a cohort: shards through Ray Data, splits.json, cohort.json and the data card.

A Ray task makes one shard and writes it under the shard's own name. So order and content do not depend on the
number of workers, and a task that Ray repeats writes the same file again. The driver keeps a small row per trial, a
worker keeps one shard, whatever the size of the cohort. Knows nothing about where trials come from.
"""

import io
import pickle
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from biomechgpt.cohort.selection import CohortSettings
from biomechgpt.cohort.shards import (
    INFO,
    SPLITS_FILE,
    TRIALS,
    CohortInfo,
    CohortSplits,
    Quarantined,
)
from biomechgpt.cohort.splits import SPLITS
from biomechgpt.core import cluster, storage
from biomechgpt.motion.outcome_measures import ColumnKind

TableOf = Callable[[Any], pa.Table]
"""Makes a participant's trials, rows of the cohort's schema. Runs in a Ray task."""


@dataclass(frozen=True)
class ShardPlan:
    """Everything that is decided about a cohort before its trials are made.

    people: {participant: what `table_of` makes the trials from}, in the order of the shards.
    table_of: makes the trials of one participant.
    sizes: {participant: number of trials}.
    predefined: {participant: the split that the data names}.
    split: {participant: split}.
    columns: {annotation: "text" | "number"}.
    rate_hz: frame rate of all trials.
    provenance: `synthetic`, `recorded` or both.
    quarantined: recordings that were kept out.
    """

    people: Mapping[str, Any]
    table_of: TableOf
    sizes: Mapping[str, int]
    predefined: Mapping[str, str | None]
    split: Mapping[str, str]
    columns: Mapping[str, ColumnKind]
    rate_hz: float
    provenance: str
    quarantined: list[Quarantined]


def write_cohort(plan: ShardPlan, settings: CohortSettings, uri: str) -> dict[str, Any]:
    """Write shards, splits.json, cohort.json and the data card; returns the manifest's metrics."""
    total: Counter[str] = Counter()
    for written in _write_shards(plan, settings, uri):
        total.update(written)
    participants = Counter(plan.split.values())
    info = CohortInfo(
        annotations=dict(plan.columns),
        frame_rate_hz=plan.rate_hz,
        participants={name: participants[name] for name in SPLITS},
        trials=total["trials"],
        hours=round(total["frames"] / plan.rate_hz / 3600, 4),
        quarantined=plan.quarantined,
    )
    splits = CohortSplits(
        **settings.splits.decided(plan.predefined).model_dump(), participants=dict(sorted(plan.split.items()))
    )
    storage.write_json(storage.join(uri, SPLITS_FILE), splits.model_dump(mode="json"))
    storage.write_json(storage.join(uri, INFO), info.model_dump(mode="json"))
    # Imported here: it loads matplotlib, which readers of a cohort do not need.
    from biomechgpt.cohort import data_card

    data_card.write(uri, plan.columns, plan.quarantined, plan.provenance, plan.rate_hz)
    counts = info.model_dump(include={"participants", "trials", "hours"})
    return {**counts, "shards": total["shards"], "quarantined": len(plan.quarantined)}


def _write_shards(plan: ShardPlan, settings: CohortSettings, uri: str) -> Iterator[dict[str, int]]:
    """Write all shards; yields their numbers of trials, frames and files."""
    # Only these two go to every task, not the whole plan: each item brings its own participants.
    table_of, max_bytes = plan.table_of, settings.shard_mb * 1_000_000

    def write(item: dict[str, Any]) -> dict[str, int]:
        people = pickle.loads(item["people"])  # noqa: S301 by this job
        tables = (_with_split(table_of(person), split) for split, person in people)
        counts = {"trials": 0, "frames": 0, "shards": 0}
        for k, table in enumerate(join_tables(tables, max_bytes)):
            buffer = io.BytesIO()
            pq.write_table(table, buffer, write_page_checksum=True)
            name = f"part-{item['shard']:05d}-{k:02d}.parquet"
            storage.write_bytes(storage.join(uri, TRIALS, name), buffer.getvalue())
            counts["trials"] += len(table)
            counts["frames"] += pc.sum(table["n_frames"]).as_py()
            counts["shards"] += 1
        return counts

    items = (
        {"shard": i, "people": pickle.dumps([(plan.split[name], plan.people[name]) for name in names])}
        for i, names in enumerate(pack_participants(plan.sizes, settings.shard_trials))
    )
    yield from cluster.map_ordered(items, write)


def pack_participants(sizes: Mapping[str, int], max_trials: int) -> list[list[str]]:
    """Participants, in their order, in shards of at most `max_trials` trials; one with more has a shard alone."""
    shards: list[list[str]] = []
    left = 0
    for name, size in sizes.items():
        if size > left:
            shards.append([])
            left = max_trials
        shards[-1].append(name)
        left -= size
    return shards


def join_tables(tables: Iterator[pa.Table], max_bytes: int) -> Iterator[pa.Table]:
    """Participants' tables joined up to `max_bytes`; a larger one stays alone."""
    waiting: list[pa.Table] = []
    for table in tables:
        if waiting and sum(t.nbytes for t in waiting) + table.nbytes > max_bytes:
            yield pa.concat_tables(waiting)
            waiting = []
        waiting.append(table)
    yield pa.concat_tables(waiting)


def _with_split(table: pa.Table, split: str) -> pa.Table:
    i = table.column_names.index("split")
    return table.set_column(i, table.schema.field(i), pa.array([split] * len(table), pa.string()))
