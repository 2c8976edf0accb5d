"""What a stranger can do to the API without Ray: keys, paths, bodies, headers; and what one bad request does."""

import asyncio
import json
import stat
from datetime import UTC, datetime, timedelta

import pytest
from fake_model import HEADERS, KEY, FakeModel
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.websockets import WebSocketDisconnect

from biomechgpt.answering.answer import Answer
from biomechgpt.core.settings import InputError
from conftest import TESTS
from serve import bodies, routes
from serve.app import STATIC, create_app
from serve.clients import Client, Clients, KeyFile, add_key, read_keys, revoke_key
from serve.errors import ApiError
from serve.gateway import Gateway
from serve.keys import KeySettings, run_keys
from serve.model import Failed, answer_each
from serve.recordings import clean_name
from serve.settings import GatewaySettings

SMART = {"/.well-known/smart-configuration", "/fhir/.well-known/smart-configuration"}
OPEN = {"/healthz", "/readyz", "/fhir/metadata", *SMART}
"""The paths of the application that need no key, once more: a new one must be added here by hand."""
PREFIXES = ("", "/a", "/a/b")
WALK = TESTS / "data/recordings/opensim/opencap-processing/walking1_videoAndMocap.mot"


def route_table():
    """(method, path) of every endpoint, and some paths that are none."""
    table = {
        (method, route.path.replace("{name}", "x.mot").replace("{id}", "1"))
        for router in routes.routers()
        for route in router.routes
        if isinstance(route, APIRoute)
        for method in route.methods
    }
    return [*sorted(table), ("GET", "/openapi.json"), ("GET", "/docs"), ("GET", "/v1"), ("GET", "/nowhere")]


@pytest.fixture
def model():
    return FakeModel()


@pytest.fixture(scope="module")
def gateway():
    gateway = Gateway(FakeModel(), GatewaySettings(max_body_bytes=2_000_000))
    yield gateway
    gateway.reader.stop()


@pytest.fixture(scope="module")
def app(gateway):
    return create_app(gateway, KEY)


@pytest.fixture
def client(app):
    return TestClient(app, headers=HEADERS, raise_server_exceptions=False)


@pytest.fixture(scope="module")
def walk():
    return WALK.name, WALK.read_bytes()


# --- Paths


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize(("key", "is_right"), [(None, False), ("wrong", False), (KEY, True)])
def test_every_path_but_the_named_ones_needs_a_key(app, prefix, key, is_right):
    # As Ray Serve does, the prefix stands in the path and in root_path.
    client = TestClient(app, root_path=prefix, raise_server_exceptions=False)
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    for method, path in route_table():
        status = client.request(method, prefix + path, headers=headers).status_code
        assert (status == 401) is (not is_right and path not in OPEN), (method, prefix + path, status)
        assert status < 500
    for file in [p.relative_to(STATIC).as_posix() for p in STATIC.rglob("*") if p.is_file()] + [""]:
        assert client.get(f"{prefix}/{file}", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "//v1/model", "/./v1/model", "/%2e/v1/model", "/healthz/../v1/model", "/healthz%2f..%2fv1/model",
        "/.well-known/../v1/model", "/assets/../../v1/model", "/v1%2fmodel", "/V1/model", "/healthz/",
        "/index.html/../v1/model", "/;/v1/model", "/v1/model?key=key",
    ],
)  # fmt: skip
def test_no_spelling_of_a_path_opens_it(app, path):
    client = TestClient(app, raise_server_exceptions=False)
    assert client.get(path, follow_redirects=False).status_code in (401, 404)


def test_an_open_path_takes_no_body_and_nobody_opens_a_web_socket(app):
    nobody = TestClient(app, raise_server_exceptions=False)
    assert nobody.post("/healthz", content=b"x" * 100_000).status_code == 401
    assert nobody.request("GET", "/healthz", content=b"x" * 100_000).status_code == 413
    with pytest.raises(WebSocketDisconnect), nobody.websocket_connect("/v1/chat"):
        pass


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR"])
def test_the_scheme_is_accepted_in_any_case(app, scheme):
    client = TestClient(app)
    assert client.get("/v1/model", headers={"Authorization": f"{scheme} {KEY}"}).status_code == 200
    for wrong in (f"{scheme} {KEY}x", f"{scheme}", f"{scheme} ", f"Basic {KEY}", KEY, f"{scheme}{KEY}"):
        assert client.get("/v1/model", headers={"Authorization": wrong}).status_code == 401


def test_every_response_has_its_headers(client):
    for response in (
        client.get("/v1/model"),
        client.get("/healthz"),
        client.get("/fhir/metadata"),
        client.get("/v1/nowhere"),
        client.get("/v1/model", headers={"Authorization": ""}),
        client.post("/v1/answers"),
    ):
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["x-content-type-options"] == "nosniff"
    page = client.get("/")
    assert page.headers["x-content-type-options"] == "nosniff"
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]


def test_a_wrong_method_is_told_the_right_ones(client):
    for method, path, allowed in (
        ("GET", "/v1/answers", "POST"),
        ("DELETE", "/v1/model", "GET"),
        ("POST", "/healthz", "GET"),
        ("HEAD", "/v1/model", "GET"),
        ("POST", "/index.html", "GET, HEAD"),
    ):
        response = client.request(method, path)
        assert (response.status_code, response.headers["allow"]) == (405, allowed), path
        if method != "HEAD":
            assert response.json()["error"]["code"] == "not_allowed"


def test_the_document_lists_security_and_the_errors_that_happen(client):
    document = client.get("/openapi.json").json()
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    assert "HTTPValidationError" not in json.dumps(document)
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            expected = [] if path in OPEN | {"/auth/token"} else [{"key": []}]
            assert operation["security"] == expected, path
            if path not in OPEN:
                assert {"401", "429", "503"} <= set(operation["responses"]), (method, path)


# --- Keys


def test_a_key_has_a_name_expires_and_is_revoked_without_a_restart(tmp_path, gateway):
    path = tmp_path / "keys.json"
    app = create_app(Gateway(FakeModel(), GatewaySettings(keys=str(path))), "")
    client = TestClient(app)

    def status(key):
        return client.get("/v1/model", headers={"Authorization": f"Bearer {key}"}).status_code

    assert status("nothing") == 401
    ward, lab = add_key(path, "ward-7", 30), add_key(path, "lab", None)
    assert (status(ward), status(lab), status("")) == (200, 200, 401)
    assert Clients("", str(path)).of_key(ward.encode()) == Client("ward-7")
    assert ward not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(InputError, match="'ward-7' has a key already"):
        add_key(path, "ward-7", 30)
    revoke_key(path, "ward-7")
    assert (status(ward), status(lab)) == (401, 200)
    with pytest.raises(InputError, match=r"expected the name of a key \(lab\), found 'ward-7'"):
        revoke_key(path, "ward-7")
    (entry,) = read_keys(path)
    old = entry.model_copy(update={"expires": datetime.now(UTC) - timedelta(seconds=1)})
    path.write_text(KeyFile(keys=(old,)).model_dump_json())
    assert status(lab) == 401
    path.write_text("{")
    assert status(lab) == 401  # a damaged file opens nothing


def test_the_command_adds_lists_and_revokes_keys(tmp_path, capsys):
    file = str(tmp_path / "keys.json")
    run_keys(KeySettings(action="add", name="ward-7", file=file))
    key = capsys.readouterr().out.splitlines()[-1]
    assert Clients("", file).of_key(key.encode()) == Client("ward-7")
    run_keys(KeySettings(action="list", file=file))
    listed = capsys.readouterr().out
    assert "ward-7" in listed
    assert key not in listed
    run_keys(KeySettings(action="revoke", name="ward-7", file=file))
    assert read_keys(tmp_path / "keys.json") == ()
    with pytest.raises(InputError, match="keys add NAME"):
        run_keys(KeySettings(action="add", file=file))


def test_a_server_without_any_key_does_not_start():
    with pytest.raises(ValueError, match="BIOMECHGPT_API_KEY"):
        Clients(" ")


# --- Bodies

ASK = [{"role": "user", "content": "What is the cadence?"}]


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 200_000,
        b'{"a":' * 100_000,
        b"[" * 100 + b"]" * 100,
        b"[" + b"0," * 300_000 + b"0]",
        b'{"tokens": [NaN], "messages": []}',
        b'{"tokens": [1], "messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"tokens": [1], "analysis": {"duration_s": Infinity}}',
        b'{"tokens": [1], "analysis": {"duration_s": 1e999}}',
        b'{"tokens": [' + b"9" * 5000 + b"]}",
        b'{"tokens": [1e300]}',
        b"{",
        b"\xff\xfe",
        b"null",
        b"",
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat", "/fhir/$answer-motion", "/v1/answers"])
def test_a_body_that_is_no_request_is_the_clients_fault(client, path, body):
    for content_type in (
        "application/json",
        "application/fhir+json",
        "text/plain",
        "multipart/form-data; boundary=b",
    ):
        response = client.post(path, content=body, headers={"content-type": content_type})
        assert 400 <= response.status_code < 500, (content_type, response.text)
        assert len(response.content) < 10_000


def test_a_form_of_a_million_fields_is_refused(client):
    response = client.post(
        "/v1/answers",
        content=b"a&" * 1_000_000,
        headers={"content-type": "application/x-www-form-urlencoded"},
    )
    assert response.status_code == 422
    assert "at most 1000 fields" in response.text


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999", "-1"])
def test_a_number_of_a_form_is_finite(client, walk, value):
    for field in ("age", "max_risk"):
        response = client.post(
            "/v1/answers", files={"recording": walk}, data={"tasks": "activity", field: value}
        )
        assert response.status_code == 422, (field, response.text)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20),
    lambda inside: st.lists(inside, max_size=5) | st.dictionaries(st.text(max_size=10), inside, max_size=5),
    max_leaves=30,
)


@settings(max_examples=200, deadline=None)
@given(body=JSON, tokens=JSON, analysis=JSON)
def test_no_json_is_an_error_of_the_server(app, body, tokens, analysis):
    client = TestClient(app, headers=HEADERS, raise_server_exceptions=False)
    for content in (body, {"tokens": tokens, "messages": ASK, "analysis": analysis}):
        for path in ("/v1/chat", "/fhir/$answer-motion"):
            response = client.post(
                path, content=json.dumps(content), headers={"content-type": "application/json"}
            )
            assert response.status_code < 500, response.text


def test_a_body_that_does_not_arrive_is_given_up():
    async def run():
        async def drop():
            await asyncio.sleep(0.02)
            return {"type": "http.request", "body": b"x", "more_body": True}

        body = bodies.Body(bodies.Buffer(1000), 1000, timeout_s=0.2)
        with pytest.raises(ApiError) as late:
            await body.read({}, drop)
        assert late.value.code == "timeout"

    asyncio.run(run())


def test_all_bodies_together_are_bounded():
    async def run():
        async def chunk():
            return {"type": "http.request", "body": b"x" * 60, "more_body": False}

        buffer = bodies.Buffer(100)
        first, second = (bodies.Body(buffer, 100, 1) for _ in range(2))
        await first.read({b"content-type": b"text/plain"}, chunk)
        with pytest.raises(ApiError) as full:
            await second.read({}, chunk)
        assert full.value.code == "busy"
        second.close()
        first.close()
        assert buffer.held == 0

    asyncio.run(run())


def test_an_answer_that_takes_too_long_is_given_up(walk):
    class Slow(FakeModel):
        async def answer(self, query):
            await asyncio.sleep(30)

    gateway = Gateway(Slow(), GatewaySettings(answer_timeout_s=3))
    client = TestClient(create_app(gateway, KEY), headers=HEADERS)
    response = client.post("/v1/answers", files={"recording": walk}, data={"tasks": "activity"})
    gateway.reader.stop()
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) >= 1
    assert gateway.admission.asking.in_progress == gateway.admission.in_progress == 0


# --- Questions


def test_a_task_that_is_named_twice_is_asked_once(client, walk):
    data = {"tasks": ["activity", "activity,activity"] * 50}
    answers = client.post("/v1/answers", files={"recording": walk}, data=data).json()["answers"]
    assert [answer["task"] for answer in answers] == ["activity"]


def test_a_request_asks_a_limited_number_of_questions(walk):
    gateway = Gateway(FakeModel(), GatewaySettings(max_questions=2))
    client = TestClient(create_app(gateway, KEY), headers=HEADERS)
    for tasks, status in (("activity,cadence", 200), ("activity,cadence,impaired", 422)):
        response = client.post("/v1/answers", files={"recording": walk}, data={"tasks": tasks})
        assert response.status_code == status, response.text
    gateway.reader.stop()
    assert "at most 2 different questions" in response.text


def test_one_bad_question_does_not_fail_the_others_of_its_batch():
    asked = []

    def answer(queries):
        asked.append(list(queries))
        if "too long" in queries:
            raise InputError("question: expected fewer tokens")
        if "bug" in queries:
            raise RuntimeError("secret")
        return [Answer(query) for query in queries]

    queries = ["a", "b", "too long", "c", "bug", "d"]
    assert answer_each(answer, queries) == [
        Answer("a"), Answer("b"), Failed("question: expected fewer tokens"), Answer("c"), Failed(None), Answer("d"),
    ]  # fmt: skip
    asked.clear()
    assert [a.text for a in answer_each(answer, list("abcd"))] == list("abcd")
    assert len(asked) == 1


def test_a_file_name_is_shown_without_tricks():
    assert clean_name("walk\u202emot.exe\x07.mot") == "walkmot.exe.mot"
    assert clean_name("../../etc/a.mot") == clean_name("..\\..\\etc\\a.mot") == "a.mot"
    assert clean_name(None) == clean_name("") == clean_name("/") == "recording"
    assert len(clean_name("x" * 10_000)) == 200


def test_a_damaged_recording_is_the_clients_fault(client):
    for content in (b"", b"\x00" * 100, b"PK\x03\x04", b"[" * 100_000):
        for name in ("a.mot", "a.c3d", "a.npz"):
            response = client.post("/v1/motions", files={"recording": (name, content)})
            assert response.status_code == 422, response.text


def test_named_clients_have_limits_of_their_own(tmp_path, walk):
    path = tmp_path / "keys.json"
    one, two = add_key(path, "one", 1), add_key(path, "two", 1)
    gateway = Gateway(FakeModel(), GatewaySettings(keys=str(path), client_questions_per_minute=20))
    client = TestClient(create_app(gateway, ""))

    def ask(key):
        return client.get("/v1/model", headers={"Authorization": f"Bearer {key}"})

    answers = [ask(one) for _ in range(40)]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert {answer.status_code for answer in answers} == {200, 429}
    assert len(answers) - len(refused) in (20, 21)
    assert refused[0].json()["error"]["code"] == "too_many"
    assert 1 <= int(refused[0].headers["retry-after"]) <= 4
    assert ask(two).status_code == 200


def test_no_upload_is_read_on_the_bones_of_one_person():
    with pytest.raises(ValueError, match="opensim_model: expected none on a server"):
        GatewaySettings(readers={"opensim_model": "anna.osim"})
