"""One of two writers of an artifact, as a process of its own: `two_writers.py NAME ROOT SEED [SECONDS]`.

It builds an artifact of three files that all say who made them, slowly enough to be killed at any moment. With
SECONDS it waits that long before it publishes: a test stops it there until its lease has expired.
Prints what it did. On a Ray cluster (RAY_ADDRESS) a task writes each file.
"""

import os
import random
import sys
import time

from biomechgpt.core import artifact, lease, storage

FILES = ("a.bin", "folder/b.bin", "c.bin")
EXPIRY_S = 1.0


def write(uri: str, who: str, pause_s: float) -> None:
    time.sleep(pause_s)
    storage.write_bytes(uri, who.encode() * 1000)


def main(name: str, root: str, seed: int, late_s: float = 0) -> None:
    lease.EXPIRY_S = EXPIRY_S
    drawn = random.Random(f"{seed} {name}")
    run = write
    if os.environ.get("RAY_ADDRESS"):
        import ray

        from biomechgpt.core import cluster

        cluster.connect()
        remote = ray.remote(num_cpus=0.1)(write)

        def run(*arguments) -> None:
            ray.get(remote.remote(*arguments))

    def build(uri: str) -> dict:
        who = f"{name}{os.getpid()} "
        print("building", flush=True)
        for file in FILES:
            run(storage.join(uri, file), who, drawn.uniform(0, 0.2))
        if late_s:
            print("late", flush=True)
            time.sleep(late_s)
        return {"made_by": who}

    made = artifact.make("thing", 1, {"seed": seed}, {}, build, root, provenance="synthetic")
    print(made.uri, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), *map(float, sys.argv[4:]))
