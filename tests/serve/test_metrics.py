"""What the server counts, over a fake model without Ray; the shadow model; the dashboard and the alert rules."""

import asyncio
import json
import re
from dataclasses import replace

import pytest
import yaml
from fake_model import HEADERS, KEY, SERVED, FakeModel
from fastapi.testclient import TestClient
from test_security import WALK

from biomechgpt.answering.answer import Answer, Unlike
from biomechgpt.answering.gates import Gate
from biomechgpt.answering.ood import StatisticScale
from conftest import ROOT
from serve import metrics
from serve.app import create_app
from serve.gateway import Gateway
from serve.main import upgrade
from serve.metrics import METRICS
from serve.settings import GatewaySettings
from serve.shadow import KEPT_MOVEMENTS, Shadowed, agree


class Meter:
    """Keeps what is counted, if it is declared so."""

    def __init__(self):
        self.counted = []

    def count(self, name, tags):
        assert METRICS[name].kind == "counter"
        self.keep(name, 1, tags)

    def observe(self, name, value, tags):
        assert METRICS[name].kind == "histogram"
        self.keep(name, value, tags)

    def keep(self, name, value, tags):
        assert set(tags) == set(METRICS[name].tags), name
        assert all(isinstance(text, str) for text in tags.values())
        self.counted.append((name, value, tags))

    def values(self, name, **tags):
        return [
            value for known, value, given in self.counted if known == name and tags.items() <= given.items()
        ]

    def tags(self, name):
        return [given for known, _, given in self.counted if known == name]


@pytest.fixture
def meter():
    counting = Meter()
    before = metrics.use(counting)
    yield counting
    metrics.use(before)


def client_of(model, **settings):
    app = create_app(Gateway(model, GatewaySettings(**settings)), KEY)
    return TestClient(app, headers=HEADERS, raise_server_exceptions=False)


def ask(client, tasks="activity,cadence", **more):
    files = {"recording": (WALK.name, WALK.read_bytes())}
    return client.post("/v1/answers", files=files, data={"tasks": tasks, **more})


def test_requests_are_counted_by_route_and_code_with_their_time(meter):
    client = client_of(FakeModel(), max_body_bytes=2_000_000, client_questions_per_minute=3)
    assert ask(client).status_code == 200
    assert client.get("/v1/examples/secret-name.mot").status_code == 404
    assert TestClient(client.app).get("/v1/model").status_code == 401
    assert ask(client).status_code == 429  # a refusal
    codes = [(tags["route"], tags["code"]) for tags in meter.tags(metrics.REQUESTS)]
    assert codes == [
        ("/v1/answers", "ok"),
        ("/v1/examples/{name}", "not_found"),
        ("(unknown)", "unauthorized"),
        ("(unknown)", "too_many"),
    ]
    assert len(meter.values(metrics.REQUEST_SECONDS)) == 4
    assert "secret" not in json.dumps(meter.counted)


def test_answers_are_counted_by_task_status_and_label(meter):
    model = FakeModel()
    assert ask(client_of(model)).status_code == 200
    assert meter.tags(metrics.LABELS) == [{"task": "activity", "label": "a"}]
    assert len(meter.values(metrics.TASK_SECONDS, task="activity")) == 1
    assert len(meter.values(metrics.TASK_SECONDS, task="cadence")) == 1
    assert meter.tags(metrics.RECORDINGS) == [{"judged": "like"}]
    model.gate = Gate(0.03, "activity: TUG", "Does not apply: this looks like walking.")
    assert ask(client_of(model), "activity").status_code == 200
    model.gate, model.unlike = Gate(1.0, ""), Unlike(checked=True, unlike=True, participants=20)
    assert ask(client_of(model), "activity").status_code == 200
    found = [tags["status"] for tags in meter.tags(metrics.ANSWERS) if tags["task"] == "activity"]
    assert found == ["answered", "does_not_apply", "unlike"]
    assert [tags["judged"] for tags in meter.tags(metrics.RECORDINGS)] == ["like", "like", "unlike"]
    assert len(meter.tags(metrics.LABELS)) == 1  # only a stated label counts


def test_the_likelihood_of_a_recording_is_counted_on_the_scale_of_the_training_data(meter):
    class Likely(FakeModel):
        async def answer(self, query):
            return replace(await super().answer(query), log_likelihood=-3.0)

    model = Likely()
    model.served = SERVED.model_copy(update={"likelihood_scale": StatisticScale(median=2.0, spread=0.5)})
    ask(client_of(model))
    assert meter.values(metrics.LIKELIHOOD) == [2.0]
    ask(client_of(Likely()))  # a model without a scale
    assert len(meter.values(metrics.LIKELIHOOD)) == 1


# --- The shadow model


class Other(FakeModel):
    """Gives other labels, and takes its time."""

    async def answer(self, query):
        await asyncio.sleep(0.01)
        answer = await super().answer(query)
        other = SERVED.tasks["activity"].answer("b")
        return replace(answer, text=other) if query.task == "activity" else answer


class Broken(FakeModel):
    async def answer(self, query):
        raise ValueError("the shadow is broken")


def with_shadow(shadow, most=16):
    """The response of a server with a shadow, when the shadow is done."""
    shadowed = Shadowed(FakeModel(), shadow, most)
    with client_of(shadowed) as client:  # one event loop for both
        response = ask(client)
        client.portal.call(wait_for, shadowed)
    return response


async def wait_for(shadowed):
    while shadowed._tasks:
        await asyncio.sleep(0.005)


def agreements(meter):
    return {tags["task"]: tags["agreement"] for tags in meter.tags(metrics.SHADOW)}


def test_a_shadow_changes_no_answer_and_its_agreement_is_counted(meter):
    alone = ask(client_of(FakeModel())).json()
    assert with_shadow(FakeModel()).json() == alone
    assert agreements(meter) == {"activity": "agrees", "cadence": "agrees"}
    meter.counted.clear()
    assert with_shadow(Other()).json() == alone
    assert agreements(meter) == {"activity": "differs", "cadence": "agrees"}
    meter.counted.clear()
    assert with_shadow(Broken()).json() == alone
    assert agreements(meter) == {"activity": "failed", "cadence": "failed"}
    meter.counted.clear()
    assert with_shadow(Other(), most=1).json() == alone
    assert sorted(agreements(meter).values()) == ["differs", "not_asked"]


def test_a_shadow_reads_recordings_with_its_own_tokenizer(meter):
    class Tokens(FakeModel):
        async def tokenize(self, *arguments):
            return replace(await super().tokenize(*arguments), tokens=[7])

    shadow = Tokens()
    assert with_shadow(shadow).status_code == 200
    assert [list(motion.tokens) for query in shadow.queries for motion in query.motions] == [[7], [7]]


def test_a_shadow_keeps_few_recordings():
    class Counting(FakeModel):
        async def tokenize(self, *arguments):
            self.calls.append("tokenize")
            return replace(await super().tokenize(*arguments), tokens=[len(self.calls)])

    async def run():
        shadowed = Shadowed(Counting(), FakeModel(), 1)
        for _ in range(KEPT_MOVEMENTS + 20):
            await shadowed.tokenize([[0.0]] * 30, None, "recorded")
        return len(shadowed._movements)

    assert asyncio.run(run()) == KEPT_MOVEMENTS


def test_numbers_agree_within_the_first_answers_interval():
    task = SERVED.tasks["cadence"]
    first = Answer(task.answer(100.0), low=95.0, high=105.0)
    for value, expected in ((104.0, True), (106.0, False)):
        assert agree(SERVED.tasks, "cadence", first, Answer(task.answer(value))) is expected
    assert not agree(SERVED.tasks, "cadence", first, Answer("", status="unlike"))
    assert agree(SERVED.tasks, "cadence", Answer("", status="unlike"), Answer("", status="unlike"))


# --- A new model on one machine


def test_a_model_that_cannot_be_served_leaves_the_one_before(capsys):
    deployed = []

    def deploy(uri):
        deployed.append(uri)
        if uri == "damaged":
            raise RuntimeError("deploying failed")

    assert upgrade("first", lambda: "second", deploy) == "second"
    assert upgrade("second", lambda: "damaged", deploy) == "second"
    assert deployed == ["second", "damaged", "second"]
    assert "still serving second: damaged cannot be served" in capsys.readouterr().out


# --- Dashboard and alert rules

MONITORING = ROOT / "infra/monitoring"


def used(expression):
    """(metric, suffix, tags) of ours in a PromQL expression."""
    tags = set(re.findall(r"\bby ?\(([^)]*)\)", expression)) | set(
        re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", expression)
    )
    names = {tag.strip() for group in tags for tag in group.split(",")}
    return re.findall(r"ray_(biomechgpt_\w+?)(_total|_bucket|_sum|_count)\b", expression), names


def expressions():
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield f"dashboard {panel['title']}", target["expr"]
    for group in yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"]:
        for rule in group["rules"]:
            yield f"alert {rule['alert']}", rule["expr"]


def test_dashboard_and_alerts_use_only_metrics_and_tags_that_there_are():
    shown = set()
    for place, expression in expressions():
        found, tags = used(expression)
        if "biomechgpt" in expression:
            assert found, place
        known = {tag for name, _ in found for tag in METRICS[name].tags}
        # Ray Serve adds the tags application, deployment and replica.
        assert tags <= {"application", "deployment", "le"} | known, (place, tags)
        for name, suffix in found:
            metric = METRICS[name]
            assert (suffix == "_total") is (metric.kind == "counter"), place
            if suffix == "_bucket" and (bound := re.search(r'le="([^"]+)"', expression)):
                assert float(bound[1]) in metric.boundaries, place
            if place.startswith("dashboard"):
                shown.add(name)
    assert shown == set(METRICS)


def test_every_alert_says_what_to_do_and_the_docs_list_it():
    text = (ROOT / "docs/operations.md").read_text()
    for group in yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"]:
        for rule in group["rules"]:
            assert rule["labels"]["severity"] in ("page", "ticket")
            assert rule["annotations"]["summary"]
            assert rule["annotations"]["runbook"].startswith("docs/operations.md#")
            assert rule["alert"] in text
    for name, metric in METRICS.items():
        assert f"`{name}`" in text
        assert all(f"`{tag}`" in text for tag in metric.tags)
