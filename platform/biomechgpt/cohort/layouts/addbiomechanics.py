"""AddBiomechanics' subjects: _subject.json above the .mot files of the subject's trials.

The metadata hold heightM, massKg, sex and in some releases ageYears, as numbers or as text. The folder's name
stands for the participant. Of a subject's results, only the folder IK holds recordings; without one, every .mot
file does.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import Any

from biomechgpt.cohort.layouts.session import Session, number
from biomechgpt.core.settings import InputError

NAME = "a subject of AddBiomechanics"
_METADATA = "_subject.json"
_KEYS = {"heightM": "height_m", "massKg": "mass_kg", "ageYears": "age"}
_SEXES = ("male", "female")


def sessions(files: Sequence[str], read: Callable[[str], bytes]) -> list[Session]:
    """A session for each folder with metadata and recordings. Raises InputError naming file and key."""
    subjects = {PurePosixPath(name).parent: name for name in files if PurePosixPath(name).name == _METADATA}
    found: dict[PurePosixPath, list[str]] = {}
    for name in files:
        path = PurePosixPath(name)
        # A subject's folder may lie in another one's: the nearest counts.
        owner = next((parent for parent in path.parents if parent in subjects), None)
        if owner is not None and path.suffix.lower() == ".mot":
            found.setdefault(owner, []).append(name)
    return [_session(subjects[folder], read, folder, _kinematics(names)) for folder, names in found.items()]


def _kinematics(names: Sequence[str]) -> tuple[str, ...]:
    """The files in folders named IK, if there are any."""
    solved = tuple(name for name in names if "IK" in PurePosixPath(name).parts[:-1])
    return solved or tuple(names)


def _session(
    name: str, read: Callable[[str], bytes], folder: PurePosixPath, recordings: tuple[str, ...]
) -> Session:
    values = _values(name, read(name))
    annotations: dict[str, str | float] = {
        ours: number(name, theirs, _as_number(values[theirs]))
        for theirs, ours in _KEYS.items()
        if values.get(theirs) not in (None, "")
    }
    if (
        sex := str(values.get("sex") or "").strip().lower()
    ) in _SEXES:  # any other entry counts as not collected
        annotations["sex"] = sex
    return Session(
        folder=str(folder),
        recordings=recordings,
        participant=folder.name or "participant",
        annotations=annotations,
        metadata=(name,),
    )


def _as_number(value: Any) -> Any:
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _values(name: str, content: bytes) -> dict[str, Any]:
    try:
        values = json.loads(content)
    except ValueError as error:
        raise InputError(f"{name}: not valid JSON: {error}") from None
    if not isinstance(values, dict):
        raise InputError(f"{name}: expected an object, found {type(values).__name__}")
    return values
