"""Errors of the API: their codes, their HTTP status, and their bodies in JSON or FHIR.

Knows HTTP only; nothing about models or recordings.
"""

import json
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from serve import fhir

STATUS = {
    "bad_recording": 422,
    "bad_request": 422,
    "unauthorized": 401,
    "not_found": 404,
    "too_large": 413,
    "busy": 503,
    "internal": 500,
}
"""Error code -> HTTP status."""
RETRY_AFTER_S = 2
"""Seconds that a busy server asks a client to wait."""


class ApiError(Exception):
    """Refuses a request.

    code: one of STATUS.
    message: what was expected and what was found, for the client.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


def error_response(
    path: str, code: str, message: str, status: int | None = None
) -> tuple[int, dict[str, str], bytes]:
    """An error as (status, headers, body).

    path: of the request; under /fhir/ the body is an OperationOutcome, elsewhere JSON.
    status: overrides the status of the code.
    """
    headers = {"content-type": "application/json"}
    content: dict[str, Any] = {"error": {"code": code, "message": message}}
    if path.startswith("/fhir/"):
        headers, content = {"content-type": fhir.CONTENT_TYPE}, fhir.outcome(code, message)
    if code == "busy":
        headers["retry-after"] = str(RETRY_AFTER_S)
    if code == "unauthorized":
        headers["www-authenticate"] = "Bearer"
    return status or STATUS[code], headers, json.dumps(content).encode()


def add_error_handlers(app: FastAPI) -> None:
    """Give FastAPI's own errors (invalid fields, unknown paths) the API's error body."""

    def respond(request: Request, code: str, message: str, status: int | None = None) -> Response:
        status, headers, body = error_response(request.url.path, code, message, status)
        return Response(body, status, headers)

    @app.exception_handler(RequestValidationError)
    async def _(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        field = ".".join(str(step) for step in first["loc"] if step != "body")
        return respond(request, "bad_request", f"{field}: {first['msg']}")

    @app.exception_handler(HTTPException)
    async def _(request: Request, error: HTTPException) -> Response:
        code = "not_found" if error.status_code in (404, 405) else "bad_request"
        return respond(request, code, str(error.detail), error.status_code)
