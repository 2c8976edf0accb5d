"""The command `biomechgpt keys`: makes, lists and revokes access keys of the served model."""

import secrets
from pathlib import Path
from typing import Literal

from pydantic import Field

from biomechgpt.core.settings import InputError, Settings
from serve.clients import KEYS_FILE, NAME, add_key, add_smart_client, read_keys, revoke_key
from serve.scopes import USUAL
from serve.settings import KEY


class KeySettings(Settings):
    """Settings of `biomechgpt keys`."""

    action: Literal["print", "add", "list", "revoke"] = "print"
    """print: a key for the server's environment. add: a key for one client, or a client with public keys (`jwks`).
    list: all clients. revoke: end a client's key."""
    name: str | None = Field(None, pattern=NAME)
    """Name of the client, for add and revoke."""
    scopes: tuple[str, ...] = USUAL
    """What a new client may do. Reading the audit log, system/AuditEvent.rs, must be named."""
    jwks: str | None = None
    """File or https URI of the public keys of a SMART client. None: the client gets a key."""
    days: float | None = Field(365.0, gt=0)
    """Days until the new key expires; null: never."""
    file: str = KEYS_FILE
    """File that holds names, hashes and dates. The server reads it (its setting `keys`)."""
    bytes: int = Field(24, ge=16, le=64)
    """Random bytes in a printed key."""


def run_keys(settings: KeySettings) -> None:
    """Make, list or revoke keys. Raises InputError if a name is missing, unknown or taken."""
    path = Path(settings.file).expanduser()
    if settings.action == "print":
        make_key(settings)
    elif settings.action == "list":
        for entry in read_keys(path):
            expires = f"{entry.expires:%Y-%m-%d}" if entry.expires else "never"
            what = "SMART" if entry.jwks else "key"
            may = " ".join(entry.scopes)
            print(f"{entry.name}\t{what}\tmade {entry.created:%Y-%m-%d}\texpires {expires}\t{may}")
    elif settings.name is None:
        raise InputError(f"name: expected the client's name, as in `biomechgpt keys {settings.action} NAME`")
    elif settings.action == "add" and settings.jwks is not None:
        jwks = settings.jwks if "://" in settings.jwks else str(Path(settings.jwks).expanduser().absolute())
        add_smart_client(path, settings.name, settings.days, jwks, settings.scopes)
        print(f"registered {settings.name}: it signs with the keys of {jwks}")
    elif settings.action == "add":
        key = add_key(path, settings.name, settings.days, settings.scopes)
        print(f"# The key of {settings.name}. It is shown only now: {path} holds its hash.")
        print(key)
    else:
        revoke_key(path, settings.name)
        print(f"revoked the key of {settings.name}; a running server refuses it from the next request on")


def make_key(settings: KeySettings) -> None:
    """Print a new key as the line of a shell that sets it, with comments that say where it goes."""
    key = secrets.token_urlsafe(settings.bytes)
    print("# The server reads its access key from this variable. Keep the key secret; it is stored nowhere.")
    print(f"export {KEY}={key}")
    print(
        "# Run this line before `biomechgpt serve`. On Kubernetes, put the key into the Secret biomechgpt-api."
    )
    print("# Programs send it as the header `Authorization: Bearer KEY`; people open the page with #key=KEY.")
