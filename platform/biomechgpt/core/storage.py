"""Files at any URI: a local folder or s3:// (through s3fs), behind the same few calls."""

import json
import os
import posixpath
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import fsspec
import pyarrow.fs

from biomechgpt.core.settings import InputError


def is_remote(uri: str) -> bool:
    return "://" in uri and not uri.startswith("file://")


def absolute(uri: str) -> str:
    """A URI without a trailing slash; a local path is made absolute, so that workers elsewhere find it."""
    if is_remote(uri):
        return uri.rstrip("/")
    return str(Path(uri.removeprefix("file://")).expanduser().resolve())


def filesystem(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of `uri` and the path in it. s3:// reads the usual AWS_* environment variables."""
    if uri.startswith("s3://"):
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        # Listings are not cached: another process may have published since.
        options = {"client_kwargs": {"endpoint_url": endpoint}} if endpoint else {}
        return fsspec.filesystem("s3", use_listings_cache=False, **options), uri.removeprefix("s3://")
    result: tuple[Any, str] = fsspec.core.url_to_fs(absolute(uri))
    return result


def arrow_filesystem(uri: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """The same for Ray and Arrow, with one set of credentials for both (Arrow's own S3 reads others)."""
    if not is_remote(uri):
        return pyarrow.fs.LocalFileSystem(), absolute(uri)
    fs, path = filesystem(uri)
    return pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(fs)), path


def join(uri: str, *parts: str) -> str:
    return "/".join([uri.rstrip("/"), *(part.strip("/") for part in parts)])


def beside(folder: str, path: str) -> str:
    """The URI at a relative path, such as `../artifacts`, from a folder: what `relative` was given."""
    if not is_remote(folder):
        return absolute(join(folder, path))
    scheme, _, place = join(folder, path).partition("://")
    return f"{scheme}://{posixpath.normpath(place)}"


def relative(uri: str, folder: str) -> str | None:
    """Path from a folder to `uri`, such as `../artifacts`; None from a disk to S3 or another disk."""
    if is_remote(uri) != is_remote(folder):
        return None
    if is_remote(uri):
        place, start = (f"/{part.partition('://')[2]}" for part in (uri, folder))
        return posixpath.relpath(place, start)
    with suppress(ValueError):
        return os.path.relpath(absolute(uri), absolute(folder)).replace(os.sep, "/")
    return None


def exists(uri: str) -> bool:
    fs, path = filesystem(uri)
    return bool(fs.exists(path))


def read_bytes(uri: str) -> bytes:
    fs, path = filesystem(uri)
    return bytes(fs.cat_file(path))


def read_head(uri: str, most: int) -> bytes:
    """The first `most` bytes of a file, or all of a shorter one; only these are transferred."""
    fs, path = filesystem(uri)
    with fs.open(path, "rb", cache_type="none") as file:
        return bytes(file.read(most))


def write_bytes(uri: str, content: bytes, *, mode: int = 0o644) -> None:
    """Write a whole file at once: locally through a temporary name and a rename, on S3 one PUT.

    mode: who may read and write a local file. Until it is whole only its owner can.
    Raises InputError if the disk is full or the folder cannot be written.
    """
    fs, path = filesystem(uri)
    if is_remote(uri):
        fs.pipe_file(path, content)
        return
    target = Path(path)
    with _written(uri):
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(mode)
            Path(name).replace(target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def require_writable(uri: str) -> None:
    """Raise InputError if no file can be written at `uri`, before long work that ends in it. S3 is not tried."""
    if is_remote(uri):
        return
    with _written(uri):
        folder = Path(absolute(uri)).parent
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass


@contextmanager
def _written(uri: str) -> Iterator[None]:
    """Turn an error of the disk into an InputError that names the file."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{uri}: expected a place that can be written, found: {error.strerror or error}"
        ) from error


def read_json(uri: str) -> Any:
    return json.loads(read_bytes(uri))


def write_json(uri: str, content: Any) -> None:
    write_bytes(uri, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def list_files(uri: str) -> list[str]:
    """Names of all files under a folder, relative to it, sorted; empty if the folder is absent.

    A file lists as itself, without a name. Folders that a link points to are listed too, each folder once.
    """
    if not is_remote(uri):
        return sorted(_local_files(absolute(uri)))
    fs, path = filesystem(uri)
    if not fs.exists(path):
        return []
    return sorted(str(name)[len(path) :].lstrip("/") for name in fs.find(path))


def _local_files(path: str) -> Iterator[str]:
    """Relative names of regular files and of links to them, and of links to nowhere: reading those says why."""
    if Path(path).is_file():
        yield ""
    seen: set[str] = set()
    for folder, folders, files in os.walk(path, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add(real)
        folders.sort(key=lambda name: (Path(folder, name).is_symlink(), name))
        for file in files:
            full = Path(folder, file)
            if full.is_file() or (full.is_symlink() and not full.exists()):  # no pipe, no socket
                yield full.relative_to(path).as_posix()


def remove(uri: str) -> None:
    fs, path = filesystem(uri)
    if fs.exists(path):
        fs.rm(path, recursive=True)


def upload(folder: str | Path, uri: str) -> None:
    """Copy a local folder's files under `uri`."""
    for path in sorted(Path(folder).rglob("*")):
        if path.is_file():
            write_bytes(join(uri, str(path.relative_to(folder))), path.read_bytes())


def local_copy(uri: str, cache: str | Path | None = None) -> Path:
    """Local path of the folder or file at `uri`: a local one itself, a remote one as a download.

    A download is kept under `cache` (default: the temporary folder) and reused: artifacts never change.
    """
    if not is_remote(uri):
        return Path(absolute(uri))
    base = Path(cache or Path(tempfile.gettempdir()) / "biomechgpt-cache")
    target = base / uri.replace("://", "/")
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=target.parent))
    names = list_files(uri)
    single = names == [""]  # a file lists as itself, without a name
    for name in names:
        path = partial / (name or target.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(read_bytes(uri if single else join(uri, name)))
    with suppress(OSError):  # another process was first
        (partial / target.name if single else partial).rename(target)
    shutil.rmtree(partial, ignore_errors=True)
    return target
