"""Clients of the server and their access keys: a file of names, hashes and dates, and the key of the environment.

A key has 256 random bits, so its plain SHA-256 cannot be turned back. The file holds no key. It is read again when
it changes: a key that is added, revoked or expired counts from the next request on.
"""

import hashlib
import hmac
import json
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from filelock import FileLock
from pydantic import AwareDatetime, Field, ValidationError

from biomechgpt.core import storage
from biomechgpt.core.logs import logger
from biomechgpt.core.settings import InputError, Settings

ENVIRONMENT_CLIENT = "environment"
"""Name of the client whose key is in the server's environment."""
KEYS_FILE = "~/.biomechgpt/keys.json"
"""Where `biomechgpt keys` and `biomechgpt serve` keep the keys of this machine."""
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


class KeyEntry(Settings):
    """One key in the file."""

    name: str = Field(pattern=NAME)
    """Who has it."""
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    """SHA-256 of the key, in hex digits."""
    created: AwareDatetime
    """When it was made."""
    expires: AwareDatetime | None = None
    """From when on it is refused. None: never."""

    def valid(self, now: datetime) -> bool:
        """Whether the key has not expired."""
        return self.expires is None or now < self.expires


class KeyFile(Settings):
    """All keys of a file."""

    keys: tuple[KeyEntry, ...] = ()
    """One entry for each client."""


class Clients:
    """Names the client of a key.

    key: of the environment; empty: none.
    path: file of further keys; None: none.
    Raises ValueError if there can be no key at all.
    """

    def __init__(self, key: str, path: str | None = None) -> None:
        if not key.strip() and path is None:
            raise ValueError("BIOMECHGPT_API_KEY: expected a key, found an empty one")
        self._hash = digest(key.strip()) if key.strip() else None
        self._path = None if path is None else Path(path).expanduser()
        self._state: object = None
        self._entries: dict[str, KeyEntry] = {}

    def of_header(self, authorization: bytes) -> str | None:
        """The client of an `Authorization` header; None if its key is not valid now."""
        scheme, _, key = authorization.partition(b" ")
        if scheme.lower() != b"bearer" or not key.strip():
            return None
        found = hashlib.sha256(key.strip()).hexdigest()
        # compare_digest takes the same time for every wrong key, so timing does not reveal the key.
        if self._hash is not None and hmac.compare_digest(found, self._hash):
            return ENVIRONMENT_CLIENT
        entry = self._current().get(found)
        return entry.name if entry is not None and entry.valid(datetime.now(UTC)) else None

    def _current(self) -> dict[str, KeyEntry]:
        """{hash: entry} of the file as it is now. A file that cannot be read holds no valid key."""
        if self._path is None:
            return {}
        try:
            status = self._path.stat()
            state = (status.st_mtime_ns, status.st_size, status.st_ino)
        except OSError:
            state = None
        if state != self._state:
            self._state = state
            try:
                self._entries = {entry.sha256: entry for entry in read_keys(self._path)}
            except InputError as error:
                self._entries = {}
                logger.error("%s", error)
        return self._entries


def digest(key: str) -> str:
    """SHA-256 of a key, in hex digits."""
    return hashlib.sha256(key.encode()).hexdigest()


def read_keys(path: Path) -> tuple[KeyEntry, ...]:
    """The entries of a file of keys; none if there is no file. Raises InputError for a damaged one."""
    try:
        return KeyFile.model_validate_json(path.read_bytes()).keys
    except FileNotFoundError:
        return ()
    except (OSError, ValidationError):
        raise InputError(f"{path}: expected a file of keys, found one that cannot be read") from None


def add_key(path: Path, name: str, days: float | None) -> str:
    """Make a key for a client, and keep its hash. Raises InputError if the name has a key already."""
    key = f"bgpt_{secrets.token_urlsafe(32)}"
    now = datetime.now(UTC)
    expires = None if days is None else now + timedelta(days=days)
    with _locked(path):
        entries = read_keys(path)
        if any(entry.name == name for entry in entries):
            raise InputError(
                f"{path}: {name!r} has a key already: revoke it first (biomechgpt keys revoke {name})"
            )
        _write(path, [*entries, KeyEntry(name=name, sha256=digest(key), created=now, expires=expires)])
    return key


def revoke_key(path: Path, name: str) -> None:
    """Remove a client's key. Raises InputError for an unknown name."""
    with _locked(path):
        entries = read_keys(path)
        left = [entry for entry in entries if entry.name != name]
        if len(left) == len(entries):
            known = ", ".join(entry.name for entry in entries) or "none"
            raise InputError(f"{path}: expected the name of a key ({known}), found {name!r}")
        _write(path, left)


def _locked(path: Path) -> FileLock:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return FileLock(path.with_name(f".{path.name}.lock"), mode=0o600)


def _write(path: Path, entries: Sequence[KeyEntry]) -> None:
    """Replace the file in one step. Only its owner can read it."""
    content = json.dumps({"keys": [entry.model_dump(mode="json") for entry in entries]}, indent=1)
    storage.write_bytes(str(path), f"{content}\n".encode(), mode=0o600)
