"""The study of a sweep is in Optuna's storage: it goes on after a kill as if nothing had happened."""

import optuna
import pytest
from optuna.trial import TrialState

from biomechgpt.core import artifact, storage
from biomechgpt.core.settings import InputError
from biomechgpt.experiment import study as studies
from biomechgpt.experiment import sweep, tracking

RANK = "language.finetune.adapter.rank"
RATE = "language.finetune.training.learning_rate"
LAYERS = "language.base.stand_in.layers"
SETTINGS = sweep.SweepSettings(space={RANK: {"choice": [4, 8, 16]}, RATE: {"log_uniform": [1e-4, 1e-2]}})


def score_of(params):
    return params[RANK] / 16 - abs(params[RATE] - 1e-3)


def run(uri, trials, dies_at=None, fails_at=None):
    """The rows of a study that asks Optuna as Ray Tune does.

    dies_at, fails_at: number of the trial in which the sweep is killed, or that fails.
    """
    kept = studies.storage_of(uri)
    study = studies.open_study(kept, "a sweep", seed=3)
    left = trials - sum(t.state == TrialState.COMPLETE for t in study.trials)
    finished = []
    search = studies.Search(SETTINGS.draw, kept, "a sweep", 3, finished.append)
    for k in range(left):
        params = search.suggest(f"trial {k}")
        if k == dies_at:
            return None
        report = {
            "score": score_of(params),
            "runs": [],
            "data": "synthetic",
            "seconds": 1.0,
            "core_hours": 0.5,
        }
        search.on_trial_complete(f"trial {k}", None if k == fails_at else report, error=k == fails_at)
    assert len(finished) == left
    return studies.rows(study)


@pytest.mark.parametrize("scheme", ["sqlite", "journal"])
@pytest.mark.parametrize("what", ["dies_at", "fails_at"])
def test_a_study_goes_on_as_if_it_had_not_been_interrupted(scheme, what, tmp_path):
    undisturbed = run(f"{scheme}:///{tmp_path}/one", 14)
    run(f"{scheme}:///{tmp_path}/two", 5, **{what: 4})
    again = run(f"{scheme}:///{tmp_path}/two", 14)
    assert [row["settings"] for row in again] == [row["settings"] for row in undisturbed]
    assert [row["score"] for row in again] == [row["score"] for row in undisturbed]
    assert {(row["seconds"], row["core_hours"], row["gpu_hours"]) for row in again} == {(1.0, 0.5, None)}
    scores = [row["score"] for row in again]
    assert len(scores) == 14
    assert scores == sorted(scores, reverse=True)


def test_a_study_beside_artifacts_on_s3_goes_on_and_optuna_opens_a_copy(bucket, tmp_path):
    undisturbed = run(f"journal:///{tmp_path}/one", 8)
    uri = studies.place_of(bucket, "a-sweep")
    assert uri == f"{bucket}/study/a-sweep.log"
    run(uri, 5, dies_at=4)
    assert [row["settings"] for row in run(uri, 8)] == [row["settings"] for row in undisturbed]
    storage.download(uri, tmp_path / "copy.log")
    kept = studies.storage_of(f"journal:///{tmp_path}/copy.log")
    assert optuna.load_study(study_name="a sweep", storage=kept).best_params == undisturbed[0]["settings"]


def test_a_study_is_beside_its_artifacts_on_a_disk(tmp_path):
    assert len(run(studies.place_of(str(tmp_path), "a-sweep"), 2)) == 2
    assert (tmp_path / "study" / "a-sweep.log").exists()


def test_tpe_has_learned_from_the_trials_before_it(tmp_path):
    rows = run(f"sqlite:///{tmp_path}/one", 40)
    by_number = sorted(rows, key=lambda row: row["trial"])
    first, last = ([row["score"] for row in part] for part in (by_number[:10], by_number[-10:]))
    assert sum(last) > sum(first)


def test_any_program_that_knows_optuna_opens_it(tmp_path):
    rows = run(f"sqlite:///{tmp_path}/one", 3)
    (summary,) = optuna.get_all_study_summaries(f"sqlite:///{tmp_path}/one")
    assert summary.n_trials == 3
    study = optuna.load_study(study_name="a sweep", storage=f"sqlite:///{tmp_path}/one")
    assert study.best_value == rows[0]["score"]
    assert study.best_params == rows[0]["settings"]


def test_a_failed_trial_is_a_row_without_a_score(tmp_path):
    rows = run(f"sqlite:///{tmp_path}/one", 3, fails_at=1)
    assert [row["score"] is None for row in rows] == [False, False, True]


def test_the_first_draws_are_those_of_the_sweep(tmp_path):
    rows = run(f"sqlite:///{tmp_path}/one", 12)
    drawn = studies.first_draws(SETTINGS.draw, 12, seed=3)
    assert drawn == [row["settings"] for row in sorted(rows, key=lambda row: row["trial"])][:10]


def test_a_setting_is_drawn_only_where_its_condition_holds(tmp_path):
    space = {
        "language.finetune.adapter": {"choice": [None, "unused"]},
        RANK: {"choice": [4, 8], "when": {"language.finetune.adapter": "unused"}},
        RATE: {"uniform": [1, 2], "when": {RANK: [8]}},
    }
    draw = sweep.SweepSettings(space=space).draw
    drawn = studies.first_draws(draw, 10, seed=1)
    for params in drawn:
        assert (RANK in params) == (params["language.finetune.adapter"] == "unused")
        assert (RATE in params) == (params.get(RANK) == 8)
    assert {len(params) for params in drawn} == {1, 2, 3}
    search = studies.Search(draw, studies.storage_of(f"sqlite:///{tmp_path}/one"), "a sweep", 1, print)
    assert [search.suggest(f"trial {k}") for k in range(10)] == drawn


@pytest.mark.parametrize(
    ("when", "message"),
    [
        ({"no.setting": 1}, "when: expected a setting of space before it"),
        ({RATE: 1}, "when: expected a setting of space before it"),
        ({}, "at least 1 item"),
        ({LAYERS: 9}, "expected values of its range"),
        ({LAYERS: []}, "expected values of its range"),
    ],
)
def test_a_condition_that_can_never_hold_is_refused(when, message):
    space = {LAYERS: {"integer": [1, 4]}, RANK: {"choice": [4], "when": when}, RATE: {"uniform": [1, 2]}}
    with pytest.raises(ValueError, match=message):
        sweep.SweepSettings(space=space)


def test_a_setting_that_exists_only_under_its_condition_is_checked_under_it(tmp_path):
    kind, levels = "tokenizer.network.quantizer.kind", "tokenizer.network.quantizer.levels"
    space = {kind: {"choice": ["ema", "fsq"]}, levels: {"choice": [[8, 8, 8]], "when": {kind: "fsq"}}}
    how = {"root": str(tmp_path), "dry_run": True, "trials": 2}
    assert sweep.run_sweep(sweep.SweepSettings(space=space, **how)) is None
    wrong = space | {levels: {"choice": ["many"], "when": {kind: "fsq"}}}
    with pytest.raises(InputError, match="levels"):
        sweep.run_sweep(sweep.SweepSettings(space=wrong, **how))


def test_two_sweeps_do_not_share_an_object_on_s3(bucket):
    uri = studies.place_of(bucket, "both")
    one, other = studies.storage_of(uri), studies.storage_of(uri)
    studies.open_study(one, "first", seed=1)
    with pytest.raises(InputError, match="another sweep writes its study there"):
        studies.open_study(other, "second", seed=1)
    assert [study.study_name for study in studies.storage_of(uri).get_all_studies()] == ["first"]


def test_progress_shows_the_best_trials_so_far_also_those_of_before(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(tracking, "record_beside", lambda settings, run: None)
    before = run(f"sqlite:///{tmp_path}/one", 7)
    kept = studies.storage_of(f"sqlite:///{tmp_path}/one")
    progress = sweep._Progress(
        SETTINGS, "root/sweep/.build-1-2", studies.open_study(kept, "a sweep", 3), done=7
    )
    search = studies.Search(SETTINGS.draw, kept, "a sweep", 3, progress.on_finished)
    search.suggest("eighth")
    report = {"score": 0.123, "runs": [], "data": "synthetic", **dict.fromkeys(studies.COSTS, 60.0)}
    monkeypatch.setattr(sweep, "_record", lambda trial, name: trial)
    with caplog.at_level("INFO", logger="biomechgpt"):
        search.on_trial_complete("eighth", report)
    said, heading, *lines = caplog.messages[-1].splitlines()
    assert said.startswith("sweep: trial 8 of 20: score 0.123")
    assert heading.split()[:2] == ["score", "minutes"]
    best = sorted([row["score"] for row in before] + [0.123], reverse=True)[:5]
    assert [line.split()[0] for line in lines] == [f"{score:.3f}" for score in best]


def test_a_study_about_models_that_were_removed_begins_anew(tmp_path):
    kept = studies.storage_of(f"sqlite:///{tmp_path}/one")
    study = studies.open_study(kept, "a sweep", seed=3)
    trial = study.ask()
    trial.set_user_attr("runs", [{"model": "gone"}])
    study.tell(trial, 0.5)
    assert len(studies.open_study(kept, "a sweep", 3, lambda model: model == "gone").trials) == 1
    assert studies.open_study(kept, "a sweep", 3, lambda model: False).trials == []


@pytest.mark.parametrize("uri", ["oracles://nowhere", "sqlite:////proc/none/optuna.db", "optuna.db"])
def test_a_storage_that_cannot_be_opened_is_refused(uri):
    with pytest.raises(
        InputError, match="study: expected sqlite:///FILE, journal:///FILE, s3://BUCKET/FILE or"
    ):
        studies.storage_of(uri)


def test_a_dry_run_names_trials_missing_artifacts_and_time(tmp_path, monkeypatch):
    settings = sweep.SweepSettings(
        space={"language.finetune.adapter.rank": {"choice": [8, 4]}},
        trials=12,
        seeds=[0, 1],
        root=str(tmp_path),
        study=f"sqlite:///{tmp_path}/optuna.db",
        dry_run=True,
    )
    text = sweep.planned(settings)
    assert text.count("seed 0  rank=") == text.count("seed 1  rank=") == 10
    assert "makes cohort, questions, tokenizer, tokens, base, adapter, calibration, model" in text
    assert "2 more trials, which depend on the results of these" in text
    assert "expected time: unknown" in text
    for kind in ("cohort", "adapter"):
        made = artifact.make(kind, 1, {}, {}, lambda uri: {}, str(tmp_path), provenance="none")
        monkeypatch.setitem(made.manifest, "seconds", 0)
    assert "without base, calibration, model, questions, tokenizer, tokens, which nobody has made" in (
        sweep.planned(settings)
    )
    assert sweep.run_sweep(settings) is None
    assert not (tmp_path / "optuna.db").exists()


@pytest.mark.parametrize(
    ("cpus", "gpus", "workers", "seeds", "expected"),
    [(2, 0, 1, 1, 1), (64, 8, 1, 1, 8), (64, 8, 4, 1, 2), (64, 8, 1, 3, 2), (64, 1, 4, 1, 1)],
)
def test_as_many_trials_run_as_the_cluster_has_room_for(cpus, gpus, workers, seeds, expected, monkeypatch):
    monkeypatch.setattr(sweep.cluster, "most", lambda kind: {"CPU": cpus, "GPU": gpus}[kind])
    monkeypatch.setattr(sweep.cluster, "cpus_for", lambda workers: cpus // workers)
    settings = sweep.SweepSettings(
        experiment={"language": {"finetune": {"training": {"workers": workers}}}},
        space={"language.finetune.adapter.rank": {"choice": [8, 4]}},
        seeds=list(range(seeds)),
    )
    assert sweep._at_once(settings) == expected
