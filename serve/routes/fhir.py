"""The FHIR endpoints: answers as a Bundle, at once or later, and the resources that describe the server."""

import json
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response
from starlette.datastructures import UploadFile

from serve import fhir
from serve.errors import ApiError
from serve.fhir.definitions import KINDS, definitions, searchset
from serve.fhir.operation import PARAMETERS, Recording, form
from serve.gateway import Gateway, GatewayDependency
from serve.jobs import RETRY_S
from serve.media import accepted, check_content_type
from serve.schema import ERROR_TEXTS
from serve.smart import Smart

FORM = ("multipart/form-data", "application/x-www-form-urlencoded")
JSON = (fhir.CONTENT_TYPE, "application/json", "text/json")
JOB = "job"


def negotiate(
    request: Request,
    format_: Annotated[
        str | None, Query(alias="_format", description="Format of the answer; only JSON is known.")
    ] = None,
) -> None:
    """Raises ApiError for an answer in another format than JSON, or of another FHIR version than 4.0."""
    if format_ is not None:
        if format_.partition(";")[0].strip() not in ("json", *JSON):
            raise ApiError("not_acceptable", f"_format: expected {fhir.CONTENT_TYPE}, found {format_[:80]!r}")
        return
    kinds = (*JSON, fhir.NDJSON, "application/ndjson")
    if not accepted(request.headers.get("accept", "*/*"), kinds, fhirVersion="4.0"):
        found = request.headers["accept"][:80]
        raise ApiError("not_acceptable", f"Accept: expected {fhir.CONTENT_TYPE} (FHIR 4.0), found {found!r}")


router = APIRouter(prefix="/fhir", dependencies=[Depends(negotiate)])


class FhirResponse(Response):
    """A FHIR resource in JSON."""

    media_type = fhir.CONTENT_TYPE


class NdjsonResponse(Response):
    """FHIR resources in JSON, one a line."""

    media_type = fhir.NDJSON


_RESOURCE = {
    "type": "object",
    "required": ["resourceType"],
    "properties": {"resourceType": {"type": "string", "description": "Kind of the FHIR R4 resource."}},
}
_CONTENT = {fhir.CONTENT_TYPE: {"schema": _RESOURCE}}
FHIR_RESULT: dict[int | str, dict[str, Any]] = {200: {"content": _CONTENT}}
FHIR_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"description": f"{text} The body is an OperationOutcome.", "content": _CONTENT}
    for status, text in {
        **ERROR_TEXTS,
        404: "There is none.",
        406: "The answer is wanted in another format than JSON.",
        415: "The body is neither JSON nor a form.",
    }.items()
}


def _form_schema() -> dict[str, Any]:
    """The form that says the same as Parameters."""
    properties: dict[str, Any] = {}
    for parameter in PARAMETERS.values():
        value: dict[str, Any] = {"type": "string"}
        if "Attachment" in parameter.types:
            value["format"] = "binary"
        if parameter.most is None:
            value = {"type": "array", "items": value}
        properties[parameter.form] = {**value, "description": parameter.meaning}
    return {"type": "object", "required": ["recording"], "properties": properties}


_BODY = {
    "requestBody": {
        "content": {
            "multipart/form-data": {"schema": _form_schema()},
            fhir.CONTENT_TYPE: {"schema": {"type": "object", "description": "An R4 Parameters resource."}},
        }
    },
    "parameters": [
        {
            "name": "Prefer",
            "in": "header",
            "required": False,
            "description": "`respond-async`: 202 at once, and the result later.",
            "schema": {"type": "string"},
        }
    ],
}
_ACCEPTED: dict[int | str, dict[str, Any]] = {
    202: {
        "description": "Not ready. Content-Location says where to ask; Retry-After says when.",
        "content": _CONTENT,
    }
}


@router.get(
    "/metadata",
    responses={**FHIR_RESULT, **{status: FHIR_ERRORS[status] for status in (406, 422)}},
    response_class=FhirResponse,
)
async def metadata(request: Request) -> Response:
    """The CapabilityStatement."""
    statement = fhir.capability_statement("1")
    smart: Smart | None = request.app.state.smart
    if smart is not None:
        statement["rest"][0]["security"] |= smart.capability()
    return resource(statement, request)


def _describe(kind: str) -> None:
    """Add the endpoints of one kind of resource that describes the server."""

    async def search(
        request: Request,
        gateway: GatewayDependency,
        url: Annotated[str | None, Query(description="Canonical URL of the resource.")] = None,
    ) -> Response:
        base = f"{_base(request)}/{kind}"
        found = (await _definitions(gateway))[kind]
        matching = [(f"{base}/{key}", one) for key, one in found.items() if url in (None, one["url"])]
        return resource(searchset(matching, str(request.url)), request)

    async def read(request: Request, gateway: GatewayDependency, key: str) -> Response:
        found = (await _definitions(gateway))[kind]
        if key not in found:
            raise ApiError("not_found", f"no {kind} {key[:80]!r}")
        return resource(found[key], request)

    for path, endpoint, text in (
        (f"/{kind}", search, f"The {kind} resources that describe this server."),
        (f"/{kind}/{{key}}", read, f"One {kind}."),
    ):
        router.add_api_route(
            path,
            endpoint,
            description=text,
            summary=text,
            name=f"{endpoint.__name__}_{kind}",
            responses={**FHIR_RESULT, **FHIR_ERRORS},
            response_class=FhirResponse,
        )


for _kind in KINDS:
    _describe(_kind)


async def _definitions(gateway: Gateway) -> dict[str, dict[str, dict[str, Any]]]:
    served = await gateway.served()
    return definitions(served.tasks, served.labels)


@router.post(
    "/$answer-motion",
    openapi_extra=_BODY,
    responses={**FHIR_RESULT, **_ACCEPTED, **FHIR_ERRORS},
    response_class=FhirResponse,
)
async def answer_motion(gateway: GatewayDependency, request: Request) -> Response:
    """The answers of /v1/answers as a FHIR R4 Bundle.

    Takes FHIR Parameters or the same as a form. With `Prefer: respond-async` the answer is 202: ask the address of
    Content-Location for the result.
    """
    operation = await _read_operation(request)
    if "respond-async" not in _preferences(request):
        return resource(await _answer(gateway, operation), request)
    await gateway.check_names(operation.tasks, operation.question, 1 if operation.compare_with is None else 2)
    held = sum(recording.file.size or 0 for recording in operation.recordings)
    work = partial(_line, gateway, operation)
    state = {"request": str(request.url)}
    key = await gateway.jobs.submit(JOB, [(held, work)], _failed, state)
    accepted = fhir.information("The answers are being made; ask the address of Content-Location.")
    headers = {"content-location": f"{_base(request)}/jobs/{key}", "retry-after": str(RETRY_S)}
    return FhirResponse(json.dumps(accepted), 202, headers)


@router.get(
    "/jobs/{key}",
    responses={
        200: {"content": {"application/json": {"schema": {"type": "object", "description": "The results."}}}},
        **_ACCEPTED,
        **FHIR_ERRORS,
    },
    response_class=FhirResponse,
)
async def job(gateway: GatewayDependency, request: Request, key: str) -> Response:
    """How far a job is: 202 while it runs, then where its results are."""
    entry = await gateway.jobs.get(JOB, key)
    state = entry.state
    if state["status"] == "running":
        progress = f"{state['done']} of {state['total']} done"
        headers = {"x-progress": progress, "retry-after": str(RETRY_S)}
        return FhirResponse(json.dumps(fhir.information(progress)), 202, headers)
    if not entry.lines:
        raise ApiError("busy", "the job was lost before it had a result; submit it again")
    kinds = {kind for kind, _ in entry.lines}
    outputs = {
        kind: [{"type": kind, "url": f"{_base(request)}/jobs/{key}/{kind}.ndjson"}] if kind in kinds else []
        for kind in ("Bundle", "OperationOutcome")
    }
    manifest = {
        "transactionTime": datetime.fromtimestamp(state["created"], UTC).isoformat(timespec="seconds"),
        "request": state["request"],
        "requiresAccessToken": True,
        "output": outputs["Bundle"],
        "error": outputs["OperationOutcome"],
    }
    return Response(json.dumps(manifest), media_type="application/json")


@router.get(
    "/jobs/{key}/{kind}.ndjson",
    responses={200: {"content": {fhir.NDJSON: {"schema": {"type": "string"}}}}, **FHIR_ERRORS},
    response_class=NdjsonResponse,
)
async def job_output(gateway: GatewayDependency, key: str, kind: str) -> Response:
    """The results of a job, one resource a line: `Bundle`, or `OperationOutcome` for what failed."""
    entry = await gateway.jobs.results(JOB, key)
    lines = [line for found, line in entry.lines if found == kind]
    if not lines:
        raise ApiError("not_found", f"no {kind[:80]!r} among the results of this job")
    return NdjsonResponse(b"".join(line + b"\n" for line in lines))


@router.delete(
    "/jobs/{key}", status_code=202, responses={**_ACCEPTED, **FHIR_ERRORS}, response_class=FhirResponse
)
async def remove_job(gateway: GatewayDependency, key: str) -> Response:
    """Stop a job and forget its results."""
    await gateway.jobs.remove(JOB, key)
    return FhirResponse(json.dumps(fhir.information("The job was removed.")), 202)


async def _answer(gateway: Gateway, operation: fhir.Operation) -> dict[str, Any]:
    """The Bundle of an operation. Raises ApiError."""
    sources = [await recording.source() for recording in operation.recordings]
    first, second = (
        None if given is None else given.file for given in (operation.recording, operation.compare_with)
    )
    answers, _ = await gateway.answer_recordings(
        first,
        operation.tasks,
        operation.question,
        second,
        [recording.file for recording in operation.additional],
        operation.max_risk,
        operation.person,
    )
    return fhir.bundle(answers, recorded=datetime.now(UTC), sources=sources, operation=operation)


async def _line(gateway: Gateway, operation: fhir.Operation) -> tuple[str, bytes]:
    return "Bundle", json.dumps(await _answer(gateway, operation)).encode()


def _failed(_: int, error: ApiError) -> tuple[str, bytes]:
    return "OperationOutcome", json.dumps(fhir.outcome(error.code, error.message)).encode()


def _preferences(request: Request) -> set[str]:
    """What the headers Prefer ask for."""
    given = ",".join(request.headers.getlist("prefer"))
    return {part.strip().lower() for part in given.replace(";", ",").split(",")}


def _base(request: Request) -> str:
    """Where the FHIR endpoints are, as the client addressed them."""
    return f"{str(request.base_url).rstrip('/')}/fhir"


def resource(content: dict[str, Any], request: Request | None = None) -> Response:
    """The response with a FHIR resource; a request may ask for `_pretty` JSON."""
    pretty = request is not None and request.query_params.get("_pretty") == "true"
    return FhirResponse(json.dumps(content, indent=2 if pretty else None))


async def _read_operation(request: Request) -> fhir.Operation:
    """The input of $answer-motion, from a form or from FHIR Parameters."""
    kind = check_content_type(request.headers.get("content-type", ""), (*JSON, *FORM), fhirVersion="4.0")
    try:
        if kind in JSON:
            return fhir.parameters(await request.json())
        fields: dict[str, list[Any]] = {}
        for name, value in (await request.form()).multi_items():
            fields.setdefault(name, []).append(Recording(value) if isinstance(value, UploadFile) else value)
        return form(fields)
    except ValueError as error:
        raise ApiError("bad_request", str(error)) from None
