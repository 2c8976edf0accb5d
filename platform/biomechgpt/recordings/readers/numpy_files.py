"""Arrays of NumPy's files (.npz and .npy), without pickles and within limits."""

import io
from collections.abc import Callable, Collection

import numpy as np

from biomechgpt.core.settings import InputError

MAX_BYTES = 1 << 30
"""Most bytes of a file's arrays: they are compressed, so that a small file may hold more than memory does."""


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
            size = sum(m.file_size for m in file.zip.infolist() if wanted(m.filename.removesuffix(".npy")))
            if size > MAX_BYTES:
                raise InputError(
                    f"{name}: expected at most {MAX_BYTES >> 20} MiB of arrays, found {size >> 20} MiB"
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
        return np.asarray(np.load(io.BytesIO(content), allow_pickle=False).astype(float))
    except Exception as error:  # NumPy raises many kinds for damaged files
        raise InputError(f"{name}: expected an .npy of numbers, found a damaged one: {error}") from None
