"""The Ray cluster a job runs on: the one it was submitted to, or a local one. Knows nothing about jobs.

Ray is imported when it is first needed: answering does without.
"""

import hashlib
import logging
import os
import secrets
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from biomechgpt.core import storage
from biomechgpt.core.logs import logger
from biomechgpt.core.settings import InputError

_STARTS = 3
"""How often a local Ray is started before giving up. Ray itself gives up after 30 s, too few on a busy machine."""


def connect(loopback: bool = False) -> None:
    """Join the cluster of RAY_ADDRESS (as `ray job submit` sets it), or start a local one; idempotent.

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
        else:
            # One's own machine is not taken away in mid-training: no process need watch for that.
            os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
            _make_token()
            os.environ[_OWN] = "1"  # before Ray starts, so that its workers have it too
            with _listening_on_loopback() if loopback else nullcontext():
                _start()
            os.environ[_OWN] = ray.get_runtime_context().gcs_address
    quiet()


def _join(address: str) -> None:
    import ray

    try:
        ray.init(logging_level=logging.WARNING, log_to_driver=True)
    except (ConnectionError, RuntimeError, TimeoutError, ray.exceptions.RpcError) as error:
        raise InputError(
            f"RAY_ADDRESS: expected the address of a running Ray cluster, found {address}: {_first_line(error)}"
        ) from error


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


def _start() -> None:
    """Start a local Ray, apart from any other that runs on this machine."""
    import ray

    for attempt in range(1, _STARTS + 1):
        try:
            ray.init(
                # Without it Ray joins whatever cluster `ray start` began on this machine, also another user's.
                address="local",
                # With the dashboard, on loopback: without its state API, Ray Train complains once a second.
                include_dashboard=True,
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


@contextmanager
def build_lock(uri: str) -> Iterator[None]:
    """Hold the lock on building `uri`: other drivers wait. It is released when its driver ends, however it ends.

    Drivers on one machine share a file in its temporary folder. Those of a cluster share no disk, so there a named
    actor is needed as well. It costs a process, so one's own Ray does without.
    """
    if os.environ.get("RAY_ADDRESS"):
        connect()
    with ExitStack() as locks:
        locks.enter_context(_file_lock(uri))
        if is_connected() and not is_own():
            locks.enter_context(_actor_lock(uri))
        yield


@contextmanager
def _file_lock(uri: str) -> Iterator[None]:
    name = hashlib.sha256(uri.encode()).hexdigest()[:16]
    user = os.getuid() if hasattr(os, "getuid") else "user"  # Windows has a temporary folder for each user
    folder = Path(tempfile.gettempdir()) / f"biomechgpt-locks-{user}"
    folder.mkdir(mode=0o700, exist_ok=True)
    lock = FileLock(folder / f"{name}.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        _say_that_another_builds(uri)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _actor_lock(uri: str) -> Iterator[None]:
    """Creating the actor fails while another driver holds it."""
    import ray

    holders: Any = ray.remote(num_cpus=0)(_LockHolder)
    announced = False
    while True:
        try:
            holder = holders.options(name=uri, namespace=_NAMESPACE).remote()
            ray.get(holder.ready.remote())
            break
        except ValueError:  # the name is taken: another driver builds
            if not announced:
                _say_that_another_builds(uri)
            announced = True
            time.sleep(1)
    try:
        yield
    finally:
        ray.kill(holder)


def _say_that_another_builds(uri: str) -> None:
    kind, fingerprint = uri.rsplit("/", 2)[-2:]
    logger.info("%s %s: being built by another, waiting", kind, fingerprint)


_NAMESPACE = "biomechgpt"


class _LockHolder:
    def ready(self) -> bool:
        return True


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
    import ray

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
    import ray

    connect()
    rows = list(items)
    yield from ray.data.from_items(rows, override_num_blocks=min(len(rows), 1000)).map(function).iter_rows()
