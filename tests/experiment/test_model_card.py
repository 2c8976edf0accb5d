"""The model card: its table has the main metric of each task, whatever its kind, and a column per source."""

import pytest

from biomechgpt.core import storage
from biomechgpt.core.artifact import Artifact
from biomechgpt.core.settings import InputError
from biomechgpt.experiment.export import model_card
from biomechgpt.experiment.results import demo_model
from biomechgpt.questions.tasks import ClassificationTask, RefusalTask

QUESTIONS = [f"Question {i}?" for i in range(8)]


@pytest.fixture
def model(tmp_path):
    tasks = [
        ClassificationTask(name="aid", annotation="aid", labels={"a": "a cane"}, templates=QUESTIONS),
        RefusalTask(name="refusal", refusal_text="No.", templates=QUESTIONS),
    ]
    folder = tmp_path / "model"
    storage.write_json(f"{folder}/tasks.json", [task.model_dump(mode="json") for task in tasks])
    storage.write_json(f"{folder}/bundle.json", {"base": "b", "provenance": "synthetic", "labels": {}})
    manifest = {"kind": "model", "fingerprint": "f" * 16, "metrics": {}, "figures": {}, "settings": {}}
    return Artifact(str(folder), manifest | {"inputs": {}, "made": "today"})


def test_the_table_has_every_task_and_source(model):
    metrics = {
        "aid": {"model": {"f1_weighted": 0.9}, "xgboost": {"f1_weighted": 0.8}},
        "refusal": {"model": {"refused": None}},
    }
    lines = model_card(model, metrics).splitlines()
    at = lines.index("| task | metric | Model | XGBoost, tokens | ")
    assert [line.strip() for line in lines[at + 1 : at + 5]] == [
        "|---|---|---:|---:|",
        "| aid | weighted F1 | 0.90 | 0.80 |",
        "| refusal | share refused | - | - |",
        "",
    ]
    assert "No evaluation was given" in model_card(model, {})


def test_the_demos_model_is_the_one_of_its_report(tmp_path):
    with pytest.raises(InputError, match=r"metrics\.json: expected the results of `make demo`"):
        demo_model(str(tmp_path))
    storage.write_json(str(tmp_path / "metrics.json"), {"model": {"uri": "s3://bucket/model/x"}})
    assert demo_model(str(tmp_path)) == "s3://bucket/model/x"
