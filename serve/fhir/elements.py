"""Elements of FHIR R4 that all resources are made of: codings, quantities, references, identifiers; and errors.

SMART's fhirclient builds them. It checks elements and types but no value sets, so each code is taken from R4.
"""

import hashlib
import json
import re
import uuid
from datetime import UTC, datetime
from typing import Any, TypeVar

from fhirclient.models.codeableconcept import CodeableConcept
from fhirclient.models.coding import Coding
from fhirclient.models.fhirreference import FHIRReference
from fhirclient.models.identifier import Identifier
from fhirclient.models.meta import Meta
from fhirclient.models.operationoutcome import OperationOutcome, OperationOutcomeIssue
from fhirclient.models.quantity import Quantity

CONTENT_TYPE = "application/fhir+json"
NDJSON = "application/fhir+ndjson"

BASE = "https://biomechgpt.example/fhir"
"""Namespace of our own codes and identifiers; nothing is fetched from it."""
TERMS = "http://terminology.hl7.org/CodeSystem"

UCUM: dict[str, str] = {
    "m/s": "m/s",
    "steps/min": "{steps}/min",
    "s": "s",
    "m": "m",
    "%": "%",
    "deg": "deg",
    "degrees": "deg",
    "": "1",
}
"""Unit in words -> UCUM code; a ratio or a probability has the empty unit. Other units have no code."""

ISSUES: dict[str, str] = {
    "bad_recording": "invalid",
    "bad_request": "invalid",
    "unauthorized": "login",
    "forbidden": "forbidden",
    "too_large": "too-long",
    "busy": "throttled",
    "too_many": "throttled",
    "timeout": "timeout",
    "not_found": "not-found",
    "not_allowed": "not-supported",
    "not_acceptable": "not-supported",
    "unsupported_type": "not-supported",
    "internal": "exception",
}
"""Our error code -> R4 issue-type."""

_NOT_TEXT = re.compile(r"[^\S \r\n\t]|[\x00-\x08\x0e-\x1f\x7f-\x9f\ud800-\udfff]")

R = TypeVar("R")


def new(kind: type[R], /, **values: Any) -> R:
    """An element with these values, without those that are None. fhirclient alone would ignore a misspelt name."""
    element = kind()
    for name, value in values.items():
        if not hasattr(element, name):
            raise AttributeError(f"{kind.__name__} has no element {name!r}")
        if value is not None:
            setattr(element, name, value)
    return element


def system(name: str) -> str:
    """The URL of one of our code systems: `task`, or `task-diagnosis` for the labels of a task."""
    return f"{BASE}/CodeSystem/{resource_id(name)}"


def resource_id(name: str) -> str:
    """A name as the id of a resource, which has letters, digits, `-` and `.` only."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", name)[:64]


def profile(name: str) -> str:
    """The URL of one of our profiles."""
    return f"{BASE}/StructureDefinition/{name}"


def coding(system: str, code: str, display: str | None = None) -> Coding:
    return new(Coding, system=system, code=code, display=display)


def concept(*codings: tuple[str, ...], text: str | None = None) -> CodeableConcept:
    return new(CodeableConcept, coding=[coding(*values) for values in codings] or None, text=text)


def absent(code: str, text: str | None) -> CodeableConcept:
    """The reason why there is no value: a code of R4's data-absent-reason, and words."""
    display = code.replace("-", " ").title()
    return concept((f"{TERMS}/data-absent-reason", code, display), text=text)


def quantity(value: float, unit: str | None) -> Quantity:
    """A number with its unit. None: the unit is not known."""
    code = None if unit is None else UCUM.get(unit)
    system = "http://unitsofmeasure.org" if code else None
    return new(Quantity, value=value, unit=unit or None, system=system, code=code)


def reference(url: str | None) -> FHIRReference | None:
    return new(FHIRReference, reference=url) if url else None


def identifier(kind: str, value: str) -> Identifier:
    return new(Identifier, system=f"{BASE}/identifier/{kind}", value=value)


def meta(tags: list[Coding], security: list[Coding] | None = None, profiles: list[str] | None = None) -> Any:
    """Tags, security labels and profiles; None without any."""
    if not (tags or security or profiles):
        return None
    return new(Meta, tag=tags or None, security=security or None, profile=profiles or None)


def digest(*texts: str) -> str:
    """A checksum of texts. JSON keeps them apart: ("a", "bc") and ("ab", "c") have different checksums."""
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()


def urn(kind: str, key: str) -> str:
    """The fullUrl of a resource, which is the same each time for the same key."""
    return f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'{BASE}/{kind}/{key}')}"


def instant(moment: datetime) -> str:
    """A time with a time zone as an R4 instant, in UTC and milliseconds."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def clean(value: str | None) -> str | None:
    """A string without the control characters and rare spaces that FHIR forbids; None if nothing is left."""
    return _NOT_TEXT.sub(" ", value or "").strip() or None


def code_of(value: str | None) -> str:
    """A string as a code, which has no space at its ends and only single ones within."""
    return " ".join((clean(value) or "").split())


def information(text: str) -> dict[str, Any]:
    """Something that is no error, as an OperationOutcome."""
    issue = new(
        OperationOutcomeIssue, severity="information", code="informational", details=concept(text=text)
    )
    result: dict[str, Any] = new(OperationOutcome, issue=[issue]).as_json()
    return result


def outcome(code: str, message: str) -> dict[str, Any]:
    """An error of ISSUES as an OperationOutcome. Raises ValueError for another code."""
    if code not in ISSUES:
        raise ValueError(f"code: expected one of {', '.join(ISSUES)}, found {code!r}")
    details = concept((system("error"), code, code.replace("_", " ")), text=clean(message) or code)
    issue = new(OperationOutcomeIssue, severity="error", code=ISSUES[code], details=details)
    result: dict[str, Any] = new(OperationOutcome, issue=[issue]).as_json()
    return result
