"""Makes one cohort of several: which of their trials it takes, under which names, and who is in which split.

Knows nothing about recordings' files; trials are copied from shards as they are.
"""

import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from biomechgpt.cohort.annotations import Row
from biomechgpt.cohort.contradictions import contradictions, raise_contradictions
from biomechgpt.cohort.selection import (
    CohortSettings,
    annotations_of,
    assign_splits,
    combine_provenance,
    predefined_splits,
    require_usable,
)
from biomechgpt.cohort.shards import Cohort, CohortInfo, Quarantined, Shard
from biomechgpt.cohort.writing import ShardPlan, write_cohort
from biomechgpt.core import cluster
from biomechgpt.core.artifact import Artifact
from biomechgpt.core.settings import InputError
from biomechgpt.motion import trial
from biomechgpt.motion.outcome_measures import ColumnKind
from biomechgpt.motion.skeleton import N_JOINTS
from biomechgpt.recordings.quality import content_hash, find_duplicates


class ListedTrial(NamedTuple):
    """A trial of one of the cohorts, under the names that it will have.

    row: what is known of it; `table` is the URI of its cohort.
    shard: URI of the shard that it lies in.
    content: hash of its angles.
    """

    row: Row
    shard: str
    content: str


class Source(NamedTuple):
    """A shard to copy trials from, and the prefix for its participants and trials."""

    shard: str
    prefix: str


@dataclass(frozen=True)
class MergePlan:
    """Trials of the merged cohort.

    rows: the trials' rows.
    sources: {participant: {source: names of the trials to copy, with their prefix}}.
    quarantined: trials that were left out because another trial has the same content.
    """

    rows: list[Row]
    sources: dict[str, dict[Source, list[str]]]
    quarantined: list[Quarantined]


def merge_cohorts(settings: CohortSettings, parts: Mapping[str, Artifact], uri: str) -> dict[str, Any]:
    """Write the cohort of `parts`, {URI as in the settings: cohort}, to `uri`; returns the manifest's metrics.

    Their provenances add up; the splits are decided anew over all participants.
    """
    cohorts = {where: Cohort(part) for where, part in parts.items()}
    rate_hz, columns = agree({where: cohort.info for where, cohort in cohorts.items()})
    plan = plan_merge(settings, list(_list_trials(settings, cohorts)))
    shard_plan = ShardPlan(
        people=plan.sources,
        table_of=_CopyTrials(columns),
        sizes={name: sum(map(len, sources.values())) for name, sources in plan.sources.items()},
        predefined=predefined_splits(plan.rows),
        split=assign_splits(plan.rows, settings.splits),
        columns=columns,
        rate_hz=rate_hz,
        provenance=combine_provenance(
            name for part in parts.values() for name in part.provenance.split(" and ")
        ),
        quarantined=plan.quarantined,
    )
    return write_cohort(shard_plan, settings, uri)


def agree(infos: Mapping[str, CohortInfo]) -> tuple[float, dict[str, ColumnKind]]:
    """The frame rate and the annotations of the merged cohort. Raises InputError if the cohorts differ in them."""
    rates = {where: info.frame_rate_hz for where, info in infos.items()}
    if len(set(rates.values())) > 1:
        listed = ", ".join(f"{rate:g} Hz in {where}" for where, rate in rates.items())
        raise InputError(f"cohorts: expected one frame rate, found {listed}")
    columns: dict[str, ColumnKind] = {}
    for where, info in infos.items():
        for name, kind in info.annotations.items():
            if columns.setdefault(name, kind) != kind:
                raise InputError(
                    f"{where}: column {name!r}: expected {columns[name]} as in the cohorts before, found {kind}"
                )
    return next(iter(rates.values())), columns


def plan_merge(settings: CohortSettings, listed: list[ListedTrial]) -> MergePlan:
    """Check all trials together and choose those to take.

    Raises InputError for contradictions, names that two cohorts use for different trials, or too few usable trials.
    """
    rows = [item.row for item in listed]
    raise_contradictions(contradictions(rows, settings.plausible))
    reasons = find_duplicates((str(item.row), annotations_of(item.row), (item.content,)) for item in listed)
    usable = [item for item in listed if str(item.row) not in reasons]
    _check_names([item.row for item in usable])
    quarantined = [Quarantined(path=name, reason=reasons[name]) for name in sorted(reasons)]
    kept = [item.row for item in usable]
    require_usable(" and ".join(settings.cohorts), kept, len(reasons), quarantined, strict=settings.strict)
    sources: dict[str, dict[Source, list[str]]] = {}
    for row, shard, _ in usable:
        source = Source(shard, settings.prefix.get(row.table, ""))
        sources.setdefault(row.participant, {}).setdefault(source, []).append(row.path)
    return MergePlan(kept, sources, quarantined)


def _check_names(rows: list[Row]) -> None:
    """A trial's name belongs to one cohort."""
    owner: dict[str, str] = {}
    for row in rows:
        if owner.setdefault(row.path, row.table) != row.table:
            raise InputError(
                f"{row.table}: trial {row.path!r} is another one in {owner[row.path]}: "
                "set `prefix` for one of them"
            )


def _list_trials(settings: CohortSettings, cohorts: Mapping[str, Cohort]) -> Iterator[ListedTrial]:
    """All trials of all cohorts, a Ray task per shard."""
    keep_split = settings.splits.method == "predefined"

    def list_shard(item: dict[str, str]) -> dict[str, bytes]:
        trials = _list_shard(item["cohort"], item["shard"], item["prefix"], keep_split=keep_split)
        return {"trials": pickle.dumps(trials)}

    items = (
        {"cohort": where, "shard": shard.uri, "prefix": settings.prefix.get(where, "")}
        for where, cohort in cohorts.items()
        for shard in cohort.shards
    )
    for result in cluster.map_ordered(items, list_shard):
        yield from pickle.loads(result["trials"])  # noqa: S301 by this job


def _list_shard(cohort: str, shard: str, prefix: str, *, keep_split: bool) -> list[ListedTrial]:
    table = Shard(shard).table()
    angles = table["angles_rad"].combine_chunks()
    metadata = table.drop_columns(["angles_rad", "pelvis", "joint_mask"]).to_pylist()
    listed = []
    for i, values in enumerate(metadata):
        row = Row(
            line=0,
            path=prefix + values["trial"],
            participant=prefix + values["participant"],
            source=values["source"],
            annotations={k: v for k, v in values.items() if k not in trial.FIXED.names},
            table=cohort,
            # If splits are decided anew, two cohorts may have a person in different splits.
            split=values["split"] if keep_split else None,
        )
        content = content_hash(angles[i].values.to_numpy().reshape(-1, N_JOINTS))
        listed.append(ListedTrial(row, shard, content))
    return listed


class _CopyTrials:
    """Copies a participant's trials from shards into the merged cohort's schema. Runs in a Ray task.

    The last shard stays open, since participants who follow one another mostly lie in the same one.
    """

    def __init__(self, columns: Mapping[str, ColumnKind]) -> None:
        self.columns = dict(columns)
        self._uri = ""
        self._table: pa.Table | None = None

    def __call__(self, sources: dict[Source, list[str]]) -> pa.Table:
        return pa.concat_tables(self._copy(source, names) for source, names in sources.items())

    def _copy(self, source: Source, names: list[str]) -> pa.Table:
        """These trials of a shard; a column that the shard lacks is null."""
        table = self._open(source.shard)
        for column in ("trial", "participant"):
            renamed = pc.binary_join_element_wise(source.prefix, table[column], "")
            table = table.set_column(table.column_names.index(column), column, renamed)
        table = table.filter(pc.is_in(table["trial"], pa.array(names)))
        schema = trial.schema(self.columns)
        for field in schema:
            if field.name not in table.column_names:
                table = table.append_column(field, pa.nulls(len(table), field.type))
        return table.select(schema.names).cast(schema)

    def _open(self, uri: str) -> pa.Table:
        if self._table is None or self._uri != uri:
            self._uri, self._table = uri, Shard(uri).table()
        return self._table
