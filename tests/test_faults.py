"""Faults of a cluster of three nodes without a shared disk: a lost node, a killed data actor, a full object store.

Each node is a `ray start` of its own, with temporary and cache folders of its own. Artifacts are on S3. What is
made under a fault has the bytes of what the tiny run made undisturbed. docs/faults.md has all faults and tests.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from biomechgpt.core import artifact, storage
from conftest import ROOT, printed_uri
from ray_nodes import WITH_TOKEN, Node, without_ray

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("tiny")]
TINY = ["--config", "configs/experiments/tiny.yaml"]
LONGEST_S = 300
RAY = {
    # A node that does not answer for three seconds is lost.
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 3,
    # Objects go to disk as soon as there are any, as on a node whose memory is full.
    "object_spilling_threshold": 0.0,
    "min_spilling_size": 1,
}


class Cluster:
    """Three nodes."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.spilled = folder, False
        self.environment = without_ray() | WITH_TOKEN | {"RAY_worker_niceness": "0"}
        head = ("--include-dashboard=false", f"--system-config={json.dumps(RAY)}")
        self.nodes = [Node(folder / "node0", *head, environment=self.environment)]
        self.address = self.nodes[0].address
        try:
            self.nodes[0].wait()
            self.add("node1", "node2")
        except BaseException:
            self.stop()
            raise

    def add(self, *names: str) -> None:
        """Further nodes join."""
        for name in names:
            self.nodes.append(Node(self.folder / name, environment=self.environment, joins=self.address))
        for node in self.nodes:
            node.wait()

    def stop(self) -> None:
        for node in reversed(self.nodes):
            node.kill()

    def run(self, script: str, *arguments: str, during: Callable[[], bool]) -> str:
        """The output of a script of jobs/. `during` is called all the time until it is true: then a fault happened.

        Asserts that the job ends well, and that the fault happened before.
        """
        command = [sys.executable, f"jobs/{script}.py", *TINY, *arguments]
        environment = (
            os.environ
            | WITH_TOKEN
            | {
                "RAY_ADDRESS": self.address,
                "MLFLOW_TRACKING_URI": f"sqlite:///{self.folder}/mlflow.db",
                "BIOMECHGPT_CACHE": str(self.folder / "driver-cache"),
            }
        )
        log, done, deadline = self.folder / f"{script}.log", False, time.monotonic() + LONGEST_S
        with log.open("w") as file:
            job = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT)
            while job.poll() is None and time.monotonic() < deadline:
                done = done or during()
                # Whether an object was on a disk at any time.
                self.spilled |= any(self.folder.glob("node*/ray/session_*/ray_spilled_objects_*/*"))
                time.sleep(0.1)
        if job.poll() is None:
            job.kill()
        assert job.wait() == 0, log.read_text()
        assert done, f"the job ended before the fault: {log.read_text()}"
        return log.read_text()


@pytest.fixture(scope="module")
def folder():
    # Not pytest's own folder: the path of a Unix socket has at most 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def cluster(folder, bucket):
    """Its nodes know the bucket's server."""
    cluster = Cluster(folder / f"cluster{random.randrange(10**6)}")
    yield cluster
    cluster.stop()


def same_files(one: artifact.Artifact, other: artifact.Artifact) -> bool:
    """Whether two artifacts have the same fingerprint and the same bytes."""
    assert one.fingerprint == other.fingerprint
    return bool(one.manifest["files"] == other.manifest["files"])


def test_a_lost_node_a_killed_data_actor_and_a_full_object_store_change_no_byte(cluster, bucket, tiny):
    def lose_a_node() -> bool:
        """Kill a node that simulates people and is not the head, after it began."""
        for node in cluster.nodes[1:]:
            if node.workers("ray::Map("):
                time.sleep(1.0)  # within its work
                node.kill()
                cluster.nodes.remove(node)
                return True
        return False

    printed = cluster.run("build_cohort", "--root", bucket, during=lose_a_node)
    made = artifact.load(printed_uri(printed), "cohort", verify=True)
    assert same_files(made, tiny.made("cohort"))

    # The next job starts on two nodes, and a third joins.
    cluster.add("node3")
    tokenizer = tiny.made("tokenizer")
    storage.upload(artifact.local_copy(tokenizer.uri), f"{bucket}/tokenizer/{tokenizer.fingerprint}")

    def kill_an_actor() -> bool:
        for node in cluster.nodes:
            for worker in node.workers("ray::MapWorker(Map(_EncodeShard))"):
                worker.kill()
                return True
        return False

    printed = cluster.run("tokenize_cohort", "--root", bucket, during=kill_an_actor)
    tokens = artifact.load(printed_uri(printed), "tokens", verify=True)
    assert same_files(tokens, tiny.made("tokens"))
    assert cluster.spilled
