"""What every request passes before any code of ours reads it: key, size, queue, and one shape of error.

A plain ASGI middleware, because a framework reads a whole body before it asks who sent it. Knows HTTP only.
"""

import hmac
import json
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from serve import fhir

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

PROTECTED = ("/v1/", "/fhir/")
"""Only these ask for a key: the page, its assets, the API's description and the probes hold no one's data."""

STATUS = {
    "bad_recording": 422,
    "bad_request": 422,
    "unauthorized": 401,
    "not_found": 404,
    "too_large": 413,
    "busy": 503,
    "internal": 500,
}
RETRY_AFTER_S = 2
logger = logging.getLogger("biomechgpt.serve")


class ApiError(Exception):
    """Refuses a request: a code of STATUS and a message for whoever sent it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


def response(
    path: str, code: str, message: str, status: int | None = None
) -> tuple[int, dict[str, str], bytes]:
    """An error as (status, headers, body): JSON, or FHIR's OperationOutcome under /fhir/."""
    headers = {"content-type": "application/json"}
    content: dict[str, Any] = {"error": {"code": code, "message": message}}
    if path.startswith("/fhir/"):
        headers, content = {"content-type": fhir.CONTENT_TYPE}, fhir.outcome(code, message)
    if code == "busy":
        headers["retry-after"] = str(RETRY_AFTER_S)
    if code == "unauthorized":
        headers["www-authenticate"] = "Bearer"
    return status or STATUS[code], headers, json.dumps(content).encode()


class Guard:
    """The middleware. key: what `Authorization: Bearer` must carry; max_body: bytes; max_requests: at once."""

    def __init__(self, app: Any, *, key: str, max_body: int, max_requests: int) -> None:
        if not key.strip():
            raise ValueError("BIOMECHGPT_API_KEY: expected a key, found an empty one")
        self.app, self.expected = app, f"Bearer {key}".encode()
        self.max_body, self.max_requests, self.now = max_body, max_requests, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] != "http" or not path.startswith(PROTECTED):
            await self.app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"authorization", b"")
        if not hmac.compare_digest(given, self.expected):
            await _refuse(send, path, "unauthorized", "expected `Authorization: Bearer KEY` with a valid key")
        elif self.now >= self.max_requests:
            await _refuse(send, path, "busy", f"{self.now} requests are being answered; try again later")
        else:
            self.now += 1
            try:
                await self._pass(scope, receive, send)
            finally:
                self.now -= 1

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def noted(message: MutableMapping[str, Any]) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, _replay(await self._body(scope, receive), receive), noted)
        except Exception as error:
            if started:
                raise
            if isinstance(error, ApiError):
                await _refuse(send, scope["path"], error.code, error.message)
                return
            # What went wrong may carry what was sent: its kind is logged, its words and the body are not.
            logger.error("%s %s failed: %s", scope["method"], scope["path"], type(error).__name__)
            await _refuse(send, scope["path"], "internal", "the request could not be answered")

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """The whole body, counted as it comes: a length may be missing or untrue."""
        length = dict(scope["headers"]).get(b"content-length", b"0")
        too_large = ApiError("too_large", f"expected a body of at most {self.max_body} bytes")
        if length.isdigit() and int(length) > self.max_body:
            raise too_large
        parts, size, more = [], 0, True
        while more:
            message = await receive()
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self.max_body:
                raise too_large
            more = message.get("more_body", False)
        return b"".join(parts)


def _replay(body: bytes, receive: Receive) -> Receive:
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> MutableMapping[str, Any]:
        return waiting.pop() if waiting else await receive()

    return replayed


async def _refuse(send: Send, path: str, code: str, message: str) -> None:
    status, headers, body = response(path, code, message)
    lines = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": lines})
    await send({"type": "http.response.body", "body": body})
