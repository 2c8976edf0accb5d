"""Runs a parser in a process of its own.

A damaged file may crash a parser of another language or make it take all memory, which must end neither a run over
a thousand files nor a server.
"""

import subprocess
import sys
import tempfile
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


def arrays_of(name: str, content: bytes, script: str, what: str, seconds: float) -> dict[str, np.ndarray]:
    """The arrays that a script writes of a file.

    name: the file, in messages. what: what it should be, for example `a C3D file`.
    seconds: longest time. Raises InputError if the script fails or takes longer.
    """
    with tempfile.TemporaryDirectory() as folder:
        path, arrays_path = Path(folder) / "content", Path(folder) / "arrays.npz"
        path.write_bytes(content)
        try:
            done = subprocess.run(
                [sys.executable, "-c", script, str(path), str(arrays_path)],
                capture_output=True,
                timeout=seconds,
            )
        except subprocess.TimeoutExpired:
            raise InputError(f"{name}: expected {what}, found one that takes {seconds} s to read") from None
        if done.returncode or not arrays_path.exists():
            error_lines = done.stderr.decode(errors="replace").strip().splitlines()
            why = error_lines[-1] if error_lines else f"its parser ended with {done.returncode}"
            raise InputError(f"{name}: expected {what}, found a damaged one: {why}")
        with np.load(arrays_path, allow_pickle=False) as arrays:
            return dict(arrays)
