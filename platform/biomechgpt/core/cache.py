"""The cache of this user on this machine: downloads from S3, and checksums that were computed already.

Nobody else can read or write it (mode 0700, and another owner's folder is refused). Downloads are keyed by the
server's address. Knows nothing about artifacts.
"""

import hashlib
import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from biomechgpt.core import storage
from biomechgpt.core.settings import InputError, StorageError

FOLDER = "BIOMECHGPT_CACHE"
"""Environment variable: the folder. By default one in the temporary folder, with the user's number in its name."""
SIZE_GB = "BIOMECHGPT_CACHE_GB"
"""Environment variable: the size that downloads are kept below. By default 50."""
_IN_USE_S = 600
"""A download that was asked for in the last 10 minutes stays."""


def folder() -> Path:
    """The cache's folder. Raises InputError if it is another user's, or cannot be made."""
    user = os.getuid() if hasattr(os, "getuid") else None  # Windows has a temporary folder for each user
    given = os.environ.get(FOLDER)
    path = Path(given) if given else Path(tempfile.gettempdir()) / f"biomechgpt-cache-{user}"
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.lstat()
        if user is not None and (path.is_symlink() or status.st_uid != user):
            raise InputError(f"{path}: expected a folder of this user, found another's: set {FOLDER}")
        if status.st_mode & 0o077:
            path.chmod(0o700)
    except OSError as error:
        raise InputError(
            f"{path}: expected a folder for downloads, found: {error.strerror} ({FOLDER})"
        ) from error
    return path


def key(uri: str) -> str:
    """Name of what the cache keeps about a URI of the present server."""
    return hashlib.sha256(f"{storage.endpoint()} {uri}".encode()).hexdigest()[:32]


def download(uri: str, cache: str | Path | None = None) -> Path:
    """Local path of the remote folder or file at `uri`, downloaded unless it was before.

    cache: another folder than that of this user.
    Raises InputError if there is no room.
    """
    downloads = Path(cache or folder()) / "downloads"
    entry = downloads / key(uri)
    target = entry / uri.rsplit("/", 1)[1]
    if target.exists():
        with suppress(OSError):
            os.utime(entry)  # says when it was used
        return target
    try:
        downloads.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=downloads, prefix=storage.TEMPORARY) as name:
            partial = Path(name) / "entry"
            _fetch(uri, partial / target.name)
            with suppress(OSError):  # another process was first
                partial.rename(entry)
    except StorageError:
        raise
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{downloads}: expected room for {uri}, found: {reason} ({FOLDER})") from error
    _limit(downloads)
    return target


def remove(target: Path) -> None:
    """Remove what `download` returned."""
    with suppress(OSError):
        # First out of sight, so that nobody finds a part of it.
        gone = target.parent.with_name(f"{storage.TEMPORARY}{target.parent.name}-{os.getpid()}")
        target.parent.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


def _fetch(uri: str, target: Path) -> None:
    target.parent.mkdir(parents=True)
    names = storage.list_files(uri)
    if names == [""]:  # a file lists as itself, without a name
        storage.download(uri, target)
        return
    for name in names:
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        storage.download(storage.join(uri, name), path)


def _limit(downloads: Path) -> None:
    """Remove the downloads that were not asked for the longest, until all are below the size."""
    most = float(os.environ.get(SIZE_GB, 50)) * 1e9
    entries: list[tuple[float, int, Path]] = []
    for entry in downloads.iterdir():
        with suppress(OSError):  # removed by another process
            size = sum(path.stat().st_size for path in entry.rglob("*") if path.is_file())
            entries.append((entry.stat().st_mtime, size, entry))
    total = sum(size for _, size, _ in entries)
    for used, size, entry in sorted(entries):
        if total <= most or time.time() - used < _IN_USE_S:
            return
        remove(entry / "all")
        total -= size
