"""Answers as a Bundle: preliminary Observations with their report, model and provenance.

An answer gets a LOINC or SNOMED CT code only if the code means the same. Probabilities and intervals are components
of the Observation: a DiagnosticReport can name Observations only, and a RiskAssessment needs a known subject.
Resources made by AI are labelled as HL7's AI Transparency on FHIR (ballot of January 2026) asks: the security label
`AIAST`, its extension for the confidence in a value, and a Provenance with the model as a Device.

Nothing coded contradicts a measured value. A number of the model that kinematics does not confirm is only in the
notes, which are words.
"""

import contextlib
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from importlib import metadata
from typing import Any
from urllib.parse import quote

from fhirclient.models.annotation import Annotation
from fhirclient.models.bundle import Bundle, BundleEntry, BundleEntryRequest
from fhirclient.models.codeableconcept import CodeableConcept
from fhirclient.models.coding import Coding
from fhirclient.models.device import Device, DeviceDeviceName, DeviceProperty, DeviceVersion
from fhirclient.models.diagnosticreport import DiagnosticReport
from fhirclient.models.extension import Extension
from fhirclient.models.fhirdatetime import FHIRDateTime
from fhirclient.models.fhirinstant import FHIRInstant
from fhirclient.models.fhirreference import FHIRReference
from fhirclient.models.observation import Observation, ObservationComponent, ObservationReferenceRange
from fhirclient.models.period import Period
from fhirclient.models.provenance import Provenance, ProvenanceAgent, ProvenanceEntity
from fhirclient.models.range import Range

from biomechgpt.answering.answer import Measured
from biomechgpt.answering.measured import in_words
from serve.fhir import codes
from serve.fhir.elements import (
    BASE,
    TERMS,
    absent,
    clean,
    code_of,
    coding,
    concept,
    digest,
    identifier,
    instant,
    meta,
    new,
    profile,
    quantity,
    reference,
    system,
    urn,
)
from serve.fhir.operation import Operation, Source
from serve.schema import Answer, Answers, ModelSummary, StatedParameter

AI_CONFIDENCE = "http://hl7.org/fhir/uv/aitransparency/StructureDefinition/AIconfidence"
"""Extension for how sure an AI is of a value: a probability, or an interval."""
_AI = ("http://hl7.org/fhir/uv/aitransparency/CodeSystem/AIdeviceTypeCS", "Artificial-Intelligence",
       "All kinds of Artificial Intelligence")  # fmt: skip
_ASSERTED = (f"{TERMS}/v3-ObservationValue", "AIAST", "Artificial Intelligence asserted")
_NOTHING_SAID = Operation()
_METHOD = (
    "Answer of a language model to a question about motion tokens of 34 joint angles (motion capture); "
    "not reviewed by a person"
)
_METHOD_MEASURED = (
    "Measured from 34 joint angles and the pelvis (motion capture) by kinematics, without a language model; "
    "not reviewed by a person"
)


def bundle(
    answers: Answers, *, recorded: datetime, sources: Sequence[Source], operation: Operation = _NOTHING_SAID
) -> dict[str, Any]:
    """The answers about one or several recordings as a Bundle.

    answers: the response of the JSON API.
    recorded: when the answers were made, with a time zone.
    sources: the files of the recordings.
    operation: what the request says about the person and the movement; and whether the Bundle is a collection, or a
        transaction that a FHIR server can store. Its entries are created only if the server does not have them.
    Resources are identified by what the request says, recordings, model and question. The same request gives the
    same identifiers; a request with a corrected subject gives others.
    Raises ValueError for a time or checksum of another form.
    """
    if recorded.utcoffset() is None:
        raise ValueError("recorded: expected a time with a time zone, found one without")
    for source in sources:
        if not re.fullmatch(r"[0-9a-f]{64}", source.sha256):
            raise ValueError(f"source: expected a SHA-256 of 64 hex digits, found {source.sha256!r}")
    time = instant(recorded)
    context = (operation.key(), *(source.sha256 for source in sources), answers.model.fingerprint)
    keys = _keys(context, answers.answers)
    bundle_key = digest(*keys, *context)
    tags = _tags(answers.model.data)
    about = _about(operation, time)

    device_url = urn("Device", answers.model.fingerprint)
    observation_urls = [urn("Observation", key) for key in keys]
    report_url = urn("DiagnosticReport", bundle_key)
    resources: list[tuple[str, Any]] = [
        (report_url, report(answers, key=bundle_key, about=about, result=observation_urls, tags=tags)),
        *(
            (url, observation(answer, key=key, about=about, device_url=device_url, tags=tags))
            for url, key, answer in zip(observation_urls, keys, answers.answers, strict=True)
        ),
        (device_url, _device(answers.model, clean(answers.notice), tags)),
        (
            urn("Provenance", bundle_key),
            provenance(
                key=bundle_key,
                time=time,
                target_urls=[report_url, *observation_urls],
                device_url=device_url,
                sources=sources,
                performers=about.get("performer"),
                tags=tags,
            ),
        ),
    ]
    resource = new(
        Bundle,
        meta=meta(tags, [coding(*_ASSERTED)]),
        identifier=identifier("bundle", bundle_key),
        type="transaction" if operation.transaction else "collection",
        timestamp=FHIRInstant(time),
        entry=[
            new(
                BundleEntry,
                fullUrl=url,
                resource=entry,
                request=_create(entry) if operation.transaction else None,
            )
            for url, entry in resources
        ],
    )
    result: dict[str, Any] = resource.as_json()
    return result


def _create(resource: Any) -> BundleEntryRequest:
    """Creates a resource on a server that has none with the same identifier.

    A Provenance has no identifier in R4, so it is found by a tag.
    """
    name, found = "identifier", getattr(resource, "identifier", None)
    if found:
        token = f"{found[0].system}|{found[0].value}"
    else:
        name, tag = "_tag", resource.meta.tag[-1]
        token = f"{tag.system}|{tag.code}"
    kind = resource.resource_type
    return new(BundleEntryRequest, method="POST", url=kind, ifNoneExist=f"{name}={quote(token, safe=':/')}")


def _about(operation: Operation, time: str) -> dict[str, Any]:
    """Elements of every Observation and report: the person, the encounter, the order, times, and who recorded."""
    references = {
        "subject": operation.subject,
        "encounter": operation.encounter,
        "basedOn": operation.based_on,
        "performer": operation.performer,
    }
    return {
        "issued": FHIRInstant(time),
        **{name: _references(given) for name, given in references.items() if given},
        **_effective(operation.effective),
    }


def _references(given: Any) -> Any:
    return [FHIRReference(one) for one in given] if isinstance(given, tuple) else FHIRReference(given)


def _effective(given: str | dict[str, str] | None) -> dict[str, Any]:
    """When the person moved. Without it the time is unknown: it is not that of the answer."""
    if given is None:
        return {}
    if isinstance(given, str):
        return {"effectiveDateTime": FHIRDateTime(given)}
    return {"effectivePeriod": Period(given)}


def observation(
    answer: Answer, *, key: str, about: dict[str, Any], device_url: str, tags: list[Coding]
) -> Observation:
    """One answer as a preliminary Observation.

    key: identifies the answer.
    about: elements that all Observations share.
    device_url: fullUrl of the model's Device.
    """
    by_model = answer.answered_by == "model"
    return new(
        Observation,
        meta=meta(tags, [coding(*_ASSERTED)] if by_model else None, [profile("answer")]),
        identifier=[identifier("answer", key)],
        status="preliminary",
        # Not `activity`: in R4 that category is for unsupervised activity, such as steps per day.
        category=[concept((f"{TERMS}/observation-category", "exam", "Exam"))],
        method=concept(text=_METHOD if by_model else _METHOD_MEASURED),
        device=reference(device_url),
        **about,
        **_content(answer),
    )


def report(
    answers: Answers, *, key: str, about: dict[str, Any], result: Sequence[str], tags: list[Coding]
) -> DiagnosticReport:
    """The DiagnosticReport of all answers. result: fullUrls of the Observations; others as for `observation`."""
    title = "Answers about a recorded movement"
    return new(
        DiagnosticReport,
        meta=meta(tags, [coding(*_ASSERTED)], [profile("report")]),
        identifier=[identifier("report", key)],
        status="preliminary",
        code=concept((system("task"), "report", title), text=title),
        result=[reference(url) for url in result],
        conclusion=_conclusion(answers),
        **about,
    )


def provenance(
    *,
    key: str,
    time: str,
    target_urls: Sequence[str],
    device_url: str,
    sources: Sequence[Source],
    performers: Sequence[FHIRReference] | None,
    tags: list[Coding],
) -> Provenance:
    """The Provenance: the model made the target resources from the files of the recordings."""
    agent = new(
        ProvenanceAgent,
        type=concept((f"{TERMS}/provenance-participant-type", "performer", "Performer")),
        role=[concept(_AI)],
        who=reference(device_url),
        onBehalfOf=performers[0] if performers else None,
    )
    entities = [
        new(
            ProvenanceEntity,
            role="source",
            what=new(
                FHIRReference,
                reference=source.reference,
                type="DocumentReference",
                identifier=identifier("recording-sha256", source.sha256),
                display=clean(source.name),
            ),
        )
        for source in sources
    ]
    return new(
        Provenance,
        meta=meta([*tags, coding(f"{BASE}/identifier/provenance", key)]),
        target=[reference(url) for url in target_urls],
        recorded=FHIRInstant(time),
        reason=[concept(_ASSERTED)],
        agent=[agent],
        entity=entities,
    )


def _keys(context: Sequence[str], answers: Sequence[Answer]) -> list[str]:
    """A key for each answer, from the context and its task, or else its question."""
    keys: list[str] = []
    for answer in answers:
        query = ["task", answer.task] if answer.task else ["question", answer.question]
        repetition = 0
        while (key := digest(*context, *query, str(repetition))) in keys:
            repetition += 1  # the same question twice gives two answers, whose words may differ
        keys.append(key)
    return keys


def _content(answer: Answer) -> dict[str, Any]:
    """Code, notes, and value of an Observation, or the reason why it has none."""
    text, question = clean(answer.text), clean(answer.question) or "(no question)"
    notes = [f"Asked: {question}", f"Answered: {text or '(nothing)'}"]
    value = _value(answer, text)
    return {
        "code": _code(answer, question),
        "note": [new(Annotation, text=note) for note in notes],
        **value,
        "extension": _confidence(answer, value),
        "component": [
            *_measured_components(answer.measured),
            *_stated_components(answer.stated_parameters),
            *_probability_components(answer),
            *(_interval_components(answer) if "valueQuantity" in value else []),
            *_trust_components(answer),
        ],
    }


def _code(answer: Answer, question: str) -> CodeableConcept:
    """The code of an Observation: a standard one if the task has one, and our own."""
    if not answer.task:
        return concept((system("task"), "question", "A question in free words"), text=question)
    name = answer.task.replace("_", " ")
    measured = {value.quantity for value in answer.measured} if answer.answered_by == "kinematics" else set()
    same = measured.pop() if len(measured) == 1 else codes.TASK_QUANTITIES.get(answer.task, "")
    standard = [codes.STANDARD_CODES[same]] if same in codes.STANDARD_CODES else []
    return concept(*standard, (system("task"), answer.task, name), text=name)


def _value(answer: Answer, text: str | None) -> dict[str, Any]:
    """The value of an answer: a quantity, a label, words, or a reason for its absence."""
    label = code_of(answer.label)
    if answer.value is not None and math.isfinite(answer.value):
        if unconfirmed := _unconfirmed(answer):
            return {"dataAbsentReason": absent("unknown", unconfirmed)}
        return {"valueQuantity": _number(answer.value, clean(answer.unit), text or "")}
    if label:
        return {"valueCodeableConcept": concept((_labels(answer), label), text=text or label)}
    if answer.refused:
        does_not_apply = answer.status == "does_not_apply"
        return {"dataAbsentReason": absent("not-applicable" if does_not_apply else "unsupported", text)}
    if contradicted := [parameter for parameter in answer.stated_parameters if not parameter.agrees]:
        doubts = "; ".join(_doubt(parameter) for parameter in contradicted)
        return {"dataAbsentReason": absent("unknown", f"Not confirmed by the recording: {doubts}")}
    is_measured = answer.answered_by == "kinematics"
    if text and (answer.task is None or answer.stated_parameters or is_measured):
        return {"valueString": text}
    explanation = "The answer states nothing that the task asks for"
    if answer.uncertain:
        explanation = " ".join(filter(None, [text, clean(answer.advice)]))
    return {"dataAbsentReason": absent("unknown", explanation)}


def _unconfirmed(answer: Answer) -> str | None:
    """Why a model's number is not coded; None if it is.

    A number that differs from the measured one makes the answer uncertain before it comes here. Where kinematics
    finds nothing to measure, such as a walk in a recording of sitting, the number is not confirmed either.
    """
    if answer.answered_by != "model" or not answer.measured or answer.measured[0].value is not None:
        return None
    return clean(f"The model says {answer.text}, but nothing could be measured: {answer.measured[0].reason}")


def _labels(answer: Answer) -> str:
    """The code system of a task's labels."""
    return system(f"task-{answer.task or 'question'}")


def _number(value: float, unit: str | None, text: str) -> Any:
    """A number with its unit. The digits of a decimal are its precision in FHIR: 104.0 only if the text says so."""
    number = int(value) if float(value).is_integer() and str(float(value)) not in text else value
    return quantity(number, unit or "")


def _confidence(answer: Answer, value: dict[str, Any]) -> list[Extension] | None:
    """How sure the model is of the value: the probability of its label, or the interval of its number."""
    if answer.answered_by != "model":
        return None
    if "valueCodeableConcept" in value and answer.label in answer.probabilities:
        return [_probability(answer.probabilities[answer.label])]
    if "valueQuantity" in value and answer.low is not None and answer.high is not None:
        return [new(Extension, url=AI_CONFIDENCE, valueRange=_range(answer.low, answer.high, answer.unit))]
    return None


def _probability(value: float) -> Extension:
    return new(Extension, url=AI_CONFIDENCE, valueDecimal=round(value, 4))


def _range(low: float, high: float, unit: str | None) -> Range:
    return new(Range, low=quantity(low, unit), high=quantity(high, unit))


def _component(name: str, **value: Any) -> ObservationComponent:
    """A component of `codes.COMPONENTS`."""
    meaning = codes.COMPONENTS[name]
    return new(
        ObservationComponent, code=concept((system("component"), name, meaning), text=meaning), **value
    )


def _probability_components(answer: Answer) -> list[ObservationComponent]:
    """The probability of each label, and the labels that cannot be ruled out."""
    components = []
    for label, probability in answer.probabilities.items():
        if code := code_of(label):
            components.append(
                new(
                    ObservationComponent,
                    code=concept((_labels(answer), code), text=f"Probability of: {code}"),
                    valueQuantity=quantity(round(probability, 4), ""),
                    extension=[_probability(probability)],
                )
            )
    possible = [code for label in answer.prediction_set if (code := code_of(label))]
    if possible:
        components.append(_component("prediction-set", valueString="; ".join(possible)))
    return components


def _interval_components(answer: Answer) -> list[ObservationComponent]:
    """The interval of a number."""
    if answer.low is None or answer.high is None:
        return []
    interval = _range(answer.low, answer.high, answer.unit)
    confidence = new(Extension, url=AI_CONFIDENCE, valueRange=_range(answer.low, answer.high, answer.unit))
    return [_component("interval", valueRange=interval, extension=[confidence])]


def _trust_components(answer: Answer) -> list[ObservationComponent]:
    """How far the answer can be trusted: its status, whether it applies, and the check of the recording."""
    unlike = answer.unlike
    status = concept((system("status"), answer.status), text=answer.status)
    components = [_component("status", valueCodeableConcept=status)]
    if answer.applies is not None:
        components.append(_component("applies", valueQuantity=quantity(round(answer.applies, 4), "")))
    if answer.probabilities or answer.low is not None:
        components.append(_component("coverage-guaranteed", valueBoolean=answer.coverage_guaranteed))
    components.append(_component("unlike-checked", valueBoolean=unlike.checked))
    components.append(_component("unlike", valueBoolean=unlike.unlike))
    components.append(_component("unlike-participants", valueInteger=unlike.participants))
    if unlike.value is not None:
        components.append(_component("unlike-value", valueQuantity=quantity(unlike.value, unlike.unit)))
    if unlike.usual:
        low, high = unlike.usual
        components.append(_component("unlike-usual", valueRange=_range(low, high, unlike.unit)))
    return components


def _measured_components(measured: Sequence[Measured]) -> list[ObservationComponent]:
    """One component for each measured value: what it rests on, and the norm as a reference range."""
    components = []
    for value in measured:
        code, name = codes.quantity_code(value)
        rests_on = in_words([replace(value, part="")])
        reason, ranges = None, None
        if value.value is None:
            reason = absent("not-applicable", clean(value.reason))
        elif value.norm is not None:
            # The range of about 95 in 100 people: mean -+ 2 SD.
            low, high = (value.norm.mean + times * value.norm.sd for times in (-2, 2))
            low, high = (quantity(round(end, 3), value.unit) for end in (low, high))
            group = f"{value.norm.group}: mean -+ 2 SD. {value.norm.source}"
            ranges = [new(ObservationReferenceRange, low=low, high=high, text=clean(group))]
        components.append(
            new(
                ObservationComponent,
                code=concept((system("quantity"), code, name), text=clean(f"{name}: {rests_on}")),
                valueQuantity=None if value.value is None else quantity(value.value, value.unit),
                dataAbsentReason=reason,
                referenceRange=ranges,
            )
        )
    return components


def _stated_components(stated: Sequence[StatedParameter]) -> list[ObservationComponent]:
    """One component for each parameter of a description, with the measured value if they contradict each other."""
    components = []
    for parameter in stated:
        code, name = codes.parameter_code(parameter.name)
        value = parameter.stated if parameter.agrees else parameter.measured
        doubt = None if parameter.agrees else _doubt(parameter)
        components.append(
            new(
                ObservationComponent,
                code=concept((system("quantity"), code, name), text=doubt or name),
                valueQuantity=None if value is None else quantity(value, parameter.unit),
                dataAbsentReason=absent("unknown", doubt) if value is None else None,
            )
        )
    return components


def _doubt(parameter: StatedParameter) -> str:
    """What a description states and the recording does not confirm."""
    unit = f" {parameter.unit}".rstrip()
    measured = "nothing" if parameter.measured is None else f"{parameter.measured:g}{unit}"
    return f"{parameter.name}: the model states {parameter.stated:g}{unit}, {measured} was measured"


def _conclusion(answers: Answers) -> str:
    """The text of a report: what made the answers, what it read, and that they are not reviewed."""
    recording, notice = answers.recording, clean(answers.notice)
    sentences = [
        *([clean(answers.summary)] if answers.summary else []),
        f"Automatic answers about one recorded movement, of a model trained on {_nature(answers.model.data)}. "
        "They are preliminary: no person has reviewed them.",
    ]
    if recording and recording.used_s < recording.duration_s:
        sentences.append(f"The model read the first {recording.used_s:g} of {recording.duration_s:g} s.")
    if recording and recording.missing_joints:
        sentences.append(f"Not recorded and taken as 0: {', '.join(recording.missing_joints)}.")
    if notice is None or "no clinical claim" not in notice.lower():
        sentences.append("No clinical claim is made.")
    return clean(" ".join([*filter(None, sentences), notice or ""])) or ""


def _device(model: ModelSummary, notice: str | None, tags: list[Coding]) -> Device:
    """The model as AI Transparency's AI-Device."""
    versions = {"bundle fingerprint": model.fingerprint}
    with contextlib.suppress(metadata.PackageNotFoundError):  # run from its sources
        versions["biomechgpt"] = metadata.version("biomechgpt")
    properties = {"language base": clean(model.base) or "unknown", "training data": _nature(model.data)}
    return new(
        Device,
        meta=meta(tags),
        identifier=[identifier("model-fingerprint", model.fingerprint)],
        deviceName=[new(DeviceDeviceName, name="BiomechGPT", type="model-name")],
        type=concept(_AI),
        version=[new(DeviceVersion, type=concept(text=k), value=v) for k, v in versions.items()],
        property=[
            new(DeviceProperty, type=concept(text=k), valueCode=[concept(text=v)])
            for k, v in properties.items()
        ],
        note=[new(Annotation, text=notice)] if notice else None,
    )


def _nature(data: str) -> str:
    """The kind of training data in words."""
    return f"{data} data" if data not in ("", "none") else "data of unknown nature"


def _tags(data: str) -> list[Coding]:
    """Tags that keep the answers of a model trained on simulated people out of a patient's care."""
    if "synthetic" not in data.split():
        return []
    return [
        coding(f"{TERMS}/v3-ActReason", "HTEST", "test health data"),
        coding(system("data"), "synthetic", "The model was trained on synthetic data"),
    ]
