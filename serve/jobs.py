"""Work that goes on after its request is answered: `Prefer: respond-async` of FHIR, and /v1/batches.

A job has items, one a recording, that are worked on one after the other. Its client asks how far it is, and reads
the results. Jobs wait for their turn like requests, so they keep nobody waiting. Knows nothing about HTTP paths.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from serve.admission import CLIENT
from serve.audit import ACCESS, Access, note_again, notes
from serve.bodies import Buffer
from serve.errors import ApiError
from serve.memory import FULL, Entry, MemoryClient
from serve.model import SERVED, ModelChanged
from serve.settings import GatewaySettings

Work = Callable[[], Awaitable[tuple[str, bytes]]]
"""Does an item: its result as (type, content). Raises ApiError."""
Failure = Callable[[int, ApiError], tuple[str, bytes]]
"""The result of an item that failed, by its number."""

logger = logging.getLogger("biomechgpt.serve")
RETRY_S = 2
"""Seconds after which a client may ask again how far a job is."""


class Jobs:
    """The jobs of a gateway.

    memory: keeps their results.
    settings: limits of jobs.
    forget_model: called if an item has to begin again, because its model is gone.
    """

    def __init__(
        self, memory: MemoryClient, settings: GatewaySettings, forget_model: Callable[[], None] = lambda: None
    ) -> None:
        self.memory, self.settings, self.forget_model = memory, settings, forget_model
        self._buffer = Buffer(settings.max_kept_bytes)
        self._held: dict[str, int] = {}  # client -> bytes of its recordings that wait
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._running: dict[str, int] = {}

    async def submit(
        self, kind: str, items: Sequence[tuple[int, Work]], failure: Failure, state: dict[str, Any]
    ) -> str:
        """Start a job of the running request's client; its id.

        items: (bytes that it holds until it is done, its work).
        failure: the result of an item that fails.
        state: what is told about the job besides its status.
        Raises ApiError if the client has too many jobs, or if there is no room.
        """
        client = CLIENT.get()
        running = self._running.get(client, 0)
        if running >= self.settings.max_client_jobs:
            expected = f"expected at most {self.settings.max_client_jobs} unfinished jobs of one client"
            raise ApiError("too_many", f"{expected}, found {running + 1}; try again later", RETRY_S)
        size = sum(held for held, _ in items)
        self._take(client, size)
        try:
            begun = {"status": "running", "total": len(items), "done": 0, "failed": 0, "created": time.time()}
            key = await self.memory.add(client, kind, {**state, **begun})
            if key == FULL:
                raise ApiError(
                    "busy", "there is no room for another job; delete finished ones, or try later", 60
                )
        except BaseException:
            self._give_back(client, size)
            raise
        self._running[client] = running + 1
        self._tasks[key] = asyncio.create_task(self._run(client, key, items, failure))
        return key

    async def get(self, kind: str, key: str) -> Entry:
        """A job of the running request's client. Raises ApiError for another one."""
        entry = await self.memory.get(CLIENT.get(), kind, key)
        if entry is None:
            raise ApiError("not_found", f"no {kind} {key[:80]!r}, or it is no longer kept")
        # The gateway that worked on it may be gone.
        lost_after_s = 3 * self.settings.answer_timeout_s + RETRY_S
        if entry.state["status"] == "running" and time.time() - entry.changed > lost_after_s:
            entry.state["status"] = "failed"
        return entry

    async def results(self, kind: str, key: str) -> Entry:
        """A job whose results are read now: what they are about gets into this request's record."""
        entry = await self.get(kind, key)
        note_again(entry.state.get("noted", {}))
        return entry

    async def keys(self, kind: str) -> list[str]:
        """The ids of the jobs of the running request's client, the oldest first."""
        return await self.memory.keys(CLIENT.get(), kind)

    async def remove(self, kind: str, key: str) -> None:
        """Stop a job of the running request's client and forget its results. Raises ApiError for another one."""
        await self.get(kind, key)
        await self.memory.remove(CLIENT.get(), kind, key)
        if task := self._tasks.get(key):
            task.cancel()

    def _take(self, client: str, size: int) -> None:
        """Count recordings that wait. Raises ApiError if there is no room for them."""
        most, held = self.settings.max_client_kept_bytes, self._held.get(client, 0)
        if held + size > most:
            expected = f"expected at most {most} bytes of recordings in unfinished jobs of one client"
            raise ApiError("too_many", f"{expected}, found {held + size}; try again later", RETRY_S)
        self._buffer.take(size)
        self._held[client] = held + size

    def _give_back(self, client: str, size: int) -> None:
        self._buffer.give_back(size)
        self._held[client] = self._held.get(client, 0) - size
        if not self._held[client]:
            del self._held[client]

    async def _run(self, client: str, key: str, items: Sequence[tuple[int, Work]], failure: Failure) -> None:
        done, failed, waiting = 0, 0, [held for held, _ in items]
        # The record of the request that began the job is written already. Who reads the results gets another one.
        ACCESS.set(Access(client, "", "", ""))
        try:
            for held, work in items:
                try:
                    line = await self._patiently(key, work)
                except ApiError as error:
                    failed += 1
                    line = failure(done, error)
                done += 1
                self._give_back(client, held)
                waiting.pop(0)
                status = "finished" if done == len(items) else "running"
                progress = {"status": status, "done": done, "failed": failed, "noted": notes()}
                if not await self.memory.change(key, progress, line):
                    # Its client removed it, or there is no room for its results.
                    await self.memory.change(key, {"status": "failed"})
                    return
        finally:
            self._give_back(client, sum(waiting))
            self._running[client] -= 1
            if not self._running[client]:
                del self._running[client]
            self._tasks.pop(key, None)

    async def _patiently(self, key: str, work: Work) -> tuple[str, bytes]:
        """Do an item. While the server is busy, or the client has asked too much, wait. Raises ApiError."""
        give_up = time.monotonic() + self.settings.keep_s
        while True:
            try:
                SERVED.set(None)
                async with asyncio.timeout(self.settings.answer_timeout_s):
                    return await work()
            except ModelChanged:
                self.forget_model()
                wait_s = 0
            except ApiError as error:
                if error.code not in ("busy", "too_many") or time.monotonic() > give_up:
                    raise
                wait_s = error.retry_after_s or RETRY_S
            except TimeoutError:
                expected = f"expected an answer within {self.settings.answer_timeout_s:g} s"
                raise ApiError("busy", f"{expected}, found none") from None
            except Exception as error:  # its message may quote the recording
                logger.error("an item of a job failed: %s", type(error).__name__)
                raise ApiError("internal", "the request could not be answered") from None
            if not await self.memory.change(key, {}):
                raise ApiError("not_found", "the job was removed")
            await asyncio.sleep(min(wait_s, 2 * self.settings.answer_timeout_s))
