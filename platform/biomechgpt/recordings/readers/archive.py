"""Files in archives: a .gz holds one file, a .zip any number. What is unpacked is bounded.

A small archive may unpack to more than memory holds, so sizes are counted while unpacking; what an archive says of
itself is not trusted. Of archives within archives, a .gz and a .zip in a .zip are opened, and no deeper ones.
"""

import io
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import PurePosixPath

from biomechgpt.core.settings import InputError

MAX_BYTES = 512 << 20
"""Most bytes that one archive may unpack to."""
MAX_FILES = 2000
"""Most files in one archive."""
_GZIP = b"\x1f\x8b"
_MOST_PACKED = 1032
"""Bytes that gzip may make of one at most."""
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError, ValueError)


def is_gzip(content: bytes) -> bool:
    return content[:2] == _GZIP


def is_zip(content: bytes) -> bool:
    """Whether this is a .zip of files: not an .npz of arrays, nor an Excel workbook."""
    is_archive = content[:4] in (b"PK\x03\x04", b"PK\x05\x06")
    return is_archive and not is_npz(content) and not is_workbook(content)


def is_npz(content: bytes) -> bool:
    """Whether this is an archive of arrays: a .zip whose first member is an .npy."""
    return _first_member(content).endswith(b".npy")


def is_workbook(content: bytes) -> bool:
    """Whether this is a .zip that begins as Office's files do."""
    name = _first_member(content)
    return name == b"[Content_Types].xml" or name.startswith((b"xl/", b"_rels/", b"docProps/"))


def _first_member(content: bytes) -> bytes:
    """The path of a .zip's first file; empty for other content."""
    if content[:4] != b"PK\x03\x04":
        return b""
    return content[30 : 30 + int.from_bytes(content[26:28], "little")]


def gunzip(name: str, content: bytes, most: int) -> bytes:
    """The file in a .gz. Raises InputError if it is damaged or larger than `most`."""
    # The last four bytes say how large the file is. Those of a file that was cut off may say anything.
    promised = int.from_bytes(content[-4:], "little")
    if most < promised <= _MOST_PACKED * len(content):
        found = f"found {promised >> 20} by its last bytes, or a file that is cut off"
        raise InputError(f"{name}: expected at most {most >> 20} MiB unpacked, {found}")
    unpacked = _start(content, most + 1)
    if unpacked is None:
        raise InputError(f"{name}: expected a gzip file, found a damaged one")
    if len(unpacked) > most:
        raise InputError(f"{name}: expected at most {most >> 20} MiB unpacked, found more")
    return unpacked


def gzip_head(content: bytes, most: int) -> bytes:
    """The first bytes of the file in a .gz, of whose own first bytes `content` is."""
    return _start(content, most, whole=False) or b""


def _start(content: bytes, most: int, whole: bool = True) -> bytes | None:
    """At most the first `most` bytes of what is in a .gz; None if it is damaged, or ends early though it is
    whole."""
    parts, size, rest = [], 0, content
    try:
        while rest and size < most:
            stream = zlib.decompressobj(wbits=31)
            part = stream.decompress(rest, most - size)
            parts.append(part)
            size += len(part)
            if not stream.eof:
                return None if whole and size < most else b"".join(parts)
            rest = stream.unused_data.lstrip(b"\x00")
    except zlib.error:
        return None if whole else b"".join(parts)
    return b"".join(parts)


def members(name: str, content: bytes, most: int | None = None) -> Iterator[tuple[str, bytes]]:
    """(path, content) of each file in a .zip, in its order.

    most: bytes that it may unpack to. Raises InputError for a damaged, an encrypted or a too large archive.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            files = [
                info for info in archive.infolist() if not info.is_dir() and not _is_hidden(info.filename)
            ]
            if len(files) > MAX_FILES:
                raise InputError(f"{name}: expected at most {MAX_FILES} files, found {len(files)}")
            left = most = MAX_BYTES if most is None else most
            for info in files:
                if info.file_size > left:
                    raise InputError(f"{name}: expected at most {most >> 20} MiB unpacked, found more")
                if info.flag_bits & 1:
                    raise InputError(
                        f"{name}: expected a .zip without a password, found an encrypted one: unpack it"
                    )
                with archive.open(info) as file:
                    unpacked = file.read(left + 1)
                left -= len(unpacked)
                if left < 0:
                    raise InputError(f"{name}: expected at most {most >> 20} MiB unpacked, found more")
                yield info.filename, unpacked
    except InputError:
        raise
    except _DAMAGED as error:
        raise InputError(f"{name}: expected a .zip file, found a damaged one: {error}") from None


def _is_hidden(path: str) -> bool:
    """Files that macOS adds to an archive, and hidden ones."""
    return any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(path).parts)
