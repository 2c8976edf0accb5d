"""The OpenAPI document and the API agree, by schemathesis."""

import pytest
from fake_model import HEADERS, KEY, FakeModel
from hypothesis import HealthCheck, settings

from serve.app import create_app
from serve.gateway import Gateway
from serve.settings import GatewaySettings

schemathesis = pytest.importorskip(
    "schemathesis", reason="schemathesis is not installed (pip install '.[dev]')"
)
checks = pytest.importorskip("schemathesis.checks")
gateway = Gateway(FakeModel(), GatewaySettings(client_questions_per_minute=1e9, max_wait_s=1e9))
schema = schemathesis.openapi.from_asgi("/openapi.json", create_app(gateway, KEY), headers=HEADERS)
NEEDS_MORE_THAN_A_SCHEMA = ("positive_data_acceptance", "negative_data_rejection")
"""Checks that do not hold: a random file is no recording, a random name no task, and pydantic reads 0 as false."""


@pytest.mark.slow
@schema.parametrize()
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_api_keeps_what_its_document_says(case):
    excluded = [c for c in checks.CHECKS.get_all() if c.__name__ in NEEDS_MORE_THAN_A_SCHEMA]
    case.call_and_validate(headers=HEADERS, excluded_checks=excluded)
