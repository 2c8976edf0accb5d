"""The server on real Ray Serve with the tiny run's model, called by scripts, by FHIR clients and by a browser."""

import base64
import json
import os
import re
import shutil
import socket
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

import real_recordings
from biomechgpt.answering.bundle import CALIBRATION, REFERENCE, make_model
from biomechgpt.answering.calibration import Calibration
from biomechgpt.core import artifact, storage
from biomechgpt.motion import plots
from biomechgpt.motion.quantities import QUANTITIES
from biomechgpt.questions.tasks import load_tasks
from biomechgpt.recordings.readers import SUFFIXES
from conftest import ROOT
from serve import app as application
from serve import examples, schema

KEY = os.environ[application.KEY]
HEADERS = {"Authorization": f"Bearer {KEY}"}
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def model(tiny):
    """The tiny run's model, which takes every question to apply and no movement to be unlike its training data.

    It has hardly learned anything: its own answers would rule out nearly every question.
    """
    own = tiny.made("calibration")
    tasks = {**tiny.settings.questions.load(), **tiny.settings.questions.load_measured()}
    fitted = Calibration.model_validate(own.read_json(CALIBRATION))
    answers_all = fitted.model_copy(
        update={
            "min_applies": dict.fromkeys(tasks, -1.0),
            "ood": fitted.ood and open_check(fitted.ood),
        }
    )

    def build(uri):
        storage.write_json(storage.join(uri, CALIBRATION), answers_all.model_dump(mode="json"))
        storage.write_bytes(storage.join(uri, REFERENCE), storage.read_bytes(own.path(REFERENCE)))
        return {}

    inputs = {name: own.input(name) for name in own.manifest["inputs"]}
    calibration = artifact.make("calibration", 0, own.manifest["settings"], inputs, build, str(tiny.root))
    base, adapter, tokenizer = (tiny.made(kind) for kind in ("base", "adapter", "tokenizer"))
    return make_model(base, adapter, tokenizer, calibration, tasks, str(tiny.root))


def open_check(check):
    """A check for movements unlike the training data that refuses none."""
    return check.model_copy(update={"threshold": 1e9, "duration_s": (0.0, 1e9)})


@pytest.fixture(scope="module")
def url(model):
    from ray import serve

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(
        application.build({"bundle": model.uri, "max_body_bytes": 2_000_000}), name="test", route_prefix="/"
    )
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()


@pytest.fixture(scope="module")
def client(url):
    with httpx.Client(base_url=url, headers=HEADERS, timeout=120) as client:
        yield client


@pytest.fixture(scope="module")
def walk():
    """(name, content) of a simulated walk."""
    name = next(e["name"] for e in examples.listed() if "walking" in e["name"])
    return name, examples.mot(name).encode()


def upload(walk):
    return {"recording": walk}


pytestmark = pytest.mark.cluster


def test_only_the_page_and_the_probes_need_no_key(url, client):
    with httpx.Client(base_url=url, timeout=60) as nobody:
        page = nobody.get("/")
        assert page.status_code == 200
        assert "default-src 'self'" in page.headers["content-security-policy"]
        assert nobody.get("/healthz").json() == {"status": "ok"}
        assert nobody.get("/readyz").status_code == 200
        paths = client.get("/openapi.json").json()["paths"]
        assert {
            "/v1/answers",
            "/v1/chat",
            "/v1/explanations",
            "/healthz",
            "/readyz",
            "/fhir/$answer-motion",
        } <= set(paths)
        assert nobody.get("/fhir/metadata").status_code == 200  # FHIR clients read it before they have a key
        for path in ("/v1/model", "/v1/examples", "/openapi.json", "/v1/nowhere"):
            assert nobody.get(path).status_code == 401
        for wrong in ("Bearer wrong", f"bearer {KEY}x", KEY, b"Bearer \xff\xfe"):
            refused = nobody.get("/v1/model", headers={"Authorization": wrong})
            assert refused.status_code == 401
            assert refused.json()["error"]["code"] == "unauthorized"
            assert refused.headers["www-authenticate"] == "Bearer"


def test_answers_to_all_tasks_name_the_model_and_the_recording(client, model, walk):
    response = client.post("/v1/answers", files=upload(walk), data={"tasks": "all"})
    assert response.status_code == 200, response.text
    body = response.json()
    tasks = {t["name"]: t for t in client.get("/v1/model").json()["tasks"] if t["movements"] == 1}
    assert [a["task"] for a in body["answers"]] == list(tasks)
    scored = [a for a in body["answers"] if tasks[a["task"]]["kind"] in ("classification", "regression")]
    answered = [a for a in scored if a["status"] == "answered"]
    # Kinematics says that nobody gets up in a walk; an untrained model's numbers may contradict what is measured.
    assert {a["status"] for a in scored} <= {"answered", "does_not_apply", "uncertain"}
    assert [a["status"] for a in scored if a["task"] == "tug_time"] == ["does_not_apply"]
    assert {"activity", "impaired", "diagnosis"} <= {a["task"] for a in answered}
    assert [a["task"] for a in answered if a["label"] is a["value"] is None] == []
    assert all(a["unlike"]["checked"] for a in scored)
    # Quantities that no answer of the model shows are answered by kinematics; the others stand beside its answers.
    measured = {a["task"]: a["measured"] for a in body["answers"] if a["answered_by"] == "kinematics"}
    beside = {"speed", "cadence", "tug_time", "fsst_time"}
    assert {values[0]["quantity"] for values in measured.values()} == set(QUANTITIES) - beside
    assert {a["measured"][0]["quantity"] for a in scored if a["unit"]} == beside
    assert body["model"] == {
        "fingerprint": model.fingerprint,
        "base": model.metrics["base"],
        "data": "synthetic",
    }
    assert "synthetic data" in body["notice"]
    assert "No clinical claim" in body["notice"]
    assert body["recording"]["frames"] == round(30 * body["recording"]["duration_s"])
    units = {a["task"]: a["unit"] for a in body["answers"]}
    assert units["walking_speed"] == "m/s"
    assert units["activity"] is None
    assert all(a["text"] or (a["label"], a["value"]) == (None, None) for a in body["answers"])


def test_several_recordings_of_one_person_get_one_answer_about_the_person(client, walk):
    several = [("recording", walk), ("additional_recordings", walk), ("additional_recordings", walk)]
    response = client.post("/v1/answers", files=several, data={"tasks": "all"})
    assert response.status_code == 200, response.text
    body = response.json()
    # Only tasks about the person are allowed, not those about one movement, such as its speed.
    tasks = {answer["task"]: answer for answer in body["answers"]}
    assert (
        {"impaired", "diagnosis"}
        <= set(tasks)
        <= {"impaired", "diagnosis", "assistive_device", "falls_history"}
    )
    assert body["additional_recordings"] == [body["recording"]] * 2 == body["more"]
    for task, answer in tasks.items():
        (from_one,) = client.post("/v1/answers", files=upload(walk), data={"tasks": task}).json()["answers"]
        assert sum(answer["probabilities"].values()) == pytest.approx(1)
        assert answer["label"] == from_one["label"]  # three times the same
    for files, data, message in (
        (several, {"tasks": "activity"}, "expected all or some of"),
        (several, {"question": "Who won?"}, "expected a phrasing of"),
        ([*several, ("compare_with", walk)], {"tasks": "all"}, "found both"),
        (
            [("recording", walk), *[("additional_recordings", ("a.mot", b""))] * 21],
            {"tasks": "all"},
            "at most 20 files, found 21",
        ),
        ([("recording", walk), ("more", ("bad.csv", b"x"))], {"tasks": "all"}, "bad.csv"),
    ):
        refused = client.post("/v1/answers", files=files, data=data)
        assert refused.status_code == 422, refused.text
        assert message in refused.json()["error"]["message"]


def test_a_free_question_and_a_chat_get_the_same_answer(client, walk):
    question = "What is the cadence?"
    answers = client.post("/v1/answers", files=upload(walk), data={"question": question}).json()["answers"]
    assert [a["task"] for a in answers] == ["cadence"]
    motion = client.post("/v1/motions", files=upload(walk)).json()
    messages = [{"role": "user", "content": question}]
    motion_fields = {key: motion[key] for key in ("tokens", "views", "tokenizer", "analysis")}
    chatted = client.post("/v1/chat", json={**motion_fields, "messages": messages}).json()
    assert chatted["answers"] == answers
    free = client.post("/v1/answers", files=upload(walk), data={"question": "Who won?"}).json()["answers"]
    assert free[0]["task"] is None
    other_words = {"question": "Could you tell me the cadence of the walk?"}
    (recognised,) = client.post("/v1/answers", files=upload(walk), data=other_words).json()["answers"]
    assert recognised == answers[0] | {"intent": "task"}


def test_two_recordings_are_compared(client, walk):
    both = {**upload(walk), "compare_with": walk}
    response = client.post("/v1/answers", files=both, data={"tasks": "all"}).json()
    assert [a["task"] for a in response["answers"]] == ["quicker", "speed_change", "which_impaired"]
    assert response["compare_with"]["frames"] == response["recording"]["frames"]
    assert response["other"] == response["compare_with"]
    assert response["answers"][0]["label"] in ("A", "B")
    assert set(response["answers"][0]["probabilities"]) == {"A", "B"}
    number = response["answers"][1]
    assert number["status"] == "answered"
    assert -1.5 <= number["low"] <= number["value"] <= number["high"] <= 1.5
    motion = client.post("/v1/motions", files=upload(walk)).json()
    motion_fields = {key: [motion[key]] * 2 for key in ("tokens", "views")}
    question = response["answers"][2]["question"]
    body = {**motion_fields, "messages": [{"role": "user", "content": question}]}
    (again,) = client.post("/v1/chat", json=body).json()["answers"]
    assert again["probabilities"] == pytest.approx(response["answers"][2]["probabilities"], abs=1e-4)
    for files, task in ((both, "activity"), (upload(walk), "quicker")):
        refused = client.post("/v1/answers", files=files, data={"tasks": task})
        assert refused.status_code == 422
        assert f"found '{task}'" in refused.json()["error"]["message"]
    movements_of = {task["name"]: task["movements"] for task in client.get("/v1/model").json()["tasks"]}
    assert (movements_of["activity"], movements_of["quicker"]) == (1, 2)
    assert not {"out_of_scope", "movement"} & set(movements_of)


def test_earlier_messages_do_not_change_the_answer_to_a_task(client, walk):
    motion = client.post("/v1/motions", files=upload(walk)).json()
    motion_fields = {key: motion[key] for key in ("tokens", "tokenizer")}
    question = {"role": "user", "content": "Is there a movement impairment here?"}
    before = [{"role": "user", "content": "What is the walking speed?"},
              {"role": "assistant", "content": "1.71 m/s"}]  # fmt: skip
    alone, after = (
        client.post("/v1/chat", json={**motion_fields, "messages": messages}).json()["answers"][0]
        for messages in ([question], [*before, question])
    )
    assert alone["task"] == "impaired"
    assert after == alone


def test_an_explanation_has_the_seconds_and_joints_of_an_answer(client, tiny, walk):
    tasks = load_tasks(ROOT / "configs/tasks")
    for task in ("activity", "cadence"):
        response = client.post("/v1/explanations", files=upload(walk), data={"task": task})
        assert response.status_code == 200, response.text
        body = response.json()
        answers = client.post("/v1/answers", files=upload(walk), data={"tasks": task}).json()["answers"]
        assert body["answer"] == answers[0]
        begins, ends = [s[0] for s in body["seconds"]], [s[1] for s in body["seconds"]]
        assert begins[0] == 0
        assert begins[1:] == ends[:-1]
        assert ends[-1] <= used_seconds(client, walk) + 0.2
        assert "knee_angle_r" in body["joints"]
        assert sum(body["joints"].values()) == pytest.approx(sum(body["points"].values()))
        if task == "activity":
            probability = max(answers[0]["probabilities"].values())
            assert body["explained_value"] == pytest.approx(probability, abs=1e-4)
            assert all(abs(weight) < 1 for _, _, weight in body["seconds"])
        phrased = client.post("/v1/explanations", files=upload(walk),
                              data={"task": task, "question": tasks[task].templates[1]})  # fmt: skip
        assert phrased.json()["answer"]["question"] == tasks[task].templates[1]
    for wrong, name in (({"task": "quicker"}, "quicker"), ({"task": "description"}, "description"),
                        ({"task": "activity", "question": "Who won?"}, "Who won?")):  # fmt: skip
        refused = client.post("/v1/explanations", files=upload(walk), data=wrong)
        assert refused.status_code == 422
        assert f"found '{name}'" in refused.json()["error"]["message"]


def used_seconds(client, walk):
    return client.post("/v1/motions", files=upload(walk)).json()["recording"]["used_s"]


def test_an_answer_above_the_risk_limit_is_uncertain_and_has_advice(client, walk):
    response = client.post(
        "/v1/answers", files=upload(walk), data={"tasks": "activity,cadence", "max_risk": 0.0001}
    )
    label, number = response.json()["answers"]
    assert label["uncertain"]
    assert label["label"] is None
    assert label["text"].startswith("Uncertain; most likely ")
    assert "another recording" in label["advice"]
    assert label["probabilities"]
    assert number["advice"] is None  # a number has no risk; it may contradict what is measured
    response = client.post("/v1/answers", files=upload(walk), data={"tasks": "activity"})
    (unlimited,) = response.json()["answers"]
    assert not unlimited["uncertain"]
    assert (
        client.post("/v1/answers", files=upload(walk), data={"tasks": "all", "max_risk": 2}).status_code
        == 422
    )


def test_a_description_is_made_of_values_measured_from_the_recording(client, walk):
    motion = client.post("/v1/motions", files=upload(walk)).json()
    answers = client.post("/v1/answers", files=upload(walk), data={"tasks": "description"}).json()["answers"]
    motion_fields = {key: motion[key] for key in ("tokens", "views", "analysis")}
    body = {**motion_fields, "messages": [{"role": "user", "content": answers[0]["question"]}]}
    again = client.post("/v1/chat", json=body).json()["answers"]
    assert again[0]["text"].startswith("duration ")
    # The base is the local stand-in, so every value that a description states is a measured one.
    assert answers[0]["stated_parameters"]
    assert all(p["measured"] == p["stated"] for p in answers[0]["stated_parameters"])


def test_the_stick_figure_walks_forward_on_the_ground(client, walk):
    figure = client.post("/v1/motions", files=upload(walk)).json()["figure"]
    feet = [i for i, name in enumerate(figure["points"]) if name.startswith(("heel", "toe"))]
    positions = figure["positions_m"]
    assert all(min(frame[i][1] for i in feet) < 0.02 for frame in positions)
    assert positions[-1][0][0] - positions[0][0][0] > 1
    assert {i for bone in figure["bones"] for i in bone} == set(range(len(figure["points"])))


def test_simultaneous_requests_get_the_same_answers_as_single_ones(client, url, walk):
    tokens = client.post("/v1/motions", files=upload(walk)).json()["tokens"]
    questions = [task["question"] for task in client.get("/v1/model").json()["tasks"]]

    def ask(question):
        body = {"tokens": tokens, "messages": [{"role": "user", "content": question}]}
        return httpx.post(f"{url}/v1/chat", json=body, headers=HEADERS, timeout=120).json()["answers"][0][
            "text"
        ]

    alone = [ask(question) for question in questions]
    with ThreadPoolExecutor(min(len(questions), 12)) as pool:  # a client may have 16 requests in progress
        assert list(pool.map(ask, questions)) == alone


@pytest.mark.parametrize(
    "name",
    [
        "opensim/opencap-processing/walking1_videoAndMocap.mot",
        "opensim/nimblephysics/HamnerMultipleTrials__run200_ik.mot",
        "mujoco/02-constspeed_reduced_humanoid.npz",
    ],
)
def test_real_recordings_of_each_format_are_read(client, name):
    file = real_recordings.path_of(name)
    response = client.post("/v1/motions", files={"recording": (file.name, file.read_bytes())})
    assert response.status_code == 200, response.text


def test_a_real_recording_without_arms_is_read_and_names_what_is_missing(client):
    bare = real_recordings.path_of("opensim/opensim-core/std_subject01_walk1_ik.mot")
    read = client.post("/v1/motions", files={"recording": (bare.name, bare.read_bytes())})
    assert read.status_code == 200, read.text
    assert "arm_flex_r" in read.text


def bad(walk, **more):
    return {"files": upload(walk), "data": {"tasks": "all"}} | more


BAD = {
    "no file": (lambda w: {"data": {"tasks": "all"}}, 422, "bad_request", "recording"),
    "nothing asked": (lambda w: {"files": upload(w)}, 422, "bad_request", "found neither"),
    "unknown task": (lambda w: bad(w, data={"tasks": "mood"}), 422, "bad_request", "found 'mood'"),
    "too long a question": (
        lambda w: bad(w, data={"question": "☃" * 1000}),
        422,
        "bad_request",
        "model's, found",
    ),
    "too many letters": (
        lambda w: bad(w, data={"question": "a" * 2001}),
        422,
        "bad_request",
        "2000 characters, found 2001",
    ),
    "another format": (
        lambda w: bad((*upload(("a.txt", b"hello")).values(),)[0]),
        422,
        "bad_recording",
        "a.txt",
    ),
    "cut off": (lambda w: bad((w[0], w[1][:-300])), 422, "bad_recording", "the file is cut off"),
    "a path for a name": (lambda w: bad(("../../etc/a.mot", b"x")), 422, "bad_recording", "a.mot: expected"),
    "too large": (lambda w: bad(("a.mot", b"x" * 2_100_000)), 413, "too_large", "2000000 bytes"),
}


@pytest.mark.parametrize("case", BAD)
def test_an_error_names_what_is_wrong_in_a_request(client, walk, case):
    arguments, status, code, message = BAD[case]
    for path in ("/v1/answers", "/fhir/$answer-motion"):
        refused = client.post(path, **arguments(walk))
        assert refused.status_code == status, refused.text
        if path.startswith("/fhir"):
            outcome = refused.json()
            assert outcome["resourceType"] == "OperationOutcome"
            assert message in json.dumps(outcome)
        else:
            assert refused.json()["error"]["code"] == code
            assert message in refused.json()["error"]["message"]


def test_a_body_without_a_length_is_refused_when_it_gets_too_large(client):
    def endless():
        for _ in range(100):
            yield b"x" * 100_000

    refused = client.post(
        "/v1/answers", content=endless(), headers={"content-type": "multipart/form-data; boundary=b"}
    )
    assert refused.status_code == 413


def test_wrong_chats_and_unknown_paths_are_refused(client):
    ask = [{"role": "user", "content": "What is the cadence?"}]
    posture = [100] * 26  # a token for each tracked joint
    whole = [*posture, 1]
    for body, message in (
        ({"tokens": [99999], "messages": ask}, "tokens: posture token 1 of 26: expected 64 to 155"),
        ({"tokens": [*posture, 64], "messages": ask}, "tokens: motion token 1: expected 0 to 63"),
        ({"tokens": [], "messages": ask}, "tokens"),
        ({"tokens": whole, "views": [[1]], "messages": ask}, "views: posture token 1 of 26"),
        ({"tokens": whole, "views": [[whole], [whole]], "messages": ask}, "as tokens has, found 2"),
        ({"tokens": whole, "messages": [{"role": "assistant", "content": "x"}]}, "the last to be the user's"),
        ({"tokens": whole}, "messages"),
        ({"tokens": whole, "tokenizer": "0123", "messages": ask}, "found tokens of 0123"),
    ):
        refused = client.post("/v1/chat", json=body)
        assert refused.status_code == 422
        assert message in refused.json()["error"]["message"]
    for path in ("/v1/nowhere", "/v1/examples/../../secret.mot"):
        assert client.get(path).json()["error"]["code"] == "not_found"


def test_fhir_answers_are_the_same_by_form_and_by_parameters(client, walk):
    form = client.post(
        "/fhir/$answer-motion", files=upload(walk), data={"tasks": "all", "subject": "Patient/7"}
    )
    assert form.headers["content-type"] == "application/fhir+json"
    bundle = form.json()
    kinds = [entry["resource"]["resourceType"] for entry in bundle["entry"]]
    asked = [task for task in client.get("/v1/model").json()["tasks"] if task["movements"] == 1]
    assert kinds.count("Observation") == len(asked)
    assert {"DiagnosticReport", "Provenance", "Device"} < set(kinds)
    attachment = {"title": walk[0], "data": base64.b64encode(walk[1]).decode()}
    parameters = {
        "resourceType": "Parameters",
        "parameter": [
            {"name": "recording", "valueAttachment": attachment},
            {"name": "task", "valueCode": "all"},
            {"name": "subject", "valueReference": {"reference": "Patient/7"}},
        ],
    }
    headers = {"content-type": "application/fhir+json"}
    same = client.post("/fhir/$answer-motion", content=json.dumps(parameters), headers=headers).json()
    assert [e["fullUrl"] for e in same["entry"]] == [e["fullUrl"] for e in bundle["entry"]]
    assert client.get("/fhir/metadata").json()["resourceType"] == "CapabilityStatement"
    wrong = client.post("/fhir/$answer-motion", files=upload(walk), data={"tasks": "all", "subject": "me"})
    assert wrong.json()["issue"][0]["code"] == "invalid"


def css_color(hex_color):
    """#rrggbb as a browser shows it."""
    red, green, blue = (int(hex_color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgb({red}, {green}, {blue})"


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_the_page_in_a_browser(url, walk):
    from playwright.sync_api import expect, sync_playwright

    flags = ["--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking"]
    flags += ["--disable-component-update", "--disable-sync", "--use-gl=angle", "--use-angle=swiftshader"]
    flags += ["--enable-unsafe-swiftshader"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        errors, requested = [], []
        page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda e: errors.append(str(e)))
        page.on("request", lambda r: requested.append(r.url))
        page.goto(f"{url}/#key={KEY}", timeout=90_000)
        expect(page.locator("#banner")).to_contain_text("synthetic", ignore_case=True, timeout=30_000)
        assert KEY not in page.url
        for field in ("#file", "#more"):
            expect(page.locator(field)).to_have_attribute("accept", ",".join(SUFFIXES))
        expect(page.locator("#file-help")).to_contain_text(SUFFIXES[0])
        expect(page.locator("#ask")).to_have_attribute("maxlength", str(schema.MAX_QUESTION_CHARS))
        expect(page.locator("#legend")).to_be_hidden()
        page.locator("#examples button").first.click()
        figure = page.locator("#figure")
        expect(figure).to_have_attribute("data-state", "playing", timeout=60_000)
        swatches = {
            side: page.locator(f"#legend .swatch.{side}").evaluate("e => getComputedStyle(e).backgroundColor")
            for side in ("right", "left")
        }
        assert swatches == {"right": css_color(plots.RIGHT), "left": css_color(plots.LEFT)}
        before = figure.get_attribute("data-frame")
        expect(figure).not_to_have_attribute("data-frame", before or "", timeout=30_000)
        page.locator("#ask").fill("What activity is being performed?")
        page.locator("#send").click()
        expect(page.locator("#messages .message.answer")).to_have_count(1, timeout=60_000)
        page.locator("#messages .message.answer .why").click()
        # The tiny model has hardly learned anything: perhaps no part of the recording supports its answer.
        supported = re.compile("rests most on|No part of the recording by itself supports")
        expect(page.locator("#why-text")).to_contain_text(supported, timeout=60_000)
        assert page.locator("#why-strip i").count() > 1
        if folder := os.environ.get("BIOMECHGPT_SCREENSHOTS"):
            page.screenshot(path=f"{folder}/why.png")
        page.locator("#why-close").click()
        expect(page.locator("#why")).to_be_hidden()
        another = {"name": "another.mot", "mimeType": "text/plain", "buffer": walk[1]}
        page.locator("#more").set_input_files(another)
        expect(page.locator("#messages .message.user").last).to_contain_text("from 2 recordings")
        expect(page.locator("#messages .message.answer").nth(2)).to_be_visible(timeout=60_000)
        assert page.locator("#messages .message.answer .why").count() == 1
        page.locator("#file").set_input_files(
            {"name": "a.mot", "mimeType": "text/plain", "buffer": b"nothing"}
        )
        expect(page.locator("#load-error")).to_contain_text("a.mot", timeout=30_000)
        # A file is judged by its content, not by its name.
        unusual = {"name": "walk.txt", "mimeType": "text/plain", "buffer": walk[1]}
        page.locator("#file").set_input_files(unusual)
        expect(page.locator("#facts")).to_contain_text("walk.txt", timeout=30_000)
        expect(page.locator("#load-error")).to_be_hidden()
        if folder := os.environ.get("BIOMECHGPT_SCREENSHOTS"):
            page.screenshot(path=f"{folder}/page.png")
        browser.close()
    assert [e for e in errors if "422" not in e] == []
    hosts = {address.split("/")[2] for address in requested if address.startswith("http")}
    assert hosts == {url.split("/")[2]}
