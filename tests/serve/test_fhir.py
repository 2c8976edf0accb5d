"""FHIR: resources are valid R4, by a library and by a schema, consistent and repeatable, and add no content."""

import asyncio
import base64
import json
import re
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import jsonschema
import pytest
from fhirclient.models.fhirelementfactory import FHIRElementFactory
from hypothesis import given, settings
from hypothesis import strategies as st

import real_recordings
from biomechgpt.answering.answer import Unlike
from serve import fhir
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


def bundle_of(result: Answers = RESULT, **changes: Any) -> dict[str, Any]:
    arguments = {"subject": "Patient/123", "recorded": NOW, "source_sha256": SHA}
    return fhir.bundle(result, **arguments | changes)


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


def examples() -> dict[str, dict[str, Any]]:
    """Resources of all kinds that the API returns."""
    resources = {f"outcome {code}": fhir.outcome(code, "what was wrong") for code in fhir.ISSUES}
    resources["capabilities"] = fhir.capability_statement("1.0")
    resources["bundle"] = bundle_of()
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
    ["", "123", "Patient/", "patient/1", "Patient/1/2", "Patient/" + "1" * 65, "Group/1", "Patient/a b",
     "Patient/1\n", "https://ehr.example/Patient/1", "urn:uuid:0"],
)  # fmt: skip
def test_a_subject_of_another_form_is_refused(subject):
    with pytest.raises(ValueError, match="subject: expected Patient/ID"):
        bundle_of(subject=subject)


def test_a_time_without_a_zone_and_a_wrong_checksum_are_refused():
    with pytest.raises(ValueError, match="recorded: expected a time with a time zone"):
        bundle_of(recorded=datetime(2026, 3, 1))
    with pytest.raises(ValueError, match="source_sha256: expected 64 hex digits"):
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
    assert motion["valueQuantity"] == {"value": 61, "unit": "deg"}  # not ours to code
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
        tags = {tag["code"]: tag for tag in resource["meta"]["tag"]}
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
    assert statement["format"] == [fhir.CONTENT_TYPE] == ["application/fhir+json"]
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
        {"name": "task", "valueCode": "cadence"},
        {"name": "task", "valueCode": "diagnosis"},
        {"name": "question", "valueString": "How fast?"},
        {"name": "subject", "valueReference": {"reference": "Patient/1"}},
    )
    recording = operation.recording
    assert (recording.filename, asyncio.run(recording.read())) == ("walk.mot", b"time hip_flexion_r\n")
    assert operation.tasks == ["cadence", "diagnosis"]
    assert (operation.question, operation.subject) == ("How fast?", "Patient/1")
    nothing = fhir.Operation(recording=None, tasks=[], question=None, subject=None)
    assert operation_of() == fhir.parameters({"resourceType": "Parameters"}) == nothing


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": "tasks", "valueCode": "cadence"}, "parameter 'tasks': expected one of recording"),
        ({"name": "task", "valueString": "cadence"}, "task: expected valueCode"),
        ({"name": "task", "valueCode": 7}, "expected an R4 Parameters resource"),
        ({"name": "recording", "valueAttachment": {"data": "a,b"}}, "valueAttachment.data in base64"),
        ({"name": "recording", "valueAttachment": {"data": "ab\u00e9="}}, "valueAttachment.data in base64"),
        ({"name": "recording", "valueAttachment": {"url": "https://x.example"}}, "a url is not followed"),
        (
            {"name": "subject", "valueReference": {"display": "somebody"}},
            "subject: expected valueReference.ref",
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
    assert described["valueString"] == "cadence 104 steps/min, right knee 61 deg"
    first, second = described["component"][:2]
    assert (first["valueQuantity"]["value"], first["valueQuantity"]["code"]) == (104, "{steps}/min")
    assert "interpretation" not in first
    assert second["interpretation"][0]["text"] == "Not confirmed: 40 was measured"
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
    assert by_code["unlike-value"]["valueQuantity"] == {"value": 17.0, "unit": "degrees"}
    assert by_code["unlike-usual"]["valueRange"]["high"]["value"] == 7.5
    (report,) = resources_of(bundle_of(result), "DiagnosticReport")
    assert report["conclusion"].startswith("This recording is unlike them.")


def test_a_question_that_does_not_apply_is_not_applicable():
    element = fhir._content(answer("tug_time", "Does not apply.", status="does_not_apply", refused=True))
    assert element["dataAbsentReason"].coding[0].code == "not-applicable"


def test_an_uncertain_answer_has_no_value_and_says_what_would_help():
    uncertain = answer("diagnosis", "Uncertain; most likely stroke.", uncertain=True, advice="Record again.")
    element = fhir._content(uncertain)
    assert element["dataAbsentReason"].coding[0].code == "unknown"
    assert element["dataAbsentReason"].text == "Uncertain; most likely stroke. Record again."
    assert "valueCodeableConcept" not in element
