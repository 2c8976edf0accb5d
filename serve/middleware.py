"""Checks of every request before the application reads it: key, number of requests, size.

A plain ASGI middleware, because a framework reads a whole body before it checks who sent it. Knows HTTP only.
"""

import hmac
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from serve.errors import ApiError, error_response

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

PROTECTED = ("/v1/", "/fhir/")
"""Only these paths need a key. The page, its assets, the OpenAPI document and the probes hold no personal data."""

logger = logging.getLogger("biomechgpt.serve")


class RequestGuard:
    """The middleware.

    key: the client sends it as `Authorization: Bearer KEY`.
    max_body: largest body, in bytes.
    max_requests: largest number of requests in progress.
    Raises ValueError for an empty key.
    """

    def __init__(self, app: Any, *, key: str, max_body: int, max_requests: int) -> None:
        if not key.strip():
            raise ValueError("BIOMECHGPT_API_KEY: expected a key, found an empty one")
        self.app, self.expected = app, f"Bearer {key}".encode()
        self.max_body, self.max_requests, self.in_progress = max_body, max_requests, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] != "http" or not path.startswith(PROTECTED):
            await self.app(scope, receive, send)
            return
        authorization = dict(scope["headers"]).get(b"authorization", b"")
        # compare_digest takes the same time for every wrong key, so timing does not reveal the key.
        if not hmac.compare_digest(authorization, self.expected):
            await _refuse(send, path, "unauthorized", "expected `Authorization: Bearer KEY` with a valid key")
        elif self.in_progress >= self.max_requests:
            message = f"{self.in_progress} requests are being answered; try again later"
            await _refuse(send, path, "busy", message)
        else:
            self.in_progress += 1
            try:
                await self._pass(scope, receive, send)
            finally:
                self.in_progress -= 1

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application, and turn its exceptions into error responses."""
        started = False

        async def send_and_note(message: MutableMapping[str, Any]) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, _replay(await self._body(scope, receive), receive), send_and_note)
        except Exception as error:
            if started:  # too late for another response
                raise
            if isinstance(error, ApiError):
                await _refuse(send, scope["path"], error.code, error.message)
                return
            # The message of an exception may quote the recording. Only its type is logged.
            logger.error("%s %s failed: %s", scope["method"], scope["path"], type(error).__name__)
            await _refuse(send, scope["path"], "internal", "the request could not be answered")

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """The whole body. Its bytes are counted, because content-length may be missing or wrong."""
        length = dict(scope["headers"]).get(b"content-length", b"0")
        too_large = ApiError("too_large", f"expected a body of at most {self.max_body} bytes")
        if length.isdigit() and int(length) > self.max_body:
            raise too_large
        chunks, size, has_more = [], 0, True
        while has_more:
            message = await receive()
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
            if size > self.max_body:
                raise too_large
            has_more = message.get("more_body", False)
        return b"".join(chunks)


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the application the body that was already read."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> MutableMapping[str, Any]:
        return waiting.pop() if waiting else await receive()

    return replayed


async def _refuse(send: Send, path: str, code: str, message: str) -> None:
    status, headers, body = error_response(path, code, message)
    lines = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": lines})
    await send({"type": "http.response.body", "body": body})
