"""FHIR: resources are valid R4, by a library and by a schema, consistent and repeatable, and add no content."""

import asyncio
import base64
import hashlib
import json
import re
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from urllib.parse import unquote

import jsonschema
import pytest
from fhirclient.models.fhirelementfactory import FHIRElementFactory
from hypothesis import given, settings
from hypothesis import strategies as st

import real_recordings
from biomechgpt.answering.answer import Measured, Unlike
from biomechgpt.questions.tasks import load_tasks
from conftest import ROOT
from serve import fhir
from serve.fhir import answers as fhir_answers
from serve.fhir import codes
from serve.fhir.definitions import definitions
from serve.fhir.operation import Source, form
from serve.schema import Answer, Answers, ModelSummary, RecordingInfo, StatedParameter

SCHEMA = real_recordings.DATA / "fhir" / "fhir-r4.subset.schema.json"
NOW = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
SHA = "0123456789abcdef" * 4
NOTICE = "No clinical claim is made: this is research software."


def answer(task, text, label=None, value=None, unit=None, question="What is it?", **fields: Any) -> Answer:
    return Answer(task=task, question=question, text=text, label=label, value=value, unit=unit, **fields)


def unchecked(answer: Answer, **values: Any) -> Answer:
    """An answer with values that pydantic would refuse, such as half of a surrogate pair."""
    copied = replace(answer)
    for name, value in values.items():
        object.__setattr__(copied, name, value)
    return copied


def stated(name, unit, stated, measured, agrees) -> StatedParameter:
    return StatedParameter(
        name=name,
        unit=unit,
        stated=stated,
        measured=measured,
        agrees=agrees,
        normal_range=None,
        normal_range_source=None,
        normal_range_verified=None,
    )


RECORDING = RecordingInfo(
    name="walk 1.mot",
    frames=300,
    duration_s=40.0,
    used_s=32.5,
    frame_rate_hz=30.0,
    knee_flexion="negative",
    provenance="recorded",
    missing_joints=["arm_flex_r"],
    repairs=None,
)
RESULT = Answers(
    recording=RECORDING,
    answers=[
        answer("cadence", "104 steps/min", value=104.0, unit="steps/min"),
        answer("walking_speed", "1.25 m/s", value=1.25, unit="m/s"),
        answer("tug_time", "12.0 s", value=12.0, unit="s"),
        answer("range_of_motion", "61 deg", value=61.0, unit="deg"),
        answer("diagnosis", "spinal cord injury", label="SCI"),
        answer("fsst_time", "no idea", unit="s"),
        answer("diagnosis", "", question="And again?"),
        answer(None, "Rather slowly.", question="How does this person walk?"),
        answer(
            "description",
            "cadence 104 steps/min, right knee 61 deg",
            stated_parameters=[
                stated("cadence", "steps/min", 104, 103, True),
                stated("right knee", "deg", 61, 40, False),
            ],
        ),
        answer(None, "I cannot tell.", question="Who is it?", refused=True),
    ],
    model=ModelSummary(fingerprint="a" * 64, base="local stand-in", data="synthetic"),
    notice=NOTICE,
)


ABOUT: dict[str, Any] = {
    "encounter": {"reference": "Encounter/5"},
    "based_on": ({"reference": "ServiceRequest/6"},),
    "performer": ({"reference": "Organization/7"},),
    "effective": {"start": "2026-02-28T10:00:00+01:00", "end": "2026-02-28T10:00:40+01:00"},
}
"""What a request may say besides the person."""


def bundle_of(
    result: Answers = RESULT,
    subject: Any = "Patient/123",
    recorded: datetime = NOW,
    source_sha256: str = SHA,
    **said: Any,
) -> dict[str, Any]:
    operation = fhir.Operation(subject=subject and {"reference": subject}, **said)
    sources = [Source("walk 1.mot", source_sha256)]
    return fhir.bundle(result, recorded=recorded, sources=sources, operation=operation)


def with_model(**changes: str) -> Answers:
    return RESULT.model_copy(update={"model": RESULT.model.model_copy(update=changes)})


def resources_of(bundle: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    resources = [entry["resource"] for entry in bundle["entry"]]
    return [resource for resource in resources if resource["resourceType"] == kind]


def only(answer: Answer) -> dict[str, Any]:
    """The Observation of one answer."""
    (observation,) = resources_of(bundle_of(RESULT.model_copy(update={"answers": [answer]})), "Observation")
    return observation


def walk(element: Any):
    """Every object in a resource."""
    if isinstance(element, dict):
        yield element
        for value in element.values():
            yield from walk(value)
    elif isinstance(element, list):
        for value in element:
            yield from walk(value)


def measured(quantity: str, value: float | None, unit: str = "", **fields: Any) -> Measured:
    return Measured(quantity, codes.QUANTITIES[quantity].label, value=value, unit=unit, **fields)


SURE = [
    answer(
        "diagnosis",
        "stroke",
        label="stroke",
        probabilities={"stroke": 0.62, "TBI": 0.3, "SCI": 0.08},
        prediction_set=["stroke", "TBI"],
        coverage_guaranteed=True,
    ),
    answer(
        "walking_speed",
        "1.02 m/s",
        value=1.02,
        unit="m/s",
        low=0.9,
        high=1.1,
        measured=[measured("speed", 0.97, "m/s", steps=6, events="steps")],
    ),
]
"""Answers with everything that a model says about how sure it is."""


def described() -> dict[str, dict[str, dict[str, Any]]]:
    """The resources that describe the server, for the tasks of the settings files."""
    folders = [str(ROOT / "configs" / name) for name in ("tasks", "tasks_extra", "tasks_measured")]
    return definitions(load_tasks(folders), {"activity": ["overground walking", "sitting"]})


def examples() -> dict[str, dict[str, Any]]:
    """Resources of all kinds that the API returns."""
    resources = {f"outcome {code}": fhir.outcome(code, "what was wrong") for code in fhir.ISSUES}
    resources["capabilities"] = fhir.capability_statement("1.0")
    resources["bundle"] = bundle_of()
    resources["bundle with everything"] = bundle_of(**ABOUT)
    resources["transaction"] = bundle_of(**ABOUT, transaction=True)
    resources["information"] = fhir.information("not yet")
    resources["bundle of numbers and labels"] = bundle_of(RESULT.model_copy(update={"answers": SURE}))
    for kind, found in described().items():
        # HL7's schema of the tests has no StructureDefinition; fhir.resources checks it below.
        if kind != "StructureDefinition":
            resources |= {f"{kind} {name}": resource for name, resource in found.items()}
    resources["bundle without subject"] = bundle_of(subject=None)
    resources["bundle of a chat"] = bundle_of(
        RESULT.model_copy(update={"recording": None, "answers": RESULT.answers[-1:]})
    )
    resources["bundle of recorded data"] = bundle_of(with_model(data="recorded"))
    return resources


@pytest.mark.parametrize("name", examples())
def test_a_fhir_library_reads_a_resource_back_unchanged(name):
    resource = examples()[name]
    again = FHIRElementFactory.instantiate(resource["resourceType"], deepcopy(resource)).as_json()
    assert again == resource
    assert json.loads(json.dumps(resource, allow_nan=False)) == resource


@pytest.fixture(scope="module")
def schema():
    """HL7's schema. It chooses a resource's definition by its `resourceType`."""
    return json.loads(SCHEMA.read_text())


def check(schema: dict[str, Any], resource: dict[str, Any]) -> None:
    # Checked against the resource's own definition, because a failed choice among 20 kinds names no field.
    definition = {"$ref": f"#/definitions/{resource['resourceType']}", "definitions": schema["definitions"]}
    jsonschema.Draft6Validator(definition).validate(resource)


@pytest.mark.parametrize("name", examples())
def test_hl7s_schema_accepts_each_resource(schema, name):
    resource = examples()[name]
    for entry in resource.get("entry", []):
        check(schema, entry["resource"])
    check(schema, resource)
    jsonschema.Draft6Validator(schema).validate(resource)


def test_hl7s_schema_refuses_wrong_codes_that_fhirclient_accepts(schema):
    for wrong in ({"status": "bogus"}, {"resourceType": "Nonsense"}):
        (first, *_) = resources_of(bundle_of(), "Observation")
        assert not jsonschema.Draft6Validator(schema).is_valid(first | wrong)
    with pytest.raises(jsonschema.ValidationError, match="bogus"):
        check(schema, resources_of(bundle_of(), "Observation")[0] | {"status": "bogus"})


WILD = st.text(max_size=30) | st.sampled_from(
    ["\x00\x1f", " ", "a\u00a0b", "\ud800", "two  spaces", "x\n\ty"]
)


@given(
    st.lists(
        st.builds(
            lambda task, **values: unchecked(answer(task, ""), **values),
            st.sampled_from([None, "cadence", "diagnosis", "activity"]),
            text=WILD,
            label=st.none() | WILD,
            value=st.none() | st.floats(),
            unit=st.none() | st.sampled_from(["m/s", "s", "deg"]),
            question=WILD,
        ),
        max_size=4,
    ),
    WILD,
    WILD,
)
@settings(max_examples=60, deadline=None)
def test_a_bundle_is_valid_whatever_a_model_answers(schema, answers, notice, name):
    recording = RECORDING.model_copy(update={"name": name})
    result = RESULT.model_copy(update={"answers": answers, "notice": notice, "recording": recording})
    bundle = bundle_of(result)
    check(schema, bundle)
    json.dumps(bundle, allow_nan=False).encode()
    urls = [entry["fullUrl"] for entry in bundle["entry"]]
    assert len(set(urls)) == len(urls) == len(answers) + 3
    for code in fhir.ISSUES:
        check(schema, fhir.outcome(code, notice))


def test_every_reference_resolves_and_every_answer_has_a_report_and_a_provenance():
    bundle = bundle_of()
    assert bundle["type"] == "collection"
    urls = {entry["fullUrl"]: entry["resource"]["resourceType"] for entry in bundle["entry"]}
    assert all(re.fullmatch(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", url) for url in urls)
    references = [e["reference"] for e in walk(bundle) if isinstance(e.get("reference"), str)]
    assert set(references) <= {*urls, "Patient/123"}
    observed = {url for url, kind in urls.items() if kind == "Observation"}
    (report,), (provenance,) = resources_of(bundle, "DiagnosticReport"), resources_of(bundle, "Provenance")
    assert {r["reference"] for r in report["result"]} == observed
    assert len(observed) == len(RESULT.answers)
    asserted_by_ai = observed | {url for url, kind in urls.items() if kind == "DiagnosticReport"}
    assert {r["reference"] for r in provenance["target"]} == asserted_by_ai
    device = next(url for url, kind in urls.items() if kind == "Device")
    assert {o["device"]["reference"] for o in resources_of(bundle, "Observation")} == {device}
    (agent,), (entity,) = provenance["agent"], provenance["entity"]
    assert agent["who"]["reference"] == device
    assert agent["role"][0]["coding"][0]["code"] == "Artificial-Intelligence"
    assert provenance["reason"][0]["coding"][0]["code"] == "AIAST"
    assert (entity["role"], entity["what"]["identifier"]["value"]) == ("source", SHA)


def test_observations_and_report_name_the_subject_if_it_is_known():
    about = [*resources_of(bundle_of(), "Observation"), *resources_of(bundle_of(), "DiagnosticReport")]
    assert {r["subject"]["reference"] for r in about} == {"Patient/123"}
    assert "subject" not in json.dumps(bundle_of(subject=None))


@pytest.mark.parametrize(
    "subject",
    ["123", "Patient/", "patient/1", "Patient/1/2", "Patient/" + "1" * 65, "Group/1", "Patient/a b", "Patient/1\n",
     "urn:uuid:0", "#patient", "ftp://ehr.example/Patient/1", "https://ehr.example/Group/1", "Patient/1/_history/",
     "https://ehr.example/Patient?identifier=1", "|1", "https://ehr.example/mrn|", "a b|1"],
)  # fmt: skip
def test_a_subject_of_another_form_is_refused(subject):
    with pytest.raises(ValueError, match="subject: expected a reference Patient/ID, or an identifier"):
        form({"subject": [subject]})
    if "|" not in subject:
        with pytest.raises(ValueError, match="subject: expected a reference"):
            operation_of({"name": "subject", "valueReference": {"reference": subject}})


@pytest.mark.parametrize(
    "reference",
    [
        {"reference": "Patient/1"},
        {"reference": "Patient/1/_history/2"},
        {"reference": "https://ehr.example/fhir/r4/Patient/a-1.B"},
        {"reference": "https://ehr.example/fhir/Patient/1/_history/2"},
        {"type": "Patient", "identifier": {"system": "https://ehr.example/mrn", "value": "12 34"}},
    ],
)
def test_a_subject_may_be_relative_versioned_absolute_or_an_identifier(schema, reference):
    named = {**reference, "display": "A. Name"}
    operation = operation_of({"name": "subject", "valueReference": named})
    assert operation.subject == reference  # without the name
    text = reference.get("reference") or "https://ehr.example/mrn|12 34"
    assert form({"subject": [text]}).subject == reference
    bundle = fhir.bundle(RESULT, recorded=NOW, sources=[Source("x", SHA)], operation=operation)
    check(schema, bundle)
    assert all(r["subject"] == reference for r in resources_of(bundle, "Observation"))
    assert "A. Name" not in json.dumps(bundle)


def test_a_newer_version_of_the_same_patient_gets_the_same_ids():
    assert ids(bundle_of(subject="Patient/1")) == ids(bundle_of(subject="Patient/1/_history/3"))
    assert ids(bundle_of(subject="Patient/1")) != ids(bundle_of(subject="https://ehr.example/Patient/1"))


def test_a_time_without_a_zone_and_a_wrong_checksum_are_refused():
    with pytest.raises(ValueError, match="recorded: expected a time with a time zone"):
        bundle_of(recorded=datetime(2026, 3, 1))
    with pytest.raises(ValueError, match="source: expected a SHA-256 of 64 hex digits"):
        bundle_of(source_sha256="abc")
    elsewhere = NOW.astimezone(timezone(timedelta(hours=-7)))
    assert bundle_of(recorded=elsewhere) == bundle_of()
    assert bundle_of()["timestamp"] == "2026-03-01T12:30:00.000Z"


def ids(bundle: dict[str, Any]) -> set[str]:
    urls = {entry["fullUrl"] for entry in bundle["entry"]}
    values = {e["value"] for e in walk(bundle) if {"system", "value"} == set(e)}
    return urls | values


def test_the_same_input_has_the_same_ids_at_any_time():
    assert bundle_of() == bundle_of()
    assert ids(bundle_of()) == ids(bundle_of(recorded=NOW + timedelta(days=1)))
    assert ids(bundle_of()) & ids(bundle_of(with_model(fingerprint="b" * 64))) == {SHA}
    model = {
        "a" * 64,
        next(e["fullUrl"] for e in bundle_of()["entry"] if e["resource"]["resourceType"] == "Device"),
    }
    assert ids(bundle_of()) & ids(bundle_of(source_sha256="f" * 64)) == model
    # Answers that are sent again for another patient do not replace those of the first.
    for subject in ("Patient/124", None):
        assert ids(bundle_of()) & ids(bundle_of(subject=subject)) == model | {SHA}


def test_the_id_of_an_answer_does_not_depend_on_other_answers():
    alone = only(RESULT.answers[1])
    assert alone["identifier"] == resources_of(bundle_of(), "Observation")[1]["identifier"]
    other_words = only(replace(RESULT.answers[1], question="How fast?"))
    assert alone["identifier"] == other_words["identifier"]  # a task is the same in other words
    free = [only(answer(None, "x", question=q))["identifier"][0]["value"] for q in ("cadence", "speed")]
    task = only(answer("cadence", "x"))["identifier"][0]["value"]
    assert len({*free, task}) == 3


def test_numbers_have_units_and_codes_only_where_verified():
    cadence, speed, tug, motion, *_ = resources_of(bundle_of(), "Observation")
    ucum = "http://unitsofmeasure.org"
    assert cadence["valueQuantity"] == {
        "value": 104, "unit": "steps/min", "system": ucum, "code": "{steps}/min",
    }  # fmt: skip
    assert speed["valueQuantity"] == {"value": 1.25, "unit": "m/s", "system": ucum, "code": "m/s"}
    assert json.dumps(tug["valueQuantity"]["value"]) == "12.0"  # as precise as was said
    assert motion["valueQuantity"] == {"value": 61, "unit": "deg", "system": ucum, "code": "deg"}
    standard = {
        coding["code"]: coding["system"]
        for observation in resources_of(bundle_of(), "Observation")
        for coding in observation["code"]["coding"]
        if "biomechgpt.example" not in coding["system"]
    }
    assert standard == {"89423-8": "http://loinc.org", "724237005": "http://snomed.info/sct"}
    assert {o["status"] for o in resources_of(bundle_of(), "Observation")} == {"preliminary"}
    assert {r["status"] for r in resources_of(bundle_of(), "DiagnosticReport")} == {"preliminary"}


def test_labels_are_coded_and_free_answers_are_text():
    label, *_, words = resources_of(bundle_of(), "Observation")[4:-2]
    assert label["valueCodeableConcept"]["coding"][0]["code"] == "SCI"
    assert label["valueCodeableConcept"]["text"] == "spinal cord injury"
    assert words["valueString"] == "Rather slowly."
    assert words["code"]["text"] == "How does this person walk?"


@pytest.mark.parametrize("task", ["cadence", "diagnosis"])
@pytest.mark.parametrize("text", ["no idea", "", "\x00"])
@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_an_answer_that_states_nothing_has_no_value(task, text, value):
    observation = only(answer(task, text, value=value, unit="s"))
    assert not [name for name in observation if name.startswith("value")]
    assert observation["dataAbsentReason"]["coding"][0]["code"] == "unknown"
    notes = [note["text"] for note in observation["note"]]
    assert notes == ["Asked: What is it?", f"Answered: {text.strip(chr(0)) or '(nothing)'}"]


def test_resources_are_labelled_as_made_by_ai_and_name_the_training_data():
    bundle = bundle_of()
    for resource in (bundle, *(entry["resource"] for entry in bundle["entry"])):
        tags = {tag["code"]: tag for tag in resource["meta"]["tag"] if "/identifier/" not in tag["system"]}
        assert set(tags) == {"HTEST", "synthetic"}
        assert "synthetic data" in tags["synthetic"]["display"]
    for resource in (bundle, *resources_of(bundle, "Observation"), *resources_of(bundle, "DiagnosticReport")):
        assert [label["code"] for label in resource["meta"]["security"]] == ["AIAST"]
    (device,), (report,) = resources_of(bundle, "Device"), resources_of(bundle, "DiagnosticReport")
    for fact in ("a" * 64, "local stand-in", "synthetic data"):
        assert fact in json.dumps(device)
    for fact in ("trained on synthetic data", "o clinical claim", "first 32.5 of 40 s", "arm_flex_r"):
        assert fact in report["conclusion"]
    without_notice = bundle_of(RESULT.model_copy(update={"notice": ""}))
    (report,) = resources_of(without_notice, "DiagnosticReport")
    assert "o clinical claim" in report["conclusion"]


@pytest.mark.parametrize(
    ("data", "tagged"), [("synthetic and recorded", True), ("recorded", False), ("none", False)]
)
def test_only_a_model_of_synthetic_data_is_tagged_as_such(data, tagged):
    bundle = bundle_of(with_model(data=data))
    assert ("HTEST" in json.dumps(bundle)) == tagged
    assert "AIAST" in json.dumps(bundle["meta"])
    (report,) = resources_of(bundle, "DiagnosticReport")
    assert ("of unknown nature" if data == "none" else f"trained on {data} data") in report["conclusion"]


# http://hl7.org/fhir/R4/valueset-issue-type.html
ISSUE_TYPES = {
    "invalid", "structure", "required", "value", "invariant", "security", "login", "unknown", "expired",
    "forbidden", "suppressed", "processing", "not-supported", "duplicate", "multiple-matches",
    "not-found", "deleted", "too-long", "code-invalid", "extension", "too-costly", "business-rule",
    "conflict", "transient", "lock-error", "no-store", "exception", "timeout", "incomplete",
    "throttled", "informational",
}  # fmt: skip


def test_errors_are_outcomes_with_r4s_codes():
    assert set(fhir.ISSUES) >= {
        "bad_recording", "bad_request", "unauthorized", "too_large", "busy", "not_found", "internal",
    }  # fmt: skip
    for code in fhir.ISSUES:
        (issue,) = fhir.outcome(code, "walk.mot: line 3: expected 4 values")["issue"]
        assert issue["severity"] == "error"
        assert issue["code"] in ISSUE_TYPES
        assert issue["details"]["text"] == "walk.mot: line 3: expected 4 values"
        assert issue["details"]["coding"][0]["code"] == code
    with pytest.raises(ValueError, match="expected one of bad_recording"):
        fhir.outcome("odd", "x")


def test_capabilities_name_the_operation():
    statement = fhir.capability_statement("1.2")
    assert (statement["fhirVersion"], statement["software"]["version"]) == ("4.0.1", "1.2")
    assert statement["format"] == [fhir.CONTENT_TYPE, "json"] == ["application/fhir+json", "json"]
    (operation,) = statement["rest"][0]["operation"]
    assert operation["name"] == "answer-motion"
    assert operation["definition"].endswith("/OperationDefinition/answer-motion")
    assert "$answer-motion" in operation["documentation"]


DATA = base64.b64encode(b"time hip_flexion_r\n").decode()


def operation_of(*given: dict[str, Any]) -> fhir.Operation:
    return fhir.parameters({"resourceType": "Parameters", "parameter": list(given)})


def test_parameters_are_read():
    operation = operation_of(
        {"name": "recording", "valueAttachment": {"title": "walk.mot", "data": DATA[:8] + "\n" + DATA[8:]}},
        {"name": "bundle", "valueCode": "transaction"},
        {"name": "maxRisk", "valueDecimal": 0.2},
        {"name": "age", "valueDecimal": 62},
        {"name": "sex", "valueCode": "female"},
        {"name": "task", "valueCode": "cadence"},
        {"name": "task", "valueCode": "diagnosis"},
        {"name": "question", "valueString": "How fast?"},
        {"name": "subject", "valueReference": {"reference": "Patient/1"}},
    )
    recording = operation.recording.file
    assert (recording.filename, asyncio.run(recording.read())) == ("walk.mot", b"time hip_flexion_r\n")
    assert operation.tasks == ("cadence", "diagnosis")
    assert (operation.question, operation.subject) == ("How fast?", {"reference": "Patient/1"})
    assert (operation.transaction, operation.max_risk) == (True, 0.2)
    assert (operation.person.age, operation.person.sex) == (62, "female")
    nothing = fhir.Operation()
    assert operation_of() == fhir.parameters({"resourceType": "Parameters"}) == nothing


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": "tasks", "valueCode": "cadence"}, "parameter 'tasks': expected one of recording"),
        ({"name": "task", "valueString": "cadence"}, "task: expected valueCode"),
        ({"name": "task", "valueCode": 7}, "expected an R4 Parameters resource"),
        ({"name": "recording", "valueAttachment": {"data": "a,b"}}, "recording: expected data in base64"),
        (
            {"name": "recording", "valueAttachment": {"data": "ab\u00e9="}},
            "recording: expected data in base64",
        ),
        (
            {"name": "recording", "valueAttachment": {"data": DATA, "size": 3}},
            "expected 3 bytes (size), found 19",
        ),
        (
            {"name": "recording", "valueAttachment": {"data": DATA, "hash": "AAAA"}},
            "recording: expected data with the SHA-1 of hash, found ",
        ),
        (
            {"name": "recording", "valueString": "walk.mot"},
            "valueAttachment or resource Binary or resource Doc",
        ),
        (
            {"name": "recording", "resource": {"resourceType": "Patient"}},
            "recording: expected valueAttachment",
        ),
        (
            {"name": "bundle", "valueCode": "batch"},
            "bundle: expected collection or transaction, found 'batch'",
        ),
        ({"name": "maxRisk", "valueDecimal": 2}, "maxRisk: expected a number from 0 to 1, found 2"),
        ({"name": "age", "valueDecimal": -1}, "age: expected a number from 0 to 120"),
        ({"name": "sex", "valueCode": "unknown"}, "sex: expected female or male"),
        (
            {"name": "encounter", "valueReference": {"reference": "Patient/1"}},
            "expected a reference Encounter/ID",
        ),
        (
            {"name": "performer", "valueReference": {"reference": "Device/1"}},
            "Practitioner/ID or PractitionerRole",
        ),
        (
            {"name": "subject", "valueReference": {"reference": "Patient/1", "type": "Group"}},
            "found type 'Group'",
        ),
        (
            {"name": "effective", "valuePeriod": {"start": "2026-03-02", "end": "2026-03-01"}},
            "effective: expected a start before the end",
        ),
        ({"name": "recording", "valueAttachment": {"url": "https://x.example"}}, "a url is not followed"),
        (
            {"name": "subject", "valueReference": {"display": "somebody"}},
            "subject: expected a reference Patient/ID, or an identifier with a system",
        ),
    ],
)
def test_wrong_parameters_are_refused_by_name(given, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        operation_of(given)


def test_other_bodies_and_repetitions_are_refused():
    for body in (None, [], 3, "x", {}, {"resourceType": "Bundle"}, {"resourceType": "Parameters", "odd": 1}):
        with pytest.raises(ValueError, match="expected an R4 Parameters resource"):
            fhir.parameters(body)
    question = {"name": "question", "valueString": "?"}
    with pytest.raises(ValueError, match="question: expected one, found 2"):
        operation_of(question, question)


def test_a_description_has_a_component_for_each_parameter_and_a_refusal_has_no_value():
    observations = [
        e["resource"] for e in bundle_of()["entry"] if e["resource"]["resourceType"] == "Observation"
    ]
    described, refused = observations[-2:]
    # The recording contradicts the knee: nothing says 61 degrees but the notes.
    assert described["dataAbsentReason"]["coding"][0]["code"] == "unknown"
    assert described["dataAbsentReason"]["text"].endswith(
        "right knee: the model states 61 deg, 40 deg was measured"
    )
    first, second = described["component"][:2]
    assert (first["valueQuantity"]["value"], first["valueQuantity"]["code"]) == (104, "{steps}/min")
    assert second["valueQuantity"]["value"] == 40
    codes_of = [part["code"]["coding"][0]["code"] for part in (first, second)]
    assert codes_of == ["cadence", "knee_range-right"]
    assert refused["dataAbsentReason"]["coding"][0]["code"] == "unsupported"
    assert "valueString" not in refused


def test_every_observation_says_how_far_it_can_be_trusted():
    far = Unlike(True, True, 20, "validation", "reconstruction error", "degrees", 17.0, [0.0, 7.5])
    result = RESULT.model_copy(
        update={
            "summary": "This recording is unlike them.",
            "answers": [
                answer("cadence", "Withheld.", status="unlike", refused=True, unlike=far, applies=0.5)
            ],
        }
    )
    (observation,) = resources_of(bundle_of(result), "Observation")
    by_code = {part["code"]["coding"][0]["code"]: part for part in observation["component"]}
    assert by_code["status"]["valueCodeableConcept"]["text"] == "unlike"
    assert by_code["applies"]["valueQuantity"]["value"] == 0.5
    assert by_code["unlike-checked"]["valueBoolean"] is by_code["unlike"]["valueBoolean"] is True
    assert by_code["unlike-participants"]["valueInteger"] == 20
    assert by_code["unlike-value"]["valueQuantity"] == {
        "value": 17.0, "unit": "degrees", "system": "http://unitsofmeasure.org", "code": "deg",
    }  # fmt: skip
    assert by_code["unlike-usual"]["valueRange"]["high"]["value"] == 7.5
    (report,) = resources_of(bundle_of(result), "DiagnosticReport")
    assert report["conclusion"].startswith("This recording is unlike them.")


def test_a_question_that_does_not_apply_is_not_applicable():
    element = fhir_answers._content(
        answer("tug_time", "Does not apply.", status="does_not_apply", refused=True)
    )
    assert element["dataAbsentReason"].coding[0].code == "not-applicable"


def test_an_uncertain_answer_has_no_value_and_says_what_would_help():
    uncertain = answer("diagnosis", "Uncertain; most likely stroke.", uncertain=True, advice="Record again.")
    element = fhir_answers._content(uncertain)
    assert element["dataAbsentReason"].coding[0].code == "unknown"
    assert element["dataAbsentReason"].text == "Uncertain; most likely stroke. Record again."
    assert "valueCodeableConcept" not in element


# --- How sure a model is, and what kinematics says


def parts_of(observation: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """{code: component}. Codes are different, and none is the Observation's own (invariant obs-7)."""
    found: dict[str, dict[str, Any]] = {}
    own = {(coding["system"], coding["code"]) for coding in observation["code"]["coding"]}
    for part in observation["component"]:
        coding = part["code"]["coding"][0]
        assert (coding["system"], coding["code"]) not in own
        assert coding["code"] not in found
        found[coding["code"]] = part
    return found


def test_a_label_has_its_probability_and_those_of_the_others():
    observation = only(SURE[0])
    (confidence,) = observation["extension"]
    assert confidence == {"url": fhir_answers.AI_CONFIDENCE, "valueDecimal": 0.62}
    parts = parts_of(observation)
    for label, probability in SURE[0].probabilities.items():
        assert parts[label]["valueQuantity"] == {
            "value": probability, "system": "http://unitsofmeasure.org", "code": "1",
        }  # fmt: skip
        assert parts[label]["extension"][0]["valueDecimal"] == probability
        assert parts[label]["code"]["coding"][0]["system"].endswith("/CodeSystem/task-diagnosis")
    assert parts["prediction-set"]["valueString"] == "stroke; TBI"
    assert parts["coverage-guaranteed"]["valueBoolean"] is True


def test_a_number_has_its_interval_and_the_measured_value():
    observation = only(SURE[1])
    parts = parts_of(observation)
    (confidence,) = observation["extension"]
    for element in (confidence, parts["interval"]):
        assert (element["valueRange"]["low"]["value"], element["valueRange"]["high"]["value"]) == (0.9, 1.1)
        assert element["valueRange"]["low"]["code"] == "m/s"
    assert parts["speed"]["valueQuantity"]["value"] == 0.97
    assert parts["speed"]["valueQuantity"]["code"] == "m/s"


def coded(element: Any) -> set[float]:
    """Every number that a resource states as a value."""
    return {e["valueQuantity"]["value"] for e in walk(element) if "valueQuantity" in e}


def test_a_number_that_kinematics_does_not_confirm_is_not_coded():
    sits = measured("tug_time", None, "s", reason="nobody stands up from a chair")
    for said in (
        answer("tug_time", "8.4 s", value=8.4, unit="s", low=6.9, high=9.3, measured=[sits]),
        answer("tug_time", "Uncertain: the model says 8.4 s, but 20.0 s was measured.", status="uncertain",
               uncertain=True, unit="s", measured=[measured("tug_time", 20.0, "s")]),
    ):  # fmt: skip
        observation = only(said)
        assert 8.4 not in coded(observation)
        assert observation["dataAbsentReason"]["coding"][0]["code"] == "unknown"
        assert "8.4 s" in observation["dataAbsentReason"]["text"]
        assert "extension" not in observation
        assert "interval" not in parts_of(observation)
    part = parts_of(only(answer("tug_time", "8.4 s", value=8.4, unit="s", measured=[sits])))["tug_time"]
    assert part["dataAbsentReason"]["coding"][0]["code"] == "not-applicable"


def test_what_a_request_says_is_in_every_observation_and_the_report():
    bundle = bundle_of(**ABOUT)
    for resource in (*resources_of(bundle, "Observation"), *resources_of(bundle, "DiagnosticReport")):
        assert resource["encounter"] == ABOUT["encounter"]
        assert resource["basedOn"] == list(ABOUT["based_on"])
        assert resource["performer"] == list(ABOUT["performer"])
        assert resource["effectivePeriod"] == ABOUT["effective"]
        assert resource["subject"] == {"reference": "Patient/123"}
    (provenance,) = resources_of(bundle, "Provenance")
    assert provenance["agent"][0]["onBehalfOf"] == ABOUT["performer"][0]
    (first, *_) = resources_of(bundle_of(effective="2026-02-28"), "Observation")
    assert first["effectiveDateTime"] == "2026-02-28"
    assert "effective" not in json.dumps(bundle_of())  # unknown: not the time of the answer
    for name, value in ABOUT.items():  # a corrected request gives other resources
        assert ids(bundle_of(**{name: value})) & ids(bundle_of()) < ids(bundle_of())


def test_codes_of_quantities_are_those_of_the_code_system():
    """Of every activity that the simulator knows."""
    from biomechgpt.answering.measured import analyse
    from biomechgpt.motion import quantities
    from serve import examples

    known = {c["code"] for c in described()["CodeSystem"]["quantity"]["concept"]}
    used = set()
    for _, trial in examples._trials().values():
        movement = quantities.movement(trial.angles_rad, trial.pelvis, examples.RATE_HZ)
        for values in analyse(movement).values():
            assert len({codes.quantity_code(value) for value in values}) == len(values)
            used |= {codes.quantity_code(value)[0] for value in values}
    assert used <= known
    assert {"step_length-right", "tug_phases-walk-out", "fsst_phases-left-and-right-again"} <= used
    for parameter in codes.PARAMETERS.values():
        assert codes.parameter_code(parameter.label)[0] in known


# --- Resources that describe the server


def test_every_code_of_ours_is_in_a_code_system_and_a_value_set():
    systems = {resource["url"]: resource for resource in described()["CodeSystem"].values()}
    sets = {resource["url"]: resource for resource in described()["ValueSet"].values()}
    answers = [*SURE, *(a for a in RESULT.answers if a.task != "range_of_motion")]
    bundle = bundle_of(RESULT.model_copy(update={"answers": answers}), transaction=True)
    ours = [
        (e["system"], e["code"])
        for e in walk(bundle)
        if "biomechgpt.example" in e.get("system", "") and "code" in e
    ]
    assert len(ours) > 50
    for system, code in ours:
        if "/identifier/" not in system:
            assert code in {concept["code"] for concept in systems[system]["concept"]}, (system, code)
    for system in systems.values():
        assert system["count"] == len(system["concept"]) == len({c["code"] for c in system["concept"]})
        assert sets[system["valueSet"]]["compose"]["include"] == [{"system": system["url"]}]


def test_the_operation_definition_lists_the_parameters_that_are_read():
    definition = described()["OperationDefinition"]["answer-motion"]
    given = {p["name"]: p for p in definition["parameter"] if p["use"] == "in"}
    assert given["recording"]["min"] == 1
    assert given["task"]["max"] == "*"
    with pytest.raises(ValueError, match="expected one of") as error:
        operation_of({"name": "nonsense", "valueCode": "x"})
    assert all(name in str(error.value) for name in given)


def test_resources_follow_the_profiles_that_they_name():
    """Minimum numbers and fixed values of the differential, on the first level of the resource."""
    profiles = {resource["url"]: resource for resource in described()["StructureDefinition"].values()}
    checked = 0
    for result in (RESULT, RESULT.model_copy(update={"answers": SURE})):
        for entry in bundle_of(result, **ABOUT)["entry"]:
            resource = entry["resource"]
            for url in resource.get("meta", {}).get("profile", []):
                assert profiles[url]["type"] == resource["resourceType"]
                for element in profiles[url]["differential"]["element"][1:]:
                    name = element["path"].partition(".")[2]
                    if "[x]" in name:
                        continue
                    values = resource.get(name, [])
                    count = len(values) if isinstance(values, list) else 1
                    assert count >= element.get("min", 0), element
                    assert element.get("fixedCode", values) == values
                    checked += 1
    assert checked > 50


@pytest.mark.parametrize(
    "name", [*examples(), *(f"profile {name}" for name in described()["StructureDefinition"])]
)
def test_fhir_resources_accepts_each_resource(name):
    """R4B, which differs from R4 in none of these resources. The library has no R4."""
    pytest.importorskip("fhir.resources", reason="fhir.resources is not installed (pip install '.[dev]')")
    from fhir.resources.R4B import get_fhir_model_class

    found = described()["StructureDefinition"]
    resource = found[name.partition(" ")[2]] if name.startswith("profile") else examples()[name]
    again = get_fhir_model_class(resource["resourceType"]).model_validate(deepcopy(resource))
    assert json.loads(again.model_dump_json()).keys() == resource.keys()


# --- Input


BYTES = base64.b64decode(DATA)
SHA1 = base64.b64encode(hashlib.sha1(BYTES).digest()).decode()


def document(**attachment: Any) -> dict[str, Any]:
    return {
        "resourceType": "DocumentReference",
        "id": "d1",
        "status": "current",
        "subject": {"reference": "Patient/9", "display": "A. Name"},
        "context": {
            "encounter": [{"reference": "EpisodeOfCare/1"}, {"reference": "Encounter/2"}],
            "period": {"start": "2026-02-28T10:00:00Z"},
        },
        "content": [{"attachment": {"title": "walk.mot", **attachment}}],
    }


def content_of(operation: fhir.Operation) -> tuple[str, bytes]:
    file = operation.recording.file
    return file.filename, asyncio.run(file.read())


def test_a_recording_may_be_an_attachment_a_binary_or_a_document():
    right = {"data": DATA, "size": len(BYTES), "hash": SHA1}
    attached = operation_of({"name": "recording", "valueAttachment": {"title": "walk.mot", **right}})
    assert content_of(attached) == ("walk.mot", BYTES)
    binary = {"resourceType": "Binary", "contentType": "text/plain", "data": DATA}
    assert content_of(operation_of({"name": "recording", "resource": binary}))[1] == BYTES

    operation = operation_of({"name": "recording", "resource": document(**right)})
    assert content_of(operation) == ("walk.mot", BYTES)
    # It says whose movement it is, in which encounter, and when; a parameter says it better.
    assert operation.subject == {"reference": "Patient/9"}
    assert operation.encounter == {"reference": "Encounter/2"}
    assert operation.effective == {"start": "2026-02-28T10:00:00Z"}
    said = {"name": "subject", "valueReference": {"reference": "Patient/1"}}
    assert (
        operation_of({"name": "recording", "resource": document(**right)}, said).subject["reference"]
        == "Patient/1"
    )
    source = asyncio.run(operation.recording.source())
    assert source == Source("walk.mot", hashlib.sha256(BYTES).hexdigest(), "DocumentReference/d1")
    bundle = fhir.bundle(RESULT, recorded=NOW, sources=[source], operation=operation)
    (provenance,) = resources_of(bundle, "Provenance")
    assert provenance["entity"][0]["what"]["reference"] == "DocumentReference/d1"

    contained = {**document(url="#file"), "contained": [{**binary, "id": "file"}]}
    assert content_of(operation_of({"name": "recording", "resource": contained})) == ("walk.mot", BYTES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"status": "entered-in-error"}, "expected a DocumentReference that is in use"),
        (
            {"content": document(data=DATA)["content"] * 2},
            "expected a DocumentReference of one content, found 2",
        ),
        ({"content": document(url="https://x.example/file")["content"]}, "a url is not followed"),
        ({"content": document(url="#absent")["content"]}, "a url is not followed"),
        ({"content": document(data=DATA, size=1)["content"]}, "expected 1 bytes"),
        ({"content": []}, "expected a DocumentReference of one content, found 0"),
    ],
)
def test_a_document_that_cannot_be_used_is_refused(change, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        operation_of({"name": "recording", "resource": document(data=DATA) | change})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026", "2026"),
        ("2026-02-28T10:00:00.5+01:00", "2026-02-28T10:00:00.5+01:00"),
        ("2026-02-28/2026-03-01", {"start": "2026-02-28", "end": "2026-03-01"}),
        ("2026-02-28/", {"start": "2026-02-28"}),
        ("2026-02-31", None),
        ("2026-02-28T10:00:00", None),
        ("yesterday", None),
        ("/", None),
    ],
)
def test_when_the_person_moved(text, expected):
    if expected is not None:
        assert form({"effective": [text]}).effective == expected
        return
    with pytest.raises(ValueError, match="effective: expected"):
        form({"effective": [text]})


def test_a_form_says_the_same_as_parameters():
    said = form(
        {"tasks": ["cadence, diagnosis", "activity"], "max_risk": ["0.1"], "based_on": ["CarePlan/1"] * 2}
    )
    assert said.tasks == ("cadence", "diagnosis", "activity")
    assert said.max_risk == 0.1
    assert said.based_on == ({"reference": "CarePlan/1"},) * 2
    for fields, message in (
        ({"maxRisk": ["0.1"]}, "maxRisk: expected one of the fields recording, compare_with"),
        ({"recording": ["text"]}, "recording: expected a file, found text"),
        ({"max_risk": ["low"]}, "max_risk: expected a number, found 'low'"),
        ({"max_risk": ["nan"]}, "maxRisk: expected a number from 0 to 1"),
    ):
        with pytest.raises(ValueError, match=message):
            form(fields)


def test_entries_of_a_transaction_are_created_once():
    bundle = bundle_of(**ABOUT, transaction=True)
    assert bundle["type"] == "transaction"
    conditions = set()
    for entry in bundle["entry"]:
        request, resource = entry["request"], entry["resource"]
        assert (request["method"], request["url"]) == ("POST", resource["resourceType"])
        name, _, token = request["ifNoneExist"].partition("=")
        system, _, value = unquote(token).partition("|")
        if resource["resourceType"] == "Provenance":  # R4 gives it no identifier
            assert name == "_tag"
            assert {"system": system, "code": value} in resource["meta"]["tag"]
        else:
            assert name == "identifier"
            assert {"system": system, "value": value} in resource["identifier"]
        conditions.add(request["ifNoneExist"])
    assert len(conditions) == len(bundle["entry"])
    assert all("request" not in entry for entry in bundle_of()["entry"])
