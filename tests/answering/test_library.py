"""The Python library: load a model, read a recording, ask. Without Ray, and after the results were moved."""

import json
import shutil
import sys
from typing import get_args

import numpy as np
import pytest

import biomechgpt as bg
from biomechgpt.answering.answer import Status
from biomechgpt.answering.library import COLUMNS, find_model
from biomechgpt.core.settings import InputError
from conftest import ROOT
from opensim_files import mot, walk

SHIPPED = sorted((ROOT / "tests/data/recordings").rglob("*.mot"))


def test_importing_the_package_imports_no_library():
    assert bg.__version__
    with pytest.raises(AttributeError):
        _ = bg.nothing_of_this_name
    assert set(bg.__all__) <= set(dir(bg)) | {
        "load",
        "read",
        "read_all",
        "Answers",
        "Model",
        "Recording",
        "__version__",
    }


def test_a_recording_is_read_measured_and_drawn(tmp_path):
    path = tmp_path / "walk.mot"
    path.write_text(mot(walk(4.0)))
    recording = bg.read(str(path), participant="P01")
    assert recording.participant == "P01"
    assert recording.angles_rad.shape == (len(recording.pelvis), 34)
    assert recording.duration_s == pytest.approx(len(recording.pelvis) / recording.rate_hz)
    assert recording.at(60.0).duration_s == pytest.approx(recording.duration_s, abs=0.05)
    assert recording.at(recording.rate_hz) is recording
    assert "recording_duration" in recording.measure() or recording.measure()
    assert recording.plot().axes


def test_joints_that_a_file_lacks_are_named():
    recording = bg.read(str(SHIPPED[0]))
    assert len(recording.absent_joints) == int((~recording.joint_mask).sum())
    assert not np.isnan(recording.angles_rad).any()


def test_what_is_no_recording_is_said(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("no movement")
    with pytest.raises(InputError, match=r"notes\.txt: expected a recording"):
        bg.read(str(path))


def test_a_place_without_a_model_is_said(tmp_path):
    with pytest.raises(InputError, match="expected a model, or a folder of results"):
        bg.load(str(tmp_path))


def test_the_columns_of_a_table_of_answers_are_those_that_were_agreed():
    agreed = (
        "file, participant, duration_s, task, status, answer, value, unit, probability, prediction_set, low, high, "
        "promised, measured, note"
    )
    assert ", ".join(COLUMNS) == agreed
    assert set(get_args(Status)) == {"answered", "does_not_apply", "unlike", "uncertain", "refused"}


@pytest.mark.cluster
def test_a_model_answers_all_its_tasks_about_a_recording(tiny):
    model = bg.load(str(tiny.out))
    assert model.uri == tiny.made("model").uri
    assert "synthetic" in repr(model)
    assert "stand-in" in repr(model)
    recording = bg.read(str(SHIPPED[0]), participant="P01")
    answers = model.ask_all(recording)
    assert set(answers) == set(model.tasks)
    frame = answers.to_frame()
    assert tuple(frame.columns) == COLUMNS
    assert set(frame["participant"]) == {"P01"}
    assert frame.loc[frame["status"] != "answered", "answer"].isna().all()
    assert frame.loc[frame["status"] == "answered", "answer"].notna().all()
    duration = frame[frame["task"] == "recording_duration"].iloc[0]
    assert duration["value"] == pytest.approx(recording.duration_s, abs=0.1)
    assert duration["unit"] == "s"
    alone, among_others = model.ask(recording, "activity"), answers["activity"]
    assert (alone.status, alone.labels) == (among_others.status, among_others.labels)
    # What else is in a batch may round a probability differently.
    assert alone.probabilities == pytest.approx(among_others.probabilities, abs=1e-5)
    with pytest.raises(InputError, match="expected some of"):
        model.ask(recording, "favourite_colour")


@pytest.mark.cluster
def test_results_that_were_moved_find_their_model(tiny, tmp_path):
    """Artifacts and results lie side by side; the folder above both was moved."""
    model = tiny.made("model")
    shutil.copytree(model.uri, tmp_path / "moved/artifacts/model" / model.fingerprint)
    results = tmp_path / "moved/demo"
    results.mkdir()
    metrics = json.loads((tiny.out / "metrics.json").read_text())
    metrics["model"]["uri"] = f"/nowhere/artifacts/model/{model.fingerprint}"
    (results / "metrics.json").write_text(json.dumps(metrics))
    assert model.fingerprint in find_model(str(results))
    assert "moved" in find_model(str(results))


def test_the_library_needs_no_ray():
    """Reading, measuring and drawing; answering is checked in tests/test_architecture.py."""
    import subprocess

    code = (
        "import sys; sys.modules['ray'] = None; sys.modules['deepspeed'] = None; import biomechgpt as bg; "
        f"bg.read({str(SHIPPED[0])!r}).measure(); bg.Model; bg.load"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
