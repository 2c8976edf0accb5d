"""Answers as FHIR R4: a Bundle of preliminary Observations with their report, model and provenance; errors.

Made with SMART's fhirclient, which checks elements and types but no value sets: each code here is R4's own.
An answer gets a LOINC or SNOMED CT code only where one is known to mean it. AI's part is labelled as HL7's
AI Transparency on FHIR (ballot of January 2026) asks: `AIAST` on what a model asserted, a Provenance with
the model as a Device. Knows nothing about models or recordings, only what the JSON API says of them.
"""

import base64
import binascii
import contextlib
import hashlib
import json
import math
import re
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from io import BytesIO
from typing import Any, TypeVar

from fhirclient.models.annotation import Annotation
from fhirclient.models.bundle import Bundle, BundleEntry
from fhirclient.models.capabilitystatement import (
    CapabilityStatement,
    CapabilityStatementImplementation,
    CapabilityStatementRest,
    CapabilityStatementRestResourceOperation,
    CapabilityStatementRestSecurity,
    CapabilityStatementSoftware,
)
from fhirclient.models.codeableconcept import CodeableConcept
from fhirclient.models.coding import Coding
from fhirclient.models.device import Device, DeviceDeviceName, DeviceProperty, DeviceVersion
from fhirclient.models.diagnosticreport import DiagnosticReport
from fhirclient.models.fhirdatetime import FHIRDateTime
from fhirclient.models.fhirinstant import FHIRInstant
from fhirclient.models.fhirreference import FHIRReference
from fhirclient.models.identifier import Identifier
from fhirclient.models.meta import Meta
from fhirclient.models.observation import Observation, ObservationComponent
from fhirclient.models.operationoutcome import OperationOutcome, OperationOutcomeIssue
from fhirclient.models.parameters import Parameters
from fhirclient.models.provenance import Provenance, ProvenanceAgent, ProvenanceEntity
from fhirclient.models.quantity import Quantity
from starlette.datastructures import UploadFile

CONTENT_TYPE = "application/fhir+json"

BASE = "https://biomechgpt.example/fhir"
"""Names our own codes and identifiers; nothing is fetched from it."""
TASKS = f"{BASE}/CodeSystem/task"
OPERATION = "answer-motion"

STANDARD_CODES: dict[str, tuple[str, str, str]] = {
    "tug_time": (
        "http://loinc.org",
        "89423-8",
        "Time to rise from chair, walk 10 feet and back, and return to sitting [TUG]",
    ),
    "walking_speed": ("http://snomed.info/sct", "724237005", "Gait speed (observable entity)"),
}
"""Task -> (system, code, display). Walking speed in LOINC is a day's mean or a named test's; no LOINC code
was found for cadence or the four square step test."""

UCUM: dict[str, str] = {"m/s": "m/s", "steps/min": "{steps}/min", "s": "s"}
"""A task's unit -> its UCUM code; another unit is stated in words alone."""

ISSUES: dict[str, str] = {
    "bad_recording": "invalid",
    "bad_request": "invalid",
    "unauthorized": "login",
    "too_large": "too-long",
    "busy": "throttled",
    "not_found": "not-found",
    "internal": "exception",
}
"""Our error codes -> R4's issue-type."""

_TERMS = "http://terminology.hl7.org/CodeSystem"
_AI = ("http://hl7.org/fhir/uv/aitransparency/CodeSystem/AIdeviceTypeCS", "Artificial-Intelligence",
       "All kinds of Artificial Intelligence")  # fmt: skip
_ASSERTED = (f"{_TERMS}/v3-ObservationValue", "AIAST", "Artificial Intelligence asserted")
_METHOD = (
    "Answer of a language model to a question about motion tokens of 34 joint angles (motion capture); "
    "not reviewed by a person"
)
_PATIENT = re.compile(r"Patient/[A-Za-z0-9.-]{1,64}")
_NOT_TEXT = re.compile(r"[^\S \r\n\t]|[\x00-\x08\x0e-\x1f\x7f-\x9f\ud800-\udfff]")

R = TypeVar("R")


def bundle(
    result: Mapping[str, Any], *, subject: str | None, recorded: datetime, source_sha256: str
) -> dict[str, Any]:
    """The JSON API's answers to a recording as a Bundle of type collection.

    result: what the API returns (recording, answers, model, notice). subject: who was recorded, as a
    reference `Patient/ID` to where the Bundle goes. recorded: when the answers were made, with a time zone;
    when the movement was made, nobody said. source_sha256: of the recording's file, 64 hex digits.
    Resources are identified by subject, recording, model and question: asking again makes the same ones, and
    asking again about a corrected subject makes others.
    Raises ValueError for a subject, time or checksum of another form.
    """
    if subject is not None and not _PATIENT.fullmatch(subject):
        raise ValueError(f"subject: expected Patient/ID, found {subject!r}")
    if recorded.utcoffset() is None:
        raise ValueError("recorded: expected a time with a time zone, found one without")
    if not re.fullmatch(r"[0-9a-f]{64}", source_sha256):
        raise ValueError(f"source_sha256: expected 64 hex digits, found {source_sha256!r}")
    model, notice = result["model"], _text(result["notice"])
    time = recorded.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    about_what = (subject or "", source_sha256, model["fingerprint"])
    keys = _keys(about_what, result["answers"])
    whole = _digest(*keys, *about_what)
    tags = _tags(model["data"])
    about = {"subject": _new(FHIRReference, reference=subject) if subject else None}

    device = _device(model, notice, tags)
    device_url = _url("Device", model["fingerprint"])
    urls = [_url("Observation", key) for key in keys]
    observations = [
        _new(
            Observation,
            meta=_meta(tags, asserted=True),
            identifier=[_identifier("answer", key)],
            status="preliminary",
            # Not `activity`, R4's category of what nobody supervised, such as a day's steps.
            category=[_concept((f"{_TERMS}/observation-category", "exam", "Exam"))],
            issued=FHIRInstant(time),
            method=_concept(text=_METHOD),
            device=_new(FHIRReference, reference=device_url),
            **_answer(answer),
            **about,
        )
        for key, answer in zip(keys, result["answers"], strict=True)
    ]
    report_url = _url("DiagnosticReport", whole)
    report = _new(
        DiagnosticReport,
        meta=_meta(tags, asserted=True),
        identifier=[_identifier("report", whole)],
        status="preliminary",
        code=_concept((TASKS, "report", "Answers about a recorded movement"),
                      text="Answers about a recorded movement"),
        issued=FHIRInstant(time),
        result=[_new(FHIRReference, reference=url) for url in urls],
        conclusion=_conclusion(result, notice),
        **about,
    )  # fmt: skip
    source = _new(
        FHIRReference,
        type="DocumentReference",
        identifier=_identifier("recording-sha256", source_sha256),
        display=_text((result.get("recording") or {}).get("name")),
    )
    provenance = _new(
        Provenance,
        meta=_meta(tags),
        target=[_new(FHIRReference, reference=url) for url in (report_url, *urls)],
        recorded=FHIRInstant(time),
        reason=[_concept(_ASSERTED)],
        agent=[
            _new(
                ProvenanceAgent,
                type=_concept((f"{_TERMS}/provenance-participant-type", "performer", "Performer")),
                role=[_concept(_AI)],
                who=_new(FHIRReference, reference=device_url),
            )
        ],
        entity=[_new(ProvenanceEntity, role="source", what=source)],
    )
    entries = [
        (report_url, report),
        *zip(urls, observations, strict=True),
        (device_url, device),
        (_url("Provenance", whole), provenance),
    ]
    made = _new(
        Bundle,
        meta=_meta(tags, asserted=True),
        identifier=_identifier("bundle", whole),
        type="collection",
        timestamp=FHIRInstant(time),
        entry=[_new(BundleEntry, fullUrl=url, resource=resource) for url, resource in entries],
    )
    return made.as_json()


def _keys(about_what: Sequence[str], answers: Sequence[Mapping[str, Any]]) -> list[str]:
    """What identifies each answer: what it is about, and its task or else its question."""
    keys: list[str] = []
    for answer in answers:
        asked = ["task", answer["task"]] if answer["task"] else ["question", answer["question"]]
        again = 0
        while (key := _digest(*about_what, *asked, str(again))) in keys:
            again += 1  # asked twice: two answers, which may differ in words
        keys.append(key)
    return keys


def _answer(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Code, notes and value of an Observation; or why it has none."""
    task, text, value = answer["task"], _text(answer["text"]), answer["value"]
    question = _text(answer["question"]) or "(no question)"
    label = " ".join((_text(answer["label"]) or "").split())
    if task:
        name = task.replace("_", " ")
        code = _concept(*([STANDARD_CODES[task]] if task in STANDARD_CODES else []), (TASKS, task, name),
                        text=name)  # fmt: skip
    else:
        code = _concept((TASKS, "question", "A question in free words"), text=question)
    element: dict[str, Any]
    if value is not None and math.isfinite(value):
        unit = _text(answer["unit"])
        ucum = UCUM.get(unit or "")
        # A decimal's digits are its precision in FHIR: 104.0 only where the answer said so.
        number = int(value) if float(value).is_integer() and str(float(value)) not in (text or "") else value
        system = "http://unitsofmeasure.org" if ucum else None
        element = {"valueQuantity": _new(Quantity, value=number, unit=unit, system=system, code=ucum)}
    elif label:
        coding = (f"{TASKS}/{task or 'question'}", label)
        element = {"valueCodeableConcept": _concept(coding, text=text or label)}
    elif answer.get("refused"):
        reason = (f"{_TERMS}/data-absent-reason", "unsupported", "Unsupported")
        element = {"dataAbsentReason": _concept(reason, text=text)}
    elif text and (task is None or answer.get("facts")):
        element = {"valueString": text, **_components(answer.get("facts") or [])}
    else:
        reason = (f"{_TERMS}/data-absent-reason", "unknown", "Unknown")
        why = "The answer states nothing that the task asks for"
        if answer.get("uncertain"):
            why = " ".join(filter(None, [text, _text(answer.get("advice") or "")]))
        element = {"dataAbsentReason": _concept(reason, text=why)}
    notes = [f"Asked: {question}", f"Answered: {text or '(nothing)'}"]
    return {"code": code, "note": [_new(Annotation, text=note) for note in notes], **element}


def _components(facts: list[Mapping[str, Any]]) -> dict[str, Any]:
    """What a description states, a component a fact, with what was measured where that is something else."""
    made = []
    for fact in facts:
        ucum = UCUM.get(fact["unit"])
        system = "http://unitsofmeasure.org" if ucum else None
        value = _new(Quantity, value=fact["stated"], unit=fact["unit"] or None, system=system, code=ucum)
        measured = "nothing" if fact["measured"] is None else f"{fact['measured']:g}"
        doubt = None if fact["agrees"] else [_concept(text=f"Not confirmed: {measured} was measured")]
        code = _concept((TASKS, "fact", fact["name"]), text=fact["name"])
        made.append(_new(ObservationComponent, code=code, valueQuantity=value, interpretation=doubt))
    return {"component": made} if made else {}


def _conclusion(result: Mapping[str, Any], notice: str | None) -> str:
    model, recording = result["model"], result.get("recording") or {}
    parts = [
        f"Automatic answers about one recorded movement, of a model trained on {_nature(model['data'])}. "
        "They are preliminary: no person has reviewed them.",
    ]
    used, duration = recording.get("used_s"), recording.get("duration_s")
    if used is not None and duration is not None and used < duration:
        parts.append(f"The model read the first {used:g} of {duration:g} s.")
    if recording.get("missing_joints"):
        parts.append(f"Not recorded and taken as 0: {', '.join(recording['missing_joints'])}.")
    if notice is None or "no clinical claim" not in notice.lower():
        parts.append("No clinical claim is made.")
    return _text(" ".join([*parts, notice or ""])) or ""


def _device(model: Mapping[str, Any], notice: str | None, tags: list[Coding]) -> Device:
    """The model as AI Transparency's AI-Device."""
    versions = {"bundle fingerprint": model["fingerprint"]}
    with contextlib.suppress(metadata.PackageNotFoundError):  # run from its sources
        versions["biomechgpt"] = metadata.version("biomechgpt")
    properties = {"language base": _text(model["base"]) or "unknown", "training data": _nature(model["data"])}
    return _new(
        Device,
        meta=_meta(tags),
        identifier=[_identifier("model-fingerprint", model["fingerprint"])],
        deviceName=[_new(DeviceDeviceName, name="BiomechGPT", type="model-name")],
        type=_concept(_AI),
        version=[_new(DeviceVersion, type=_concept(text=k), value=v) for k, v in versions.items()],
        property=[
            _new(DeviceProperty, type=_concept(text=k), valueCode=[_concept(text=v)])
            for k, v in properties.items()
        ],
        note=[_new(Annotation, text=notice)] if notice else None,
    )


def _nature(data: str) -> str:
    return f"{data} data" if data not in ("", "none") else "data of unknown nature"


def _tags(data: str) -> list[Coding]:
    """What keeps answers of a model that learned from simulated people out of a patient's care."""
    if "synthetic" not in data.split():
        return []
    return [
        _coding(f"{_TERMS}/v3-ActReason", "HTEST", "test health data"),
        _coding(f"{BASE}/CodeSystem/data", "synthetic", "The model was trained on synthetic data"),
    ]


def _meta(tags: list[Coding], asserted: bool = False) -> Meta | None:
    security = [_coding(*_ASSERTED)] if asserted else []
    return _new(Meta, security=security, tag=tags) if security or tags else None


def outcome(code: str, message: str) -> dict[str, Any]:
    """An error of ISSUES as an OperationOutcome. Raises ValueError for another code."""
    if code not in ISSUES:
        raise ValueError(f"code: expected one of {', '.join(ISSUES)}, found {code!r}")
    details = _concept(
        (f"{BASE}/CodeSystem/error", code, code.replace("_", " ")), text=_text(message) or code
    )
    issue = _new(OperationOutcomeIssue, severity="error", code=ISSUES[code], details=details)
    return _new(OperationOutcome, issue=[issue]).as_json()


def parameters(body: Any) -> dict[str, Any]:
    """What `$answer-motion` is asked for, of a Parameters resource: recording, tasks, question, subject.

    recording is an uploaded file, made of the attachment's title and data, and like question and subject
    None where it is left out. Raises ValueError naming the parameter that is wrong.
    """
    kinds = {"recording": "valueAttachment", "task": "valueCode", "question": "valueString",
             "subject": "valueReference"}  # fmt: skip
    wanted = ", ".join(f"{name} ({kind})" for name, kind in kinds.items())
    try:
        if body["resourceType"] != "Parameters":
            raise ValueError
        given = Parameters(body).parameter or []
    except Exception:  # fhirclient's own are plain Exceptions, and carry addresses of objects
        raise ValueError(f"expected an R4 Parameters resource of {wanted}, found another body") from None
    values: dict[str, list[Any]] = {name: [] for name in kinds}
    for each in given:
        if each.name not in kinds:
            raise ValueError(f"parameter {each.name!r}: expected one of {wanted}")
        value = getattr(each, kinds[each.name])
        if value is None:
            raise ValueError(f"{each.name}: expected {kinds[each.name]}, found another value or none")
        values[each.name].append(value)
    for name in ("recording", "question", "subject"):
        if len(values[name]) > 1:
            raise ValueError(f"{name}: expected one, found {len(values[name])}")
    subjects = [reference.reference for reference in values["subject"]]
    if subjects == [None]:
        raise ValueError("subject: expected valueReference.reference, found none")
    return {
        "recording": _file(values["recording"][0]) if values["recording"] else None,
        "tasks": values["task"],
        "question": (values["question"] or [None])[0],
        "subject": (subjects or [None])[0],
    }


def _file(attachment: Any) -> UploadFile:
    try:
        # base64Binary may be broken into lines.
        content = base64.b64decode("".join((attachment.data or "").split()), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("recording: expected valueAttachment.data in base64, found other text") from None
    if not content:
        raise ValueError("recording: expected valueAttachment.data (a url is not followed), found none")
    return UploadFile(BytesIO(content), size=len(content), filename=attachment.title or "recording")


def capability_statement(version: str) -> dict[str, Any]:
    """What `GET [base]/metadata` returns, of this version of the interface."""
    operation = _new(
        CapabilityStatementRestResourceOperation,
        name=OPERATION,
        definition=f"{BASE}/OperationDefinition/{OPERATION}",
        documentation=(
            f"POST [base]/${OPERATION}: Parameters of `recording` (valueAttachment: title, data), `task` "
            "(valueCode, repeated; `all` asks for every task), `question` (valueString), `subject` "
            "(valueReference to a Patient). Returns a Bundle of type collection; nothing is stored."
        ),
    )
    rest = _new(
        CapabilityStatementRest,
        mode="server",
        security=_new(
            CapabilityStatementRestSecurity,
            description="A key, as a bearer token in the header Authorization.",
        ),
        operation=[operation],
    )
    return _new(
        CapabilityStatement,
        url=f"{BASE}/CapabilityStatement/biomechgpt",
        version=version,
        name="BiomechGPT",
        title="Answers to questions about how a person moves",
        status="active",
        experimental=True,
        date=FHIRDateTime("2026-11-24"),
        description="Research software, not a medical device. No clinical claim is made.",
        kind="instance",
        software=_new(CapabilityStatementSoftware, name="BiomechGPT", version=version),
        implementation=_new(
            CapabilityStatementImplementation,
            description="A model of movement behind one system-level operation",
        ),
        fhirVersion="4.0.1",
        format=[CONTENT_TYPE],
        rest=[rest],
    ).as_json()


def _new(kind: type[R], /, **values: Any) -> R:
    """An element with these values, None left out; fhirclient itself would take a misspelt name silently."""
    made = kind()
    for name, value in values.items():
        if not hasattr(made, name):
            raise AttributeError(f"{kind.__name__} has no element {name!r}")
        if value is not None:
            setattr(made, name, value)
    return made


def _coding(system: str, code: str, display: str | None = None) -> Coding:
    return _new(Coding, system=system, code=code, display=display)


def _concept(*codings: tuple[str, ...], text: str | None = None) -> CodeableConcept:
    return _new(CodeableConcept, coding=[_coding(*coding) for coding in codings] or None, text=text)


def _identifier(kind: str, value: str) -> Identifier:
    return _new(Identifier, system=f"{BASE}/identifier/{kind}", value=value)


def _digest(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _url(kind: str, key: str) -> str:
    return f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'{BASE}/{kind}/{key}')}"


def _text(value: str | None) -> str | None:
    """A string as FHIR allows it, without control characters and rare spaces; None where nothing is left."""
    return _NOT_TEXT.sub(" ", value or "").strip() or None
