"""Nothing waits in silence: what waits for which resource is said."""

import os
import subprocess
import sys

import pytest

HOLD_AND_WAIT = """
import logging, sys, time
logging.basicConfig(stream=sys.stdout, format="%(message)s")
import ray
from biomechgpt.core import cluster

ray.init(address="local", num_cpus=1, include_dashboard=False, logging_level="ERROR")
cluster._WAITED_S = 3.0

@ray.remote(num_cpus=0.5)
class Holder:
    def ready(self): return True

holder = Holder.remote()
ray.get(holder.ready.remote())
waits = ray.remote(num_cpus=1)(lambda: 1).remote()
import threading
threading.Thread(target=cluster._say_what_waits, daemon=True).start()
print(ray.wait([waits], timeout=15)[1] == [waits])
print(cluster.most("CPU"), cluster.most("GPU"))
"""


@pytest.mark.cluster
def test_after_a_minute_without_change_a_message_says_what_waits():
    done = subprocess.run(
        [sys.executable, "-c", HOLD_AND_WAIT],
        env={k: v for k, v in os.environ.items() if not k.startswith("RAY_")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    message = next(line for line in done.stdout.splitlines() if line.startswith("cluster: waiting for"))
    assert "1 tasks or actors of 1 CPU" in message
    assert message.endswith("Free on 1 node(s): 0.5 CPU, 0 GPU")
    assert done.stdout.splitlines()[-2:] == ["True", "1.0 0.0"]
