"""The endpoints of SMART Backend Services: what is supported, and access tokens."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response

from serve.errors import ApiError
from serve.routes.fhir import FHIR_ERRORS
from serve.schema import ERRORS, NOT_FOUND
from serve.smart import ASSERTION_TYPE, CONFIGURATION, GRANT, TOKEN_PATH, Refused, Smart

router = APIRouter()


def _smart(request: Request) -> Smart:
    smart: Smart | None = request.app.state.smart
    if smart is None:
        raise ApiError("not_found", "SMART Backend Services are not set up here (the setting `smart`)")
    return smart


SmartDependency = Annotated[Smart, Depends(_smart)]

_TEXT = {"type": "string"}
_FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "application/x-www-form-urlencoded": {
                "schema": {
                    "type": "object",
                    "required": ["grant_type", "scope", "client_assertion_type", "client_assertion"],
                    "properties": {
                        "grant_type": {**_TEXT, "enum": [GRANT], "description": "Kind of the request."},
                        "scope": {**_TEXT, "description": "Scopes, separated by spaces."},
                        "client_assertion_type": {
                            **_TEXT,
                            "enum": [ASSERTION_TYPE],
                            "description": "Kind of the signed JWT.",
                        },
                        "client_assertion": {**_TEXT, "description": "JWT that the client signed."},
                    },
                }
            }
        },
    }
}
_RESPONSE = {
    "type": "object",
    "required": ["access_token", "token_type", "expires_in", "scope"],
    "properties": {
        "access_token": {**_TEXT, "description": "For the header `Authorization: Bearer`."},
        "token_type": {**_TEXT, "description": "`bearer`."},
        "expires_in": {"type": "integer", "description": "Seconds until it ends."},
        "scope": {
            **_TEXT,
            "description": "What it allows: the scopes that were asked for and are registered.",
        },
    },
}
_REFUSAL = {
    "type": "object",
    "properties": {
        "error": {"description": "Code of OAuth 2.0, or the error of this API."},
        "error_description": {**_TEXT, "description": "What was expected."},
    },
}


def _json(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


@router.get("/fhir" + CONFIGURATION, responses={404: FHIR_ERRORS[404]})
@router.get(CONFIGURATION, responses=NOT_FOUND)
async def smart_configuration(smart: SmartDependency) -> dict[str, Any]:
    """Where and how clients of SMART Backend Services get access tokens."""
    return smart.configuration()


@router.post(
    TOKEN_PATH,
    openapi_extra=_FORM,
    responses={
        **ERRORS,
        **NOT_FOUND,
        200: _json("An access token.", _RESPONSE),
        400: _json("The request is refused.", _REFUSAL),
        401: _json("The client is not who it says.", _REFUSAL),
    },
)
async def token(smart: SmartDependency, request: Request) -> Response:
    """An access token for a client that signs with its private key."""
    if not smart.issues_tokens:
        raise ApiError("not_found", f"tokens are given at {smart.settings.token_endpoint}")
    form = await request.form()
    fields = {name: value for name, value in form.items() if isinstance(value, str)}
    try:
        if len(fields) < len(form.multi_items()):
            raise Refused("invalid_request", "expected each field once, as text")
        return JSONResponse(await smart.issue(fields))
    except Refused as refusal:
        status = 401 if refusal.code == "invalid_client" else 400
        return JSONResponse({"error": refusal.code, "error_description": refusal.description}, status)
