"""The endpoints. Each module of this package has an APIRouter `router`; a new module is included by itself.

answers   answers about uploaded recordings
audit     the audit log
batches   answers about many recordings, later
chat      answers about motion tokens
fhir      answers as FHIR resources
info      the model, examples, and probes
openai    chats with OpenAI's clients
smart     access tokens
"""

import pkgutil
from importlib import import_module

from fastapi import APIRouter


def routers() -> list[APIRouter]:
    """The routers of all modules of this package, by name."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return [import_module(f"{__name__}.{name}").router for name in names]
