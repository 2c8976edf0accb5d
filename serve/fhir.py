"""Answers as FHIR R4: a Bundle of preliminary Observations with their report, model and provenance; errors.

SMART's fhirclient builds the resources. It checks elements and types but no value sets, so each code here is
taken from R4. An answer gets a LOINC or SNOMED CT code only if the code means the same. Resources made by AI are
labelled as HL7's AI Transparency on FHIR (ballot of January 2026) asks: the security label `AIAST`, and a
Provenance with the model as a Device. Knows nothing about models or recordings, only the responses of the JSON API.
"""

import base64
import binascii
import contextlib
import hashlib
import json
import math
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
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
from fhirclient.models.observation import Observation, ObservationComponent, ObservationReferenceRange
from fhirclient.models.operationoutcome import OperationOutcome, OperationOutcomeIssue
from fhirclient.models.parameters import Parameters
from fhirclient.models.provenance import Provenance, ProvenanceAgent, ProvenanceEntity
from fhirclient.models.quantity import Quantity
from fhirclient.models.range import Range
from starlette.datastructures import UploadFile

from biomechgpt.answering.answer import Measured
from biomechgpt.answering.measured import in_words
from serve.schema import Answer, Answers, ModelSummary, StatedParameter

CONTENT_TYPE = "application/fhir+json"

BASE = "https://biomechgpt.example/fhir"
"""Namespace of our own codes and identifiers; nothing is fetched from it."""
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
"""Task -> (system, code, display). LOINC has walking speed only as the mean of a day or of a named test. No LOINC
code was found for cadence or for the four square step test."""

UCUM: dict[str, str] = {"m/s": "m/s", "steps/min": "{steps}/min", "s": "s", "m": "m", "%": "%"}
"""Unit of a task -> UCUM code. Other units have no code."""

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
    "internal": "exception",
}
"""Our error code -> R4 issue-type."""

_TERMS = "http://terminology.hl7.org/CodeSystem"
_AI = ("http://hl7.org/fhir/uv/aitransparency/CodeSystem/AIdeviceTypeCS", "Artificial-Intelligence",
       "All kinds of Artificial Intelligence")  # fmt: skip
_ASSERTED = (f"{_TERMS}/v3-ObservationValue", "AIAST", "Artificial Intelligence asserted")
_METHOD = (
    "Answer of a language model to a question about motion tokens of 34 joint angles (motion capture); "
    "not reviewed by a person"
)
_METHOD_MEASURED = (
    "Measured from 34 joint angles and the pelvis (motion capture) by kinematics, without a language model; "
    "not reviewed by a person"
)
_PATIENT = re.compile(r"Patient/[A-Za-z0-9.-]{1,64}")
_NOT_TEXT = re.compile(r"[^\S \r\n\t]|[\x00-\x08\x0e-\x1f\x7f-\x9f\ud800-\udfff]")

R = TypeVar("R")


def bundle(
    answers: Answers, *, subject: str | None, recorded: datetime, source_sha256: str
) -> dict[str, Any]:
    """The answers about a recording as a Bundle of type collection.

    answers: the response of the JSON API.
    subject: the person, as a reference `Patient/ID` on the server that will receive the Bundle.
    recorded: when the answers were made, with a time zone. When the movement was recorded is unknown.
    source_sha256: checksum of the recording's file, 64 hex digits.
    Resources are identified by subject, recording, model and question. The same request gives the same
    identifiers; a request with a corrected subject gives others.
    Raises ValueError for a subject, time or checksum of another form.
    """
    if subject is not None and not _PATIENT.fullmatch(subject):
        raise ValueError(f"subject: expected Patient/ID, found {subject!r}")
    if recorded.utcoffset() is None:
        raise ValueError("recorded: expected a time with a time zone, found one without")
    if not re.fullmatch(r"[0-9a-f]{64}", source_sha256):
        raise ValueError(f"source_sha256: expected 64 hex digits, found {source_sha256!r}")
    time = recorded.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    context = (subject or "", source_sha256, answers.model.fingerprint)
    keys = _keys(context, answers.answers)
    bundle_key = _digest(*keys, *context)
    tags = _tags(answers.model.data)

    device_url = _url("Device", answers.model.fingerprint)
    observation_urls = [_url("Observation", key) for key in keys]
    report_url = _url("DiagnosticReport", bundle_key)
    observations = [
        observation(answer, key=key, time=time, subject=subject, device_url=device_url, tags=tags)
        for key, answer in zip(keys, answers.answers, strict=True)
    ]
    entries = [
        (
            report_url,
            report(
                answers,
                key=bundle_key,
                time=time,
                subject=subject,
                observation_urls=observation_urls,
                tags=tags,
            ),
        ),
        *zip(observation_urls, observations, strict=True),
        (device_url, _device(answers.model, _text(answers.notice), tags)),
        (
            _url("Provenance", bundle_key),
            provenance(
                answers,
                time=time,
                target_urls=[report_url, *observation_urls],
                device_url=device_url,
                source_sha256=source_sha256,
                tags=tags,
            ),
        ),
    ]
    resource = _new(
        Bundle,
        meta=_meta(tags, asserted=True),
        identifier=_identifier("bundle", bundle_key),
        type="collection",
        timestamp=FHIRInstant(time),
        entry=[_new(BundleEntry, fullUrl=url, resource=entry) for url, entry in entries],
    )
    result: dict[str, Any] = resource.as_json()
    return result


def observation(
    answer: Answer, *, key: str, time: str, subject: str | None, device_url: str, tags: list[Coding]
) -> Observation:
    """One answer as a preliminary Observation.

    key: identifies the answer.
    time: when it was made, as an R4 instant.
    subject: the person, as Patient/ID.
    device_url: fullUrl of the model's Device.
    """
    by_model = answer.answered_by == "model"
    return _new(
        Observation,
        meta=_meta(tags, asserted=by_model),
        identifier=[_identifier("answer", key)],
        status="preliminary",
        # Not `activity`: in R4 that category is for unsupervised activity, such as steps per day.
        category=[_concept((f"{_TERMS}/observation-category", "exam", "Exam"))],
        issued=FHIRInstant(time),
        method=_concept(text=_METHOD if by_model else _METHOD_MEASURED),
        device=_reference(device_url),
        subject=_reference(subject),
        **_content(answer),
    )


def report(
    answers: Answers,
    *,
    key: str,
    time: str,
    subject: str | None,
    observation_urls: Sequence[str],
    tags: list[Coding],
) -> DiagnosticReport:
    """The DiagnosticReport of all answers. Parameters as for `observation`."""
    title = "Answers about a recorded movement"
    return _new(
        DiagnosticReport,
        meta=_meta(tags, asserted=True),
        identifier=[_identifier("report", key)],
        status="preliminary",
        code=_concept((TASKS, "report", title), text=title),
        issued=FHIRInstant(time),
        result=[_reference(url) for url in observation_urls],
        conclusion=_conclusion(answers),
        subject=_reference(subject),
    )


def provenance(
    answers: Answers,
    *,
    time: str,
    target_urls: Sequence[str],
    device_url: str,
    source_sha256: str,
    tags: list[Coding],
) -> Provenance:
    """The Provenance: the model made the target resources from the recording's file."""
    source = _new(
        FHIRReference,
        type="DocumentReference",
        identifier=_identifier("recording-sha256", source_sha256),
        display=_text(answers.recording.name) if answers.recording else None,
    )
    agent = _new(
        ProvenanceAgent,
        type=_concept((f"{_TERMS}/provenance-participant-type", "performer", "Performer")),
        role=[_concept(_AI)],
        who=_reference(device_url),
    )
    return _new(
        Provenance,
        meta=_meta(tags),
        target=[_reference(url) for url in target_urls],
        recorded=FHIRInstant(time),
        reason=[_concept(_ASSERTED)],
        agent=[agent],
        entity=[_new(ProvenanceEntity, role="source", what=source)],
    )


def _keys(context: Sequence[str], answers: Sequence[Answer]) -> list[str]:
    """A key for each answer, from the context and its task, or else its question."""
    keys: list[str] = []
    for answer in answers:
        query = ["task", answer.task] if answer.task else ["question", answer.question]
        repetition = 0
        while (key := _digest(*context, *query, str(repetition))) in keys:
            repetition += 1  # the same question twice gives two answers, whose words may differ
        keys.append(key)
    return keys


def _content(answer: Answer) -> dict[str, Any]:
    """Code, notes, and value of an Observation, or the reason why it has none."""
    text, question = _text(answer.text), _text(answer.question) or "(no question)"
    notes = [f"Asked: {question}", f"Answered: {text or '(nothing)'}"]
    return {
        "code": _code(answer, question),
        "note": [_new(Annotation, text=note) for note in notes],
        **_value(answer, text),
        "component": [
            *_measured_components(answer.measured),
            *_stated_components(answer.stated_parameters),
            *_trust_components(answer),
        ],
    }


def _code(answer: Answer, question: str) -> CodeableConcept:
    """The code of an Observation: a standard one if the task has one, and our own."""
    if not answer.task:
        return _concept((TASKS, "question", "A question in free words"), text=question)
    name = answer.task.replace("_", " ")
    standard = [STANDARD_CODES[answer.task]] if answer.task in STANDARD_CODES else []
    return _concept(*standard, (TASKS, answer.task, name), text=name)


def _value(answer: Answer, text: str | None) -> dict[str, Any]:
    """The value of an answer: a quantity, a label, words, or a reason for its absence."""
    label = " ".join((_text(answer.label) or "").split())
    if answer.value is not None and math.isfinite(answer.value):
        return {"valueQuantity": _number(answer.value, _text(answer.unit), text or "")}
    if label:
        coding = (f"{TASKS}/{answer.task or 'question'}", label)
        return {"valueCodeableConcept": _concept(coding, text=text or label)}
    if answer.refused:
        reason = (f"{_TERMS}/data-absent-reason", "unsupported", "Unsupported")
        if answer.status == "does_not_apply":
            reason = (f"{_TERMS}/data-absent-reason", "not-applicable", "Not Applicable")
        return {"dataAbsentReason": _concept(reason, text=text)}
    is_measured = answer.answered_by == "kinematics"
    if text and (answer.task is None or answer.stated_parameters or is_measured):
        return {"valueString": text}
    reason = (f"{_TERMS}/data-absent-reason", "unknown", "Unknown")
    explanation = "The answer states nothing that the task asks for"
    if answer.uncertain:
        explanation = " ".join(filter(None, [text, _text(answer.advice)]))
    return {"dataAbsentReason": _concept(reason, text=explanation)}


def _number(value: float, unit: str | None, text: str) -> Quantity:
    """A number with its unit. The digits of a decimal are its precision in FHIR: 104.0 only if the text says so."""
    number = int(value) if float(value).is_integer() and str(float(value)) not in text else value
    return _quantity(number, unit)


def _quantity(value: float, unit: str | None) -> Quantity:
    ucum = UCUM.get(unit or "")
    system = "http://unitsofmeasure.org" if ucum else None
    return _new(Quantity, value=value, unit=unit or None, system=system, code=ucum)


def _trust_components(answer: Answer) -> list[ObservationComponent]:
    """How far the answer can be trusted: its status, whether it applies, and the check of the recording."""

    def component(name: str, **value: Any) -> ObservationComponent:
        code = _concept((TASKS, name, name.replace("-", " ")), text=name.replace("-", " "))
        return _new(ObservationComponent, code=code, **value)

    unlike = answer.unlike
    components = [
        component("status", valueCodeableConcept=_concept((TASKS, answer.status), text=answer.status))
    ]
    if answer.applies is not None:
        components.append(component("applies", valueQuantity=_quantity(round(answer.applies, 4), None)))
    components.append(component("unlike-checked", valueBoolean=unlike.checked))
    components.append(component("unlike", valueBoolean=unlike.unlike))
    components.append(component("unlike-participants", valueInteger=unlike.participants))
    if unlike.value is not None:
        components.append(component("unlike-value", valueQuantity=_quantity(unlike.value, unlike.unit)))
    if unlike.usual:
        low, high = (_quantity(end, unlike.unit) for end in unlike.usual)
        components.append(component("unlike-usual", valueRange=_new(Range, low=low, high=high)))
    return components


def _measured_components(measured: Sequence[Measured]) -> list[ObservationComponent]:
    """One component for each measured value: what it rests on, and the norm as a reference range."""
    components = []
    for value in measured:
        name = ", ".join(filter(None, [value.label, value.part]))
        rests_on = in_words([replace(value, part="")])
        absent, ranges = None, None
        if value.value is None:
            reason = (f"{_TERMS}/data-absent-reason", "unsupported", "Unsupported")
            absent = _concept(reason, text=_text(value.reason))
        elif value.norm is not None:
            # The range of about 95 in 100 people: mean -+ 2 SD.
            low, high = (value.norm.mean + times * value.norm.sd for times in (-2, 2))
            low, high = (_quantity(round(end, 3), value.unit) for end in (low, high))
            group = f"{value.norm.group}: mean -+ 2 SD. {value.norm.source}"
            ranges = [_new(ObservationReferenceRange, low=low, high=high, text=_text(group))]
        components.append(
            _new(
                ObservationComponent,
                code=_concept((TASKS, f"measured-{value.quantity}", name), text=f"{name}: {rests_on}"),
                valueQuantity=None if value.value is None else _quantity(value.value, value.unit),
                dataAbsentReason=absent,
                referenceRange=ranges,
            )
        )
    return components


def _stated_components(stated: Sequence[StatedParameter]) -> list[ObservationComponent]:
    """One component for each stated parameter, with the measured value if it disagrees."""
    components = []
    for parameter in stated:
        measured = "nothing" if parameter.measured is None else f"{parameter.measured:g}"
        doubt = None if parameter.agrees else [_concept(text=f"Not confirmed: {measured} was measured")]
        components.append(
            _new(
                ObservationComponent,
                code=_concept((TASKS, "fact", parameter.name), text=parameter.name),
                valueQuantity=_quantity(parameter.stated, parameter.unit),
                interpretation=doubt,
            )
        )
    return components


def _conclusion(answers: Answers) -> str:
    """The text of a report: what made the answers, what it read, and that they are not reviewed."""
    recording, notice = answers.recording, _text(answers.notice)
    sentences = [
        *([_text(answers.summary)] if answers.summary else []),
        f"Automatic answers about one recorded movement, of a model trained on {_nature(answers.model.data)}. "
        "They are preliminary: no person has reviewed them.",
    ]
    if recording and recording.used_s < recording.duration_s:
        sentences.append(f"The model read the first {recording.used_s:g} of {recording.duration_s:g} s.")
    if recording and recording.missing_joints:
        sentences.append(f"Not recorded and taken as 0: {', '.join(recording.missing_joints)}.")
    if notice is None or "no clinical claim" not in notice.lower():
        sentences.append("No clinical claim is made.")
    return _text(" ".join([*filter(None, sentences), notice or ""])) or ""


def _device(model: ModelSummary, notice: str | None, tags: list[Coding]) -> Device:
    """The model as AI Transparency's AI-Device."""
    versions = {"bundle fingerprint": model.fingerprint}
    with contextlib.suppress(metadata.PackageNotFoundError):  # run from its sources
        versions["biomechgpt"] = metadata.version("biomechgpt")
    properties = {"language base": _text(model.base) or "unknown", "training data": _nature(model.data)}
    return _new(
        Device,
        meta=_meta(tags),
        identifier=[_identifier("model-fingerprint", model.fingerprint)],
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
    """The kind of training data in words."""
    return f"{data} data" if data not in ("", "none") else "data of unknown nature"


def _tags(data: str) -> list[Coding]:
    """Tags that keep the answers of a model trained on simulated people out of a patient's care."""
    if "synthetic" not in data.split():
        return []
    return [
        _coding(f"{_TERMS}/v3-ActReason", "HTEST", "test health data"),
        _coding(f"{BASE}/CodeSystem/data", "synthetic", "The model was trained on synthetic data"),
    ]


def _meta(tags: list[Coding], asserted: bool = False) -> Meta | None:
    """Tags, and the security label AIAST if AI asserted the content of the resource."""
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
    result: dict[str, Any] = _new(OperationOutcome, issue=[issue]).as_json()
    return result


@dataclass(frozen=True)
class Operation:
    """The input of `$answer-motion`.

    recording: the uploaded file; None if it was left out.
    tasks: names of tasks.
    question: a question in free words.
    subject: the person, as Patient/ID.
    """

    recording: UploadFile | None = None
    tasks: list[str] = field(default_factory=list)
    question: str | None = None
    subject: str | None = None


def parameters(body: Any) -> Operation:
    """The input of `$answer-motion` from a Parameters resource.

    The file is made from the title and the data of the attachment.
    Raises ValueError that names the wrong parameter.
    """
    kinds = {"recording": "valueAttachment", "task": "valueCode", "question": "valueString",
             "subject": "valueReference"}  # fmt: skip
    expected = ", ".join(f"{name} ({kind})" for name, kind in kinds.items())
    try:
        if body["resourceType"] != "Parameters":
            raise ValueError
        entries = Parameters(body).parameter or []
    except Exception:  # fhirclient raises plain Exceptions, whose text has addresses of objects
        raise ValueError(f"expected an R4 Parameters resource of {expected}, found another body") from None
    values: dict[str, list[Any]] = {name: [] for name in kinds}
    for entry in entries:
        if entry.name not in kinds:
            raise ValueError(f"parameter {entry.name!r}: expected one of {expected}")
        value = getattr(entry, kinds[entry.name])
        if value is None:
            raise ValueError(f"{entry.name}: expected {kinds[entry.name]}, found another value or none")
        values[entry.name].append(value)
    for name in ("recording", "question", "subject"):
        if len(values[name]) > 1:
            raise ValueError(f"{name}: expected one, found {len(values[name])}")
    subjects = [reference.reference for reference in values["subject"]]
    if subjects == [None]:
        raise ValueError("subject: expected valueReference.reference, found none")
    return Operation(
        recording=_file(values["recording"][0]) if values["recording"] else None,
        tasks=values["task"],
        question=(values["question"] or [None])[0],
        subject=(subjects or [None])[0],
    )


def _file(attachment: Any) -> UploadFile:
    """The file of an Attachment."""
    try:
        # R4's base64Binary may contain line breaks.
        content = base64.b64decode("".join((attachment.data or "").split()), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("recording: expected valueAttachment.data in base64, found other text") from None
    if not content:
        raise ValueError("recording: expected valueAttachment.data (a url is not followed), found none")
    return UploadFile(BytesIO(content), size=len(content), filename=attachment.title or "recording")


def capability_statement(version: str) -> dict[str, Any]:
    """The resource that `GET [base]/metadata` returns, for a version of the API."""
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
    statement: dict[str, Any] = _new(
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
    return statement


def _new(kind: type[R], /, **values: Any) -> R:
    """An element with these values, without those that are None. fhirclient alone would ignore a misspelt name."""
    element = kind()
    for name, value in values.items():
        if not hasattr(element, name):
            raise AttributeError(f"{kind.__name__} has no element {name!r}")
        if value is not None:
            setattr(element, name, value)
    return element


def _reference(url: str | None) -> FHIRReference | None:
    return _new(FHIRReference, reference=url) if url else None


def _coding(system: str, code: str, display: str | None = None) -> Coding:
    return _new(Coding, system=system, code=code, display=display)


def _concept(*codings: tuple[str, ...], text: str | None = None) -> CodeableConcept:
    return _new(CodeableConcept, coding=[_coding(*coding) for coding in codings] or None, text=text)


def _identifier(kind: str, value: str) -> Identifier:
    return _new(Identifier, system=f"{BASE}/identifier/{kind}", value=value)


def _digest(*texts: str) -> str:
    """A checksum of texts. JSON keeps them apart: ("a", "bc") and ("ab", "c") have different checksums."""
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()


def _url(kind: str, key: str) -> str:
    """The fullUrl of a resource, which is the same each time for the same key."""
    return f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'{BASE}/{kind}/{key}')}"


def _text(value: str | None) -> str | None:
    """A string without the control characters and rare spaces that FHIR forbids; None if nothing is left."""
    return _NOT_TEXT.sub(" ", value or "").strip() or None
