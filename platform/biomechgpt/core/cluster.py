"""The Ray cluster a job runs on: the one that RAY_ADDRESS names, or a local one. Knows nothing about jobs.

Ray is imported when it is first needed: answering does without.
"""

import logging
import os
import secrets
import socket
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from biomechgpt.core import storage
from biomechgpt.core.code import CHECKOUT
from biomechgpt.core.logs import logger
from biomechgpt.core.settings import InputError, read_yaml

_STARTS = 3
"""How often a local Ray is started before giving up. Ray itself gives up after 30 s, too few on a busy machine."""


def connect(loopback: bool = False) -> None:
    """Join the cluster of RAY_ADDRESS, or start a local one, and say in one line which; idempotent.

    `ray job submit` and infra/slurm set RAY_ADDRESS. `auto` is the cluster that `ray start` began on this machine.
    Without it that cluster is left alone, since it may be another user's.

    loopback: whether a local one listens on loopback with every port, as a server should. Then no other program can
        join it, also none of this machine that was not started by it.
    Raises InputError if the cluster cannot be reached, or if Ray does not start.
    """
    import ray

    if not ray.is_initialized():
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        logging.getLogger("ray._private.authentication.authentication_token_setup").setLevel(logging.ERROR)
        if address := os.environ.get("RAY_ADDRESS"):
            if not is_own():
                _listen_on_every_address()
            _join(address)
            logger.info("cluster: joined Ray at %s: %s", ray.get_runtime_context().gcs_address, _size())
        else:
            # One's own machine is not taken away in mid-training: no process need watch for that.
            os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
            _make_token()
            os.environ[_OWN] = "1"  # before Ray starts, so that its workers have it too
            with _listening_on_loopback() if loopback else nullcontext():
                _start(dashboard=loopback)
            os.environ[_OWN] = ray.get_runtime_context().gcs_address
            others = _started_here()
            hint = f"; RAY_ADDRESS=auto joins the Ray at {others} instead" if others else ""
            logger.info("cluster: started Ray on this machine for this process: %s%s", _size(), hint)
        threading.Thread(target=_say_what_waits, daemon=True).start()
    quiet()


def _join(address: str) -> None:
    import ray

    expected = "RAY_ADDRESS: expected auto, or the HOST:PORT of a running Ray cluster"
    if address.startswith(("http://", "https://")):
        raise InputError(f"{expected}, found {address}: that is an address for `ray job submit`")
    try:
        ray.init(logging_level=logging.WARNING, log_to_driver=True, runtime_env=_runtime_environment())
    except (ray.exceptions.RuntimeEnvSetupError, ValueError) as error:
        raise InputError(
            f"cluster: {CHECKOUT} cannot be sent to the nodes (infra/runtime_env.yaml has excludes): "
            f"{_first_line(error)}"
        ) from error
    except (ConnectionError, RuntimeError, TimeoutError, ray.exceptions.RpcError) as error:
        raise InputError(f"{expected}, found {address}: {_first_line(error)}") from error


_SUBMITTED = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Ray's environment variable in a process that `ray job submit` started."""
_FOLDER = "BIOMECHGPT_FOLDER"
"""Environment variable in workers: the folder in which the job was started."""


def _runtime_environment() -> dict[str, Any] | None:
    """Code, settings and environment that a joined cluster's workers need; None if they have them already.

    A job that was submitted has been sent with its code. A child process of a local Ray shares its machine.
    An installed package must be installed on the nodes too. No credentials: Ray shows them in its dashboard.
    """
    if is_own() or _SUBMITTED in os.environ:
        return None
    sent: dict[str, Any] = {"worker_process_setup_hook": f"{__name__}.prepare_worker"}
    file = CHECKOUT / "infra" / "runtime_env.yaml"
    if file.exists():
        sent |= read_yaml(file) | {"working_dir": str(CHECKOUT)}
    # The code that was sent comes first. What else this process imports from may be on a shared disk.
    own = [str(Path(path).absolute()) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    variables = dict(sent.get("env_vars", {}))
    variables["PYTHONPATH"] = os.pathsep.join([p for p in (variables.get("PYTHONPATH"), *own) if p])
    sent["env_vars"] = {
        **{name: os.environ[name] for name in _ENVIRONMENT},
        **variables,
        _FOLDER: str(Path.cwd()),
    }
    return sent


def prepare_worker() -> None:
    """Run by Ray in each worker of a joined cluster: relative paths mean the same as where the job was started.

    On a node that does not have that folder, the worker stays in the code that was sent.
    """
    # Programs that the worker starts import the same code from any folder.
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.environ["PYTHONPATH"] = os.pathsep.join(str(Path(path).absolute()) for path in paths if path)
    with suppress(OSError):
        os.chdir(os.environ[_FOLDER])


def _size() -> str:
    import ray

    nodes = sum(node["Alive"] for node in ray.nodes())
    total = ray.cluster_resources()
    return f"{nodes} node(s), {total.get('CPU', 0):g} CPU, {total.get('GPU', 0):g} GPU"


def _started_here() -> str | None:
    """Address of the Ray that `ray start` began on this machine, if it answers."""
    from ray._private import utils

    try:
        address = utils.read_ray_address()
        host, _, port = (address or "").rpartition(":")
        with socket.create_connection((host.strip("[]"), int(port)), timeout=1):
            return address
    except (OSError, ValueError):
        return None


_MANY_NODES = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Ray's environment variable: whether nodes on other machines may join. It counts on Linux too."""


@contextmanager
def _listening_on_loopback() -> Iterator[None]:
    """Ray starts with every port on loopback. Where the user has set the variable, it stays as it is.

    Ray 2.60 ignores a loopback `_node_ip_address`, but takes loopback where no other node may join. Its processes
    read that from their environment when they import Ray; this process may have imported it already. The variable
    does not stay in this environment: a child process may join another cluster.
    """
    from ray._private import ray_constants

    if _MANY_NODES in os.environ:
        yield
        return
    ray_constants.ENABLE_RAY_CLUSTER = False
    os.environ[_MANY_NODES] = "0"
    try:
        yield
    finally:
        del os.environ[_MANY_NODES]


def _listen_on_every_address() -> None:
    """Before this process joins a cluster of other machines: they must reach it.

    It may be a worker of a local Ray, whose environment it has, or have started one before.
    """
    from ray._private import ray_constants

    if os.environ.get(_MANY_NODES) == "0":
        del os.environ[_MANY_NODES]
    ray_constants.ENABLE_RAY_CLUSTER = not ray_constants.IS_WINDOWS_OR_OSX


def _start(dashboard: bool = False) -> None:
    """Start a local Ray, apart from any other that runs on this machine.

    dashboard: whether it has one, on loopback. Prometheus finds a server's metrics through it. A job is spared its
        ten processes.
    """
    import ray

    for attempt in range(1, _STARTS + 1):
        try:
            ray.init(
                # Without it Ray joins whatever cluster `ray start` began on this machine, also another user's.
                address="local",
                include_dashboard=dashboard,
                dashboard_host="127.0.0.1",
                logging_level=logging.WARNING,
                # A small object store: blocks stream through it, a cohort never sits in it whole.
                object_store_memory=OBJECT_STORE_BYTES,
            )
            return
        except Exception as error:  # Ray raises a bare Exception if a part of it starts too slowly
            ray.shutdown()
            if attempt == _STARTS:
                raise InputError(
                    f"Ray did not start in {_STARTS} attempts. Other programs may need all of this machine's cores "
                    f"or memory, or its temporary folder (RAY_TMPDIR, else {tempfile.gettempdir()}) may be full or "
                    f"read-only. Ray says: {_first_line(error)}"
                ) from error
            logger.warning("Ray did not start, as on a busy machine (%s): trying again", _first_line(error))


OBJECT_STORE_BYTES = 512 * 1024 * 1024
"""Size of a local Ray's object store. With less in /dev/shm, as in a container, Ray puts it into a file."""


def _make_token() -> None:
    """Give a local Ray an access token that only its owner can read. Ray would write one readable for everybody.

    The token is in the home folder, or in the environment where that cannot be written, as in many containers.
    """
    given = {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(os.environ)
    wanted = not given and os.environ.get("RAY_AUTH_MODE") != "disabled"
    try:
        path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
        if wanted:
            storage.require_writable(str(path))
    except (InputError, RuntimeError):  # RuntimeError: nobody knows where home is
        if wanted:
            os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        return
    with suppress(OSError):  # another person's file
        if path.exists():
            path.chmod(0o600)
        elif wanted:
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:  # noqa: PTH123
                file.write(secrets.token_hex(32))


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


_ENVIRONMENT = {
    "RAY_TRAIN_COLLECTIVE_TIMEOUT_S": "1800",  # a lost worker fails, never hangs
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # it prints every progress line twice
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths of settings mean the same in a Tune trial
    "RAY_COLOR_PREFIX": "0",
}


_OWN = "BIOMECHGPT_OWN_RAY"
"""Environment variable: the address of the Ray that `connect` started, and in that Ray's processes 1."""


def is_own() -> bool:
    """Whether `connect`, here or in the process that this one works for, started Ray on this machine for itself."""
    own = os.environ.get(_OWN)
    return own is not None and os.environ.get("RAY_ADDRESS") in (None, own)


def gpu_of_actor() -> dict[str, Any]:
    """Options of an actor of Ray Data: one GPU, if the cluster has any."""
    import ray

    return {"num_gpus": 1} if ray.cluster_resources().get("GPU", 0) else {}


def is_idle() -> bool:
    """Whether no work holds a core of the cluster."""
    import ray

    return bool(ray.available_resources().get("CPU", 0) >= cpus())


def is_connected() -> bool:
    """Whether this process has joined or started Ray."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


def quiet() -> None:
    """Keep the libraries' notices from drowning our own progress lines."""
    import ray

    warnings.filterwarnings("ignore", category=FutureWarning)
    # First the context: making it configures Ray Data's logging.
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    for name in ("ray.data", "ray.train", "ray.tune", "ray.serve"):
        logging.getLogger(name).setLevel(logging.ERROR if name == "ray.data" else logging.WARNING)


def cpus() -> int:
    """CPUs of the whole cluster."""
    import ray

    return int(ray.cluster_resources().get("CPU", 1))


def cpus_for(workers: int) -> int:
    """CPUs that each of `workers` can have at once: none may need more than a node has."""
    import ray

    largest = max((node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]), default=1)
    return max(1, min(cpus() // workers, int(largest)))


def require(workers: int, cpus_each: int, gpus_each: int) -> None:
    """Raise InputError where the cluster could never hold `workers`: Ray itself would wait for ever."""
    for kind, each in (("CPU", cpus_each), ("GPU", gpus_each)):
        if workers * each > most(kind):
            raise InputError(
                f"cluster: {workers} workers of {each} {kind} need {workers * each}, "
                f"the cluster has {most(kind):g}"
            )


def uses_gpus(accelerator: str) -> bool:
    """Whether work runs on GPUs. accelerator: auto, gpu or cpu. Raises InputError for `gpu` without any."""
    if accelerator == "gpu" and not most("GPU"):
        raise InputError("accelerator: expected a cluster with GPUs, found none: use auto or cpu")
    return accelerator != "cpu" and most("GPU") > 0


def most(kind: str) -> float:
    """The most of a resource (CPU, GPU) that the cluster has or that its autoscaler may add."""
    import ray
    from ray._private.state import state

    later = state.get_max_resources_from_cluster_config() or {}
    return max(float(ray.cluster_resources().get(kind, 0)), float(later.get(kind, 0)))


_WAITED_S = 60.0
"""After this long without any change, a message says what waits for which resource."""


def _say_what_waits() -> None:
    """Log, while this process is connected, what has waited for resources for a minute in which nothing changed."""
    import ray

    since, before, pause = time.monotonic(), "", _WAITED_S
    while ray.is_initialized():
        time.sleep(min(5.0, _WAITED_S / 6))
        with suppress(Exception):  # Ray is being shut down, or the cluster does not answer
            resources = ray.available_resources()
            free = ", ".join(f"{resources.get(kind, 0):g} {kind}" for kind in ("CPU", "GPU"))
            waiting = _waiting()
            now = f"{waiting} {free}"
            if now != before:
                since, before, pause = time.monotonic(), now, _WAITED_S
            elif waiting and time.monotonic() - since > pause:
                nodes = sum(node["Alive"] for node in ray.nodes())
                logger.warning(
                    "cluster: waiting for %.0f s: %s. Free on %d node(s): %s",
                    *(time.monotonic() - since, "; ".join(waiting), nodes, free),
                )
                pause *= 2


def _waiting() -> list[str]:
    """Tasks, actors and groups of workers that wait, each with the resources that it needs."""
    import ray
    from ray._raylet import GcsClient  # type: ignore[attr-defined]  # compiled
    from ray.autoscaler.v2.sdk import get_cluster_resource_state

    state = get_cluster_resource_state(GcsClient(ray.get_runtime_context().gcs_address))
    single = [
        f"{demand.count} tasks or actors of {_named(demand.request.resources_bundle)}"
        for demand in state.pending_resource_requests
    ]
    groups = [
        "a group of " + " and ".join(_named(request.resources_bundle) for request in group.requests)
        for group in state.pending_gang_resource_requests
    ]
    return sorted(single + groups)


def _named(bundle: Mapping[str, float]) -> str:
    """Resources in words, such as `1 CPU + 1 GPU`, without those that Ray names after a group or node."""
    return " + ".join(f"{count:g} {kind}" for kind, count in sorted(bundle.items()) if "_group_" not in kind)


def map_ordered(
    items: Iterable[dict[str, Any]], function: Callable[[dict[str, Any]], dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Apply `function` to every item in parallel Ray tasks; results come in the items' order."""
    import ray

    connect()
    rows = list(items)
    yield from ray.data.from_items(rows, override_num_blocks=min(len(rows), 1000)).map(function).iter_rows()
