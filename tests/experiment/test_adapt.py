"""A finished model is adapted to another cohort, and validation participants decide what is kept."""

import shutil

import pytest

from biomechgpt.core import artifact
from biomechgpt.core.settings import InputError, override
from biomechgpt.experiment import adapt
from biomechgpt.experiment.pipeline import run_pipeline


def made(root, kind, name):
    """A small artifact of a kind."""
    return artifact.make(kind, 1, {"name": name}, {}, lambda uri: {}, str(root), provenance="synthetic")


@pytest.mark.parametrize(
    ("measure", "adapted", "start", "kept"),
    [
        ("mean score", 0.8, 0.7, "adapted"),
        ("mean score", 0.6, 0.7, "start"),
        ("mean score", 0.7, 0.7, "start"),
        ("RMSE in degrees", 3.0, 4.0, "adapted"),
        ("RMSE in degrees", 5.0, 4.0, "start"),
    ],
)
def test_the_better_one_on_validation_participants_is_kept(measure, adapted, start, kept, tmp_path):
    two = {"adapted": made(tmp_path, "model", "a"), "start": made(tmp_path, "model", "s")}
    scores = {two["adapted"].uri: adapted, two["start"].uri: start}
    decided = adapt.adaptation(two["adapted"], two["start"], lambda m: scores[m.uri], measure, str(tmp_path))
    assert adapt.winner(decided) == two[kept]
    assert decided.read_json(adapt.FILE) == decided.metrics
    words = adapt.in_words(decided)
    assert words.startswith(
        "model: the adapted one is kept" if kept == "adapted" else "model: the start is kept"
    )
    assert f"{adapted:.3f} after adaptation, {start:.3f} before" in words


def test_a_start_that_is_none_is_refused(tmp_path):
    with pytest.raises(InputError, match="expected a model, or a folder of results"):
        adapt.start_of(str(tmp_path))


@pytest.mark.cluster
def test_a_model_is_adapted_to_other_people(tiny, tmp_path):
    """Copied to a place of its own, the start has no cohort that participants could be compared with."""
    copy = tmp_path / "start"
    shutil.copytree(tiny.made("model").uri, copy)
    changes = {
        "start": str(copy),
        "root": str(tmp_path / "artifacts"),
        "output": str(tmp_path / "out"),
        "cohort.simulator.seed": 7,
        "evaluation.baselines": False,
    }
    settings = override(tiny.settings, changes, "test")
    with pytest.raises(
        InputError, match=r"adapter\.rank: expected 8, that of the model to start from, found 4"
    ):
        run_pipeline(override(settings, {"language.finetune.adapter.rank": 4}, "test"))

    evaluation = run_pipeline(settings)
    decided = {what: evaluation.input(f"adaptation of {what}") for what in ("tokenizer", "model")}
    answers = evaluation.input("answers")
    assert answers.input("model") == adapt.winner(decided["model"])
    adapted, kept = (decided["model"].input(name) for name in ("adapted", "start"))
    assert adapted.input("tokenizer") == adapt.winner(decided["tokenizer"])
    # Both were calibrated on the new cohort's participants, and no weight of the start was changed.
    cohort = answers.input("tokens").input("cohort")
    for model in (adapted, kept):
        assert model.input("calibration").input("tokens").input("cohort") == cohort
        assert model.input("adapter").input("base").metrics["base"] == tiny.made("model").metrics["base"]
    weights = "adapter/adapter_model.safetensors"
    before = tiny.made("model").manifest["files"]
    for name in (
        "adapter/adapter_model.safetensors",
        "base/model.safetensors",
        "motion_tokenizer/model.safetensors",
    ):
        assert kept.manifest["files"][name] == before[name]
    assert adapted.manifest["files"]["base/model.safetensors"] == before["base/model.safetensors"]
    assert adapted.manifest["files"][weights] != before[weights]
    page = (tmp_path / "out/report.html").read_text()
    assert f"adapted from model {tiny.made('model').fingerprint}" in page
    assert "was not checked: its cohort is not here" in page
    scores = decided["model"].metrics
    assert (scores["kept"] == "adapted") == (scores["adapted"] > scores["start"])
    with artifact.reuse_only():
        assert run_pipeline(settings) == evaluation
