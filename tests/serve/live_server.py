"""A server of a fake model on a port of this machine, without Ray: for clients that speak real HTTP."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fake_model import KEY
from fastapi import FastAPI

from serve.app import create_app
from serve.gateway import Gateway


@contextmanager
def listening(app: FastAPI) -> Iterator[str]:
    """Serves an application; its URL."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    end = time.monotonic() + 60
    while not server.started:
        assert time.monotonic() < end
        time.sleep(0.02)
    host, port = server.servers[0].sockets[0].getsockname()
    yield f"http://{host}:{port}"
    server.should_exit = True
    thread.join(20)


@contextmanager
def serving(gateway: Gateway) -> Iterator[str]:
    """Serves a gateway; its URL. The key is `fake_model.KEY`."""
    with listening(create_app(gateway, KEY)) as url:
        yield url
