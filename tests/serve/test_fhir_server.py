"""The FHIR endpoints over a fake model: formats, jobs, definitions, and a Bundle that a FHIR server keeps."""

import base64
import hashlib
import json
import time
from typing import Any

import pytest
from fake_model import HEADERS, KEY, SERVED, FakeModel
from fastapi.testclient import TestClient
from fhir_store import create_store
from fhirclient.models.bundle import Bundle
from test_fhir import walk as elements

from biomechgpt.questions.tasks import load_tasks
from conftest import ROOT, TESTS
from serve.app import create_app
from serve.errors import ApiError
from serve.fhir.definitions import KINDS
from serve.gateway import Gateway
from serve.settings import GatewaySettings

WALK = TESTS / "data/recordings/opensim/opencap-processing/walking1_videoAndMocap.mot"
FHIR = "application/fhir+json"
OPERATION = "/fhir/$answer-motion"


@pytest.fixture
def model():
    model = FakeModel()
    tasks = SERVED.tasks | load_tasks(ROOT / "configs/tasks_measured")
    model.served = SERVED.model_copy(update={"tasks": tasks})
    return model


@pytest.fixture
def gateway(model):
    return Gateway(model, GatewaySettings(max_client_jobs=2))


@pytest.fixture
def client(gateway):
    """Within one event loop, so that jobs go on between requests."""
    with TestClient(create_app(gateway, KEY), headers=HEADERS, raise_server_exceptions=False) as client:
        yield client


def parameters(*further: dict[str, Any], tasks: str = "walking_speed", content: bytes | None = None):
    data = WALK.read_bytes() if content is None else content
    attachment = {
        "title": WALK.name,
        "data": base64.b64encode(data).decode(),
        "size": len(data),
        "hash": base64.b64encode(hashlib.sha1(data).digest()).decode(),
    }
    given = [
        {"name": "recording", "valueAttachment": attachment},
        *({"name": "task", "valueCode": task} for task in tasks.split(",")),
    ]
    return {"resourceType": "Parameters", "parameter": [*given, *further]}


def ask(client, body, **headers):
    return client.post(
        OPERATION,
        content=json.dumps(body),
        headers={"content-type": FHIR} | {k.lower(): v for k, v in headers.items()},
    )


# --- Formats


@pytest.mark.parametrize(
    "accept",
    ["*/*", "application/fhir+json", "application/json", "application/*;q=0.5", "text/html, application/json",
     "application/fhir+json; fhirVersion=4.0", "application/fhir+xml, application/fhir+json;q=0.1", ""],
)  # fmt: skip
def test_json_is_what_a_client_may_accept(client, accept):
    response = client.get("/fhir/metadata", headers={"accept": accept})
    assert response.status_code == 200
    assert response.headers["content-type"] == FHIR


@pytest.mark.parametrize(
    "accept", ["application/fhir+xml", "application/xml", "text/html", "application/fhir+json;q=0",
               "application/fhir+json; fhirVersion=5.0", "nonsense"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/fhir/metadata", "/fhir/CodeSystem/task"])
def test_another_format_is_not_acceptable(client, path, accept):
    response = client.get(path, headers={"accept": accept})
    assert response.status_code == 406
    assert response.headers["content-type"] == FHIR
    assert response.json()["resourceType"] == "OperationOutcome"


def test_format_comes_before_accept(client):
    for name in ("json", "application/fhir+json", "application/json"):
        response = client.get(
            "/fhir/metadata", params={"_format": name}, headers={"accept": "application/fhir+xml"}
        )
        assert response.status_code == 200, name
    assert client.get("/fhir/metadata", params={"_format": "xml"}).status_code == 406
    assert "\n" in client.get("/fhir/metadata", params={"_pretty": "true"}).text


@pytest.mark.parametrize(
    "content_type",
    ["application/fhir+xml", "application/xml", "text/plain", "", "application/fhir+json; fhirVersion=3.0"],
)
def test_a_body_of_another_format_is_not_supported(client, content_type):
    response = client.post(OPERATION, content=b"<Parameters/>", headers={"content-type": content_type})
    assert response.status_code == 415
    assert response.json()["issue"][0]["code"] == "not-supported"
    assert "application/fhir+json" in response.json()["issue"][0]["details"]["text"]


# --- Definitions


def test_the_server_describes_itself(client, gateway):
    statement = client.get("/fhir/metadata", headers={"authorization": ""}).json()
    (rest,) = statement["rest"]
    assert {resource["type"] for resource in rest["resource"]} == set(KINDS)
    for kind in KINDS:
        found = client.get(f"/fhir/{kind}").json()
        assert (found["type"], found["total"]) == ("searchset", len(found["entry"]))
        for entry in found["entry"]:
            resource = entry["resource"]
            assert client.get(entry["fullUrl"]).json() == resource
            (same,) = client.get(f"/fhir/{kind}", params={"url": resource["url"]}).json()["entry"]
            assert same["resource"] == resource
        assert client.get(f"/fhir/{kind}/nothing").status_code == 404
        assert client.get(f"/fhir/{kind}", params={"url": "urn:nothing"}).json()["total"] == 0
        assert client.get(f"/fhir/{kind}", headers={"authorization": ""}).status_code == 401
    definition = client.get("/fhir/OperationDefinition/answer-motion").json()
    assert rest["operation"][0]["definition"] == definition["url"]
    tasks = {c["code"] for c in client.get("/fhir/CodeSystem/task").json()["concept"]}
    assert set(gateway.model.served.tasks) < tasks
    labels = {c["code"] for c in client.get("/fhir/CodeSystem/task-diagnosis").json()["concept"]}
    assert labels == set(SERVED.tasks["diagnosis"].labels)


# --- Jobs


def wait(client, url, seconds=60):
    """The response of a job that is over."""
    end = time.monotonic() + seconds
    while (response := client.get(url)).status_code == 202:
        assert time.monotonic() < end
        assert response.headers["retry-after"] == "2"
        assert "done" in response.headers["x-progress"]
        time.sleep(0.1)
    return response


def test_an_answer_may_come_later(client):
    response = ask(client, parameters(), Prefer="respond-async")
    assert response.status_code == 202
    assert response.json()["resourceType"] == "OperationOutcome"
    url = response.headers["content-location"]
    assert url.startswith("http://testserver/fhir/jobs/")
    done = wait(client, url)
    assert (done.status_code, done.headers["content-type"]) == (200, "application/json")
    manifest = done.json()
    assert manifest["request"].endswith("/fhir/$answer-motion")
    assert manifest["requiresAccessToken"] is True
    assert manifest["error"] == []
    (output,) = manifest["output"]
    assert output["type"] == "Bundle"
    lines = client.get(output["url"], headers={"accept": "application/fhir+ndjson"})
    assert lines.headers["content-type"] == "application/fhir+ndjson"
    (line,) = lines.text.splitlines()
    now = ask(client, parameters()).json()
    assert [e["fullUrl"] for e in json.loads(line)["entry"]] == [e["fullUrl"] for e in now["entry"]]
    assert client.delete(url).status_code == 202
    assert client.get(url).status_code == client.get(output["url"]).status_code == 404


def test_a_job_that_fails_says_why(client, model):
    url = ask(client, parameters(content=b"nothing"), Prefer="respond-async, handling=strict").headers[
        "content-location"
    ]
    manifest = wait(client, url).json()
    assert manifest["output"] == []
    outcome = json.loads(client.get(manifest["error"][0]["url"]).text)
    assert outcome["issue"][0]["details"]["coding"][0]["code"] == "bad_recording"
    wrong = ask(client, parameters(tasks="nonsense"), Prefer="respond-async")
    assert wrong.status_code == 422  # at once


def test_a_job_waits_while_the_server_is_busy(client, model):
    real, refusals = model.answer, [ApiError("busy", "later", retry_after_s=1)]

    async def busy_once(query):
        if refusals:
            raise refusals.pop()
        return await real(query)

    model.answer = busy_once
    url = ask(client, parameters(), Prefer="respond-async").headers["content-location"]
    assert wait(client, url).json()["error"] == []


def test_a_job_belongs_to_its_client_and_there_are_only_some(tmp_path, model):
    from serve.clients import add_key

    path = tmp_path / "keys.json"
    other = {"authorization": f"Bearer {add_key(path, 'other', 1)}"}
    settings = GatewaySettings(keys=str(path), max_client_jobs=2)

    async def never(query):
        import asyncio

        await asyncio.sleep(1000)

    model.answer = never
    with TestClient(create_app(Gateway(model, settings), KEY), headers=HEADERS) as client:
        url, _ = (
            ask(client, parameters(), Prefer="respond-async").headers["content-location"] for _ in range(2)
        )
        assert client.get(url).status_code == 202
        assert client.get(url, headers=other).status_code == 404
        assert client.delete(url, headers=other).status_code == 404
        refused = ask(client, parameters(), Prefer="respond-async")
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        assert ask(client, parameters(), Prefer="respond-async", **other).status_code == 202
        assert client.delete(url).status_code == 202
        assert client.get(url).status_code == 404
        time.sleep(0.2)
        assert ask(client, parameters(), Prefer="respond-async").status_code == 202


# --- A FHIR server keeps the Bundle


def test_a_fhir_server_stores_a_transaction_and_gives_it_back(client):
    said = [
        {"name": "bundle", "valueCode": "transaction"},
        {"name": "subject", "valueReference": {"reference": "Patient/1"}},
        {"name": "encounter", "valueReference": {"reference": "Encounter/1"}},
        {"name": "effective", "valueDateTime": "2026-02-28T10:00:00Z"},
    ]
    body = parameters(*said, tasks="diagnosis,walking_speed,step_length,tug_time")
    bundle = ask(client, body).json()
    assert Bundle(bundle).type == "transaction"
    store = create_store()
    with TestClient(store) as server:
        created = server.post("/fhir", json=bundle).json()["entry"]
        assert {entry["response"]["status"] for entry in created} == {"201"}
        kept = dict(store.state.kept)
        references = {
            e["reference"] for e in elements(list(kept.values())) if isinstance(e.get("reference"), str)
        }
        assert references <= {*kept, "Patient/1", "Encounter/1"}  # no urn:uuid is left
        (report,) = server.get("/fhir/DiagnosticReport").json()["entry"]
        results = [server.get(f"/fhir/{r['reference']}").json() for r in report["resource"]["result"]]
        sent = [e["resource"] for e in bundle["entry"] if e["resource"]["resourceType"] == "Observation"]
        for back, observation in zip(results, sent, strict=True):
            for name in ("code", "component", "subject", "encounter", "effectiveDateTime", "identifier"):
                assert back[name] == observation[name]
        identifier = sent[0]["identifier"][0]
        token = f"{identifier['system']}|{identifier['value']}"
        assert server.get("/fhir/Observation", params={"identifier": token}).json()["total"] == 1
        device = server.get(f"/fhir/{results[0]['device']['reference']}").json()
        assert device["resourceType"] == "Device"

        # Sent twice, nothing is doubled. Another recording shares only the model.
        again = server.post("/fhir", json=ask(client, body).json()).json()["entry"]
        assert {entry["response"]["status"] for entry in again} == {"200"}
        assert store.state.kept.keys() == kept.keys()
        other = parameters(*said, tasks="diagnosis", content=WALK.read_bytes() + b"\n")
        statuses = [
            e["response"]["status"]
            for e in server.post("/fhir", json=ask(client, other).json()).json()["entry"]
        ]
        assert sorted(statuses) == ["200", "201", "201", "201"]


def test_two_recordings_are_compared_and_several_are_of_one_person(client):
    second = {"name": "compareWith", "valueAttachment": parameters()["parameter"][0]["valueAttachment"]}
    bundle = ask(client, parameters(second, tasks="quicker")).json()
    (provenance,) = [e["resource"] for e in bundle["entry"] if e["resource"]["resourceType"] == "Provenance"]
    assert len(provenance["entity"]) == 2
    further = {**second, "name": "additionalRecording"}
    bundle = ask(client, parameters(further, further, tasks="diagnosis")).json()
    (provenance,) = [e["resource"] for e in bundle["entry"] if e["resource"]["resourceType"] == "Provenance"]
    assert len(provenance["entity"]) == 3
    both = ask(client, parameters(second, further, tasks="diagnosis"))
    assert both.status_code == 422
