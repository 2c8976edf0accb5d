"""Building cohorts of 1x, 4x and 16x trials: peak memory must not grow with them, and how fast it goes.

python benchmarks/speed/cohort.py [--scale 0.03]

Peak memory is private: the driver's and all Ray workers' together, sampled; a fresh Ray for each size.
"""

import argparse
import json
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
import ray

from biomechgpt.cohort import CohortSettings, make_cohort
from biomechgpt.core.logs import log_to_stdout


class Peak:
    """The most private memory, in MB, that this process and its Ray workers had at once while in here."""

    def __enter__(self) -> "Peak":
        self.mb = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        me = psutil.Process()
        while not self._done.wait(0.1):
            total = me.memory_full_info().uss
            for child in me.children(recursive=True):
                with suppress(psutil.Error):
                    # A worker's title is its task (ray::Map...), between tasks ray::IDLE.
                    if child.cmdline()[:1] and child.cmdline()[0].startswith("ray::"):
                        total += child.memory_full_info().uss
            self.mb = max(self.mb, total / 1e6)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--scale", type=float, default=0.03, help="of the paper's cohort: 1x")
    options = parser.parse_args()
    peaks, factors = {}, {}
    print(
        f"{'size':>4} {'trials':>7} {'hours':>6} {'shards':>6} {'seconds':>8} {'x real time':>11} {'peak MB':>8}"
    )
    for size in (1, 4, 16):
        # Small shards, so that every worker has one at 1x already.
        how = CohortSettings(simulator={"scale": size * options.scale}, shard_trials=64)
        with tempfile.TemporaryDirectory() as root, Peak() as peak:
            started = time.perf_counter()
            made = make_cohort(how, root)
            seconds = time.perf_counter() - started
            stored = sum(path.stat().st_size for path in Path(root).rglob("*.parquet"))
            ray.shutdown()
        peaks[f"{size}x"] = round(peak.mb)
        factors[size] = made.metrics["hours"] * 3600 / seconds
        print(
            f"{size:>3}x {made.metrics['trials']:>7} {made.metrics['hours']:>6.2f} {made.metrics['shards']:>6} "
            f"{seconds:>8.1f} {factors[size]:>11.0f} {peak.mb:>8.0f}",
            flush=True,
        )
    print(
        json.dumps(
            {
                "peak_mb": peaks,
                "realtime_factor": round(factors[16]),
                "bytes_a_trial": round(stored / made.metrics["trials"]),
                "cpus": psutil.cpu_count(),
            }
        )
    )


if __name__ == "__main__":
    log_to_stdout()
    main()
