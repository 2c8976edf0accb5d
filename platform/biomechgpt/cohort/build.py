"""Makes the cohort artifact from simulated people, from recordings, or from other cohorts.

Each of the three decides who is in the cohort and in which split, and leaves the writing to `writing`. Knows
nothing about tokens, questions or models.
"""

import hashlib
import io
import logging
import pickle
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from biomechgpt import simulator
from biomechgpt.cohort.annotation_map import AnnotationMap
from biomechgpt.cohort.annotations import Row
from biomechgpt.cohort.contradictions import contradictions, raise_contradictions
from biomechgpt.cohort.folder import Folder, load_trial, open_folder
from biomechgpt.cohort.merge import merge_cohorts
from biomechgpt.cohort.selection import (
    NO_ROW,
    CohortSettings,
    annotations_of,
    assign_splits,
    combine_provenance,
    predefined_splits,
    require_usable,
)
from biomechgpt.cohort.shards import Quarantined
from biomechgpt.cohort.splits import assign
from biomechgpt.cohort.writing import ShardPlan, write_cohort
from biomechgpt.core import artifact, cluster, storage
from biomechgpt.core.artifact import Artifact
from biomechgpt.core.settings import InputError, load
from biomechgpt.motion import trial
from biomechgpt.recordings.markers.opensim_engine import model_markers
from biomechgpt.recordings.quality import content_hash, find_duplicates

_VERSION = 14
_SHAPE = {"frame_rate_hz", "splits", "shard_trials", "shard_mb"}
"""Settings that decide the content of every cohort."""
_log = logging.getLogger("biomechgpt")


def make_cohort(settings: CohortSettings, root: str) -> Artifact:
    """The cohort artifact under `root`: trials/part-*.parquet, cohort.json, splits.json and the data card.

    A simulated cohort also has latent.parquet, the true traits of each participant, which no later stage reads.
    A recording that cannot be used is quarantined with its reason, in cohort.json, and the others go on.
    Raises InputError for a folder or table that is wrong, contradicting annotations, too few participants, more
    than half of the recordings unusable, or, where `strict`, any of them.
    """
    if settings.cohorts:
        return _make_merged(settings, root)
    if settings.recordings is None:
        return _make_simulated(settings, root)
    recorded = _make_recorded(settings, settings.recordings, root)
    return _with_simulated(settings, recorded, root) if settings.add_simulated else recorded


def _make_simulated(settings: CohortSettings, root: str) -> Artifact:
    content = settings.model_dump(mode="json", include={*_SHAPE, "simulator"})
    return artifact.make(
        "cohort", _VERSION, content, {}, lambda uri: _simulate(settings, uri), root, provenance="synthetic"
    )


def _make_recorded(settings: CohortSettings, recordings: str, root: str) -> Artifact:
    mapped = None if settings.annotations is None else load(AnnotationMap, settings.annotations)
    folder = open_folder(recordings, mapped)
    raise_contradictions(contradictions(folder.rows, settings.plausible))
    # The contents of the files decide, not where the files are.
    content = settings.model_dump(mode="json", include={*_SHAPE, "readers", "quality", "strict"}) | {
        "recordings": f"sha256:{folder.checksum}",
        "annotations": mapped and mapped.model_dump(mode="json"),
    }
    if settings.readers.opensim_model is not None:
        content["readers"]["opensim_model"] = _model_of_one_person(
            settings.readers.opensim_model, folder.rows
        )
    return artifact.make(
        "cohort",
        _VERSION,
        content,
        {},
        lambda uri: _record(settings, folder, uri),
        root,
        provenance=combine_provenance(row.provenance for row in folder.rows),
    )


def _model_of_one_person(uri: str, rows: Sequence[Row]) -> str:
    """The checksum of an OpenSim model. Raises InputError for no model, and for rows of several people."""
    people = {row.participant for row in rows}
    if len(people) > 1:
        raise InputError(
            f"readers.opensim_model: expected recordings of the one person whose model {uri} is, found "
            f"{len(people)} people"
        )
    return f"sha256:{hashlib.sha256(model_markers(uri)[0]).hexdigest()}"


def _with_simulated(settings: CohortSettings, recorded: Artifact, root: str) -> Artifact:
    """The recordings' cohort and a simulated one together. Everybody keeps the split that they have there."""
    simulated = _make_simulated(settings, root)
    changes = {
        "recordings": None,
        "annotations": None,
        "add_simulated": False,
        "cohorts": [recorded.uri, simulated.uri],
        "splits": settings.splits.model_copy(update={"method": "predefined"}),
    }
    return _make_merged(settings.model_copy(update=changes), root)


def _make_merged(settings: CohortSettings, root: str) -> Artifact:
    parts = {uri: artifact.load(uri, "cohort") for uri in settings.cohorts}
    content = settings.model_dump(
        mode="json", include={"splits", "shard_trials", "shard_mb", "strict", "plausible"}
    ) | {"prefix": [settings.prefix.get(uri, "") for uri in parts]}
    inputs = {f"cohort_{i}": part for i, part in enumerate(parts.values())}
    return artifact.make(
        "cohort", _VERSION, content, inputs, lambda uri: merge_cohorts(settings, parts, uri), root
    )


def _simulate(settings: CohortSettings, uri: str) -> dict[str, Any]:
    people = {person.name: person for person in simulator.participants(settings.simulator)}
    rate_hz, simulated, columns = settings.frame_rate_hz, settings.simulator, simulator.COLUMNS

    def table_of(person: simulator.Participant) -> pa.Table:
        return trial.table(simulator.trials(simulated, person, rate_hz), columns)

    site = settings.splits.site_column
    predefined = {name: person.split for name, person in people.items()}
    split = assign(
        {name: person.labels() for name, person in people.items()},
        settings.splits,
        predefined=predefined,
        sites={
            name: frozenset([str(value)] if (value := person.traits().get(site)) else [])
            for name, person in people.items()
        },
    )
    _write_latent(people, uri)
    plan = ShardPlan(
        people=people,
        table_of=table_of,
        sizes={name: len(person.kinds) for name, person in people.items()},
        predefined=predefined,
        split=split,
        columns=columns,
        rate_hz=rate_hz,
        provenance="synthetic",
        quarantined=[],
    )
    return write_cohort(plan, settings, uri)


def _write_latent(people: dict[str, simulator.Participant], uri: str) -> None:
    """latent.parquet: the true traits of each simulated participant."""
    buffer = io.BytesIO()
    rows = [{"participant": name, **person.latent()} for name, person in people.items()]
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    storage.write_bytes(storage.join(uri, "latent.parquet"), buffer.getvalue())


def _record(settings: CohortSettings, folder: Folder, uri: str) -> dict[str, Any]:
    unusable = check_recordings(settings, folder)
    usable = [row for row in folder.rows if row.path not in unusable]
    reasons = unusable | {path: NO_ROW + " or ".join(folder.tables) for path in folder.unannotated}
    quarantined = [Quarantined(path=path, reason=reasons[path]) for path in sorted(reasons)]
    n_people = len({row.participant for row in usable})
    _log.info("cohort: %d recordings of %d people kept", len(usable), n_people)
    if quarantined:
        _log.info("cohort: %d recordings not kept; its data_card.html has the reasons", len(quarantined))
    require_usable(folder.uri, usable, len(unusable), quarantined, strict=settings.strict)
    readers, quality, rate_hz = settings.readers, settings.quality, settings.frame_rate_hz
    where, columns = folder.uri, folder.columns

    def table_of(rows: list[Row]) -> pa.Table:
        files = ((storage.read_bytes(storage.join(where, row.path)), row) for row in rows)
        trials = (load_trial(content, row, readers, quality, rate_hz) for content, row in files)
        return trial.table(trials, columns)

    people = _by_participant(usable)
    plan = ShardPlan(
        people=people,
        table_of=table_of,
        sizes={name: len(rows) for name, rows in people.items()},
        predefined=predefined_splits(usable),
        split=assign_splits(usable, settings.splits),
        columns=columns,
        rate_hz=rate_hz,
        provenance=combine_provenance(row.provenance for row in usable),
        quarantined=quarantined,
    )
    return write_cohort(plan, settings, uri)


def _by_participant(rows: Iterable[Row]) -> dict[str, list[Row]]:
    result: dict[str, list[Row]] = {}
    for row in rows:
        result.setdefault(row.participant, []).append(row)
    return result


def check_recordings(settings: CohortSettings, folder: Folder) -> dict[str, str]:
    """{path: reason} of the recordings that cannot be used.

    Every file is read once before any trial is written: the usable ones decide the splits, and the trials of a
    cohort that does not fit into memory cannot be kept until the splits are known.
    """
    where, readers, quality, rate_hz = folder.uri, settings.readers, settings.quality, settings.frame_rate_hz

    def check(item: dict[str, Any]) -> dict[str, Any]:
        row: Row = pickle.loads(item["row"])  # noqa: S301 by this job
        try:
            content = storage.read_bytes(storage.join(where, row.path))
            loaded = load_trial(content, row, readers, quality, rate_hz)
        except InputError as error:
            return {"reason": str(error), "file": "", "angles": ""}
        except Exception as error:  # one unreadable file must not stop a thousand good ones
            reason = f"{row.path}: cannot be read: {type(error).__name__}: {error}"
            return {"reason": reason, "file": "", "angles": ""}
        file = hashlib.sha256(content).hexdigest()[:16]
        return {"reason": "", "file": file, "angles": content_hash(loaded.angles_rad)}

    rows = sorted(folder.rows, key=lambda row: row.path)
    checked = list(cluster.map_ordered(({"row": pickle.dumps(row)} for row in rows), check))
    readable = [
        (row.path, annotations_of(row), (item["file"], item["angles"]))
        for row, item in zip(rows, checked, strict=True)
        if not item["reason"]
    ]
    unusable = {row.path: item["reason"] for row, item in zip(rows, checked, strict=True) if item["reason"]}
    return unusable | find_duplicates(readable)
