"""Resources that describe the server: CapabilityStatement, OperationDefinition, CodeSystems, ValueSets, profiles.

They are made from the tables that the answers are made with, so they cannot say anything else.
"""

from collections.abc import Mapping
from typing import Any, get_args

from fhirclient.models.bundle import Bundle, BundleEntrySearch, BundleLink
from fhirclient.models.capabilitystatement import (
    CapabilityStatement,
    CapabilityStatementImplementation,
    CapabilityStatementRest,
    CapabilityStatementRestResource,
    CapabilityStatementRestResourceInteraction,
    CapabilityStatementRestResourceOperation,
    CapabilityStatementRestResourceSearchParam,
    CapabilityStatementRestSecurity,
    CapabilityStatementSoftware,
)
from fhirclient.models.codesystem import CodeSystem, CodeSystemConcept
from fhirclient.models.extension import Extension
from fhirclient.models.fhirdatetime import FHIRDateTime
from fhirclient.models.operationdefinition import OperationDefinition, OperationDefinitionParameter
from fhirclient.models.valueset import ValueSet, ValueSetCompose, ValueSetComposeInclude

from biomechgpt.answering.answer import Status
from biomechgpt.questions.tasks import LabelTask, Tasks
from serve.fhir import codes
from serve.fhir.elements import BASE, CONTENT_TYPE, ISSUES, new, profile, resource_id, system
from serve.fhir.operation import PARAMETERS

OPERATION = "answer-motion"
DATE = "2026-11-29"
"""Day of the last change of these resources."""
NO_CLAIM = "Research software, not a medical device. No clinical claim is made."
KINDS = ("OperationDefinition", "CodeSystem", "ValueSet", "StructureDefinition")
"""Kinds of resources that a server describes itself with, besides the CapabilityStatement."""
_ALLOWED_TYPE = "http://hl7.org/fhir/StructureDefinition/operationdefinition-allowed-type"

_STATUS_MEANINGS: dict[str, str] = {
    "answered": "The question has an answer",
    "does_not_apply": "The question does not fit this movement",
    "unlike": "The recording is unlike the training data, so the answer is withheld",
    "uncertain": "The answer is not certain enough to be stated",
    "refused": "No movement can answer this question",
}


def definitions(tasks: Tasks, labels: Mapping[str, list[str]]) -> dict[str, dict[str, dict[str, Any]]]:
    """{kind: {id: resource}} of everything that describes this server, for the tasks of its model.

    labels: of tasks that name none of their own.
    """
    systems = {
        "task": {
            **{name: task.templates[0] for name, task in tasks.items()},
            "question": "A question in free words",
            "report": "Answers about a recorded movement",
        },
        **{
            f"task-{name}": dict(task.labels or {label: label for label in labels.get(name, [])})
            for name, task in tasks.items()
            if isinstance(task, LabelTask) and (task.labels or labels.get(name))
        },
        "quantity": codes.quantity_codes(),
        "component": codes.COMPONENTS,
        "status": {status: _STATUS_MEANINGS[status] for status in get_args(Status)},
        "error": {code: code.replace("_", " ") for code in ISSUES},
        "data": {"synthetic": "The model was trained on synthetic data"},
    }
    found: dict[str, dict[str, dict[str, Any]]] = {
        "OperationDefinition": {OPERATION: operation_definition()},
        "CodeSystem": {resource_id(name): _code_system(name, concepts) for name, concepts in systems.items()},
        "ValueSet": {resource_id(name): _value_set(name) for name in systems},
        "StructureDefinition": {resource["id"]: resource for resource in _profiles()},
    }
    return found


def capability_statement(version: str) -> dict[str, Any]:
    """The resource that `GET [base]/metadata` returns, for a version of the API."""
    operation = new(
        CapabilityStatementRestResourceOperation,
        name=OPERATION,
        definition=f"{BASE}/OperationDefinition/{OPERATION}",
        documentation=(
            f"POST [base]/${OPERATION}: Parameters of {', '.join(PARAMETERS)}. Returns a Bundle. "
            "With `Prefer: respond-async` the answer is 202, and Content-Location says where to ask for the result."
        ),
    )
    resources = [
        new(
            CapabilityStatementRestResource,
            type=kind,
            interaction=[
                new(CapabilityStatementRestResourceInteraction, code=code) for code in ("read", "search-type")
            ],
            searchParam=[new(CapabilityStatementRestResourceSearchParam, name="url", type="uri")],
        )
        for kind in KINDS
    ]
    rest = new(
        CapabilityStatementRest,
        mode="server",
        security=new(
            CapabilityStatementRestSecurity,
            description="A key, as a bearer token in the header Authorization.",
        ),
        resource=resources,
        operation=[operation],
    )
    statement: dict[str, Any] = new(
        CapabilityStatement,
        url=f"{BASE}/CapabilityStatement/biomechgpt",
        version=version,
        name="BiomechGPT",
        title="Answers to questions about how a person moves",
        status="active",
        experimental=True,
        date=FHIRDateTime(DATE),
        description=NO_CLAIM,
        kind="instance",
        software=new(CapabilityStatementSoftware, name="BiomechGPT", version=version),
        implementation=new(
            CapabilityStatementImplementation,
            description="A model of movement behind one system-level operation",
        ),
        fhirVersion="4.0.1",
        format=[CONTENT_TYPE, "json"],
        rest=[rest],
    ).as_json()
    return statement


def operation_definition() -> dict[str, Any]:
    """The OperationDefinition of `$answer-motion`."""
    inputs = []
    for name, parameter in PARAMETERS.items():
        one_type = len(parameter.types) == 1
        mixed = "Any" if "Binary" in parameter.types else "Type"
        allowed = [new(Extension, url=_ALLOWED_TYPE, valueUri=kind) for kind in parameter.types]
        inputs.append(
            new(
                OperationDefinitionParameter,
                name=name,
                use="in",
                min=1 if name == "recording" else 0,
                max="*" if parameter.most is None else str(parameter.most),
                documentation=parameter.meaning,
                type=parameter.types[0] if one_type else mixed,
                extension=None if one_type else allowed,
            )
        )
    meaning = (
        "A DiagnosticReport, an Observation for each answer, the model as a Device, and their Provenance."
    )
    answer = new(
        OperationDefinitionParameter,
        name="return",
        use="out",
        min=1,
        max="1",
        type="Bundle",
        documentation=meaning,
    )
    definition: dict[str, Any] = new(
        OperationDefinition,
        id=OPERATION,
        **_head("OperationDefinition", OPERATION, "AnswerMotion", "Answers about a recorded movement"),
        kind="operation",
        affectsState=False,
        code=OPERATION,
        system=True,
        type=False,
        instance=False,
        parameter=[*inputs, answer],
    ).as_json()
    return definition


def _head(kind: str, resource: str, name: str, title: str) -> dict[str, Any]:
    """Elements of every resource that has a canonical URL."""
    return {
        "url": f"{BASE}/{kind}/{resource}",
        "version": "1",
        "name": name,
        "title": title,
        "status": "active",
        "experimental": True,
        "date": FHIRDateTime(DATE),
        "description": f"{title}. {NO_CLAIM}",
    }


def _name(name: str) -> str:
    """A name for programs: letters and digits."""
    return "Biomechgpt" + "".join(part.capitalize() for part in resource_id(name).split("-"))


def _code_system(name: str, concepts: Mapping[str, str]) -> dict[str, Any]:
    key = resource_id(name)
    resource: dict[str, Any] = new(
        CodeSystem,
        id=key,
        **_head("CodeSystem", key, _name(name), f"Codes of BiomechGPT: {name.replace('-', ', ', 1)}"),
        caseSensitive=True,
        content="complete",
        valueSet=f"{BASE}/ValueSet/{key}",
        count=len(concepts),
        concept=[new(CodeSystemConcept, code=code, display=display) for code, display in concepts.items()],
    ).as_json()
    return resource


def _value_set(name: str) -> dict[str, Any]:
    """All codes of a code system."""
    key = resource_id(name)
    include = new(ValueSetComposeInclude, system=system(name))
    resource: dict[str, Any] = new(
        ValueSet,
        id=key,
        **_head("ValueSet", key, _name(name), f"All codes of BiomechGPT: {name.replace('-', ', ', 1)}"),
        compose=new(ValueSetCompose, include=[include]),
    ).as_json()
    return resource


def _profiles() -> list[dict[str, Any]]:
    """The profiles that Observations and DiagnosticReports of a Bundle say they follow, as differentials."""
    task = {"strength": "extensible", "valueSet": f"{BASE}/ValueSet/task"}
    shared: dict[str, dict[str, Any]] = {
        "status": {"min": 1, "fixedCode": "preliminary", "short": "No person has reviewed it"},
        "identifier": {"min": 1, "short": "The same request gives the same identifier"},
        "issued": {"min": 1, "short": "When the answer was made"},
        "effective[x]": {"short": "When the person moved, if the request says so"},
    }
    answer: dict[str, dict[str, Any]] = {
        **shared,
        "category": {"min": 1},
        "code": {"min": 1, "binding": task, "short": "The question"},
        "value[x]": {"short": "The answer; dataAbsentReason says why there is none"},
        "note": {"min": 2, "short": "Question and answer in words"},
        "method": {"min": 1, "short": "A language model, or kinematics"},
        "device": {"min": 1, "short": "The model"},
        "component": {
            "min": 4,
            "short": "Probabilities, intervals, measured quantities, and how far to trust it",
        },
    }
    report: dict[str, dict[str, Any]] = {
        **shared,
        "result": {"short": "The answers"},
        "conclusion": {"min": 1},
    }
    return [
        _profile("Observation", "answer", "An answer about a recorded movement", answer),
        _profile("DiagnosticReport", "report", "All answers about a recorded movement", report),
    ]


def _profile(kind: str, name: str, title: str, elements: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    from fhirclient.models.structuredefinition import StructureDefinition  # reading it takes a while

    differential = [
        {"id": f"{kind}.{path}", "path": f"{kind}.{path}", **constraint}
        for path, constraint in elements.items()
    ]
    head = _head("StructureDefinition", name, _name(name), title)
    resource: dict[str, Any] = StructureDefinition(
        {
            "resourceType": "StructureDefinition",
            "id": name,
            **head,
            "url": profile(name),
            "date": DATE,
            "fhirVersion": "4.0.1",
            "kind": "resource",
            "abstract": False,
            "type": kind,
            "baseDefinition": f"http://hl7.org/fhir/StructureDefinition/{kind}",
            "derivation": "constraint",
            "differential": {"element": [{"id": kind, "path": kind}, *differential]},
        }
    ).as_json()
    return resource


def searchset(found: list[tuple[str, dict[str, Any]]], self_url: str) -> dict[str, Any]:
    """(fullUrl, resource) that a search found, as a Bundle."""
    bundle: dict[str, Any] = new(
        Bundle,
        type="searchset",
        total=len(found),
        link=[new(BundleLink, relation="self", url=self_url)],
    ).as_json()
    if found:
        mode = new(BundleEntrySearch, mode="match").as_json()
        bundle["entry"] = [{"fullUrl": url, "resource": resource, "search": mode} for url, resource in found]
    return bundle
