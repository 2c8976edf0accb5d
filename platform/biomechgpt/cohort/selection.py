"""Settings of a cohort, the check that enough of it is usable, and each participant's split.

Knows nothing about files of movement or shards.
"""

from collections.abc import Iterable, Mapping

from pydantic import Field, model_validator

from biomechgpt.cohort.annotations import Row
from biomechgpt.cohort.shards import Quarantined
from biomechgpt.cohort.splits import SplitSettings, assign
from biomechgpt.core.settings import InputError, Settings
from biomechgpt.recordings.quality import QualitySettings
from biomechgpt.recordings.readers import ReaderSettings
from biomechgpt.simulator import SimulatorSettings

NO_ROW = "no row in "
"""Beginning of the reason for which a recording without a row is kept out."""
_MIN_PARTICIPANTS = 3
"""One to train on, one for validation, one to test."""


class CohortSettings(Settings):
    """Content of a cohort: recordings, other cohorts, or simulated participants if neither is given."""

    frame_rate_hz: float = Field(30.0, ge=10)
    """Frame rate to which recordings are resampled. Merged cohorts keep theirs."""
    recordings: str | None = None
    """Folder (path or URI) of recordings with annotations.csv."""
    annotations: str | None = None
    """YAML file that maps other tables of the folder (a REDCap export) to annotations."""
    cohorts: list[str] = Field(default_factory=list)
    """URIs of cohort artifacts to merge into one."""
    prefix: dict[str, str] = Field(default_factory=dict)
    """{URI of a cohort: prefix for its participants and trials}. Without it, equal names are one person."""
    add_simulated: bool = False
    """Whether simulated people are added to the recordings. A model then learns from both."""
    simulator: SimulatorSettings = SimulatorSettings()
    """Simulated people, if there are neither recordings nor cohorts, or if they are added."""
    readers: ReaderSettings = ReaderSettings()
    """Settings of the readers."""
    quality: QualitySettings = QualitySettings()
    """Limits that a usable recording keeps."""
    plausible: dict[str, tuple[float, float]] = Field(default_factory=dict)
    """{outcome measure: [low, high]} beyond the ranges of `OUTCOME_MEASURES`; its task needs the same range."""
    splits: SplitSettings = SplitSettings()
    """Assignment of participants to training, validation and test."""
    strict: bool = False
    """An unusable recording is an error; without it, it is quarantined."""
    shard_trials: int = Field(256, ge=1)
    """Most trials in a shard, unless one participant has more."""
    shard_mb: int = Field(64, ge=1)
    """Most megabytes in a shard, unless one participant has more."""

    @model_validator(mode="after")
    def _one_origin(self) -> "CohortSettings":
        if self.recordings is not None and self.cohorts:
            raise ValueError("expected recordings or cohorts, found both")
        if self.annotations is not None and self.recordings is None:
            raise ValueError("annotations map the tables of a folder: expected recordings as well")
        if self.add_simulated and self.recordings is None:
            raise ValueError("add_simulated adds simulated people to recordings: expected recordings as well")
        if unknown := sorted(self.prefix.keys() - set(self.cohorts)):
            raise ValueError(f"prefix: {unknown[0]!r} is not one of the cohorts")
        return self


def combine_provenance(provenances: Iterable[str]) -> str:
    """`recorded`, `synthetic`, or `synthetic and recorded`."""
    return " and ".join(sorted(set(provenances), reverse=True))


def annotations_of(row: Row) -> tuple[object, ...]:
    """The participant and all annotations of a recording: everything but its name."""
    return (row.participant, *sorted(row.annotations.items()))


def predefined_splits(rows: Iterable[Row]) -> dict[str, str | None]:
    """The split of each participant whose rows name one."""
    return {row.participant: row.split for row in rows if row.split}


def assign_splits(rows: list[Row], settings: SplitSettings) -> dict[str, str]:
    """Each participant's split, from what is annotated of them."""
    sites: dict[str, set[str]] = {}
    for row in rows:
        site = row.annotations.get(settings.site_column)
        if site is not None:
            sites.setdefault(row.participant, set()).add(f"{site:g}" if isinstance(site, float) else site)
    return assign(
        split_labels(rows),
        settings,
        predefined=predefined_splits(rows),
        sites={participant: frozenset(names) for participant, names in sites.items()},
    )


def split_labels(rows: list[Row]) -> Mapping[str, frozenset[str]]:
    """Each participant's labels to spread evenly over the splits: each text value, and which numbers there are."""
    labels: dict[str, set[str]] = {}
    for row in rows:
        participant = labels.setdefault(row.participant, set())
        for name, value in row.annotations.items():
            if value is not None:
                participant.add(f"{name}={value}" if isinstance(value, str) else name)
    return {name: frozenset(values) for name, values in labels.items()}


def require_usable(
    where: str, usable: list[Row], unusable: int, quarantined: list[Quarantined], *, strict: bool
) -> None:
    """Raise InputError if too much is wrong to go on.

    unusable: number of annotated recordings that cannot be used.
    quarantined: these and the recordings without a row.
    strict: any quarantined recording is an error.
    """
    if strict and quarantined:
        raise InputError(f"{where}: {len(quarantined)} recordings cannot be used{_listed(quarantined)}")
    if unusable > len(usable):
        annotated = [item for item in quarantined if not item.reason.startswith(NO_ROW)]
        raise InputError(
            f"{where}: expected most recordings to be usable, "
            f"{unusable} of {unusable + len(usable)} are not{_listed(annotated)}"
        )
    people = sorted({row.participant for row in usable})
    if len(people) < _MIN_PARTICIPANTS:
        raise InputError(
            f"{where}: expected usable recordings of at least {_MIN_PARTICIPANTS} participants (to train, "
            f"validate and test on different people), found {len(people)}: {', '.join(people)}"
            f"{_listed(quarantined)}"
        )


def _listed(quarantined: list[Quarantined], most: int = 5) -> str:
    lines = [f"\n  {item.path}: {item.reason.removeprefix(item.path + ': ')}" for item in quarantined]
    more = [f"\n  and {len(lines) - most} more"] if len(lines) > most else []
    return "".join([*lines[:most], *more])
