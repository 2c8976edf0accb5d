"""Checks of every request before the application reads it: who asks, how much is going on, size and time. And its
record, before the first byte of the answer is sent.

A plain ASGI middleware, because a framework reads a whole body before it checks who sent it. It fails closed: only
the paths of `OPEN`, `OPEN_BELOW` and the files of the page need no key, and every answer is recorded but those of
`NOT_RECORDED`. Knows HTTP only.
"""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from contextlib import ExitStack, suppress
from typing import Any

from serve import metrics, scopes
from serve.admission import Admission
from serve.audit import ACCESS, Access, AuditLog
from serve.bodies import Body, Buffer, Receive
from serve.clients import ENVIRONMENT_CLIENT, Client, Clients, bearer_token
from serve.errors import ApiError, error_response, route_path
from serve.model import SERVED, ModelChanged
from serve.running import RUNNING, Running, log_request, request_of
from serve.smart import CONFIGURATION, TOKEN_PATH, Smart

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

OPEN = frozenset({"/healthz", "/readyz", "/fhir/metadata", f"/fhir{CONFIGURATION}"})
"""Paths that need no key: they hold no personal data, and probes and FHIR clients have none."""
OPEN_BELOW = "/.well-known/"
"""Every path below needs no key."""
NOT_RECORDED = frozenset({
    "/v1/model", "/v1/models", "/v1/models/{model}", "/v1/examples", "/v1/examples/{name}", "/openapi.json",
})  # fmt: skip
"""Routes whose answers hold nothing about a person. All others are recorded."""
NEW_CLIENT = "new client"
"""Stands for those who ask for a token. They share the limits of one client. No client has a name with a space."""
CLIENT_LEFT = "client_left"
"""Code of a request that got no answer."""
MODEL_CHANGES = 3
"""How often a request begins again when its model is replaced."""
_MAX_TOKEN_BODY = 32 * 1024
_CLOSE_CODE = 1008

logger = logging.getLogger("biomechgpt.serve")


class RequestGuard:
    """The middleware.

    clients: names the client of a key.
    admission: limits of clients, and queues.
    files: paths of the page's files, which need no key.
    smart: checks access tokens; None: there are keys only.
    log: where answers are recorded; None: nowhere.
    forget_model: called if a request has to begin again, because its model is gone.
    """

    def __init__(
        self,
        app: Any,
        *,
        clients: Clients,
        admission: Admission,
        files: Collection[str] = (),
        smart: Smart | None = None,
        log: AuditLog | None = None,
        forget_model: Callable[[], None] = lambda: None,
    ) -> None:
        self.app, self.clients, self.admission, self.files = app, clients, admission, frozenset(files)
        self.smart, self.log, self.forget_model = smart, log, forget_model
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
        running, begun_s, status = request_of(dict(scope["headers"])), time.monotonic(), 0

        async def send_and_see(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        token = RUNNING.set(running)
        try:
            await self._guarded(scope, receive, _with_headers(send_and_see, path in self.files), path)
        finally:
            self._finish(scope, running, status, time.monotonic() - begun_s)
            RUNNING.reset(token)

    def _finish(self, scope: Scope, running: Running, status: int, seconds: float) -> None:
        """Count a request that is done, and log it by the setting `log`. status: 0 if there was no answer."""
        code, route = running.code if status else CLIENT_LEFT, _route(scope)
        metrics.count(metrics.REQUESTS, route=route, code=code)
        metrics.observe(metrics.REQUEST_SECONDS, seconds, route=route)
        is_fault = status >= 500 and running.code != "busy"
        if is_fault or self.settings.log == "requests":
            log_request(
                logging.ERROR if is_fault else logging.INFO,
                method=scope["method"],
                route=route,
                status=status,
                code=code,
                seconds=round(seconds, 3),
            )

    async def _guarded(self, scope: Scope, receive: Receive, send: Send, path: str) -> None:
        """Check a request, and let the application answer it."""
        is_open = path in OPEN or path.startswith(OPEN_BELOW) or path in self.files
        if is_open and scope["method"] in ("GET", "HEAD"):
            await self._run(scope, receive, send, path, max_body=0)
            return
        is_new = path == TOKEN_PATH and self.smart is not None and scope["method"] == "POST"
        with ExitStack() as stack:
            try:
                client = Client(NEW_CLIENT) if is_new else await self._allowed(scope, path)
                stack.enter_context(self.admission.request(client.name))
            except ApiError as error:
                await _refuse(send, path, error)
                return
            if is_new:
                await self._run(scope, receive, send, path, _MAX_TOKEN_BODY)
                return
            await self._run(scope, receive, send, path, self.settings.max_body_bytes, client)

    async def _allowed(self, scope: Scope, path: str) -> Client:
        """The client that sends a request. Raises ApiError if there is none, or if it may not do that."""
        token = bearer_token(dict(scope["headers"]).get(b"authorization", b""))
        client = self.clients.of_key(token) if token else None
        if client is None and token and self.smart is not None:
            client = await self.smart.client_of(token)
        if client is None:
            expected = "expected `Authorization: Bearer` with a valid key or access token"
            raise ApiError("unauthorized", expected)
        needed = scopes.needed(scope["method"], path)
        if not scopes.allows(client.scopes, needed):
            raise ApiError(
                "forbidden", f"expected the scope {needed}, found {' '.join(client.scopes) or 'none'}"
            )
        return client

    def _is_recorded(self, client: Client) -> bool:
        """Whether the answers to a client are recorded, by the setting `audit`."""
        if self.log is None:
            return False
        return (
            self.settings.audit == "on"
            or client.name != ENVIRONMENT_CLIENT
            or self.smart is not None
            or self.clients.has_names()
        )

    async def _run(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        path: str,
        max_body: int,
        client: Client | None = None,
    ) -> None:
        """Run the application within its time, and turn its exceptions into error responses.

        client: whose request is recorded; None: nobody's.
        """
        started = False
        failure: ApiError | None = None
        access = self._access(scope, client) if client is not None and self._is_recorded(client) else None
        token = ACCESS.set(access)
        SERVED.set(None)

        async def send_and_note(message: MutableMapping[str, Any]) -> None:
            nonlocal started, failure
            if access is not None and not started:
                try:
                    if failure is None:
                        await self._record(access, scope, message["status"])
                except ApiError as error:
                    failure = error
                if failure is not None:
                    raise failure
            started = True
            await send(message)

        limits = self.settings
        body = Body(self.buffer, max_body, limits.body_timeout_s)
        try:
            content = await body.read(dict(scope["headers"]), receive)
            async with asyncio.timeout(limits.answer_timeout_s):
                for is_last in (*[False] * (MODEL_CHANGES - 1), True):
                    try:
                        await self.app(scope, _replay(content, receive), send_and_note)
                        break
                    except ModelChanged:
                        if started or is_last:
                            raise
                        self.forget_model()
                        if access is not None:
                            access.model, access.tasks, access.hashes = "", [], []
        except Exception as error:
            if started:  # too late for another response
                raise
            with suppress(ApiError):
                await _refuse(send_and_note, path, self._error_of(scope, path, error))
            if failure is not None:
                await _refuse(send, path, failure)
        finally:
            ACCESS.reset(token)
            body.close()

    @staticmethod
    def _access(scope: Scope, client: Client) -> Access:
        """The record of a request, before anything is known of it."""
        address, server = (scope.get(side) or ("unknown", 0) for side in ("client", "server"))
        query = scope.get("query_string", b"").decode(errors="replace")
        return Access(client.name, str(address[0]), str(server[0]), scope["method"], query=query)

    async def _record(self, access: Access, scope: Scope, status: int) -> None:
        """Write the record. Raises ApiError if that fails: then the answer is not sent."""
        access.path = _route(scope)
        access.status = status
        if access.path not in NOT_RECORDED and self.log is not None:
            await self.log.write(access)

    def _error_of(self, scope: Scope, path: str, error: Exception) -> ApiError:
        """What to tell the client of an exception."""
        match error:
            case ApiError():
                return error
            case ModelChanged():
                return ApiError("busy", "the model is being replaced; try again later")
            case TimeoutError():
                seconds = self.settings.answer_timeout_s
                message = f"expected an answer within {seconds:g} s, found none; try again later"
                return ApiError("busy", message, retry_after_s=math.ceil(seconds / 10))
            case RecursionError() | OverflowError() | UnicodeError() | MemoryError():
                return ApiError("bad_request", f"the request cannot be read ({type(error).__name__})")
        # The message of an exception may quote the recording. Only its type is logged.
        logger.error("%s %s failed: %s", scope["method"], path[:200], type(error).__name__)
        return ApiError("internal", "the request could not be answered")


def _route(scope: Scope) -> str:
    """The route of a request, without what the client put into its path."""
    return str(getattr(scope.get("route"), "path", "(unknown)"))


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
    """Answer with an error."""
    status, headers, body = error_response(path, error.code, error.message, retry_after_s=error.retry_after_s)
    lines = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": lines})
    await send({"type": "http.response.body", "body": body})
