"""Endpoints about the server: the model, example recordings, and probes."""

import asyncio

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse, Response

from serve import examples
from serve.errors import ApiError, error_response
from serve.gateway import GatewayDependency
from serve.schema import ERRORS, NOT_FOUND, ErrorBody, Example, Examples, Health, ModelInfo

router = APIRouter()
READY_TIMEOUT_S = 5


@router.get("/v1/model", responses=ERRORS)
async def describe(gateway: GatewayDependency) -> ModelInfo:
    """The model behind the answers, and its questions."""
    return await gateway.model_info()


@router.get("/v1/examples", responses=ERRORS)
async def list_examples() -> Examples:
    """Simulated recordings to try the API with."""
    # The first call simulates them, which takes seconds.
    listed = await asyncio.to_thread(examples.listed)
    return Examples(examples=[Example(**example) for example in listed])


@router.get("/v1/examples/{name}", response_class=PlainTextResponse, responses={**ERRORS, **NOT_FOUND})
async def example(name: str) -> str:
    """An example recording, as a .mot file."""
    try:
        return await asyncio.to_thread(examples.mot, name)
    except KeyError:
        raise ApiError("not_found", f"no example {name!r}") from None


@router.get("/healthz")
async def health() -> Health:
    """The HTTP side is alive."""
    return Health()


@router.get(
    "/readyz",
    response_class=PlainTextResponse,
    responses={503: {"model": ErrorBody, "description": "No model is ready."}},
)
async def ready(gateway: GatewayDependency) -> Response:
    """A model answers. It is asked each time."""
    try:
        await asyncio.wait_for(gateway.model.describe(), timeout=READY_TIMEOUT_S)
    except Exception:
        status, headers, body = error_response("/readyz", "busy", "no model is ready")
        return Response(body, status, headers)
    return PlainTextResponse("ready")
