"""Questions in a user's own words: what the gateway makes of them."""

import pytest
from fake_model import HEADERS, KEY, FakeModel
from fastapi.testclient import TestClient

from serve.app import create_app
from serve.gateway import Gateway
from serve.settings import GatewaySettings


@pytest.fixture
def model():
    return FakeModel()


@pytest.fixture
def client(model):
    return TestClient(create_app(Gateway(model, GatewaySettings()), KEY), headers=HEADERS)


def chat(client, *turns):
    """The answer to the last of some turns, the user's and the assistant's in turn."""
    roles = ["user", "assistant"]
    messages = [{"role": roles[n % 2], "content": text} for n, text in enumerate(turns)]
    response = client.post("/v1/chat", json={"tokens": [1, 2, 3], "messages": messages})
    assert response.status_code == 200, response.text
    (answer,) = response.json()["answers"]
    return answer


def test_the_answer_to_a_task_does_not_depend_on_earlier_turns(client, model):
    question = "What is the most likely diagnosis?"
    alone = chat(client, question)
    later = chat(client, "Is this person's movement impaired?", "impaired", question)
    assert later == alone
    asked = [(query.task, query.question, list(query.history)) for query in model.queries]
    assert asked == [("diagnosis", question, [])] * 2
