"""Faults on purpose, and what is left: mixed artifacts, builds lost in an outage, faults survived, one CPU.

    python benchmarks/faults.py                 # two processes; about ten minutes on two idle cores
    python benchmarks/faults.py --ray 25        # of the 50 kills, 25 with two Ray clusters on one root

The last line is JSON. The faults are the rows of the table in docs/faults.md; each row's tests are run.
"""

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
TESTS = ROOT / "tests"
BIN = Path(sys.executable).parent
KILLS, OUTAGES = 50, 10
OUTAGE_S = 20.0
sys.path[:0] = [str(TESTS), str(TESTS / "core")]

from ports import free_port  # noqa: E402
from ray_nodes import WITH_TOKEN, Node, without_ray  # noqa: E402


def mixed_artifacts(on_ray: int) -> int:
    """How many of 50 artifacts are not of one writer. Of two writers, one is killed and started again."""
    import test_lease

    mixed = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clusters: dict[str, Node] = {}
        try:
            for who in "AB" if on_ray else "":
                clusters[who] = start_ray(folder / f"ray{who}")
            each = {who: {"RAY_ADDRESS": node.address, **WITH_TOKEN} for who, node in clusters.items()}
            for seed in range(KILLS):
                there = each if seed < on_ray else None
                owners = test_lease.kill_one_of_two(str(folder / "root"), seed, folder, there)
                mixed += len(owners) != 1
                print(f"kill {seed + 1} of {KILLS}: {mixed} mixed", flush=True)
        finally:
            for node in clusters.values():
                node.kill()
    return mixed


def start_ray(folder: Path) -> Node:
    """The only node, of one CPU, of a Ray cluster apart from any other."""
    node = Node(folder, "--include-dashboard=false", environment=without_ray() | WITH_TOKEN)
    try:
        node.wait()
    except AssertionError:
        node.kill()
        raise
    return node


def outage_lost() -> int:
    """How many of 10 builds on S3 fail or are wrong when the server hangs for 20 s at some moment of each."""
    import boto3

    from biomechgpt.core import artifact, storage

    port = free_port()
    server = subprocess.Popen(
        [BIN / "moto_server", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    time.sleep(10)
    boto3.client("s3").create_bucket(Bucket="faults")
    lost, drawn = 0, random.Random(0)

    def hang(after_s: float) -> None:
        time.sleep(after_s)
        server.send_signal(signal.SIGSTOP)
        time.sleep(OUTAGE_S)
        server.send_signal(signal.SIGCONT)

    def build(uri: str) -> dict[str, int]:
        for i in range(50):
            storage.write_bytes(storage.join(uri, f"{i}.bin"), bytes([i]) * 1000)
            time.sleep(0.05)
        return {}

    try:
        for i in range(OUTAGES):
            outage = threading.Thread(target=hang, args=(drawn.uniform(0, 4),))
            outage.start()
            try:
                made = artifact.make(
                    "thing", 1, {"i": i}, {}, build, "s3://faults/root", provenance="synthetic"
                )
                artifact.load(made.uri, verify=True)
            except Exception as error:
                lost += 1
                print(f"outage {i + 1}: {error}", flush=True)
            outage.join()
            print(f"outage {i + 1} of {OUTAGES}: {lost} lost", flush=True)
    finally:
        server.kill()
    return lost


def survived() -> tuple[int, int]:
    """(rows of the table of faults whose tests pass, rows)."""
    rows = re.findall(
        r"^\|.*\|([^|]*`tests/[^|]*)\|$", (ROOT / "docs" / "faults.md").read_text(), re.MULTILINE
    )
    tests = [tuple(re.findall(r"`(tests/[^`]+)`", row)) for row in rows]
    passes = {}
    for some in dict.fromkeys(tests):  # rows may share a test
        done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-x", *some], cwd=ROOT, check=False)
        passes[some] = done.returncode == 0
    return sum(passes[some] for some in tests), len(rows)


def one_cpu_seconds() -> float:
    """Seconds of the tiny experiment on a cluster of one node with one CPU."""
    folder = Path(tempfile.mkdtemp())
    node = start_ray(folder / "ray")
    started = time.monotonic()
    try:
        command = [sys.executable, "jobs/pipeline.py", "--config", "configs/experiments/tiny.yaml"]
        command += ["--root", str(folder / "artifacts"), "--output", str(folder / "out")]
        environment = os.environ | WITH_TOKEN
        environment |= {"RAY_ADDRESS": node.address, "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/m.db"}
        subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=3600)
    finally:
        node.kill()
        shutil.rmtree(folder, ignore_errors=True)
    return round(time.monotonic() - started, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ray", type=int, default=0, help="kills with two Ray clusters on one root")
    parser.add_argument("--skip", nargs="*", default=[], choices=("kills", "outages", "faults", "one_cpu"))
    options = parser.parse_args()
    result: dict[str, float] = {}
    if "kills" not in options.skip:
        result |= {
            "mixed_artifacts": mixed_artifacts(options.ray),
            "kills": KILLS,
            "kills_on_ray": options.ray,
        }
    if "outages" not in options.skip:
        result |= {"outage_lost": outage_lost(), "outages": OUTAGES}
    if "faults" not in options.skip:
        passed, faults = survived()
        result |= {"faults_survived": passed, "faults": faults}
    if "one_cpu" not in options.skip:
        result["one_cpu_seconds"] = one_cpu_seconds()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
