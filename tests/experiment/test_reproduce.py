"""Artifacts are made again from their manifests, and each difference is named."""

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from biomechgpt.core import artifact, storage
from biomechgpt.core.settings import InputError
from biomechgpt.experiment import tracking
from biomechgpt.experiment.reproduce import ReproduceSettings, differences, run_reproduce
from biomechgpt.experiment.tracking import TrackingSettings
from conftest import printed_uri

CONTENT = {
    "seconds": {"base": 3.0},
    "model": {"uri": "/here/model", "scores": [0.5, 0.25]},
    "layers": ["up", "down"],
}


def made(folder, content=CONTENT, f1=0.5, tokens=((1, 2), (3,)), weights=(1.0, 2.0), page="at noon"):
    """An artifact with a file of each kind."""

    def build(uri):
        storage.write_json(f"{uri}/about.json", content)
        pd.DataFrame({"trial": ["a", "b"], "tokens": [list(t) for t in tokens]}).to_parquet(
            f"{uri}/t.parquet"
        )
        save_file({"layer": torch.tensor(weights)}, f"{uri}/w.safetensors")
        storage.write_bytes(f"{uri}/page.html", page.encode())
        return {"f1": f1, "seconds_training": float(np.random.default_rng().random())}

    return artifact.make("model", 1, {}, {}, build, str(folder), provenance="synthetic")


def found(first, second, tolerance=0.0):
    return {row.what: (row.original, row.reproduced) for row in differences(first, second, tolerance)}


def test_what_is_about_the_run_is_no_difference(tmp_path):
    later = {
        "seconds": {"base": 4.0},
        "model": {"uri": "/there/model", "scores": [0.5, 0.25]},
        "layers": ["down", "up"],
    }
    first, second = made(tmp_path / "1"), made(tmp_path / "2", content=later, page="at midnight")
    assert found(first, second) == {}


@pytest.mark.parametrize(
    ("changed", "what", "values"),
    [
        ({"f1": 0.51}, "metric f1", ("0.5", "0.51")),
        (
            {"content": CONTENT | {"model": {"uri": "", "scores": [0.5, 0.26]}}},
            "about.json model.scores.1",
            ("0.25", "0.26"),
        ),
        ({"content": {**CONTENT, "new": 1}}, "about.json new", ("missing", "1")),
        ({"tokens": ((1, 2), (4,))}, "t.parquet tokens, 1 of 2", ("[3]", "[4]")),
        ({"weights": (1.0, 2.01)}, "w.safetensors layer, 1 of 2", ("2", "2.01")),
        ({"weights": (1.0,)}, "w.safetensors layer", ("shape (2,)", "shape (1,)")),
    ],
)
def test_each_difference_is_named_with_both_values(changed, what, values, tmp_path):
    assert found(made(tmp_path / "1"), made(tmp_path / "2", **changed)) == {what: values}


def test_numbers_may_differ_by_the_stated_tolerance(tmp_path):
    first = made(tmp_path / "1")
    second = made(tmp_path / "2", f1=0.505, weights=(1.005, 2.0))
    assert found(first, second, tolerance=0.01) == {}
    assert set(found(first, second, tolerance=0.001)) == {"metric f1", "w.safetensors layer, 1 of 2"}
    assert set(found(first, made(tmp_path / "3", tokens=((1, 2), (4,))), tolerance=1.0)) == {
        "t.parquet tokens, 1 of 2"
    }


def test_an_artifact_without_its_experiment_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"expected a stage of an experiment .* found model without"):
        run_reproduce(ReproduceSettings(artifact=made(tmp_path).uri))


@pytest.mark.cluster
def test_tokens_are_made_again_with_the_same_bytes(tiny, run_job, tmp_path, capfd):
    tokens = tiny.made("tokens")
    again = artifact.load(
        printed_uri(run_job("reproduce", tokens.uri, "--root", tmp_path / "again")), "tokens"
    )
    assert again.manifest["files"] == tokens.manifest["files"]
    assert again.manifest["experiment"] == tokens.manifest["experiment"]
    with pytest.raises(InputError, match="root: expected another folder"):
        run_reproduce(ReproduceSettings(artifact=tokens.uri, root=str(tiny.root)))
    # The same with a tokenizer whose error is another one.
    tokenizer = again.input("tokenizer")
    metrics = tokenizer.metrics | {"rmse_deg_all": 99.0}
    storage.write_json(tokenizer.path(artifact.MANIFEST), tokenizer.manifest | {"metrics": metrics})
    with pytest.raises(SystemExit) as stopped:
        run_job("reproduce", tokens.uri, "--root", tmp_path / "again")
    assert stopped.value.code == 1
    printed = capfd.readouterr().out
    assert "reproduce: 1 difference in 3 artifacts" in printed
    assert f"tokenizer  metric rmse_deg_all  {tokenizer.metrics['rmse_deg_all']}" in printed


def test_a_run_is_recorded_with_all_that_decides_it(tiny, tmp_path):
    settings = TrackingSettings(uri=f"sqlite:///{tmp_path}/mlflow.db")
    run = tracking.run_of(tiny.evaluation, tiny.settings.model_dump(mode="json"), "report.html")
    assert tracking.try_to_record(settings, run) is None
    assert tracking.try_to_record(settings, run) is None  # once more is the same run
    mlflow = tracking.client(settings)
    experiment = mlflow.get_experiment_by_name(settings.experiment)
    (recorded,) = mlflow.search_runs([experiment.experiment_id])
    assert recorded.data.params["language.finetune.training.seed"] == "0"
    assert recorded.data.params["tokenizer.window"] == str(tiny.settings.tokenizer.window)
    tags = recorded.data.tags
    assert tags["fingerprint.adapter"] == tiny.made("adapter").fingerprint
    assert (tags["data"], tags["report"]) == ("synthetic", "report.html")
    assert {"code.revision", "code.changed", "code.lock"} <= tags.keys()
    metrics = recorded.data.metrics
    assert metrics["activity.f1_weighted"] == pytest.approx(
        tiny.evaluation.read_json("metrics.json")["tasks"]["activity"]["model"]["f1_weighted"]
    )
    assert metrics["seconds"] > metrics["seconds.adapter"] > 0
    for name in ("tokenizer", "base", "adapter"):
        curve = mlflow.get_metric_history(recorded.info.run_id, f"{name}.loss")
        steps = [point.step for point in curve if point.step]
        assert steps == sorted(set(steps))
        assert steps[-1] == tiny.made(name).metrics["steps"]
