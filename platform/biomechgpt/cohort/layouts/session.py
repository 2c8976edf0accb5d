"""A session: one person's recordings in one place of a folder, and what the metadata there say about the person."""

from dataclasses import dataclass, field

from biomechgpt.core.settings import InputError
from biomechgpt.motion.outcome_measures import ColumnKind

COLUMNS: dict[str, ColumnKind] = {"height_m": "number", "mass_kg": "number", "age": "number", "sex": "text"}
"""Annotations that metadata files may state, and what they hold."""


@dataclass(frozen=True)
class Session:
    """One person's recordings; names of files are relative to the user's folder.

    folder: where the session is; no other file in there is taken for a recording.
    recordings: the files of movement.
    participant: the name of the person.
    stated: the metadata name the participant; if not, the name is the folder's, and a table may give another.
    annotations: what the metadata say about the person, in columns of `COLUMNS`.
    metadata: the files that say so.
    """

    folder: str
    recordings: tuple[str, ...]
    participant: str
    stated: bool = False
    annotations: dict[str, str | float] = field(default_factory=dict)
    metadata: tuple[str, ...] = ()


def number(name: str, key: str, value: object) -> float:
    """A metadata file's number above 0. Raises InputError naming file and key."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise InputError(f"{name}: {key}: expected a number above 0, found {value!r}")
    return float(value)
