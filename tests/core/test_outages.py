"""S3 or MLflow is away for a while: nothing is lost, and after the patience one line says so."""

import threading
import time

import pytest

from biomechgpt.core import artifact, s3, storage
from biomechgpt.core.job import run_job
from biomechgpt.core.settings import Settings, StorageError
from biomechgpt.experiment import tracking
from biomechgpt.experiment.tracking import TrackingSettings

AWAY_S = 2.0


@pytest.fixture
def outage(bucket, monkeypatch):
    """`outage(seconds)` takes the server away: until then every connection is refused."""
    from s3fs import S3FileSystem

    until = [0.0]
    call = S3FileSystem._call_s3

    async def refused(self, method, *arguments, **options):
        if time.monotonic() < until[0]:
            raise ConnectionRefusedError("connection refused")
        return await call(self, method, *arguments, **options)

    monkeypatch.setattr(S3FileSystem, "_call_s3", refused)

    def away(seconds):
        until[0] = time.monotonic() + seconds

    return away


@pytest.mark.parametrize("what", ["write", "read", "list", "create", "copy"])
def test_a_call_outlasts_an_outage(bucket, outage, what):
    uri = storage.join(bucket, "a.bin")
    storage.write_bytes(uri, b"before")
    calls = {
        "write": lambda: storage.write_bytes(uri, b"after"),
        "read": lambda: storage.read_bytes(uri),
        "list": lambda: storage.list_files(bucket),
        "create": lambda: storage.create(storage.join(bucket, "new"), b"new"),
        "copy": lambda: storage.copy(bucket, storage.join(bucket, "to"), ["a.bin"]),
    }
    expected = {"write": None, "read": b"before", "list": ["a.bin"], "create": True, "copy": None}
    outage(AWAY_S)
    started = time.monotonic()
    assert calls[what]() == expected[what]
    assert time.monotonic() - started > AWAY_S


def test_a_build_outlasts_outages_at_any_moment(bucket, outage):
    stop = threading.Event()

    def now_and_then():
        while not stop.wait(0.7):
            outage(0.3)

    thread = threading.Thread(target=now_and_then)
    thread.start()

    def build(uri):
        for i in range(10):
            storage.write_bytes(storage.join(uri, f"{i}.bin"), bytes([i]))
        return {}

    made = artifact.make("thing", 1, {}, {}, build, bucket, provenance="synthetic")
    stop.set()
    thread.join()
    assert len(artifact.load(made.uri, verify=True).manifest["files"]) == 10


def test_a_server_that_stays_away_is_one_line_of_error(bucket, outage, monkeypatch, capsys):
    monkeypatch.setattr(s3, "BUDGET_S", 1.0)
    outage(60)
    with pytest.raises(
        StorageError, match=rf"{bucket}/a.bin: no answer from the S3 server in \d s: connection"
    ):
        storage.read_bytes(storage.join(bucket, "a.bin"))
    with pytest.raises(SystemExit, match="1"):
        run_job(Settings, lambda settings: storage.read_bytes(storage.join(bucket, "a.bin")), arguments=[])
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_server_whose_port_is_closed_is_asked_again(monkeypatch):
    """The other tests refuse calls themselves; here the system does, and botocore raises errors of its own."""
    from moto.server import ThreadedMotoServer

    def started(port):
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
        server.start()
        return server

    server = started(0)
    host, port = server.get_host_and_port()
    for name, value in (
        *(("AWS_ENDPOINT_URL", f"http://{host}:{port}"), ("AWS_ACCESS_KEY_ID", "key")),
        *(("AWS_SECRET_ACCESS_KEY", "secret"), ("AWS_DEFAULT_REGION", "us-east-1")),
    ):
        monkeypatch.setenv(name, value)
    uri = "s3://closed/a.bin"
    storage.filesystem(uri)[0].mkdir("closed")
    storage.write_bytes(uri, b"angles")
    server.stop()
    back = threading.Timer(AWAY_S, lambda: servers.append(started(port)))
    back.daemon = True  # another program may have taken the port, and then the server never starts
    servers: list = []
    try:
        begun = time.monotonic()
        back.start()
        assert storage.read_bytes(uri) == b"angles"
        assert time.monotonic() - begun > AWAY_S / 2
        back.join()
        servers[0].stop()
        monkeypatch.setattr(s3, "BUDGET_S", 1.0)
        for call in (storage.exists, storage.read_bytes, storage.list_files):
            with pytest.raises(StorageError, match="no answer from the S3 server"):
                call(uri)
    finally:
        s3.PatientS3.clear_instance_cache()


def test_what_is_not_there_is_not_asked_for_again(bucket):
    started = time.monotonic()
    with pytest.raises(FileNotFoundError):
        storage.read_bytes(storage.join(bucket, "nothing"))
    assert time.monotonic() - started < s3.BUDGET_S / 2


def test_runs_are_sent_when_mlflow_is_back(tmp_path, caplog):
    runs = [
        {
            "name": f"Parkinson's only, {i}",
            "params": {"rank": i},
            "metrics": {"score": 0.5},
            "tags": {"data": "x"},
        }
        for i in range(2)
    ]
    storage.write_json(str(tmp_path / "sweep" / tracking.RUNS), runs)
    sweep = artifact.Artifact(str(tmp_path / "sweep"), {})
    started = time.monotonic()
    with caplog.at_level("WARNING", "biomechgpt"):
        tracking.synchronise(TrackingSettings(uri="http://127.0.0.1:9"), sweep)
    assert time.monotonic() - started < 180
    (message,) = [record.getMessage() for record in caplog.records if record.name == "biomechgpt"]
    assert "MLflow at http://127.0.0.1:9 does not record" in message
    assert "the same command sends them later" in message
    there = TrackingSettings(uri=f"sqlite:///{tmp_path}/mlflow.db")
    for _ in range(2):
        tracking.synchronise(there, sweep)
    client = tracking.client(there)
    recorded = client.search_runs([client.get_experiment_by_name(there.experiment).experiment_id])
    assert sorted(run.info.run_name for run in recorded) == [run["name"] for run in runs]
