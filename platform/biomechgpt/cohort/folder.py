"""A user's folder of recordings: files that some reader understands, and a table, `annotations.csv`, or a layout.

Knows where each recording is and what is annotated of it; knows nothing about splits or shards.
"""

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath

from biomechgpt.cohort import layouts
from biomechgpt.cohort.annotations import AnnotationMap, Row, read_annotations, read_mapped
from biomechgpt.core import storage
from biomechgpt.core.settings import InputError
from biomechgpt.motion.trial import Trial
from biomechgpt.recordings import readers
from biomechgpt.recordings.load import prepare
from biomechgpt.recordings.quality import QualitySettings

ANNOTATIONS = "annotations.csv"


@dataclass(frozen=True)
class Folder:
    """A checked folder: every row has its recording.

    rows: of the table and of layouts. columns: {annotation: "text" | "number"}.
    unannotated: recordings without a row.
    checksum: over the names and contents of all recordings, of the table and of layouts' metadata.
    """

    uri: str
    rows: list[Row]
    columns: dict[str, str]
    unannotated: list[str]
    checksum: str


def open_folder(uri: str, mapped: AnnotationMap | None = None) -> Folder:
    """Read and check tables and metadata, hash every recording. Raises InputError naming line and column.

    mapped: how other tables than annotations.csv say the same.
    """
    uri = storage.absolute(uri)
    if not storage.exists(uri):
        raise InputError(f"{uri}: no such folder of recordings")
    files = [name for name in storage.list_files(uri) if name]
    if not files:
        raise InputError(f"{uri}: expected recordings and {ANNOTATIONS}, found an empty folder or a file")
    sessions = layouts.find(files, lambda name: storage.read_bytes(storage.join(uri, name)))
    tables = [ANNOTATIONS] if mapped is None else mapped.tables
    missing = [name for name in tables if name not in files]
    if missing and mapped is not None:
        raise InputError(f"{uri}: expected {missing[0]} beside the recordings, as the map says, found none")
    if missing and not sessions:
        raise InputError(
            f"{uri}: expected {ANNOTATIONS} beside the recordings, found none, nor a folder of a known layout "
            "(an OpenCap session, a Pose2Sim project)"
        )
    table = " or ".join(storage.join(uri, name) for name in tables)
    if mapped is not None:
        rows, columns = read_mapped(uri, mapped, storage.read_bytes)
    else:
        rows, columns = ([], {}) if missing else read_annotations(table, storage.read_bytes)
    present = set(files)
    for row in rows:
        if row.path not in present:
            raise InputError(
                f"{row}: participant {row.participant!r}: "
                f"expected a recording at {row.path!r}, found no such file in {uri}"
            )
    rows, columns = layouts.merge(table, rows, columns, sessions)
    known = {row.path for row in rows}
    inside = {session.folder for session in sessions}
    others = [
        name
        for name in files
        if name not in known.union(tables)
        and inside.isdisjoint(str(parent) for parent in PurePosixPath(name).parents)
    ]
    strays = _recognized(uri, others)
    said = sorted({name for session in sessions for name in session.metadata})
    checksum = _checksum(
        uri, [*(name for name in tables if name in files), *said, *sorted({*known, *strays})]
    )
    return Folder(uri, rows, columns, strays, checksum)


def _recognized(uri: str, names: list[str]) -> list[str]:
    """Those of the files that begin as a recording does, whatever they are called."""

    def one(name: str) -> bool:
        return readers.recognizes(storage.read_head(storage.join(uri, name), readers.HEAD_BYTES))

    with ThreadPoolExecutor() as pool:
        return sorted(name for name, is_one in zip(names, pool.map(one, names), strict=True) if is_one)


def _checksum(uri: str, names: list[str]) -> str:
    def one(name: str) -> str:
        return hashlib.sha256(storage.read_bytes(storage.join(uri, name))).hexdigest()

    with ThreadPoolExecutor() as pool:
        lines = [f"{digest} {name}\n" for name, digest in zip(names, pool.map(one, names), strict=True)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def load_trial(
    content: bytes, row: Row, settings: readers.ReaderSettings, judged_by: QualitySettings, rate_hz: float
) -> Trial:
    """The trial of one row from its file's content, at `rate_hz`. InputError names the file as the table does."""
    recording = readers.parse(row.path, content, settings)
    angles_rad, pelvis, repaired = prepare(row.path, recording, judged_by, rate_hz, row.frame_rate_hz)
    return Trial(
        trial=row.path,
        participant=row.participant,
        angles_rad=angles_rad,
        pelvis=pelvis,
        frame_rate_hz=rate_hz,
        data=row.data,
        source=row.source,
        joint_mask=recording.joint_mask,
        reading=recording.reading,
        repaired=repaired,
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
