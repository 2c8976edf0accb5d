"""Results that were moved or copied work where they are: nothing reads the place where they were made."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from biomechgpt.answering.library import find_model
from biomechgpt.core import artifact
from biomechgpt.core.settings import InputError
from biomechgpt.experiment import promote, tracking
from biomechgpt.experiment.ask import AskSettings, run_ask
from biomechgpt.experiment.pipeline import run_pipeline
from biomechgpt.experiment.show import ShowSettings, run_show
from biomechgpt.experiment.tracking import TrackingSettings
from real_recordings import SHIPPED
from serve.main import LocalSettings, choose_bundle

WALK = sorted(SHIPPED.rglob("*.mot"))[0]
PLACE = "Résultats déplacés (2)"


@pytest.fixture
def moved(tiny, tmp_path):
    """The tiny run's folder at another place, with spaces and accents; the old place is empty meanwhile."""
    new = tmp_path / PLACE
    shutil.copytree(tiny.root.parent, new)
    hidden = tiny.root.parent.with_name("moved away")
    tiny.root.parent.rename(hidden)
    yield new
    hidden.rename(tiny.root.parent)


def answers(model, folder):
    """The table that `biomechgpt answer` writes about one recording."""
    settings = AskSettings(recordings=str(WALK), model=str(model), output=str(folder / "answers.csv"))
    return pd.read_csv(run_ask(settings))


@pytest.mark.cluster
def test_a_folder_of_results_is_moved(tiny, moved):
    metrics = json.loads((moved / "out/metrics.json").read_text())
    model = moved / "artifacts/model" / metrics["model"]["fingerprint"]
    assert find_model(str(moved / "out")) == str(model)
    settings = LocalSettings(
        demo=str(moved / "out"), tracking=TrackingSettings(uri=f"sqlite:///{moved}/none.db")
    )
    assert artifact.load(choose_bundle(settings), "model", verify=True).uri == str(model)
    assert set(answers(moved / "out", moved)["status"]) <= {
        "answered",
        "does_not_apply",
        "unlike",
        "uncertain",
        "refused",
    }

    # The whole experiment is found there, and its report is written again.
    with artifact.reuse_only():
        evaluation = run_pipeline(
            tiny.settings.model_copy(
                update={"root": str(moved / "artifacts"), "output": str(moved / "again")}
            )
        )
    assert evaluation.uri.startswith(str(moved))
    assert find_model(str(moved / "again")) == str(model)
    page = run_show(ShowSettings(target=str(moved / "out/answers.parquet"), output=str(moved / "drawn")))
    assert "BiomechGPT" in Path(page).read_text()


@pytest.mark.cluster
def test_only_the_bundle_is_copied(tiny, tmp_path):
    model, copy = tiny.made("model"), tmp_path / PLACE / "my model"
    shutil.copytree(model.uri, copy)
    before = answers(model.uri, tmp_path / "before")
    hidden = tiny.root.parent.with_name("moved away")
    tiny.root.parent.rename(hidden)
    try:
        assert artifact.load(choose_bundle(LocalSettings(bundle=str(copy))), "model", verify=True).uri == str(
            copy
        )
        pd.testing.assert_frame_equal(answers(copy, tmp_path / "after"), before)
    finally:
        hidden.rename(tiny.root.parent)


def manifest(folder, kind, fingerprint):
    """An artifact without content at the place where `artifact.make` would put it."""
    place = folder / kind / fingerprint
    place.mkdir(parents=True)
    content = {"kind": kind, "fingerprint": fingerprint, "provenance": "synthetic", "inputs": {}, "files": {}}
    (place / "manifest.json").write_text(json.dumps(content))
    return place


def test_results_name_their_model_by_its_path_too(tmp_path):
    """The artifacts are not beside the results here, but both were moved together."""
    place = manifest(tmp_path / "store/all", "model", "f" * 16)
    results = tmp_path / "reports/2026/walks"
    results.mkdir(parents=True)
    model = {"uri": "/nowhere/model/ffffffffffffffff", "fingerprint": "f" * 16}
    (results / "metrics.json").write_text(json.dumps({"model": model}))
    with pytest.raises(
        InputError, match=r"expected the model f+ at /nowhere/.* or beside the results, found none"
    ):
        find_model(str(results))
    model["path"] = f"../../../store/all/model/{'f' * 16}"
    (results / "metrics.json").write_text(json.dumps({"model": model}))
    assert find_model(str(results)) == str(place)


def test_a_comparison_is_promoted_after_it_was_moved(tmp_path, monkeypatch):
    place = manifest(tmp_path / "new", "model", "a" * 16)
    comparison = manifest(tmp_path / "new", "comparison", "b" * 16)
    runs = [{"model": f"/old/model/{'a' * 16}", "variant": "all tasks", "evaluation": "/old/evaluation/c"}]
    (comparison / "comparison.json").write_text(json.dumps({"runs": runs}))
    monkeypatch.setattr(
        promote, "validate", lambda model, root: {"model": model.uri, "score": 1.0, "tasks": {}}
    )
    candidates = promote._candidates(artifact.load(str(comparison)))
    assert [run["model"] for run in candidates["all tasks"]] == [str(place)]


@pytest.mark.slow
def test_the_registry_names_a_model_that_was_moved_with_it(tmp_path):
    old = tmp_path / "old"
    model = artifact.load(str(manifest(old / "artifacts", "model", "a" * 16)))
    settings = TrackingSettings(uri=f"sqlite:///{old}/mlflow.db")
    run = tracking.record(settings, "promote", params={}, metrics={}, tags={})
    tracking.register(settings, model, run, "champion", {})
    assert tracking.resolve(settings, tracking.CHAMPION) == model.uri
    old.rename(tmp_path / "new")
    moved = TrackingSettings(uri=f"sqlite:///{tmp_path}/new/mlflow.db")
    assert tracking.resolve(moved, tracking.CHAMPION) == str(tmp_path / "new/artifacts/model" / ("a" * 16))
