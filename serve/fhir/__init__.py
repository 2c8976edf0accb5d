"""Answers as FHIR R4, and the resources that describe them.

elements      codings, quantities, references and identifiers; errors as OperationOutcome
operation     the input of $answer-motion, from Parameters or a form
answers       answers as a Bundle of Observations with their report, model and provenance
definitions   CapabilityStatement, OperationDefinition, CodeSystems, ValueSets and profiles

Knows nothing about models or recordings, only the responses of the JSON API.
"""

from serve.fhir.answers import bundle
from serve.fhir.definitions import capability_statement
from serve.fhir.elements import BASE, CONTENT_TYPE, ISSUES, NDJSON, information, outcome
from serve.fhir.operation import Operation, parameters

__all__ = [
    "BASE",
    "CONTENT_TYPE",
    "ISSUES",
    "NDJSON",
    "Operation",
    "bundle",
    "capability_statement",
    "information",
    "outcome",
    "parameters",
]
