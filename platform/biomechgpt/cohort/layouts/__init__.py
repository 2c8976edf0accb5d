"""Folders that say by their layout who was recorded. A new layout is one module with `sessions`, in LAYOUTS.

opencap      OpenCap's session folders
pose2sim     Pose2Sim's projects, single and in batches

Knows which files of a folder are whose and what their metadata say; knows nothing about what is in a recording.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import isclose
from typing import Protocol

from biomechgpt.cohort.annotations import Row
from biomechgpt.cohort.layouts import opencap, pose2sim
from biomechgpt.cohort.layouts.session import COLUMNS, Session
from biomechgpt.core.settings import InputError

__all__ = ["LAYOUTS", "Session", "find", "merge"]

Read = Callable[[str], bytes]
"""A file's content, by its name in the folder."""


class Layout(Protocol):
    """What a layout module has."""

    def sessions(self, files: Sequence[str], read: Read, /) -> list[Session]: ...


LAYOUTS: tuple[Layout, ...] = (opencap, pose2sim)


def find(files: Sequence[str], read: Read) -> list[Session]:
    """Every session among a folder's files, by whichever layout. Raises InputError naming a metadata file."""
    return [session for layout in LAYOUTS for session in layout.sessions(files, read)]


def merge(
    table: str, rows: list[Row], columns: dict[str, str], sessions: Sequence[Session]
) -> tuple[list[Row], dict[str, str]]:
    """The table's rows, completed by the sessions' annotations, and a row each for their other recordings.

    table: what messages call the table; columns: what each of its annotations holds. Rows come by participant
    and path, as from the table. Where the metadata do not name the participant, the table does, also
    for the session's recordings without a row. Raises InputError, by line, where table and metadata contradict
    each other.
    """
    stated = {key: COLUMNS[key] for session in sessions for key in session.annotations}
    for key, kind in stated.items():
        if columns.get(key, kind) != kind:
            raise InputError(f"{table}: line 1: column {key!r}: expected {kind}s, found {columns[key]}s")
    columns = stated | columns
    by_path = {row.path: row for row in rows}
    for session in sessions:
        mine = [by_path[path] for path in session.recordings if path in by_path]
        names = sorted({row.participant for row in mine})
        if session.stated:
            for row in mine:
                _agree(table, row, "participant", row.participant, session.participant, session)
        elif len(names) > 1 and len(mine) < len(session.recordings):
            lost = next(path for path in session.recordings if path not in by_path)
            raise InputError(
                f"{table}: expected a row for {lost!r}, since {session.folder} has recordings of "
                f"several participants ({', '.join(names)}), found none"
            )
        participant = names[0] if len(names) == 1 and not session.stated else session.participant
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


def _agree(
    table: str, row: Row, key: str, found: str | float | None, stated: str | float, session: Session
) -> None:
    if found is None or found == stated:
        return
    if not isinstance(found, str) and not isinstance(stated, str) and isclose(found, stated, rel_tol=1e-6):
        return
    raise InputError(
        f"{table}: line {row.line}, column {key!r}: expected {stated!r}, as "
        f"{', '.join(session.metadata)} says, found {found!r}"
    )
