"""Where progress lines go. A library must not print, so its modules log, and a program calls `log_to_stdout`."""

import logging

logger = logging.getLogger("biomechgpt")
"""The package's logger. Without `log_to_stdout`, Python drops its progress lines."""


class _PlainLines(logging.Handler):
    """Prints each message as a line of its own. It looks up standard output each time, as tests replace it."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), flush=True)


def log_to_stdout() -> None:
    """Print the package's progress lines as plain lines. Jobs call it, and so does each of Ray's workers."""
    logger.setLevel(logging.INFO)
    logger.propagate = False
    if not any(isinstance(handler, _PlainLines) for handler in logger.handlers):
        logger.addHandler(_PlainLines())
