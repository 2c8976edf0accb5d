"""Keys, prefixes, lost models and ports on real Ray Serve, with a model that needs no training."""

import asyncio
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from ipaddress import ip_address

import httpx
import psutil
import pytest
from fake_model import FakeModel
from test_security import OPEN, WALK, route_table

from conftest import ROOT
from ports import free_port
from serve import app as application
from serve.app import STATIC
from serve.clients import add_key
from serve.records import Records
from serve.settings import GatewaySettings

KEY = os.environ[application.KEY]
HEADERS = {"Authorization": f"Bearer {KEY}"}
PREFIXES = ("/", "/a", "/a/b")

pytestmark = pytest.mark.cluster


class Slow(FakeModel):
    """Answers in a moment, so that requests are under way when it is killed."""

    async def process(self):
        return os.getpid()

    async def answer(self, query):
        await asyncio.sleep(0.3)
        return await super().answer(query)


@pytest.fixture(scope="module")
def address(ray_cluster):
    """host:port of a server with the same application under several route prefixes."""
    from ray import serve

    port = free_port()
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    for i, prefix in enumerate(PREFIXES):
        model = serve.deployment(Slow, name="Model").options(ray_actor_options={"num_cpus": 0}).bind()
        limits = GatewaySettings(max_body_bytes=2_000_000)
        serve.run(application.with_gateway(model, limits, None), name=f"app{i}", route_prefix=prefix)
    yield f"127.0.0.1:{port}"
    serve.shutdown()


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize(("key", "is_right"), [(None, False), ("wrong", False), (KEY, True)])
def test_every_path_but_the_named_ones_needs_a_key_under_every_prefix(address, prefix, key, is_right):
    base = f"http://{address}{prefix.rstrip('/')}"
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    with httpx.Client(headers=headers, timeout=60) as client:
        for method, path in route_table():
            response = client.request(method, base + path)
            found = (method, base + path, response.status_code)
            assert (response.status_code == 401) is (not is_right and path not in OPEN), found
            assert response.status_code < 500, found
            assert response.headers["cache-control"] == "no-store"
        for file in [p.relative_to(STATIC).as_posix() for p in STATIC.rglob("*") if p.is_file()] + [""]:
            assert client.get(f"{base}/{file}").status_code == 200
        # The size limit holds under a prefix too.
        large = client.post(f"{base}/v1/answers", content=b"x" * 2_100_000)
        assert large.status_code == (413 if is_right else 401)


def ask(address):
    files = {"recording": (WALK.name, WALK.read_bytes())}
    response = httpx.post(
        f"http://{address}/v1/answers", files=files, data={"tasks": "activity"}, headers=HEADERS, timeout=90
    )
    return response.status_code, response.headers.get("retry-after")


def test_a_model_that_is_killed_under_load_is_asked_again_and_is_never_an_error_of_the_server(address):
    from ray import serve

    assert ask(address)[0] == 200
    handle = serve.get_deployment_handle("Model", "app0")
    process = handle.process.remote().result()
    with ThreadPoolExecutor(6) as pool:
        futures = [pool.submit(ask, address) for _ in range(6)]
        time.sleep(0.25)
        os.kill(process, signal.SIGKILL)
        futures += [pool.submit(ask, address) for _ in range(6)]
        results = [future.result() for future in futures]
    statuses = [status for status, _ in results]
    assert set(statuses) <= {200, 503, 429}, statuses
    assert statuses.count(200) >= 6, statuses
    assert all(wait is not None for status, wait in results if status != 200)
    wait_for(lambda: ask(address)[0] == 200)


def wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.01)


def test_every_answer_of_a_gateway_that_is_killed_is_on_record(address, tmp_path):
    from ray import serve

    keys = tmp_path / "keys.json"
    headers = {"Authorization": f"Bearer {add_key(keys, 'ward-7', 1)}"}
    limits = GatewaySettings(keys=str(keys))
    model = serve.deployment(FakeModel, name="Model").options(ray_actor_options={"num_cpus": 0}).bind()
    serve.run(application.with_gateway(model, limits, None), name="audited", route_prefix="/audited")
    sent, stopped, chance = [], threading.Event(), random.Random(7)

    def ask_on(part):
        for i in range(100_000):
            if stopped.is_set():
                return
            content = WALK.read_bytes() + b"\n" * (1 + part + 3 * i)  # each with a hash of its own
            try:
                response = httpx.post(
                    f"http://{address}/audited/v1/answers", files={"recording": (WALK.name, content)},
                    data={"tasks": "activity"}, headers=headers, timeout=60,
                )  # fmt: skip
            except httpx.HTTPError:
                continue
            if response.status_code == 200:
                sent.append(hashlib.sha256(content).hexdigest())

    def gateways():
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):  # it has ended meanwhile
                if "audited:Gateway" in " ".join(process.cmdline()):
                    found.append(process)
        return found

    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(ask_on, part) for part in range(3)]
        try:
            for _ in range(3):
                known = len(sent)
                wait_for(lambda known=known: len(sent) >= known + 5)
                time.sleep(chance.uniform(0, 0.5))
                wait_for(gateways)
                for gateway in gateways():
                    gateway.kill()
        finally:
            stopped.set()  # else the threads would go on asking, and a failure would never end
        for future in futures:
            future.result()
    serve.delete("audited")
    records = Records(limits.database_uri, 60)
    records.verify()
    recorded = {
        entity["what"]["identifier"]["value"]
        for row in records.rows()
        for entity in json.loads(row.event)["entity"]
        if entity.get("description") == "recording" and row.outcome == "0"
    }
    assert len(sent) >= 10
    assert set(sent) <= recorded


def test_results_of_a_batch_are_kept_where_every_gateway_finds_them(address):
    """In a deployment of their own."""
    files = [("recordings", (WALK.name, WALK.read_bytes())), ("recordings", ("bad.mot", b"nothing"))]
    with httpx.Client(base_url=f"http://{address}/a", headers=HEADERS, timeout=90) as client:
        batch = client.post("/v1/batches", files=files, data={"tasks": "activity"})
        assert batch.status_code == 202
        assert batch.headers["location"] == f"http://{address}/a/v1/batches/{batch.json()['id']}"
        end = time.monotonic() + 90
        while (state := client.get(batch.headers["location"]).json())["status"] == "running":
            assert time.monotonic() < end
            time.sleep(0.5)
        assert (state["status"], state["done"], state["failed"]) == ("finished", 2, 1)
        good, bad = client.get(f"{batch.headers['location']}/results").text.splitlines()
        assert json.loads(good)["answers"]["answers"][0]["task"] == "activity"
        assert json.loads(bad)["error"]["code"] == "bad_recording"
        assert (
            client.get(f"http://{address}/v1/batches/{batch.json()['id']}").status_code == 404
        )  # another app


def listening(process):
    """(address, port, command) of what a process and its children listen on."""
    found = []
    for each in [process, *process.children(recursive=True)]:
        try:
            connections = each.net_connections("inet")
            command = " ".join(each.cmdline())[:80]
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        found += [(c.laddr.ip, c.laddr.port, command) for c in connections if c.status == psutil.CONN_LISTEN]
    return found


SERVER = """
import sys
from ray import serve
from biomechgpt.core import cluster
from serve import app
from serve.deployment import listen_on_loopback
from serve.settings import GatewaySettings
from serve.main import start
from fake_model import FakeModel
cluster.connect(loopback=True)
start("127.0.0.1", int(sys.argv[1]))
class Fake(FakeModel):
    def __init__(self):
        super().__init__()
        listen_on_loopback()  # as the real one
model = serve.deployment(Fake, name="Model").options(ray_actor_options={"num_cpus": 0}).bind()
serve.run(app.with_gateway(model, GatewaySettings(), None), name="x", route_prefix="/")
print("ready", flush=True)
sys.stdin.read()
"""


def test_a_server_listens_on_loopback_only_with_every_port(tmp_path):
    environment = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop("RAY_ADDRESS", None)
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(free_port())],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT,
    )  # fmt: skip
    try:
        for line in process.stdout:
            if "ready" in line:
                break
        server = psutil.Process(process.pid)
        # Through it Prometheus finds the server's metrics (docs/operations.md).
        assert any("ReportHead" in " ".join(child.cmdline()) for child in server.children(recursive=True))
        found = listening(server)
        assert found
        assert [
            place for place in found if not ip_address(place[0].removeprefix("::ffff:")).is_loopback
        ] == []
        tokens = [p for p in tmp_path.rglob("*token*") if p.is_file()]
        assert [oct(p.stat().st_mode & 0o777) for p in tokens] == ["0o600"] * len(tokens)
        assert tokens
    finally:
        process.stdin.close()
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
