"""Every answer that is sent is on record: on SQLite, and on a real PostgreSQL where one is installed."""

import asyncio
import base64
import hashlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fake_model import KEY, SERVED, FakeModel
from fastapi.testclient import TestClient
from fhirclient.models.auditevent import AuditEvent
from fhirclient.models.bundle import Bundle
from sqlalchemy import event, text

from biomechgpt.core.settings import InputError
from conftest import ROOT, TESTS
from serve import audit, scopes
from serve.app import create_app
from serve.audit import Access, AuditLog, audit_event
from serve.audit_log import CHAIN, AuditLogSettings, run_audit_log
from serve.clients import add_key
from serve.errors import ApiError
from serve.gateway import Gateway
from serve.records import FIRST, Records, Unavailable, _hash
from serve.settings import GatewaySettings

WALK = TESTS / "data/recordings/opensim/opencap-processing/walking1_videoAndMocap.mot"
ACCESS = Access("ward-7", "10.0.0.7", "10.0.0.1", "POST", "/v1/answers", model="f" * 64, tasks=["activity"],
                hashes=[("recording", "a" * 64)], status=200)  # fmt: skip
KILLS = 100


@pytest.fixture(scope="session")
def postgres():
    """The URI of a PostgreSQL server of our own, without a password, on a Unix socket."""
    folders = [*os.environ["PATH"].split(os.pathsep), *map(str, Path("/usr/lib/postgresql").glob("*/bin"))]
    initdb, server = (shutil.which(name, path=os.pathsep.join(folders)) for name in ("initdb", "postgres"))
    if initdb is None or server is None:
        pytest.skip("PostgreSQL is not installed (Debian: postgresql): records were tested on SQLite only")
    pytest.importorskip("psycopg", reason="psycopg is not installed (pip install '.[postgres]')")
    folder = Path(tempfile.mkdtemp())  # a short path, for its socket
    options = {}
    if os.getuid() == 0:  # PostgreSQL does not run as root
        options = {"user": "nobody", "group": "nogroup"}
        folder.chmod(0o755)
        shutil.chown(folder, "nobody", "nogroup")
    data = folder / "data"
    subprocess.run(
        [initdb, "-D", data, "-A", "trust", "-U", "test"], check=True, capture_output=True, **options
    )
    process = subprocess.Popen(
        [server, "-D", data, "-c", "listen_addresses=", "-k", folder],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not (folder / ".s.PGSQL.5432").exists():
        assert process.poll() is None, "PostgreSQL did not start"
        assert time.monotonic() < deadline, "PostgreSQL did not start in time"
        time.sleep(0.1)
    yield f"postgresql://test@/postgres?host={folder}"
    process.send_signal(signal.SIGINT)  # does not wait for connections
    process.wait(timeout=60)
    shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "postgresql"])
def uri(request, tmp_path):
    """An empty database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/records.sqlite"
        return
    uri = request.getfixturevalue("postgres")
    yield uri
    with Records(uri).engine.begin() as connection:
        connection.execute(text("DROP TABLE IF EXISTS audit_events, access_tokens, used_assertions"))


@pytest.fixture
def records(uri):
    return Records(uri, 2)


def written(records, count=5, **changes):
    for _ in range(count):
        records.append(audit_event(Access(**(vars(ACCESS) | changes)), datetime.now(UTC)))


# --- The chain


def test_records_are_a_chain_that_shows_each_change(records):
    assert records.verify() == (0, FIRST)
    written(records, 6)
    seq, head = records.verify()
    assert seq == 6
    rows = list(records.rows())
    assert [row.seq for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[0].previous == FIRST
    assert all(row.hash == _hash(row.previous, row.event) for row in rows)
    assert rows[-1].hash == head
    changes = {
        "UPDATE audit_events SET event = replace(event, 'HTTP 200', 'HTTP 500') WHERE seq = 3": "record 3",
        "UPDATE audit_events SET client = 'nobody' WHERE seq = 3": "record 3",
        "UPDATE audit_events SET outcome = '8' WHERE seq = 6": "record 6",
        "UPDATE audit_events SET recorded_ms = 0 WHERE seq = 2": "record 2",
        "DELETE FROM audit_events WHERE seq = 4": "record 5",
        "DELETE FROM audit_events WHERE seq = 1": "record 2",
    }
    for change, named in changes.items():
        with records.engine.connect() as connection:
            transaction = connection.begin()
            connection.execute(text(change))
            transaction.commit()
        with pytest.raises(InputError, match=named):
            records.verify()
        with records.engine.begin() as connection:
            connection.execute(text("DELETE FROM audit_events"))
            connection.execute(text(
                "INSERT INTO audit_events VALUES (:seq, :recorded_ms, :client, :outcome, :event, :previous, :hash)"
            ), [dict(row._mapping) for row in rows])  # fmt: skip
        assert records.verify() == (6, head)


def test_many_writers_at_once_make_one_chain(uri):
    def write(_):
        written(Records(uri, 30), 10)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert Records(uri).verify()[0] == 40


def test_old_records_are_deleted_and_the_chain_says_so(records):
    now = datetime.now(UTC)
    for days in (30, 20, 10, 0):
        records.append(audit_event(ACCESS, now - timedelta(days=days)))
    assert audit.prune(records, 100) == 0
    assert audit.prune(records, 15) == 2
    assert [row.seq for row in records.rows()] == [3, 4, 5]
    assert records.verify()[0] == 5
    assert audit.prune(records, 5) == 1
    written(records, 2)
    assert records.verify()[0] == 8
    with records.engine.begin() as connection:  # somebody takes out more
        connection.execute(text("DELETE FROM audit_events WHERE seq = 4"))
    with pytest.raises(InputError, match="no deletion"):
        records.verify()


def test_everything_may_be_deleted_but_the_chain_goes_on(records):
    records.append(audit_event(ACCESS, datetime.now(UTC) - timedelta(days=3)))
    assert audit.prune(records, 1) == 1
    written(records, 1)
    assert records.verify()[0] == 3


def test_records_are_searched(records):
    start = datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)
    for i in range(6):
        status = (200, 422, 500)[i % 3]
        access = Access(**(vars(ACCESS) | {"client": f"c{i % 2}", "status": status}))
        records.append(audit_event(access, start + timedelta(hours=i)))

    def found(**values):
        total, events = records.search(**values)
        return total, [int(event["id"]) for event in events]

    assert found() == (6, [6, 5, 4, 3, 2, 1])
    assert found(client="c1") == (3, [6, 4, 2])
    assert found(outcomes=["4", "8"]) == (4, [6, 5, 3, 2])
    since = round((start + timedelta(hours=2)).timestamp() * 1000)
    assert found(since_ms=since) == (4, [6, 5, 4, 3])
    assert found(until_ms=since) == (3, [3, 2, 1])
    assert found(count=2) == (6, [6, 5])
    assert found(count=2, before=5) == (6, [4, 3])
    assert records.find(7) is None
    assert records.find(3)["id"] == "3"


def test_tokens_and_used_signatures_end(records):
    now = time.time()
    assert records.use_once("a", now + 60)
    assert not records.use_once("a", now + 60)
    assert records.use_once("b", now - 1)
    assert records.use_once("b", now + 60)
    records.keep_token("t", "ehr", ["x", "y"], now + 60)
    records.keep_token("old", "ehr", ["x"], now - 1)
    assert records.token("t") == ("ehr", ("x", "y"))
    assert records.token("old") is records.token("none") is None


@pytest.mark.parametrize(
    "wrong",
    ["", "mysql://a/b", "sqlite://", "sqlite:///:memory:", "postgresql:/x:y@@", "/path/records.sqlite"],
)
def test_a_database_of_another_kind_is_refused(wrong):
    with pytest.raises(InputError, match="database: expected sqlite"):
        Records(wrong)


# --- What is on record


@pytest.fixture
def keys(tmp_path):
    return tmp_path / "keys.json"


@pytest.fixture(scope="module")
def reader():
    """One process that reads recordings for all applications here."""
    gateway = Gateway(FakeModel(), GatewaySettings())
    yield gateway.reader
    gateway.reader.stop()


def client_with(key, keys, model=None, **settings):
    app = create_app(Gateway(model or FakeModel(), GatewaySettings(keys=str(keys), **settings)), KEY)
    return TestClient(app, headers={"Authorization": f"Bearer {key}"}, raise_server_exceptions=False)


def events_of(client):
    log = client.app.state.audit_log
    return log.records.search()[1][::-1]


def post(client, path="/v1/answers", **data):
    files = {"recording": (WALK.name, WALK.read_bytes())}
    return client.post(path, files=files, data=data or {"tasks": "activity,cadence"})


def values_of(event, kind):
    identifiers = [entity["what"]["identifier"] for entity in event["entity"] if "what" in entity]
    return [i["value"] for i in identifiers if i["system"].endswith(f"/{kind}-sha256")]


def test_an_answer_is_on_record_with_who_what_and_how(keys, reader):
    client = client_with(add_key(keys, "ward-7", 1), keys)
    assert post(client).status_code == 200
    motion = post(client, "/v1/motions").json()
    chat = {
        "tokens": motion["tokens"],
        "messages": [{"role": "user", "content": "Is Jane Roe ill, cadence?"}],
    }
    assert client.post("/v1/chat", json=chat).status_code == 200
    assert post(client, tasks="nonsense").status_code == 422
    assert (
        post(client, "/fhir/$answer-motion", tasks="activity", subject="Patient/jane-roe").status_code == 200
    )
    assert client.post("/v1/jane-roe").status_code == 404
    assert client.get("/v1/model").status_code == 200  # nothing about a person
    answered, motions, chatted, refused, fhir, unknown = events_of(client)
    for found in (answered, motions, chatted, fhir):
        assert found["outcome"] == "0"
        assert values_of(found, "model") == [SERVED.summary.fingerprint]
    sha256 = hashlib.sha256(WALK.read_bytes()).hexdigest()
    assert values_of(answered, "recording") == values_of(fhir, "recording") == [sha256]
    assert values_of(chatted, "motion-tokens") == values_of(motions, "motion-tokens")
    assert len(values_of(chatted, "motion-tokens")) == 1
    assert base64.b64decode(answered["entity"][0]["query"]) == b"task=activity&task=cadence"
    assert answered["entity"][0]["description"] == "POST /v1/answers"
    assert refused["outcome"] == unknown["outcome"] == "4"
    assert unknown["entity"][0]["description"] == "POST (unknown)"
    assert {e["agent"][0]["who"]["identifier"]["value"] for e in events_of(client)} == {"ward-7"}
    everything = json.dumps(events_of(client)).lower()
    for secret in ("jane", "ill", WALK.name.lower(), "patient/", json.dumps(motion["tokens"]), "nonsense"):
        assert secret not in everything, secret


@pytest.mark.parametrize(
    ("path", "field", "results"),
    [
        ("/v1/batches", "recordings", "{location}/results"),
        ("/fhir/$answer-motion", "recording", "{location}/Bundle.ndjson"),
    ],
)
def test_later_results_are_on_record_when_they_are_read(keys, reader, path, field, results):
    with client_with(add_key(keys, "ward-7", 1), keys) as client:
        files = {field: (WALK.name, WALK.read_bytes())}
        begun = client.post(
            path, files=files, data={"tasks": "activity"}, headers={"Prefer": "respond-async"}
        )
        assert begun.status_code == 202
        location = begun.headers.get("content-location") or begun.headers["location"]
        address, deadline = results.format(location=location), time.monotonic() + 60
        while not (found := client.get(address)).content or found.status_code != 200:
            assert time.monotonic() < deadline, found.text
            time.sleep(0.05)
        read = events_of(client)[-1]
    assert read["outcome"] == "0"
    assert values_of(read, "recording") == [hashlib.sha256(WALK.read_bytes()).hexdigest()]
    assert values_of(read, "model") == [SERVED.summary.fingerprint]
    assert base64.b64decode(read["entity"][0]["query"]) == b"task=activity"


def test_a_question_in_free_words_is_not_on_record(keys, reader):
    client = client_with(add_key(keys, "ward-7", 1), keys)
    assert post(client, question="Does Jane Roe dance?").status_code == 200
    (found,) = events_of(client)
    assert "jane" not in base64.b64decode(found["entity"][0]["query"]).decode().lower()


@pytest.mark.parametrize("status", [200, 422, 500])
def test_a_record_is_an_audit_event_of_r4_and_of_balp(status):
    access = Access(**(vars(ACCESS) | {"status": status}))
    content = audit_event(access, datetime.now(UTC)) | {"id": "1"}
    AuditEvent(content, strict=True)
    schema = ROOT / "../shared/fhir/fhir-r4.subset.schema.json"
    if schema.exists():
        import jsonschema

        known = json.loads(schema.read_text())
        if "AuditEvent" in known["definitions"]:
            jsonschema.validate(content, {**known, "$ref": "#/definitions/AuditEvent"})
    # What the profile IHE.BasicAudit.Query asks, beside R4.
    assert (content.get("meta") == {"profile": [audit.QUERY_PROFILE]}) is (status == 200)
    assert content["type"]["code"] == "rest"
    assert content["action"] == "E"
    assert len(content["subtype"]) >= 1
    assert [agent["type"]["coding"][0]["code"] for agent in content["agent"]] == ["110153", "110152"]
    assert all(agent["who"] and agent["network"]["address"] for agent in content["agent"])
    queries = [entity for entity in content["entity"] if entity["type"]["code"] == "2"]
    assert len(queries) == 1
    assert queries[0]["role"]["code"] == "24"
    assert queries[0]["query"]
    assert not {"what", "lifecycle", "detail", "name"} & set(queries[0])


def test_the_only_key_of_the_environment_is_not_recorded_unless_asked(keys, tmp_path):
    local = client_with(KEY, keys)
    assert local.post("/v1/answers").status_code == 422
    assert not (tmp_path / "records.sqlite").exists()
    add_key(keys, "ward-7", 1)  # from now on there are names
    assert local.post("/v1/answers").status_code == 422
    assert [e["agent"][0]["altId"] for e in events_of(local)] == ["environment"]
    asked = client_with(KEY, tmp_path / "none.json", database=f"sqlite:///{tmp_path}/b.sqlite", audit="on")
    assert asked.post("/v1/answers").status_code == 422
    assert len(events_of(asked)) == 1
    off = client_with(KEY, keys, audit="off")
    assert off.post("/v1/answers").status_code == 422
    assert off.app.state.audit_log is None
    with pytest.raises(ValueError, match="database: expected the URI"):
        GatewaySettings(audit="on")


def test_the_records_are_searched_with_the_audit_scope_and_that_is_recorded_too(keys):
    ward = client_with(add_key(keys, "ward-7", 1), keys)
    auditor = client_with(add_key(keys, "auditor", 1, [scopes.AUDIT]), keys)
    for _ in range(3):
        ward.post("/v1/answers")
    assert ward.get("/fhir/AuditEvent").status_code == 403
    today = datetime.now(UTC).date()
    bundle = auditor.get(
        "/fhir/AuditEvent", params={"altid": "ward-7", "date": f"ge{today}", "_count": 2}
    ).json()
    Bundle(bundle, strict=True)
    assert bundle["total"] == 3
    assert [entry["resource"]["id"] for entry in bundle["entry"]] == ["3", "2"]
    url = next(link["url"] for link in bundle["link"] if link["relation"] == "next")
    assert [e["resource"]["id"] for e in auditor.get(f"/fhir/{url}").json()["entry"]] == ["1"]
    assert auditor.get("/fhir/AuditEvent/2").json()["id"] == "2"
    for missing in ("99", "x", "9" * 30):
        assert auditor.get(f"/fhir/AuditEvent/{missing}").status_code == 404
    tomorrow = today + timedelta(days=1)
    for date, total in (
        (f"gt{today}", 0),
        (f"lt{today}", 0),
        (f"le{today}", 3),
        (f"{today}", 3),
        (f"ge{tomorrow}", 0),
    ):
        found = auditor.get("/fhir/AuditEvent", params={"date": date, "altid": "ward-7"}).json()
        assert found["total"] == total, date
    for wrong in (
        {"date": "yesterday"},
        {"date": "2026-99-99"},
        {"_count": -1},
        {"patient": "x"},
        {"_before": 0},
    ):
        assert auditor.get("/fhir/AuditEvent", params=wrong).status_code in (400, 422), wrong
    searched = next(e for e in events_of(auditor) if e["agent"][0]["altId"] == "auditor")
    assert "altid=ward-7" in base64.b64decode(searched["entity"][0]["query"]).decode()
    assert searched["subtype"][0]["code"] == "search-type"


# --- A database that fails


def test_without_a_record_there_is_no_answer(keys, reader):
    """Locked, full, and then well again."""
    client = client_with(add_key(keys, "ward-7", 1), keys, database_timeout_s=0.3)
    assert post(client).status_code == 200
    path = keys.with_name("records.sqlite")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for response in (post(client), post(client, tasks="nonsense"), client.post("/fhir/$answer-motion")):
        assert response.status_code == 503
        assert int(response.headers["retry-after"]) >= 1
        assert "recorded" in response.text
        assert "answers" not in response.json()
    assert client.get("/v1/model").status_code == 200
    other.execute("ROLLBACK")
    assert post(client).status_code == 200

    records = client.app.state.audit_log.records
    records.engine.dispose()
    event.listen(records.engine, "connect", full := lambda c, _: c.execute("PRAGMA max_page_count=1"))
    statuses = [post(client).status_code for _ in range(8)]
    assert statuses[-1] == 503
    sent = 2 + statuses.count(200)
    event.remove(records.engine, "connect", full)
    records.engine.dispose()
    assert post(client).status_code == 200
    assert len(events_of(client)) == sent + 1
    records.verify()


def test_a_file_that_is_no_database_or_cannot_be_written_gives_no_answer(keys, tmp_path):
    (tmp_path / "records.sqlite").write_bytes(b"no database" * 1000)
    client = client_with(add_key(keys, "ward-7", 1), keys)
    assert client.post("/v1/answers").status_code == 503
    client = client_with(KEY, keys, database=f"sqlite:///{tmp_path}/keys.json/x.sqlite")
    assert client.post("/v1/answers").status_code == 503


def test_a_locked_postgresql_gives_no_answer(keys, postgres, reader):
    client = client_with(add_key(keys, "ward-7", 1), keys, database=postgres, database_timeout_s=0.5)
    assert post(client).status_code == 200
    with Records(postgres).engine.connect() as connection, connection.begin():
        connection.execute(text("LOCK TABLE audit_events IN ACCESS EXCLUSIVE MODE"))
        assert post(client).status_code == 503
    assert post(client).status_code == 200
    assert len(events_of(client)) == 2
    gone = client_with(
        KEY, keys, database="postgresql://test@/postgres?host=/nowhere", database_timeout_s=0.5
    )
    assert gone.post("/v1/answers").status_code == 503
    with Records(postgres).engine.begin() as connection:
        connection.execute(text("DROP TABLE audit_events, access_tokens, used_assertions"))


def test_a_writer_that_waits_gives_up_and_the_next_one_is_served(tmp_path):
    """The thread that writes does not pile up work whose requests were refused."""
    records = Records(f"sqlite:///{tmp_path}/records.sqlite", 0.2)
    log = AuditLog(records, 0.2)
    started, go_on = threading.Event(), threading.Event()

    async def run():
        await log.write(ACCESS)
        asyncio.get_running_loop().run_in_executor(log._writer, lambda: (started.set(), go_on.wait(10)))
        started.wait(10)
        results = await asyncio.gather(*(log.write(ACCESS) for _ in range(20)), return_exceptions=True)
        assert all(isinstance(result, ApiError) and result.code == "busy" for result in results)
        go_on.set()
        await log.write(ACCESS)

    asyncio.run(run())
    assert records.verify()[0] == 2


# --- The command


def test_the_command_exports_checks_and_deletes(records, uri, tmp_path, capsys):
    written(records, 4)
    file = tmp_path / "audit.ndjson"
    run_audit_log(AuditLogSettings(action="export", database=uri, output=str(file)))
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["id"] for line in lines] == ["1", "2", "3", "4"]
    previous = FIRST
    for line in lines:  # the chain can be checked without the database
        AuditEvent(line, strict=True)
        (chain,) = line.pop("extension")
        assert chain["url"] == CHAIN
        values = {part["url"]: part["valueString"] for part in chain["extension"]}
        assert values["previous"] == previous
        previous = _hash(previous, json.dumps(line, separators=(",", ":")))
        assert values["hash"] == previous
    run_audit_log(AuditLogSettings(database=uri))
    head = capsys.readouterr().out.split()[-1]
    assert head == f"4:{previous}"
    written(records, 1)
    run_audit_log(AuditLogSettings(database=uri, head=head))
    with records.engine.begin() as connection:  # the end is cut off and written anew
        connection.execute(text("DELETE FROM audit_events WHERE seq > 3"))
    written(records, 2)
    records.verify()
    with pytest.raises(InputError, match="record 4: expected the hash"):
        run_audit_log(AuditLogSettings(database=uri, head=head))
    run_audit_log(AuditLogSettings(action="prune", database=uri, days=1))
    assert "deleted 0 records" in capsys.readouterr().out
    with pytest.raises(InputError, match="days: expected"):
        run_audit_log(AuditLogSettings(action="prune", database=uri))
    with pytest.raises(InputError, match="found none"):
        run_audit_log(AuditLogSettings(database=f"sqlite:///{tmp_path}/nothing.sqlite"))


def test_the_server_deletes_old_records_by_itself(tmp_path):
    records = Records(f"sqlite:///{tmp_path}/records.sqlite")
    records.append(audit_event(ACCESS, datetime.now(UTC) - timedelta(days=3)))
    log = AuditLog(records, 5, days=1)
    asyncio.run(log.write(ACCESS))
    log._writer.shutdown()
    assert [row.seq for row in records.rows()] == [2, 3]
    records.verify()


# --- kill -9


@pytest.mark.slow
def test_every_answer_that_was_sent_before_a_kill_is_on_record(uri, tmp_path):
    folder = tmp_path / "sent"
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, str(TESTS / "serve/audit_killer.py"), uri, str(folder), str(KILLS), "7"],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    sent = [name for names in json.loads(done.stdout.splitlines()[-1]) for name in names]
    records = Records(uri, 30)
    records.verify()
    recorded = {row.client for row in records.rows()}
    assert len(sent) >= KILLS
    assert set(sent) <= recorded
    # Of each killed process at most one record has no answer.
    assert len(recorded) - len(sent) <= KILLS + 3


def test_a_full_disk_is_named_without_the_record(tmp_path):
    records = Records(f"sqlite:///{tmp_path}/records.sqlite")
    written(records, 1)
    records.engine.dispose()
    event.listen(records.engine, "connect", lambda c, _: c.execute("PRAGMA max_page_count=1"))
    with pytest.raises(Unavailable) as full:
        written(records, 50)
    assert "ward" not in str(full.value)
