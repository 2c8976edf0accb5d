"""SMART Backend Services: signatures, public keys, tokens and scopes; with fhirclient and fhirpy as clients."""

import hmac
import json
import socket
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import uvicorn
from fake_model import HEADERS, KEY, FakeModel
from fastapi.testclient import TestClient
from joserfc import jwk, jwt
from joserfc.util import urlsafe_b64encode

from biomechgpt.core.settings import InputError
from conftest import TESTS
from serve import scopes, smart
from serve.app import create_app
from serve.clients import add_key, add_smart_client, read_keys, revoke_key
from serve.gateway import Gateway
from serve.keys import KeySettings, run_keys
from serve.settings import GatewaySettings, IssuerSettings, SmartSettings

URL = "http://testserver"
TOKEN_URL = f"{URL}/auth/token"
WALK = TESTS / "data/recordings/opensim/opencap-processing/walking1_videoAndMocap.mot"
RSA = jwk.RSAKey.generate_key(2048, {"kid": "rsa"})
EC = jwk.ECKey.generate_key("P-384", {"kid": "ec"})
OTHER = jwk.ECKey.generate_key("P-384", {"kid": "ec"})
SYSTEM_READ = "system/*.rs"


def jwks(*keys):
    return json.dumps({"keys": [key.as_dict(private=False) for key in keys]})


def claims(name="ehr", **changes):
    now = int(time.time())
    values = {
        "iss": name,
        "sub": name,
        "aud": TOKEN_URL,
        "exp": now + 200,
        "iat": now,
        "jti": str(uuid.uuid4()),
    }
    return {key: value for key, value in (values | changes).items() if value is not None}


def signed(key=EC, alg="ES384", header=(), **changes):
    return jwt.encode({"alg": alg, "kid": key.kid, **dict(header)}, claims(**changes), key, algorithms=[alg])


def ask(client, assertion, scope=SYSTEM_READ, **changes):
    form = {
        "grant_type": "client_credentials",
        "scope": scope,
        "client_assertion_type": smart.ASSERTION_TYPE,
        "client_assertion": assertion,
    }
    return client.post("/auth/token", data={k: v for k, v in (form | changes).items() if v is not None})


@pytest.fixture
def keys(tmp_path):
    """A file of clients with one SMART client, whose public keys are in a file."""
    (tmp_path / "ehr.json").write_text(jwks(RSA, EC))
    path = tmp_path / "keys.json"
    add_smart_client(path, "ehr", 30, str(tmp_path / "ehr.json"), [SYSTEM_READ, scopes.ANSWERS])
    return path


def app_with(keys, url=URL, **smart_settings):
    settings = GatewaySettings(keys=str(keys), smart=SmartSettings(url=url, **smart_settings))
    return create_app(Gateway(FakeModel(), settings), KEY)


@pytest.fixture
def client(keys):
    return TestClient(app_with(keys), raise_server_exceptions=False)


# --- Tokens


@pytest.mark.parametrize(("key", "alg"), [(RSA, "RS384"), (EC, "ES384")])
def test_a_client_that_signs_gets_a_token_for_its_scopes(client, key, alg):
    response = ask(client, signed(key, alg), scope=f"{SYSTEM_READ} system/*.cruds {scopes.INFO} nonsense")
    assert response.status_code == 200, response.text
    assert response.headers["cache-control"] == "no-store"
    token = response.json()
    assert token["scope"] == SYSTEM_READ  # only what is registered and was asked for
    assert token["expires_in"] == 300
    assert token["token_type"] == "bearer"

    def status(method, path, value=token["access_token"]):
        return client.request(method, path, headers={"Authorization": f"Bearer {value}"}).status_code

    assert status("GET", "/fhir/AuditEvent") == 200
    assert status("POST", "/fhir/$answer-motion") == 415  # let in, but the request is empty
    assert status("POST", "/v1/answers") == status("GET", "/v1/model") == 403
    assert status("GET", "/v1/model", token["access_token"] + "x") == 401


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"exp": int(time.time()) - 60}, "exp"),
        ({"exp": None}, "exp"),
        ({"exp": "soon"}, "exp"),
        ({"exp": int(time.time()) + 3600}, "exp"),
        ({"exp": 1e300}, "exp"),
        ({"aud": "https://elsewhere.example/auth/token"}, "aud"),
        ({"aud": URL}, "aud"),
        ({"aud": None}, "aud"),
        ({"aud": []}, "aud"),
        ({"jti": None}, "jti"),
        ({"jti": 7}, "jti"),
        ({"iss": "stranger"}, "iss"),
        ({"iss": None}, "iss"),
        ({"iss": ["ehr"]}, "iss"),
        ({"sub": "stranger"}, "sub"),
        ({"sub": None}, "sub"),
        ({"iat": 2**32}, "iat|future"),  # in 2106
        ({"nbf": 2**32}, "nbf|not valid|invalid"),
    ],
)
def test_a_claim_that_is_wrong_is_refused(client, changes, named):
    response = ask(client, signed(**changes))
    assert response.status_code == 401, changes
    assert response.json()["error"] == "invalid_client"
    assert any(word in response.json()["error_description"] for word in named.split("|")), response.text


def test_a_clock_may_be_a_little_wrong(keys):
    client = TestClient(app_with(keys, clock_skew_s=30))
    now = int(time.time())
    assert ask(client, signed(exp=now - 20)).status_code == 200
    assert ask(client, signed(exp=now - 40)).status_code == 401
    assert ask(client, signed(exp=now + 320, iat=now + 20, nbf=now + 20)).status_code == 200
    assert ask(client, signed(exp=now + 340)).status_code == 401
    assert ask(client, signed(iat=now + 40)).status_code == 401


def test_a_signature_counts_once_also_in_another_process(client, keys):
    assertion = signed()
    assert ask(client, assertion).status_code == 200
    for again in (client, TestClient(app_with(keys))):
        response = ask(again, assertion)
        assert response.status_code == 401
        assert "jti" in response.json()["error_description"]
    assert ask(client, signed(jti="same")).status_code == 200
    add_smart_client(keys, "second", None, str(keys.with_name("ehr.json")), [SYSTEM_READ])
    assert ask(client, signed(name="second", jti="same")).status_code == 200  # each client has its own


def test_a_refused_signature_does_not_use_up_its_number(client):
    assert ask(client, signed(OTHER, jti="number")).status_code == 401
    assert ask(client, signed(EC, jti="number")).status_code == 200


def unsigned(**header):
    return text_to_sign(header) + "."


def text_to_sign(header):
    return ".".join(urlsafe_b64encode(json.dumps(part).encode()).decode() for part in (header, claims()))


def confused(key, alg):
    """The public key of the client as the secret of an HMAC, in the forms that libraries have taken."""
    public = key.as_pem(private=False)
    for secret in (public, public.strip(), json.dumps(key.as_dict(private=False)).encode()):
        text = text_to_sign({"alg": alg, "kid": key.kid, "typ": "JWT"})
        # By hand: joserfc refuses to sign with such a secret.
        signature = hmac.digest(secret, text.encode(), f"sha{alg[2:]}")
        yield f"{text}.{urlsafe_b64encode(signature).decode()}"


def test_no_trick_with_the_algorithm_or_the_key_works(client, keys):
    small = jwk.RSAKey.generate_key(2048, {"kid": "rsa"})
    tricks = {
        "none": unsigned(alg="none", kid="ec", typ="JWT"),
        "None": unsigned(alg="None", kid="ec"),
        "no algorithm": unsigned(kid="ec"),
        "HS384 with the EC key": next(confused(EC, "HS384")),
        "another key": signed(OTHER),
        "wrong kid": signed(EC, header={"kid": "nobody"}),
        "no kid": signed(EC, header={"kid": ""}),
        "the kid of the other kind": signed(EC, header={"kid": "rsa"}),
        "its own key": signed(OTHER, header={"jwk": OTHER.as_dict(private=False)}),
        "its own keys": signed(OTHER, header={"jku": "http://127.0.0.1:1/jwks"}),
        "another RSA key": signed(small, "RS384"),
        "not allowed": signed(RSA, "RS256"),
        "no JWT": "abc",
        "empty": "",
        "dots": "..",
        "numbers": "e30.e30.e30",
        "long": "x" * 20_000,
        "cut": signed()[:-10],
        "another text": f"{signed().rsplit('.', 1)[0]}.{signed().rsplit('.', 1)[1]}",
    }
    for trick in ("HS256", "HS384", "HS512"):
        for i, assertion in enumerate(confused(RSA, trick)):
            tricks[f"{trick} with the RSA key {i}"] = assertion
    for name, assertion in tricks.items():
        response = ask(client, assertion)
        assert response.status_code == 401, (name, response.text)
        assert response.json()["error"] == "invalid_client"
        access = client.get("/fhir/AuditEvent", headers={"Authorization": f"Bearer {assertion or 'x'}"})
        assert access.status_code == 401, name
    assert ask(client, signed()).status_code == 200


def test_a_key_of_another_use_or_size_is_not_taken(client, keys):
    weak = jwk.ECKey.generate_key("P-256", {"kid": "p256"})
    other_use = jwk.ECKey.generate_key("P-384", {"kid": "enc", "use": "enc"})
    secret = {"kty": "oct", "kid": "ec", "k": "c2VjcmV0"}
    values = [weak.as_dict(private=False), other_use.as_dict(private=False), secret]
    keys.with_name("ehr.json").write_text(json.dumps({"keys": values}))
    header = {"alg": "ES256", "kid": "p256"}
    assert ask(client, jwt.encode(header, claims(), weak, algorithms=["ES256"])).status_code == 401
    text = text_to_sign({"alg": "HS384", "kid": "ec"})
    signature = urlsafe_b64encode(hmac.digest(b"secret", text.encode(), "sha384")).decode()
    assert ask(client, f"{text}.{signature}").status_code == 401
    encrypting = jwk.ECKey.import_key({**other_use.as_dict(private=True), "use": "sig"})
    assert ask(client, signed(encrypting)).status_code == 401


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({"grant_type": None}, "unsupported_grant_type"),
        ({"client_assertion_type": "x"}, "invalid_client"),
        ({"client_assertion": None}, "invalid_client"),
        ({"client_id": "somebody"}, "invalid_client"),
        ({"scope": ""}, "invalid_scope"),
        ({"scope": "system/*.cruds"}, "invalid_scope"),
        ({"scope": "system/Observation.rs?category=x patient/*.rs"}, "invalid_scope"),
        ({"scope": ["system/*.rs", "system/*.rs"]}, "invalid_request"),
    ],
)
def test_a_request_for_a_token_is_as_oauth_says(client, changes, code):
    response = ask(client, signed(), **changes)
    assert response.status_code == (401 if code == "invalid_client" else 400)
    assert response.json()["error"] == code, response.text


def test_a_token_ends_with_its_time_its_client_and_its_scopes(keys, monkeypatch):
    client = TestClient(app_with(keys, token_lifetime_s=10))

    def token():
        return {"Authorization": f"Bearer {ask(client, signed()).json()['access_token']}"}

    first = token()
    assert client.get("/fhir/AuditEvent", headers=first).status_code == 200
    later = time.time() + 11
    with monkeypatch.context() as patched:
        patched.setattr(time, "time", lambda: later)
        assert client.get("/fhir/AuditEvent", headers=first).status_code == 401
    second = token()
    revoke_key(keys, "ehr")
    assert client.get("/fhir/AuditEvent", headers=second).status_code == 401
    assert ask(client, signed()).status_code == 401
    add_smart_client(keys, "ehr", 1, str(keys.with_name("ehr.json")), [scopes.INFO])
    assert client.get("/fhir/AuditEvent", headers=second).status_code == 403


def test_no_token_or_key_is_in_the_database_or_the_file(client, keys):
    token = ask(client, signed()).json()["access_token"]
    for path in keys.parent.iterdir():
        assert token.encode() not in path.read_bytes(), path
    assert oct((keys.parent / "records.sqlite").stat().st_mode & 0o777) == "0o600"


def test_the_token_endpoint_is_open_for_small_posts_only(client):
    assert client.get("/auth/token").status_code == 401
    assert client.post("/auth/token", content=b"x" * 100_000).status_code == 413
    assert client.post("/auth/token", content=b"\xff" * 100).status_code == 401 or 400
    assert client.post("/auth/token/", data={}).status_code == 401
    without = TestClient(create_app(Gateway(FakeModel(), GatewaySettings()), KEY))
    assert without.post("/auth/token").status_code == 401
    assert without.post("/auth/token", headers=HEADERS).status_code == 404
    assert without.get("/.well-known/smart-configuration").status_code == 404


# --- Public keys


class Jwks:
    """A server of public keys that counts how often it is asked."""

    def __init__(self):
        self.content, self.status, self.asked = jwks(EC), 200, 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.asked += 1
                self.send_response(outer.status)
                self.send_header("location", "/elsewhere")
                self.end_headers()
                self.wfile.write(outer.content.encode())

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/jwks.json"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def served_keys():
    served = Jwks()
    yield served
    served.server.shutdown()


def test_public_keys_are_kept_rotated_and_read_from_a_uri(keys, served_keys, monkeypatch):
    add_smart_client(keys, "web", 30, served_keys.url, [SYSTEM_READ])
    client = TestClient(app_with(keys, jwks_lifetime_s=60))
    header = {"jku": served_keys.url}
    for _ in range(3):
        assert ask(client, signed(name="web", header=header)).status_code == 200
    assert served_keys.asked == 1
    new = jwk.ECKey.generate_key("P-384", {"kid": "new"})
    served_keys.content = jwks(new)
    for _ in range(5):  # strangers cannot make the server ask again and again
        assert ask(client, signed(new, name="web")).status_code == 401
    assert served_keys.asked == 1
    monkeypatch.setattr(smart, "_REFETCH_S", 0.0)
    assert ask(client, signed(new, name="web")).status_code == 200
    assert ask(client, signed(EC, name="web")).status_code == 401  # the old key is gone


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"keys": 1}', '{"keys": [1]}', '{"keys": [{"kty": "EC"}]}']
)
def test_public_keys_that_cannot_be_read_let_nobody_in(keys, served_keys, content):
    add_smart_client(keys, "web", 30, served_keys.url, [SYSTEM_READ])
    served_keys.content = content
    response = ask(TestClient(app_with(keys)), signed(name="web"))
    assert response.status_code == 503
    assert response.headers["retry-after"]
    served_keys.content, served_keys.status = jwks(EC), 302
    assert ask(TestClient(app_with(keys)), signed(name="web")).status_code == 503


@pytest.mark.parametrize("uri", ["http://ehr.example/jwks", "ftp://ehr.example/jwks", "file:///etc/passwd"])
def test_public_keys_come_over_https(keys, uri):
    with pytest.raises(InputError, match="https"):
        add_smart_client(keys, "web", 30, uri)


# --- Another authorization server


def test_tokens_of_another_issuer_are_checked(keys, tmp_path):
    (tmp_path / "issuer.json").write_text(jwks(RSA, EC))
    issuer = IssuerSettings(
        issuer="https://login.example", jwks=str(tmp_path / "issuer.json"), audience=URL,
        token_endpoint="https://login.example/token",
    )  # fmt: skip
    client = TestClient(app_with(keys, issuer=issuer))
    configuration = client.get("/.well-known/smart-configuration").json()
    assert configuration["token_endpoint"] == "https://login.example/token"
    assert configuration["issuer"] == "https://login.example"

    def status(key=RSA, alg="RS256", path="/fhir/AuditEvent", **changes):
        now = int(time.time())
        values = {"iss": "https://login.example", "aud": [URL, "x"], "exp": now + 60, "client_id": "ehr",
                  "scope": f"{SYSTEM_READ} openid"} | changes  # fmt: skip
        token = jwt.encode({"alg": alg, "kid": key.kid}, values, key, algorithms=[alg])
        return client.get(path, headers={"Authorization": f"Bearer {token}"}).status_code

    assert status() == status(EC, "ES384") == 200
    assert status(path="/v1/model") == status(scope="openid") == 403
    assert status(path="/v1/model", scope=scopes.INFO) == 200
    for wrong in ({"iss": "https://other.example"}, {"aud": "x"}, {"exp": 1}, {"exp": None}, {"client_id": ""},
                  {"client_id": None}, {"scope": 1}, {"key": OTHER, "alg": "ES384"}):  # fmt: skip
        assert status(**wrong) == 401, wrong
    assert client.post("/auth/token", data={}).status_code == 404
    events = client.app.state.audit_log.records.search()[1]
    assert {event["agent"][0]["altId"] for event in events} == {"ehr@https://login.example"}


# --- Scopes


@pytest.mark.parametrize(
    ("granted", "needed", "is_given"),
    [
        ("system/*.rs", "system/Observation.rs", True),
        ("system/*.read", "system/Observation.rs", True),
        ("system/Observation.*", "system/Observation.rs", True),
        ("system/Observation.cruds", "system/Observation.rs", True),
        ("system/Observation.r", "system/Observation.rs", False),
        ("system/Observation.write", "system/Observation.rs", False),
        ("system/Patient.rs", "system/Observation.rs", False),
        ("user/*.rs", "system/Observation.rs", False),
        ("system/*.rs?x=y", "system/Observation.rs", False),
        ("system/*.rs", scopes.ANSWERS, False),
        (scopes.ANSWERS, scopes.ANSWERS, True),
        (scopes.ANSWERS, scopes.INFO, False),
        ("", scopes.INFO, False),
    ],
)
def test_which_scope_gives_which(granted, needed, is_given):
    assert scopes.includes(granted, needed) is is_given


def test_each_route_needs_its_scope_and_keys_may_have_some(tmp_path):
    path = tmp_path / "keys.json"
    usual = add_key(path, "usual", 1)
    auditor = add_key(path, "auditor", 1, [scopes.AUDIT])
    reader = add_key(path, "reader", 1, [scopes.INFO])
    fhir = add_key(path, "fhir", 1, ["system/*.rs"])
    client = TestClient(create_app(Gateway(FakeModel(), GatewaySettings(keys=str(path))), KEY))

    def statuses(key):
        requests = [("GET", "/v1/model"), ("POST", "/v1/answers"), ("POST", "/v1/chat"),
                    ("POST", "/fhir/$answer-motion"), ("GET", "/fhir/AuditEvent"), ("GET", "/nowhere")]  # fmt: skip
        headers = {"Authorization": f"Bearer {key}"}
        return [client.request(*request, headers=headers).status_code for request in requests]

    assert statuses(usual) == [200, 422, 422, 415, 403, 404]
    assert statuses(KEY) == [200, 422, 422, 415, 403, 404]
    assert statuses(auditor) == [403, 403, 403, 403, 200, 403]
    assert statuses(reader) == [200, 403, 403, 403, 403, 404]
    assert statuses(fhir) == [403, 403, 403, 415, 200, 403]
    refused = client.get("/fhir/AuditEvent", headers={"Authorization": f"Bearer {usual}"})
    assert "insufficient_scope" in refused.headers["www-authenticate"]
    assert refused.json()["issue"][0]["code"] == "forbidden"
    assert "system/AuditEvent.rs" in refused.text
    with pytest.raises(InputError, match="expected scopes such as"):
        add_key(path, "wrong", 1, ["everything"])


def test_the_command_registers_smart_clients(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = str(tmp_path / "keys.json")
    run_keys(KeySettings(action="add", name="ehr", file=file, jwks="ehr.json", scopes=("system/*.rs",)))
    run_keys(KeySettings(action="add", name="web", file=file, jwks="https://ehr.example/jwks.json"))
    assert [e.jwks for e in read_keys(tmp_path / "keys.json")] == [
        str(tmp_path / "ehr.json"), "https://ehr.example/jwks.json",
    ]  # fmt: skip
    run_keys(KeySettings(action="list", file=file))
    assert "system/*.rs" in capsys.readouterr().out


def test_smart_needs_a_database_and_an_address():
    with pytest.raises(ValueError, match="database: expected the URI"):
        GatewaySettings(smart=SmartSettings(url=URL))
    with pytest.raises(ValueError, match="expected an address"):
        SmartSettings(url="gait.example")


# --- Clients of others


@pytest.fixture
def live(keys):
    """The address of a server on a real port, which two libraries talk to."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    server = uvicorn.Server(uvicorn.Config(app_with(keys, url), port=port, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield url
    server.should_exit = True
    thread.join()


def test_fhirclient_gets_a_token_and_reads(live):
    """It finds the token endpoint in the CapabilityStatement."""
    from fhirclient.client import FHIRClient
    from fhirclient.models.auditevent import AuditEvent
    from fhirclient.server import FHIRUnauthorizedException

    settings = {"app_id": "ehr", "api_base": f"{live}/fhir", "scope": SYSTEM_READ}
    connected = FHIRClient({**settings, "jwt_token": signed(RSA, "RS384", aud=f"{live}/auth/token")})
    connected.prepare()
    connected.authorize()
    assert connected.ready
    AuditEvent.where({}).perform(connected.server)
    events = AuditEvent.where({"altid": "ehr"}).perform_resources(connected.server)
    assert [event.agent[0].altId for event in events] == ["ehr"]
    assert AuditEvent.read(events[0].id, connected.server).id == events[0].id
    stranger = FHIRClient(settings)
    with pytest.raises(FHIRUnauthorizedException):
        AuditEvent.where({}).perform(stranger.server)


def test_fhirpy_asks_with_a_token(live):
    import base64

    import requests
    from fhirpy import SyncFHIRClient
    from fhirpy.base.exceptions import AuthorizationError, ForbiddenError

    configuration = requests.get(f"{live}/fhir/.well-known/smart-configuration", timeout=10).json()
    assert {"RS384", "ES384"} == set(configuration["token_endpoint_auth_signing_alg_values_supported"])
    assert configuration["token_endpoint_auth_methods_supported"] == ["private_key_jwt"]

    def token(scope):
        form = {
            "grant_type": configuration["grant_types_supported"][0],
            "scope": scope,
            "client_assertion_type": smart.ASSERTION_TYPE,
            "client_assertion": signed(aud=configuration["token_endpoint"]),
        }
        return requests.post(configuration["token_endpoint"], data=form, timeout=10).json()["access_token"]

    client = SyncFHIRClient(f"{live}/fhir", authorization=f"Bearer {token(SYSTEM_READ)}")
    attachment = {"title": WALK.name, "data": base64.b64encode(WALK.read_bytes()).decode()}
    parameters = {
        "resourceType": "Parameters",
        "parameter": [
            {"name": "recording", "valueAttachment": attachment},
            {"name": "task", "valueCode": "activity"},
        ],
    }
    bundle = client.execute("$answer-motion", data=parameters)
    assert bundle["resourceType"] == "Bundle"
    for _ in range(3):
        client.execute("AuditEvent", method="get", params={"_count": 0})
    found = client.resources("AuditEvent").search(outcome="0").limit(2).fetch_all()  # follows the pages
    assert len(found) >= 4
    few = SyncFHIRClient(f"{live}/fhir", authorization=f"Bearer {token(scopes.ANSWERS)}")
    with pytest.raises(ForbiddenError):
        few.resources("AuditEvent").fetch()
    with pytest.raises(AuthorizationError):
        SyncFHIRClient(f"{live}/fhir", authorization="Bearer x").resources("AuditEvent").fetch()
