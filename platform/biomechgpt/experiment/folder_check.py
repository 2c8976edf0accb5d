"""Checks a folder of recordings before anything is trained: which files are read, and how people are split.

Starts no Ray and loads no model.
"""

import csv
import io
import logging
import os
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePosixPath

from pydantic import Field

from biomechgpt.cohort import CohortSettings
from biomechgpt.cohort.annotation_map import AnnotationMap
from biomechgpt.cohort.annotations import DEMOGRAPHICS, Row
from biomechgpt.cohort.contradictions import contradictions
from biomechgpt.cohort.folder import discover, find_unannotated, load_trial, misnamed_table, read_rows
from biomechgpt.cohort.layouts import merge
from biomechgpt.cohort.near_copies import Excerpt, excerpt, find_near_copies
from biomechgpt.cohort.selection import assign_splits
from biomechgpt.cohort.splits import SPLITS
from biomechgpt.core import storage
from biomechgpt.core.settings import InputError, Settings, load
from biomechgpt.experiment.settings import StageSettings
from biomechgpt.questions.dataset import QuestionsSettings
from biomechgpt.questions.tasks import AnnotatedTask, LabelTask, Tasks, load_tasks
from biomechgpt.recordings import readers
from biomechgpt.recordings.load import ANNOTATIONS, participant_by_place

logger = logging.getLogger("biomechgpt")

FEW_PEOPLE = 10
"""With fewer people to train on than this, a model learns little."""


class CheckSettings(StageSettings):
    """An experiment's settings, or a folder of recordings to check in their place."""

    folder: str | None = Field(None, exclude=True)
    """Folder of recordings (path or URI) to check. Without it, the experiment's settings are checked."""


class NewTableSettings(Settings):
    """Settings of `biomechgpt new-table`."""

    folder: str
    """Folder of recordings (path or URI) that has no annotations.csv yet."""
    questions: QuestionsSettings = QuestionsSettings()
    """The tasks, whose annotations become columns."""


@dataclass
class FolderReport:
    """What `check_folder` found.

    read: recordings that can be used.
    unread: {recording: why it cannot be used}.
    unannotated: recordings without a row in the table.
    problems: what is wrong with the table.
    unknown_labels: {annotation: {value: number of recordings}} of values that no task knows.
    unused_columns: annotations that no task asks about.
    people: {split: participants} of the recordings that are read and annotated.
    near_copies: pairs of recordings that begin or end the same.
    """

    read: list[str] = field(default_factory=list)
    unread: dict[str, str] = field(default_factory=dict)
    unannotated: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    unknown_labels: dict[str, dict[str, int]] = field(default_factory=dict)
    unused_columns: list[str] = field(default_factory=list)
    people: dict[str, int] = field(default_factory=dict)
    near_copies: list[str] = field(default_factory=list)

    def text(self, folder: str) -> str:
        """The report for people."""
        lines = [f"{folder}: {len(self.read)} recordings are read, {len(self.unread)} are not"]
        lines += [
            f"  not read: {why}" if name in why else f"  not read: {name}: {why}"
            for name, why in self.unread.items()
        ]
        lines += [f"  copies: {pair}" for pair in self.near_copies]
        lines += [f"  table: {problem}" for problem in self.problems]
        lines += [f"  no row in the table: {name}" for name in self.unannotated]
        for column, values in self.unknown_labels.items():
            listed = ", ".join(f"{value!r} ({n})" for value, n in values.items())
            lines.append(f"  {column}: no task knows {listed}")
        if self.unused_columns:
            lines.append(f"  columns that no task asks about: {', '.join(self.unused_columns)}")
        if self.people:
            counts = ", ".join(f"{self.people.get(split, 0)} {split}" for split in SPLITS)
            lines.append(f"people: {counts}")
            if self.people.get("train", 0) < FEW_PEOPLE:
                lines.append(
                    f"These are few people to train on (fewer than {FEW_PEOPLE}). "
                    f"`biomechgpt answer {shlex.quote(folder)}` asks a model that is there already."
                )
        return "\n".join(lines)


def run_folder_check(settings: CheckSettings) -> None:
    """Check the folder, or without one the experiment's settings; log what was found."""
    if settings.folder is None:
        # Loads torch, which the check of a folder does not need.
        from biomechgpt.experiment.pipeline import run_check

        run_check(settings)
        return
    tasks = load_tasks(settings.questions.tasks)
    logger.info(check_folder(settings.folder, settings.cohort, tasks).text(settings.folder))


def check_folder(folder: str, settings: CohortSettings, tasks: Tasks) -> FolderReport:
    """Read every recording and the table. Raises InputError only for a folder that is not there or empty.

    settings: how recordings are read and people are split.
    """
    report = FolderReport()
    uri = storage.absolute(folder)
    files, sessions = discover(uri)
    rows: list[Row] = []
    try:
        mapped = None if settings.annotations is None else load(AnnotationMap, settings.annotations)
        table = read_rows(uri, files, mapped)
        rows, columns = merge(ANNOTATIONS, table.rows, table.columns, sessions)
        report.problems += [str(problem) for problem in contradictions(rows, settings.plausible)]
        _check_labels(report, rows, columns, tasks)
    except InputError as error:
        report.problems.append(str(error))
    if not rows and ANNOTATIONS not in files:
        report.problems.append(
            misnamed_table(files)
            or f"there is none: `biomechgpt new-table {shlex.quote(folder)}` writes one to fill in"
        )
    present = set(files)
    report.problems += [f"{row}: no file {row.path}" for row in rows if row.path not in present]
    annotated = [row for row in rows if row.path in present]
    known = {row.path for row in annotated} | {ANNOTATIONS}
    report.unannotated = find_unannotated(uri, files, known, sessions)
    # Files that people take for recordings are named too, whatever they are. A session's others are known.
    inside = {session.folder for session in sessions}
    likely = [
        name
        for name in readers.without_markers_of_trials(files)
        if name not in known
        and inside.isdisjoint(map(str, PurePosixPath(name).parents))
        and readers.is_likely(name, partial(storage.read_head, storage.join(uri, name), readers.HEAD_BYTES))
    ]
    unnamed = [Row(0, path, "", None, {}) for path in dict.fromkeys([*report.unannotated, *likely])]
    excerpts = []
    for row, found in _read_all(uri, [*annotated, *unnamed], settings):
        if isinstance(found, Excerpt):
            report.read.append(row.path)
            excerpts.append(found)
        else:
            report.unread[row.path] = found
    report.near_copies = [
        f"{a} and {b} are nearly the same recording ({pair['rmse_deg']:g} degrees apart)"
        for pair in find_near_copies(excerpts)
        for a, b in [pair["trials"]]
    ]
    if not annotated:
        report.unannotated = []  # without a table every recording is without a row
    usable = [row for row in annotated if row.path not in report.unread]
    if usable:
        try:
            report.people = dict(Counter(assign_splits(usable, settings.splits).values()))
        except InputError as error:
            report.problems.append(str(error))
    return report


def _read_all(uri: str, rows: Sequence[Row], settings: CohortSettings) -> Iterable[tuple[Row, Excerpt | str]]:
    """Each row with its recording's start and end, or why the recording cannot be used."""

    def read(row: Row) -> Excerpt | str:
        try:
            content = storage.read_bytes(storage.join(uri, row.path))
            return excerpt(
                load_trial(content, row, settings.readers, settings.quality, settings.frame_rate_hz)
            )
        except InputError as error:
            return str(error)
        except OSError as error:
            return f"{row.path}: expected a file that can be read, found: {error.strerror or error}"
        except Exception as error:  # one unreadable file must not hide the others
            return f"{row.path}: cannot be read: {type(error).__name__}: {error}"

    with ThreadPoolExecutor(2 * (os.cpu_count() or 1)) as pool:
        yield from zip(rows, pool.map(read, rows), strict=True)


def _check_labels(report: FolderReport, rows: Iterable[Row], columns: Iterable[str], tasks: Tasks) -> None:
    asked = [task for task in tasks.values() if isinstance(task, AnnotatedTask)]
    report.unused_columns = sorted(set(columns) - {task.annotation for task in asked} - set(DEMOGRAPHICS))
    rows = list(rows)
    for task in asked:
        if not isinstance(task, LabelTask) or task.labels is None:
            continue
        values = Counter(
            str(row.annotations[task.annotation]) for row in rows if row.annotations.get(task.annotation)
        )
        if unknown := {value: n for value, n in values.items() if task.label_of(value) is None}:
            report.unknown_labels[task.annotation] = unknown


def _tables_of_movements(uri: str, files: Sequence[str]) -> list[str]:
    """The files that only the whole content tells from others: CSV, Parquet, Excel, MATLAB, a .zip of one trial."""

    def is_recording(name: str) -> bool:
        try:
            readers.read(storage.join(uri, name), readers.ReaderSettings(), name)
        except InputError:
            return False
        return True

    tables = [
        name
        for name in readers.without_markers_of_trials(files)
        if name.lower().endswith((*readers.MAYBE, ".zip")) and not PurePosixPath(name).name.startswith(".")
    ]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [name for name, yes in zip(tables, pool.map(is_recording, tables), strict=True) if yes]


def write_new_table(settings: NewTableSettings) -> str:
    """Write annotations.csv with a line for each recording, to be filled in; returns its path.

    The participant is the first folder of the file's path, or its name. Raises InputError if the table is there.
    """
    uri = storage.absolute(settings.folder)
    files, _ = discover(uri)
    if ANNOTATIONS in files:
        raise InputError(f"{settings.folder}: expected a folder without {ANNOTATIONS}, found one")
    names = sorted({*find_unannotated(uri, files, set(), []), *_tables_of_movements(uri, files)})
    if not names:
        raise InputError(f"{settings.folder}: expected recordings, found no file of a known format")
    tasks = load_tasks(settings.questions.tasks).values()
    asked = dict.fromkeys(task.annotation for task in tasks if isinstance(task, AnnotatedTask))
    buffer = io.StringIO()
    table = csv.writer(buffer, lineterminator="\n")
    table.writerow(["path", "participant", *asked])
    for name in names:
        table.writerow([name, participant_by_place(name), *[""] * len(asked)])
    path = storage.join(uri, ANNOTATIONS)
    storage.write_bytes(path, buffer.getvalue().encode())
    return path
