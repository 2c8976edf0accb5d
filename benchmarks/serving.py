"""The server beside a plain FastAPI process that generates question by question: same model, same load, one run.

    python benchmarks/serving.py [--model URI] [--seconds 15] [--clients 1 8 32 128]

Each client sends a recording with all tasks that the language model answers, and sends the next when it has the
answer. A client that is refused comes back after `Retry-After`; the wait counts. Recordings differ from request to
request. Without --model it serves what `make serve` would; the plain process needs the same model's URI.

Prints a line for each load, and one line of JSON at the end:

ready_s: seconds from the start of the process to the first answer.
rps, p50_s, p95_s, p99_s: {clients: requests a second, and times} of the server; `plain_` before it: of the process.
refused: {clients: requests that were refused, each try}.
memory_mb, plain_memory_mb: memory of all processes (PSS) at the largest load.
rps_ratio_vs_plain: requests a second of the server over those of the process, at `ratio_clients` clients: the load
    with the best ratio, of those where the server's p95 is not above the process's.
load: load average before the start.
"""

import argparse
import json
import os
import secrets
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import psutil

from serve import examples
from serve.main import LocalSettings, choose_bundle

LONGEST_S = 300.0
"""Longest wait for one answer, and for a start."""


def free_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Recordings:
    """Recordings that differ from each other: the first 300 have contents of their own."""

    def __init__(self) -> None:
        names = [example["name"] for example in examples.listed()]
        self.contents = [(name, examples.mot(name)) for name in names if "walking" in name]
        self.numbers = count()

    def next(self) -> tuple[str, bytes]:
        number = next(self.numbers)
        name, text = self.contents[number % len(self.contents)]
        head, rows = text.split("endheader\n", 1)
        names, *lines = rows.splitlines()
        # Without some of its first frames, a recording has other tokens.
        return name, "\n".join(
            [head + "endheader", names, *lines[number // len(self.contents) % 60 :]]
        ).encode()


def measured(ask: Callable[[], int], clients: int, seconds: float) -> dict[str, Any]:
    """Requests a second, and times, while so many clients keep asking for some seconds.

    ask: sends a request, and returns how often it was refused before its answer.
    """
    times_s: list[float] = []
    refused: list[int] = []
    begin = time.perf_counter()

    def keep_asking(_: int) -> None:
        while time.perf_counter() - begin < seconds:
            began = time.perf_counter()
            refused.append(ask())
            times_s.append(time.perf_counter() - began)

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(keep_asking, range(clients)))
    took_s = time.perf_counter() - begin  # until the last answer, so that none is left out
    cuts = statistics.quantiles(times_s, n=100) if len(times_s) > 1 else times_s * 99
    return {
        "rps": round(len(times_s) / took_s, 2),
        "p50_s": round(cuts[49], 2),
        "p95_s": round(cuts[94], 2),
        "p99_s": round(cuts[98], 2),
        "refused": sum(refused),
    }


def memory_mb(process: psutil.Process) -> float:
    """Memory of a process and its children; what several share counts once."""
    total = 0
    for each in [process, *process.children(recursive=True)]:
        try:
            total += each.memory_full_info().pss
        except psutil.Error:
            continue
    return round(total / 2**20)


class Server:
    """A process that serves, until it is left."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.started = time.perf_counter()
        self.popen = subprocess.Popen(
            command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, start_new_session=True
        )
        self.process = psutil.Process(self.popen.pid)

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self.popen.send_signal(signal.SIGINT)
        try:
            self.popen.wait(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(self.popen.pid, signal.SIGKILL)

    def ready_s(self, ask: Callable[[], int]) -> float:
        """Seconds from its start to the first answer. Raises SystemExit if it ends, or takes too long."""
        while time.perf_counter() - self.started < LONGEST_S:
            if self.popen.poll() is not None:
                raise SystemExit("the server ended before its first answer")
            try:
                ask()
                return round(time.perf_counter() - self.started, 1)
            except httpx.TransportError:
                time.sleep(0.1)
        raise SystemExit("no answer came")


def asks(
    url: str, recordings: Recordings, tasks: str, headers: dict[str, str] | None = None
) -> Callable[[], int]:
    """A request that is made until it is answered. It raises SystemExit after LONGEST_S without an answer."""
    local = threading.local()

    def ask() -> int:
        if not hasattr(local, "client"):
            local.client = httpx.Client(timeout=LONGEST_S, headers=headers)
        recording, refused = recordings.next(), 0
        deadline = time.monotonic() + LONGEST_S
        while time.monotonic() < deadline:
            response = local.client.post(url, files={"recording": recording}, data={"tasks": tasks})
            if response.status_code not in (404, 429, 503):
                response.raise_for_status()
                return refused
            refused += 1
            time.sleep(float(response.headers.get("retry-after", 0.1)))
        raise SystemExit(f"no answer came in {LONGEST_S:.0f} s: {response.status_code}")

    return ask


def tasks_of(model: str) -> str:
    """Tasks about one movement that the language model answers with a label or a number."""
    from biomechgpt.answering.bundle import ModelBundle
    from biomechgpt.questions.tasks import AnnotatedTask, askable

    tasks = ModelBundle(model).parts.tasks
    return ",".join(name for name, task in askable(tasks, 1).items() if isinstance(task, AnnotatedTask))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", help="URI of a model")
    parser.add_argument("--seconds", type=float, default=15, help="of each load")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32, 128])
    options = parser.parse_args()
    model = options.model or choose_bundle(LocalSettings())
    result: dict[str, Any] = {"load": round(os.getloadavg()[0], 2)}
    recordings, tasks, key = Recordings(), tasks_of(model), secrets.token_urlsafe(16)
    python, ports = sys.executable, (free_port(), free_port())
    limits = ["--max_client_requests", "1000", "--client_questions_per_minute", "1e9"]
    server = [python, "-m", "biomechgpt", "serve", "--bundle", model, "--port", str(ports[0]), *limits]
    plain = [python, str(Path(__file__).with_name("plain_server.py")), model, str(ports[1])]
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for prefix, command, path in (
        ("", server, f"http://127.0.0.1:{ports[0]}/v1/answers"),
        ("plain_", plain, f"http://127.0.0.1:{ports[1]}/answers"),
    ):
        ask = asks(path, recordings, tasks, {"Authorization": f"Bearer {key}"})
        with Server(command, {"BIOMECHGPT_API_KEY": key}) as running:
            result[f"{prefix}ready_s"] = running.ready_s(ask)
            found[prefix] = {}
            for clients in options.clients:
                found[prefix][clients] = measured(ask, clients, options.seconds)
                print(f"{prefix or 'server'} {clients}: {found[prefix][clients]}", flush=True)
            result[f"{prefix}memory_mb"] = memory_mb(running.process)
        for name in ("rps", "p50_s", "p95_s", "p99_s", *(() if prefix else ("refused",))):
            result[f"{prefix}{name}"] = {clients: row[name] for clients, row in found[prefix].items()}
    ratios = {
        clients: round(row["rps"] / found["plain_"][clients]["rps"], 2)
        for clients, row in found[""].items()
        if row["p95_s"] <= found["plain_"][clients]["p95_s"]
    }
    best = max(ratios, key=lambda clients: ratios[clients], default=None)
    result |= {
        "rps_ratio_vs_plain": ratios.get(best, 0.0),
        "ratio_clients": best,
        "tasks": len(tasks.split(",")),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
