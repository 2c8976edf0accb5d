"""Malformed recordings of every format, sent to the API without Ray. `benchmarks/abuse.py` sends thousands."""

import random

import psutil
import pytest
from fake_model import HEADERS, KEY, FakeModel
from fastapi.testclient import TestClient

from benchmarks.malformed import bombs, malformed, whole_files
from biomechgpt.recordings import readers
from serve.app import create_app
from serve.gateway import Gateway
from serve.settings import GatewaySettings

COUNT = 300


@pytest.fixture(scope="module")
def client():
    settings = GatewaySettings(client_questions_per_minute=1e6)
    gateway = Gateway(FakeModel(), settings)
    yield TestClient(create_app(gateway, KEY), headers=HEADERS, raise_server_exceptions=False)
    gateway.reader.stop()


def send(client, name, content):
    return client.post("/v1/answers", files={"recording": (name, content)}, data={"tasks": "activity"})


def test_there_are_files_for_every_reader():
    read = {
        reader.__name__.rpartition(".")[2]
        for content in whole_files().values()
        for reader in [next((r for r in readers.READERS if r.matches(content)), None)]
        if reader
    }
    assert {r.__name__.rpartition(".")[2] for r in readers.READERS} - read <= {
        "motive",
        "qualisys",
        "nexus",
        "visual3d",
    }
    assert len(whole_files()) > 15


@pytest.mark.slow
def test_no_malformed_recording_is_an_error_of_the_server(client):
    send(client, *next(iter(whole_files().items())))
    before = psutil.Process().memory_info().rss
    statuses = []
    for i in range(COUNT):
        chance = random.Random(i)
        name, content = malformed(chance, bomb_share=0)
        response = send(client, name, content)
        assert response.status_code < 500, (i, name, response.text)
        statuses.append(response.status_code)
    assert statuses.count(422) > COUNT / 4
    assert psutil.Process().memory_info().rss - before < 100 << 20


@pytest.mark.slow
def test_every_bomb_is_refused_in_time_and_without_growth(client):
    files = bombs()
    send(client, *next(iter(whole_files().items())))
    before = psutil.Process().memory_info().rss
    for name, content in files.items():
        response = send(client, name, content)
        assert response.status_code in (413, 422), (name, response.text)
        assert len(response.content) < 10_000
    assert psutil.Process().memory_info().rss - before < 100 << 20
