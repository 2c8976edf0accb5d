"""Checks of a request's body before anything is made of it: its size, its time to arrive, its structure.

A body of a few megabytes may stand for objects of gigabytes, or nest deeper than any parser goes. Knows HTTP only.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, NoReturn

from serve.errors import ApiError

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

MAX_ITEMS = 200_000
"""Most values in a JSON body."""
MAX_FIELDS = 1000
"""Most fields of a form."""
MAX_DEPTH = 64
"""Deepest nesting of a JSON body."""
MAX_NUMBER = 1e15
"""Largest number in a JSON body."""


class Buffer:
    """Bytes of all bodies that are in memory.

    most: most bytes.
    """

    def __init__(self, most: int) -> None:
        self.most, self.held = most, 0

    def take(self, size: int) -> None:
        """Raises ApiError `busy` if there is no space for so many bytes more."""
        if self.held + size > self.most:
            raise ApiError("busy", "too many large requests are in progress; try again later")
        self.held += size

    def give_back(self, size: int) -> None:
        self.held -= size


class Body:
    """A body as it arrives. `size` bytes of the buffer are its own until `close`.

    most: largest size, in bytes.
    timeout_s: time to arrive.
    """

    def __init__(self, buffer: Buffer, most: int, timeout_s: float) -> None:
        self.buffer, self.most, self.timeout_s, self.size = buffer, most, timeout_s, 0

    async def read(self, headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
        """The whole body. Its bytes are counted, because content-length may be missing or wrong.

        Raises ApiError if it is too large, too slow, or nested or split too much.
        """
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self.most:
            raise self._too_large()
        try:
            async with asyncio.timeout(self.timeout_s):
                content = await self._arriving(receive)
        except TimeoutError:
            expected = f"expected the whole body within {self.timeout_s:g} s"
            raise ApiError("timeout", f"{expected}, found {self.size} bytes by then") from None
        check_structure(headers.get(b"content-type", b""), content)
        return content

    async def _arriving(self, receive: Receive) -> bytes:
        chunks, has_more = [], True
        while has_more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ApiError("bad_request", "the client left before its request was complete")
            chunk = message.get("body", b"")
            if self.size + len(chunk) > self.most:
                raise self._too_large()
            self.buffer.take(len(chunk))
            self.size += len(chunk)
            chunks.append(chunk)
            has_more = message.get("more_body", False)
        return b"".join(chunks)

    def _too_large(self) -> ApiError:
        return ApiError("too_large", f"expected a body of at most {self.most} bytes")

    def close(self) -> None:
        """Give the bytes back."""
        self.buffer.give_back(self.size)
        self.size = 0


def check_structure(content_type: bytes, content: bytes) -> None:
    """Raise ApiError `bad_request` for a form or a JSON body that stands for too much, or for no finite numbers."""
    kind = content_type.partition(b";")[0].strip().lower()
    if kind == b"multipart/form-data":
        return  # its parser counts the fields
    if kind == b"application/x-www-form-urlencoded":
        if content.count(b"&") + content.count(b";") >= MAX_FIELDS:
            raise ApiError("bad_request", f"expected a form of at most {MAX_FIELDS} fields, found more")
        return
    if not content.strip():
        return
    # Text may hold these characters too, but base64 does not. So a large file in a body passes.
    if sum(content.count(sign) for sign in (b",", b"[", b"{", b":")) > MAX_ITEMS:
        raise ApiError("bad_request", f"expected JSON of at most {MAX_ITEMS} values, found more")
    try:
        value = json.loads(content, parse_constant=_constant, parse_float=_float, parse_int=_int)
        if _depth(value) > MAX_DEPTH:
            raise RecursionError
        if b"\\u" in content:
            json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except RecursionError:
        raise ApiError("bad_request", f"expected JSON of at most {MAX_DEPTH} levels, found more") from None
    except UnicodeEncodeError:
        raise ApiError(
            "bad_request", "expected text of whole characters, found half a surrogate pair"
        ) from None
    except ValueError:
        return  # not JSON: the endpoint says what it expects


def _depth(value: Any) -> int:
    """Levels of lists and objects, without recursion."""
    depth, level = 0, [value]
    while level and depth <= MAX_DEPTH:
        inside: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inside.extend(item.values())
            elif isinstance(item, list):
                inside.extend(item)
        level = [item for item in inside if isinstance(item, dict | list)]
        depth += 1
    return depth


def _constant(text: str) -> NoReturn:
    raise ApiError("bad_request", f"expected finite numbers, found {text}")


def _float(text: str) -> float:
    value = float(text)
    if not -MAX_NUMBER <= value <= MAX_NUMBER:
        raise ApiError("bad_request", f"expected numbers up to {MAX_NUMBER:g}, found {text[:40]}")
    return value


def _int(text: str) -> int:
    if len(text) > len(f"-{MAX_NUMBER:.0f}"):
        raise ApiError("bad_request", f"expected numbers up to {MAX_NUMBER:g}, found {text[:40]}")
    return int(text)
