"""A sweep: Ray Tune with Optuna searches settings. Each choice is measured over seeds on validation participants.

A Tune trial is a small driver that asks for artifacts, so artifacts that trials share are made once. The study is
stored in the folder of the sweep's artifact, so a killed sweep resumes. Test participants are never looked at.
"""

import logging
import math
from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator
from ray import tune

from biomechgpt.core import artifact, cluster, storage
from biomechgpt.core.artifact import Artifact
from biomechgpt.core.code import code_version
from biomechgpt.core.logs import log_to_stdout
from biomechgpt.core.settings import InputError, Settings, override, plain
from biomechgpt.experiment import tracking
from biomechgpt.experiment.pipeline import PipelineSettings, check, train, with_seed
from biomechgpt.experiment.scores import validate
from biomechgpt.experiment.tracking import TrackingSettings

logger = logging.getLogger("biomechgpt")

VERSION = 1
STUDY = "study"


class Range(Settings):
    """The values that one setting is drawn from. Exactly one field is set."""

    choice: list[Any] | None = Field(None, min_length=1)
    """Values to choose from."""
    uniform: tuple[float, float] | None = None
    """Lowest and highest value of a uniform distribution."""
    log_uniform: tuple[float, float] | None = None
    """Lowest and highest value; the logarithm is uniform."""
    integer: tuple[int, int] | None = None
    """Lowest and highest integer, both included."""

    @model_validator(mode="after")
    def _one_of_them(self) -> "Range":
        given = [name for name, value in self if value is not None]
        if len(given) != 1:
            raise ValueError(
                f"expected one of choice, uniform, log_uniform, integer, found {given or 'none'}"
            )
        for ends in (self.uniform, self.log_uniform, self.integer):
            if ends and not ends[0] < ends[1]:
                raise ValueError(f"expected a lower and a higher end, found {list(ends)}")
        return self

    def ends(self) -> list[Any]:
        """The extreme values. If they are valid settings, every draw is."""
        return list(self.choice or self.uniform or self.log_uniform or self.integer or [])

    def domain(self) -> Any:
        """The range as a search space of Ray Tune."""
        if self.choice is not None:
            return tune.choice(self.choice)
        if self.integer is not None:
            return tune.randint(self.integer[0], self.integer[1] + 1)
        if self.log_uniform is not None:
            return tune.loguniform(*self.log_uniform)
        assert self.uniform is not None
        return tune.uniform(*self.uniform)


class SweepSettings(Settings):
    """A search of settings on validation participants."""

    experiment: PipelineSettings = PipelineSettings()
    """Settings that all trials start from."""
    space: dict[str, Range] = Field(min_length=1)
    """{path of a setting, such as language.finetune.adapter.rank: the range that it is drawn from}."""
    trials: int = Field(20, ge=1)
    """Number of settings that are tried."""
    seeds: list[int] = Field(default_factory=lambda: [0], min_length=1)
    """Seeds that each trial is trained with. The score is their mean."""
    search_seed: int = 0
    """Seed of Optuna's search."""
    concurrent: int = Field(1, ge=1, exclude=True)
    """Trials that run at the same time."""
    tracking: TrackingSettings = Field(TrackingSettings(), exclude=True)
    """Where the trials are recorded."""
    root: str = Field("results/artifacts", exclude=True)
    """Folder or s3:// URI of all artifacts."""


def run_sweep(settings: SweepSettings) -> Artifact:
    """The sweep artifact: `trials.json`, best first. Raises InputError for an unknown path or a wrong value."""
    for path, values in settings.space.items():
        for value in values.ends():
            override(settings.experiment, {path: value}, f"space.{path}")
    check(settings.experiment)

    def build(uri: str) -> dict[str, Any]:
        trials = _study(settings, uri)
        finished = [trial for trial in trials if trial["score"] is not None]
        if not finished:
            if all(trial["input_error"] for trial in trials):
                # Once the input is right, all are tried again.
                storage.remove(storage.join(uri, artifact.RUN))
            raise InputError(f"sweep: none of {len(trials)} trials finished: {trials[0]['error']}")
        storage.write_json(storage.join(uri, "trials.json"), trials)
        runs = [_record(trial, artifact.published(uri)) for trial in finished]
        storage.write_json(storage.join(uri, tracking.RUNS), runs)
        return {
            "trials": len(trials),
            "failed": len(trials) - len(finished),
            "best_score": finished[0]["score"],
            "best": finished[0]["settings"],
            "provenance": finished[0]["data"],
        }

    sweep = artifact.make("sweep", VERSION, settings, {}, build, settings.root)
    tracking.synchronise(settings.tracking, sweep)
    return sweep


def show_sweep(sweep: Artifact) -> str:
    """The trials of a sweep as a table of text, best first."""
    lines = [f"{'score':>7}  settings (score: mean over tasks on validation participants)"]
    for trial in sweep.read_json("trials.json"):
        score = "failed" if trial["score"] is None else f"{trial['score']:.3f}"
        values = "  ".join(f"{path.split('.')[-1]}={value}" for path, value in trial["settings"].items())
        lines.append(f"{score:>7}  {values}")
    return "\n".join(lines)


def _study(settings: SweepSettings, uri: str) -> list[dict[str, Any]]:
    """Run or resume the study. Returns a row for each trial, best first, failed ones last."""
    from ray.tune.search.optuna import OptunaSearch

    cluster.connect()
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    fs, path = storage.arrow_filesystem(storage.join(uri, artifact.RUN))
    folder = f"{path}/{STUDY}"
    trainable = tune.with_resources(
        tune.with_parameters(
            _trial, experiment=plain(settings.experiment), seeds=settings.seeds, root=settings.root
        ),
        # A trial only waits for trainings, so it holds no core. Ray Tune wants at least one resource: a byte.
        tune.PlacementGroupFactory([{"CPU": 0, "memory": 1}]),
    )
    if tune.Tuner.can_restore(folder, storage_filesystem=fs):
        logger.info("sweep: going on with the study that was begun")
        tuner = tune.Tuner.restore(
            # Restarted instead of resumed, a trial would get another name, which Optuna does not know.
            folder,
            trainable,
            resume_unfinished=True,
            resume_errored=True,
            storage_filesystem=fs,
        )
    else:
        tuner = tune.Tuner(
            trainable,
            param_space={path: values.domain() for path, values in settings.space.items()},
            tune_config=tune.TuneConfig(
                search_alg=OptunaSearch(
                    metric="score", mode="max", sampler=optuna.samplers.TPESampler(seed=settings.search_seed)
                ),
                metric="score",
                mode="max",
                num_samples=settings.trials,
                max_concurrent_trials=settings.concurrent,
            ),
            run_config=tune.RunConfig(
                name=STUDY,
                storage_path=path,
                storage_filesystem=fs,
                verbose=0,
                callbacks=[_Tracked(settings.tracking, artifact.published(uri))],
                failure_config=tune.FailureConfig(max_failures=1),
            ),
        )
    rows = []
    grid = tuner.fit()
    for result in (grid[i] for i in range(len(grid))):
        metrics = result.metrics or {}
        # A trial reports after each seed. It is finished when it has reported all of them.
        finished = result.error is None and metrics.get("seeds") == len(settings.seeds)
        rows.append(
            {
                "score": metrics["score"] if finished else None,
                "trial": metrics.get("trial_id"),
                "settings": result.config,
                "runs": metrics.get("runs", []),
                "data": metrics.get("data"),
                "error": metrics.get("input_error")
                or (None if result.error is None else str(result.error).strip().splitlines()[-1]),
                "input_error": "input_error" in metrics,
            }
        )
    return sorted(rows, key=lambda row: -1.0 if row["score"] is None else row["score"], reverse=True)


def _trial(config: dict[str, Any], experiment: dict[str, Any], seeds: list[int], root: str) -> None:
    """One Tune trial, in a Ray worker: train and measure the drawn settings (`config`) with every seed."""
    log_to_stdout()
    cluster.connect()
    runs: list[dict[str, Any]] = []
    for seed in seeds:
        settings = override(PipelineSettings.model_validate(experiment | {"root": root}), config, "sweep")
        try:
            runs.append(validate(train(with_seed(settings, seed)).model, root) | {"seed": seed})
        except InputError as error:
            # So it would be each time: the trial ends, and Tune does not try it again.
            tune.report(
                {"score": math.nan, "seeds": -1, "runs": runs, "data": None, "input_error": str(error)}
            )
            return
        score = sum(run["score"] for run in runs) / len(runs)
        tune.report({"score": score, "seeds": len(runs), "runs": runs, "data": runs[0]["data"]})


class _Tracked(tune.Callback):
    """Logs every finished trial, and sends it to MLflow if that answers. The sweep's own files have it anyway."""

    def __init__(self, settings: TrackingSettings, sweep: str) -> None:
        self.settings, self.sweep = settings, sweep

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        result = trial.last_result
        if "input_error" in result:
            logger.warning("sweep: %s: %s", trial.config, result["input_error"])
            return
        row = {
            "trial": trial.trial_id,
            "settings": trial.config,
            **{key: result[key] for key in ("score", "runs", "data")},
        }
        tracking.record_beside(self.settings, _record(row, self.sweep))
        n_finished = sum(t.status == "TERMINATED" for t in trials)
        logger.info("sweep: trial %d: score %.3f  %s", n_finished, result["score"], trial.config)


def _record(trial: Mapping[str, Any], sweep: str) -> dict[str, Any]:
    """The MLflow run of a finished trial, a row of `trials.json`."""
    return {
        "name": f"sweep {sweep.rsplit('/', 1)[-1]} {trial['trial']}",
        "params": trial["settings"],
        "metrics": _mean_scores(trial["runs"]) | {"score": trial["score"]},
        "tags": {
            "sweep": sweep,
            "data": trial["data"],
            "models": " ".join(run["model"] for run in trial["runs"]),
            **tracking.code_tags(code_version()),
        },
    }


def _mean_scores(runs: list[dict[str, Any]]) -> dict[str, float | None]:
    """Mean over seeds of each task's score; None if it is undefined for a seed."""
    by_task = {task: [run["tasks"].get(task) for run in runs] for task in runs[0]["tasks"]}
    return {task: None if None in scores else sum(scores) / len(scores) for task, scores in by_task.items()}
