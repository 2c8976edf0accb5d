"""A sweep whose trials fail: it can be submitted again, except that errors of the input are not tried again."""

from pathlib import Path

import pytest
from ray import tune

from biomechgpt.core import artifact, storage
from biomechgpt.core.settings import InputError
from biomechgpt.experiment import sweep, tracking

SPACE = {"language.finetune.training.seed": {"integer": (0, 5)}}


def settings_of(folder, space=SPACE):
    away = {"uri": "http://127.0.0.1:9"}  # MLflow is away all the time
    return sweep.SweepSettings(
        space=space,
        trials=2,
        concurrent=1,
        root=str(folder / "artifacts"),
        study=f"sqlite:///{folder}/optuna.db",
        tracking=away,
    )


def result(score):
    return {
        "score": score,
        "seconds": 1.0,
        "core_hours": 0.5,
        "gpu_hours": 0.0,
        "data": "synthetic",
        "runs": [{"model": "m", "score": score, "tasks": {"activity": score}, "data": "synthetic"}],
    }


def fails_until_repaired(config, experiment, seeds, root):
    """In place of a trial."""
    folder = Path(root).parent
    with (folder / "tries").open("a") as file:
        file.write("x")
    if not (folder / "repaired").exists():
        raise RuntimeError("out of memory")
    tune.report(result(0.5))


@pytest.mark.cluster
def test_a_sweep_with_errored_trials_is_submitted_again_while_mlflow_is_away(
    ray_cluster, tmp_path, monkeypatch
):
    monkeypatch.setattr(sweep, "_trial", fails_until_repaired)
    with pytest.raises(InputError, match=r"none of 2 trials finished: .*out of memory"):
        sweep.run_sweep(settings_of(tmp_path))
    assert (tmp_path / "tries").read_text() == 4 * "x"
    (tmp_path / "repaired").touch()
    made = sweep.run_sweep(settings_of(tmp_path))
    trials = made.read_json("trials.json")
    assert [trial["score"] for trial in trials] == [0.5, 0.5]
    assert made.metrics["failed"] == 0
    assert len(made.read_json(tracking.RUNS)) == 2
    assert not storage.exists(made.path(artifact.RUN))  # no pickles are left on shared storage


def wrong_input(config, experiment, seeds, root):
    """As `sweep._trial`, with a wrong file in place of a training."""
    folder = Path(root).parent

    def train(settings):
        with (folder / "tries").open("a") as file:
            file.write("x")
        raise InputError("angles.csv: row 3: expected a number")

    own = sweep.train
    sweep.train = train
    try:
        real_trial(config, experiment, seeds, root)
    finally:
        sweep.train = own


real_trial = sweep._trial


@pytest.mark.cluster
def test_errors_of_the_input_are_not_tried_again(ray_cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "_trial", wrong_input)
    for submitted in (1, 2):
        with pytest.raises(
            InputError, match=r"none of 2 trials finished: angles.csv: row 3: expected a number"
        ):
            sweep.run_sweep(settings_of(tmp_path))
        assert len((tmp_path / "tries").read_text()) == 2 * submitted
    assert storage.list_files(str(tmp_path / "artifacts")) == []
