"""Pose2Sim's projects: Config.toml beside kinematics/<trial>.mot, alone or as trials of a batch.

In a batch a trial's folder lies in its participant's folder, which has a Config.toml too; a setting that a trial's
file lacks comes from the levels above. A trial of several people has a file per person, named ..._P1_...,
..._P2_..., and lists of heights and masses in that order. No file names a person, so the folder's name stands for
the participant.
"""

import re
import tomllib
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import Any

from biomechgpt.cohort.layouts.session import Session, number
from biomechgpt.core.settings import InputError

NAME = "a Pose2Sim project"
_CONFIG, _KINEMATICS = "Config.toml", "kinematics"
_PERSON = re.compile(r"_P(\d+)(?=[_.])")
_KEYS = {"height_m": "participant_height", "mass_kg": "participant_mass"}


def sessions(files: Sequence[str], read: Callable[[str], bytes]) -> list[Session]:
    """A session for each person of each trial with kinematics. Raises InputError naming file and key."""
    configs = {PurePosixPath(f).parent: f for f in files if PurePosixPath(f).name == _CONFIG}
    trials: dict[PurePosixPath, list[str]] = {}
    for f in files:
        path = PurePosixPath(f)
        trial = path.parent.parent
        if path.parent.name == _KINEMATICS and trial in configs and path.suffix.lower() == ".mot":
            trials.setdefault(trial, []).append(f)
    levels = {folder for trial in trials for folder in (trial, *trial.parents) if folder in configs}
    parsed = {folder: _project(configs[folder], read(configs[folder])) for folder in levels}
    people: dict[tuple[PurePosixPath, int | None], list[str]] = {}
    for trial, names in trials.items():
        multi_person = _inherited(parsed, trial, "multi_person")[1] is True
        for f in names:
            match = _PERSON.search(PurePosixPath(f).name) if multi_person else None
            people.setdefault((trial, int(match[1]) if match else None), []).append(f)
    return [
        _session(configs, parsed, trial, person, tuple(names)) for (trial, person), names in people.items()
    ]


def _session(
    configs: dict[PurePosixPath, str],
    parsed: dict[PurePosixPath, dict[str, Any]],
    trial: PurePosixPath,
    person: int | None,
    recordings: tuple[str, ...],
) -> Session:
    owner = trial.parent if trial.parent in configs and trial.parent != trial else trial
    annotations: dict[str, str | float] = {}
    for key, setting in _KEYS.items():
        folder, value = _inherited(parsed, trial, setting)
        if isinstance(value, list):
            value = value[(person or 1) - 1] if (person or 1) <= len(value) else None
        elif person is not None:
            value = None  # one number for several people belongs to none of them
        if folder is not None and value not in (None, "auto", 0):
            annotations[key] = number(configs[folder], setting, value)
    name = owner.name or "participant"
    levels = [folder for folder in (trial, *trial.parents) if folder in configs]
    return Session(
        folder=str(trial),
        recordings=recordings,
        participant=name if person is None else f"{name} P{person}",
        annotations=annotations,
        metadata=tuple(configs[folder] for folder in levels),
    )


def _inherited(
    parsed: dict[PurePosixPath, dict[str, Any]], trial: PurePosixPath, key: str
) -> tuple[PurePosixPath | None, Any]:
    """The setting of the nearest level that has it, and that level."""
    for folder in (trial, *trial.parents):
        if key in parsed.get(folder, {}):
            return folder, parsed[folder][key]
    return None, None


def _project(name: str, content: bytes) -> dict[str, Any]:
    try:
        project = tomllib.loads(content.decode("utf-8-sig")).get("project", {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{name}: not valid TOML: {error}") from None
    if not isinstance(project, dict):
        raise InputError(f"{name}: [project]: expected a table, found {project!r}")
    return project
