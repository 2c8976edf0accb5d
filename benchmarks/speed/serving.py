"""A served bundle: seconds to the first answer, a question's time at one client, and what batching gains.

    python benchmarks/speed/serving.py [--bundle URI] [--questions 40] [--clients 8]

Without --bundle it serves what `make serve` would. The gain is questions a second of many clients over one.
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
import time
from concurrent.futures import ThreadPoolExecutor

import httpx


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--bundle")
    parser.add_argument("--questions", type=int, default=40)
    parser.add_argument("--clients", type=int, default=8)
    options = parser.parse_args()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    key = secrets.token_urlsafe(16)
    command = [sys.executable, "-m", "biomechgpt", "serve", "--port", str(port)]
    if options.bundle:
        command += ["--bundle", options.bundle]
    started = time.perf_counter()
    server = subprocess.Popen(
        command, env={**os.environ, "BIOMECHGPT_API_KEY": key}, stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        for line in server.stdout:
            print(line, end="", flush=True)
            if line.startswith("page:"):
                break
        else:
            raise SystemExit(server.wait())
        client = httpx.Client(
            base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {key}"}, timeout=120
        )
        example = client.get("/v1/examples").json()["examples"][0]["name"]
        recording = (example, client.get(f"/v1/examples/{example}").content)
        tasks = client.get("/v1/model").json()["tasks"]
        whole = {"files": {"recording": recording}, "data": {"tasks": tasks[0]["name"]}}
        client.post("/v1/answers", **whole).raise_for_status()
        first_s = time.perf_counter() - started
        tokens = client.post("/v1/motions", files={"recording": recording}).json()["tokens"]

        def ask(number: int) -> float:
            began = time.perf_counter()
            messages = [{"role": "user", "content": tasks[number % len(tasks)]["question"]}]
            client.post("/v1/chat", json={"tokens": tokens, "messages": messages}).raise_for_status()
            return time.perf_counter() - began

        uploads = []
        for _ in range(10):
            began = time.perf_counter()
            client.post("/v1/answers", **whole).raise_for_status()
            uploads.append(time.perf_counter() - began)
        began = time.perf_counter()
        alone = [ask(i) for i in range(options.questions)]
        alone_s = time.perf_counter() - began
        with ThreadPoolExecutor(options.clients) as pool:
            began = time.perf_counter()
            together = list(pool.map(ask, range(options.questions)))
            together_s = time.perf_counter() - began
        figures = {
            "first_answer_s": round(first_s, 1),
            "p50_s_one_client": round(statistics.median(alone), 3),
            "p50_s_one_client_with_upload": round(statistics.median(uploads), 3),
            f"p50_s_{options.clients}_clients": round(statistics.median(together), 3),
            "gain_of_batching": round(alone_s / together_s, 2),
        }
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(timeout=60)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
