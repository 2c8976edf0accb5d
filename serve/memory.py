"""What the server keeps for its clients for a while: uploaded files, and the results of jobs. In memory only.

Every entry has an owner, who alone can read it, and a time after which it is gone. Knows nothing about HTTP or
models. With several gateways, one `Memory` is a deployment of its own, so that each gateway sees the same entries.
"""

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from serve.settings import GatewaySettings

FULL = "full"
"""Returned instead of an id if there is no room."""
_ENTRY_BYTES = 10_000


@dataclass
class Entry:
    """Something that is kept.

    owner: client that it belongs to.
    kind: `file`, `batch` or `job`.
    state: what is known about it.
    lines: (type, content) of each result; the content of a file.
    changed: time of the last change, in seconds since the epoch.
    """

    owner: str
    kind: str
    state: dict[str, Any]
    lines: list[tuple[str, bytes]] = field(default_factory=list)
    changed: float = field(default_factory=time.time)

    @property
    def size(self) -> int:
        """Bytes of the results. Each entry counts as some more, so that there are never very many."""
        return _ENTRY_BYTES + sum(len(line) for _, line in self.lines)


class MemoryClient(Protocol):
    """Methods of the memory, local or remote."""

    async def add(
        self, owner: str, kind: str, state: Mapping[str, Any], content: bytes | None = None
    ) -> str: ...

    async def change(
        self, key: str, state: Mapping[str, Any], line: tuple[str, bytes] | None = None
    ) -> bool: ...

    async def get(self, owner: str, kind: str, key: str) -> Entry | None: ...

    async def keys(self, owner: str, kind: str) -> list[str]: ...

    async def remove(self, owner: str, kind: str, key: str) -> bool: ...


class Memory:
    """The entries of all clients.

    settings: how much is kept, and how long.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        self.settings = settings
        self._entries: dict[str, Entry] = {}

    async def add(self, owner: str, kind: str, state: Mapping[str, Any], content: bytes | None = None) -> str:
        """Keep something; its id, or FULL."""
        entry = Entry(owner, kind, dict(state), [] if content is None else [("content", content)])
        if not self._has_room(owner, entry.size):
            return FULL
        key = f"{kind}-{secrets.token_urlsafe(18)}".replace("_", "-")
        self._entries[key] = entry
        return key

    async def change(self, key: str, state: Mapping[str, Any], line: tuple[str, bytes] | None = None) -> bool:
        """Update the state of an entry and add a result; False if it is gone, or if there is no room."""
        self._drop_old()
        entry = self._entries.get(key)
        if entry is None or (line is not None and not self._has_room(entry.owner, len(line[1]))):
            return False
        entry.state.update(state)
        entry.changed = time.time()
        if line is not None:
            entry.lines.append(line)
        return True

    async def get(self, owner: str, kind: str, key: str) -> Entry | None:
        """An entry; None if this owner has none of this kind with this id."""
        self._drop_old()
        entry = self._entries.get(key)
        return entry if entry is not None and (entry.owner, entry.kind) == (owner, kind) else None

    async def keys(self, owner: str, kind: str) -> list[str]:
        """The ids of an owner's entries, the oldest first."""
        self._drop_old()
        return [key for key, entry in self._entries.items() if (entry.owner, entry.kind) == (owner, kind)]

    async def remove(self, owner: str, kind: str, key: str) -> bool:
        """Forget an entry; False if this owner has none of this kind with this id."""
        if await self.get(owner, kind, key) is None:
            return False
        del self._entries[key]
        return True

    def _has_room(self, owner: str, size: int) -> bool:
        self._drop_old()
        own = sum(entry.size for entry in self._entries.values() if entry.owner == owner)
        everything = sum(entry.size for entry in self._entries.values())
        most, most_of_one = self.settings.max_kept_bytes, self.settings.max_client_kept_bytes
        return own + size <= most_of_one and everything + size <= most

    def _drop_old(self) -> None:
        oldest = time.time() - self.settings.keep_s
        for key in [key for key, entry in self._entries.items() if entry.changed < oldest]:
            del self._entries[key]
