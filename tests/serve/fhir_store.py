"""A small FHIR store, for tests: create, read and search by identifier or tag, and transactions.

It honours ifNoneExist and replaces urn:uuid references by the ids that it gave, as R4 asks of a server.
"""

import itertools
from typing import Any
from urllib.parse import parse_qsl

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

app_kinds = {"Observation", "DiagnosticReport", "Device", "Provenance", "Patient"}


def _matches(resource: dict[str, Any], query: str) -> bool:
    """Whether a resource has the identifier or tag of a search."""
    for name, token in parse_qsl(query, strict_parsing=True):
        system, bar, value = token.partition("|")
        assert bar, token
        found = (
            [(i.get("system"), i.get("value")) for i in resource.get("identifier", [])]
            if name == "identifier"
            else [(t["system"], t["code"]) for t in resource.get("meta", {}).get("tag", [])]
        )
        if (system, value) not in found:
            return False
    return True


def _replaced(element: Any, ids: dict[str, str]) -> Any:
    """The element with references to fullUrls replaced."""
    if isinstance(element, dict):
        return {
            key: ids.get(value, value) if key == "reference" else _replaced(value, ids)
            for key, value in element.items()
        }
    return [_replaced(item, ids) for item in element] if isinstance(element, list) else element


def create_store() -> FastAPI:
    """The application; `app.state.kept` is {Kind/ID: resource}."""
    app = FastAPI()
    kept: dict[str, dict[str, Any]] = {}
    numbers = itertools.count(1)
    app.state.kept = kept

    @app.post("/fhir")
    async def transact(request: Request) -> JSONResponse:
        bundle = await request.json()
        assert (bundle["resourceType"], bundle["type"]) == ("Bundle", "transaction")
        ids, new, answers = {}, [], []
        for entry in bundle["entry"]:
            resource, asked = entry["resource"], entry["request"]
            kind = resource["resourceType"]
            assert asked["method"] == "POST"
            assert asked["url"] == kind in app_kinds
            same = [
                key
                for key, old in kept.items()
                if key.startswith(f"{kind}/") and _matches(old, asked["ifNoneExist"])
            ]
            if len(same) > 1:
                return JSONResponse({"resourceType": "OperationOutcome"}, 412)
            key = same[0] if same else f"{kind}/{next(numbers)}"
            ids[entry["fullUrl"]] = key
            answers.append(
                {"response": {"status": "200" if same else "201", "location": f"{key}/_history/1"}}
            )
            if not same:
                new.append((key, resource))
        for key, resource in new:
            kept[key] = {**_replaced(resource, ids), "id": key.partition("/")[2]}
        return JSONResponse({"resourceType": "Bundle", "type": "transaction-response", "entry": answers})

    @app.get("/fhir/{kind}/{key}")
    async def read(kind: str, key: str) -> JSONResponse:
        found = kept.get(f"{kind}/{key}")
        return JSONResponse(found or {"resourceType": "OperationOutcome"}, 200 if found else 404)

    @app.get("/fhir/{kind}")
    async def search(kind: str, request: Request) -> JSONResponse:
        found = [
            resource
            for key, resource in kept.items()
            if key.startswith(f"{kind}/") and (not request.url.query or _matches(resource, request.url.query))
        ]
        entries = [{"resource": resource} for resource in found]
        return JSONResponse(
            {"resourceType": "Bundle", "type": "searchset", "total": len(found), "entry": entries}
        )

    return app
