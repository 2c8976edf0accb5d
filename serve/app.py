"""The application: routers, checks, errors and the page, put together.

`build` is the `import_path: serve.app:build` of a RayService. `create_app` needs no Ray.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.responses import Response
from fastapi.staticfiles import StaticFiles

from serve import routes
from serve.errors import add_error_handlers
from serve.gateway import Gateway
from serve.middleware import RequestGuard
from serve.schema import NOTICE
from serve.settings import KEY

if TYPE_CHECKING:
    from ray.serve import Application

STATIC = Path(__file__).parent / "static"


def create_app(gateway: Gateway, key: str) -> FastAPI:
    """The HTTP application of a gateway. key: clients send it as a bearer token."""
    app = FastAPI(
        title="BiomechGPT",
        version="1",
        description=f"Clinical questions about how a person moves. {NOTICE}",
        docs_url=None,  # these pages load scripts from other servers
        redoc_url=None,
    )
    app.state.gateway = gateway
    limits = gateway.settings
    app.add_middleware(
        RequestGuard, key=key, max_body=limits.max_body_bytes, max_requests=limits.max_requests
    )
    add_error_handlers(app)
    for router in routes.routers():
        app.include_router(router)
    if STATIC.is_dir():
        app.mount("/", _Page(directory=STATIC, html=True))
    return app


class _Page(StaticFiles):
    """The web page. Its headers forbid content from other servers."""

    async def get_response(self, path: str, scope: Any) -> Response:
        response = await super().get_response(path, scope)
        response.headers["content-security-policy"] = (
            "default-src 'self'; img-src 'self' data: blob:; frame-ancestors 'none'; base-uri 'none'"
        )
        response.headers["x-content-type-options"] = "nosniff"
        response.headers["referrer-policy"] = "no-referrer"
        return response


def build(arguments: dict[str, Any]) -> "Application":
    """The Ray Serve application, from the fields of `ServeSettings`. Raises InputError for an unknown bundle."""
    from ray import serve

    from biomechgpt.core import artifact
    from biomechgpt.core.settings import validate
    from biomechgpt.experiment import tracking
    from serve.deployment import QUIET, Model, ServeSettings, remote_model

    settings = validate(ServeSettings, arguments, "serve")
    bundle = artifact.load(tracking.resolve(settings.tracking, settings.bundle), "model")
    model = Model.options(  # type: ignore[attr-defined]
        num_replicas=settings.replicas,
        max_queued_requests=settings.max_queued,
        ray_actor_options={"num_cpus": 1, "num_gpus": settings.gpus},
    ).bind(bundle.uri, settings.batch_size, settings.batch_wait_s)

    def create() -> FastAPI:
        # Runs in the replica: the key comes from its own environment, never through the cluster's metadata.
        handle = serve.get_deployment_handle("Model", serve.get_replica_context().app_name)
        gateway = Gateway(remote_model(handle), settings, bundle.fingerprint)
        return create_app(gateway, os.environ.get(KEY, ""))

    deployment = serve.deployment(
        serve.ingress(create)(),
        name="Gateway",
        # RequestGuard counts requests and refuses them with our own error before Ray Serve would in plain text.
        max_ongoing_requests=settings.max_requests * 4,
        ray_actor_options={"num_cpus": 0},
        logging_config=QUIET,
    )
    application: Application = deployment.bind(model)  # type: ignore[attr-defined]
    return application
