"""Attacks a server as strangers and a greedy client would.

    python -m benchmarks.abuse [--model URI] [--uploads 10000] [--seed 0]

Starts a server on this machine and attacks it. Without a model, the answers come from a stand-in that takes as long
as a small model on a CPU. Keys, readers, limits and queues are those of the real server. Prints what it does, and
one line of JSON at the end:

open_without_key: requests to paths that need a key that were answered without the right one, under three prefixes.
malformed: malformed recordings that were sent; `malformed_5xx` of them gave an error of the server, and
    `malformed_lost` no answer at all. `malformed_s`: seconds they took.
gateway_growth_mb: growth of the gateway's memory meanwhile, at its largest.
healthz_max_s, healthz_p99_s: time of GET /healthz meanwhile.
victim_answered: share of the requests of one client that are answered while another floods the server.
victim_p95_ratio: 95th percentile of their time, over that without the flood.
flood_5xx: errors of the server among the requests of the flood, without 503.
retry_after_true: share of the refused requests of a client that asks too much at once that are let in when they
    come back after `Retry-After`. (A client that floods all the time takes each place from itself.)
failed_in_upgrade: requests, of `upgrade_requests`, that got no answer while a model was replaced, put back, and
    replaced by one that cannot start. The clients ask all the time and do not try again.
answers_sent, unrecorded_answers: answers that all these clients got, and those of them that are not on record. The
    chain of records is checked too.
load: load average of the machine before the start.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import random
import socket
import statistics
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

from benchmarks.malformed import malformed
from biomechgpt.answering.answer import Answer, Unlike
from biomechgpt.motion.statistics import MovementStatistics
from biomechgpt.prompts.encoding import MotionTokens, Query
from biomechgpt.questions.intent import Intent
from biomechgpt.questions.tasks import AnnotatedTask, NumberTask, load_tasks
from biomechgpt.tokenizer.layout import TokenLayout
from serve import app, examples
from serve.clients import add_key
from serve.middleware import OPEN, OPEN_BELOW
from serve.model import Replica, ServedModel
from serve.records import Records
from serve.schema import ModelSummary
from serve.settings import KEY, GatewaySettings

PREFIXES = ("/", "/a", "/a/b")
QUESTION_S = 0.02
"""Time that the stand-in takes for one question."""


class StandIn(Replica):
    """A model that takes its time and knows nothing. It answers one question after the other.

    fails: whether it cannot start, as with a damaged bundle.
    """

    def __init__(self, fingerprint: str = "0" * 64, fails: bool = False) -> None:
        from serve.deployment import listen_on_loopback

        if fails:
            raise ValueError("a damaged bundle")
        listen_on_loopback()
        self.turn = asyncio.Lock()
        self.served = ServedModel(
            summary=ModelSummary(fingerprint=fingerprint, base="stand-in", data="synthetic"),
            tasks=load_tasks(["configs/tasks"]),
            person_tasks=[],
            coverage=0.9,
            max_question_tokens=100,
            frame_rate_hz=30.0,
            layout=TokenLayout(0, 0, (64,)),
            tokenizer="0" * 64,
            max_duration_s=9.0,
            typical_duration_s=9.0,
        )

    async def describe(self) -> ServedModel:
        return self.served

    async def tokenize(self, angles_rad: np.ndarray, joint_mask: np.ndarray, provenance: str) -> MotionTokens:
        seconds = len(angles_rad) / 30
        statistics = MovementStatistics(seconds, 4, distance=0.5, rmse_deg=3.0, provenance=provenance)
        return MotionTokens([1, 2, 3], statistics=statistics)

    async def answer(self, query: Query) -> Answer:
        async with self.turn:
            await asyncio.sleep(QUESTION_S)
        task = self.served.tasks.get(query.task or "")
        checked = Unlike(checked=True, participants=20)
        if not isinstance(task, AnnotatedTask):
            return Answer("Rather slowly.", unlike=checked)
        if isinstance(task, NumberTask):
            return Answer(task.answer(1.0), low=0.5, high=1.5, unlike=checked)
        labels = [str(label) for label in task.answers(["a", "b"])]
        shares = [1 / len(labels)] * len(labels)
        return Answer(task.answer(labels[0]), labels=labels, probabilities=shares, unlike=checked)

    async def recognise(self, question: str, tasks: list[str]) -> Intent:
        return Intent("out_of_scope")

    async def question_lengths(self, questions: list[str]) -> list[int]:
        return [len(question.split()) for question in questions]


def start(model: str | None, keys: str) -> str:
    """Serve under every prefix. Returns http://host:port."""
    from biomechgpt.core import cluster
    from serve.main import start as start_http

    os.environ[KEY] = ""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    cluster.connect()
    start_http("127.0.0.1", port)
    for i in range(len(PREFIXES)):
        deploy(i, keys, model if not i else None)
    return f"http://127.0.0.1:{port}"


def deploy(number: int, keys: str, model: str | None = None, **stand_in: Any) -> None:
    """Serve under the prefix of this number. stand_in: arguments of `StandIn`."""
    from ray import serve

    from serve.deployment import ROLLING

    if model:
        application = app.build({"bundle": model, "keys": keys})
    else:
        bound = serve.deployment(StandIn, name="Model").options(
            max_ongoing_requests=256, ray_actor_options={"num_cpus": 0}, **ROLLING
        )
        application = app.with_gateway(bound.bind(**stand_in), GatewaySettings(keys=keys), None)
    serve.run(application, name=f"app{number}", route_prefix=PREFIXES[number])


class Sent:
    """Counts the answers about recordings that each client got."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.lock = threading.Lock()

    def add(self, key: str, status: int) -> None:
        if status == 200:
            with self.lock:
                self.counts[key] += 1


SENT = Sent()


def unrecorded_answers(uri: str, names: dict[str, str]) -> dict[str, int]:
    """Answers that were sent and are not on record. names: {key: name of its client}."""
    records = Records(uri)
    records.verify()
    recorded = Counter(row.client for row in records.rows() if row.outcome == "0")
    missing = sum(max(0, count - recorded[names[key]]) for key, count in SENT.counts.items())
    return {"answers_sent": SENT.counts.total(), "unrecorded_answers": missing}


def open_without_key(url: str, key: str) -> int:
    """Requests that were answered though they had no right key."""
    paths = httpx.get(f"{url}/openapi.json", headers=bearer(key), timeout=60).json()["paths"]
    table = [
        (method.upper(), path.replace("{name}", "x.mot"))
        for path, methods in paths.items()
        for method in methods
        if path not in OPEN and not path.startswith(OPEN_BELOW)
    ]
    table += [
        ("GET", path) for path in ("/openapi.json", "/docs", "/v1", "/v1/", "//v1/model", "/%2e/v1/model")
    ]
    opened = 0
    with httpx.Client(timeout=60) as client:
        for prefix in PREFIXES:
            for method, path in table:
                for headers in ({}, bearer("wrong"), {"Authorization": key}, bearer(key[:-1])):
                    status = client.request(
                        method, url + prefix.rstrip("/") + path, headers=headers
                    ).status_code
                    opened += status not in (401, 404) or (
                        status == 404 and "%2e" not in path and "//" not in path
                    )
    return opened


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


class Watch:
    """Asks /healthz ten times a second, and looks at the memory of the gateways, until it is left."""

    def __init__(self, url: str) -> None:
        self.url, self.times_s, self.largest, self.stopped = url, [], 0, threading.Event()
        self.processes = [p for p in psutil.process_iter() if is_gateway(p)]
        self.before = self.memory()

    def memory(self) -> int:
        return max((p.memory_info().rss for p in self.processes), default=0)

    def __enter__(self) -> "Watch":
        self.threads = [threading.Thread(target=run) for run in (self._ask, self._look)]
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        for thread in self.threads:
            thread.join()

    def _ask(self) -> None:
        with httpx.Client(timeout=60) as client:
            client.get(f"{self.url}/healthz")
            while not self.stopped.wait(0.1):
                begin = time.perf_counter()
                client.get(f"{self.url}/healthz").raise_for_status()
                self.times_s.append(time.perf_counter() - begin)

    def _look(self) -> None:
        while not self.stopped.wait(0.05):
            self.largest = max(self.largest, self.memory())

    @property
    def growth_mb(self) -> float:
        return (self.largest - self.before) / 2**20


def is_gateway(process: psutil.Process) -> bool:
    try:
        return "ServeReplica" in " ".join(process.cmdline()) and "Gateway" in " ".join(process.cmdline())
    except psutil.Error:
        return False


def send_malformed(url: str, key: str, count: int, seed: int) -> dict[str, Any]:
    """Send malformed recordings with four connections."""
    for _ in range(3):  # what is loaded at the first use is no growth
        upload(url, key, *example(), path="/v1/motions")
    statuses: list[int] = []
    begin = time.perf_counter()

    def send(part: int) -> None:
        chance = random.Random(f"{seed} {part}")
        with httpx.Client(timeout=120, headers=bearer(key)) as client:
            for _ in range(count // 4):
                name, content = malformed(chance)
                path = chance.choice(("/v1/motions", "/v1/answers", "/fhir/$answer-motion"))
                try:
                    response = client.post(
                        url + path, files={"recording": (name, content)}, data={"tasks": "activity"}
                    )
                    statuses.append(response.status_code)
                    SENT.add(key, response.status_code)
                    if response.status_code >= 500 and response.status_code != 503:
                        print(f"{response.status_code} for {name} (seed {seed}, part {part})")
                except httpx.HTTPError as error:
                    print(f"lost: {name}: {type(error).__name__}")
                    statuses.append(0)

    with Watch(url) as watch, ThreadPoolExecutor(4) as pool:
        list(pool.map(send, range(4)))
    seconds = time.perf_counter() - begin
    print("statuses:", {status: statuses.count(status) for status in sorted(set(statuses))})
    return {
        "malformed": len(statuses),
        "malformed_5xx": sum(status >= 500 for status in statuses),
        "malformed_lost": statuses.count(0),
        "malformed_s": round(seconds, 1),
        "gateway_growth_mb": round(watch.growth_mb, 1),
        "healthz_max_s": round(max(watch.times_s), 3),
        "healthz_p99_s": round(statistics.quantiles(watch.times_s, n=100)[-1], 3),
    }


def example() -> tuple[str, bytes]:
    name = next(e["name"] for e in examples.listed() if "walking" in e["name"])
    return name, examples.mot(name).encode()


def upload(
    url: str,
    key: str,
    name: str,
    content: bytes,
    path: str = "/v1/answers",
    tasks: str = "all",
    client: httpx.Client | None = None,
) -> httpx.Response:
    response = (client or httpx).post(
        url + path,
        files={"recording": (name, content)},
        data={"tasks": tasks},
        headers=bearer(key),
        timeout=120,
    )
    SENT.add(key, response.status_code)
    return response


def keep_flooding(url: str, key: str, connections: int, began: Any, stopped: Any, sent: Any) -> None:
    """Keep many connections busy until told to stop, in a process of its own, which gives way to the server.

    began: event that is set after the first answer.
    sent: queue that gets the statuses (0: no answer), and the number of answers.
    """
    os.nice(10)  # a real one has a machine of its own
    recording = example()
    statuses: list[int] = []

    def keep_asking(_: int) -> None:
        with httpx.Client() as client:
            while not stopped.is_set():
                try:
                    statuses.append(upload(url, key, *recording, client=client).status_code)
                except httpx.HTTPError:
                    statuses.append(0)
                began.set()
                if statuses[-1] != 200:
                    stopped.wait(0.05)

    with ThreadPoolExecutor(connections) as pool:
        list(pool.map(keep_asking, range(connections)))
    sent.put((statuses, SENT.counts[key]))


def come_back(url: str, key: str, connections: int) -> dict[str, Any]:
    """One client asks too much at once, three times. Whoever is refused comes back when it was told to."""
    recording = example()

    def ask(_: int) -> bool | None:
        with httpx.Client() as client:
            response = upload(url, key, *recording, client=client)
            if "retry-after" not in response.headers:
                return None
            time.sleep(float(response.headers["retry-after"]))
            return upload(url, key, *recording, client=client).status_code == 200

    let_in: list[bool | None] = []
    with ThreadPoolExecutor(connections) as pool:
        for _ in range(3):
            let_in += pool.map(ask, range(connections))
            time.sleep(5)
    refused = [one for one in let_in if one is not None]
    print(f"came back: {len(refused)} of {len(let_in)}, let in {sum(refused)}")
    return {"retry_after_true": round(sum(refused) / len(refused), 3) if refused else None}


def flood(url: str, victim: str, flooder: str, requests: int, connections: int) -> dict[str, Any]:
    """A client asks now and then while another keeps many connections busy."""
    recording = example()
    context = multiprocessing.get_context("spawn")
    began, stopped, sent = context.Event(), context.Event(), context.Queue()

    with httpx.Client() as client:

        def ask() -> tuple[int, float]:
            begin = time.perf_counter()
            response = upload(url, victim, *recording, client=client)
            return response.status_code, time.perf_counter() - begin

        for _ in range(3):
            ask()
        alone = [seconds for _, seconds in (ask() for _ in range(requests))]
        process = context.Process(
            target=keep_flooding, args=(url, flooder, connections, began, stopped, sent), daemon=True
        )
        process.start()
        if not began.wait(120):
            raise RuntimeError("the flood did not begin in two minutes")
        time.sleep(3)
        during = [ask() for _ in range(requests)]
        stopped.set()
    statuses, answered = sent.get(timeout=240)
    process.join()
    SENT.counts[flooder] += answered
    print("flood:", {status: statuses.count(status) for status in sorted(set(statuses))})
    print(
        "victim:", {status: [s for s, _ in during].count(status) for status in sorted({s for s, _ in during})}
    )

    def p95(times_s: list[float]) -> float:
        return statistics.quantiles(times_s, n=20)[-1]

    return {
        "victim_answered": round(sum(status == 200 for status, _ in during) / len(during), 3),
        "victim_p95_s": [round(p95(alone), 3), round(p95([s for _, s in during]), 3)],
        "victim_p95_ratio": round(p95([s for _, s in during]) / p95(alone), 2),
        "flood_5xx": sum(status >= 500 and status != 503 for status in statuses),
    }


def upgrade(url: str, key: str, keys: str, clients: int = 3) -> dict[str, Any]:
    """Replace a model while clients ask."""
    recording, last = example(), len(PREFIXES) - 1
    stopped = threading.Event()
    statuses: list[int | str] = []

    def keep_asking(_: int) -> None:
        while not stopped.is_set():
            try:
                response = upload(url + PREFIXES[last], key, *recording, tasks="activity,cadence")
                statuses.append(response.status_code)
            except httpx.HTTPError as error:
                statuses.append(type(error).__name__)

    with ThreadPoolExecutor(clients) as pool:
        futures = [pool.submit(keep_asking, part) for part in range(clients)]
        try:
            for fingerprint in ("1" * 64, "0" * 64):
                deploy(last, keys, fingerprint=fingerprint)
                time.sleep(2)
            try:
                deploy(last, keys, fingerprint="1" * 64, fails=True)
            except RuntimeError:
                print("the damaged model was not served")
            time.sleep(2)
        finally:
            stopped.set()  # else the threads would go on asking, and an error would never end
        for future in futures:
            future.result()
    print("upgrade:", Counter(statuses))
    return {
        "upgrade_requests": len(statuses),
        "failed_in_upgrade": sum(status != 200 for status in statuses),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", help="URI of a model (default: a stand-in)")
    parser.add_argument("--uploads", type=int, default=10_000)
    parser.add_argument("--requests", type=int, default=30, help="of the client that another one disturbs")
    parser.add_argument("--connections", type=int, default=24, help="of the client that floods")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        keys = Path(folder) / "keys.json"
        victim, flooder, stranger = (add_key(keys, name, 1) for name in ("victim", "flooder", "stranger"))
        url = start(options.model, str(keys))
        result: dict[str, Any] = {"open_without_key": open_without_key(url, victim)}
        print(result)
        result |= flood(url, victim, flooder, options.requests, options.connections)
        result |= come_back(url, flooder, options.connections)
        print(result)
        result |= upgrade(url, flooder, str(keys))
        print(result)
        result |= send_malformed(url, stranger, options.uploads, options.seed)
        database = GatewaySettings(keys=str(keys)).database_uri or ""
        names = {victim: "victim", flooder: "flooder", stranger: "stranger"}
        result |= unrecorded_answers(database, names)
        result |= {"load": round(load, 2), "model": options.model or "stand-in"}
        from ray import serve

        serve.shutdown()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
