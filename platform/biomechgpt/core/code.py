"""The version of the running code. Manifests and MLflow runs keep it, so that a result can be made again."""

import hashlib
import os
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

REVISION = "BIOMECHGPT_REVISION"
"""Environment variable with the git revision, for images and workers that have no repository."""
CHECKOUT = Path(__file__).parents[3]
"""Folder of the code, unless the package is installed."""


@cache
def code_version() -> dict[str, Any]:
    """The code of this process, each entry None where it is not known.

    revision: git revision. changed: whether files differ from it. lock: SHA-256 of requirements.lock.
    """
    # The image has no folder infra/.
    lock = next(
        (file for place in ("infra", ".") if (file := CHECKOUT / place / "requirements.lock").exists()), None
    )
    changes = _git("status", "--porcelain", "--untracked-files=no")
    return {
        "revision": os.environ.get(REVISION) or _git("rev-parse", "HEAD"),
        "changed": None if changes is None else bool(changes),
        "lock": hashlib.sha256(lock.read_bytes()).hexdigest() if lock else None,
    }


def _git(*arguments: str) -> str | None:
    """The output of a git command in the repository of this file; None outside a repository."""
    if not (CHECKOUT / ".git").exists():  # an installed package may lie in somebody else's repository
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(CHECKOUT), *arguments],  # noqa: S607 whichever git the user has
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
