"""All stages on real Ray, from a cohort to the report; then from a user's folder, in a job, and with bad input."""

import json
import os
import re
import runpy
import signal
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import ray
import torch.distributed as dist
from safetensors.numpy import load_file

from biomechgpt.answering.batch import answer_all
from biomechgpt.answering.bundle import ModelBundle
from biomechgpt.answering.settings import BatchAnswerSettings
from biomechgpt.cohort import Cohort
from biomechgpt.core import storage
from biomechgpt.core.logs import logged_to_stdout
from biomechgpt.core.settings import InputError, load, validate
from biomechgpt.core.training import fit
from biomechgpt.evaluation.metrics import METRICS
from biomechgpt.evaluation.overview import title
from biomechgpt.evaluation.statistics import competitors, sources
from biomechgpt.experiment.pipeline import Stages, run_pipeline
from biomechgpt.experiment.settings import STAGES, InputUris, PipelineSettings
from biomechgpt.language.finetune import _about_some, _Finetuning
from biomechgpt.language.settings import FinetuneSettings
from biomechgpt.motion.trial import from_row
from biomechgpt.questions.dataset import read_questions
from biomechgpt.recordings.readers import opensim
from biomechgpt.simulator import SimulatorSettings
from biomechgpt.simulator import participants as participants_of
from biomechgpt.simulator import trials as trials_of
from biomechgpt.tokenizer.motion_tokenizer import MotionTokenizer
from biomechgpt.tokenizer.tokens import Tokens
from conftest import ROOT

pytestmark = pytest.mark.cluster
PAPER_TASKS = {path.stem for path in (ROOT / "configs/tasks").glob("*.yaml")}
EXTRA_TASKS = {path.stem for path in (ROOT / "configs/tasks_extra").glob("*.yaml")}


def test_report_and_metrics_have_their_shape(tiny):
    metrics = json.loads((tiny.out / "metrics.json").read_text())
    assert metrics["data"] == "synthetic"
    assert {"rmse_deg_tracked", "rmse_deg_all", "perplexity"} <= set(metrics["tokenizer"])
    # Few people are held out here, so the other comparison tasks may have no pair to ask about.
    certain = PAPER_TASKS | {"description", "out_of_scope", "quicker", "speed_change"}
    assert certain <= set(metrics["tasks"]) <= PAPER_TASKS | EXTRA_TASKS - {"movement"}
    for name, by_source in metrics["tasks"].items():
        assert set(by_source) == (set(sources()) if name in PAPER_TASKS else {"model"})
        for scores in by_source.values():
            assert sum(name in scores for name, metric in METRICS.items() if metric.is_main) == 1
            assert scores["n"] >= scores["participants"] > 0
        calibration = by_source["model"].get("calibration")
        assert (calibration is None) == (name in ("description", "out_of_scope"))
        assert calibration is None or 0 <= calibration["coverage"] <= 1
    seconds = metrics.pop("seconds")
    assert set(STAGES) | {"parameters", "codebook", "total"} == set(seconds)
    assert seconds["total"] == pytest.approx(sum(seconds.values()) / 2, abs=0.1)
    assert seconds["evaluation"] == tiny.evaluation.manifest["seconds"]
    assert {row["against"] for row in metrics["comparisons"]} == set(competitors())
    assert {row["by"] for row in metrics["subgroups"]} >= {"age", "sex"}
    files = {"answers.parquet", "metrics.json", "report.html", "report.ipynb"}
    assert files <= set(tiny.evaluation.manifest["files"])
    assert files <= {path.name for path in tiny.out.iterdir()}
    of_artifact = tiny.evaluation.read_json("metrics.json")
    assert metrics["model"].pop("path") == f"../artifacts/model/{metrics['model']['fingerprint']}"
    assert of_artifact["model"].pop("path") == f"../../model/{metrics['model']['fingerprint']}"
    del of_artifact["seconds"]  # the evaluation was not yet at its end
    assert metrics == of_artifact
    page = (tiny.out / "report.html").read_text()
    assert "synthetic" in page
    assert "stand-in" in page
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", page)
    for name in metrics["tasks"]:
        assert title(name) in page
    assert 'href="codebook.html"' in page
    codebook = (tiny.out / "codebook.html").read_text()
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", codebook)
    assert "typical of" in codebook
    assert "from tokens" in codebook


def test_the_model_artifact_is_complete_and_four_bit(tiny):
    bundle = tiny.made("model")
    assert bundle.metrics["linear_layers_4bit"] == 2 * 7  # layers x linear layers of a Gemma 3 layer
    names = set(bundle.manifest["files"])
    assert {"bundle.json", "tasks.json", "adapter/adapter_model.safetensors"} <= names
    assert not [n for n in names if n.endswith((".bin", ".pt", ".pkl"))]
    assert bundle.read_json("bundle.json")["quantization"] == "nf4"


def test_second_run_reuses_every_artifact(tiny, capsys):
    before = {path: path.stat().st_mtime_ns for path in tiny.root.rglob("manifest.json")}
    with logged_to_stdout():
        assert run_pipeline(tiny.settings).fingerprint == tiny.evaluation.fingerprint
    steps = re.findall(r"^step (\d+) of (\d+): (\w+)", capsys.readouterr().out, re.MULTILINE)
    assert steps == [(str(number), str(len(STAGES)), stage) for number, stage in enumerate(STAGES, 1)]
    assert {path: path.stat().st_mtime_ns for path in tiny.root.rglob("manifest.json")} == before


def test_the_stages_that_are_needed_are_those_that_are_made(tiny):
    for stage in STAGES:
        stages = Stages(tiny.settings)
        needed = stages.needed(stage)
        assert stages[stage].kind == stage
        assert set(stages._made) == set(needed)
    given = InputUris(model=tiny.made("model").uri)
    assert Stages(tiny.settings, given).needed("evaluation") == ["model", "answers", "evaluation"]


def test_tokens_do_not_depend_on_batches_and_each_participant_has_one_split(tiny):
    cohort, tokens = tiny.made("cohort"), tiny.made("tokens")
    table = Tokens(tokens).annotated_table().to_pylist()
    rows = {row["trial"]: row for row in Cohort(cohort).table().to_pylist()}
    assert len(table) == len(rows)
    tokenizer = MotionTokenizer.load(tiny.made("tokenizer").uri)
    for row in table[:6]:
        trial = from_row(rows[row["trial"]])
        (alone,) = tokenizer.encode([trial.angles_rad], [trial.joint_mask])
        assert alone.tolist() == row["tokens"]
    splits = {}
    for row in table:
        assert splits.setdefault(row["participant"], row["split"]) == row["split"]


def test_the_folder_platform_does_not_hide_the_standard_library_module(ray_cluster):
    @ray.remote(num_cpus=0.1)
    def system():
        import platform

        import biomechgpt

        return platform.system(), Path(biomechgpt.__file__).parent.name

    import platform

    assert platform.system() == "Linux"
    assert ray.get(system.remote()) == ("Linux", "biomechgpt")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["pipeline.py", "--config", "configs/experiments/absent.yaml"], "absent.yaml"),
        (["build_cohort.py", "--cohort.recordings", "nowhere"], "nowhere"),
        (["build_cohort.py", "--config", "configs/experiments/sweep_tiny.yaml"], "unknown key"),
        (["tokenize_cohort.py", "--inputs.cohort", "nowhere", "--inputs.tokenizer", "nowhere"], "nowhere"),
        (["pipeline.py", "--language.base.name", "google/gemma-3-1b-it"], "hf download google/gemma-3-1b-it"),
    ],
)
def test_bad_input_exits_with_2_and_writes_nothing(tmp_path, arguments, named, monkeypatch, capsys):
    script, *rest = arguments
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", [script, *rest, "--root", str(tmp_path / "artifacts")])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(ROOT / "jobs" / script), run_name="__main__")
    assert stopped.value.code == 2
    errors = capsys.readouterr().err
    assert named in errors
    assert "Traceback" not in errors
    assert not storage.list_files(str(tmp_path / "artifacts"))


def recordings(folder: Path, participants: int) -> Path:
    """A folder of .mot files of simulated movements, with their annotations, in the form of a lab's folder."""
    settings = SimulatorSettings(scale=0.1, duration_range_s=(5, 9), test_range_s=(5, 9), seed=5)
    people = [p for p in participants_of(settings) if p.enrolment.impaired != "unknown" and len(p.kinds) >= 4]
    lines = ["path,participant,activity,impaired,site"]
    for person in people[:participants]:
        for number, trial in enumerate(islice(trials_of(settings, person, 50.0), 4)):
            path = folder / person.name / f"{number}.mot"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(
                opensim.write(np.arange(len(trial.angles_rad)) / 50, trial.angles_rad, trial.pelvis)
            )
            activity, impaired = trial.annotations["activity"], trial.annotations["impaired"]
            lines.append(f"{person.name}/{number}.mot,{person.name},{activity},{impaired},ward")
    (folder / "annotations.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_the_pipeline_runs_on_a_folder_of_recordings(ray_cluster, tmp_path):
    folder = recordings(tmp_path / "in", 12)
    broken = folder / "broken.mot"
    broken.write_text("endheader\n")
    arguments = [
        "--cohort.recordings",
        str(folder),
        "--evaluation.baselines",
        "false",
        "--root",
        str(tmp_path / "a"),
        "--output",
        str(tmp_path / "out"),
    ]
    os.chdir(ROOT)
    tiny = ROOT / "configs/experiments/tiny.yaml"
    # Of so few people a model is made only if somebody insists.
    with pytest.raises(InputError, match=r"expected at least 10 training .*biomechgpt answer"):
        run_pipeline(load(PipelineSettings, tiny, arguments))
    run_pipeline(load(PipelineSettings, tiny, [*arguments, "--least_people", "0"]))
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert metrics["data"] == "recorded"
    # The held-out participants have no pair at the same activity of which one is impaired.
    assert set(metrics["tasks"]) == {"activity", "impaired", "description", "out_of_scope"}
    page = (tmp_path / "out/report.html").read_text()
    assert "Data: recorded" in page
    assert "simulated" not in page


def test_each_bad_recording_is_named_and_nothing_is_written(tmp_path):
    folder = recordings(tmp_path / "in", 8)
    files = sorted(folder.rglob("*.mot"))
    lines = files[0].read_text().splitlines()
    cells = lines[40].split("\t")
    broken_files = {
        "gap: hip_rotation_r has no values from": [
            *lines[:40],
            "\t".join([*cells[:9], "nan", *cells[10:]]),
            *lines[41:],
        ],
        "expected time to increase": [*lines[:40], "\t".join(["0.1", *cells[1:]]), *lines[41:]],
        "the file is cut off": [*lines[:-20], lines[-20][:50]],
        "look like degrees": [line.replace("inDegrees=yes", "inDegrees=no") for line in lines],
        "missing hip_flexion_r": [line.replace("hip_flexion_r", "thigh") for line in lines],
    }
    for file, text in zip(files, broken_files.values(), strict=False):
        file.write_text("\n".join(text) + "\n")
    root = tmp_path / "artifacts"
    command = [
        sys.executable,
        "jobs/build_cohort.py",
        "--cohort.recordings",
        str(folder),
        "--cohort.strict",
        "--cohort.readers.missing_joints",
        "error",
        "--root",
        str(root),
    ]
    job = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert job.returncode == 2, job.stderr
    for file, message in zip(files, broken_files, strict=False):
        (line,) = [line for line in job.stderr.splitlines() if str(file.relative_to(folder)) in line]
        assert message in line
    assert not storage.list_files(str(root))


def test_two_actors_answer_as_this_process_does(tiny):
    answers = tiny.made("answers")
    parts = ModelBundle(answers.input("model").uri).parts
    questions, tokens = answers.input("model").input("questions"), answers.input("tokens")
    asked = (parts, questions, tokens)
    here, on_actors = (
        answer_all(*asked, BatchAnswerSettings(workers=workers), ["activity", "cadence"])
        for workers in (1, 2)
    )
    keys = ["trial", "task", "question"]
    pd.testing.assert_frame_equal(
        on_actors.sort_values(keys, ignore_index=True), here.sort_values(keys, ignore_index=True), rtol=1e-4
    )


def test_the_validation_loss_is_that_of_validation_participants(tiny):
    adapter = tiny.made("adapter")
    metrics = adapter.metrics
    losses = {row["step"]: row["validation_loss"] for row in metrics["history"] if "validation_loss" in row}
    assert len(losses) == 4
    assert max(losses) == metrics["steps"]
    assert metrics["validation_loss"] == min(losses.values()) == losses[metrics["best_step"]]
    inputs = {name: adapter.input(name).uri for name in ("base", "questions", "tokens")}
    rows = [row for row in read_questions(adapter.input("questions")) if row["split"] == "validation"]

    def trees(**validation):
        settings = tiny.settings.language.finetune.model_dump() | {"validation": validation}
        return _Finetuning(**inputs, settings=settings).validation_trees

    # A question that is answered by the movement has a tree of its own, which does not show it.
    every = trees(times=1, movements=10_000)
    assert len(every) == len({(row["trial"], row.get("other"), row["answer"] == "") for row in rows})
    some = _about_some(rows, 3)
    assert len({(row["trial"], row.get("other")) for row in some}) == 3
    assert 3 <= len(trees(times=1, movements=3)) < len(every)
    assert trees(times=0, movements=3) == []


class Dying(_Finetuning):
    """The last worker is killed once, before its batch `die_at`. A flag file records that it was killed."""

    def __init__(self, die_at: int, flag: str, **arguments) -> None:
        super().__init__(**arguments)
        self.left, self.flag = die_at, flag

    def collate(self, samples):
        self.left -= 1
        if self.left == 0 and dist.get_rank() == dist.get_world_size() - 1 and not storage.exists(self.flag):
            storage.write_bytes(self.flag, b"killed")
            os.kill(os.getpid(), signal.SIGKILL)
        return super().collate(samples)


def test_two_workers_with_one_killed_fine_tune_to_the_same_result_as_one(tiny, tmp_path):
    """4 bits, ZeRO 2. Without dropout, because each worker draws its own random numbers for it."""
    adapter = tiny.made("adapter")
    inputs = {name: adapter.input(name).uri for name in ("base", "questions", "tokens")}
    losses, rows = [], []
    for workers, die_at in ((1, 0), (2, 5)):
        settings = validate(
            FinetuneSettings,
            {
                "compute_dtype": "fp32",
                "batch_size": 4,
                "epochs": 0.5,
                "adapter": {"rank": 4, "dropout": 0},
                "training": {
                    "workers": workers,
                    "zero_stage": 2,
                    "checkpoint_every": 3,
                    "learning_rate": 3e-3,
                },
            },
            "test",
        )
        uri = str(tmp_path / str(workers))
        arguments = {**inputs, "die_at": die_at, "flag": f"{uri}.flag", "settings": settings.model_dump()}
        losses.append(fit(Dying, arguments, settings.training, uri, "fine-tuning")["loss"])
        rows.append(load_file(f"{uri}/adapter/adapter_model.safetensors"))
        assert storage.exists(f"{uri}.flag") == bool(die_at)
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    for name, value in rows[0].items():
        np.testing.assert_allclose(rows[1][name], value, rtol=2e-2, atol=2e-3, err_msg=name)
