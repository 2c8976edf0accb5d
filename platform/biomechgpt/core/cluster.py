"""The Ray cluster a job runs on: the one it was submitted to, or a local one. Knows nothing about jobs."""

import logging
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import ray

from biomechgpt.core.logs import logger
from biomechgpt.core.settings import InputError


def connect() -> None:
    """Join the cluster of RAY_ADDRESS (as `ray job submit` sets it), or start a local one; idempotent."""
    if not ray.is_initialized():
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        logging.getLogger("ray._private.authentication.authentication_token_setup").setLevel(logging.ERROR)
        if os.environ.get("RAY_ADDRESS"):
            ray.init(logging_level=logging.WARNING, log_to_driver=True)
        else:
            # One's own machine is not taken away in mid-training: no process need watch for that.
            os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
            # A small object store: blocks stream through it, a cohort never sits in it whole.
            # With the dashboard, on loopback: without its state API, Ray Train complains once a second.
            ray.init(
                include_dashboard=True,
                dashboard_host="127.0.0.1",
                logging_level=logging.WARNING,
                object_store_memory=512 * 1024 * 1024,
            )
    quiet()


_ENVIRONMENT = {
    "RAY_TRAIN_COLLECTIVE_TIMEOUT_S": "1800",  # a lost worker fails, never hangs
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # it prints every progress line twice
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths of settings mean the same in a Tune trial
    "RAY_COLOR_PREFIX": "0",
}


def quiet() -> None:
    """Keep the libraries' notices from drowning our own progress lines."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    # First the context: making it configures Ray Data's logging.
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    for name in ("ray.data", "ray.train", "ray.tune", "ray.serve"):
        logging.getLogger(name).setLevel(logging.ERROR if name == "ray.data" else logging.WARNING)


@contextmanager
def build_lock(uri: str) -> Iterator[None]:
    """Hold the lock on building `uri`: other drivers on the same cluster wait. Without a cluster, no lock.

    The lock is a named actor. Creating it fails while another driver holds it, and it dies with its driver.
    """
    if os.environ.get("RAY_ADDRESS"):
        connect()
    if not ray.is_initialized():
        yield
        return
    announced = False
    while True:
        try:
            holder = _LockHolder.options(name=uri, namespace=_NAMESPACE).remote()  # type: ignore[attr-defined]
            ray.get(holder.ready.remote())
            break
        except ValueError:  # the name is taken: another driver builds
            if not announced:
                kind, fingerprint = uri.rsplit("/", 2)[-2:]
                logger.info("%s %s: being built by another, waiting", kind, fingerprint)
            announced = True
            time.sleep(1)
    try:
        yield
    finally:
        ray.kill(holder)


_NAMESPACE = "biomechgpt"


@ray.remote(num_cpus=0)
class _LockHolder:
    def ready(self) -> bool:
        return True


def cpus() -> int:
    """CPUs of the whole cluster."""
    return int(ray.cluster_resources().get("CPU", 1))


def cpus_for(workers: int) -> int:
    """CPUs that each of `workers` can have at once: none may need more than a node has."""
    largest = max((node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]), default=1)
    return max(1, min(cpus() // workers, int(largest)))


def require(workers: int, cpus_each: int, gpus_each: int) -> None:
    """Raise InputError where the cluster could never hold `workers`: Ray itself would wait for ever."""
    have = ray.cluster_resources()
    for kind, each in (("CPU", cpus_each), ("GPU", gpus_each)):
        if workers * each > have.get(kind, 0):
            raise InputError(
                f"cluster: {workers} workers of {each} {kind} need {workers * each}, "
                f"the cluster has {have.get(kind, 0):g}"
            )


def map_ordered(
    items: Iterable[dict[str, Any]], function: Callable[[dict[str, Any]], dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Apply `function` to every item in parallel Ray tasks; results come in the items' order."""
    connect()
    rows = list(items)
    yield from ray.data.from_items(rows, override_num_blocks=min(len(rows), 1000)).map(function).iter_rows()
