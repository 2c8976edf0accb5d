"""The endpoints of the audit log. They need the scope system/AuditEvent.rs."""

import re
from datetime import timedelta
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from serve.audit import AuditLog
from serve.errors import ApiError
from serve.records import milliseconds
from serve.routes.fhir import FHIR_ERRORS, FHIR_RESULT, FhirResponse, resource

router = APIRouter()
MAX_COUNT = 1000
_DATE = re.compile(r"(eq|ge|gt|le|lt)?(\d{4}-\d\d-\d\d(?:T.+)?)")
_PARAMETERS = ("date", "altid", "outcome", "_count", "_before")


def _log(request: Request) -> AuditLog:
    log: AuditLog | None = request.app.state.audit_log
    if log is None:
        raise ApiError("not_found", "nothing is recorded here (the settings `audit` and `database`)")
    return log


LogDependency = Annotated[AuditLog, Depends(_log)]
_DOCUMENTED: dict[str, Any] = {
    "responses": {**FHIR_RESULT, **FHIR_ERRORS},
    "response_class": FhirResponse,
}


@router.get("/fhir/AuditEvent", **_DOCUMENTED)
async def search(
    log: LogDependency,
    request: Request,
    date: Annotated[
        list[str] | None, Query(description="Time, such as ge2026-11-01 or lt2026-11-02T08:00:00Z.")
    ] = None,
    altid: Annotated[str | None, Query(description="Name of the client.")] = None,
    outcome: Annotated[str | None, Query(description="0, 4 or 8, or several joined by commas.")] = None,
    count: Annotated[int, Query(alias="_count", ge=0, le=MAX_COUNT, description="Most events.")] = 50,
    before: Annotated[
        int | None, Query(alias="_before", ge=1, le=2**62, description="Only events with a smaller id.")
    ] = None,
) -> Response:
    """The records of requests, newest first, as a Bundle of AuditEvents."""
    for name in request.query_params:
        if name not in _PARAMETERS:
            raise ApiError("bad_request", f"{name}: expected one of {', '.join(_PARAMETERS)}")
    bounds = [_bounds(value) for value in date or []]
    since = max((low for low, _ in bounds if low is not None), default=None)
    until = min((high for _, high in bounds if high is not None), default=None)
    outcomes = outcome.split(",") if outcome else []
    total, events = await log.in_reader(
        lambda: log.records.search(since, until, altid, outcomes, before, count)
    )
    asked = [(name, value) for name, value in request.query_params.multi_items() if name != "_before"]
    links = [{"relation": "self", "url": f"AuditEvent?{urlencode(request.query_params.multi_items())}"}]
    if events and len(events) == count:
        following = urlencode([*asked, ("_before", events[-1]["id"])])
        links.append({"relation": "next", "url": f"AuditEvent?{following}"})
    return resource(
        {
            "resourceType": "Bundle",
            "type": "searchset",
            "total": total,
            "link": links,
            **({"entry": [{"resource": e, "search": {"mode": "match"}} for e in events]} if events else {}),
        }
    )


@router.get("/fhir/AuditEvent/{id}", **_DOCUMENTED)
async def read(log: LogDependency, id: str) -> Response:
    """One record."""
    found = await log.in_reader(lambda: log.records.find(int(id))) if re.fullmatch(r"\d{1,18}", id) else None
    if found is None:
        raise ApiError("not_found", f"no AuditEvent {id!r}")
    return resource(found)


def _bounds(value: str) -> tuple[int | None, int | None]:
    """First and last time, in ms, that a value of the parameter `date` allows."""
    expected = "date: expected a time such as ge2026-11-01 or lt2026-11-02T08:00:00Z"
    match = _DATE.fullmatch(value)
    try:
        if match is None:
            raise ValueError
        prefix, moment = match.groups()
        if "T" in moment:
            first = last = milliseconds(moment.replace(" ", "+"))
        else:
            first = milliseconds(f"{moment}T00:00:00Z")
            last = first + round(timedelta(days=1).total_seconds() * 1000) - 1
    except (ValueError, OverflowError):
        raise ApiError("bad_request", f"{expected}, found {value!r}") from None
    return {
        "ge": (first, None), "gt": (last + 1, None), "le": (None, last), "lt": (None, first - 1),
    }.get(prefix or "eq", (first, last))  # fmt: skip
