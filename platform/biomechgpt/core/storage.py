"""Files at any URI: a local folder or s3:// (through s3fs), behind the same few calls."""

import errno
import hashlib
import json
import os
import posixpath
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import fsspec
import pyarrow.fs

from biomechgpt.core.settings import InputError, StorageError

TEMPORARY = ".tmp-"
"""Beginning of the names of files that are not whole yet. They never become part of an artifact."""


def is_remote(uri: str) -> bool:
    return "://" in uri and not uri.startswith("file://")


def absolute(uri: str) -> str:
    """A URI without a trailing slash; a local path is made absolute, so that workers elsewhere find it."""
    if is_remote(uri):
        return uri.rstrip("/")
    return str(Path(uri.removeprefix("file://")).expanduser().resolve())


def endpoint() -> str | None:
    """Address of the S3 server; None for Amazon's."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None


def filesystem(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of `uri` and the path in it. s3:// reads the usual AWS_* environment variables."""
    if uri.startswith("s3://"):
        from biomechgpt.core.s3 import PatientS3

        server = endpoint()
        options = {"client_kwargs": {"endpoint_url": server}} if server else {}
        # Listings are not cached: another process may have published since. `PatientS3` tries again, not botocore.
        config = {"connect_timeout": 5, "read_timeout": 60, "retries": {"max_attempts": 0}}
        return PatientS3(use_listings_cache=False, config_kwargs=config, **options), uri.removeprefix("s3://")
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
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=TEMPORARY)
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


def create(uri: str, content: bytes) -> bool:
    """Write a file if there is none; returns whether this call wrote it. Of several processes, one does.

    On S3 it is a conditional PUT (If-None-Match), which the server must know.
    Raises InputError if the disk is full or the folder cannot be written.
    """
    fs, path = filesystem(uri)
    if is_remote(uri):
        from biomechgpt.core.s3 import error_code

        try:
            fs.pipe_file(path, content, mode="create")
        except OSError as error:
            if error_code(error) not in ("PreconditionFailed", "412", "409", "ConditionalRequestConflict"):
                raise
        # A first try may have written it, and its answer was lost. A server without conditions keeps the last.
        with suppress(FileNotFoundError):
            return bool(fs.cat_file(path) == content)
        return False
    target = Path(path)
    with _written(uri):
        while True:
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
                break
            except FileExistsError:
                return False
            except FileNotFoundError:  # another process has just removed the folder
                continue
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            target.unlink(missing_ok=True)
            raise
    return True


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


@contextmanager
def whole(uri: str) -> Iterator[None]:
    """Turn an error while a Parquet file is read, as of a page whose checksum differs, into an InputError."""
    try:
        yield
    except (FileNotFoundError, StorageError):
        raise
    except OSError as error:
        raise InputError(f"{uri}: expected a whole Parquet file, found a damaged one: {error}") from error


def read_json(uri: str) -> Any:
    return json.loads(read_bytes(uri))


def write_json(uri: str, content: Any, *, mode: int = 0o644) -> None:
    write_bytes(uri, to_json(content), mode=mode)


def to_json(content: Any) -> bytes:
    """Content of a JSON file, for people too. Raises ValueError for a number that is not finite."""
    return (json.dumps(content, indent=2, allow_nan=False) + "\n").encode()


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


def copy(source: str, target: str, names: Iterable[str]) -> None:
    """Copy files of one folder to another of the same file system. Files that are gone by now are left out."""
    fs, path = filesystem(source)
    _, to = filesystem(target)
    pairs = [(f"{path}/{name}", f"{to}/{name}") for name in names]
    if is_remote(source):
        fs.copy([old for old, _ in pairs], [new for _, new in pairs], on_error="ignore")
        return
    with _written(target):
        for old, new in pairs:
            to_folder = Path(new).parent
            to_folder.mkdir(parents=True, exist_ok=True)
            with (
                suppress(FileNotFoundError),
                tempfile.TemporaryDirectory(dir=to_folder, prefix=TEMPORARY) as name,
            ):
                shutil.copyfile(old, Path(name) / "copy")
                (Path(name) / "copy").rename(new)


def rename_new(source: str, target: str) -> bool:
    """Rename a local folder at once; returns False, and changes nothing, if the target is there with content."""
    with _written(target):
        try:
            Path(source).rename(target)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                return False
            raise
    return True


def upload(folder: str | Path, uri: str) -> None:
    """Copy a local folder's files under `uri`."""
    for path in sorted(Path(folder).rglob("*")):
        if path.is_file():
            write_bytes(join(uri, str(path.relative_to(folder))), path.read_bytes())


def download(uri: str, path: Path) -> None:
    """Copy a remote file to a local one that is not there yet, without holding it in memory."""
    fs, place = filesystem(uri)
    fs.get_file(place, str(path))


def states(uri: str) -> dict[str, str]:
    """{name of each file under a folder: its state}, which differs after any change of the file.

    Locally it is made of size, times and number of the file; on S3 of its size and ETag. Reads no content.
    """
    if not is_remote(uri):
        folder = absolute(uri)
        found = {}
        for name in _local_files(folder):
            s = Path(folder, name).stat()
            found[name] = f"{s.st_size} {s.st_mtime_ns} {s.st_ctime_ns} {s.st_ino}"
        return found
    fs, path = filesystem(uri)
    return {
        str(name)[len(path) :].lstrip("/"): f"{info['size']} {info.get('ETag')} {info.get('LastModified')}"
        for name, info in fs.find(path, detail=True).items()
    }


def sha256(uri: str) -> str:
    """SHA-256 of a file's content, without holding it in memory."""
    fs, path = filesystem(uri)
    with fs.open(path, "rb", **({"cache_type": "readahead"} if is_remote(uri) else {})) as file:
        digest = hashlib.sha256()
        while block := file.read(_BLOCK):
            digest.update(block)
        return digest.hexdigest()


_BLOCK = 4 * 1024 * 1024
