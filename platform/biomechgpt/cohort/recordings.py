"""A user's folder of recordings: files that some reader understands, and a table, `annotations.csv`.

Knows where each recording is and what is annotated of it; knows nothing about splits or shards.
"""

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from biomechgpt import storage
from biomechgpt.cohort import readers
from biomechgpt.cohort.annotations import Row, read_annotations
from biomechgpt.cohort.resampling import resample
from biomechgpt.settings import InputError
from biomechgpt.trial import Trial

ANNOTATIONS = "annotations.csv"


@dataclass(frozen=True)
class Folder:
    """A checked folder: every row has its recording.

    columns: {annotation: "text" | "number"}. unannotated: recordings without a row.
    checksum: over the names and contents of all recordings and of the table.
    """

    uri: str
    rows: list[Row]
    columns: dict[str, str]
    unannotated: list[str]
    checksum: str


def open_folder(uri: str) -> Folder:
    """Read and check the table, hash every recording. Raises InputError naming line and column."""
    uri = storage.absolute(uri)
    if not storage.exists(uri):
        raise InputError(f"{uri}: no such folder of recordings")
    files = [name for name in storage.list_files(uri) if name]
    if not files:
        raise InputError(f"{uri}: expected recordings and {ANNOTATIONS}, found an empty folder or a file")
    if ANNOTATIONS not in files:
        raise InputError(f"{uri}: expected {ANNOTATIONS} beside the recordings, found none")
    rows, columns = read_annotations(storage.join(uri, ANNOTATIONS), storage.read_bytes)
    present = set(files)
    for row in rows:
        if row.path not in present:
            raise InputError(
                f"{storage.join(uri, ANNOTATIONS)}: line {row.line}: participant {row.participant!r}: "
                f"expected a recording at {row.path!r}, found no such file in {uri}"
            )
    annotated = {row.path for row in rows}
    found = {name for name in files if name.lower().endswith(readers.SUFFIXES)}
    recordings = sorted(found | annotated)
    return Folder(uri, rows, columns, sorted(found - annotated), _checksum(uri, [ANNOTATIONS, *recordings]))


def _checksum(uri: str, names: list[str]) -> str:
    def one(name: str) -> str:
        return hashlib.sha256(storage.read_bytes(storage.join(uri, name))).hexdigest()

    with ThreadPoolExecutor() as pool:
        lines = [f"{digest} {name}\n" for name, digest in zip(names, pool.map(one, names), strict=True)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def load(uri: str, row: Row, settings: readers.ReaderSettings, rate_hz: float) -> Trial:
    """The trial of one row, at `rate_hz`. Raises InputError that names the file as the table does."""
    recording = readers.read(storage.join(uri, row.path), settings, name=row.path)
    readers.require_complete(row.path, recording)
    angles_rad, pelvis = resample(recording.time_s, recording.angles_rad, recording.pelvis, rate_hz)
    return Trial(
        trial=row.path,
        participant=row.participant,
        angles_rad=angles_rad,
        pelvis=pelvis,
        frame_rate_hz=rate_hz,
        data="recorded",
        source=row.source,
        joint_mask=recording.joint_mask,
        annotations=dict(row.annotations),
    )


def labels(rows: list[Row]) -> Mapping[str, frozenset[str]]:
    """What is known of each participant, to be spread over the splits: texts, and which numbers there are."""
    known: dict[str, set[str]] = {}
    for row in rows:
        mine = known.setdefault(row.participant, set())
        for name, value in row.annotations.items():
            if value is not None:
                mine.add(f"{name}={value}" if isinstance(value, str) else name)
    return {participant: frozenset(mine) for participant, mine in known.items()}
