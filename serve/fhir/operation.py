"""The input of `$answer-motion`: what a request asks about which recording, of whom, when and by whose order.

It comes as FHIR Parameters or as a form. `PARAMETERS` is the list of what can be said; the OperationDefinition is
made from it. Nothing that a url points at is fetched.
"""

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from fhirclient.models.attachment import Attachment
from fhirclient.models.binary import Binary
from fhirclient.models.documentreference import DocumentReference
from fhirclient.models.fhirdatetime import FHIRDateTime
from fhirclient.models.parameters import Parameters
from starlette.datastructures import UploadFile

from biomechgpt.motion.quantities import Person
from serve.fhir.elements import clean, digest, new


@dataclass(frozen=True)
class Parameter:
    """A parameter of `$answer-motion`.

    types: R4 types of its value. Binary and DocumentReference are the parameter's `resource`.
    meaning: for the OperationDefinition.
    most: how often it may be given; None: any number.
    form: name of the form field of the same meaning.
    """

    types: tuple[str, ...]
    meaning: str
    most: int | None = 1
    form: str = ""


_FILE = ("Attachment", "Binary", "DocumentReference")
PARAMETERS: dict[str, Parameter] = {
    "recording": Parameter(_FILE, "The recording, with its data. A url is not followed.", form="recording"),
    "compareWith": Parameter(_FILE, "A second recording, which the questions call B.", form="compare_with"),
    "additionalRecording": Parameter(
        _FILE, "Further recordings of the same person.", None, "additional_recordings"
    ),
    "task": Parameter(("code",), "Name of a task; `all` asks for every task.", None, "tasks"),
    "question": Parameter(("string",), "A question in free words.", form="question"),
    "subject": Parameter(("Reference",), "The Patient.", form="subject"),
    "encounter": Parameter(("Reference",), "The Encounter.", form="encounter"),
    "basedOn": Parameter(("Reference",), "The order: a ServiceRequest or CarePlan.", None, "based_on"),
    "performer": Parameter(
        ("Reference",),
        "Who recorded the movement and answers for it: Practitioner, PractitionerRole, Organization or CareTeam.",
        None,
        "performer",
    ),
    "effective": Parameter(("dateTime", "Period"), "When the person moved.", form="effective"),
    "maxRisk": Parameter(("decimal",), "Highest accepted error rate of a label.", form="max_risk"),
    "age": Parameter(("decimal",), "Age in years, for norms.", form="age"),
    "sex": Parameter(("code",), "`female` or `male`, for norms.", form="sex"),
    "bundle": Parameter(
        ("code",),
        "`collection` (the default), or `transaction`: a Bundle that a FHIR server can store.",
        form="bundle",
    ),
}
KINDS: dict[str, tuple[str, ...]] = {
    "subject": ("Patient",),
    "encounter": ("Encounter",),
    "basedOn": ("ServiceRequest", "CarePlan"),
    "performer": ("Practitioner", "PractitionerRole", "Organization", "CareTeam"),
}
"""Parameter -> the resources that its Reference may name."""
BUNDLES = ("collection", "transaction")

_ID = r"[A-Za-z0-9.-]{1,64}"
_REFERENCE = re.compile(
    rf"(?P<base>https?://[^\s?#|]{{1,500}}/)?(?P<kind>[A-Za-z]{{1,40}})/(?P<id>{_ID})(?P<version>/_history/{_ID})?"
)
_DATE_TIME = re.compile(
    r"\d{4}(-(0[1-9]|1[0-2])(-(0[1-9]|[12]\d|3[01])"
    r"(T([01]\d|2[0-3]):[0-5]\d:([0-5]\d|60)(\.\d{1,9})?(Z|[+-]((0\d|1[0-3]):[0-5]\d|14:00)))?)?)?"
)

Reference = dict[str, Any]
"""A FHIR Reference in JSON, without the display, which may be a name."""


@dataclass(frozen=True)
class Source:
    """The file of a recording.

    name: of the file.
    sha256: its checksum, 64 hex digits.
    reference: the DocumentReference that holds it, if the request names it.
    """

    name: str
    sha256: str
    reference: str | None = None


@dataclass(frozen=True)
class Recording:
    """A recording of a request.

    file: as it was uploaded.
    reference: the DocumentReference that holds it, if it is one that a server has.
    """

    file: UploadFile
    reference: str | None = None

    async def source(self) -> Source:
        """Name and checksum of the file."""
        await self.file.seek(0)
        content = await self.file.read()
        await self.file.seek(0)
        return Source(self.file.filename or "recording", hashlib.sha256(content).hexdigest(), self.reference)


@dataclass(frozen=True)
class Operation:
    """The input of `$answer-motion`. Fields have the meanings of `PARAMETERS`; references are Reference elements.

    effective: a dateTime, or a Period.
    """

    recording: Recording | None = None
    compare_with: Recording | None = None
    additional: tuple[Recording, ...] = ()
    tasks: tuple[str, ...] = ()
    question: str | None = None
    subject: Reference | None = None
    encounter: Reference | None = None
    based_on: tuple[Reference, ...] = ()
    performer: tuple[Reference, ...] = ()
    effective: str | dict[str, str] | None = None
    max_risk: float | None = None
    person: Person = field(default_factory=Person)
    transaction: bool = False

    @property
    def recordings(self) -> list[Recording]:
        """All recordings, the first one first."""
        given = [self.recording, self.compare_with, *self.additional]
        return [recording for recording in given if recording is not None]

    def key(self) -> str:
        """A checksum of everything but recordings and questions. The version of a referenced resource does not
        count."""
        references = [self.subject, self.encounter, self.based_on, self.performer]
        text = json.dumps([references, self.effective, self.max_risk, self.person.age, self.person.sex])
        return digest(re.sub(rf"/_history/{_ID}", "", text))


def parameters(body: Any) -> Operation:
    """The input of `$answer-motion` from a Parameters resource. Raises ValueError that names a wrong parameter."""
    expected = ", ".join(f"{name} ({' or '.join(p.types)})" for name, p in PARAMETERS.items())
    try:
        if body["resourceType"] != "Parameters":
            raise ValueError
        entries = Parameters(body).parameter or []
    except Exception:  # fhirclient raises plain Exceptions, whose text has addresses of objects
        raise ValueError(f"expected an R4 Parameters resource of {expected}, found another body") from None
    values: dict[str, list[Any]] = {name: [] for name in PARAMETERS}
    for entry in entries:
        if entry.name not in PARAMETERS:
            raise ValueError(f"parameter {entry.name!r}: expected one of {expected}")
        values[entry.name].append(_value_of(entry))
    return operation(values)


def _value_of(entry: Any) -> Any:
    """The value of a parameter, in JSON, or as a fhirclient resource or Attachment."""
    types = PARAMETERS[entry.name].types
    found = [
        value
        for kind in types
        if (value := getattr(entry, f"value{kind[0].upper()}{kind[1:]}", None)) is not None
    ]
    if entry.resource is not None and entry.resource.resource_type in types:
        found.append(entry.resource)
    if len(found) != 1:
        names = " or ".join(
            f"resource {kind}"
            if kind in ("Binary", "DocumentReference")
            else f"value{kind[0].upper()}{kind[1:]}"
            for kind in types
        )
        raise ValueError(f"{entry.name}: expected {names}, found another value or none")
    value = found[0]
    if isinstance(value, Attachment | Binary | DocumentReference):
        return value
    return value.as_json() if hasattr(value, "as_json") else value


def form(fields: Mapping[str, Sequence[Any]]) -> Operation:
    """The input of `$answer-motion` from the fields of a form. Raises ValueError that names the wrong field."""
    values: dict[str, list[Any]] = {name: [] for name in PARAMETERS}
    names = {parameter.form: name for name, parameter in PARAMETERS.items()}
    for given, found in fields.items():
        name = names.get(given)
        if name is None:
            raise ValueError(f"{given}: expected one of the fields {', '.join(names)}")
        for value in found:
            is_file = PARAMETERS[name].types == _FILE
            if is_file == isinstance(value, str):
                raise ValueError(
                    f"{given}: expected {'a file, found text' if is_file else 'text, found a file'}"
                )
            if value == "":
                continue
            if name == "task":
                values[name] += [part.strip() for part in value.split(",") if part.strip()]
            else:
                values[name].append(_from_text(given, value, PARAMETERS[name].types[0]))
    return operation(values)


def _from_text(name: str, value: Any, kind: str) -> Any:
    """The value of a form field as JSON would have it."""
    if kind == "Reference":
        system, bar, identifier = value.partition("|")
        return {"identifier": {"system": system, "value": identifier}} if bar else {"reference": value}
    if kind == "decimal":
        try:
            return float(value)
        except ValueError:
            raise ValueError(f"{name}: expected a number, found {value[:40]!r}") from None
    if kind == "dateTime" and "/" in value:
        start, _, end = value.partition("/")
        return {key: time for key, time in (("start", start), ("end", end)) if time}
    return value


def operation(values: Mapping[str, Sequence[Any]]) -> Operation:
    """The input of `$answer-motion` from the values of each parameter. Raises ValueError that names a wrong one."""
    for name, parameter in PARAMETERS.items():
        if parameter.most is not None and len(values[name]) > parameter.most:
            raise ValueError(f"{name}: expected one, found {len(values[name])}")
    one: dict[str, Any] = {name: found[0] if found else None for name, found in values.items()}
    recording = _recording("recording", one["recording"])
    documents = [value for value in values["recording"] if isinstance(value, DocumentReference)]
    said = _said_by(documents[0]) if documents else {}
    for name, found in said.items():
        if one[name] is None:
            one[name] = found
    if one["bundle"] not in (None, *BUNDLES):
        raise ValueError(f"bundle: expected {' or '.join(BUNDLES)}, found {one['bundle']!r}")
    if one["sex"] not in (None, "female", "male"):
        raise ValueError(f"sex: expected female or male, found {one['sex']!r}")
    for name, high in (("maxRisk", 1.0), ("age", 120.0)):
        if one[name] is not None and not 0 <= float(one[name]) <= high:
            raise ValueError(f"{name}: expected a number from 0 to {high:g}, found {one[name]}")
    return Operation(
        recording=recording,
        compare_with=_recording("compareWith", one["compareWith"]),
        additional=tuple(
            found
            for value in values["additionalRecording"]
            if (found := _recording("additionalRecording", value)) is not None
        ),
        tasks=tuple(values["task"]),
        question=one["question"],
        subject=_reference("subject", one["subject"]),
        encounter=_reference("encounter", one["encounter"]),
        based_on=tuple(_reference("basedOn", value) or {} for value in values["basedOn"]),
        performer=tuple(_reference("performer", value) or {} for value in values["performer"]),
        effective=_effective(one["effective"]),
        max_risk=one["maxRisk"],
        person=Person(one["age"], one["sex"]),
        transaction=one["bundle"] == "transaction",
    )


def _said_by(document: Any) -> dict[str, Any]:
    """What a DocumentReference says besides its file: subject, encounter, and when the movement was recorded."""
    context = document.context
    encounters = [one for one in (context.encounter if context else None) or [] if _names("encounter", one)]
    attachment = document.content[0].attachment
    found = {
        "subject": document.subject.as_json() if document.subject else None,
        "encounter": encounters[0].as_json() if encounters else None,
        "effective": context.period.as_json() if context and context.period else None,
    }
    if found["effective"] is None and attachment.creation:
        found["effective"] = attachment.creation.as_json()
    return found


def _names(name: str, reference: Any) -> bool:
    """Whether a Reference names a resource that a parameter takes; an EpisodeOfCare is no Encounter."""
    try:
        _reference(name, reference.as_json())
    except ValueError:
        return False
    return True


def _recording(name: str, value: Any) -> Recording | None:
    """The recording of a form, an Attachment, a Binary or a DocumentReference. Raises ValueError."""
    if value is None or isinstance(value, Recording):
        return value
    if isinstance(value, Binary):
        attachment = new(Attachment, contentType=value.contentType, data=value.data)
        return Recording(_file(f"{name}.resource", attachment))
    if isinstance(value, DocumentReference):
        if value.status == "entered-in-error":
            raise ValueError(
                f"{name}: expected a DocumentReference that is in use, found status entered-in-error"
            )
        if len(value.content) != 1:
            raise ValueError(
                f"{name}: expected a DocumentReference of one content, found {len(value.content)}"
            )
        attachment = value.content[0].attachment
        contained = {f"#{one.id}": one for one in value.contained or [] if isinstance(one, Binary)}
        if attachment.data is None and attachment.url in contained:
            attachment.data = contained[attachment.url].data
        reference = f"DocumentReference/{value.id}" if value.id else None
        return Recording(_file(f"{name}.content.attachment", attachment, value.description), reference)
    return Recording(_file(name, value))


def _file(where: str, attachment: Any, title: str | None = None) -> UploadFile:
    """The file of an Attachment, whose size and SHA-1 are checked if they are given."""
    try:
        # R4's base64Binary may contain line breaks.
        content = base64.b64decode("".join((attachment.data or "").split()), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"{where}: expected data in base64, found other text") from None
    if not content:
        raise ValueError(f"{where}: expected data (a url is not followed), found none")
    if attachment.size is not None and attachment.size != len(content):
        raise ValueError(f"{where}: expected {attachment.size} bytes (size), found {len(content)}")
    if attachment.hash is not None:
        found = base64.b64encode(hashlib.sha1(content, usedforsecurity=False).digest()).decode()
        if "".join(attachment.hash.split()) != found:
            raise ValueError(f"{where}: expected data with the SHA-1 of hash, found {found}")
    return UploadFile(BytesIO(content), size=len(content), filename=attachment.title or title or "recording")


def _reference(name: str, value: Reference | None) -> Reference | None:
    """A Reference to one of KINDS, without its display. Raises ValueError for one of another form.

    It is relative (Patient/1), versioned (Patient/1/_history/2), absolute (https://ehr.example/fhir/Patient/1),
    or an identifier with a system.
    """
    if value is None:
        return None
    kinds = KINDS[name]
    expected = f"{name}: expected a reference {' or '.join(f'{kind}/ID' for kind in kinds)}, or an identifier"
    url, identifier, kind = value.get("reference"), value.get("identifier") or {}, value.get("type")
    if kind is not None and kind not in kinds:
        raise ValueError(f"{expected}; found type {kind!r}")
    if url is not None:
        match = _REFERENCE.fullmatch(url)
        if match is None or match["kind"] not in kinds or (kind or match["kind"]) != match["kind"]:
            raise ValueError(f"{expected}; found {url[:200]!r}")
        return {"reference": url}
    system, given = identifier.get("system"), identifier.get("value")
    if not (system and given and clean(given) == given and re.fullmatch(r"[^\s|]{1,500}", system)):
        raise ValueError(f"{expected} with a system and a value; found neither")
    return {"type": kind or kinds[0], "identifier": {"system": system, "value": given}}


def _effective(value: Any) -> str | dict[str, str] | None:
    """When the person moved. Raises ValueError for another form, or a period that ends before it begins."""
    if value is None:
        return None
    times = {"dateTime": value} if isinstance(value, str) else {k: value.get(k) for k in ("start", "end")}
    times = {name: time for name, time in times.items() if time is not None}
    moments: list[Any] = []
    for time in times.values():
        try:
            if not _DATE_TIME.fullmatch(time):
                raise ValueError
            moments.append(FHIRDateTime(time).date)  # no 31st of February
        except Exception:
            message = "effective: expected a date, or a time with a time zone"
            raise ValueError(f"{message} (2026-03-01T09:30:00+01:00), found {time[:60]!r}") from None
    if not times:
        raise ValueError("effective: expected a start or an end, found neither")
    if len(moments) == 2 and type(moments[0]) is type(moments[1]) and moments[0] > moments[1]:
        raise ValueError(
            f"effective: expected a start before the end, found {times['start']} to {times['end']}"
        )
    return value if isinstance(value, str) else times
