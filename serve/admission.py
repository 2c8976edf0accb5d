"""Who may ask how much, and whose turn it is: limits of each client, and queues in which clients take turns.

Knows nothing about HTTP or models. A client is a name; work has a cost, the number of questions.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar

from serve.errors import ApiError
from serve.settings import GatewaySettings

CLIENT: ContextVar[str] = ContextVar("client", default="")
"""Name of the client whose request the running task answers."""

_REMEMBERED = 0.95
"""Share of the past that the measured pace keeps with each piece of work."""
_REQUESTS_REMEMBERED = 0.8
"""The same for the seconds that a client's requests take."""
_FIRST_S = 1.0
"""Seconds that a request is taken to need while none of the client's has ended."""
_SPARE = 1.5
"""A refused request is told this many times the time that those before it should take."""
_LONGEST_TOLD_S = 60
"""Longest time, in seconds, that refused requests of one client are told one after the other."""
_MOST_TOLD = 1000
"""Most of them that are counted."""


class TurnQueue:
    """Lets work in up to a cost. Clients take turns: the one that has used least goes next.

    capacity: cost of the work that is in progress at once. A single piece of work may cost more; it runs alone.
    max_wait_s: work that would wait longer, by the pace so far, is refused.
    """

    def __init__(self, capacity: float, max_wait_s: float = math.inf) -> None:
        self.capacity, self.max_wait_s = capacity, max_wait_s
        self.in_progress = 0.0
        self.pace: float | None = None  # cost a second, while there is work
        self._waiting: dict[str, deque[tuple[float, asyncio.Future[None]]]] = {}
        # Start-time fair queueing: what each client that has work has used, and where the last one let in began.
        self._used: dict[str, float] = {}
        self._now = 0.0
        self._running: dict[str, int] = {}
        self._busy_since, self._work, self._time_s = 0.0, 0.0, 0.0

    def expected_wait_s(self, client: str, cost: float = 1.0) -> float:
        """Seconds until new work of a client would begin, if the pace stays and clients take turns."""
        if self.pace is None or self.in_progress == 0:
            return 0.0
        own = sum(c for c, _ in self._waiting.get(client, ()))
        share = own + cost  # others get as much as this client while it waits
        others = sum(
            min(sum(c for c, _ in queue), share) for name, queue in self._waiting.items() if name != client
        )
        ahead = self.in_progress + own + others + cost - self.capacity
        return max(0.0, ahead) / self.pace

    def check(self, client: str, cost: float = 1.0) -> None:
        """Raises ApiError if new work would wait too long: `too_many` for a client's own work, else `busy`."""
        wait_s = self.expected_wait_s(client, cost)
        if wait_s <= self.max_wait_s:
            return
        own = bool(self._waiting.get(client))
        raise ApiError(
            "too_many" if own else "busy",
            f"expected to wait at most {self.max_wait_s:g} s, found {wait_s:.0f} s of questions before this one; "
            "try again later",
            retry_after_s=math.ceil(wait_s - self.max_wait_s) + 1,
        )

    @asynccontextmanager
    async def turn(self, cost: float = 1.0, admitted: bool = False) -> AsyncIterator[None]:
        """Wait for the turn of the running request's client. Raises ApiError if that would take too long.

        admitted: whether it waits however long, for a request that was worked on already.
        """
        client = CLIENT.get()
        if not admitted:
            self.check(client, cost)
        await self._wait(client, cost)
        try:
            yield
        finally:
            self._leave(client, cost)

    async def _wait(self, client: str, cost: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if client not in self._used:
            # A client that comes back has no credit for the time it was away, and no debt.
            self._used[client] = self._now
        self._waiting.setdefault(client, deque()).append((cost, future))
        self._let_in()
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():  # let in and cancelled at once
                self._leave(client, cost)
            else:
                self._forget(client, cost, future)
            raise

    def _forget(self, client: str, cost: float, future: "asyncio.Future[None]") -> None:
        queue = self._waiting.get(client)
        if queue and (cost, future) in queue:
            queue.remove((cost, future))
            if not queue:
                del self._waiting[client]
            self._drop_idle(client)
            self._let_in()

    def _let_in(self) -> None:
        while self._waiting:
            client = min(self._waiting, key=lambda name: self._used[name])
            cost, future = self._waiting[client][0]
            if self.in_progress and self.in_progress + cost > self.capacity:
                return
            self._waiting[client].popleft()
            if not self._waiting[client]:
                del self._waiting[client]
            if future.done():
                self._drop_idle(client)
                continue
            if not self.in_progress:
                self._busy_since = time.monotonic()
            self.in_progress += cost
            self._now = self._used[client]
            self._used[client] += cost
            self._running[client] = self._running.get(client, 0) + 1
            future.set_result(None)

    def _leave(self, client: str, cost: float) -> None:
        self.in_progress -= cost
        self._running[client] -= 1
        if not self._running[client]:
            del self._running[client]
        self._drop_idle(client)
        self._measure(cost)
        self._let_in()

    def _drop_idle(self, client: str) -> None:
        if client not in self._running and client not in self._waiting:
            self._used.pop(client, None)

    def _measure(self, cost: float) -> None:
        """Count finished work. The pace is the work of the last while over the time that there was work."""
        now = time.monotonic()
        self._work = _REMEMBERED * self._work + cost
        self._time_s = _REMEMBERED * self._time_s + now - self._busy_since
        self.pace, self._busy_since = self._work / max(self._time_s, 0.001), now


_Told = dict[str, list[tuple[float, float]]]
"""{client: (when one of its refused requests may come back, its cost)}."""


class ClientLimits:
    """Number of requests in progress, and rate, of each client.

    Requests that are refused are told different times: a place is free after those refused before have come back.
    From a minute on they are told the same.
    most: requests in progress of one client.
    per_minute: cost a minute of one client, on average; so much may also come at once.
    """

    def __init__(self, most: int, per_minute: float) -> None:
        self.most, self.per_s, self.burst = most, per_minute / 60, max(per_minute, 1.0)
        self._in_progress: dict[str, int] = {}
        self._each_s: dict[str, float] = {}  # client -> seconds from one finished request to the next
        self._spent: dict[str, tuple[float, float]] = {}  # client -> (cost not yet forgotten, when)
        # Refused for want of a place, and of questions.
        self._places: _Told = {}
        self._questions: _Told = {}

    @contextmanager
    def request(self, client: str, retry_after_s: float) -> Iterator[None]:
        """A request of a client. Raises ApiError `too_many` beyond its limits.

        retry_after_s: when one of its requests will be done, if it is not known how long they take.
        """
        count, began = self._in_progress.get(client, 0), time.monotonic()
        if count >= self.most:
            each_s = _SPARE * self._each_s.get(client, max(retry_after_s, _FIRST_S) / self.most)
            raise ApiError(
                "too_many",
                f"expected at most {self.most} requests at once with one key, found {count + 1}; try again later",
                retry_after_s=_tell(self._places, client, 1, each_s, each_s),
            )
        self.spend(client, 1)
        self._in_progress[client] = count + 1
        try:
            yield
        finally:
            # Of n requests at once each takes n times as long as alone, if they share one machine.
            at_once = (count + 1 + self._in_progress[client]) / 2
            each_s = (time.monotonic() - began) / at_once
            before_s = self._each_s.get(client, each_s)
            self._each_s[client] = _REQUESTS_REMEMBERED * before_s + (1 - _REQUESTS_REMEMBERED) * each_s
            self._in_progress[client] -= 1
            if not self._in_progress[client]:
                del self._in_progress[client]

    def spend(self, client: str, cost: float) -> None:
        """Count cost of a client. Raises ApiError `too_many` if it has spent too much in the last minute."""
        now = time.monotonic()
        spent, since = self._spent.get(client, (0.0, now))
        spent = max(0.0, spent - (now - since) * self.per_s)
        # Cost above the whole allowance must be possible once, or it would be refused for ever.
        if spent > 0 and spent + cost > self.burst:
            own_s = min(spent, spent + cost - self.burst) / self.per_s
            self._spent[client] = (spent, now)
            raise ApiError(
                "too_many",
                f"expected at most {self.burst:g} questions a minute with one key; try again later",
                retry_after_s=_tell(self._questions, client, cost, own_s, 1 / self.per_s),
            )
        self._spent[client] = (spent + cost, now)


def _tell(told: _Told, client: str, cost: float, own_s: float, each_s: float) -> int:
    """Seconds that a refused request is told, counted as one that comes back then.

    told: is changed.
    own_s: when there is room for it alone.
    each_s: for a cost of 1 of those that were told before.
    """
    now = time.monotonic()
    coming = [one for one in told.pop(client, []) if one[0] > now]
    wait_s = own_s + each_s * sum(cost for _, cost in coming)
    # A client that does not wait must neither fill the memory nor wait for ever.
    counts = wait_s <= _LONGEST_TOLD_S and len(coming) < _MOST_TOLD
    if counts:
        coming.append((now + wait_s, cost))
    if coming:
        told[client] = coming
    return max(1, math.ceil(wait_s)) if counts else max(_LONGEST_TOLD_S, math.ceil(own_s))


class Admission:
    """The limits and queues of a gateway.

    settings: of the gateway.
    asking: turns of questions to the model.
    reading: turns of recordings that are read or measured.
    clients: limits of each client.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        self.settings = settings
        self.asking = TurnQueue(settings.questions_at_once, settings.max_wait_s)
        self.reading = TurnQueue(settings.readers_at_once, settings.max_wait_s)
        self.clients = ClientLimits(settings.max_client_requests, settings.client_questions_per_minute)
        self.in_progress = 0

    @contextmanager
    def request(self, client: str) -> Iterator[None]:
        """A request, before its body is read. Raises ApiError if it is one too many, or would wait too long."""
        if self.in_progress >= self.settings.max_requests:
            wait_s = self.asking.expected_wait_s(client)
            raise ApiError(
                "busy",
                f"{self.in_progress} requests are being answered; try again later",
                retry_after_s=max(1, math.ceil(wait_s)),
            )
        self.asking.check(client)
        with self.clients.request(client, self.asking.expected_wait_s(client)):
            self.in_progress += 1
            token = CLIENT.set(client)
            try:
                yield
            finally:
                CLIENT.reset(token)
                self.in_progress -= 1

    def charge(self, questions: int) -> None:
        """Count the questions of the running request, whose first one is counted already. Raises ApiError."""
        if questions > 1:
            self.clients.spend(CLIENT.get(), questions - 1)
