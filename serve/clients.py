"""Clients of the server and their access keys: a file of names, hashes and dates, and the key of the environment.

A key has 256 random bits, so its plain SHA-256 cannot be turned back. The file holds no key. It is read again when
it changes: a client that is added, revoked or expired counts from the next request on. A client of SMART Backend
Services has public keys in place of a hash; `serve.smart` checks what it signs.
"""

import hashlib
import hmac
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from filelock import FileLock
from pydantic import AwareDatetime, Field, ValidationError, field_validator, model_validator

from biomechgpt.core import storage
from biomechgpt.core.logs import logger
from biomechgpt.core.settings import InputError, Settings, validate
from serve import scopes

ENVIRONMENT_CLIENT = "environment"
"""Name of the client whose key is in the server's environment."""
KEYS_FILE = "~/.biomechgpt/keys.json"
"""Where `biomechgpt keys` and `biomechgpt serve` keep the keys of this machine."""
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


@dataclass(frozen=True)
class Client:
    """Who sends a request.

    name: unique among clients.
    scopes: what it may do.
    """

    name: str
    scopes: tuple[str, ...] = scopes.USUAL


class KeyEntry(Settings):
    """One client in the file."""

    name: str = Field(pattern=NAME)
    """Who it is. The client_id of a SMART client."""
    sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$")
    """SHA-256 of its key, in hex digits. None: it has public keys."""
    jwks: str | None = None
    """File or https URI of the public keys (JWKS) of a SMART client. None: it has a key."""
    scopes: tuple[str, ...] = scopes.USUAL
    """What it may do."""
    created: AwareDatetime
    """When it was added."""
    expires: AwareDatetime | None = None
    """From when on it is refused. None: never."""

    @field_validator("scopes")
    @classmethod
    def _known_scopes(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            if not scopes.is_scope(value):
                raise ValueError(f"expected scopes such as {', '.join(scopes.SUPPORTED)}, found {value!r}")
        return values

    @field_validator("jwks")
    @classmethod
    def _file_or_https(cls, value: str | None) -> str | None:
        if value and "://" in value and not value.startswith(("https://", "http://127.0.0.1:")):
            raise ValueError("expected a file or an https URI (http only for 127.0.0.1)")
        return value

    @model_validator(mode="after")
    def _key_or_keys(self) -> "KeyEntry":
        if (self.sha256 is None) is (self.jwks is None):
            raise ValueError("expected a hash (sha256) or public keys (jwks)")
        return self

    def valid(self, now: datetime) -> bool:
        """Whether the client has not expired."""
        return self.expires is None or now < self.expires


class KeyFile(Settings):
    """All keys of a file."""

    keys: tuple[KeyEntry, ...] = ()
    """One entry for each client."""


class Clients:
    """The clients that may ask, by key or by name.

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
        self._damaged = False
        self._by_name: dict[str, KeyEntry] = {}
        self._by_hash: dict[str, KeyEntry] = {}

    def of_key(self, key: bytes) -> Client | None:
        """The client of a key; None if the key is not valid now."""
        found = hashlib.sha256(key).hexdigest()
        # compare_digest takes the same time for every wrong key, so timing does not reveal the key.
        if self._hash is not None and hmac.compare_digest(found, self._hash):
            return Client(ENVIRONMENT_CLIENT)
        self._read_again()
        entry = self._by_hash.get(found)
        return Client(entry.name, entry.scopes) if entry and entry.valid(datetime.now(UTC)) else None

    def registered(self, name: str) -> KeyEntry | None:
        """The SMART client of that name; None if there is none now."""
        self._read_again()
        entry = self._by_name.get(name)
        return entry if entry and entry.jwks and entry.valid(datetime.now(UTC)) else None

    def has_names(self) -> bool:
        """Whether the file names any client, or is damaged, so that nobody knows."""
        self._read_again()
        return bool(self._by_name) or self._damaged

    def _read_again(self) -> None:
        """Read the file if it has changed. A file that cannot be read holds no client."""
        if self._path is None:
            return
        try:
            status = self._path.stat()
            state = (status.st_mtime_ns, status.st_size, status.st_ino)
        except OSError:
            state = None
        if state == self._state:
            return
        self._state, self._damaged = state, False
        entries: Sequence[KeyEntry] = ()
        try:
            entries = read_keys(self._path)
        except InputError as error:
            self._damaged = True
            logger.error("%s", error)
        self._by_name = {entry.name: entry for entry in entries}
        self._by_hash = {entry.sha256: entry for entry in entries if entry.sha256}


def bearer_token(authorization: bytes) -> bytes | None:
    """The token of an `Authorization` header; None if it has none."""
    scheme, _, token = authorization.partition(b" ")
    return token.strip() or None if scheme.lower() == b"bearer" else None


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


def add_key(path: Path, name: str, days: float | None, client_scopes: Sequence[str] = scopes.USUAL) -> str:
    """Make a key for a client, and keep its hash. Raises InputError if the name is taken."""
    key = f"bgpt_{secrets.token_urlsafe(32)}"
    _add(path, name, days, scopes=client_scopes, sha256=digest(key))
    return key


def add_smart_client(
    path: Path, name: str, days: float | None, jwks: str, client_scopes: Sequence[str] = scopes.USUAL
) -> None:
    """Register a client of SMART Backend Services by its public keys. Raises InputError if the name is taken."""
    _add(path, name, days, scopes=client_scopes, jwks=jwks)


def _add(path: Path, name: str, days: float | None, **values: object) -> None:
    now = datetime.now(UTC)
    expires = None if days is None else now + timedelta(days=days)
    entry = validate(KeyEntry, {"name": name, "created": now, "expires": expires, **values}, "client")
    with _locked(path):
        entries = read_keys(path)
        if any(entry.name == name for entry in entries):
            raise InputError(
                f"{path}: {name!r} has a key already: revoke it first (biomechgpt keys revoke {name})"
            )
        _write(path, [*entries, entry])


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
