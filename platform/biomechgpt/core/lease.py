"""The lease on an artifact: one process at a time has the right to build it. Needs no Ray.

Leases are numbered files beside the artifact: `.lease-FINGERPRINT/1`, `2`, ... Whoever creates the next number,
which only one can, holds the lease. It writes its file again and again. Others take the next number when the holder
has given the lease back, or when its file has not changed for `EXPIRY_S` of their own clock: the clocks of two
machines are never compared. A holder that was only slow finds a higher number than its own, and may not publish.

Processes of one machine also share a lock on a file, which the system releases when its holder dies. So after a
crash the same command goes on at once.
"""

import hashlib
import json
import os
import secrets
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from biomechgpt.core import storage
from biomechgpt.core.logs import logger

EXPIRY_S = 60.0
"""A lease that was not renewed for this long is free."""
_RENEWALS = 4
"""How often a lease is renewed within `EXPIRY_S`."""


class LeaseLostError(Exception):
    """Another process has taken the lease over, so this one must not publish."""


class Lease:
    """The right to build one artifact.

    token: name of this attempt, unique among all.
    former: tokens of the attempts before it that did not finish, newest first.
    """

    def __init__(self, folder: str, number: int, machine: str) -> None:
        self.folder, self.number, self.machine = folder, number, machine
        self.token = secrets.token_hex(4)
        self.former: list[str] = []
        self._renewed, self._ended, self._writing = 0, False, threading.Lock()

    def check(self) -> None:
        """Raise LeaseLostError if another process has taken the lease over."""
        content = _read(self.folder, self.number) or {}
        if max(_numbers(self.folder), default=0) != self.number or content.get("token") != self.token:
            raise LeaseLostError(f"{self.folder}: another process has taken over lease {self.number}")

    def renew(self) -> None:
        """Show the others that this process is alive. Raises LeaseLostError."""
        with self._writing:
            if not self._ended:
                self.check()
                self._renewed += 1
                storage.write_bytes(self._path, self.content())

    def content(self, held: bool = True) -> bytes:
        """Content of the lease's file. Only people read host and process."""
        about = {"token": self.token, "held": held, "renewed": self._renewed, "machine": self.machine}
        return json.dumps({**about, "host": socket.gethostname(), "process": os.getpid()}).encode()

    def remove(self) -> None:
        """Remove all leases of the artifact, as when it is published."""
        with self._writing:
            self._ended = True
            storage.remove(self.folder)

    def give_back(self) -> None:
        """Let others build, who then know of this attempt."""
        with self._writing, suppress(LeaseLostError):
            if not self._ended:
                self._ended = True
                self.check()
                storage.write_bytes(self._path, self.content(held=False))

    @property
    def _path(self) -> str:
        return storage.join(self.folder, str(self.number))


@contextmanager
def hold(uri: str) -> Iterator[Lease]:
    """Hold the lease on the artifact at `uri`; wait for it as long as another process builds."""
    parent, name = uri.rsplit("/", 1)
    with _file_lock(uri) as (machine, lock_file):
        lease = _acquire(storage.join(parent, f".lease-{name}"), machine, uri)
        stop = threading.Event()
        renewal = threading.Thread(target=_keep, args=(lease, stop, lock_file), daemon=True)
        renewal.start()
        try:
            yield lease
        finally:
            stop.set()
            renewal.join()
            with suppress(Exception):  # the storage may be away: then the lease expires
                lease.give_back()


def _acquire(folder: str, machine: str, uri: str) -> Lease:
    seen, since, announced = None, time.monotonic(), False
    while True:
        numbers = _numbers(folder)
        latest = numbers[-1] if numbers else 0
        content = _read(folder, latest) if latest else {"held": False}
        if (latest, content) != seen:
            seen, since = (latest, content), time.monotonic()
        # The lock of this machine is ours, so its holder is dead.
        free = content is not None and (not content.get("held", True) or content.get("machine") == machine)
        if free or time.monotonic() - since > EXPIRY_S:
            lease = Lease(folder, latest + 1, machine)
            if storage.create(storage.join(folder, str(lease.number)), lease.content()):
                before = (_read(folder, number) or {} for number in reversed(numbers))
                lease.former = [entry["token"] for entry in before if "token" in entry]
                return lease
            continue
        if not announced:
            _say_that_another_builds(uri)
        announced = True
        time.sleep(min(2.0, EXPIRY_S / 10))


def _keep(lease: Lease, stop: threading.Event, lock_file: Path) -> None:
    """Renew the lease until it ends."""
    while not stop.wait(EXPIRY_S / _RENEWALS):
        try:
            lease.renew()
            lock_file.touch()  # programs that tidy temporary folders remove old files
        except LeaseLostError:
            logger.warning("%s: another process builds it now, as this one seemed dead", lease.folder)
            return
        except Exception:  # noqa: S112 the storage is away: tried again, until another takes over
            continue


def _numbers(folder: str) -> list[int]:
    return sorted(int(name) for name in storage.list_files(folder) if name.isdecimal())


def _read(folder: str, number: int) -> dict[str, Any] | None:
    """Content of a lease's file; {} while it is being written, None if it is gone."""
    try:
        content = json.loads(storage.read_bytes(storage.join(folder, str(number))))
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


@contextmanager
def _file_lock(uri: str) -> Iterator[tuple[str, Path]]:
    """Hold this machine's lock on `uri`. Yields the machine's name, and the file."""
    name = hashlib.sha256(uri.encode()).hexdigest()[:16]
    user = os.getuid() if hasattr(os, "getuid") else "user"  # Windows has a temporary folder for each user
    folder = Path(tempfile.gettempdir()) / f"biomechgpt-locks-{user}"
    folder.mkdir(mode=0o700, exist_ok=True)
    file = folder / f"{name}.lock"
    lock = FileLock(file)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        _say_that_another_builds(uri)
        lock.acquire()
    try:
        yield _machine(folder), file
    finally:
        lock.release()


def _machine(folder: Path) -> str:
    """Name of all processes that share the locks in this folder."""
    file = folder / "machine"
    with FileLock(folder / "machine.lock"):
        if not file.exists():
            storage.write_bytes(str(file), secrets.token_hex(8).encode())
        return file.read_text()


def _say_that_another_builds(uri: str) -> None:
    kind, fingerprint = uri.rsplit("/", 2)[-2:]
    logger.info("%s %s: being built by another, waiting", kind, fingerprint)
