"""The FHIR endpoints: capabilities, and answers as a Bundle."""

import json
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.datastructures import UploadFile

from serve import fhir
from serve.errors import ApiError
from serve.gateway import GatewayDependency
from serve.schema import ERROR_TEXTS
from serve.smart import Smart

router = APIRouter()


class FhirResponse(Response):
    """A FHIR resource in JSON."""

    media_type = fhir.CONTENT_TYPE


_RESOURCE = {
    "type": "object",
    "required": ["resourceType"],
    "properties": {"resourceType": {"type": "string", "description": "Kind of the FHIR R4 resource."}},
}
FHIR_RESULT: dict[int | str, dict[str, Any]] = {200: {"content": {fhir.CONTENT_TYPE: {"schema": _RESOURCE}}}}
FHIR_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"description": f"{text} The body is an OperationOutcome.", **FHIR_RESULT[200]}
    for status, text in ERROR_TEXTS.items()
}
FHIR_NOT_FOUND: dict[int | str, dict[str, Any]] = {
    404: {"description": "There is none. The body is an OperationOutcome.", **FHIR_RESULT[200]}
}
_BODY = {
    "requestBody": {
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["recording"],
                    "properties": {
                        "recording": {
                            "type": "string",
                            "format": "binary",
                            "description": "Recording in any readable format.",
                        },
                        "tasks": {
                            "type": "array",
                            "items": {"type": "string"},
                            "description": "Names of tasks, or `all`.",
                        },
                        "question": {"type": "string", "description": "A question in free words."},
                        "subject": {"type": "string", "description": "The person, as Patient/ID."},
                    },
                }
            },
            fhir.CONTENT_TYPE: {"schema": {"type": "object", "description": "An R4 Parameters resource."}},
        }
    }
}


@router.get("/fhir/metadata", responses=FHIR_RESULT, response_class=FhirResponse)
async def metadata(request: Request) -> Response:
    """The CapabilityStatement."""
    statement = fhir.capability_statement("1")
    smart: Smart | None = request.app.state.smart
    if smart is not None:
        statement["rest"][0]["security"] |= smart.capability()
    return resource(statement)


@router.post(
    "/fhir/$answer-motion",
    openapi_extra=_BODY,
    responses={**FHIR_RESULT, **FHIR_ERRORS},
    response_class=FhirResponse,
)
async def answer_motion(gateway: GatewayDependency, request: Request) -> Response:
    """The answers of /v1/answers as a FHIR R4 Bundle.

    Takes multipart/form-data, or FHIR Parameters: `recording` (valueAttachment with title and data), `task`
    (valueCode, repeated), `question` (valueString), `subject` (valueReference).
    """
    operation = await _read_operation(request)
    answers, recording = await gateway.answer_recordings(
        operation.recording, operation.tasks, operation.question
    )
    try:
        bundle = fhir.bundle(
            answers,
            subject=operation.subject,
            recorded=datetime.now(UTC),
            source_sha256=recording.sha256,
        )
    except ValueError as error:
        raise ApiError("bad_request", str(error)) from None
    return resource(bundle)


def resource(content: dict[str, Any]) -> Response:
    """The response with a FHIR resource."""
    return FhirResponse(json.dumps(content))


async def _read_operation(request: Request) -> fhir.Operation:
    """The input of $answer-motion, from a form or from FHIR Parameters."""
    content_type = request.headers.get("content-type", "")
    if content_type.startswith((fhir.CONTENT_TYPE, "application/json")):
        try:
            return fhir.parameters(await request.json())
        except ValueError as error:
            raise ApiError("bad_request", str(error)) from None
    form = await request.form()
    recording = form.get("recording")
    if isinstance(recording, str):
        raise ApiError("bad_request", "recording: expected a file, found text")
    return fhir.Operation(
        recording=recording,
        tasks=[task for task in form.getlist("tasks") if isinstance(task, str)],
        question=_text(form.get("question")),
        subject=_text(form.get("subject")),
    )


def _text(value: UploadFile | str | None) -> str | None:
    return value if isinstance(value, str) else None
