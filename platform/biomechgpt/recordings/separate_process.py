"""Runs a parser or an engine in a process of its own.

A damaged file may crash a parser of another language or make it take all memory, which must end neither a run over
a thousand files nor a server.
"""

import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from biomechgpt.core.settings import InputError

LIMITS = """
import sys
try:
    import resource
    most = resource.getrlimit(resource.RLIMIT_AS)[1]
    most = 8 << 30 if most == resource.RLIM_INFINITY else min(most, 8 << 30)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))  # a damaged header may promise anything
except (ImportError, OSError, ValueError):
    pass  # Windows has no such limit, and macOS refuses it
"""
"""Begins a script. Its arguments are the path of the file and that of an .npz of arrays, which it writes."""


class Failed(Exception):
    """A script that took too long, ended with an error, or wrote no arrays.

    seconds: the longest time, if it took that; output, errors: lines that it printed; status: how it ended.
    """

    def __init__(
        self, seconds: float | None, output: Sequence[str], errors: Sequence[str], status: int
    ) -> None:
        super().__init__(errors[-1] if errors else f"it ended with {status}")
        self.seconds, self.output, self.errors, self.status = seconds, output, errors, status


def run(
    script: str, files: Mapping[str, bytes], arguments: Sequence[str], seconds: float
) -> dict[str, np.ndarray]:
    """The arrays that a script writes into `arrays.npz`, in a folder with these files. Raises Failed.

    arguments: of the script. seconds: longest time.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, content in files.items():
            (folder / file).write_bytes(content)
        try:
            command = [sys.executable, "-c", script, *arguments]
            done = subprocess.run(command, cwd=folder, capture_output=True, timeout=seconds)
        except subprocess.TimeoutExpired:
            raise Failed(seconds, [], [], 0) from None
        if done.returncode or not (folder / "arrays.npz").exists():
            output, errors = (
                text.decode(errors="replace").strip().splitlines() for text in (done.stdout, done.stderr)
            )
            raise Failed(None, output, errors, done.returncode)
        with np.load(folder / "arrays.npz", allow_pickle=False) as arrays:
            return dict(arrays)


def arrays_of(name: str, content: bytes, script: str, what: str, seconds: float) -> dict[str, np.ndarray]:
    """The arrays that a script writes of a file.

    name: the file, in messages. what: what it should be, for example `a C3D file`.
    seconds: longest time. Raises InputError if the script fails or takes longer.
    """
    try:
        return run(script, {"content": content}, ["content", "arrays.npz"], seconds)
    except Failed as failed:
        if failed.seconds is not None:
            raise InputError(f"{name}: expected {what}, found one that takes {seconds} s to read") from None
        why = str(failed) if failed.errors else f"its parser ended with {failed.status}"
        raise InputError(f"{name}: expected {what}, found a damaged one: {why}") from None
