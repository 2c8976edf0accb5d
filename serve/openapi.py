"""Writes the OpenAPI document that the page's TypeScript types are generated from.

    python -m serve.openapi

Run it after a change of the API, then `npm run types` in serve/page. A test compares the file with the application.
"""

import json
from pathlib import Path
from typing import Any, cast

from serve.app import create_app
from serve.gateway import Gateway
from serve.model import ModelClient
from serve.settings import GatewaySettings

PATH = Path(__file__).parent / "page" / "openapi.json"


def document() -> dict[str, Any]:
    """The OpenAPI document of the application. It does not depend on the model."""
    gateway = Gateway(cast(ModelClient, None), GatewaySettings())
    return create_app(gateway, key="unused").openapi()


def text() -> str:
    """The document as it is stored."""
    return json.dumps(document(), indent=1) + "\n"


if __name__ == "__main__":
    PATH.write_text(text())
    print(f"wrote {PATH}")
