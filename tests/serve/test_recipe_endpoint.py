"""The recipe "an endpoint" of docs/extending.md: one module in serve/routes and one response model."""

import json
import os
import shutil
import subprocess
import sys

from conftest import ROOT, TESTS

SCHEMA = '''

class Duration(ApiModel):
    """Duration of a recording."""

    name: str
    """File name."""
    duration_s: float
    """Duration in seconds."""
'''

ROUTE = '''"""The endpoint of durations."""

from fastapi import APIRouter

from serve.gateway import GatewayDependency
from serve.routes.answers import Recording
from serve.schema import ERRORS, Duration

router = APIRouter()


@router.post("/v1/durations", responses=ERRORS)
async def duration(gateway: GatewayDependency, recording: Recording) -> Duration:
    """The duration of a recording."""
    loaded = await gateway.read_recording(recording)
    return Duration(name=loaded.info.name, duration_s=loaded.info.duration_s)
'''

CALL = """
import json
from fake_model import HEADERS, KEY, FakeModel
from fastapi.testclient import TestClient
from serve.app import create_app
from serve.gateway import Gateway
from serve.settings import GatewaySettings

client = TestClient(create_app(Gateway(FakeModel(), GatewaySettings()), KEY))
walk = open({walk!r}, "rb").read()
send = lambda content, headers=HEADERS: client.post(
    "/v1/durations", files={{"recording": ("walk.mot", content)}}, headers=headers
)
described = client.get("/openapi.json", headers=HEADERS).json()["components"]["schemas"]["Duration"]["properties"]
print(json.dumps({{
    "answer": send(walk).json(),
    "without_key": send(walk, {{}}).status_code,
    "bad_file": send(b"nothing").json()["error"]["code"],
    "description": described["duration_s"]["description"],
}}))
"""


def test_an_endpoint_is_a_route_module_and_a_response_model(tmp_path):
    """Carried out in a copy of serve/: the new endpoint has the key check, the errors and the description."""
    ignored = shutil.ignore_patterns("page", "static", "__pycache__")
    shutil.copytree(ROOT / "serve", tmp_path / "serve", ignore=ignored)
    with (tmp_path / "serve/schema.py").open("a") as file:
        file.write(SCHEMA)
    (tmp_path / "serve/routes/durations.py").write_text(ROUTE)
    walk = TESTS / "data/recordings/opensim/opencap-processing/walking1_videoAndMocap.mot"
    paths = [tmp_path, ROOT / "platform", TESTS, TESTS / "serve"]
    run = subprocess.run(
        [sys.executable, "-c", CALL.format(walk=str(walk))],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout)
    assert result["answer"]["name"] == "walk.mot"
    assert result["answer"]["duration_s"] > 1
    assert result["without_key"] == 401
    assert result["bad_file"] == "bad_recording"
    assert result["description"] == "Duration in seconds."
