"""Scopes: what a client may do, and which scope each request needs. Knows nothing about keys or tokens.

FHIR requests need SMART scopes (`system/Observation.rs`, version 1 and 2), the others scopes of our own.
"""

import re
from collections.abc import Iterable

INFO = "biomechgpt/info"
"""The model, its tasks, and example recordings."""
ANSWERS = "biomechgpt/answers"
"""Answers about recordings under /v1/."""
FHIR = "system/Observation.rs"
"""Answers as FHIR resources, and all else under /fhir/."""
AUDIT = "system/AuditEvent.rs"
"""Reading the audit log."""
USUAL = (INFO, ANSWERS, FHIR)
"""Scopes of a client that names none: all but reading the audit log."""
SUPPORTED = (*USUAL, AUDIT, "system/*.rs")

_SMART = re.compile(r"system/(\*|[A-Z][A-Za-z]*)\.(read|write|\*|c?r?u?d?s?)")
_VERSION_1 = {"read": "rs", "write": "cud", "*": "cruds"}


def is_scope(text: str) -> bool:
    """Whether a scope means something here. One with a query (`?category=...`) does not: it is not enforced."""
    match = _SMART.fullmatch(text)
    return text in (INFO, ANSWERS) or (match is not None and match[2] != "")


def includes(granted: str, needed: str) -> bool:
    """Whether a scope gives all that another gives."""
    have, want = _SMART.fullmatch(granted), _SMART.fullmatch(needed)
    if have is None or want is None:
        return granted == needed
    return have[1] in ("*", want[1]) and set(_interactions(want[2])) <= set(_interactions(have[2]))


def _interactions(text: str) -> str:
    """Version 2 letters of create, read, update, delete, search."""
    return _VERSION_1.get(text, text)


def allows(granted: Iterable[str], needed: str) -> bool:
    """Whether one of the granted scopes gives what is needed."""
    return any(includes(scope, needed) for scope in granted)


def needed(method: str, path: str) -> str:
    """The scope that a request needs. Every path has one, also those that do not exist."""
    if path == "/fhir/AuditEvent" or path.startswith("/fhir/AuditEvent/"):
        return AUDIT
    if path == "/fhir" or path.startswith("/fhir/"):
        return FHIR
    is_about_recordings = path.startswith(("/v1/batches", "/v1/files"))
    return INFO if method in ("GET", "HEAD") and not is_about_recordings else ANSWERS
