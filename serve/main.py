"""Serves a model on this machine: the champion of the registry, or else the demo's model. Ctrl-C stops it.

SIGHUP looks for the model again: an upgrade, or a rollback, without a pause.
"""

import errno
import os
import secrets
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue

from pydantic import Field

from biomechgpt.answering.library import find_model
from biomechgpt.core import storage
from biomechgpt.core.settings import InputError
from biomechgpt.experiment import tracking
from biomechgpt.experiment.tracking import CHAMPION, SQLITE, TrackingSettings
from serve import app
from serve.clients import KEYS_FILE
from serve.settings import KEY, GatewaySettings


class LocalSettings(GatewaySettings):
    """Where to listen, which model to serve, and how to read recordings."""

    bundle: str | None = None
    """URI of a model, or models:/NAME@ALIAS. Default: the champion of the registry, else the demo's model."""
    demo: str = "results/demo"
    """Folder of the demo's report."""
    tracking: TrackingSettings = TrackingSettings()
    """Where the registry is."""
    keys: str | None = KEYS_FILE
    """File of clients that `biomechgpt keys add` writes."""
    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(8000, ge=1, le=65535)
    """Port to listen on."""


def choose_bundle(settings: LocalSettings) -> str:
    """The URI of the bundle to serve. Raises InputError if nothing was trained yet."""
    if settings.bundle:
        return tracking.resolve(settings.tracking, settings.bundle)
    champion = _champion(settings.tracking)
    if champion:
        return champion
    metrics = storage.join(settings.demo, "metrics.json")
    if storage.exists(metrics):
        return find_model(settings.demo)
    raise InputError(
        f"no bundle to serve: the registry has no champion and {settings.demo} no report. "
        "Run `make demo` first, or name one with --bundle"
    )


def _champion(settings: TrackingSettings) -> str | None:
    """The champion's URI; None without one. MLflow is imported only if there can be a registry."""
    if settings.uri.startswith(SQLITE) and not Path(settings.uri.removeprefix(SQLITE)).exists():
        return None
    try:
        return tracking.resolve(settings, CHAMPION)
    except (InputError, ModuleNotFoundError):  # no champion, or MLflow is not installed
        return None


def require_free(host: str, port: int) -> None:
    """Raise InputError if nothing can listen there. Ray Serve would say so in pages of its own log."""
    try:
        (family, kind, protocol, _, address), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        with socket.socket(family, kind, protocol) as listener:
            # A connection that was closed a moment ago is no reason.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise InputError(
                f"port: {port} is in use on {host}, perhaps by another `biomechgpt serve`: stop it, or take "
                f"another port (--port {port % 65535 + 1}, with make PORT={port % 65535 + 1})"
            ) from None
        raise InputError(
            f"host, port: expected an address that can be listened on, found {host}:{port} "
            f"({error.strerror or error})"
        ) from None


def start(host: str, port: int) -> None:
    """Start Ray Serve on an address."""
    from ray import serve

    from serve.deployment import QUIET

    serve.start(http_options={"host": host, "port": port}, logging_config=QUIET)


def serve_model(settings: LocalSettings) -> None:
    """Serve until Ctrl-C. Prints the page's address with the access key. SIGHUP upgrades the model."""
    from ray import serve

    from biomechgpt.core import cluster

    bundle = choose_bundle(settings)
    require_free(settings.host, settings.port)
    key_is_ours = KEY not in os.environ
    key = os.environ.setdefault(KEY, secrets.token_urlsafe(24))
    cluster.connect(loopback=True)
    start(settings.host, settings.port)
    shared = settings.model_dump(include=set(GatewaySettings.model_fields) | {"tracking"})

    def deploy(uri: str) -> None:
        serve.run(app.build({**shared, "bundle": uri}), name="biomechgpt", route_prefix="/")

    deploy(bundle)
    link = f"http://{settings.host}:{settings.port}/"
    print(f"serving {bundle}")
    print(f"page: {link}" + (f"#key={key}" if key_is_ours else f" (key: {KEY})"), flush=True)
    signals: SimpleQueue[int] = SimpleQueue()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: signals.put(number))
    while signals.get() == signal.SIGHUP:
        bundle = upgrade(bundle, lambda: choose_bundle(settings), deploy)
    serve.shutdown()


def upgrade(bundle: str, choose: Callable[[], str], deploy: Callable[[str], None]) -> str:
    """Deploy the model that is chosen now. If it cannot be served, the one before stays. Returns the served one."""
    try:
        chosen = choose()
    except InputError as error:
        print(f"still serving {bundle}: {error}", flush=True)
        return bundle
    try:
        deploy(chosen)
    except (InputError, RuntimeError) as error:
        print(f"still serving {bundle}: {chosen} cannot be served: {error}", flush=True)
        deploy(bundle)
        return bundle
    print(f"serving {chosen}", flush=True)
    return chosen
