"""The id of a request and its line in the log, over a fake model without Ray."""

import json
import logging
import re

import pytest
from fake_model import HEADERS, KEY, FakeModel
from fastapi.testclient import TestClient
from test_security import WALK

from serve.app import create_app
from serve.gateway import Gateway
from serve.running import JsonLines
from serve.settings import GatewaySettings


class Broken(FakeModel):
    """Fails with a message that quotes the question."""

    async def answer(self, query):
        raise ValueError(f"cannot answer {query.turns}")


@pytest.fixture
def lines():
    """The lines of the log, as JSON."""
    written = []

    class Keep(logging.Handler):
        def emit(self, record):
            written.append(json.loads(JsonLines().format(record)))

    package = logging.getLogger("biomechgpt")
    level, handler = package.level, Keep()
    package.addHandler(handler)
    package.setLevel(logging.INFO)
    yield written
    package.removeHandler(handler)
    package.setLevel(level)


def client_of(model, **settings):
    app = create_app(Gateway(model, GatewaySettings(**settings)), KEY)
    return TestClient(app, headers=HEADERS, raise_server_exceptions=False)


def ask(client, path="/v1/answers", **headers):
    files = {"recording": ("Frau Müller.mot", WALK.read_bytes())}
    return client.post(path, files=files, data={"tasks": "activity"}, headers=headers)


def test_an_error_repeats_the_id_of_its_request():
    client = client_of(FakeModel())
    given = {"X-Request-ID": "ward-7.2026"}
    assert client.get("/v1/nowhere", headers=given).json()["error"]["request_id"] == "ward-7.2026"
    assert client.get("/fhir/nowhere", headers=given).json()["id"] == "ward-7.2026"
    refused = TestClient(client.app).get("/v1/model", headers=given)
    assert refused.json()["error"]["request_id"] == "ward-7.2026"
    wrong = client.post("/v1/answers", data={"tasks": "activity"}, headers=given)
    assert wrong.json()["error"]["request_id"] == "ward-7.2026"


@pytest.mark.parametrize("given", [None, "", "x" * 65, "a b", 'a"}', "<script>"])
def test_an_id_that_is_missing_or_odd_is_replaced(given):
    client = client_of(FakeModel())
    headers = {} if given is None else {"X-Request-ID": given}
    found = {client.get("/v1/nowhere", headers=headers).json()["error"]["request_id"] for _ in range(2)}
    assert len(found) == 2
    assert all(re.fullmatch(r"[0-9a-f-]{36}", one) for one in found)


def test_a_fault_of_the_server_has_a_line_with_the_id_and_nothing_of_the_recording(lines):
    response = ask(client_of(Broken()), **{"X-Request-ID": "r-1"})
    assert response.status_code == 500
    assert response.json()["error"]["request_id"] == "r-1"
    assert [line["request_id"] for line in lines] == ["r-1"] * len(lines)
    (done,) = [line for line in lines if line["message"] == "request"]
    assert done | {"time": "", "seconds": 0} == {
        "time": "", "level": "ERROR", "message": "request", "request_id": "r-1", "method": "POST",
        "route": "/v1/answers", "status": 500, "code": "internal", "seconds": 0,
    }  # fmt: skip
    assert "ValueError" in json.dumps(lines)
    for secret in ("Müller", "cannot answer", KEY + '"'):
        assert secret not in json.dumps(lines, ensure_ascii=False)


def test_other_requests_have_a_line_only_if_the_setting_says_so(lines):
    quiet = client_of(FakeModel())
    assert ask(quiet).status_code == 200
    assert quiet.get("/v1/nowhere?name=Müller").status_code == 404
    assert lines == []
    talkative = client_of(FakeModel(), log="requests")
    assert ask(talkative).status_code == 200
    assert talkative.get("/v1/examples/Müller.mot").status_code == 404
    assert [(line["route"], line["status"], line["code"]) for line in lines] == [
        ("/v1/answers", 200, "ok"), ("/v1/examples/{name}", 404, "not_found"),
    ]  # fmt: skip
    assert "Müller" not in json.dumps(lines, ensure_ascii=False)
