"""Errors of the API: their codes, their HTTP status, and their bodies in JSON or FHIR.

Knows HTTP only; nothing about models or recordings.
"""

import json
from collections.abc import MutableMapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.routing import compile_path, get_route_path  # type: ignore[attr-defined]

from serve import fhir
from serve.running import RUNNING

STATUS = {
    "bad_recording": 422,
    "bad_request": 422,
    "unauthorized": 401,
    "forbidden": 403,
    "not_found": 404,
    "not_allowed": 405,
    "not_acceptable": 406,
    "timeout": 408,
    "too_large": 413,
    "unsupported_type": 415,
    "too_many": 429,
    "busy": 503,
    "internal": 500,
}
"""Error code -> HTTP status."""
RETRY_AFTER_S = 2
"""Seconds that a busy server asks a client to wait, if it does not know better."""
MAX_MESSAGE_CHARS = 2000
"""Longest message. Messages quote the request, and a damaged file may hold names of any length."""


class ApiError(Exception):
    """Refuses a request.

    code: one of STATUS.
    message: what was expected and what was found, for the client.
    retry_after_s: seconds after which the same request may succeed; None: unknown.
    """

    def __init__(self, code: str, message: str, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.retry_after_s = code, message, retry_after_s


def route_path(scope: MutableMapping[str, Any]) -> str:
    """The path of a request as the router sees it. With a route prefix, scope["path"] holds the prefix too."""
    return str(get_route_path(scope))


def error_response(
    path: str, code: str, message: str, status: int | None = None, retry_after_s: int | None = None
) -> tuple[int, dict[str, str], bytes]:
    """An error as (status, headers, body). The body repeats the id of the running request.

    path: of the request; under /fhir/ the body is an OperationOutcome, elsewhere JSON.
    status: overrides the status of the code.
    retry_after_s: for a busy server or a client that asks too much.
    """
    if len(message) > MAX_MESSAGE_CHARS:
        message = f"{message[:MAX_MESSAGE_CHARS]} ..."
    message = message.encode(errors="replace").decode()  # a request may quote half a character
    headers = {"content-type": "application/json"}
    content: dict[str, Any] = {"error": {"code": code, "message": message}}
    running = RUNNING.get()
    if running is not None:
        running.code = code
        content["error"]["request_id"] = running.id
    if path.startswith("/fhir/"):
        headers, content = {"content-type": fhir.CONTENT_TYPE}, fhir.outcome(code, message)
        if running is not None:
            content["id"] = running.id
    if code in ("busy", "too_many"):
        headers["retry-after"] = str(retry_after_s or RETRY_AFTER_S)
    if code == "unauthorized":
        headers["www-authenticate"] = "Bearer"
    if code == "forbidden":
        headers["www-authenticate"] = 'Bearer error="insufficient_scope"'
    return status or STATUS[code], headers, json.dumps(content).encode()


def add_error_handlers(app: FastAPI) -> None:
    """Give FastAPI's own errors (invalid fields, unknown paths) the API's error body."""

    def respond(request: Request, code: str, message: str, status: int | None = None) -> Response:
        status, headers, body = error_response(route_path(request.scope), code, message, status)
        return Response(body, status, headers)

    @app.exception_handler(RequestValidationError)
    async def _(request: Request, error: RequestValidationError) -> Response:
        # Where several types are allowed, pydantic says what is wrong for each: the innermost error counts.
        worst = max(error.errors(), key=lambda found: len(found["loc"]))
        steps = [str(step) for step in worst["loc"] if step != "body"]
        field = ".".join(step for step in steps if "[" not in step)  # `list[Part]` is a type and no field
        return respond(request, "bad_request", f"{field}: {worst['msg']}")

    @app.exception_handler(HTTPException)
    async def _(request: Request, error: HTTPException) -> Response:
        code = {404: "not_found", 405: "not_allowed"}.get(error.status_code, "bad_request")
        response = respond(request, code, str(error.detail), error.status_code)
        if code == "not_allowed":
            # Several routes may share a path, and the exception names the methods of the first one.
            path, documented = route_path(request.scope), request.app.openapi()["paths"]
            found = [methods for place, methods in documented.items() if compile_path(place)[0].match(path)]
            named = {method.upper() for methods in found for method in methods}
            # Files of the page are not documented.
            response.headers["allow"] = ", ".join(sorted(named)) or "GET, HEAD"
        return response
