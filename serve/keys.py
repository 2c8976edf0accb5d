"""Makes an access key for the served model. The server stores no keys: it reads one from its environment."""

import secrets

from pydantic import Field

from biomechgpt.core.settings import Settings
from serve.settings import KEY


class KeySettings(Settings):
    """Settings of `biomechgpt keys`."""

    bytes: int = Field(24, ge=16, le=64)
    """Random bytes in the key."""


def make_key(settings: KeySettings) -> None:
    """Print a new key as the line of a shell that sets it, with comments that say where it goes."""
    key = secrets.token_urlsafe(settings.bytes)
    print("# The server reads its access key from this variable. Keep the key secret; it is stored nowhere.")
    print(f"export {KEY}={key}")
    print(
        "# Run this line before `biomechgpt serve`. On Kubernetes, put the key into the Secret biomechgpt-api."
    )
    print("# Programs send it as the header `Authorization: Bearer KEY`; people open the page with #key=KEY.")
