"""Folders of one person each: person.json beside that person's .mot files."""

import json
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath

from biomechgpt.cohort.layouts.session import Session, number
from biomechgpt.core.settings import InputError

NAME = "a folder with person.json"


def sessions(files: Sequence[str], read: Callable[[str], bytes]) -> list[Session]:
    """A session for each person.json with recordings beside it. Raises InputError naming file and key."""
    result = []
    for metadata in files:
        folder = PurePosixPath(metadata).parent
        recordings = [f for f in files if PurePosixPath(f).parent == folder and f.endswith(".mot")]
        if PurePosixPath(metadata).name == "person.json" and recordings:
            result.append(_session(metadata, read(metadata), str(folder), tuple(recordings)))
    return result


def _session(metadata: str, content: bytes, folder: str, recordings: tuple[str, ...]) -> Session:
    try:
        person = json.loads(content)
    except ValueError as error:
        raise InputError(f"{metadata}: not valid JSON: {error}") from None
    return Session(
        folder=folder,
        recordings=recordings,
        participant=person["id"],
        stated=True,  # the file names the person, so a table that names another one is an error
        annotations={"age": number(metadata, "age", person["age"])},
        metadata=(metadata,),
    )
