"""Every script in jobs/ runs on the tiny settings, and prints where its result is."""

import io
import json
import os
import re
import subprocess
import sys

import pandas as pd
import pytest

from biomechgpt.cohort import Cohort
from biomechgpt.commands import COMMANDS
from biomechgpt.core import artifact, storage
from conftest import ROOT, printed_uri
from real_recordings import SHIPPED

pytestmark = pytest.mark.cluster
TINY = ["--config", "configs/experiments/tiny.yaml"]
STAGES = {
    "build_cohort": "cohort",
    "train_tokenizer": "tokenizer",
    "tokenize_cohort": "tokens",
    "build_questions": "questions",
    "train_base": "base",
    "finetune": "adapter",
    "calibrate": "calibration",
    "bundle_model": "model",
    "answer_questions": "answers",
    "evaluate": "evaluation",
    "pipeline": "evaluation",
}
"""Scripts that run a part of the whole path, and the kind of artifact that each of them makes."""
EXPERIMENTS = ("compare", "promote", "sweep")
"""Scripts that tests/experiment/test_experiment.py runs: their trainings are the longest."""
OTHERS = ("answer", "audit", "check", "export", "generate", "new_table", "reproduce", "show")


def test_every_script_is_run_here():
    assert {path.stem for path in (ROOT / "jobs").glob("*.py")} == {*STAGES, *OTHERS, *EXPERIMENTS}


@pytest.mark.parametrize(("script", "kind"), STAGES.items())
def test_a_stage_makes_what_it_needs_and_stops_after_itself(script, kind, run_job, tiny, tmp_path):
    printed = run_job(script, *TINY, "--root", tiny.root, "--output", tmp_path)
    assert printed_uri(printed) == tiny.made(kind).uri
    assert (tmp_path / "report.html").exists() == (script in ("pipeline", "evaluate"))


def test_an_input_can_be_given_by_uri(run_job, tiny, tmp_path):
    cohort = tiny.made("cohort")
    (tmp_path / "cohort").mkdir()
    moved = tmp_path / "cohort" / cohort.fingerprint
    storage.upload(artifact.local_copy(cohort.uri), str(moved))
    printed = run_job("build_questions", *TINY, "--inputs.cohort", moved, "--root", tmp_path)
    assert artifact.load(printed_uri(printed), "questions").manifest["inputs"]["cohort"]["fingerprint"] == (
        cohort.fingerprint
    )
    assert f"cohort {cohort.fingerprint}: given" in printed


def test_check_says_what_is_there(run_job, tiny, tmp_path):
    there = run_job("check", *TINY, "--root", tiny.root)
    assert "model" in there
    assert "missing" not in there
    assert "missing" in run_job("check", *TINY, "--root", tmp_path)


def test_new_table_lists_the_recordings(run_job, tmp_path):
    (tmp_path / "p01").mkdir()
    (tmp_path / "p01/walk.mot").write_bytes(min(SHIPPED.rglob("*.mot")).read_bytes())
    path = printed_uri(run_job("new_table", tmp_path))
    header, row = (tmp_path / "annotations.csv").read_text().splitlines()
    assert path == str(tmp_path / "annotations.csv")
    assert header.startswith("path,participant,activity,")
    assert row.startswith("p01/walk.mot,p01,,")


def test_answer_writes_a_table_of_answers_here_and_on_a_cluster_with_s3(run_job, tiny, bucket, tmp_path):
    (tmp_path / "broken.mot").write_text("nothing that a reader knows")
    walk = min(SHIPPED.rglob("*.mot"))
    (tmp_path / "walk.mot").write_bytes(walk.read_bytes())
    output = tmp_path / "answers.csv"
    model = tiny.made("model").uri
    run_job(
        "answer", tmp_path, "--model", model, "--tasks", '["activity", "walking_speed"]', "--output", output
    )
    header, *rows = output.read_text().splitlines()
    assert header.startswith("file,participant,duration_s,task,status,answer,")
    assert [row.split(",")[0] for row in rows] == ["broken.mot", "walk.mot", "walk.mot"]
    assert "no known format" in rows[0]
    assert ",unreadable," in rows[0]
    tasks = pd.read_parquet(tmp_path / "answers.parquet")["task"]
    assert tasks.fillna("").tolist() == ["", "activity", "walking_speed"]
    page = (tmp_path / "answers.html").read_text()
    assert "synthetic" in page
    assert "stand-in" in page
    assert page.count("data:image/png;base64") == 1
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", page)
    alone = pd.read_csv(output)
    # The same over actors of a cluster, with recordings, model and table on S3.
    folder, there = f"{bucket}/recordings", f"{bucket}/model/{tiny.made('model').fingerprint}"
    storage.upload(str(tmp_path), folder)
    storage.upload(artifact.local_copy(model), there)
    arguments = ["--model", there, "--tasks", '["activity"]', "--workers", "2"]
    # The tables that lie there by now are no recordings. A process of its own: the Ray of the tests does not know
    # the bucket's server.
    command = [sys.executable, "jobs/answer.py", folder, *arguments, "--output", f"{folder}/answers.csv"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "BIOMECHGPT_OWN"))}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=300)
    assert b"data:image/png;base64" in storage.read_bytes(f"{folder}/answers.html")
    written = storage.read_bytes(f"{folder}/answers.csv")
    expected = alone[alone["task"] != "walking_speed"].reset_index(drop=True)
    # A column that is empty in one of the two has another type.
    pd.testing.assert_frame_equal(pd.read_csv(io.BytesIO(written)), expected, check_dtype=False)
    table = pd.read_parquet(io.BytesIO(storage.read_bytes(f"{folder}/answers.parquet")))
    assert table.to_csv(index=False).encode() == written


def test_show_draws_recordings_trials_codebooks_and_reports(run_job, tiny, tmp_path):
    recording = min(SHIPPED.rglob("*.mot"))
    assert printed_uri(run_job("show", recording, "--output", tmp_path / "a.png")).endswith("a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    cohort = tiny.made("cohort")
    trial = next(iter(Cohort(cohort).trials())).trial
    run_job("show", cohort.uri, "--trial", trial, "--output", tmp_path / "b.png")
    assert (tmp_path / "b.png").read_bytes().startswith(b"\x89PNG")
    assert printed_uri(run_job("show", tiny.made("tokens").uri, "--output", tmp_path)).endswith(
        "codebook.html"
    )
    assert printed_uri(run_job("show", tiny.evaluation.uri, "--output", tmp_path)).endswith("report.html")
    assert json.loads((tmp_path / "metrics.json").read_text())["tasks"]


def test_export_writes_files_and_a_checkpoint(run_job, tiny):
    files = printed_uri(run_job("export", tiny.made("cohort").uri, "--root", tiny.root))
    assert "annotations.csv" in storage.list_files(files)
    checkpoint = printed_uri(
        run_job("export", tiny.made("model").uri, "--evaluation", tiny.evaluation.uri, "--root", tiny.root)
    )
    assert {"model.safetensors", "README.md"} <= set(storage.list_files(checkpoint))


def test_audit_writes_a_page_of_every_check(run_job, tiny):
    arguments = ["--trials", "1", "--resplits", "4", "--root", tiny.root]
    printed = run_job("audit", tiny.made("model").uri, *arguments)
    audit = artifact.load(printed_uri(printed), "audit", verify=True)
    results = audit.read_json("audit.json")
    assert set(results) == {"coverage", "ood", "scope", "explanations"}
    page = storage.read_bytes(audit.path("audit.html")).decode()
    for heading in ("Coverage of", "Out-of-distribution", "Scope:", "Explanations"):
        assert f"<h2>{heading}" in page
    assert all(name.replace("_", " ") in page for name in results["coverage"])
    assert "Data: synthetic" in page
    assert "local stand-in" in page
    assert 0 <= results["ood"]["noise"]["refused"] <= 1
    assert f"page: {audit.path('audit.html')}" in printed


def test_generate_writes_movements(run_job, tiny):
    arguments = ["--max_movements", "2", "--max_duration_s", "4", "--root", tiny.root]
    made = artifact.load(printed_uri(run_job("generate", tiny.made("model").uri, *arguments)), "generated")
    assert sum(name.endswith(".mot") for name in storage.list_files(made.path("movements"))) == 2


def test_every_subcommand_has_a_script():
    scripts = {*OTHERS, *EXPERIMENTS, "pipeline"}
    assert {"train" if name == "pipeline" else name.replace("_", "-") for name in scripts} | {
        "audit-log",
        "demo",
        "keys",
        "roll-back",
        "serve",
    } == set(COMMANDS)
