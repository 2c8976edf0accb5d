"""Reads uploads in processes of their own, each with little memory and time.

A small file may unpack to more than memory holds, take hours, or crash a parser. None of this may reach the server.
So a helper process loads the readers once, and forks itself for each upload. The fork gets limits from the kernel,
reads one file, sends the result back and ends:

    server  --control socket: one end of a new pair of sockets-->  helper  --fork-->  reader (limited)
    server  <--------------- the pair: file there, movement back --------------------  reader

The helper has none of the server's environment variables, so no key or credential can leak through a parser. The
answer of a reader is JSON and numbers, never a pickle: a reader that was taken over cannot run code in the server.

Needs fork and resource limits: Linux, or macOS without the limit of memory. Elsewhere `Reader` reads within the
server, without limits.
"""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from biomechgpt.core.logs import logger
from biomechgpt.core.settings import InputError, Settings
from biomechgpt.motion.skeleton import N_JOINTS
from biomechgpt.recordings.upload import TooLarge, Upload, UploadSettings, read

SUPPORTED = os.name == "posix" and hasattr(os, "fork") and hasattr(socket, "send_fds")
"""Whether this system has processes with limits."""
_LENGTH = struct.Struct(">Q")
_MAX_REPLY_BYTES = 64 << 20
_PELVIS = 7
_KEPT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR", "SYSTEMROOT")
"""Environment variables of the server that the helper gets."""
_SINGLE_THREADED = {
    name: "1"
    for name in (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "ARROW_NUM_THREADS",
        "MALLOC_ARENA_MAX",
    )
}
"""A thread takes address space and does not survive a fork."""


class Limits(Settings):
    """Limits of the process that reads one upload."""

    memory_mb: int = Field(1024, ge=512)
    """Address space, in MiB. The readers and their libraries take about 450 of it."""
    cpu_s: int = Field(10, ge=1)
    """CPU time, in seconds."""
    wall_s: float = Field(15.0, gt=0)
    """Time after which it is killed, in seconds."""


@cache
def shared_reader(limits: Limits) -> "Reader":
    """The reader of this process with these limits. All who ask share one helper."""
    return Reader(limits)


class Reader:
    """Reads uploads in limited processes. The helper starts with the first upload, or by `start`.

    limits: of each process.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._helper: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def start(self) -> None:
        """Start the helper, if it does not run. It is ready about two seconds later; uploads wait for it."""
        if not SUPPORTED or (self._helper is not None and self._helper.poll() is None):
            return
        self.stop()
        ours, theirs = socket.socketpair()
        environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
        environment |= _SINGLE_THREADED | {"PYTHONPATH": os.pathsep.join(path or "." for path in sys.path)}
        with theirs:
            self._helper = subprocess.Popen(
                [sys.executable, "-m", "biomechgpt.recordings.bounded", self.limits.model_dump_json()],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,  # Ctrl-C ends it by ending the server
            )
        self._control = ours

    def stop(self) -> None:
        """End the helper. It kills what it started."""
        if self._control is not None:
            self._control.close()  # the helper ends when its server is gone
        if self._helper is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._helper.wait(timeout=5)
            if self._helper.poll() is None:
                self._helper.kill()
                self._helper.wait()
        self._helper = self._control = None

    @property
    def pid(self) -> int | None:
        """Process of the helper; None before it starts."""
        return None if self._helper is None else self._helper.pid

    async def read(self, name: str, content: bytes, settings: UploadSettings) -> Upload:
        """As `upload.read`. Raises InputError also for a file that the limits stop, or that crashes its reader."""
        if not SUPPORTED:
            return await asyncio.to_thread(read, name, content, settings)
        with self._reader() as connection:
            try:
                async with asyncio.timeout(self.limits.wall_s + 30):  # the helper may have just started
                    header, numbers = await _exchange(connection, name, content, settings)
            except (OSError, EOFError, TimeoutError):
                raise InputError(self._stopped(name)) from None
        return _received(header, numbers)

    def _stopped(self, name: str) -> str:
        limits = self.limits
        return (
            f"{name}: expected a recording that is read within {limits.cpu_s} s and {limits.memory_mb} MiB, "
            "found one that needs more, or that is damaged"
        )

    def _reader(self) -> socket.socket:
        """The socket of a new reader."""
        ours, theirs = socket.socketpair()
        with theirs:
            for attempt in range(2):
                self.start()
                try:
                    socket.send_fds(_not_none(self._control), [b"r"], [theirs.fileno()])
                    break
                except OSError:  # the helper died just now
                    if attempt:
                        ours.close()
                        raise
                    self.stop()
        ours.setblocking(False)
        return ours


def _not_none(control: socket.socket | None) -> socket.socket:
    if control is None:
        raise OSError("the helper did not start")
    return control


async def _exchange(
    connection: socket.socket, name: str, content: bytes, settings: UploadSettings
) -> tuple[dict[str, Any], bytes]:
    """Send a file to a reader; its reply. Raises OSError or EOFError if the reader ends before."""
    loop = asyncio.get_running_loop()
    header = json.dumps({"name": name, "settings": settings.model_dump_json()}).encode()
    # A reader that has seen enough may close its side while the file is still being sent. Its reply says why.
    with contextlib.suppress(ConnectionError):
        await loop.sock_sendall(connection, _LENGTH.pack(len(header)) + header + _LENGTH.pack(len(content)))
        await loop.sock_sendall(connection, content)

    async def receive(most: int) -> bytes:
        (size,) = _LENGTH.unpack(await _exactly(lambda n: loop.sock_recv(connection, n), _LENGTH.size))
        if size > most:
            raise EOFError("a reply that is too large")
        return await _exactly(lambda n: loop.sock_recv(connection, n), size)

    reply = await receive(1 << 20)
    return json.loads(reply), await receive(_MAX_REPLY_BYTES)


async def _exactly(receive: Callable[[int], Awaitable[bytes]], size: int) -> bytes:
    parts, left = [], size
    while left:
        part = await receive(min(left, 1 << 20))
        if not part:
            raise EOFError("the reader ended")
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _received(header: dict[str, Any], numbers: bytes) -> Upload:
    """The movement in a reader's reply. Raises InputError or TooLarge if it says that there is none."""
    if "error" in header:
        if header.get("failed"):
            # Its message may quote the recording. Only the type is logged.
            logger.error("a reader failed: %s", header["failed"])
        raise (TooLarge if header["error"] == "too_large" else InputError)(str(header["message"]))
    frames = int(header["frames"])
    values = np.frombuffer(numbers, dtype=np.float32)
    if values.size != frames * (N_JOINTS + _PELVIS):
        raise InputError("expected the frames of a movement, found another number")
    return Upload(
        angles_rad=values[: frames * N_JOINTS].reshape(frames, N_JOINTS).copy(),
        pelvis=values[frames * N_JOINTS :].reshape(frames, _PELVIS).copy(),
        joint_mask=np.array(header["joint_mask"], dtype=bool),
        knee_flexion=str(header["knee_flexion"]),
        provenance=str(header["provenance"]),
        notes=tuple(map(str, header["notes"])),
    )


# --- The helper and its readers


def _serve(control: socket.socket, limits: Limits) -> None:
    """Fork a reader for each socket that the server sends, until the server is gone."""
    import select

    ended, wake = os.pipe()
    for end in (ended, wake):
        os.set_blocking(end, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    poll = select.poll()
    poll.register(control, select.POLLIN)
    poll.register(ended, select.POLLIN)
    running: dict[int, tuple[float, int]] = {}  # process -> (when to kill it, its socket)
    with tempfile.TemporaryDirectory(prefix="biomechgpt-") as folder:
        try:
            while True:
                next_s = min((deadline for deadline, _ in running.values()), default=None)
                wait_ms = None if next_s is None else max(0.0, next_s - time.monotonic()) * 1000 + 1
                events = dict(poll.poll(wait_ms))
                if ended in events:
                    with contextlib.suppress(BlockingIOError):
                        os.read(ended, 4096)
                gone = {fd for fd, event in events.items() if event & (select.POLLHUP | select.POLLNVAL)}
                now = time.monotonic()
                for pid, (deadline, fd) in running.items():
                    if fd in gone or now >= deadline:
                        _kill(pid)
                for pid in _ended_of(running):
                    _, fd = running.pop(pid)
                    poll.unregister(fd)
                    os.close(fd)
                    shutil.rmtree(Path(folder) / str(pid), ignore_errors=True)
                if control.fileno() in events:
                    message, fds, _, _ = socket.recv_fds(control, 1, 1)
                    if not message:
                        return
                    for fd in fds:
                        pid = os.fork()
                        if pid == 0:
                            for _, other in running.values():
                                os.close(other)  # else its reader's end would not be seen while this one runs
                            _read_one(fd, control, Path(folder), limits)
                        running[pid] = (time.monotonic() + limits.wall_s, fd)
                        poll.register(fd, 0)  # only whether the server hung up
        finally:
            for pid in running:
                _kill(pid)


def _kill(pid: int) -> None:
    """Kill a reader and all that it started."""
    for kill in (os.killpg, os.kill):  # it may not have made its own group yet
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def _ended_of(running: dict[int, tuple[float, int]]) -> list[int]:
    """Processes that ended. What they started is killed before their number can belong to another process."""
    ended = []
    for pid in running:
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            ended.append(pid)
    return ended


def _read_one(fd: int, control: socket.socket, folder: Path, limits: Limits) -> None:
    """In the fork: read one upload and end."""
    try:
        os.setsid()
        os.nice(5)  # the server that waits goes first
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        control.close()
        _limit(limits)
        own = folder / str(os.getpid())  # the helper removes it, even if this process is killed
        own.mkdir(mode=0o700)
        tempfile.tempdir = str(own)
        with socket.socket(fileno=fd) as connection:
            _answer(connection, limits)
    finally:
        os._exit(0)


def _limit(limits: Limits) -> None:
    import resource

    def bound(kind: int, value: int) -> None:
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        with contextlib.suppress(ValueError, OSError):  # macOS has no limit of address space
            resource.setrlimit(kind, (value, value))

    bound(resource.RLIMIT_AS, limits.memory_mb << 20)
    bound(resource.RLIMIT_CPU, limits.cpu_s)
    bound(resource.RLIMIT_FSIZE, limits.memory_mb << 20)
    bound(resource.RLIMIT_NOFILE, 64)
    bound(resource.RLIMIT_CORE, 0)  # a core file would hold the recording
    with contextlib.suppress(OSError):  # without memory, this process is the one that the kernel ends
        Path("/proc/self/oom_score_adj").write_text("1000")


def _answer(connection: socket.socket, limits: Limits) -> None:
    numbers = b""
    name = "recording"
    try:
        request = json.loads(_receive(connection))
        name = request["name"]
        settings = UploadSettings.model_validate_json(request["settings"])
        movement = read(name, _receive(connection), settings)
        numbers = (
            movement.angles_rad.astype(np.float32).tobytes() + movement.pelvis.astype(np.float32).tobytes()
        )
        header = {
            "frames": len(movement.angles_rad),
            "joint_mask": movement.joint_mask.tolist(),
            "knee_flexion": movement.knee_flexion,
            "provenance": movement.provenance,
            "notes": movement.notes,
        }
    except TooLarge as error:
        header = {"error": "too_large", "message": _short(error)}
    except InputError as error:
        header = {"error": "bad_recording", "message": _short(error)}
    except MemoryError:
        header = {
            "error": "too_large",
            "message": f"{name}: expected a recording that is read within {limits.memory_mb} MiB of memory, "
            "found one that needs more",
        }
    except Exception as error:  # a file that its reader does not expect
        header = {
            "error": "bad_recording",
            "failed": type(error).__name__,
            "message": f"{name}: expected a recording, found a damaged one ({type(error).__name__})",
        }
    packed = json.dumps(header).encode()
    connection.sendall(_LENGTH.pack(len(packed)) + packed + _LENGTH.pack(len(numbers)) + numbers)


def _short(error: Exception, most: int = 2000) -> str:
    """The message. A damaged file may have names of any length, which messages quote."""
    text = str(error)
    return text if len(text) <= most else f"{text[:most]} ..."


def _receive(connection: socket.socket) -> bytes:
    def exactly(size: int) -> bytes:
        content = bytearray()
        while len(content) < size:
            part = connection.recv(min(size - len(content), 1 << 20))
            if not part:
                raise EOFError
            content += part
        return bytes(content)

    return exactly(_LENGTH.unpack(exactly(_LENGTH.size))[0])


def main() -> None:
    """The helper's process: its control socket is its standard input."""
    import gc

    with socket.socket(fileno=os.dup(0)) as control:
        gc.collect()
        gc.freeze()  # forks then share the memory of the libraries
        _serve(control, Limits.model_validate_json(sys.argv[1]))


if __name__ == "__main__":
    main()
