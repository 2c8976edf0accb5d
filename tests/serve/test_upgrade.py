"""Another model under load on real Ray Serve: an upgrade, a rollback and a model that cannot start."""

import asyncio
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import httpx
import pytest
from fake_model import HEADERS as FAKE_HEADERS
from fake_model import KEY as FAKE_KEY
from fake_model import SERVED, FakeModel
from fastapi.testclient import TestClient
from test_security import WALK

from ports import free_port
from serve import app as application
from serve.app import create_app
from serve.gateway import Gateway
from serve.model import SERVED as CURRENT
from serve.model import ModelChanged, OtherModel
from serve.settings import GatewaySettings

HEADERS = {"Authorization": f"Bearer {os.environ[application.KEY]}"}
FIRST, SECOND = "1" * 64, "2" * 64


class Version(FakeModel):
    """A model that cannot read the tokens of another one.

    fails: whether it cannot start, as with a damaged bundle.
    """

    def __init__(self, fingerprint, fails=False):
        super().__init__()
        if fails:
            raise ValueError("the bundle is damaged")
        summary = SERVED.summary.model_copy(update={"fingerprint": fingerprint})
        self.served = SERVED.model_copy(update={"summary": summary, "tokenizer": fingerprint})
        self.token = int(fingerprint[0])

    async def tokenize(self, *arguments):
        return replace(await super().tokenize(*arguments), tokens=[self.token])

    async def answer(self, query):
        await asyncio.sleep(0.1)
        if any(list(motion.tokens) != [self.token] for motion in query.motions):
            raise ValueError("tokens of another model")
        return await super().answer(query)


def post(url, headers):
    files = {"recording": (WALK.name, WALK.read_bytes())}
    return httpx.post(
        f"{url}/v1/answers", files=files, data={"tasks": "activity"}, headers=headers, timeout=90
    )


class Load:
    """What clients that ask all the time got: statuses, and fingerprints in the order they came."""

    def __init__(self, url):
        self.url, self.statuses, self.fingerprints, self.stopped = url, [], [], threading.Event()

    def run(self):
        while not self.stopped.is_set():
            try:
                response = post(self.url, HEADERS)
            except httpx.HTTPError as error:
                self.statuses.append(type(error).__name__)
                continue
            self.statuses.append(response.status_code)
            if response.status_code == 200:
                self.fingerprints.append(response.json()["model"]["fingerprint"])

    def wait_for(self, count):
        """Until so many more answers came."""
        end, wanted = time.monotonic() + 120, len(self.fingerprints) + count
        while len(self.fingerprints) < wanted:
            assert time.monotonic() < end
            time.sleep(0.05)


@contextmanager
def load(url, clients=3):
    under_way = Load(url)
    with ThreadPoolExecutor(clients) as pool:
        futures = [pool.submit(under_way.run) for _ in range(clients)]
        try:
            yield under_way
        finally:
            under_way.stopped.set()
            for future in futures:
                future.result()


@pytest.mark.cluster
def test_an_upgrade_a_rollback_and_a_damaged_model_fail_no_request(ray_cluster):
    from ray import serve

    from serve.deployment import ROLLING

    def deploy(fingerprint, fails=False):
        options = {"ray_actor_options": {"num_cpus": 0}, **ROLLING}
        model = serve.deployment(Version, name="Model").options(**options).bind(fingerprint, fails)
        limits = GatewaySettings(client_questions_per_minute=100_000)
        serve.run(application.with_gateway(model, limits, fingerprint), name="upgrade", route_prefix="/")

    port = free_port()
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    try:
        deploy(FIRST)
        with load(f"http://127.0.0.1:{port}") as clients:
            clients.wait_for(5)
            deploy(SECOND)
            clients.wait_for(10)
            assert set(clients.fingerprints[-3:]) == {SECOND}
            deploy(FIRST)
            clients.wait_for(10)
            assert set(clients.fingerprints[-3:]) == {FIRST}
            with pytest.raises(RuntimeError):
                deploy(SECOND, fails=True)
            clients.wait_for(10)
            assert set(clients.fingerprints[-3:]) == {FIRST}
            deploy(SECOND)
            clients.wait_for(10)
            assert set(clients.fingerprints[-3:]) == {SECOND}
        assert set(clients.statuses) == {200}
        wrong = httpx.get(f"http://127.0.0.1:{port}/v1/nowhere", headers=HEADERS)
        assert wrong.json()["error"]["request_id"] == wrong.headers["x-request-id"]
    finally:
        serve.shutdown()


class Replaced(FakeModel):
    """Is replaced by another model while it answers, as often as is said."""

    def __init__(self, times):
        super().__init__()
        self.times = times

    async def answer(self, query):
        if self.times:
            self.times -= 1
            fingerprint = str(self.times) * 64
            summary = SERVED.summary.model_copy(update={"fingerprint": fingerprint})
            self.served = SERVED.model_copy(update={"summary": summary})
            raise ModelChanged
        assert CURRENT.get().summary.fingerprint == self.served.summary.fingerprint
        return await super().answer(query)


@pytest.mark.parametrize(("times", "status"), [(1, 200), (2, 200), (3, 503)])
def test_a_request_whose_model_is_replaced_begins_again(times, status):
    model = Replaced(times)
    client = TestClient(create_app(Gateway(model, GatewaySettings()), FAKE_KEY), headers=FAKE_HEADERS)
    files = {"recording": (WALK.name, WALK.read_bytes())}
    response = client.post("/v1/answers", files=files, data={"tasks": "activity"})
    assert response.status_code == status
    assert model.calls.count("tokenize") == min(times + 1, 3)
    if status == 200:
        assert response.json()["model"]["fingerprint"] == "0" * 64
    else:
        assert response.headers["retry-after"]


def test_a_replica_answers_only_those_who_mean_its_model():
    model = FakeModel()
    assert asyncio.run(model.call("0" * 64, "question_lengths", ["a b"])) == OtherModel()
    for meant in (None, SERVED.summary.fingerprint):
        assert asyncio.run(model.call(meant, "question_lengths", ["a b"])) != OtherModel()
