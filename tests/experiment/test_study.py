"""The study of a sweep is in Optuna's storage: it goes on after a kill as if nothing had happened."""

import math
from types import SimpleNamespace

import optuna
import pytest
from optuna.trial import TrialState
from ray import tune

from biomechgpt.core import artifact, storage
from biomechgpt.core.settings import InputError
from biomechgpt.experiment import study as studies
from biomechgpt.experiment import sweep, tracking
from biomechgpt.experiment.scores import ran_all_seeds

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


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ("CF", [1.0, None]),  # the same settings were drawn again and failed: what was finished stays
        ("FC", [2.0]),  # tried again
        ("CFC", [3.0, 1.0]),
        ("FF", [None]),
        ("CC", [2.0, 1.0]),
    ],
)
def test_equal_settings_lose_no_finished_trial(ends, expected):
    study = studies.open_study(None, "a sweep", 3)
    for number, end in enumerate(ends, 1):
        study.enqueue_trial({"rank": 4})
        trial = study.ask()
        trial.suggest_categorical("rank", [4, 8])
        if end == "C":
            study.tell(trial, float(number))
        else:
            study.tell(trial, state=TrialState.FAIL)
    assert [row["score"] for row in studies.rows(study)] == expected


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


def finish(search, name, score, seeds, **costs):
    """End a trial as Ray Tune does after these seeds."""
    runs = [{"score": score, "model": "", "validation_loss": 1 - score}] * seeds
    search.on_trial_complete(name, {"score": score, "runs": runs, "data": "synthetic", **costs})


def halved(uri, scores, killed=None):
    """Which of these trials ran two seeds. killed: the sweep is killed in the second seed of this one, once."""
    kept, went_on, waiting = studies.storage_of(uri), {}, list(range(len(scores)))
    while waiting:
        studies.open_study(kept, "a sweep", 3)
        search = studies.Search(SETTINGS.draw, kept, "a sweep", 3, lambda trial: None, halving=2)
        for k in list(waiting):
            search.suggest(f"trial {k}")
            went_on[k] = not search.stops(f"trial {k}", 1, scores[k])
            if k == killed and went_on[k]:
                killed = None
                break
            finish(search, f"trial {k}", scores[k], seeds=1 + went_on[k])
            waiting.remove(k)
    return [k for k in sorted(went_on) if went_on[k]]


@pytest.mark.parametrize("scores", [[0.5, 0.4, 0.45, 0.48], [0.5, 0.6, 0.7], [0.3, 0.9, 0.5, 0.6, 0.95]])
def test_a_trial_that_was_killed_after_it_went_on_counts_once_and_goes_on_again(scores, tmp_path):
    undisturbed = halved(f"sqlite:///{tmp_path}/one", scores)
    assert len(undisturbed) > 1
    for killed in undisturbed:
        assert halved(f"sqlite:///{tmp_path}/{killed}.db", scores, killed) == undisturbed


@pytest.mark.parametrize(
    ("factor", "seeds", "expected"), [(2, 5, [1, 2, 4]), (3, 3, [1, 3]), (3, 2, [1]), (None, 4, [])]
)
def test_trials_are_judged_after_powers_of_the_factor(factor, seeds, expected):
    assert studies._rungs(factor, seeds) == expected


def test_successive_halving_goes_on_where_it_was_killed(tmp_path):
    """Trials that are among the worse half after a seed are stopped, those of before the kill included."""
    kept = studies.storage_of(f"sqlite:///{tmp_path}/one")
    stopped = {}
    for part in (range(6), range(6, 12)):
        studies.open_study(kept, "a sweep", 3)
        search = studies.Search(SETTINGS.draw, kept, "a sweep", 3, lambda trial: None, halving=2)
        for k in part:
            name, score = f"trial {k}", [0.5, 0.2, 0.6, 0.3, 0.4, 0.1, 0.55, 0.2, 0.7, 0.3, 0.65, 0.1][k]
            search.suggest(name)
            stopped[k] = search.stops(name, 1, score)
            finish(search, name, score, seeds=1 if stopped[k] else 2)
    # The first has nobody to be compared with. Later only the best half goes on.
    assert [k for k in stopped if not stopped[k]] == [0, 2, 6, 8, 10]
    rows = studies.rows(studies.open_study(kept, "a sweep", 3))
    assert [row["stopped_after"] for row in rows] == [None] * 5 + [1] * 7
    assert [row["score"] for row in rows[:5]] == [0.7, 0.65, 0.6, 0.55, 0.5]
    assert [row["score"] for row in rows[5:]] == [0.4, 0.3, 0.3, 0.2, 0.2, 0.1, 0.1]
    # Nothing is left in the queue: who was stopped is not tried again.
    assert not [t for t in studies.open_study(kept, "a sweep", 3).trials if t.state == TrialState.WAITING]
    assert [ran_all_seeds(row) for row in rows] == [True] * 5 + [False] * 7


def quick_trial(config, experiment, seeds, root):
    """In the place of a trial that trains: its score is its rank."""
    for done in range(1, len(seeds) + 1):
        run = {"score": config[RANK] / 16, "validation_loss": 1.0, "model": ""}
        runs = [run | {"seed": s} for [s] in seeds[:done]]
        costs = dict.fromkeys(studies.COSTS, 1.0)
        tune.report({"score": config[RANK] / 16, "runs": runs, "data": "synthetic", **costs})


def wrong_input(config, experiment, seeds, root):
    """In the place of a trial whose settings are wrong for the data, as `sweep._trial` reports it."""
    costs = dict.fromkeys(studies.COSTS, math.nan)
    tune.report({"score": math.nan, **costs, "runs": [], "input_error": "too long"})


@pytest.mark.cluster
def test_wrong_input_ends_one_trial_not_the_sweep_also_with_several_objectives(
    ray_cluster, tmp_path, monkeypatch
):
    monkeypatch.setattr(sweep, "_trial", wrong_input)
    objectives = ["score", "seconds"]
    settings = SETTINGS.model_copy(update={"objectives": objectives, "concurrent": 1, "root": str(tmp_path)})
    kept = studies.storage_of(f"sqlite:///{tmp_path}/one")
    studies.open_study(kept, "a sweep", 3, objectives=objectives)
    search = studies.Search(SETTINGS.draw, kept, "a sweep", 3, lambda trial: None, objectives)
    assert sweep._run_trials(settings, str(tmp_path / "made"), 2, search) == {}
    rows = studies.rows(studies.open_study(kept, "a sweep", 3, objectives=objectives))
    assert [(row["score"], row["error"]) for row in rows] == [(None, "too long")] * 2


@pytest.mark.cluster
def test_ray_tune_stops_what_the_study_says(ray_cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "_trial", quick_trial)
    settings = SETTINGS.model_copy(
        update={"seeds": [0, 1], "halving": sweep.HalvingSettings(), "concurrent": 1, "root": str(tmp_path)}
    )
    kept = studies.storage_of(f"sqlite:///{tmp_path}/one")
    studies.open_study(kept, "a sweep", 3)
    search = studies.Search(SETTINGS.draw, kept, "a sweep", 3, lambda trial: None, halving=2)
    assert sweep._run_trials(settings, str(tmp_path / "made"), 4, search) == {}
    rows = studies.rows(studies.open_study(kept, "a sweep", 3))
    seeds_of = {row["trial"]: len(row["runs"]) for row in rows}
    scores = [row["score"] for row in sorted(rows, key=lambda row: row["trial"])]
    # A trial goes on if it is in the upper half of those that have run a seed by then, itself among them.
    upper = [sorted(scores[: k + 1], reverse=True)[max(0, (k + 1) // 2 - 1)] for k in range(4)]
    assert seeds_of == {k: 2 if scores[k] >= upper[k] else 1 for k in range(4)}
    assert set(seeds_of.values()) == {1, 2}


@pytest.mark.parametrize(("by", "expected"), [("score", "CONTINUE"), ("validation_loss", "STOP")])
def test_trials_are_compared_by_score_or_by_validation_loss(by, expected, tmp_path):
    settings = SETTINGS.model_copy(update={"seeds": [0, 1], "halving": sweep.HalvingSettings(by=by)})
    kept = studies.storage_of(f"sqlite:///{tmp_path}/one")
    studies.open_study(kept, "a sweep", 3)
    search = studies.Search(SETTINGS.draw, kept, "a sweep", 3, lambda trial: None, halving=2)
    scheduler = sweep._Halving(settings, search)
    decided = []
    # The second has the higher score and the higher loss.
    for name, score, loss in (("one", 0.4, 1.0), ("two", 0.5, 1.1)):
        search.suggest(name)
        report = {"runs": [{"score": score, "validation_loss": loss}]}
        decided.append(scheduler.on_trial_result(None, SimpleNamespace(trial_id=name), report))
    assert decided == ["CONTINUE", expected]
    all_seeds = {"runs": report["runs"] * 2}
    assert scheduler.on_trial_result(None, SimpleNamespace(trial_id="one"), all_seeds) == "CONTINUE"


def test_with_several_objectives_the_trade_offs_are_marked(tmp_path):
    kept = studies.storage_of(f"sqlite:///{tmp_path}/one")
    objectives = ("score", "core_hours")
    study = studies.open_study(kept, "a sweep", 3, objectives=objectives)
    search = studies.Search(SETTINGS.draw, kept, "a sweep", 3, lambda trial: None, objectives)
    for k, (score, hours) in enumerate([(0.5, 2.0), (0.6, 3.0), (0.4, 2.5), (0.3, 1.0), (0.7, None)]):
        search.suggest(f"trial {k}")
        finish(search, f"trial {k}", score, 1, seconds=1.0, core_hours=hours, gpu_hours=0.0)
    rows = studies.rows(studies.open_study(kept, "a sweep", 3, objectives=objectives))
    assert [(row["score"], row["front"]) for row in rows] == [
        (0.6, True),
        (0.5, True),
        (0.4, False),
        (0.3, True),
        (None, False),
    ]
    assert "objectives: core_hours is not known" in rows[-1]["error"]
    assert [d.name for d in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    table = sweep._table(rows).splitlines()
    assert [line.split()[0] for line in table[1:]] == ["*0.600", "*0.500", "0.400", "*0.300", "failed"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"objectives": ["seconds"]}, "expected score first"),
        ({"objectives": ["score", "score"]}, "each once"),
        ({"halving": {}, "seeds": [0, 1], "objectives": ["score", "seconds"]}, "needs one objective"),
        ({"halving": {}}, "two seeds or more"),
        (
            {
                "halving": {"by": "validation_loss"},
                "seeds": [0, 1],
                "experiment": {"language": {"finetune": {"validation": {"times": 0}}}},
            },
            "validation.times of 1 or more",
        ),
        (
            {"halving": {"by": "validation_loss"}, "seeds": [0, 1], "experiment": {"start": "x"}},
            "and no start",
        ),
        (
            {
                "halving": {"by": "validation_loss"},
                "seeds": [0, 1],
                "space": {"language.finetune.validation.times": {"choice": [0, 4]}},
            },
            "not comparable",
        ),
    ],
)
def test_objectives_and_halving_that_do_not_go_together_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        sweep.SweepSettings(**({"space": {RANK: {"choice": [4]}}} | wrong))


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
