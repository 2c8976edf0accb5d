"""Makes the cohort artifact: people, files or other cohorts, through Ray Data, into Parquet shards.

A Ray task makes one shard and writes it whole under the shard's own name, so that order and content never
depend on how many workers there are, and a task that Ray repeats writes the same file again. What a task needs
comes with its item: the driver keeps a small row a trial, a worker one shard, whatever the cohort's size.
"""

import hashlib
import io
import pickle
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field, model_validator

from biomechgpt import simulator
from biomechgpt.cohort import annotations
from biomechgpt.cohort.annotations import AnnotationMap, Row
from biomechgpt.cohort.folder import ANNOTATIONS, Folder, labels, load_trial, open_folder
from biomechgpt.cohort.shards import INFO, SPLITS_FILE, Cohort, CohortInfo, CohortSplits, Shard
from biomechgpt.cohort.splits import SPLITS, SplitSettings, assign
from biomechgpt.core import artifact, cluster, storage
from biomechgpt.core.artifact import Artifact
from biomechgpt.core.settings import InputError, Settings, load, validate
from biomechgpt.motion import trial
from biomechgpt.motion.skeleton import N_JOINTS
from biomechgpt.recordings.quality import QualitySettings, content_hash, find_duplicates
from biomechgpt.recordings.readers import ReaderSettings
from biomechgpt.simulator import SimulatorSettings

_VERSION = 4
_NO_ROW = "no row in "
_FEWEST = 3
"""Participants: one to train on, one for validation, one to test."""


class CohortSettings(Settings):
    """What a cohort is made of: recordings, or other cohorts, or, without either, simulated people."""

    frame_rate_hz: float = Field(
        30.0, ge=10, description="recordings are resampled to it; merged cohorts keep theirs"
    )
    recordings: str | None = Field(
        None, description="folder (path or URI) of recordings with annotations.csv"
    )
    annotations: str | None = Field(
        None, description="YAML file that maps other tables of the folder (REDCap's export) to annotations"
    )
    cohorts: list[str] = Field(default_factory=list, description="URIs of cohort artifacts to merge into one")
    prefix: dict[str, str] = Field(
        default_factory=dict,
        description="{URI of a cohort: put before its participants}; without, one name is one person",
    )
    simulator: SimulatorSettings = SimulatorSettings()
    readers: ReaderSettings = ReaderSettings()
    quality: QualitySettings = QualitySettings()
    plausible: dict[str, tuple[float, float]] = Field(
        default_factory=dict,
        description="{measure: [low, high]} where yours go beyond annotations.MEASURES (its task then says so too)",
    )
    splits: SplitSettings = SplitSettings()
    strict: bool = Field(False, description="a recording that cannot be used is an error, not quarantined")
    shard_trials: int = Field(256, ge=1, description="most trials a shard, unless one participant has more")
    shard_mb: int = Field(64, ge=1, description="most megabytes a shard, unless one participant has more")

    @model_validator(mode="after")
    def _one_origin(self) -> "CohortSettings":
        if self.recordings is not None and self.cohorts:
            raise ValueError("expected recordings or cohorts, found both")
        if self.annotations is not None and self.recordings is None:
            raise ValueError("annotations map the tables of a folder: expected recordings as well")
        if unknown := sorted(self.prefix.keys() - set(self.cohorts)):
            raise ValueError(f"prefix: {unknown[0]!r} is none of the cohorts")
        return self


TableOf = Callable[[str, Any], pa.Table]
"""A participant's trials as rows of the cohort's schema, from their name and whatever makes them."""


def make_cohort(settings: CohortSettings, root: str) -> Artifact:
    """The cohort artifact under `root`: trials/part-*.parquet, cohort.json, splits.json and the data card.

    A simulated one has latent.parquet as well, what is true of each participant; no later stage reads it.
    A recording that cannot be used is quarantined with its reason, in cohort.json, and the rest go on.
    Raises InputError for a folder or table that is wrong, annotations that contradict one another, too few
    participants, more than half of the recordings unusable, or, where `strict`, any of them.
    """
    if settings.cohorts:
        return _make_merged(settings, root)
    shape = {"frame_rate_hz", "splits", "shard_trials", "shard_mb"}
    if settings.recordings is None:
        plain = settings.model_dump(mode="json", include={*shape, "simulator"})
        return artifact.make(
            "cohort", _VERSION, plain, {}, lambda uri: _simulate(settings, uri), root, data="synthetic"
        )
    mapped = None if settings.annotations is None else load(AnnotationMap, settings.annotations)
    folder = open_folder(settings.recordings, mapped)
    annotations.refuse(annotations.contradictions(folder.rows, settings.plausible))
    # The files' contents decide, not where they are.
    plain = settings.model_dump(mode="json", include={*shape, "readers", "quality", "strict"}) | {
        "recordings": f"sha256:{folder.checksum}",
        "annotations": mapped and mapped.model_dump(mode="json"),
    }
    return artifact.make(
        "cohort",
        _VERSION,
        plain,
        {},
        lambda uri: _record(settings, folder, mapped, uri),
        root,
        data=_nature(row.data for row in folder.rows),
    )


def _nature(natures: Iterable[str]) -> str:
    """`recorded`, `synthetic`, or `synthetic and recorded`."""
    return " and ".join(sorted(set(natures), reverse=True))


def _simulate(settings: CohortSettings, uri: str) -> dict[str, Any]:
    people = {person.name: person for person in simulator.participants(settings.simulator)}
    rate_hz, how, columns = settings.frame_rate_hz, settings.simulator, simulator.COLUMNS

    def table_of(_: str, person: simulator.Participant) -> pa.Table:
        return trial.table(simulator.trials(how, person, rate_hz), columns)

    column = settings.splits.site_column
    predefined = {name: person.split for name, person in people.items()}
    split = assign(
        {name: person.labels() for name, person in people.items()},
        settings.splits,
        predefined=predefined,
        sites={
            name: frozenset([str(v)] if (v := p.traits().get(column)) else []) for name, p in people.items()
        },
    )
    buffer = io.BytesIO()
    truth = [{"participant": name, **person.latent()} for name, person in people.items()]
    pq.write_table(pa.Table.from_pylist(truth), buffer)
    storage.write_bytes(storage.join(uri, "latent.parquet"), buffer.getvalue())
    sizes = {name: len(person.kinds) for name, person in people.items()}
    return _write(
        settings, uri, table_of, people, sizes, predefined, split, columns, rate_hz, "synthetic", []
    )


def _record(
    settings: CohortSettings, folder: Folder, mapped: AnnotationMap | None, uri: str
) -> dict[str, Any]:
    bad = _check(settings, folder)
    tables = [ANNOTATIONS] if mapped is None else mapped.tables
    good = [row for row in folder.rows if row.path not in bad]
    reasons = bad | {path: _NO_ROW + " or ".join(tables) for path in folder.unannotated}
    quarantined = [{"path": path, "reason": reasons[path]} for path in sorted(reasons)]
    _judge(settings, folder.uri, good, len(bad), quarantined)
    how, judged_by, rate_hz = settings.readers, settings.quality, settings.frame_rate_hz
    where, columns = folder.uri, folder.columns

    def table_of(_: str, rows: list[Row]) -> pa.Table:
        files = ((storage.read_bytes(storage.join(where, row.path)), row) for row in rows)
        return trial.table(
            (load_trial(content, row, how, judged_by, rate_hz) for content, row in files), columns
        )

    rows = _by_participant(good)
    sizes = {name: len(mine) for name, mine in rows.items()}
    split = _split(good, settings.splits)
    return _write(
        settings,
        uri,
        table_of,
        rows,
        sizes,
        _predefined(good),
        split,
        columns,
        rate_hz,
        _nature(row.data for row in good),
        quarantined,
    )


def _by_participant(rows: list[Row]) -> dict[str, list[Row]]:
    result: dict[str, list[Row]] = {}
    for row in rows:
        result.setdefault(row.participant, []).append(row)
    return result


def _predefined(rows: list[Row]) -> dict[str, str | None]:
    return {row.participant: row.split for row in rows if row.split}


def _split(rows: list[Row], settings: SplitSettings) -> dict[str, str]:
    """Each participant's split, from what is annotated of them."""
    sites: dict[str, set[str]] = {}
    for row in rows:
        site = row.annotations.get(settings.site_column)
        if site is not None:
            sites.setdefault(row.participant, set()).add(f"{site:g}" if isinstance(site, float) else site)
    return assign(
        labels(rows),
        settings,
        predefined=_predefined(rows),
        sites={name: frozenset(at) for name, at in sites.items()},
    )


def _check(settings: CohortSettings, folder: Folder) -> dict[str, str]:
    """{path: reason} of the recordings that cannot be used.

    Reads every file once before any is written: who is left decides the splits, and a cohort that did not
    fit into memory could not be kept until then.
    """
    where, how, judged_by, rate_hz = folder.uri, settings.readers, settings.quality, settings.frame_rate_hz

    def check(item: dict[str, Any]) -> dict[str, Any]:
        row: Row = pickle.loads(item["row"])
        try:
            content = storage.read_bytes(storage.join(where, row.path))
            made = load_trial(content, row, how, judged_by, rate_hz)
        except InputError as error:
            return {"reason": str(error), "file": "", "angles": ""}
        except Exception as error:  # whatever one file in a thousand holds, the others go on
            reason = f"{row.path}: cannot be read: {type(error).__name__}: {error}"
            return {"reason": reason, "file": "", "angles": ""}
        file = hashlib.sha256(content).hexdigest()[:16]
        return {"reason": "", "file": file, "angles": content_hash(made.angles_rad)}

    rows = sorted(folder.rows, key=lambda row: row.path)
    checked = list(cluster.each(({"row": pickle.dumps(row)} for row in rows), check))
    contents = [
        (row.path, _known(row), (item["file"], item["angles"]))
        for row, item in zip(rows, checked, strict=True)
        if not item["reason"]
    ]
    bad = {row.path: item["reason"] for row, item in zip(rows, checked, strict=True) if item["reason"]}
    return bad | find_duplicates(contents)


def _known(row: Row) -> tuple[Any, ...]:
    """All that is known of a recording but its name."""
    return (row.participant, *sorted(row.annotations.items()))


def _judge(
    settings: CohortSettings, where: str, good: list[Row], bad: int, quarantined: list[dict[str, str]]
) -> None:
    """Raise InputError where too much is wrong to go on; bad: how many of the annotated ones."""
    if settings.strict and quarantined:
        raise InputError(f"{where}: {len(quarantined)} recordings cannot be used{_first(quarantined)}")
    if bad > len(good):
        unusable = [item for item in quarantined if not item["reason"].startswith(_NO_ROW)]
        raise InputError(
            f"{where}: expected most recordings to be usable, "
            f"{bad} of {bad + len(good)} are not{_first(unusable)}"
        )
    people = sorted({row.participant for row in good})
    if len(people) < _FEWEST:
        raise InputError(
            f"{where}: expected usable recordings of at least {_FEWEST} participants (to train, "
            f"validate and test on different people), found {len(people)}: {', '.join(people)}"
            f"{_first(quarantined)}"
        )


def _first(quarantined: list[dict[str, str]], most: int = 5) -> str:
    lines = [
        f"\n  {item['path']}: {item['reason'].removeprefix(item['path'] + ': ')}" for item in quarantined
    ]
    more = [f"\n  and {len(lines) - most} more"] if len(lines) > most else []
    return "".join([*lines[:most], *more])


def _make_merged(settings: CohortSettings, root: str) -> Artifact:
    """One cohort of several. Their natures add up; who is trained on is decided anew over all of them."""
    parts = {uri: artifact.load(uri, "cohort") for uri in settings.cohorts}
    plain = settings.model_dump(
        mode="json", include={"splits", "shard_trials", "shard_mb", "strict", "plausible"}
    ) | {"prefix": [settings.prefix.get(uri, "") for uri in parts]}
    inputs = {f"cohort_{i}": part for i, part in enumerate(parts.values())}
    return artifact.make("cohort", _VERSION, plain, inputs, lambda uri: _merge(settings, parts, uri), root)


def _merge(settings: CohortSettings, parts: Mapping[str, Artifact], uri: str) -> dict[str, Any]:
    cohorts = {where: Cohort(part) for where, part in parts.items()}
    rate_hz, columns = _agreed({where: cohort.info for where, cohort in cohorts.items()})
    predefined = settings.splits.method == "predefined"
    shards = [
        {
            "predefined": predefined,
            "cohort": where,
            "shard": shard.uri,
            "prefix": settings.prefix.get(where, ""),
        }
        for where, cohort in cohorts.items()
        for shard in cohort.shards
    ]
    found = [pair for item in cluster.each(shards, _listed) for pair in pickle.loads(item["rows"])]
    rows = [row for row, _, _ in found]
    annotations.refuse(annotations.contradictions(rows, settings.plausible))
    reasons = find_duplicates((str(row), _known(row), (mark,)) for row, _, mark in found)
    kept: dict[str, str] = {}
    for row in rows:
        if str(row) not in reasons and kept.setdefault(row.path, row.table) != row.table:
            raise InputError(
                f"{row.table}: trial {row.path!r} is another one in {kept[row.path]}: set `prefix` for one of them"
            )
    quarantined = [{"path": name, "reason": reasons[name]} for name in sorted(reasons)]
    good = [row for row in rows if str(row) not in reasons]
    _judge(settings, " and ".join(parts), good, len(reasons), quarantined)
    # By participant: which shards their trials lie in, and which trials of them.
    places: dict[str, dict[tuple[str, str], list[str]]] = {}
    for row, shard, _ in found:
        if str(row) not in reasons:
            place = (shard, settings.prefix.get(row.table, ""))
            places.setdefault(row.participant, {}).setdefault(place, []).append(row.path)

    def table_of(name: str, mine: dict[tuple[str, str], list[str]]) -> pa.Table:
        return pa.concat_tables(
            _renamed(shard, prefix, trials, columns) for (shard, prefix), trials in mine.items()
        )

    sizes = {name: sum(map(len, mine.values())) for name, mine in places.items()}
    split = _split(good, settings.splits)
    nature = _nature(n for part in parts.values() for n in part.data.split(" and "))
    return _write(
        settings,
        uri,
        table_of,
        places,
        sizes,
        _predefined(good),
        split,
        columns,
        rate_hz,
        nature,
        quarantined,
    )


def _agreed(infos: Mapping[str, CohortInfo]) -> tuple[float, dict[str, str]]:
    """The frame rate and the annotations of cohorts that are to be one."""
    rates = {where: info.frame_rate_hz for where, info in infos.items()}
    if len(set(rates.values())) > 1:
        found = ", ".join(f"{rate:g} Hz in {where}" for where, rate in rates.items())
        raise InputError(f"cohorts: expected one frame rate, found {found}")
    columns: dict[str, str] = {}
    for where, info in infos.items():
        for name, kind in info.annotations.items():
            if columns.setdefault(name, kind) != kind:
                raise InputError(
                    f"{where}: column {name!r}: expected {columns[name]} as in the cohorts before, found {kind}"
                )
    return next(iter(rates.values())), columns


def _listed(item: dict[str, Any]) -> dict[str, Any]:
    """(row, shard, hash of the angles) of each trial of a shard, under the names that it will have."""
    table = _shard(item["shard"])
    angles = table["angles_rad"].combine_chunks()
    rest = table.drop_columns(["angles_rad", "pelvis", "joint_mask"]).to_pylist()
    found = []
    for i, known in enumerate(rest):
        row = Row(
            line=0,
            path=item["prefix"] + known["trial"],
            participant=item["prefix"] + known["participant"],
            source=known["source"],
            annotations={k: v for k, v in known.items() if k not in trial.FIXED.names},
            table=item["cohort"],
            # Where it is decided anew, that two cohorts had a person in different splits is no contradiction.
            split=known["split"] if item["predefined"] else None,
        )
        mark = content_hash(angles[i].values.to_numpy().reshape(-1, N_JOINTS))
        found.append((row, item["shard"], mark))
    return {"rows": pickle.dumps(found)}


@lru_cache(maxsize=1)
def _shard(uri: str) -> pa.Table:
    """A shard, kept while a task takes one participant after another from it."""
    return Shard(uri).table()


def _renamed(shard: str, prefix: str, trials: list[str], columns: Mapping[str, str]) -> pa.Table:
    """These trials of a shard in another cohort's schema; what that shard did not have is null."""
    table = _shard(shard)
    for name in ("trial", "participant"):
        renamed = pc.binary_join_element_wise(prefix, table[name], "")
        table = table.set_column(table.column_names.index(name), name, renamed)
    table = table.filter(pc.is_in(table["trial"], pa.array(trials)))
    wanted = trial.schema(columns)
    for column in wanted:
        if column.name not in table.column_names:
            table = table.append_column(column, pa.nulls(len(table), column.type))
    return table.select(wanted.names).cast(wanted)


def _write(
    settings: CohortSettings,
    uri: str,
    table_of: TableOf,
    people: Mapping[str, Any],
    sizes: Mapping[str, int],
    predefined: Mapping[str, str | None],
    split: Mapping[str, str],
    columns: Mapping[str, str],
    rate_hz: float,
    data: str,
    quarantined: list[dict[str, str]],
) -> dict[str, Any]:
    """Write shards, splits.json, cohort.json and the data card; returns the manifest's figures.

    sizes: trials a participant. predefined: the split that the data names. data: `synthetic`, `recorded` or both.
    """
    most_bytes = settings.shard_mb * 1_000_000

    def write(item: dict[str, Any]) -> dict[str, Any]:
        tables = (
            _in_split(table_of(name, person), split) for name, split, person in pickle.loads(item["people"])
        )
        result = {"trials": 0, "frames": 0, "shards": 0}
        for k, part in enumerate(_parts(tables, most_bytes)):
            buffer = io.BytesIO()
            pq.write_table(part, buffer)
            name = f"part-{item['shard']:05d}-{k:02d}.parquet"
            storage.write_bytes(storage.join(uri, "trials", name), buffer.getvalue())
            result["trials"] += len(part)
            result["frames"] += pc.sum(part["n_frames"]).as_py()
            result["shards"] += 1
        return result

    items = (
        {"shard": i, "people": pickle.dumps([(name, split[name], people[name]) for name in names])}
        for i, names in enumerate(pack(sizes, settings.shard_trials))
    )
    total: Counter[str] = Counter()
    for written in cluster.each(items, write):
        total.update(written)
    count = Counter(split.values())
    info = validate(
        CohortInfo,
        {
            "annotations": dict(columns),
            "frame_rate_hz": rate_hz,
            "participants": {name: count[name] for name in SPLITS},
            "trials": total["trials"],
            "hours": round(total["frames"] / rate_hz / 3600, 4),
            "quarantined": quarantined,
        },
        uri,
    )
    splits = CohortSplits(
        **settings.splits.decided(predefined).model_dump(), participants=dict(sorted(split.items()))
    )
    storage.write_json(storage.join(uri, SPLITS_FILE), splits.model_dump(mode="json"))
    storage.write_json(storage.join(uri, INFO), info.model_dump(mode="json"))
    from biomechgpt.cohort import (
        data_card as page,  # draws: nothing that every reader of a cohort has to load
    )

    page.write(uri, columns, quarantined, data, rate_hz)
    keep = ("participants", "trials", "hours")
    return {**info.model_dump(include=set(keep)), "shards": total["shards"], "quarantined": len(quarantined)}


def pack(sizes: Mapping[str, int], most: int) -> list[list[str]]:
    """Participants, in their order, in shards of at most `most` trials; one with more has a shard alone."""
    shards: list[list[str]] = []
    room = 0
    for name, size in sizes.items():
        if size > room:
            shards.append([])
            room = most
        shards[-1].append(name)
        room -= size
    return shards


def _in_split(table: pa.Table, split: str) -> pa.Table:
    i = table.column_names.index("split")
    return table.set_column(i, table.schema.field(i), pa.array([split] * len(table), pa.string()))


def _parts(tables: Iterator[pa.Table], most_bytes: int) -> Iterator[pa.Table]:
    """Participants' tables joined up to `most_bytes`; one that is larger is alone."""
    waiting: list[pa.Table] = []
    for table in tables:
        if waiting and sum(t.nbytes for t in waiting) + table.nbytes > most_bytes:
            yield pa.concat_tables(waiting)
            waiting = []
        waiting.append(table)
    yield pa.concat_tables(waiting)
