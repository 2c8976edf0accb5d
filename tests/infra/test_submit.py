"""A job submitted to two nodes, as on Kubernetes: own processes, a token, uploaded code, results on S3."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from biomechgpt.core import artifact
from ports import free_port
from ray_nodes import TOKEN, WITH_TOKEN, Node, kill_all_of, without_ray

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("tiny")]  # one cluster of two nodes for all

# What is submitted, and the kind of artifact that it makes.
JOB = ["jobs/sweep.py", "--config", "configs/experiments/sweep_tiny.yaml", "--trials", "1"]
KIND = "sweep"
SHARED_BY_TRIALS = {"cohort", "parameters", "tokenizer", "tokens", "questions", "base"}
FOUND_BY_A_TRIAL = {"calibration"}
MADE_BY_A_TRIAL = {"adapter", "model", "answers", "evaluation"}
JOB_SECONDS = 900
LARGEST_UPLOAD = 10_000_000

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent

# Prints, for a task on each node, where the package and the standard library's `platform` come from.
WHERE = """
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

@ray.remote(num_cpus=0)
def where():
    import platform
    import biomechgpt
    return biomechgpt.__file__, platform.system()

ray.init(logging_level="ERROR")
for node in ray.nodes():
    print("on a node:", *ray.get(where.options(scheduling_strategy=On(node["NodeID"], soft=False)).remote()))
"""


class Cluster:
    """Two nodes of one CPU each, made by `ray start`, apart from any other Ray on this machine."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        """folder: of both nodes' files, short enough for Unix sockets; environment: the nodes' own."""
        self.folder, self.dashboard = folder, free_port()
        self.environment = environment
        self.nodes: list[Node] = []

    def start(self) -> None:
        options = ("--dashboard-host=127.0.0.1", f"--dashboard-port={self.dashboard}")
        head = Node(self.folder / "node0", *options, environment=self.environment)
        self.nodes.append(head)
        head.wait()
        self.nodes.append(Node(self.folder / "node1", environment=self.environment, joins=head.address))
        self.nodes[1].wait()
        until = time.monotonic() + 60
        while self.alive() < 2:
            assert time.monotonic() < until, "the dashboard shows fewer than two nodes"
            time.sleep(0.2)

    def alive(self) -> int:
        try:
            nodes = json.loads(self.get("/nodes?view=summary"))["data"]["summary"]
        except (OSError, KeyError):
            return 0
        return sum(node["raylet"].get("state") == "ALIVE" for node in nodes)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.dashboard}"

    def get(self, path: str, token: str = TOKEN) -> str:
        request = urllib.request.Request(self.address + path, headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.read().decode()

    def submit(self, name: str, *entrypoint: str, **environment: str) -> tuple[int, str]:
        """`ray job submit` as infra/README.md has it; its exit status and output, after the job's end."""
        command = [
            *(BIN / "ray", "job", "submit", "--address", self.address, "--submission-id", name),
            *("--runtime-env", "infra/runtime_env.yaml", "--working-dir", ".", "--", *entrypoint),
        ]
        # Whoever submits has neither the nodes' credentials nor their token.
        own = {k: v for k, v in self.environment.items() if not k.startswith(("AWS_", "RAY_"))}
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=own | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=JOB_SECONDS,
        )
        return done.returncode, done.stdout

    def log(self, name: str) -> list[str]:
        """The lines that a job printed itself: its workers' come in brackets, and when they please."""
        lines = json.loads(self.get(f"/api/jobs/{name}/logs"))["logs"].splitlines()
        return [line for line in lines if not line.startswith("(")]

    def stop(self) -> None:
        """End what `start` started, and only that: another Ray may run here."""
        kill_all_of(self.folder)
        for node in self.nodes:
            node.popen.wait(timeout=10)


@pytest.fixture(scope="module")
def bucket():
    """The AWS_* variables of an S3 server with the bucket `submitted`."""
    import boto3

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    access = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=endpoint, **access).create_bucket(Bucket="submitted")
    yield {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    server.stop()


@pytest.fixture(scope="module")
def cluster(bucket):
    # Not pytest's own folder: the path of a Unix socket has at most 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    (folder / "token").write_text(TOKEN)
    # This process may have a Ray of its own, and has an import path that a cluster has not.
    inherited = {k: v for k, v in without_ray().items() if not k.startswith("AWS_") and k != "PYTHONPATH"}
    environment = inherited | {
        **bucket,
        "HOME": str(folder),  # nobody's ~/.ray/auth_token
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
        "RAY_USAGE_STATS_ENABLED": "0",
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
    }
    cluster = Cluster(folder, environment)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def shared(tiny, bucket):
    """On S3 lies what the tiny run made: all that trials share, and the calibration of the first trial's model.

    So the trial trains, makes its model and answers test questions, but it does not answer those of validation.
    """
    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=bucket["AWS_ENDPOINT_URL"],
        aws_access_key_id=bucket["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=bucket["AWS_SECRET_ACCESS_KEY"],
        region_name=bucket["AWS_DEFAULT_REGION"],
    )
    for kind in SHARED_BY_TRIALS | FOUND_BY_A_TRIAL:
        for path in Path(tiny.made(kind).uri).rglob("*"):
            if path.is_file():
                client.upload_file(str(path), "submitted", path.relative_to(tiny.root.parent).as_posix())


@pytest.mark.timeout(1200)
def test_submitted_job_leaves_its_artifact_on_s3(cluster, bucket, shared, monkeypatch):
    import boto3

    from biomechgpt.core.s3 import PatientS3

    status, output = cluster.submit("job", "python", *JOB, "--root", "s3://submitted/artifacts", **WITH_TOKEN)
    assert status == 0, output
    assert "Job 'job' succeeded" in output
    label, uri = cluster.log("job")[-1].split(" ", 1)
    assert label == "artifact:"
    assert uri.startswith("s3://submitted/artifacts/")
    for name, value in bucket.items():
        monkeypatch.setenv(name, value)
    made = artifact.load(uri, KIND, verify=True)
    (trial,) = made.read_json("trials.json")
    assert trial["error"] is None
    assert artifact.load(trial["runs"][0]["model"], "model", verify=True).provenance == "synthetic"
    # The trial made its own artifacts there, and made nothing again that lay there.
    listed = boto3.client("s3", endpoint_url=bucket["AWS_ENDPOINT_URL"]).list_objects_v2(Bucket="submitted")
    paths = [entry["Key"].split("/") for entry in listed["Contents"]]
    kinds = [path[1] for path in paths if path[3:] == ["manifest.json"]]
    assert sorted(kinds) == sorted([*SHARED_BY_TRIALS, *FOUND_BY_A_TRIAL, *MADE_BY_A_TRIAL, KIND])
    PatientS3.clear_instance_cache()


def test_every_node_runs_the_uploaded_code(cluster):
    status, output = cluster.submit("where", "python", "-c", WHERE, **WITH_TOKEN)
    assert status == 0, output
    found = [line.split()[-2:] for line in cluster.log("where") if line.startswith("on a node:")]
    uploads = sorted(Path(module).parents[2] for module, _ in found)
    assert [upload.relative_to(cluster.folder).parts[0] for upload in uploads] == ["node0", "node1"]
    assert {upload.parent.name for upload in uploads} == {"working_dir_files"}
    # platform/ on the import path does not hide the standard library's module.
    assert {system for _, system in found} == {"Linux"}
    for upload in uploads:
        names = {path.name for path in upload.iterdir()}
        assert {"platform", "jobs", "configs", "serve"} <= names
        assert not names & {".git", ".venv", "results", "tests", "benchmarks"}
        assert not (upload / "serve" / "page").exists()
        assert sum(path.stat().st_size for path in upload.rglob("*") if path.is_file()) < LARGEST_UPLOAD


def test_nothing_is_submitted_without_the_token(cluster):
    status, output = cluster.submit("refused", "python", "-c", "print('ran')")
    assert status != 0
    assert "Missing authentication token" in output
    with pytest.raises(urllib.error.HTTPError) as wrong:
        cluster.get("/api/jobs/", token="another")
    assert wrong.value.code == 403
    assert "refused" not in cluster.get("/api/jobs/")
