"""The audit log: an AuditEvent for each answer is written before the first byte of the answer is sent.

The event is shaped as IHE's Basic Audit Log Patterns (BALP) ask of a query. It names the client, the model, the
SHA-256 of each recording, the tasks and the outcome. It holds no movement, no answer, no question in free words and
nobody's name.
"""

import asyncio
import base64
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from biomechgpt.core.logs import logger
from serve.errors import ApiError
from serve.fhir.elements import BASE, TERMS, instant
from serve.records import Records, Unavailable

QUERY_PROFILE = "https://profiles.ihe.net/ITI/BALP/StructureDefinition/IHE.BasicAudit.Query"
FREE_QUESTION = "(question)"
"""Stands for a question in free words, which is not recorded: it may hold a name."""
_DICOM = "http://dicom.nema.org/resources/ontology/DCM"
_DAY_S = 86_400

V = TypeVar("V")


@dataclass
class Access:
    """Facts about a request, for its audit record. The code that answers the request adds facts with `note`.

    client: name of the client.
    address: of the client, as the network sees it.
    server: address of this server.
    method: of HTTP.
    path: the route, without what the client put into it.
    query: of a search in the records themselves.
    model: fingerprint of the model.
    tasks: names of the tasks that were asked.
    hashes: (recording or motion-tokens, SHA-256), one for each.
    status: of HTTP.
    """

    client: str
    address: str
    server: str
    method: str
    path: str = ""
    query: str = ""
    model: str = ""
    tasks: list[str] = field(default_factory=list)
    hashes: list[tuple[str, str]] = field(default_factory=list)
    status: int = 0


ACCESS: ContextVar[Access | None] = ContextVar("access", default=None)
"""Facts about the running request; None if it is not recorded."""


def note(
    model: str | None = None,
    tasks: Iterable[str | None] = (),
    recording: bytes | None = None,
    tokens: Sequence[int] | None = None,
) -> None:
    """Add to the record of the running request. tasks: None stands for a question in free words."""
    access = ACCESS.get()
    if access is None:
        return
    access.model = model or access.model
    access.tasks += [name for task in tasks if (name := task or FREE_QUESTION) not in access.tasks]
    if recording is not None:
        access.hashes.append(("recording", hashlib.sha256(recording).hexdigest()))
    if tokens is not None:
        access.hashes.append(("motion-tokens", token_hash(tokens)))


def notes() -> dict[str, Any]:
    """What was noted of the running request, to be kept with results that are read later (`note_again`)."""
    access = ACCESS.get()
    if access is None:
        return {}
    return {"model": access.model, "tasks": [*access.tasks], "hashes": [*access.hashes]}


def note_again(kept: dict[str, Any]) -> None:
    """Add to the record of the running request what `notes` gave when its results were made."""
    access = ACCESS.get()
    if access is not None and kept:
        note(kept["model"], kept["tasks"])
        access.hashes += kept["hashes"]


def token_hash(tokens: Sequence[int]) -> str:
    """SHA-256 of motion tokens, by which a chat about them is found."""
    return hashlib.sha256(json.dumps([int(token) for token in tokens]).encode()).hexdigest()


def audit_event(access: Access, recorded: datetime) -> dict[str, Any]:
    """The R4 AuditEvent of a request. One that succeeded follows the profile of BALP."""
    outcome = "0" if access.status < 400 else "4" if access.status < 500 else "8"
    is_search = access.path.startswith("/fhir/AuditEvent")
    asked = access.query if is_search else "&".join(f"task={task}" for task in access.tasks)
    query = {
        "type": _coding(f"{TERMS}/audit-entity-type", "2", "System Object"),
        "role": _coding(f"{TERMS}/object-role", "24", "Query"),
        "description": f"{access.method} {access.path}",
        "query": base64.b64encode(asked.encode() or b"(none)").decode(),
    }
    sources = [("model", access.model)] if access.model else []
    return {
        "resourceType": "AuditEvent",
        **({"meta": {"profile": [QUERY_PROFILE]}} if outcome == "0" else {}),
        "type": _coding(f"{TERMS}/audit-event-type", "rest", "RESTful Operation"),
        "subtype": [
            _coding("http://hl7.org/fhir/restful-interaction", "search-type" if is_search else "operation")
        ],
        "action": "E",
        "recorded": instant(recorded),
        "outcome": outcome,
        "outcomeDesc": f"HTTP {access.status}",
        "agent": [
            _agent("110153", "Source Role ID", "client", access.client, access.address, is_requestor=True),
            _agent(
                "110152", "Destination Role ID", "server", access.server, access.server, is_requestor=False
            ),
        ],
        "source": _source(access.server),
        "entity": [query, *(_entity(kind, value) for kind, value in [*sources, *access.hashes])],
    }


def deletion_event(recorded: datetime) -> dict[str, Any]:
    """The AuditEvent that says that records were deleted because of their age."""
    return {
        "resourceType": "AuditEvent",
        "type": _coding(_DICOM, "110101", "Audit Log Used"),
        "action": "D",
        "recorded": instant(recorded),
        "outcome": "0",
        "outcomeDesc": "records deleted because of their age",
        "agent": [_agent("110150", "Application", "server", "biomechgpt", "127.0.0.1", is_requestor=True)],
        "source": _source("biomechgpt"),
    }


def _agent(
    code: str, display: str, kind: str, name: str, address: str, *, is_requestor: bool
) -> dict[str, Any]:
    return {
        "type": {"coding": [_coding(_DICOM, code, display)]},
        "who": {"identifier": {"system": f"{BASE}/identifier/{kind}", "value": name}},
        "altId": name,
        "requestor": is_requestor,
        "network": {"address": address, "type": "2"},
    }


def _source(server: str) -> dict[str, Any]:
    return {
        "observer": {"identifier": {"system": f"{BASE}/identifier/server", "value": server}},
        "type": [_coding(f"{TERMS}/security-source-type", "4", "Application Server")],
    }


def _entity(kind: str, value: str) -> dict[str, Any]:
    # `Other`, because BALP allows only one entity of the type of its query.
    return {
        "what": {"identifier": {"system": f"{BASE}/identifier/{kind}-sha256", "value": value}},
        "type": _coding(f"{TERMS}/audit-entity-type", "4", "Other"),
        "description": kind.replace("-", " "),
    }


def _coding(system: str, code: str, display: str | None = None) -> dict[str, str]:
    return {"system": system, "code": code, **({"display": display} if display else {})}


class AuditLog:
    """Calls the database from the event loop, within its time.

    One thread writes: one process does not wait for itself in the database.
    days: after which records are deleted, once a day. None: never.
    """

    def __init__(self, records: Records, timeout_s: float, days: float | None = None) -> None:
        self.records, self.timeout_s, self.days = records, timeout_s, days
        self._writer = ThreadPoolExecutor(1, "audit-writer")
        self._readers = ThreadPoolExecutor(2, "audit-reader")
        self._pruned = float("-inf")

    async def write(self, access: Access) -> None:
        """Returns when the record is safe. Raises ApiError `busy` if it is not: then no answer may be sent."""
        await self.in_writer(lambda: self.records.append(audit_event(access, datetime.now(UTC))))
        if self.days is not None and time.monotonic() - self._pruned > _DAY_S:
            self._pruned = time.monotonic()
            self._writer.submit(self._prune, self.days)

    def _prune(self, days: float) -> None:
        try:
            prune(self.records, days)
        except Unavailable as error:  # tomorrow is another day
            logger.error("old records could not be deleted: %s", error)

    async def in_writer(self, call: Callable[[], V]) -> V:
        """The result of a call that writes. Raises ApiError `busy`."""
        return await self._within_time(self._writer, call)

    async def in_reader(self, call: Callable[[], V]) -> V:
        """The result of a call that only reads. Raises ApiError `busy`."""
        return await self._within_time(self._readers, call)

    async def _within_time(self, threads: ThreadPoolExecutor, call: Callable[[], V]) -> V:
        try:
            future = asyncio.get_running_loop().run_in_executor(threads, call)
            return await asyncio.wait_for(future, self.timeout_s * 2)
        except (Unavailable, TimeoutError) as error:
            logger.error("the database of records failed: %s", type(error).__name__)
            message = "the answer cannot be recorded now, so there is none; try again later"
            raise ApiError("busy", message, retry_after_s=max(1, round(self.timeout_s))) from None


def prune(records: Records, days: float) -> int:
    """Delete records that are older. Returns how many."""
    now = datetime.now(UTC)
    before = now - timedelta(days=days)
    return records.prune(round(before.timestamp() * 1000), deletion_event(now))
