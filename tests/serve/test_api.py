"""The API without Ray: endpoints over a fake model, the OpenAPI document, requests that are refused."""

import asyncio
import json
import subprocess
import sys
from dataclasses import fields, replace

import numpy as np
import pytest
from fake_model import HEADERS, KEY, SERVED, FakeModel
from fastapi.testclient import TestClient

import opensim_files
from biomechgpt.answering.answer import Unlike
from biomechgpt.answering.gates import Gate
from biomechgpt.motion import norms
from biomechgpt.questions.tasks import load_tasks
from biomechgpt.recordings.bounded import Reader
from biomechgpt.recordings.readers import SUFFIXES
from conftest import ROOT, TESTS
from serve import schema
from serve.admission import Admission
from serve.app import create_app
from serve.clients import Clients
from serve.errors import ApiError
from serve.gateway import Gateway
from serve.middleware import RequestGuard
from serve.recordings import load_recording
from serve.requests import alternate_turns
from serve.schema import Answer, AnswerRecord, ChatMessage
from serve.settings import GatewaySettings


@pytest.fixture
def model():
    return FakeModel()


@pytest.fixture
def client(model):
    app = create_app(Gateway(model, GatewaySettings(max_body_bytes=2_000_000)), KEY)
    return TestClient(app, headers=HEADERS, raise_server_exceptions=False)


WALK = TESTS / "data/recordings/opensim/opencap-processing/walking1_videoAndMocap.mot"


@pytest.fixture(scope="module")
def walk():
    """(name, content) of a recorded walk."""
    return WALK.name, WALK.read_bytes()


# --- Imports


def test_the_routers_import_no_cluster_and_no_training_library():
    heavy = ("ray", "torch", "deepspeed", "mlflow", "transformers")
    code = f"import sys; from serve import app; print([name for name in {heavy} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_a_long_answer_is_compressed_for_clients_that_accept_it(client, walk):
    whole = client.post("/v1/motions", files={"recording": walk}, headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in whole.headers
    packed = client.post("/v1/motions", files={"recording": walk}, headers={"Accept-Encoding": "gzip"})
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.json() == whole.json()
    assert int(packed.headers["content-length"]) < len(whole.content) / 2
    assert "content-encoding" not in client.get("/healthz", headers={"Accept-Encoding": "gzip"}).headers


# --- The OpenAPI document


def properties(node, path=""):
    """(path, schema) of each property in an OpenAPI document."""
    if isinstance(node, dict):
        if isinstance(node.get("properties"), dict):
            for name, value in node["properties"].items():
                yield f"{path}/{name}", value
        for name, value in node.items():
            yield from properties(value, f"{path}/{name}")
    elif isinstance(node, list):
        for value in node:
            yield from properties(value, path)


def test_every_field_has_a_description_on_one_line(client):
    described = dict(properties(client.get("/openapi.json").json()))
    assert len(described) > 100
    assert [path for path, value in described.items() if not value.get("description")] == []
    assert [path for path, value in described.items() if "\n" in value["description"]] == []


def test_every_endpoint_has_a_summary_and_lists_its_errors(client):
    for path, methods in client.get("/openapi.json").json()["paths"].items():
        for operation in methods.values():
            assert operation["description"], path
            if path.startswith("/v1/"):
                assert {"401", "413", "422", "503"} <= set(operation["responses"]), path
                assert {"200", "202"} & set(operation["responses"]), path


def test_the_response_has_the_fields_of_the_answer_dataclass(client):
    """A field that is added to the dataclass appears in the API by itself."""
    response = client.get("/openapi.json").json()["components"]["schemas"]["Answer"]["properties"]
    names = [field.name for field in fields(AnswerRecord)]
    assert list(response)[: len(names)] == names
    assert set(schema.field_descriptions(AnswerRecord)) == set(names)


EARLIER_NAMES = {
    "Answer": {"risk", "possible", "promised", "strange", "facts"},
    "Chat": {"mirrored"},
    "Motion": {"mirrored"},
    "Answers": {"other", "more"},
    "Explanation": {"of"},
    "RecordingInfo": {"repaired"},
    "StatedParameter": {"usual"},
    "Body_answer_v1_answers_post": {"other", "more", "risk"},
}


def test_earlier_names_are_marked_as_deprecated_and_no_others(client):
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    deprecated = {
        name: {field for field, value in described["properties"].items() if value.get("deprecated")}
        for name, described in schemas.items()
    }
    assert {name: names for name, names in deprecated.items() if names} == EARLIER_NAMES


# --- Endpoints


def test_model_info_has_the_limits_that_the_page_shows(client):
    info = client.get("/v1/model").json()
    assert info["suffixes"] == list(SUFFIXES)
    assert info["coverage"] == SERVED.coverage
    assert info["max_question_chars"] == schema.MAX_QUESTION_CHARS
    assert "No clinical claim" in info["notice"]
    assert "synthetic data" in info["notice"]
    movements = {task["name"]: task["movements"] for task in info["tasks"]}
    assert (movements["activity"], movements["quicker"]) == (1, 2)


def test_the_model_is_described_once_not_once_a_request(client, model, walk):
    for _ in range(3):
        assert client.get("/v1/model").status_code == 200
        client.post("/v1/answers", files={"recording": walk}, data={"tasks": "all"})
    assert model.calls.count("describe") == 1
    assert client.get("/readyz").status_code == 200
    assert model.calls.count("describe") == 2  # the probe asks the model itself


def test_the_description_of_another_bundle_is_not_kept(model):
    """During an update the gateway may reach the old model first."""
    gateway = Gateway(model, GatewaySettings(), fingerprint="n" * 64)
    assert asyncio.run(gateway.served()).summary.fingerprint == "f" * 64
    summary = SERVED.summary.model_copy(update={"fingerprint": "n" * 64})
    model.served = SERVED.model_copy(update={"summary": summary})
    assert asyncio.run(gateway.served()).summary.fingerprint == "n" * 64
    asyncio.run(gateway.served())
    assert model.calls.count("describe") == 2


def test_answers_repeat_renamed_fields_under_their_earlier_names(client, walk):
    body = client.post("/v1/answers", files={"recording": walk}, data={"tasks": "activity"}).json()
    (answer,) = body["answers"]
    assert answer["risk"] == answer["selective_risk"] == 0.2
    assert answer["possible"] == answer["prediction_set"]
    assert answer["promised"] is answer["coverage_guaranteed"] is False
    assert answer["strange"] is answer["is_ood"] is False
    assert list(answer["probabilities"]) == answer["labels"]
    assert answer["facts"] == answer["stated_parameters"] == []
    assert body["recording"]["repaired"] == body["recording"]["repairs"]


@pytest.mark.parametrize(
    ("name", "earlier", "value"),
    [("max_risk", "risk", 0.1), ("compare_with", "other", None), ("additional_recordings", "more", None)],
)
def test_a_form_field_is_accepted_under_its_earlier_name_but_not_under_both(
    client, walk, name, earlier, value
):
    def send(*names):
        files = [("recording", walk), *((n, walk) for n in names if value is None)]
        data = {"tasks": "all", **{n: value for n in names if value is not None}}
        return client.post("/v1/answers", files=files, data=data)

    new, old, both = send(name), send(earlier), send(name, earlier)
    assert new.status_code == old.status_code == 200
    assert new.json() == old.json()
    assert both.status_code == 422
    message = both.json()["error"]["message"]
    assert name in message
    assert earlier in message


def test_uncertain_answers_have_advice(client, walk):
    (answer,) = client.post(
        "/v1/answers", files={"recording": walk}, data={"tasks": "activity", "max_risk": 0.1}
    ).json()["answers"]
    assert (answer["uncertain"], answer["label"]) == (True, None)
    assert "another recording" in answer["advice"]


def test_a_movement_out_of_distribution_is_refused(client, model, walk):
    model.unlike = replace(
        model.unlike, unlike=True, value=17.0, usual=[0.0, 7.5], quantity="error", unit="degrees"
    )
    (answer,) = client.post("/v1/answers", files={"recording": walk}, data={"tasks": "walking_speed"}).json()[
        "answers"
    ]
    assert (answer["refused"], answer["is_ood"], answer["value"]) == (True, True, None)
    assert answer["status"] == "unlike"
    assert answer["text"].startswith(
        "This model has seen only simulated people. This recording is unlike them"
    )
    assert answer["unlike"]["checked"] is True
    assert (answer["unlike"]["participants"], answer["unlike"]["value"]) == (20, 17.0)
    assert answer["unlike"]["usual"] == [0.0, 7.5]
    assert (answer["low"], answer["high"], answer["coverage_guaranteed"]) == (None, None, False)


def test_a_question_that_does_not_apply_has_no_answer(client, model, walk):
    model.gate = Gate(0.03, "activity: TUG", "Does not apply: this looks like overground walking (.97).")
    (answer,) = client.post("/v1/answers", files={"recording": walk}, data={"tasks": "tug_time"}).json()[
        "answers"
    ]
    assert (answer["status"], answer["applies"], answer["refused"]) == ("does_not_apply", 0.03, True)
    assert answer["text"] == "Does not apply: this looks like overground walking (.97)."
    assert (answer["value"], answer["low"], answer["coverage_guaranteed"]) == (None, None, False)


def test_an_uploaded_recording_of_another_kind_than_the_training_data_gets_no_guarantee(client, walk):
    name, content = walk[:2]
    text = content.decode() if isinstance(content, bytes) else content
    synthetic = (name, text.replace("endheader", "Provenance: synthetic.\nendheader", 1).encode())
    for recording, kind in ((walk, "recorded"), (synthetic, "synthetic")):
        body = client.post("/v1/answers", files={"recording": recording}, data={"tasks": "activity"}).json()
        assert body["recording"]["provenance"] == kind
        assert body["answers"][0]["coverage_guaranteed"] is (kind == "synthetic")


def test_a_busy_model_gives_status_503(client, model, walk):
    async def busy(query):
        raise ApiError("busy", "too many questions are waiting; try again later")

    model.answer = busy
    refused = client.post("/v1/answers", files={"recording": walk}, data={"tasks": "all"})
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")


def test_the_message_of_an_unexpected_error_is_not_shown(client, model, walk):
    async def fail(query):
        raise RuntimeError("secret")

    model.answer = fail
    failed = client.post("/v1/answers", files={"recording": walk}, data={"tasks": "all"})
    assert failed.status_code == 500
    assert "secret" not in failed.text
    assert failed.json()["error"]["code"] == "internal"


def test_fhir_answers_come_from_the_same_gateway(client, walk):
    bundle = client.post("/fhir/$answer-motion", files={"recording": walk}, data={"tasks": "activity"})
    assert bundle.headers["content-type"] == "application/fhir+json"
    assert bundle.json()["resourceType"] == "Bundle"
    missing = client.post("/fhir/$answer-motion", data={"tasks": "activity"})
    assert missing.status_code == 422
    assert missing.json()["resourceType"] == "OperationOutcome"


def test_paths_that_need_a_key(client):
    for path in ("/v1/model", "/v1/examples", "/openapi.json", "/v1/nowhere", "/nowhere"):
        assert client.get(path, headers={"Authorization": "Bearer wrong"}).status_code == 401
    for path in ("/", "/healthz", "/fhir/metadata"):
        assert client.get(path, headers={"Authorization": ""}).status_code == 200
    assert client.get("/v1/nowhere").json()["error"]["code"] == "not_found"


# --- Parts


def test_turns_alternate_between_user_and_assistant():
    def turns(*messages):
        return alternate_turns([ChatMessage(role=role, content=text) for role, text in messages])

    u, a = "user", "assistant"
    assert turns((u, "1")) == ["1"]
    assert turns((a, "hello"), (u, "1"), (a, "2"), (u, "3")) == ["1", "2", "3"]
    assert turns((u, "0"), (u, "1"), (a, "x"), (a, "2"), (u, "3")) == ["1", "2", "3"]


def test_an_answer_out_of_distribution_states_nothing():
    tasks = {"a": load_tasks(ROOT / "configs/tasks")["walking_speed"]}
    usual = Answer.from_record(
        tasks, "a", "How fast?", AnswerRecord("1.20 m/s", low=1.0, high=1.4), "recorded"
    )
    assert (usual.value, usual.low, usual.refused) == (1.2, 1.0, False)
    far = Unlike(checked=True, unlike=True)
    record = AnswerRecord("1.20 m/s", low=1.0, high=1.4, status="unlike", unlike=far)
    ood = Answer.from_record(tasks, "a", "How fast?", record, "recorded")
    assert (ood.value, ood.low, ood.refused) == (None, None, True)
    assert "unlike them" in ood.text


def test_a_short_recording_gets_the_advice_to_record_longer():
    answer = Answer(
        task="a", question="?", text="cane", label="cane", selective_risk=0.2, probabilities={"cane": 0.7}
    )
    limited = schema.apply_risk_limit
    assert limited(answer, None, 12, 3) == limited(answer, 0.2, 12, 3) == answer
    advice = limited(answer, 0.1, 12, 3).advice
    assert "this recording has 3 s, those of the training data have 12 s" in advice
    assert "longer" not in limited(answer, 0.1, 12, 13).advice
    not_fitted = Answer(task="a", question="?", text="cane", label="cane", probabilities={"cane": 0.7})
    assert limited(not_fitted, 0.5, 12, 3).uncertain


def test_stated_parameters_stand_beside_measured_ones():
    compared = schema.stated_parameters(
        {"cadence": 100, "knee_r": 60, "duration": 9}, {"cadence": 104.4, "knee_r": 40}
    )
    assert [(p.name, p.stated, p.measured, p.agrees) for p in compared] == [
        ("cadence", 100, 104, True), ("right knee", 60, 40, False), ("duration", 9, None, False)
    ]  # fmt: skip
    assert compared[0].normal_range[0] < 104 < compared[0].normal_range[1]
    # A normal range names its source, which says if its numbers were not compared with the publication.
    assert [p.normal_range_verified for p in compared] == [False, True, None]
    assert [norms.UNVERIFIED in (p.normal_range_source or "") for p in compared] == [True, False, False]


@pytest.fixture(scope="module")
def reader():
    """Reads recordings in processes of their own."""
    reader = Reader()
    yield reader
    reader.stop()


def load(reader, name, content, settings):
    return asyncio.run(load_recording(name, content, settings, SERVED.frame_rate_hz, 9.0, reader))


def test_a_recording_with_too_many_frames_is_refused(walk, reader):
    with pytest.raises(ApiError, match="at most 100 frames, found") as refused:
        load(reader, *walk, GatewaySettings(max_frames=100))
    assert refused.value.code == "too_large"


def test_few_rows_over_a_long_time_are_refused_before_they_are_resampled(reader):
    """Rows at 6 Hz: 400 of them, which make 2000 frames at the tokenizer's rate."""
    columns = {name: values[:400] for name, values in opensim_files.walk(4.0).items()}
    columns["time"] = np.arange(400) / 6.0
    content = opensim_files.mot(columns).encode()
    load(reader, "walk.mot", content, GatewaySettings(max_frames=2_001))
    with pytest.raises(ApiError, match=r"at most 1000 frames, found 1996 at 30 Hz \(400 rows\)") as refused:
        load(reader, "walk.mot", content, GatewaySettings(max_frames=1_000))
    assert refused.value.code == "too_large"


def test_an_upload_is_checked_like_the_recordings_of_a_cohort(walk, reader):
    assert load(reader, *walk, GatewaySettings()).info.repairs is None
    strict = GatewaySettings(quality={"max_speed_deg_s": 10})
    with pytest.raises(ApiError, match="impossible speed: hip_flexion_r turns at") as refused:
        load(reader, *walk, strict)
    assert refused.value.code == "bad_recording"


def test_more_requests_than_the_limit_are_refused_with_a_time_to_come_back():
    async def run():
        inside, release, sent = asyncio.Event(), asyncio.Event(), []

        async def slow(scope, receive, send):
            inside.set()
            await release.wait()

        async def nothing():
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message):
            sent.append(message)

        admission = Admission(GatewaySettings(max_requests=1))
        guard = RequestGuard(slow, clients=Clients("k"), admission=admission)
        scope = {
            "type": "http",
            "path": "/v1/answers",
            "method": "POST",
            "headers": [(b"authorization", b"Bearer k")],
        }
        first = asyncio.create_task(guard(scope, nothing, send))
        await inside.wait()
        await guard(scope, nothing, send)
        release.set()
        await first
        await guard(scope, nothing, send)  # there is room again
        return sent

    start, body = asyncio.run(run())
    assert start["status"] == 503
    assert dict(start["headers"])[b"retry-after"] == b"1"  # nothing waits, so there is room soon
    assert json.loads(body["body"])["error"]["code"] == "busy"


def test_an_empty_key_is_refused():
    with pytest.raises(ValueError, match="BIOMECHGPT_API_KEY"):
        Clients(" ")
