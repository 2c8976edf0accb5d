"""A session: one person's recordings in one place of a folder, and what the metadata there say of that person."""

from dataclasses import dataclass, field

from biomechgpt.core.settings import InputError

COLUMNS: dict[str, str] = {"height_m": "number", "mass_kg": "number", "age": "number", "sex": "text"}
"""Annotations that metadata files may state, and what they hold."""


@dataclass(frozen=True)
class Session:
    """Names of files are relative to the user's folder.

    folder: where it is; nothing else in there is a recording. participant: the metadata's name of the person
    where `stated`, else the folder's. metadata: the files that say so.
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
