"""The application: routers, checks, errors and the page, put together.

`build` is the `import_path: serve.app:build` of a RayService. `create_app` needs no Ray.
"""

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles
from starlette.datastructures import MutableHeaders
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Match, Mount

from serve import routes
from serve.audit import AuditLog
from serve.clients import Clients
from serve.errors import add_error_handlers, route_path
from serve.gateway import Gateway
from serve.middleware import OPEN, OPEN_BELOW, RequestGuard
from serve.model import ModelClient
from serve.records import Records
from serve.schema import NOTICE, ErrorBody
from serve.settings import KEY, GatewaySettings
from serve.shadow import Shadowed
from serve.smart import TOKEN_PATH, Smart

if TYPE_CHECKING:
    from ray.serve import Application

MODEL, SHADOW = "Model", "Shadow"
"""Names of the deployments of the model and of its shadow."""
STATIC = Path(__file__).parent / "static"
_ERROR_BODY = f"#/components/schemas/{ErrorBody.__name__}"
"""Where the OpenAPI document describes the body of an error."""


def create_app(gateway: Gateway, key: str) -> FastAPI:
    """The HTTP application of a gateway. key: clients send it as a bearer token, or one of the file of keys."""
    app = FastAPI(
        title="BiomechGPT",
        version="1",
        description=f"Clinical questions about how a person moves. {NOTICE}",
        docs_url=None,  # these pages load scripts from other servers
        redoc_url=None,
    )
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it quotes bytes of a damaged form
    settings = gateway.settings
    clients, log = Clients(key, settings.keys), _audit_log(settings)
    smart = Smart(settings.smart, clients, log) if settings.smart and log else None
    app.state.gateway, app.state.smart = gateway, smart
    app.state.audit_log = log if settings.audit != "off" else None
    files = _files(STATIC)
    # Motion tokens and a stick figure are 170 kB of JSON.
    app.add_middleware(GZipMiddleware, minimum_size=2000, compresslevel=4)
    app.add_middleware(
        RequestGuard,
        clients=clients,
        admission=gateway.admission,
        files=files,
        smart=smart,
        log=app.state.audit_log,
        forget_model=gateway.forget_model,
    )
    add_error_handlers(app)
    for router in routes.routers():
        app.include_router(router)
    app.openapi = lambda: _document(app)  # type: ignore[method-assign]
    app.router.routes.append(_Page(files, StaticFiles(directory=STATIC, html=True, check_dir=False)))
    return app


def _audit_log(settings: GatewaySettings) -> AuditLog | None:
    """The database of records and tokens; None if none is named. It is opened when it is first needed."""
    if settings.database_uri is None:
        return None
    wait_s = settings.database_timeout_s
    return AuditLog(Records(settings.database_uri, wait_s), wait_s, settings.audit_days)


def _document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, with the key that every path but the open ones needs.

    FastAPI gives the errors of an endpoint the type of its answer, such as text. Here all errors of /v1 are JSON.
    """
    if app.openapi_schema is None:
        document = FastAPI.openapi(app)
        document["components"]["securitySchemes"] = {
            "key": {
                "type": "http",
                "scheme": "bearer",
                "description": "An access key (`biomechgpt keys`), or an access token.",
            }
        }
        for path, operations in document["paths"].items():
            for operation in operations.values():
                is_open = path in OPEN or path.startswith(OPEN_BELOW) or path == TOKEN_PATH
                operation["security"] = [] if is_open else [{"key": []}]
                for response in operation["responses"].values():
                    for content in [*response.get("content", {}).values()]:
                        if content["schema"].get("$ref") == _ERROR_BODY:
                            response["content"] = {"application/json": content}
        app.openapi_schema = document
    return app.openapi_schema


def _files(folder: Path) -> frozenset[str]:
    """Paths of the page and its files, as the router sees them."""
    files = {f"/{path.relative_to(folder).as_posix()}" for path in folder.rglob("*") if path.is_file()}
    return frozenset(files | ({"", "/"} if "/index.html" in files else set()))


class _Page(Mount):
    """The web page: only its own files, so that any other path is unknown. Its headers forbid foreign content."""

    def __init__(self, files: frozenset[str], app: StaticFiles) -> None:
        super().__init__("/", self._respond)
        self.files, self.static = files, app

    def matches(self, scope: Any) -> tuple[Match, Any]:
        return super().matches(scope) if route_path(scope) in self.files else (Match.NONE, {})

    async def _respond(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["content-security-policy"] = (
                    "default-src 'self'; img-src 'self' data: blob:; frame-ancestors 'none'; base-uri 'none'"
                )
                headers["referrer-policy"] = "no-referrer"
            await send(message)

        await self.static(scope, receive, send_with_headers)


def build(arguments: dict[str, Any]) -> "Application":
    """The Ray Serve application, from the fields of `ServeSettings`. Raises InputError for an unknown bundle."""
    from biomechgpt.core import artifact
    from biomechgpt.core.settings import validate
    from biomechgpt.experiment import tracking
    from serve.deployment import Model, ServeSettings

    settings = validate(ServeSettings, arguments, "serve")
    if "questions_at_once" not in settings.model_fields_set:
        settings = settings.model_copy(update={"questions_at_once": settings.batch_size * settings.replicas})

    def bound(uri: str, replicas: int, name: str) -> tuple["Application", str]:
        bundle = artifact.load(tracking.resolve(settings.tracking, uri), "model")
        model = Model.options(  # type: ignore[attr-defined]
            name=name,
            num_replicas=replicas,
            graceful_shutdown_timeout_s=settings.answer_timeout_s,
            max_queued_requests=settings.max_queued,
            ray_actor_options={"num_cpus": 1, "num_gpus": settings.gpus},
        ).bind(bundle.uri, settings.batch_size, settings.batch_wait_s)
        return model, bundle.fingerprint

    model, fingerprint = bound(settings.bundle, settings.replicas, MODEL)
    shadow = bound(settings.shadow, 1, SHADOW)[0] if settings.shadow else None
    return with_gateway(model, settings, fingerprint, shadow)


def with_gateway(
    model: "Application",
    settings: GatewaySettings,
    fingerprint: str | None,
    shadow: "Application | None" = None,
) -> "Application":
    """The application of a gateway in front of a deployment that is named Model and has its methods.

    shadow: a deployment that is named Shadow, is asked the same and answers nobody; None: there is none.
    """
    from ray import serve

    from serve.deployment import (
        QUIET,
        ROLLING,
        MemoryReplica,
        remote_memory,
        remote_model,
        set_up_replica,
    )

    has_shadow = shadow is not None

    def create() -> FastAPI:
        set_up_replica()
        # Runs in the replica: the key comes from its own environment, never through the cluster's metadata.
        name = serve.get_replica_context().app_name
        client = remote_model(serve.get_deployment_handle(MODEL, name))
        if has_shadow:
            other = remote_model(serve.get_deployment_handle(SHADOW, name))
            client = cast(ModelClient, Shadowed(client, other, settings.shadow_questions_at_once))
        gateway = Gateway(
            client,
            settings,
            fingerprint,
            remote_memory(serve.get_deployment_handle("Memory", name)),
        )
        gateway.reader.start()  # the first recording need not wait for it
        return create_app(gateway, os.environ.get(KEY, ""))

    # One for all gateways: a client may ask each of them for its results.
    memory = MemoryReplica.bind(settings)  # type: ignore[attr-defined]
    deployment = serve.deployment(
        serve.ingress(create)(),
        name="Gateway",
        # RequestGuard counts requests and refuses them with our own error before Ray Serve would in plain text.
        max_ongoing_requests=settings.max_requests * 4,
        ray_actor_options={"num_cpus": 0},
        logging_config=QUIET,
        # A gateway that is replaced answers what it has begun.
        graceful_shutdown_timeout_s=settings.body_timeout_s + settings.answer_timeout_s,
        **ROLLING,
    )
    further = [] if shadow is None else [shadow]
    application: Application = deployment.bind(model, memory, *further)  # type: ignore[attr-defined]
    return application
