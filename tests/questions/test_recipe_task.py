"""The recipe "add a task" of the guide, carried out: one file in a folder of tasks, and it is asked."""

import logging
import shutil
from pathlib import Path

import pytest
from written_cohort import N_TRIALS, write_cohort

from biomechgpt.core.settings import InputError, load
from biomechgpt.experiment.settings import PipelineSettings
from biomechgpt.questions.dataset import (
    QuestionsSettings,
    full_tasks,
    make_questions,
    read_questions,
    read_tasks,
)
from biomechgpt.questions.intent import IntentClassifier
from conftest import ROOT

FREEZING = """\
# yaml-language-server: $schema=schema.json
name: freezing
kind: classification
annotation: freezing
labels: {"yes": freezing of gait, "no": no freezing}
templates:
  - Does the gait freeze here?
  - Is there freezing of gait?
  - Do the feet stick to the floor?
  - Is this an episode of freezing?
  - Does this person freeze while walking?
  - Can you see freezing of gait?
  - Is freezing present in this recording?
  - Freezing or no freezing?
paraphrases:
  - Are the feet glued to the ground at any moment?
"""


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return write_cohort(tmp_path_factory.mktemp("cohort"))


@pytest.fixture
def folder(tmp_path) -> Path:
    """The shipped tasks and a new file beside them."""
    shutil.copytree(ROOT / "configs/tasks", tmp_path / "tasks")
    (tmp_path / "tasks/freezing.yaml").write_text(FREEZING)
    return tmp_path / "tasks"


def questions_of(cohort, tmp_path, **settings):
    return make_questions(cohort, QuestionsSettings(**settings), str(tmp_path / "artifacts"))


def test_a_new_file_in_the_folder_is_asked_of_every_trial(cohort, folder, tmp_path):
    questions = questions_of(cohort, tmp_path, tasks=str(folder))
    rows = [row for row in read_questions(questions) if row["task"] == "freezing"]
    task = read_tasks(questions.uri)["freezing"]
    assert {row["trial"]: row["answer"] for row in rows} == {
        f"t{n}": ["no freezing", "freezing of gait"][n % 2] for n in range(N_TRIALS)
    }
    assert {row["question"] for row in rows} <= set(task.templates)
    assert {row["label"] for row in rows} == {"yes", "no"}
    metrics = questions.metrics
    assert metrics["by_task"] == {"activity": N_TRIALS, "cadence": N_TRIALS, "freezing": N_TRIALS}
    assert metrics["missing_columns"]["diagnosis"] == ["diagnosis", "impaired"]
    assert "freezing" not in metrics["missing_columns"]


def test_the_demo_asks_every_file_but_the_ones_it_excludes(folder):
    settings = load(PipelineSettings, ROOT / "configs/experiments/demo.yaml").questions
    before = {path.stem for path in (ROOT / "configs/tasks").glob("*.yaml")} | {"description", "out_of_scope"}
    folders = [str(folder), str(ROOT / "configs/tasks_extra")]
    assert set(settings.model_copy(update={"tasks": folders}).load()) == before | {"freezing"}


def test_a_task_whose_column_nobody_has_is_reported_with_its_file_and_column(
    cohort, folder, tmp_path, caplog
):
    (folder / "freezing.yaml").write_text(FREEZING.replace("annotation: freezing", "annotation: fog"))
    with caplog.at_level(logging.WARNING, "biomechgpt"):
        questions = questions_of(cohort, tmp_path, tasks=str(folder))
    (message,) = [record.getMessage() for record in caplog.records if "freezing.yaml" in record.getMessage()]
    assert str(folder / "freezing.yaml") in message
    assert "fog" in message
    assert questions.metrics["missing_columns"]["freezing"] == ["fog"]
    assert "freezing" not in questions.metrics["by_task"]


def test_what_the_settings_leave_out_is_logged(cohort, folder, tmp_path, caplog):
    with caplog.at_level(logging.INFO, "biomechgpt"):
        questions = questions_of(cohort, tmp_path, tasks=str(folder), exclude=["cadence", "freezing"])
    assert "cadence, freezing" in " ".join(record.getMessage() for record in caplog.records)
    assert questions.metrics["left_out"] == ["cadence", "freezing"]
    assert set(questions.metrics["by_task"]) == {"activity"}


def test_a_cohort_without_any_of_the_columns_is_refused(cohort, tmp_path):
    with pytest.raises(InputError, match=r"none of the tasks' annotations \['tug_time'\]"):
        questions_of(cohort, tmp_path, tasks=str(ROOT / "configs/tasks"), names=["tug_time"])


def test_a_paraphrase_changes_no_questions_artifact_and_a_template_does(cohort, folder, tmp_path):
    before = questions_of(cohort, tmp_path, tasks=str(folder))
    assert list(before.manifest["inputs"]) == ["cohort"]
    (folder / "freezing.yaml").write_text(f"{FREEZING}  - Does he get stuck?\n")
    assert questions_of(cohort, tmp_path, tasks=str(folder)).fingerprint == before.fingerprint
    tasks = full_tasks(before, QuestionsSettings(tasks=str(folder)))
    assert list(tasks) == ["activity", "cadence", "freezing"]
    assert tasks["freezing"].paraphrases[-1] == "Does he get stuck?"
    (folder / "freezing.yaml").write_text(FREEZING.replace("Freezing or no", "Freezing, or no"))
    assert questions_of(cohort, tmp_path, tasks=str(folder)).fingerprint != before.fingerprint


def test_the_same_tasks_in_another_folder_are_the_same_questions(cohort, folder, tmp_path):
    before = questions_of(cohort, tmp_path, tasks=str(folder))
    folder.rename(tmp_path / "elsewhere")
    after = questions_of(cohort, tmp_path, tasks=str(tmp_path / "elsewhere"))
    assert after.fingerprint == before.fingerprint


def test_a_new_task_is_recognised_in_other_words(folder):
    tasks = QuestionsSettings(tasks=[str(folder), str(ROOT / "configs/tasks_extra")]).load()
    classifier = IntentClassifier(tasks)
    assert classifier.task("Are the feet of the patient glued to the ground?", list(tasks)) == "freezing"
