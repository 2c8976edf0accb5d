"""Real clients over real HTTP: OpenAI's package, our own client, SMART's fhirclient, and the docs' commands."""

import base64
import json
import os
import re
import shutil
import subprocess
from types import SimpleNamespace

import httpx
import pytest
from fake_model import HEADERS, KEY, SERVED, FakeModel
from fastapi import FastAPI, Response
from fastapi.testclient import TestClient
from live_server import listening, serving

from biomechgpt.client import Client, ServerError
from biomechgpt.questions.tasks import load_tasks
from conftest import ROOT, TESTS
from serve import scopes
from serve.app import create_app
from serve.clients import add_key
from serve.errors import ApiError
from serve.gateway import Gateway
from serve.schema import ChatMessage
from serve.settings import GatewaySettings
from test_docs import PAGES, commands

WALK = TESTS / "data/recordings/opensim/opencap-processing/walking1_videoAndMocap.mot"
QUESTION = SERVED.tasks["diagnosis"].templates[0]


@pytest.fixture(scope="module")
def model():
    model = FakeModel()
    tasks = SERVED.tasks | load_tasks(ROOT / "configs/tasks_measured")
    model.served = SERVED.model_copy(update={"tasks": tasks, "person_tasks": ["diagnosis"]})
    return model


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    return tmp_path_factory.mktemp("keys") / "keys.json"


@pytest.fixture(scope="module")
def url(model, keys):
    settings = GatewaySettings(max_body_bytes=4_000_000, keys=str(keys), audit="on")
    with serving(Gateway(model, settings)) as url:
        yield url


# --- OpenAI's client


@pytest.fixture(scope="module")
def openai_client(url):
    openai = pytest.importorskip("openai", reason="openai is not installed (pip install '.[dev]')")
    with openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


def file_part(**changes):
    data = base64.b64encode(WALK.read_bytes()).decode()
    given = {"filename": "walk.mot", "file_data": f"data:application/octet-stream;base64,{data}"} | changes
    return {"type": "file", "file": given}


def messages(*parts, question=QUESTION):
    return [{"role": "user", "content": [*parts, {"type": "text", "text": question}]}]


def test_openais_client_lists_the_model(openai_client):
    (card,) = openai_client.models.list().data
    assert (card.id, card.object, card.owned_by) == ("biomechgpt", "model", "biomechgpt")
    assert openai_client.models.retrieve("biomechgpt").fingerprint == "f" * 64


def test_openais_client_asks_about_a_file_part(openai_client):
    completion = openai_client.chat.completions.create(
        model="biomechgpt",
        temperature=0.3,
        messages=[{"role": "system", "content": "You are terse."}, *messages(file_part())],
    )
    (choice,) = completion.choices
    assert (choice.finish_reason, choice.message.role) == ("stop", "assistant")
    assert choice.message.content.startswith("lower-limb prosthesis user")
    assert "No clinical claim is made" in choice.message.content
    assert completion.system_fingerprint == "f" * 64
    usage = completion.usage
    assert usage.prompt_tokens + usage.completion_tokens == usage.total_tokens > 10
    (answer,) = completion.answers["answers"]
    assert answer["probabilities"]["LLPU"] == 0.7


def test_openais_client_uploads_a_file_once_and_talks_about_it(openai_client, model):
    file = openai_client.files.create(file=("walk.mot", WALK.read_bytes()), purpose="user_data")
    assert (file.filename, file.bytes) == ("walk.mot", WALK.stat().st_size)
    assert file.expires_at > file.created_at
    assert openai_client.files.retrieve(file.id).id == file.id
    part = {"type": "file", "file": {"file_id": file.id}}
    create = openai_client.chat.completions.create
    first = create(model="biomechgpt", messages=messages(part)).choices[0].message
    asked = [*messages(part), {"role": "assistant", "content": first.content * 20}]
    measured = create(
        model="biomechgpt",
        messages=[*asked, {"role": "user", "content": model.served.tasks["measured_speed"].templates[0]}],
    )
    assert "m/s" in measured.choices[0].message.content
    # The answer rests on the recording itself: nothing is measured of tokens.
    assert measured.answers["answers"][0]["answered_by"] == "kinematics"
    two = create(
        model="biomechgpt", messages=messages(part, part, question=SERVED.tasks["quicker"].templates[0])
    )
    assert two.answers["answers"][0]["task"] == "quicker"
    assert openai_client.files.delete(file.id).deleted
    import openai

    with pytest.raises(openai.NotFoundError, match="no longer kept"):
        create(model="biomechgpt", messages=messages(part))


def test_openais_client_reads_a_stream(openai_client):
    whole = openai_client.chat.completions.create(model="biomechgpt", messages=messages(file_part()))
    stream = openai_client.chat.completions.create(
        model="biomechgpt",
        messages=messages(file_part()),
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert len(chunks) > 10
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].usage.total_tokens == whole.usage.total_tokens
    assert len({chunk.id for chunk in chunks}) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "gpt-5"}, "model: expected biomechgpt, found 'gpt-5'"),
        ({"messages": messages()}, "expected one recording"),
        ({"messages": messages(*[file_part()] * 3)}, "expected one recording .*, or two, found 3"),
        (
            {"messages": messages(file_part(file_data="not base64!"))},
            "file_data of file 1: expected the recording",
        ),
        ({"messages": messages(file_part(file_id="file-1"))}, "expected file_data or file_id"),
        ({"messages": messages(file_part(), question="")}, "expected the last to be the user's"),
        ({"messages": messages(file_part(), question="x" * 2001)}, "at most 2000 characters"),
        (
            {"messages": messages(file_part(file_data=base64.b64encode(b"x").decode()))},
            "expected a recording",
        ),
        ({"n": 2}, "n: "),
    ],
)
def test_openais_client_is_told_what_is_wrong(openai_client, changes, message):
    import openai

    arguments = {"model": "biomechgpt", "messages": messages(file_part())} | changes
    with pytest.raises(openai.APIStatusError, match=message) as error:
        openai_client.chat.completions.create(**arguments)
    assert error.value.status_code in (404, 422)


def test_a_file_belongs_to_its_client_and_there_is_only_so_much_room(tmp_path, model):
    path = tmp_path / "keys.json"
    other = {"authorization": f"Bearer {add_key(path, 'other', 1)}"}
    settings = GatewaySettings(keys=str(path), max_client_kept_bytes=50_000, max_kept_bytes=90_000)
    client = TestClient(create_app(Gateway(model, settings), KEY), headers=HEADERS)

    def upload(size, **headers):
        return client.post("/v1/files", files={"file": ("a.mot", b"x" * size)}, headers=headers)

    first = upload(30_000).json()["id"]
    refused = upload(30_000)
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "60")
    assert upload(30_000, **other).status_code == 200
    assert upload(30_000, **other).status_code == 503
    for method in ("get", "delete"):
        assert getattr(client, method)(f"/v1/files/{first}", headers=other).status_code == 404
    assert client.delete(f"/v1/files/{first}").status_code == 200
    assert upload(30_000).status_code == 200
    gone = Gateway(model, GatewaySettings(keep_s=0.001))
    client = TestClient(create_app(gone, KEY), headers=HEADERS)
    key = upload(10).json()["id"]
    assert client.get(f"/v1/files/{key}").status_code == 404


# --- Our own client


@pytest.fixture
def client(url):
    with Client(url, KEY) as client:
        yield client


def test_our_client_has_the_types_of_the_api(client, model, tmp_path):
    assert {task.name for task in client.model().tasks} >= {"diagnosis", "walking_speed"}
    answers = client.answers(WALK, tasks=["diagnosis", "measured_speed"], age=62, sex="female")
    diagnosis, speed = answers.answers
    assert diagnosis.probabilities["LLPU"] == 0.7
    assert speed.measured[0].norm.group == "healthy women of 62 years"
    assert client.answers(str(WALK), question=QUESTION).answers[0].task == "diagnosis"
    compared = client.answers(("a.mot", WALK.read_bytes()), tasks=["quicker"], compare_with=WALK)
    assert compared.compare_with.name == WALK.name
    person = client.answers(WALK, tasks=["diagnosis"], additional_recordings=[WALK, WALK])
    assert len(person.additional_recordings) == 2
    motion = client.motion(WALK)
    assert client.chat(motion, QUESTION).answers[0].label == "LLPU"
    turns = [ChatMessage(role="user", content=QUESTION)]
    assert client.chat(motion, turns).answers[0].label == "LLPU"
    bundle = client.fhir(WALK, tasks=["diagnosis"], subject="Patient/1", bundle="transaction")
    assert bundle["type"] == "transaction"


def test_our_client_submits_a_batch_and_reads_it(client, tmp_path):
    bad = tmp_path / "bad.mot"
    bad.write_text("nothing")
    batch = client.submit([WALK, bad, WALK], tasks=["diagnosis"])
    assert (batch.status, batch.total) == ("running", 3)
    client._sleep = lambda _: __import__("time").sleep(0.1)
    first, second, third = client.results(batch)
    assert [r.index for r in (first, second, third)] == [0, 1, 2]
    assert first.answers.answers[0].label == third.answers.answers[0].label == "LLPU"
    assert (second.recording, second.answers, second.error.code) == ("bad.mot", None, "bad_recording")
    state = client.batch(batch)
    assert (state.status, state.done, state.failed) == ("finished", 3, 1)
    client.remove(batch)
    with pytest.raises(ServerError, match="no batch") as error:
        client.batch(batch.id)
    assert (error.value.status, error.value.code) == (404, "not_found")


def test_a_batch_is_checked_before_it_begins_and_has_a_limit(model):
    client = TestClient(
        create_app(Gateway(model, GatewaySettings(max_batch_recordings=2)), KEY), headers=HEADERS
    )
    for data, count, message in (
        ({"tasks": "nonsense"}, 1, "tasks: expected all or some of"),
        ({}, 1, "expected `tasks`"),
        ({"tasks": "diagnosis"}, 3, "recordings: expected at most 2 files, found 3"),
    ):
        response = client.post("/v1/batches", data=data, files=[("recordings", ("a.mot", b"x"))] * count)
        assert response.status_code == 422
        assert message in response.json()["error"]["message"]


def test_our_client_waits_as_long_as_it_is_told(url):
    waited, calls = [], []
    app = FastAPI()

    @app.get("/v1/model")
    def busy():
        calls.append(1)
        if len(calls) < 3:
            return Response(
                json.dumps({"error": {"code": "busy", "message": "later"}}), 503, {"retry-after": "7"}
            )
        return httpx.get(f"{url}/v1/model", headers=HEADERS).json()

    with listening(app) as other:
        with Client(other, KEY, sleep=waited.append) as client:
            assert client.model().fingerprint == "f" * 64
            assert waited == [7.0, 7.0]
        calls.clear()
        client = Client(other, KEY, sleep=waited.append, patience_s=3)
        with client, pytest.raises(ServerError, match="later") as error:
            client.model()
        assert (error.value.status, error.value.code) == (503, "busy")


def test_our_client_tells_the_servers_errors(url, tmp_path):
    with Client(url, "wrong") as client, pytest.raises(ServerError, match="Authorization") as error:
        client.model()
    assert error.value.code == "unauthorized"
    with Client(url, KEY) as client, pytest.raises(ServerError, match="subject: expected") as error:
        client.fhir(WALK, subject="me")
    assert (error.value.status, error.value.code) == (422, "bad_request")
    with Client(url, KEY) as client, pytest.raises(OSError, match=r"absent\.mot"):
        client.answers(tmp_path / "absent.mot", tasks=["all"])


# --- SMART's client


def test_smarts_client_connects_and_reads(url):
    from fhirclient.client import FHIRClient
    from fhirclient.models.codesystem import CodeSystem

    smart = FHIRClient(settings={"app_id": "test", "api_base": f"{url}/fhir"})
    assert smart.server.capabilityStatement.software.name == "BiomechGPT"
    smart.server.session.headers["Authorization"] = f"Bearer {KEY}"
    system = CodeSystem.read("quantity", smart.server)
    assert "step_length-left" in {concept.code for concept in system.concept}


# --- The docs' commands


CURL = [(page, [line for line in commands(page) if line.startswith("curl")]) for page in PAGES]
CURL = [(page, lines) for page, lines in CURL if lines and page.parent.name != "infra"]
"""Pages with curl commands. That of infra/ asks Ray Serve's own endpoint."""


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize(("page", "lines"), [pytest.param(*case, id=case[0].name) for case in CURL])
def test_every_curl_command_of_the_docs_runs(url, keys, tmp_path, page, lines):
    for name in ("walk.mot", "walk2.mot"):
        (tmp_path / name).write_bytes(WALK.read_bytes())
    blocks = re.findall(
        r"^```json\n(\{\s*\"resourceType\": \"Parameters\".*?)^```", page.read_text(), re.M | re.S
    )
    for block in blocks:  # the page shows the file that a command sends
        body = block.replace('"..."', json.dumps(base64.b64encode(WALK.read_bytes()).decode()))
        (tmp_path / "request.json").write_text(body)
    auditor = add_key(keys, f"auditor-{page.stem}", 1, [scopes.AUDIT])
    environment = os.environ | {"KEY": KEY, "AUDITOR": auditor}
    assert lines
    for line in lines:
        command = line.replace("http://127.0.0.1:8000", url).replace("curl ", "curl -sS --fail-with-body ", 1)
        run = subprocess.run(
            ["bash", "-c", command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert run.returncode == 0, f"{line}\n{run.stdout}{run.stderr}"
        assert run.stdout.strip() or line.endswith("/results"), line  # none may be there yet
        if found := re.search(r'"id": ?"((?:batch|file)-[^"]+)"', run.stdout):
            environment |= {found[1].partition("-")[0].upper(): found[1]}


def test_the_python_of_the_docs_runs(url, tmp_path, monkeypatch, capsys):
    """The blocks of the serving page that use a client."""
    pytest.importorskip("openai", reason="openai is not installed (pip install '.[dev]')")
    monkeypatch.chdir(tmp_path)
    for name in ("walk.mot", "walk2.mot"):
        (tmp_path / name).write_bytes(WALK.read_bytes())
    text = (ROOT / "docs/guide/serving.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    blocks = [block for block in blocks if "private.pem" not in block]  # tests/serve/test_smart.py signs
    assert len(blocks) >= 2
    for block in blocks:
        code = block.replace("http://127.0.0.1:8000", url)
        exec(compile(code, "serving.md", "exec"), {"key": KEY})
        assert capsys.readouterr().out.strip()


def test_the_error_of_a_busy_server_reaches_openais_client_as_one_to_retry(model):
    openai = pytest.importorskip("openai", reason="openai is not installed (pip install '.[dev]')")
    refusing = SimpleNamespace(done=False)
    real = model.answer

    async def busy_once(query):
        if not refusing.done:
            refusing.done = True
            raise ApiError("busy", "later", retry_after_s=1)
        return await real(query)

    busy = FakeModel()
    busy.answer = busy_once
    with (
        serving(Gateway(busy, GatewaySettings())) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=1) as client,
    ):
        completion = client.chat.completions.create(model="biomechgpt", messages=messages(file_part()))
        assert refusing.done
        assert completion.choices[0].message.content
