"""Makes the cohort artifact: people or files, through Ray Data, into Parquet shards.

A Ray task makes one shard and writes it whole under the shard's own name, so that order and content never
depend on how many workers there are, and a task that Ray repeats writes the same file again.
"""

import io
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from biomechgpt import artifact, cluster, storage, trial
from biomechgpt.artifact import Artifact
from biomechgpt.cohort import recordings, simulator
from biomechgpt.cohort.annotations import Row
from biomechgpt.cohort.card import write as write_card
from biomechgpt.cohort.readers import ReaderSettings
from biomechgpt.cohort.recordings import Folder
from biomechgpt.cohort.simulator import SimulatorSettings
from biomechgpt.cohort.splits import SPLITS, SplitSettings, assign
from biomechgpt.settings import InputError, Settings
from biomechgpt.trial import Trial

_VERSION = 3
_NO_ROW = f"no row in {recordings.ANNOTATIONS}"
_FEWEST = 3
"""Participants: one to train on, one for validation, one to test."""


class CohortSettings(Settings):
    """What a cohort is made of."""

    frame_rate_hz: float = Field(30.0, ge=10, description="of the cohort; recordings are resampled to it")
    recordings: str | None = Field(
        None, description="folder (path or URI) of recordings with annotations.csv; without one, simulate"
    )
    simulator: SimulatorSettings = SimulatorSettings()
    readers: ReaderSettings = ReaderSettings()
    splits: SplitSettings = SplitSettings()
    strict: bool = Field(False, description="a recording that cannot be used is an error, not quarantined")
    shard_trials: int = Field(256, ge=1, description="most trials a shard, unless one participant has more")


TrialsOf = Callable[[str], list[Trial]]
"""A participant's trials, made or read by whoever needs them."""


def make_cohort(settings: CohortSettings, root: str) -> Artifact:
    """The cohort artifact under `root`: trials/part-*.parquet and cohort.json.

    A recording that cannot be used is quarantined with its reason, in cohort.json, and the rest go on.
    Raises InputError for a folder or table that is wrong, too few participants, more than half of the
    recordings unusable, or, where `strict`, any of them.
    """
    if settings.recordings is None:
        plain = settings.model_dump(
            mode="json", include={"frame_rate_hz", "simulator", "splits", "shard_trials"}
        )
        return artifact.make(
            "cohort", _VERSION, plain, {}, lambda uri: _simulate(settings, uri), root, data="synthetic"
        )
    folder = recordings.open_folder(settings.recordings)
    # The files' contents decide, not where the folder is.
    plain = settings.model_dump(mode="json", exclude={"simulator"}) | {
        "recordings": f"sha256:{folder.checksum}"
    }
    return artifact.make(
        "cohort", _VERSION, plain, {}, lambda uri: _record(settings, folder, uri), root, data="recorded"
    )


def read_table(cohort: Artifact, columns: list[str] | None = None) -> pa.Table:
    """All trials, in the order of the shards, with all columns or these. ArrowInvalid for one it lacks."""
    fs, path = storage.arrow_filesystem(cohort.path("trials"))
    names = storage.list_files(cohort.path("trials"))
    tables = [pq.read_table(f"{path}/{name}", columns=columns, filesystem=fs) for name in names]
    return pa.concat_tables(tables)


def _simulate(settings: CohortSettings, uri: str) -> dict[str, Any]:
    people = {person.name: person for person in simulator.participants(settings.simulator)}
    rate_hz, how = settings.frame_rate_hz, settings.simulator

    def trials_of(name: str) -> list[Trial]:
        return list(simulator.trials(how, people[name], rate_hz))

    labels = {name: person.labels() for name, person in people.items()}
    sizes = {name: len(person.kinds) for name, person in people.items()}
    return _write(settings, uri, trials_of, sizes, labels, simulator.COLUMNS, [])


def _record(settings: CohortSettings, folder: Folder, uri: str) -> dict[str, Any]:
    bad = _check(settings, folder)
    good = [row for row in folder.rows if row.path not in bad]
    reasons = bad | {path: _NO_ROW for path in folder.unannotated}
    quarantined = [{"path": path, "reason": reasons[path]} for path in sorted(reasons)]
    _judge(settings, folder, good, bad, quarantined)
    rows: dict[str, list[Row]] = {}
    for row in good:
        rows.setdefault(row.participant, []).append(row)
    how, rate_hz, where = settings.readers, settings.frame_rate_hz, folder.uri

    def trials_of(name: str) -> list[Trial]:
        return [recordings.load(where, row, how, rate_hz) for row in rows[name]]

    sizes = {name: len(mine) for name, mine in rows.items()}
    return _write(settings, uri, trials_of, sizes, recordings.labels(good), folder.columns, quarantined)


def _check(settings: CohortSettings, folder: Folder) -> dict[str, str]:
    """{path: reason} of the recordings that cannot be used.

    Reads every file once before any is written: who is left decides the splits, and a cohort that did not
    fit into memory could not be kept until then.
    """
    rows = {row.path: row for row in folder.rows}
    where, how, rate_hz = folder.uri, settings.readers, settings.frame_rate_hz

    def check(item: dict[str, Any]) -> dict[str, Any]:
        path = item["path"]
        try:
            recordings.load(where, rows[path], how, rate_hz)
        except InputError as error:
            return {"path": path, "reason": str(error)}
        return {"path": path, "reason": ""}

    checked = _each([{"path": path} for path in sorted(rows)], check)
    return {item["path"]: item["reason"] for item in checked if item["reason"]}


def _judge(
    settings: CohortSettings,
    folder: Folder,
    good: list[Row],
    bad: Mapping[str, str],
    quarantined: list[dict[str, str]],
) -> None:
    """Raise InputError where too much is wrong to go on."""
    if settings.strict and quarantined:
        raise InputError(f"{folder.uri}: {len(quarantined)} recordings cannot be used{_first(quarantined)}")
    if 2 * len(bad) > len(folder.rows):
        unusable = [item for item in quarantined if item["path"] in bad]
        raise InputError(
            f"{folder.uri}: expected most recordings to be usable, "
            f"{len(bad)} of {len(folder.rows)} are not{_first(unusable)}"
        )
    people = sorted({row.participant for row in good})
    if len(people) < _FEWEST:
        raise InputError(
            f"{folder.uri}: expected usable recordings of at least {_FEWEST} participants (to train, "
            f"validate and test on different people), found {len(people)}: {', '.join(people)}"
            f"{_first(quarantined)}"
        )


def _first(quarantined: list[dict[str, str]], most: int = 5) -> str:
    lines = [
        f"\n  {item['path']}: {item['reason'].removeprefix(item['path'] + ': ')}" for item in quarantined
    ]
    more = [f"\n  and {len(lines) - most} more"] if len(lines) > most else []
    return "".join([*lines[:most], *more])


def _write(
    settings: CohortSettings,
    uri: str,
    trials_of: TrialsOf,
    sizes: Mapping[str, int],
    labels: Mapping[str, frozenset[str]],
    columns: Mapping[str, str],
    quarantined: list[dict[str, str]],
) -> dict[str, Any]:
    """Write shards and cohort.json; sizes: trials a participant. Returns the manifest's figures."""
    split = assign(labels, settings.splits)

    def write(item: dict[str, Any]) -> dict[str, Any]:
        made = [t for name in item["participants"] for t in trials_of(name)]
        for t in made:
            t.split = split[t.participant]
        buffer = io.BytesIO()
        pq.write_table(trial.table(made, columns), buffer)
        storage.write_bytes(
            storage.join(uri, "trials", f"part-{item['shard']:05d}.parquet"), buffer.getvalue()
        )
        return {"trials": len(made), "frames": sum(len(t.angles_rad) for t in made)}

    shards = pack(sizes, settings.shard_trials)
    written = _each([{"shard": i, "participants": names} for i, names in enumerate(shards)], write)
    count = Counter(split.values())
    hours = sum(item["frames"] for item in written) / settings.frame_rate_hz / 3600
    card = {
        "annotations": dict(columns),
        "frame_rate_hz": settings.frame_rate_hz,
        "participants": {name: count[name] for name in SPLITS},
        "trials": sum(item["trials"] for item in written),
        "hours": round(hours, 4),
        "quarantined": quarantined,
    }
    storage.write_json(storage.join(uri, "cohort.json"), card)
    nature = "synthetic" if settings.recordings is None else "recorded"
    write_card(uri, columns, quarantined, nature, settings.frame_rate_hz)
    keep = ("participants", "trials", "hours")
    return {**{k: card[k] for k in keep}, "shards": len(shards), "quarantined": len(quarantined)}


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


def _each(
    items: list[dict[str, Any]], do: Callable[[dict[str, Any]], dict[str, Any]]
) -> list[dict[str, Any]]:
    """`do` of every item, a Ray task an item or some, in order."""
    import ray

    cluster.connect()
    return ray.data.from_items(items, override_num_blocks=min(len(items), 1000)).map(do).take_all()
