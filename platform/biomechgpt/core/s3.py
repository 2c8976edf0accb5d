"""S3 through s3fs, with patience: a server that is away is asked again for two minutes, then there is an error.

Loaded when a URI of S3 is first used, because s3fs takes half a second to import.
"""

import asyncio
import time
from typing import Any

from botocore import exceptions
from botocore.exceptions import ClientError, HTTPClientError
from s3fs import S3FileSystem

from biomechgpt.core.logs import logger
from biomechgpt.core.settings import StorageError

BUDGET_S = 120.0
"""How long a call is tried again while the server is away or too busy."""
_SAID_AFTER_S = 10.0
_BUSY = {"500", "502", "503", "504", "InternalError", "SlowDown", "ServiceUnavailable", "RequestTimeout"}


class PatientS3(S3FileSystem):  # type: ignore[misc]  # s3fs has no types
    """Every call of s3fs goes through `_call_s3`, also those of Arrow, Ray Train and Ray Tune."""

    async def _call_s3(self, method: str, *arguments: Any, **options: Any) -> Any:
        started, wait, said = time.monotonic(), 0.2, False
        while True:
            try:
                return await super()._call_s3(method, *arguments, **options)
            except Exception as error:
                if not _passes(error):
                    raise
                seconds = time.monotonic() - started
                place = (
                    f"s3://{options.get('Bucket', '')}/{options.get('Key') or options.get('Prefix') or ''}"
                )
                if seconds + wait > BUDGET_S:
                    reason = " ".join(str(error).split()) or type(error).__name__
                    raise StorageError(
                        f"{place}: no answer from the S3 server in {seconds:.0f} s: {reason}"
                    ) from error
                if seconds > _SAID_AFTER_S and not said:
                    logger.warning("%s: the S3 server is away, trying again for %.0f s", place, BUDGET_S)
                    said = True
                await asyncio.sleep(wait)
                wait = min(2 * wait, 5.0)


def _passes(error: Exception) -> bool:
    """Whether an error may pass by itself: no connection, or a server that is too busy."""
    if isinstance(error, exceptions.SSLError):
        return False
    # botocore has a ConnectionError of its own, for a server that refuses the connection.
    if isinstance(error, HTTPClientError | exceptions.ConnectionError | ConnectionError | TimeoutError):
        return True
    code = error_code(error)
    return code in _BUSY


def error_code(error: BaseException | None) -> str:
    """The code of S3's answer behind an error, such as PreconditionFailed; "" without one."""
    while error is not None and not isinstance(error, ClientError):
        error = error.__cause__
    return "" if error is None else str(error.response.get("Error", {}).get("Code", ""))
