"""OpenCap's session folders: sessionMetadata.yaml beside OpenSimData/Kinematics/<trial>.mot.

The metadata hold height_m, mass_kg, sex (gender_mf in other releases) and, if it was entered in the app, subjectID.
Without subjectID the folder's name stands for the participant.
"""

from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import Any

import yaml

from biomechgpt.cohort.layouts.session import Session, number
from biomechgpt.core.settings import InputError

NAME = "an OpenCap session"
_METADATA = ("sessionMetadata.yaml", "metadata.yaml")
_KINEMATICS = "OpenSimData/Kinematics"
_SEX = {"m": "male", "f": "female", "male": "male", "female": "female", "man": "male", "woman": "female"}


def sessions(files: Sequence[str], read: Callable[[str], bytes]) -> list[Session]:
    """A session for each folder with metadata and kinematics. Raises InputError naming file and key."""
    kinematics: dict[PurePosixPath, list[str]] = {}
    for name in files:
        path = PurePosixPath(name)
        if path.suffix.lower() == ".mot":
            kinematics.setdefault(path.parent, []).append(name)
    result = []
    for name in files:
        path = PurePosixPath(name)
        recordings = kinematics.get(path.parent / _KINEMATICS)
        if path.name in _METADATA and recordings:
            result.append(_session(name, read(name), path, tuple(recordings)))
    return result


def _session(name: str, content: bytes, path: PurePosixPath, recordings: tuple[str, ...]) -> Session:
    values = _values(name, content)
    subject = str(values.get("subjectID") or "").strip()
    annotations: dict[str, str | float] = {
        key: number(name, key, values[key])
        for key in ("height_m", "mass_kg", "age")
        if values.get(key) is not None
    }
    sex = str(values.get("sex") or values.get("gender_mf") or "").strip().lower()
    if sex in _SEX:  # any other entry counts as not collected
        annotations["sex"] = _SEX[sex]
    return Session(
        folder=str(path.parent),
        recordings=recordings,
        participant=subject or path.parent.name or "participant",
        stated=bool(subject),
        annotations=annotations,
        metadata=(name,),
    )


def _values(name: str, content: bytes) -> dict[str, Any]:
    try:
        values = yaml.safe_load(content)
    except yaml.YAMLError as error:
        raise InputError(f"{name}: not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise InputError(f"{name}: expected a mapping, found {type(values).__name__}")
    return values
