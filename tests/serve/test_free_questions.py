"""Questions in a user's own words: what the gateway makes of them."""

import pytest
from fake_model import HEADERS, KEY, FakeModel
from fastapi.testclient import TestClient

from biomechgpt.motion.parameters import format_description
from biomechgpt.questions.intent import Intent
from biomechgpt.questions.tasks import load_tasks
from conftest import ROOT
from serve.app import create_app
from serve.free_questions import explanation_text
from serve.gateway import Gateway
from serve.settings import GatewaySettings


@pytest.fixture
def model():
    return FakeModel()


@pytest.fixture
def client(model):
    return TestClient(create_app(Gateway(model, GatewaySettings()), KEY), headers=HEADERS)


def chat(client, *turns, analysis=None):
    """The answer to the last of some turns, the user's and the assistant's in turn."""
    roles = ["user", "assistant"]
    messages = [{"role": roles[n % 2], "content": text} for n, text in enumerate(turns)]
    body = {"tokens": [1, 2, 3], "analysis": analysis, "messages": messages}
    response = client.post("/v1/chat", json=body)
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


INTENTS = {
    "What can I ask you?": Intent("list"),
    "Parkinson's?": Intent("unknown_label", "diagnosis", "Parkinson's disease"),
    "Has she had a stroke?": Intent("label", "diagnosis", "stroke"),
    "Is it LLPU?": Intent("label", "diagnosis", "LLPU"),
    "And the cadence?": Intent("task", "cadence"),
    "Why?": Intent("why"),
    "Are you sure?": Intent("confidence"),
    "Is she limping?": Intent("out_of_scope", suggestions=("impaired",)),
    "Is she in pain?": Intent("out_of_scope", label="pain", suggestions=("impaired",)),
    "Who won?": Intent("out_of_scope", suggestions=("impaired",), about_movement=False),
    "steps thing?": Intent("task", "cadence", suggestions=("cadence",), assumed=True),
    "How quick are the steps?": Intent("unclear", suggestions=("walking_speed", "cadence")),
    "Describe it.": Intent("task", "description"),
}


@pytest.fixture
def talking(model):
    """A model that knows what the questions above ask."""
    model.intents = INTENTS
    return model


def test_the_list_of_what_can_be_asked_is_an_answer(client, talking):
    answer = chat(client, "What can I ask you?")
    assert (answer["intent"], answer["status"], answer["task"]) == ("list", "answered", None)
    assert "walking speed" in answer["text"]
    assert talking.queries == []


def test_a_label_that_the_model_does_not_know_gets_no_value_and_the_list_of_those_it_knows(client, talking):
    answer = chat(client, "Parkinson's?")
    assert answer["text"].startswith("Parkinson's disease is not among the diagnoses this model knows.")
    assert "stroke" in answer["text"]
    assert (answer["status"], answer["label"], answer["value"], answer["probabilities"]) == (
        "refused",
        None,
        None,
        {},
    )
    assert talking.queries == []


def test_a_yes_or_no_question_gets_yes_or_no_with_the_probability_of_its_label(client, talking):
    """The model's most probable diagnosis is the first label, with probability 0.7; each other has 0.1."""
    no, yes = chat(client, "Has she had a stroke?"), chat(client, "Is it LLPU?")
    assert no["text"].startswith(
        "No, probably not: stroke has probability 0.10. Most likely: lower-limb prosthesis user (0.70)."
    )
    assert yes["text"].startswith("Yes, most likely: lower-limb prosthesis user (probability 0.70).")
    assert no["task"] == yes["task"] == "diagnosis"
    assert no["intent"] == "label"
    assert [query.task for query in talking.queries] == ["diagnosis", "diagnosis"]


def test_a_follow_up_is_answered_like_its_task_alone(client, talking):
    alone = chat(client, "What is the cadence?")
    later = chat(client, "Has she had a stroke?", "No.", "And the cadence?")
    assert later == alone | {"intent": "task"}


def test_are_you_sure_returns_the_confidence_of_the_last_answer(client, talking):
    answer = chat(client, "Which diagnosis?", "x", "Is it LLPU?", "Yes.", "Are you sure?")
    assert (answer["intent"], answer["task"]) == ("confidence", "diagnosis")
    assert "Yes, most likely: lower-limb prosthesis user" in answer["text"]
    assert "The probability of lower-limb prosthesis user is 0.70." in answer["text"]
    assert "Not ruled out: stroke" in answer["text"]
    assert "even if at most 20% of a new person's given answers may be wrong" in answer["text"]
    number = chat(client, "And the cadence?", "1 steps/min", "Are you sure?")
    assert "within 0.5 to 1.5 steps/min" in number["text"]


@pytest.mark.parametrize("question", ["Why?", "Are you sure?"])
def test_without_an_earlier_answer_there_is_nothing_to_explain(client, talking, question):
    answer = chat(client, question)
    assert answer["text"].startswith("There is no earlier answer yet. You can ask: ")
    assert answer["status"] == "refused"


def test_an_assumed_question_is_answered_and_says_how_it_was_read(client, talking):
    answer, clear = chat(client, "steps thing?"), chat(client, "What is the cadence?")
    assert answer["text"] == f"I read this as a question about cadence. {clear['text']}"
    assert (answer["assumed"], clear["assumed"]) == (True, False)
    assert answer["value"] == clear["value"]


def test_an_unclear_question_is_asked_back_and_gets_no_value(client, talking):
    answer = chat(client, "How quick are the steps?")
    assert answer["text"].startswith("Did you mean walking speed")
    assert "cadence" in answer["text"]
    assert (answer["status"], answer["value"], answer["task"]) == ("refused", None, None)
    assert talking.queries == []


def test_a_refusal_says_what_can_be_asked_and_no_untrue_sentence(client, talking):
    about_movement, about_the_world = chat(client, "Is she limping?"), chat(client, "Who won?")
    suggestion = f'You can ask: "{talking.served.tasks["impaired"].templates[0]}".'
    assert about_movement["text"] == f"I cannot answer that. {suggestion}"
    assert about_the_world["text"] == (
        f"I can only answer questions about how this person moves. {suggestion}"
    )
    assert about_movement["status"] == about_the_world["status"] == "refused"


def test_a_base_that_cannot_write_never_generates(client, talking):
    for question in ("Is she limping?", "Who won?", "Describe it.", "Parkinson's?"):
        chat(client, question)
    assert [query for query in talking.queries if query.task is None] == []


def test_a_base_that_can_write_answers_a_question_about_movement_and_marks_it(client, talking):
    talking.served = talking.served.model_copy(update={"writes_text": True})
    generated = chat(client, "Is she impaired?", "Yes.", "Is she limping?")
    assert (generated["text"], generated["generated"], generated["task"]) == ("Rather slowly.", True, None)
    assert list(talking.queries[-1].history) == ["Is she impaired?", "Yes."]
    assert chat(client, "Who won?")["status"] == "refused"
    assert not chat(client, "And the cadence?")["generated"]


def test_what_no_recording_shows_is_not_left_to_a_base_that_can_write(client, talking):
    talking.served = talking.served.model_copy(update={"writes_text": True})
    answer = chat(client, "Is she in pain?")
    assert (answer["status"], answer["generated"]) == ("refused", False)
    assert answer["text"].startswith("This model does not measure pain. You can ask: ")
    assert talking.queries == []


def test_a_description_by_a_base_that_cannot_write_is_made_of_measured_values(client, talking):
    """Of those measured when the recording was read: /v1/chat takes them back. Nothing is measured from tokens."""
    measured = [
        {"quantity": "duration", "unit": "s", "value": 4.2},
        {"quantity": "cadence", "unit": "steps/min", "value": 101.0},
        {"quantity": "speed", "unit": "m/s", "value": None, "reason": "no walk"},
        {"quantity": "knee_range", "part": "left", "unit": "deg", "value": 55.0},
    ]
    analysis = {
        "duration_s": 4.2, "steps": 6, "phases": [], "legs_recorded": True, "distance": 0.5, "rmse_deg": 3.0,
        "provenance": "recorded", "measured": measured,
    }  # fmt: skip
    answer = chat(client, "Describe it.", analysis=analysis)
    assert answer["text"] == format_description({"duration": 4.2, "cadence": 101.0, "knee_l": 55.0})
    assert [row["agrees"] for row in answer["stated_parameters"]] == [True] * 3
    assert answer["status"] == "answered"
    for nothing in (analysis | {"measured": []}, None):
        assert chat(client, "Describe it.", analysis=nothing)["status"] == "refused"


def test_why_returns_the_explanation_of_the_last_answer(client, talking):
    messages = [
        {"role": role, "content": text}
        for role, text in (("user", "And the cadence?"), ("assistant", "1 steps/min"), ("user", "Why?"))
    ]
    response = client.post("/v1/chat", json={"tokens": [1, 2, 3], "messages": messages}).json()
    (answer,) = response["answers"]
    assert (answer["intent"], answer["task"]) == ("why", "cadence")
    assert answer["text"] == (
        '"1 steps/min" rests most on right knee angle and 0.0 to 0.5 s. Against it: left hip flexion.'
    )
    assert response["explanation"]["joints"] == {"knee_angle_r": 0.3, "hip_flexion_l": -0.1}
    assert talking.calls.count("explain_tokens") == 1


@pytest.mark.parametrize(
    ("joints", "seconds", "text"),
    [
        ({"knee_angle_r": 0.1, "hip_flexion_l": -0.9}, [(0, 0.4, 0.2), (0.4, 0.5, -0.8)],
         '"stroke" rests most on right knee angle and 0.0 to 0.4 s. Against it: left hip flexion.'),
        ({"hip_flexion_r": 0.1, "hip_flexion_l": 0.4, "knee_angle_r": 0.2, "knee_angle_l": 0.3},
         [(0, 1, 0.1), (1, 2, 0.6)],
         '"stroke" rests most on left hip flexion, left knee angle, right knee angle and 1.0 to 2.0 s.'),
        ({"knee_angle_r": -0.1}, [(0, 1, -0.2)],
         'No part of the recording by itself supports "stroke". Against it: right knee angle.'),
    ],
)  # fmt: skip
def test_an_answer_rests_on_positive_weights_only_however_large_the_negative_ones(joints, seconds, text):
    assert explanation_text("stroke", joints, seconds) == text


@pytest.mark.parametrize("remark", ["Why?", "Are you sure?"])
def test_a_measured_quantity_is_explained_by_how_it_was_measured(client, talking, remark):
    measured = load_tasks(ROOT / "configs/tasks_measured", ["step_length"])
    talking.served = talking.served.model_copy(update={"tasks": talking.served.tasks | measured})
    talking.intents = INTENTS | {"How long are the steps?": Intent("task", "step_length")}
    answer = chat(client, "How long are the steps?", "0.61 m", remark)
    assert answer["task"] == "step_length"
    assert answer["text"].endswith("the language model has no part in it.")
    assert talking.queries == []
