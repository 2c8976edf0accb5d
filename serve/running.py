"""The running request: its id, and its line in the log.

The id is the client's, or Ray Serve's, in the header X-Request-ID. The body of an error repeats it, and so does
each line that is logged meanwhile. A line holds no movement, no question, no file name and nobody's name. Knows
HTTP only.
"""

import json
import logging
import re
import sys
import uuid
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

REQUEST_ID = b"x-request-id"
_ID = re.compile(rb"[A-Za-z0-9.-]{1,64}")  # as FHIR allows for the id of a resource
_FIELDS = "biomechgpt_fields"
"""Attribute of a log record that holds the fields of its line."""

logger = logging.getLogger("biomechgpt.serve")


@dataclass
class Running:
    """A request that is being answered.

    id: by which its client and its operator name it.
    code: of the error that it was answered with; ok without one.
    """

    id: str
    code: str = "ok"


RUNNING: ContextVar[Running | None] = ContextVar("running", default=None)
"""The request that the running task answers, or that began its job; None for none."""


def request_of(headers: Mapping[bytes, bytes]) -> Running:
    """A new request. An id that is too long, or has other characters, is replaced."""
    given = headers.get(REQUEST_ID, b"")
    return Running(given.decode() if _ID.fullmatch(given) else str(uuid.uuid4()))


def request_id() -> str | None:
    """The id of the running request; None for none."""
    running = RUNNING.get()
    return None if running is None else running.id


def log_request(level: int, **fields: Any) -> None:
    """Write a line about the running request."""
    logger.log(level, "request", extra={_FIELDS: fields})


class JsonLines(logging.Formatter):
    """Each record as one line of JSON: `time`, `level`, `message`, `request_id`, and its fields."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "message": record.getMessage(),
        }
        if (known := request_id()) is not None:
            line["request_id"] = known
        line |= getattr(record, _FIELDS, {})
        if record.exc_info and record.exc_info[0]:
            line["error"] = record.exc_info[0].__name__  # its message may quote the recording
        return json.dumps(line)


def log_as_json() -> None:
    """In a process of the server: write the package's log lines as JSON to standard error."""
    package = logging.getLogger("biomechgpt")
    if not any(isinstance(handler.formatter, JsonLines) for handler in package.handlers):
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(JsonLines())
        package.addHandler(handler)
    package.setLevel(logging.INFO)
    package.propagate = False
