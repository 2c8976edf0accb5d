"""Serves a bundle on this machine: the champion of the registry, or else the demo's. Ctrl-C stops it."""

import os
import secrets
import signal
import sys
from threading import Event

from pydantic import Field

from biomechgpt.core import cluster, storage
from biomechgpt.core.settings import InputError, Settings, load
from biomechgpt.experiment import tracking
from biomechgpt.experiment.tracking import CHAMPION, TrackingSettings
from serve import app, model


class Local(Settings):
    """Where to listen, and what to serve."""

    bundle: str | None = Field(None, description="URI or models:/NAME@ALIAS; default: champion, else demo")
    demo: str = Field("results/demo", description="folder of the demo's report")
    tracking: TrackingSettings = TrackingSettings()
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=1, le=65535)


def choose(settings: Local) -> str:
    """The bundle's URI. Raises InputError where nothing was trained yet."""
    if settings.bundle:
        return tracking.resolve(settings.tracking, settings.bundle)
    metrics = storage.join(settings.demo, "metrics.json")
    try:
        return tracking.resolve(settings.tracking, CHAMPION)
    except InputError:
        if storage.exists(metrics):
            return storage.read_json(metrics)["model"]["uri"]
    raise InputError(
        f"no bundle to serve: the registry has no champion and {settings.demo} no report. "
        "Run `make demo` first, or name one with --bundle"
    )


def main(settings: Local) -> None:
    from ray import serve

    bundle = choose(settings)
    given = os.environ.get(app.KEY)
    key = os.environ.setdefault(app.KEY, secrets.token_urlsafe(24))
    cluster.connect()
    serve.start(http_options={"host": settings.host, "port": settings.port}, logging_config=model.QUIET)
    serve.run(app.build({"bundle": bundle}), name="biomechgpt", route_prefix="/")
    link = f"http://{settings.host}:{settings.port}/"
    print(f"serving {bundle}")
    print(f"page: {link}" + (f" (key: {app.KEY})" if given else f"#key={key}"), flush=True)
    stopped = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    stopped.wait()
    serve.shutdown()


if __name__ == "__main__":
    try:
        main(load(Local, None, sys.argv[1:]))
    except InputError as error:
        print(f"serve: {error}", file=sys.stderr)
        raise SystemExit(2) from None
