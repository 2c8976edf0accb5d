"""Kills processes that answer through the real writer of records, at random moments. Prints what they had sent.

    python audit_killer.py URI FOLDER KILLS SEED

Each process writes a record, then "sends" its number into a file of its own, over and over. Three run at once. The
last line is JSON: the numbers that were sent, one list for each process.
"""

import asyncio
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from serve.audit import Access, AuditLog
from serve.records import Records

AT_ONCE = 3


def answer(uri: str, path: Path) -> None:
    """Answer until killed. The file is written without a buffer: what it holds was sent."""

    async def run() -> None:
        log = AuditLog(Records(uri, 30), 30)
        sent = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for i in range(1_000_000):
            name = f"{path.name}-{i}"
            await log.write(Access(name, "127.0.0.1", "127.0.0.1", "POST", "/v1/answers", status=200))
            os.write(sent, f"{name}\n".encode())

    asyncio.run(run())


def end(process: int) -> None:
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)


def main(uri: str, folder: Path, kills: int, seed: int) -> None:
    chance = random.Random(seed)
    Records(uri, 30).search()  # makes the tables
    running: list[tuple[int, Path]] = []
    for i in range(kills):
        while len(running) < AT_ONCE:
            path = folder / f"p{i}-{len(running)}"
            path.touch()
            if not (process := os.fork()):
                answer(uri, path)
            running.append((process, path))
        process, path = running.pop(chance.randrange(len(running)))
        deadline = time.monotonic() + 60
        while not path.stat().st_size and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(chance.uniform(0.0, 0.1))
        end(process)
    for process, _ in running:
        end(process)
    print(json.dumps([path.read_text().split() for path in sorted(folder.glob("p*"))]))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
