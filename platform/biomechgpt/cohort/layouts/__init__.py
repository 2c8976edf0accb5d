"""Folders whose layout says who was recorded. A new layout is one module with NAME and `sessions`, in LAYOUTS.

addbiomechanics  subjects of AddBiomechanics
opencap          OpenCap's session folders
pose2sim         Pose2Sim's projects, single and in batches

Knows which files of a folder belong to whom and what their metadata say. Knows nothing about the content of a
recording.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import isclose
from typing import Protocol

from biomechgpt.cohort.annotations import Row
from biomechgpt.cohort.layouts import addbiomechanics, opencap, pose2sim
from biomechgpt.cohort.layouts.session import COLUMNS, Session
from biomechgpt.core.settings import InputError
from biomechgpt.motion.outcome_measures import ColumnKind

__all__ = ["LAYOUTS", "Layout", "Session", "find", "merge"]

Read = Callable[[str], bytes]
"""Gives a file's content by its name in the folder."""


class Layout(Protocol):
    """Interface of a layout module.

    NAME: name of such a folder in messages, with its article.
    sessions: the sessions among the files of a folder. Raises InputError naming a metadata file and a key.
    """

    @property
    def NAME(self) -> str: ...

    def sessions(self, files: Sequence[str], read: Read, /) -> list[Session]: ...


LAYOUTS: tuple[Layout, ...] = (addbiomechanics, opencap, pose2sim)
"""All of them look at every folder."""


def find(files: Sequence[str], read: Read) -> list[Session]:
    """Every session among a folder's files, of whichever layout. Raises InputError naming a metadata file."""
    return [session for layout in LAYOUTS for session in layout.sessions(files, read)]


def merge(
    table: str, rows: list[Row], columns: dict[str, ColumnKind], sessions: Sequence[Session]
) -> tuple[list[Row], dict[str, ColumnKind]]:
    """The table's rows, completed by the sessions' annotations, and a row for each of their other recordings.

    table: what messages call the table. columns: what each of its annotations holds. Rows come by participant and
    path. Where the metadata do not name the participant, the table does, also for recordings of the same session
    that have no row. Raises InputError, by line, where table and metadata contradict each other.
    """
    columns = _merged_columns(table, columns, sessions)
    by_path = {row.path: row for row in rows}
    for session in sessions:
        participant = _participant(table, session, by_path)
        for path in session.recordings:
            row = by_path.get(path) or Row(
                line=0, path=path, participant=participant, source=None, annotations={}
            )
            for key, value in session.annotations.items():
                _agree(table, row, key, row.annotations.get(key), value, session)
            by_path[path] = replace(row, annotations={**row.annotations, **session.annotations})
    complete = [
        replace(row, annotations={key: row.annotations.get(key) for key in columns})
        for row in by_path.values()
    ]
    return sorted(complete, key=lambda row: (row.participant, row.path)), columns


def _merged_columns(
    table: str, columns: dict[str, ColumnKind], sessions: Sequence[Session]
) -> dict[str, ColumnKind]:
    stated = {key: COLUMNS[key] for session in sessions for key in session.annotations}
    for key, kind in stated.items():
        if columns.get(key, kind) != kind:
            raise InputError(f"{table}: line 1: column {key!r}: expected {kind}s, found {columns[key]}s")
    return stated | columns


def _participant(table: str, session: Session, by_path: dict[str, Row]) -> str:
    """The participant of a session's recordings that have no row."""
    rows = [by_path[path] for path in session.recordings if path in by_path]
    names = sorted({row.participant for row in rows})
    if session.stated:
        for row in rows:
            _agree(table, row, "participant", row.participant, session.participant, session)
        return session.participant
    if len(names) > 1 and len(rows) < len(session.recordings):
        without_row = next(path for path in session.recordings if path not in by_path)
        raise InputError(
            f"{table}: expected a row for {without_row!r}, since {session.folder} has recordings of "
            f"several participants ({', '.join(names)}), found none"
        )
    return names[0] if len(names) == 1 else session.participant


def _agree(
    table: str, row: Row, key: str, value: str | float | None, stated: str | float, session: Session
) -> None:
    """Raise InputError where a row's value is not the one that the metadata state."""
    if value is None or value == stated:
        return
    if not isinstance(value, str) and not isinstance(stated, str) and isclose(value, stated, rel_tol=1e-6):
        return
    raise InputError(
        f"{table}: line {row.line}, column {key!r}: expected {stated!r}, as "
        f"{', '.join(session.metadata)} says, found {value!r}"
    )
