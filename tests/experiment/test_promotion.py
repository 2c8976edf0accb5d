"""A candidate must hold what the champion gives; a reason overrules that; one command goes back."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from biomechgpt.core import artifact, storage
from biomechgpt.core.settings import InputError, load
from biomechgpt.experiment import challenge as challenges
from biomechgpt.experiment import promote, tracking
from biomechgpt.experiment.challenge import Challenge, Check, Margins, challenge
from biomechgpt.experiment.promote import PromoteSettings, RollBackSettings, run_promote, run_roll_back
from biomechgpt.experiment.tracking import TrackingSettings
from biomechgpt.questions.tasks import load_tasks
from conftest import ROOT

TASKS = load_tasks(ROOT / "configs/tasks")
DEFAULTS = Margins()
PEOPLE = [f"p{number:02d}" for number in range(12)]


def answers(right=1.0, withheld=0.0, noise=0.05, young_wrong=False, seed=0):
    """A table of answers to impaired and cadence about twelve people, four trials each.

    right: share of right labels. withheld: share of cadence questions without an answer. noise: relative error of
    the cadence. young_wrong: labels of people below 40 are wrong.
    """
    rng, rows = np.random.default_rng(seed), []
    for number, person in enumerate(PEOPLE):
        for trial in range(4):
            impaired, cadence = "yes" if number % 2 else "no", 80 + 4.0 * number + trial
            age = 30 if number < 6 else 60
            wrong = rng.random() >= right or (young_wrong and age < 40)
            other = {"yes": "no", "no": "yes"}[impaired]
            said = other if wrong else impaired
            shared = {
                "trial": f"{person}-{trial}", "other": None, "participant": person, "split": "validation",
                "source": "model", "age": age, "applies_true": True, "question": "?",
                "unlike": {"unlike": False, "checked": True, "participants": 12, "fitted_on": "validation"},
            }  # fmt: skip
            rows.append(
                shared
                | {"task": "impaired", "label_true": impaired, "label_predicted": said, "answer_true": impaired,
                   "answer_text": said, "status": "answered", "value_true": np.nan, "value_predicted": np.nan}
            )  # fmt: skip
            value = cadence * (1 + noise * rng.standard_normal())
            is_withheld = rng.random() < withheld
            rows.append(
                shared
                | {"task": "cadence", "label_true": None, "label_predicted": None, "answer_true": str(cadence),
                   "answer_text": str(value), "value_true": cadence, "value_predicted": value,
                   "status": "does_not_apply" if is_withheld else "answered"}
            )  # fmt: skip
    return pd.DataFrame(rows)


@pytest.fixture
def compared(monkeypatch, tmp_path):
    """Compare two tables of answers: (challenger's, champion's) -> Challenge."""

    class Bundle:
        def __init__(self, uri):
            self.tasks = {name: TASKS[name] for name in ("impaired", "cadence")}

    def run(ours, theirs, margins=DEFAULTS):
        candidate, champion = (model(tmp_path, name) for name in ("ours", "theirs"))
        tables = {candidate.uri: ours.drop(columns="age"), champion.uri: theirs.drop(columns="age")}
        ages = ours[["trial", "age"]].drop_duplicates()
        monkeypatch.setattr(challenges, "ModelBundle", Bundle)
        monkeypatch.setattr(challenges, "_answers", lambda made, *rest: tables[made.uri])
        monkeypatch.setattr(challenges, "_subgroup_columns", lambda *given: ages)
        monkeypatch.setattr(challenges, "_seen", lambda *models: {"p00"})
        return challenge(candidate, champion, margins, str(tmp_path))

    return run


def model(root, name):
    def build(uri):
        storage.write_json(storage.join(uri, "bundle.json"), {"name": name})
        return {}

    return artifact.make("model", 1, {"name": name}, {}, build, str(root), provenance="synthetic")


def beyond(made):
    return {(check.quantity, check.task, check.group) for check in made.checks if check.beyond}


def test_equal_models_lose_nothing(compared):
    made = compared(answers(0.8), answers(0.8))
    assert made.reasons == []
    assert (made.participants, made.seen_by_champion) == (12, 1)
    assert {check.loss for check in made.checks} == {0.0}
    scores = [check for check in made.checks if check.quantity == "score"]
    assert {check.task for check in scores} == {"impaired", "cadence"}
    assert {check.loss_ci for check in scores} == {
        None
    }  # all participants agree: there is nothing to estimate from


def test_a_loss_beyond_its_margin_is_a_reason_and_a_gain_is_none(compared):
    made = compared(answers(0.5), answers(1.0))
    assert ("score", "impaired", None) in beyond(made)
    (score,) = [check for check in made.checks if (check.quantity, check.task) == ("score", "impaired")]
    assert score.loss == pytest.approx(score.champion - score.candidate)
    assert score.loss_ci[0] <= score.loss <= score.loss_ci[1]
    assert any("score of impaired: champion 1.000" in reason for reason in made.reasons)
    assert compared(answers(1.0), answers(0.5)).reasons == []
    assert compared(answers(0.5), answers(1.0), Margins(score=1, worst_subgroup=1)).reasons == []
    assert ("withheld", "cadence", None) in beyond(compared(answers(withheld=0.5), answers()))


def test_a_subgroup_that_loses_counts_although_the_rest_gains(compared):
    made = compared(answers(young_wrong=True), answers(0.5))
    (worst,) = [
        check for check in made.checks if check.quantity == "worst_subgroup" and check.task == "impaired"
    ]
    assert (worst.group, worst.beyond) == ("age: below 40", True)


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    """A registry's file without any model: making its tables takes seconds."""
    path = tmp_path_factory.mktemp("registry") / "mlflow.db"
    tracking.client(TrackingSettings(uri=f"sqlite:///{path}")).search_registered_models()
    return path


@pytest.fixture
def mlflow(empty, tmp_path):
    return TrackingSettings(uri=f"sqlite:///{shutil.copy(empty, tmp_path)}")


@pytest.fixture
def registry(monkeypatch, tmp_path, mlflow):
    """Promote models with given losses: promote(name, loss, **settings) -> model."""
    settings = mlflow

    def run(name, loss=0.0, **options):
        made = model(tmp_path, name)
        check = Check("score", "impaired", None, 0.8, 0.8 - loss, loss, (loss - 0.1, loss + 0.1), 0.05)
        monkeypatch.setattr(challenges, "challenge", lambda *models: Challenge(12, 0, [], [check]))
        monkeypatch.setattr(promote, "validate", lambda *of: {"model": made.uri, "score": 0.8, "tasks": {}})
        return run_promote(PromoteSettings(candidates=made.uri, tracking=settings, **options))

    return run, settings


def champion(settings):
    return tracking.resolve(settings, tracking.CHAMPION)


@pytest.mark.filterwarnings("ignore")
def test_the_registry_refuses_keeps_the_reason_and_goes_back(registry):
    put, settings = registry
    first = put("first", 9.0)  # nothing to compare with
    assert put("first", 9.0) == first
    with pytest.raises(InputError, match=r"by more than the margins:\n  score of impaired: .*margin 0\.050"):
        put("worse", 0.2)
    assert champion(settings) == first.uri
    second = put("second", 0.01)
    assert champion(settings) == second.uri
    third = put("worse", 0.2, force="the old one is wrong about falls")
    assert champion(settings) == third.uri
    versions = tracking.client(settings).search_model_versions("name = 'biomechgpt'")
    tags = {version.source: version.tags for version in versions}
    assert tags[third.uri]["forced"] == "the old one is wrong about falls"
    assert "forced" not in tags[second.uri]
    made = artifact.load(tags[third.uri]["challenge"], "challenge")
    assert json.loads(storage.read_bytes(made.path("challenge.json")))["checks"][0]["beyond"] is True

    assert run_roll_back(RollBackSettings(reason="worse at night", tracking=settings)) == second
    assert champion(settings) == second.uri
    assert run_roll_back(RollBackSettings(reason="also worse", tracking=settings)) == first
    with pytest.raises(InputError, match="no version had the alias 'champion' before it"):
        run_roll_back(RollBackSettings(reason="x", tracking=settings))
    versions = tracking.client(settings).search_model_versions("name = 'biomechgpt'")
    assert {version.tags.get("rolled_back") for version in versions} == {None, "worse at night", "also worse"}


@pytest.mark.filterwarnings("ignore")
def test_a_registry_without_a_champion_has_nothing_to_go_back_to(mlflow):
    with pytest.raises(InputError, match="no version of biomechgpt has the alias"):
        run_roll_back(RollBackSettings(reason="x", tracking=mlflow))


def test_a_registry_that_fails_is_no_registry_without_a_champion(registry, monkeypatch):
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    put, _ = registry
    put("first")

    def away(*given, **named):
        raise MlflowException("the server is away")

    monkeypatch.setattr(MlflowClient, "get_model_version_by_alias", away)
    with pytest.raises(MlflowException, match="away"):
        put("second")


def test_a_forced_promotion_needs_a_reason():
    with pytest.raises(InputError, match="expected a reason in words"):
        load(PromoteSettings, None, ["--candidates", "x", "--force", " "])


def test_the_shipped_margins_are_the_defaults():
    assert load(PromoteSettings, ROOT / "configs/promotion.yaml", ["--candidates", "x"]).margins == Margins()
