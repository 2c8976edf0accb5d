"""Measured quantities in the API and in FHIR: never asked of the model, and beside its answers."""

import json

import pytest
from fake_model import HEADERS, KEY, SERVED, FakeModel
from fastapi.testclient import TestClient
from test_fhir import SCHEMA, resources_of

from biomechgpt.answering.answer import Unlike
from biomechgpt.motion.quantities import QUANTITIES
from biomechgpt.questions.tasks import load_tasks
from conftest import ROOT, TESTS
from serve.app import create_app
from serve.gateway import Gateway
from serve.settings import GatewaySettings

WALK = TESTS / "data/recordings/opensim/opencap-processing/walking1_videoAndMocap.mot"
MEASURED = load_tasks(ROOT / "configs/tasks_measured")
UNLIKE = Unlike(checked=True, unlike=True, participants=20, quantity="error", value=15.0, usual=[0.0, 6.0])


@pytest.fixture
def model():
    model = FakeModel()
    model.served = SERVED.model_copy(update={"tasks": SERVED.tasks | MEASURED})
    return model


@pytest.fixture
def client(model):
    app = create_app(Gateway(model, GatewaySettings(max_body_bytes=2_000_000)), KEY)
    return TestClient(app, headers=HEADERS, raise_server_exceptions=False)


def ask(client, path="/v1/answers", **form):
    response = client.post(path, data=form, files={"recording": (WALK.name, WALK.read_bytes())})
    assert response.status_code == 200, response.text
    return response.json()


def test_a_measured_task_is_answered_without_the_model(client, model):
    (answer,) = ask(client, tasks="stride_length")["answers"]
    assert "answer" not in model.calls
    (value,) = answer["measured"]
    assert answer["status"] == "answered"
    assert answer["answered_by"] == "kinematics"
    assert answer["value"] == value["value"] == pytest.approx(1.4, abs=0.3)
    assert answer["unit"] == "m"
    assert f"{value['value']:.2f} m" in answer["text"]
    assert value["steps"] >= 1
    assert 0 <= value["begin_s"] < value["end_s"] <= 1.6


def test_all_asks_for_the_measured_tasks_too_and_a_phrasing_finds_one(client):
    answers = {answer["task"]: answer for answer in ask(client, tasks="all")["answers"]}
    assert set(MEASURED) <= set(answers)
    (answer,) = ask(client, question=MEASURED["peak_knee_flexion_swing"].templates[2])["answers"]
    assert answer["task"] == "peak_knee_flexion_swing"
    assert {value["part"] for value in answer["measured"]} == {"right", "left"}
    (tug,) = ask(client, tasks="tug_phases")["answers"]
    assert tug["status"] == "does_not_apply"
    assert tug["refused"]
    assert tug["text"] == "Cannot be measured: nobody stands up from a chair."


def test_a_norm_is_that_of_age_and_sex(client):
    norms = []
    for form in ({}, {"age": "72", "sex": "female"}):
        (answer,) = ask(client, tasks="measured_speed", **form)["answers"]
        norms.append(answer["measured"][0]["norm"])
    assert "age not known" in norms[0]["group"]
    assert norms[1]["group"] == "healthy women of 72 years"
    assert norms[1]["mean"] < norms[0]["mean"]
    assert norms[1]["source"]


def test_a_models_answer_has_the_measured_value_beside_it(client):
    """The fake model states 1.0 of everything; the recording is a walk at about 1.03 m/s and 87 steps/min."""
    answers = {a["task"]: a for a in ask(client, tasks=["walking_speed", "cadence", "tug_time"])["answers"]}
    speed, cadence, tug = (answers[name] for name in ("walking_speed", "cadence", "tug_time"))
    assert (speed["status"], speed["value"]) == ("answered", 1.0)
    assert speed["measured"][0]["value"] == pytest.approx(1.0, abs=0.15)
    assert speed["answered_by"] == "model"
    assert cadence["status"] == "uncertain"
    assert cadence["uncertain"]
    assert cadence["value"] is None
    assert cadence["low"] is None
    assert not cadence["coverage_guaranteed"]
    assert "the model says 1 steps/min, but 8" in cadence["text"]
    assert "differ by more than 10 steps/min" in cadence["text"]
    assert tug["measured"][0]["value"] is None
    assert tug["measured"][0]["reason"]


def test_measured_values_are_shown_of_a_recording_that_is_unlike_the_training_data(client, model):
    model.unlike = UNLIKE
    response = ask(client, tasks=["walking_speed", "stride_length"])
    withheld, measured = response["answers"]
    assert withheld["status"] == "unlike"
    assert withheld["value"] is None
    assert withheld["measured"][0]["value"] is not None
    assert measured["status"] == "answered"
    assert measured["value"] is not None
    assert "unlike" in response["summary"]


def test_a_chat_answers_from_what_was_measured_of_the_recording(client, model):
    motion = ask(client, "/v1/motions")
    assert {value["quantity"] for value in motion["analysis"]["measured"]} == set(QUANTITIES)
    (expected,) = ask(client, tasks="stride_length")["answers"]
    body = {name: motion[name] for name in ("tokens", "tokenizer", "analysis")}
    body["messages"] = [{"role": "user", "content": MEASURED["stride_length"].templates[0]}]
    (answer,) = client.post("/v1/chat", json=body).json()["answers"]
    assert answer["measured"] == expected["measured"]
    assert answer["text"] == expected["text"]
    body["messages"][0]["content"] = SERVED.tasks["walking_speed"].templates[0]
    (speed,) = client.post("/v1/chat", json=body).json()["answers"]
    assert speed["measured"][0]["quantity"] == "speed"
    # Tokens only resemble the movement, so nothing is measured from them.
    body["messages"][0]["content"] = MEASURED["stride_length"].templates[0]
    del body["analysis"]
    (unknown,) = client.post("/v1/chat", json=body).json()["answers"]
    assert unknown["status"] == "does_not_apply"
    assert unknown["measured"] == []


def test_fhir_has_measured_values_with_norms_and_does_not_call_them_an_ais(client):
    jsonschema = pytest.importorskip("jsonschema")
    bundle = ask(client, "/fhir/$answer-motion", tasks="walking_speed,measured_speed,step_length,tug_phases")
    jsonschema.validate(bundle, json.loads(SCHEMA.read_text()))
    by_model, speed, step, tug = resources_of(bundle, "Observation")
    for observation, labelled in ((by_model, True), (speed, False), (step, False)):
        assert ("security" in observation.get("meta", {})) == labelled
        assert ("language model to" in observation["method"]["text"]) == labelled
    (beside, *_), (measured, *_) = by_model["component"], speed["component"]
    assert beside == measured
    assert measured["valueQuantity"]["unit"] == "m/s"
    assert measured["valueQuantity"]["value"] == speed["valueQuantity"]["value"]
    assert "step" in measured["code"]["text"]
    (norm,) = measured["referenceRange"]
    assert norm["low"]["value"] < 1.2 < norm["high"]["value"]
    assert "healthy adults" in norm["text"]
    assert [c["code"]["coding"][0]["display"] for c in step["component"][:2]] == [
        "step length, right", "step length, left"
    ]  # fmt: skip
    assert "right" in step["valueString"]
    assert tug["dataAbsentReason"]["coding"][0]["code"] == "not-applicable"
