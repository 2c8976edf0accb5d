"""Ray nodes made by `ray start`, for tests and benchmarks: apart from any other Ray of this machine."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

from ports import free_port

TOKEN = "the-token-of-this-test"
WITH_TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
"""Environment of clusters and of their drivers, whatever token this machine's own Ray has."""
STARTED_WITHIN_S = 120


class Node:
    """One node of one CPU: processes with a folder of their own, which their command or their environment names.

    folder: of all its files; not there yet. Short: the path of a Unix socket has at most 107 characters.
    options: further ones of `ray start`.
    environment: its variables beside the folder's.
    joins: address of the cluster that it becomes a part of; None: it is the head of a new one.
    """

    def __init__(
        self,
        folder: Path,
        *options: str,
        environment: Mapping[str, str],
        joins: str | None = None,
    ) -> None:
        self.folder, self.address = folder, joins or f"127.0.0.1:{free_port()}"
        port = self.address.rpartition(":")[2]
        head = ["--head", f"--port={port}", f"--ray-client-server-port={free_port()}"]
        for name in ("ray", "tmp", "cache"):
            (folder / name).mkdir(parents=True)
        command = [str(Path(sys.executable).parent / "ray"), "start", "--block", "--num-cpus=1"]
        command += [f"--address={joins}"] if joins else head
        command += options
        command += ["--object-store-memory=100000000", f"--temp-dir={folder / 'ray'}"]
        command += [f"--dashboard-agent-listen-port={free_port()}"]
        # As KubeRay sets the address: what looks for "the" Ray of this machine finds the right one.
        own = {
            "TMPDIR": str(folder / "tmp"),
            "BIOMECHGPT_CACHE": str(folder / "cache"),
            "RAY_ADDRESS": self.address,
        }
        with (folder / "log").open("w") as log:
            self.popen = subprocess.Popen(
                command,
                env={**environment, **own, "RAY_USAGE_STATS_ENABLED": "0"},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait(self) -> None:
        """Wait until it is a part of its cluster."""
        deadline = time.monotonic() + STARTED_WITHIN_S
        while "Ray runtime started" not in (text := (self.folder / "log").read_text()):
            assert self.popen.poll() is None, text
            assert time.monotonic() < deadline, text
            time.sleep(0.2)

    def workers(self, name: str) -> list[psutil.Process]:
        """Processes of the node's workers that do work of this name."""
        found = []
        for process in processes_of(self.folder):
            try:
                if name in " ".join(process.cmdline()) and "IDLE" not in process.name():
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def kill(self) -> None:
        """End the node without a goodbye, as when its machine is taken away."""
        kill_all_of(self.folder)
        self.popen.wait(timeout=20)


def without_ray(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Variables without those of a Ray that this process may have."""
    return {name: value for name, value in environment.items() if not name.startswith("RAY_")}


def processes_of(folder: Path) -> list[psutil.Process]:
    """All processes whose command or environment names a folder, but for this one."""
    found = []
    for process in psutil.process_iter():
        try:
            words = [*process.cmdline(), *process.environ().values()]
            mine = process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE
            if mine and any(str(folder) in word for word in words):
                found.append(process)
        except psutil.Error:
            continue
    return found


def kill_all_of(folder: Path) -> None:
    """Kill all processes of a folder, and what they started meanwhile."""
    for _ in range(5):
        mine = processes_of(folder)
        if not mine:
            return
        for process in mine:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(mine, timeout=10)
