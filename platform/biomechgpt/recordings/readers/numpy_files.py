"""Arrays of NumPy's files (.npz and .npy), without pickles and within limits."""

import io
import math
import zipfile
from collections.abc import Callable, Collection
from typing import IO

import numpy as np

from biomechgpt.core.settings import InputError

MAX_BYTES = 256 << 20
"""Most bytes of a file's arrays as numbers of eight bytes. They may be compressed, and of one byte each, so that a
small file may hold more than memory does."""


def load(
    name: str, content: bytes, wanted: Callable[[str], bool], texts: Collection[str] = ()
) -> tuple[dict[str, np.ndarray], list[str]]:
    """{name of an array: its numbers, one dimension or more} of the wanted arrays of an .npz, and all names.

    texts: arrays of texts. An empty array counts as absent.
    Raises InputError, which calls the file `name`, for a damaged or too large file.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            names = list(file.files)
            _check_size(
                name, sum(_numbers_in(file.zip, m) for m in file.zip.infolist() if _is_wanted(m, wanted))
            )
            arrays = {
                k: np.atleast_1d(file[k]).astype(str if k in texts else float) for k in names if wanted(k)
            }
    except InputError:
        raise
    except Exception as error:  # NumPy raises many kinds for damaged files
        if "allow_pickle" in str(error):
            raise InputError(
                f"{name}: expected arrays of numbers, found a pickle among them: it may run code, so it is never "
                "opened"
            ) from None
        raise InputError(
            f"{name}: expected an .npz of numbers, found a damaged or foreign file: {error}"
        ) from None
    return {key: array for key, array in arrays.items() if array.size}, names


def load_one(name: str, content: bytes) -> np.ndarray:
    """The numbers of an .npy. Raises InputError, which calls the file `name`."""
    try:
        _check_size(name, _numbers(io.BytesIO(content)))
        return np.asarray(np.load(io.BytesIO(content), allow_pickle=False).astype(float))
    except InputError:
        raise
    except Exception as error:  # NumPy raises many kinds for damaged files
        raise InputError(f"{name}: expected an .npy of numbers, found a damaged one: {error}") from None


def _is_wanted(member: zipfile.ZipInfo, wanted: Callable[[str], bool]) -> bool:
    return wanted(member.filename.removesuffix(".npy"))


def _numbers_in(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> int:
    """How many numbers a member holds, by its header; by its size if it has no header of an array."""
    with archive.open(member) as file:
        try:
            return max(_numbers(file), member.file_size // 8)
        except ValueError:
            return member.file_size


def _numbers(file: IO[bytes]) -> int:
    """How many numbers the header of an .npy promises. Raises ValueError for another file."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    # A text of n characters takes as much as n / 2 numbers.
    return math.prod(shape) * max(1, dtype.itemsize // 8)


def _check_size(name: str, numbers: int) -> None:
    """Raise InputError if so many numbers take more than the limit."""
    if 8 * numbers > MAX_BYTES:
        raise InputError(
            f"{name}: expected at most {MAX_BYTES >> 20} MiB of arrays, found {8 * numbers >> 20} MiB"
        )
