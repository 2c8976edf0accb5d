"""Where progress lines go. A library must not print, so its modules log, and a program calls `log_to_stdout`."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

logger = logging.getLogger("biomechgpt")
"""The package's logger. Without `log_to_stdout`, Python drops its progress lines."""
SECONDS_BETWEEN_LINES = 10
"""How often a long step says how far it is."""


_PASSWORD = re.compile(r"(://[^\s:/@]*):[^\s@]+(?=@)")


def without_passwords(text: str) -> str:
    """A text whose URIs have *** in place of their passwords, such as those of a database or of MLflow."""
    return _PASSWORD.sub(r"\1:***", text)


class _PlainLines(logging.Handler):
    """Prints each message as a line of its own. It looks up standard output each time, as tests replace it."""

    def emit(self, record: logging.LogRecord) -> None:
        print(without_passwords(self.format(record)), flush=True)


def log_to_stdout() -> None:
    """Print the package's progress lines as plain lines. Each of Ray's workers calls it."""
    logger.setLevel(logging.INFO)
    logger.propagate = False
    if not any(isinstance(handler, _PlainLines) for handler in logger.handlers):
        logger.addHandler(_PlainLines())


@contextmanager
def logged_to_stdout() -> Iterator[None]:
    """Inside, progress lines are printed as by `log_to_stdout`. Jobs run in it; afterwards all is as before."""
    level, propagate, handlers = logger.level, logger.propagate, list(logger.handlers)
    log_to_stdout()
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.propagate, logger.handlers = propagate, handlers
