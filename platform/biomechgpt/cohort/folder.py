"""A user's folder of recordings: files that some reader understands, and a table, `annotations.csv`, or a layout.

Knows where each recording is and what is annotated of it. Knows nothing about splits or shards.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, TypeVar

from biomechgpt.cohort import layouts
from biomechgpt.cohort.annotation_map import AnnotationMap, MappedTables
from biomechgpt.cohort.annotations import AnnotationTable, Row, as_files_are_called
from biomechgpt.cohort.layouts import Session
from biomechgpt.core import cluster, storage
from biomechgpt.core.settings import InputError
from biomechgpt.motion.outcome_measures import ColumnKind
from biomechgpt.motion.trial import Trial
from biomechgpt.recordings import readers
from biomechgpt.recordings.load import ANNOTATIONS, prepare
from biomechgpt.recordings.quality import QualitySettings

T = TypeVar("T")
FILES_HASHED_HERE = 2000
"""Most recordings that are hashed in this process. Starting Ray's workers takes longer than reading so many."""
FILES_OF_A_TASK = 500
"""Recordings that one task hashes."""


@dataclass(frozen=True)
class Folder:
    """A checked folder: every row has its recording.

    uri: its path or URI.
    tables: names of the tables that annotate its recordings.
    rows: one per annotated recording, of the tables and of layouts.
    columns: {annotation: "text" | "number"}.
    unannotated: recordings without a row.
    checksum: over the names and contents of all recordings, of the tables and of layouts' metadata.
    """

    uri: str
    tables: list[str]
    rows: list[Row]
    columns: dict[str, ColumnKind]
    unannotated: list[str]
    checksum: str


def open_folder(uri: str, mapped: AnnotationMap | None = None) -> Folder:
    """Read and check tables and metadata, hash every recording. Raises InputError naming line and column.

    Many recordings are hashed in Ray tasks, so that their bytes do not pass through this process.
    mapped: how other tables than annotations.csv say the same.
    """
    uri = storage.absolute(uri)
    tables = [ANNOTATIONS] if mapped is None else mapped.tables
    files, sessions = discover(uri)
    _require_tables(uri, files, tables, sessions, mapped)
    annotated = read_rows(uri, files, mapped)
    check_present(uri, annotated.rows, files)
    where = " or ".join(storage.join(uri, name) for name in tables)
    rows, columns = layouts.merge(where, annotated.rows, annotated.columns, sessions)
    recordings = {row.path for row in rows}
    unannotated = find_unannotated(uri, files, recordings.union(tables), sessions)
    metadata = sorted({name for session in sessions for name in session.metadata})
    present_tables = [name for name in tables if name in files]
    content = checksum(uri, [*present_tables, *metadata, *sorted({*recordings, *unannotated})])
    return Folder(uri, tables, rows, columns, unannotated, content)


def discover(uri: str) -> tuple[list[str], list[Session]]:
    """The files of a folder, and the sessions of known layouts among them. Raises InputError if it is empty."""
    if not storage.exists(uri):
        raise InputError(f"{uri}: no such folder of recordings")
    files = [name for name in storage.list_files(uri) if name]
    if not files:
        raise InputError(f"{uri}: expected recordings and {ANNOTATIONS}, found an empty folder or a file")
    return files, layouts.find(files, lambda name: storage.read_bytes(storage.join(uri, name)))


def _require_tables(
    uri: str, files: list[str], tables: list[str], sessions: Sequence[Session], mapped: AnnotationMap | None
) -> None:
    """Every table of a map has to be there; annotations.csv only where no layout says who was recorded."""
    missing = [name for name in tables if name not in files]
    if missing and mapped is not None:
        raise InputError(f"{uri}: expected {missing[0]} beside the recordings, as the map says, found none")
    if missing and not sessions:
        names = ", ".join(layout.NAME for layout in layouts.LAYOUTS)
        raise InputError(
            f"{uri}: expected {ANNOTATIONS} beside the recordings, found {misnamed_table(files) or 'none'}, nor a "
            f"folder of a known layout ({names})"
        )


def misnamed_table(files: Iterable[str]) -> str | None:
    """The file that is probably meant to be annotations.csv, and what to do; None without one."""
    stem = PurePosixPath(ANNOTATIONS).stem
    for name in files:
        path = PurePosixPath(name)
        if len(path.parts) == 1 and path.stem.lower() == stem and name != ANNOTATIONS:
            return f"{name}: save it as {ANNOTATIONS}"
    return None


def read_rows(uri: str, files: list[str], mapped: AnnotationMap | None) -> AnnotationTable:
    """The rows of annotations.csv, or of the tables that a map explains; empty without a table."""
    if mapped is not None:
        table = MappedTables.open(uri, mapped, storage.read_bytes).annotation_table()
    elif ANNOTATIONS in files:
        place = storage.join(uri, ANNOTATIONS)
        table = AnnotationTable.parse(place, storage.read_bytes(place))
    else:
        return AnnotationTable([], {})
    return as_files_are_called(table, files)


def check_present(uri: str, rows: Iterable[Row], files: Iterable[str]) -> None:
    """Raise InputError for a row whose recording is not among the files."""
    present = set(files)
    for row in rows:
        if row.path not in present:
            raise InputError(
                f"{row}: participant {row.participant!r}: "
                f"expected a recording at {row.path!r}, found no such file in {uri}"
            )


def find_unannotated(
    uri: str, files: Iterable[str], known: set[str], sessions: Iterable[Session]
) -> list[str]:
    """Recordings that no row and no session names; known: files that are recordings with a row, or tables."""
    session_folders = {session.folder for session in sessions}
    candidates = [
        name
        for name in readers.without_markers_of_trials(files)
        if name not in known and session_folders.isdisjoint(map(str, PurePosixPath(name).parents))
    ]

    def is_recording(name: str) -> bool:
        # The content decides, not the name; the first bytes are enough.
        try:
            return readers.recognizes(storage.read_head(storage.join(uri, name), readers.HEAD_BYTES))
        except OSError:  # a link to nowhere, or a file that this user may not read
            return False

    flags = _in_threads(is_recording, candidates)
    return sorted(name for name, flag in zip(candidates, flags, strict=True) if flag)


def checksum(uri: str, names: list[str]) -> str:
    """One hash over the names and contents of these files, in this order."""

    def digest(name: str) -> str:
        try:
            return hashlib.sha256(storage.read_bytes(storage.join(uri, name))).hexdigest()
        except OSError as error:  # the recording is kept out, with this reason, when it is read
            return f"unreadable {error.errno}"

    def digests_of(block: dict[str, Any]) -> dict[str, Any]:
        return {"digests": _in_threads(digest, list(block["names"]))}

    if len(names) > FILES_HASHED_HERE:
        starts = range(0, len(names), FILES_OF_A_TASK)
        blocks = ({"names": names[start : start + FILES_OF_A_TASK]} for start in starts)
        digests = [value for block in cluster.map_ordered(blocks, digests_of) for value in block["digests"]]
    else:
        digests = _in_threads(digest, names)
    lines = [f"{value} {name}\n" for name, value in zip(names, digests, strict=True)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _in_threads(function: Callable[[str], T], names: list[str]) -> list[T]:
    """`function` of each file, several at a time, since a remote file keeps a thread waiting."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(function, names))


def load_trial(
    content: bytes, row: Row, settings: readers.ReaderSettings, quality: QualitySettings, rate_hz: float
) -> Trial:
    """The trial of one row from its file's content, at `rate_hz`. InputError names the file as the table does."""
    recording = readers.parse(row.path, content, settings)
    angles_rad, pelvis, repaired = prepare(row.path, recording, quality, rate_hz, row.frame_rate_hz)
    return Trial(
        trial=row.path,
        participant=row.participant,
        angles_rad=angles_rad,
        pelvis=pelvis,
        frame_rate_hz=rate_hz,
        provenance=row.provenance,
        source=row.source,
        joint_mask=recording.joint_mask,
        import_notes=recording.import_notes,
        repairs=repaired,
        annotations=dict(row.annotations),
    )
