"""The Ray cluster a job runs on: the one it was submitted to, or a local one. Knows nothing about jobs."""

import logging
import os
import warnings

import ray

from biomechgpt.settings import InputError


def connect() -> None:
    """Join the cluster of RAY_ADDRESS (as `ray job submit` sets it), or start a local one; idempotent."""
    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_TRAIN_COLLECTIVE_TIMEOUT_S", "1800")  # a lost worker fails, never hangs
    os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")  # it prints every progress line twice
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if os.environ.get("RAY_ADDRESS"):
        ray.init(logging_level=logging.WARNING, log_to_driver=True)
    else:
        # A small object store: blocks stream through it, a cohort never sits in it whole.
        # With the dashboard, on loopback: without its state API, Ray Train complains once a second.
        ray.init(
            include_dashboard=True,
            dashboard_host="127.0.0.1",
            logging_level=logging.WARNING,
            object_store_memory=512 * 1024 * 1024,
        )
    quiet()


def quiet() -> None:
    """Keep the libraries' notices from drowning our own progress lines."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    for name in ("ray.data", "ray.train", "ray.tune", "ray.serve"):
        logging.getLogger(name).setLevel(logging.WARNING)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True


def cpus() -> int:
    """CPUs of the whole cluster."""
    return int(ray.cluster_resources().get("CPU", 1))


def require(workers: int, cpus_each: int, gpus_each: int) -> None:
    """Raise InputError where the cluster could never hold `workers`: Ray itself would wait for ever."""
    have = ray.cluster_resources()
    for kind, each in (("CPU", cpus_each), ("GPU", gpus_each)):
        if workers * each > have.get(kind, 0):
            raise InputError(
                f"cluster: {workers} workers of {each} {kind} need {workers * each}, "
                f"the cluster has {have.get(kind, 0):g}"
            )
