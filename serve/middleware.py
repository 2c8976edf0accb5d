"""Checks of every request before the application reads it: who asks, how much is going on, size and time.

A plain ASGI middleware, because a framework reads a whole body before it checks who sent it. It fails closed: only
the paths of `OPEN`, `OPEN_BELOW` and the files of the page need no key. Knows HTTP only.
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from contextlib import ExitStack
from typing import Any

from serve.admission import Admission
from serve.bodies import Body, Buffer, Receive
from serve.clients import Clients
from serve.errors import ApiError, error_response, route_path

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

OPEN = frozenset({"/healthz", "/readyz", "/fhir/metadata"})
"""Paths that need no key: they hold no personal data, and probes and FHIR clients have none."""
OPEN_BELOW = "/.well-known/"
"""Every path below needs no key."""
_CLOSE_CODE = 1008

logger = logging.getLogger("biomechgpt.serve")


class RequestGuard:
    """The middleware.

    clients: names the client of a key.
    admission: limits of clients, and queues.
    files: paths of the page's files, which need no key.
    """

    def __init__(
        self, app: Any, *, clients: Clients, admission: Admission, files: Collection[str] = ()
    ) -> None:
        self.app, self.clients, self.admission, self.files = app, clients, admission, frozenset(files)
        self.settings = admission.settings
        self.buffer = Buffer(self.settings.max_buffered_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # there are no web sockets
            await send({"type": "websocket.close", "code": _CLOSE_CODE})
            return
        path = route_path(scope)
        send = _with_headers(send, is_file=path in self.files)
        is_open = path in OPEN or path.startswith(OPEN_BELOW) or path in self.files
        if is_open and scope["method"] in ("GET", "HEAD"):
            await self._run(scope, receive, send, path, max_body=0)
            return
        client = self.clients.of_header(dict(scope["headers"]).get(b"authorization", b""))
        if client is None:
            await _refuse(
                send, path, ApiError("unauthorized", "expected `Authorization: Bearer KEY` with a valid key")
            )
            return
        with ExitStack() as stack:
            try:
                stack.enter_context(self.admission.request(client))
            except ApiError as error:
                await _refuse(send, path, error)
                return
            await self._run(scope, receive, send, path, self.settings.max_body_bytes)

    async def _run(self, scope: Scope, receive: Receive, send: Send, path: str, max_body: int) -> None:
        """Run the application within its time, and turn its exceptions into error responses."""
        started = False

        async def send_and_note(message: MutableMapping[str, Any]) -> None:
            nonlocal started
            started = True
            await send(message)

        limits = self.settings
        body = Body(self.buffer, max_body, limits.body_timeout_s)
        try:
            content = await body.read(dict(scope["headers"]), receive)
            async with asyncio.timeout(limits.answer_timeout_s):
                await self.app(scope, _replay(content, receive), send_and_note)
        except Exception as error:
            if started:  # too late for another response
                raise
            await _refuse(send, path, self._error_of(scope, path, error))
        finally:
            body.close()

    def _error_of(self, scope: Scope, path: str, error: Exception) -> ApiError:
        """What to tell the client of an exception."""
        match error:
            case ApiError():
                return error
            case TimeoutError():
                seconds = self.settings.answer_timeout_s
                message = f"expected an answer within {seconds:g} s, found none; try again later"
                return ApiError("busy", message, retry_after_s=math.ceil(seconds / 10))
            case RecursionError() | OverflowError() | UnicodeError() | MemoryError():
                return ApiError("bad_request", f"the request cannot be read ({type(error).__name__})")
        # The message of an exception may quote the recording. Only its type is logged.
        logger.error("%s %s failed: %s", scope["method"], path[:200], type(error).__name__)
        return ApiError("internal", "the request could not be answered")


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the application the body that was already read."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> MutableMapping[str, Any]:
        return waiting.pop() if waiting else await receive()

    return replayed


def _with_headers(send: Send, is_file: bool) -> Send:
    """A `send` whose responses are not stored (but for the page's files) and whose type is not guessed."""
    added = [(b"x-content-type-options", b"nosniff")]
    if not is_file:
        added.append((b"cache-control", b"no-store"))
    names = {name for name, _ in added}

    async def send_with(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            own = [(name, value) for name, value in message.get("headers", []) if name.lower() not in names]
            message = {**message, "headers": [*own, *added]}
        await send(message)

    return send_with


async def _refuse(send: Send, path: str, error: ApiError) -> None:
    status, headers, body = error_response(path, error.code, error.message, retry_after_s=error.retry_after_s)
    lines = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": lines})
    await send({"type": "http.response.body", "body": body})
