"""Sweep, comparison and promotion, on real Ray with the artifacts of the tiny run."""

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter

import optuna
import pytest
import ray

from biomechgpt.core import artifact, settings, storage
from biomechgpt.core.settings import InputError
from biomechgpt.evaluation.statistics import sources
from biomechgpt.experiment import tracking
from biomechgpt.experiment.compare import CompareSettings, tables, variant_settings
from biomechgpt.experiment.promote import PromoteSettings, run_promote, winner
from biomechgpt.experiment.sweep import Range, SweepSettings, run_sweep, show_sweep
from biomechgpt.experiment.tracking import TrackingSettings
from conftest import ROOT, printed_uri

CONFIGS = ROOT / "configs/experiments"


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory):
    return TrackingSettings(uri=f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db")


@pytest.mark.parametrize(
    ("model", "name"),
    [(SweepSettings, "sweep_demo"), (SweepSettings, "sweep_tiny"), (CompareSettings, "table2"),
     (CompareSettings, "table2_tiny"), (CompareSettings, "learning_curve"),
     (CompareSettings, "ablation")],
)  # fmt: skip
def test_shipped_settings_are_valid(model, name):
    assert settings.load(model, CONFIGS / f"{name}.yaml", ["--root", "elsewhere"]).root == "elsewhere"


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"language.finetune.rank": {"choice": [4]}}, r"language\.finetune\.rank: unknown key"),
        ({"language.finetune.adapter.rank": {"integer": [0, 4]}}, r"adapter\.rank: .*found 0"),
        ({"language.finetune.adapter.rank": {}}, r"expected one of choice, uniform"),
        ({"language.finetune.adapter.dropout": {"uniform": [0.2, 0.1]}}, r"a lower and a higher end"),
    ],
)
def test_a_wrong_search_space_is_refused_before_any_work(space, message, tmp_path):
    with pytest.raises(InputError, match=message):
        run_sweep(settings.validate(SweepSettings, {"space": space, "root": str(tmp_path)}, "test"))
    assert not list(tmp_path.iterdir())


def draws(setting):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
    return [setting.draw(study.ask(), "x") for _ in range(200)]


def test_every_draw_is_within_its_range():
    for setting in (Range(integer=(2, 4)), Range(log_uniform=(1e-4, 1e-2)), Range(uniform=(0.0, 0.2))):
        low, high = setting.ends()
        values = draws(setting)
        assert low <= min(values) <= max(values) <= high
    assert set(draws(Range(integer=(2, 4)))) == {2, 3, 4}


def test_the_table_of_a_sweep_has_a_line_for_each_trial_and_says_which_failed(tmp_path):
    sweep = artifact.Artifact(str(tmp_path), {"kind": "sweep"})
    trials = [
        {
            "score": 0.75,
            "seconds": 121,
            "core_hours": 0.25,
            "gpu_hours": 0,
            "settings": {"language.finetune.adapter.rank": 8, "questions.seed": 1},
        },
        {"score": None, "settings": {"language.finetune.adapter.rank": 4, "questions.seed": 2}},
    ]
    storage.write_json(sweep.path("trials.json"), trials)
    _, best, failed, *notes = show_sweep(sweep).splitlines()
    assert best == "  0.750      2.0    0.25    0.00  rank=8  seed=1"
    assert failed == " failed                           rank=4  seed=2"
    assert notes[0] == "score: mean over tasks on validation participants"


@pytest.mark.cluster
def test_a_killed_sweep_resumes_and_makes_shared_artifacts_once(tiny, mlflow, tmp_path):
    before = {path.parent.name for path in tiny.root.rglob("manifest.json")}
    command = [
        *(
            sys.executable,
            "jobs/sweep.py",
            "--config",
            "configs/experiments/sweep_tiny.yaml",
            "--trials",
            "2",
        ),
        *("--root", str(tiny.root), "--tracking.uri", mlflow.uri),
        *("--study", f"sqlite:///{tmp_path}/optuna.db"),
    ]
    # On the suite's Ray: it outlives the killed driver, as a cluster does.
    environment = os.environ | {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    job = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    assert job.stdout is not None
    for line in job.stdout:
        if line.startswith("sweep: trial 1 of 2:"):
            job.send_signal(signal.SIGKILL)
            break
    job.wait()
    assert not list((tiny.root / "sweep").rglob("manifest.json"))
    resumed = subprocess.run(command, cwd=ROOT, env=environment, text=True, capture_output=True, check=False)
    assert resumed.returncode == 0, resumed.stderr
    assert "going on with the study" in resumed.stdout
    assert "score: mean over tasks on validation participants" in resumed.stdout  # the table of show_sweep
    uri = resumed.stdout.strip().splitlines()[-1].removeprefix("artifact: ")
    sweep = artifact.load(uri, "sweep", verify=True)
    trials = sweep.read_json("trials.json")
    assert [len(t["runs"]) for t in trials] == [1, 1]
    assert trials[0]["score"] >= trials[1]["score"]
    assert sweep.provenance == "synthetic"
    new = [path.parent for path in tiny.root.rglob("manifest.json") if path.parent.name not in before]
    # The first trial takes the tiny run's model, the second trains its own.
    made = Counter(folder.parent.name for folder in new)
    assert made == {
        **dict.fromkeys(("adapter", "calibration", "model", "sweep"), 1),
        **dict.fromkeys(("answers", "evaluation"), 2),
    }
    client = tracking.client(mlflow)
    (experiment,) = [e for e in client.search_experiments() if e.name == mlflow.experiment]
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == len({run.info.run_name for run in runs}) == 2
    assert {run.data.metrics["score"] for run in runs} == {t["score"] for t in trials}


@pytest.mark.cluster
def test_a_comparison_has_tables_and_its_best_model_on_validation_becomes_champion(tiny, mlflow, run_job):
    arguments = ["--config", CONFIGS / "table2_tiny.yaml", "--root", tiny.root, "--tracking.uri", mlflow.uri]
    comparison = artifact.load(printed_uri(run_job("compare", *arguments)), "comparison")
    text = storage.read_bytes(comparison.path("tables.md")).decode()
    assert "Data: synthetic. Language model base: local stand-in" in text
    rows = {line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")}
    assert {"all tasks", "activity+impaired", "activity+impaired, on its training set"} < rows
    assert set(sources().values()) - {"Model"} < rows
    first = next(line for line in text.splitlines() if line.startswith("| all tasks |")).split("|")
    assert re.fullmatch(r"0\.\d\d \(0\.\d\d\)", first[2].strip())
    assert first[3].strip() == "0.94 (0.01)"  # the paper's 1B, activity
    content = comparison.read_json("comparison.json")
    runs, paired = content["runs"], content["paired"]
    page = storage.read_bytes(comparison.path("comparison.html")).decode()
    assert page.count('class="forest-row"') == len({task for run in runs for task in run["tasks"]})
    assert page.count("/report.html") == len(runs) == 6
    assert [(row["variant"], row["task"]) for row in paired] == [
        ("activity+impaired", "activity"),
        ("activity+impaired", "impaired"),
    ]
    # Five test participants are too few for a p value.
    assert [(row["p"], row["p_holm"], row["no_p"]) for row in paired] == [
        (None, None, "fewer than 6 participants")
    ] * 2
    assert "**Each variant less all tasks**" in text
    of_all_tasks = [run for run in runs if run["variant"] == "all tasks"]
    assert len({run["model"] for run in of_all_tasks}) == 2
    assert len({artifact.load(run["model"]).input("tokens").uri for run in runs}) == 1
    questions = [artifact.load(run["model"]).input("questions").uri for run in of_all_tasks]
    assert len(set(questions)) == 2

    promote = ["promote", "--candidates", comparison.uri, "--tracking.uri", mlflow.uri]
    champion = artifact.load(printed_uri(run_job(*promote)), "model")
    assert champion.uri in {run["model"] for run in of_all_tasks}
    assert tracking.resolve(mlflow, tracking.CHAMPION) == champion.uri
    again = run_promote(PromoteSettings(candidates=comparison.uri, tracking=mlflow))
    assert again == champion
    assert len(tracking.client(mlflow).search_model_versions("name = 'biomechgpt'")) == 1
    # A model of two tasks does not replace one of all.
    two_tasks = next(run["model"] for run in runs if run["variant"] == "activity+impaired")
    with pytest.raises(InputError, match="cadence: only the champion answers it"):
        run_promote(PromoteSettings(candidates=two_tasks, tracking=mlflow))
    (compared,) = (tiny.root / "challenge").iterdir()
    quantities = {
        check["quantity"] for check in json.loads((compared / "challenge.json").read_text())["checks"]
    }
    assert {"score", "calibration_error", "coverage"} < quantities
    assert tracking.resolve(mlflow, tracking.CHAMPION) == champion.uri
    manifests = json.dumps([path.read_text() for path in (tiny.root / "answers").rglob("manifest.json")])
    assert "validation" in manifests


@pytest.mark.parametrize(
    "name", ["table2.yaml", "table2_tiny.yaml", "learning_curve.yaml", "ablation.yaml", "transfer.yaml"]
)
def test_every_variant_of_a_shipped_comparison_has_valid_settings(name):
    comparison = settings.load(CompareSettings, CONFIGS / name)
    planned = [variant_settings(comparison, variant, 3) for variant in comparison.variants]
    assert len({run.model_dump_json() for run in planned}) == len(planned)
    assert {run.language.finetune.training.seed for run in planned} == {3}


def test_the_winner_has_the_best_mean_and_answers_all_tasks():
    def run(model, score, tasks=("a", "b")):
        return {"model": model, "score": score, "tasks": dict.fromkeys(tasks, score)}

    candidates = {
        "steady": [run("m1", 0.6), run("m2", 0.7)],
        "lucky": [run("m3", 0.9), run("m4", 0.1)],
        "easy": [run("m5", 0.99, ("a",))],
    }
    assert winner(candidates) == ("steady", candidates["steady"][1])
    with pytest.raises(InputError, match="no candidate answers all"):
        winner({"first": [run("m", 1, ("a",))], "second": [run("m", 1, ("b",))]})


def test_an_unknown_champion_is_refused_by_name(mlflow):
    with pytest.raises(InputError, match=r"no model 'nobody' with alias 'champion'"):
        tracking.resolve(mlflow, "models:/nobody@champion")
    assert tracking.resolve(mlflow, "s3://bucket/model/x") == "s3://bucket/model/x"


def test_a_table_shows_undefined_if_a_seed_has_no_score():
    rows = {"ours": {"paper": None, "tasks": {"cadence": [0.5, None], "tug_time": [0.5]}}}
    metrics = dict.fromkeys(("cadence", "tug_time"), "pearson_r")
    text = tables(rows, metrics, data="recorded", base="b", seeds=2)
    assert "| ours | undefined |  | 0.50 |  |" in text
    assert "weighted" not in text


def test_a_new_task_gets_a_column_after_the_papers_tasks():
    """Every task that a comparison answered is in its tables, with the main metric of its kind."""
    rows = {
        "ours": {
            "paper": "1B, all tasks",
            "tasks": {
                "freezing": [0.9, 0.8, 0.85],
                "which_impaired": [0.7],
                "speed_change": [0.4],
                "activity": [0.9],
                "cadence": [0.8],
                "out_of_scope": [1.0],
            },
        }
    }
    kinds = {"freezing": "f1_weighted", "which_impaired": "f1_weighted", "speed_change": "pearson_r"}
    kinds |= {"cadence": "pearson_r", "activity": "f1_weighted", "out_of_scope": "refused"}
    lines = tables(rows, kinds, data="recorded", base="b", seeds=3).splitlines()
    heads = [line for line in lines if line.startswith("| model")]
    assert heads == [
        "| model | activity | paper | freezing | paper | which impaired | paper |",
        "| model | cadence | paper | speed change | paper |",
        "| model | out of scope | paper |",
    ]
    assert "| ours | 0.90 | 0.94 (0.01) | 0.85 (0.05) |  | 0.70 |  |" in lines
