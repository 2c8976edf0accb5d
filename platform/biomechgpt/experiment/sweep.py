"""A sweep: Ray Tune with Optuna searches settings. Each choice is measured over seeds on validation participants.

A Tune trial is a small driver that asks for artifacts, so artifacts that trials share are made once. The study is
in Optuna's own storage, so a killed sweep resumes (see study.py). Test participants are never looked at.
"""

import json
import logging
import math
import statistics
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import ray
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState
from pydantic import Field, model_validator
from ray import tune
from ray.tune.schedulers import FIFOScheduler

from biomechgpt.core import artifact, cluster, storage
from biomechgpt.core.artifact import Artifact
from biomechgpt.core.code import code_version
from biomechgpt.core.logs import log_to_stdout
from biomechgpt.core.settings import InputError, Settings, override, plain
from biomechgpt.experiment import study as studies
from biomechgpt.experiment import tracking
from biomechgpt.experiment.pipeline import Stages, check, train, with_seed
from biomechgpt.experiment.scores import mean_score, ran_all_seeds, validate
from biomechgpt.experiment.settings import STAGES, PipelineSettings
from biomechgpt.experiment.tracking import TrackingSettings

logger = logging.getLogger("biomechgpt")

VERSION = 3


class Range(Settings):
    """The values that one setting is drawn from: exactly one of choice, uniform, log_uniform and integer."""

    choice: list[Any] | None = Field(None, min_length=1)
    """Values to choose from."""
    uniform: tuple[float, float] | None = None
    """Lowest and highest value of a uniform distribution."""
    log_uniform: tuple[float, float] | None = None
    """Lowest and highest value; the logarithm is uniform."""
    integer: tuple[int, int] | None = None
    """Lowest and highest integer, both included."""
    when: dict[str, Any] | None = Field(None, min_length=1)
    """Condition: {path of a setting that is drawn before this one: the value that it must have, or a list of such}.
    Where it does not hold, this setting stays as the experiment has it."""

    @model_validator(mode="after")
    def _one_of_them(self) -> "Range":
        given = [name for name, value in self if value is not None and name != "when"]
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

    def conditions(self) -> dict[str, list[Any]]:
        """{path of another setting: the values that it may have}."""
        return {
            path: value if isinstance(value, list) else [value] for path, value in (self.when or {}).items()
        }

    def holds(self, drawn: Mapping[str, Any]) -> bool:
        """Whether the condition holds, given the settings that were drawn before."""
        return all(path in drawn and drawn[path] in values for path, values in self.conditions().items())

    def may_be(self, value: Any) -> bool:
        """Whether the range has this value."""
        if self.choice is not None:
            return value in self.choice
        low, high = self.ends()
        return isinstance(value, int if self.integer else (int, float)) and low <= value <= high

    def draw(self, trial: Trial, path: str) -> Any:
        """A value of the setting at `path`, drawn by Optuna."""
        if self.choice is not None:
            return trial.suggest_categorical(path, self.choice)
        if self.integer is not None:
            return trial.suggest_int(path, *self.integer)
        low, high = self.log_uniform or self.uniform or (math.nan, math.nan)
        return trial.suggest_float(path, low, high, log=self.log_uniform is not None)


class HalvingSettings(Settings):
    """Asynchronous successive halving (ASHA) over seeds: only trials that do well run further seeds.

    Trials are judged after 1, factor, factor², ... seeds.
    """

    by: Literal["score", "validation_loss"] = "score"
    """What trials are compared by. The loss is comparable only if the space changes neither tokens nor questions
    nor the weights of the loss."""
    factor: int = Field(2, ge=2)
    """Of so many trials that have run as many seeds, the best goes on; the best so far always does."""


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
    objectives: list[Literal["score", "seconds", "core_hours", "gpu_hours"]] = Field(["score"], min_length=1)
    """What the search is for: a high score, and low costs of all artifacts of a trial. With several, the table
    marks trials that no other beats in all of them."""
    halving: HalvingSettings | None = None
    """Successive halving over seeds. Seeds of a trial run one after another then. None: all run, side by side."""
    concurrent: Annotated[int, Field(ge=1)] | Literal["auto"] = Field("auto", exclude=True)
    """Trials that run at the same time. auto: as many as the cluster has room for."""
    study: str | None = Field(None, exclude=True)
    """Optuna's storage: sqlite:///FILE, journal:///FILE, s3://BUCKET/FILE for one sweep alone, or a database, such
    as postgresql://USER@HOST/NAME. None: ROOT/study/NAME.log. A sweep that was killed goes on from it.
    optuna-dashboard opens it; of a file on S3, a copy."""
    dry_run: bool = Field(False, exclude=True)
    """Whether to list the first trials and which of their artifacts exist, and run nothing."""
    tracking: TrackingSettings = Field(TrackingSettings(), exclude=True)
    """Where the trials are recorded."""
    root: str = Field("results/artifacts", exclude=True)
    """Folder or s3:// URI of all artifacts."""

    @model_validator(mode="after")
    def _objectives_go_together(self) -> "SweepSettings":
        if self.objectives[0] != studies.SCORE or len(set(self.objectives)) < len(self.objectives):
            raise ValueError(f"objectives: expected score first and each once, found {self.objectives}")
        if self.halving is None:
            return self
        if len(self.objectives) > 1:
            raise ValueError("halving: needs one objective, the score")
        if len(self.seeds) < 2:
            raise ValueError("halving: needs two seeds or more, as it is over seeds")
        if self.halving.by == "validation_loss":
            if not self.experiment.language.finetune.validation.times or self.experiment.start:
                raise ValueError(
                    "halving.by: validation_loss needs language.finetune.validation.times of 1 or more, "
                    "and no start"
                )
            if any(path.startswith("language.finetune.validation") for path in self.space):
                raise ValueError(
                    "halving.by: validation_loss is not comparable if the space changes validation"
                )
        return self

    @model_validator(mode="after")
    def _conditions_are_about_earlier_settings(self) -> "SweepSettings":
        paths = list(self.space)
        for number, (path, values) in enumerate(self.space.items()):
            for other, allowed in values.conditions().items():
                if other not in paths[:number]:
                    raise ValueError(
                        f"space.{path}.when: expected a setting of space before it, found {other}"
                    )
                if not allowed or not all(self.space[other].may_be(value) for value in allowed):
                    raise ValueError(
                        f"space.{path}.when.{other}: expected values of its range, found {allowed}"
                    )
        return self

    def where_drawn(self, path: str) -> dict[str, Any]:
        """Values of other settings with which the setting at `path` is drawn."""
        needed: dict[str, Any] = {}
        for other, allowed in self.space[path].conditions().items():
            needed |= self.where_drawn(other) | {other: allowed[0]}
        return needed

    def draw(self, trial: Trial) -> None:
        """Let Optuna draw the settings of a trial, each if its condition holds."""
        drawn: dict[str, Any] = {}
        for path, values in self.space.items():
            if values.holds(drawn):
                drawn[path] = values.draw(trial, path)


def run_sweep(settings: SweepSettings) -> Artifact | None:
    """The sweep artifact: `trials.json`, best first; None of a dry run.

    Raises InputError for an unknown path or a wrong value.
    """
    for path, values in settings.space.items():
        for value in values.ends():
            override(settings.experiment, settings.where_drawn(path) | {path: value}, f"space.{path}")
    check(settings.experiment)
    if settings.dry_run:
        logger.info("%s", planned(settings))
        return None

    def build(uri: str) -> dict[str, Any]:
        trials = _study(settings, uri)
        finished = [trial for trial in trials if ran_all_seeds(trial)]
        if not finished:
            storage.remove(storage.join(uri, artifact.RUN))  # the study has all that is worth keeping
            why = next((trial["error"] for trial in trials if trial["score"] is None), "all were stopped")
            raise InputError(f"sweep: none of {len(trials)} trials finished: {why}")
        storage.write_json(storage.join(uri, "trials.json"), trials)
        runs = [_record(trial, artifact.published(uri)) for trial in trials if trial["score"] is not None]
        storage.write_json(storage.join(uri, tracking.RUNS), runs)
        return {
            "trials": len(trials),
            "failed": sum(trial["score"] is None for trial in trials),
            "stopped": sum(trial["stopped_after"] is not None for trial in trials),
            "best_score": finished[0]["score"],
            "best": finished[0]["settings"],
            "provenance": finished[0]["data"],
        }

    sweep = artifact.make("sweep", VERSION, settings, {}, build, settings.root)
    tracking.synchronise(settings.tracking, sweep)
    return sweep


def show_sweep(sweep: Artifact | None) -> str:
    """The trials of a sweep as a table of text, best first."""
    if sweep is None:
        return ""
    trials = sweep.read_json("trials.json")
    lines = [
        _table(trials),
        "score: mean over tasks on validation participants",
        "minutes: of all artifacts of the trial, those that it shares with others too",
        "core h, GPU h: hours times cores and GPUs that its trainings held",
    ]
    if any(trial.get("front") for trial in trials):
        lines.append("*: no other trial is better in one objective and as good in the others")
    if any(trial.get("stopped_after") for trial in trials):
        lines.append("stopped: successive halving gave it no further seed")
    return "\n".join(lines)


def _table(trials: Sequence[Mapping[str, Any]]) -> str:
    """A line for each row of `trials.json`, below a heading. Older sweeps have fewer columns."""
    lines = [f"{'score':>7} {'minutes':>8} {'core h':>7} {'GPU h':>7}  settings"]
    for trial in trials:
        score = (
            "failed" if trial["score"] is None else f"{'*' if trial.get('front') else ''}{trial['score']:.3f}"
        )
        minutes, cores, gpus = (
            "" if (cost := trial.get(name)) is None else f"{cost / unit:.{digits}f}"
            for name, unit, digits in (("seconds", 60, 1), ("core_hours", 1, 2), ("gpu_hours", 1, 2))
        )
        seeds = trial.get("stopped_after")
        stopped = f"  (stopped after {seeds} seed{'s' * (seeds > 1)})" if seeds else ""
        lines.append(f"{score:>7} {minutes:>8} {cores:>7} {gpus:>7}  {_in_words(trial['settings'])}{stopped}")
    return "\n".join(lines)


def _in_words(drawn: Mapping[str, Any]) -> str:
    return "  ".join(f"{path.split('.')[-1]}={value}" for path, value in drawn.items())


def planned(settings: SweepSettings) -> str:
    """The first trials as a table of text: their settings, and which artifacts exist already.

    The time is the sum of what the missing artifacts took in the folder's other experiments; stages that no
    experiment has run are named.
    """
    drawn = studies.first_draws(settings.draw, settings.trials, settings.search_seed)
    took = _seconds_by_stage(settings.root)
    lines, total, unknown = [], 0.0, set()
    for number, config in enumerate(drawn, 1):
        for seed in settings.seeds:
            one = override(settings.experiment, config | {"root": settings.root}, "space")
            stages = Stages(with_seed(one, seed))
            missing = [stage for stage in stages.needed("model") if not stages.found(stage)]
            total += sum(took.get(stage, 0.0) for stage in missing)
            unknown |= {stage for stage in missing if stage not in took}
            state = f"makes {', '.join(missing)}" if missing else "is there"
            lines.append(f"{number:>3}  seed {seed}  {_in_words(config)}: {state}")
    later = settings.trials - len(drawn)
    if later:
        lines.append(f"{later} more trials, which depend on the results of these")
        total *= settings.trials / len(drawn)
    known = f"at most {math.ceil(total / 60)} min one after another" if took else "unknown"
    if took and unknown:
        known += f", without {', '.join(sorted(unknown))}, which nobody has made in {settings.root}"
    return "\n".join([*lines, f"expected time: {known}"])


def _seconds_by_stage(root: str) -> dict[str, float]:
    """{stage: median seconds that its artifacts in a folder took}."""
    took: dict[str, list[float]] = {}
    for stage in STAGES:
        folder = storage.join(storage.absolute(root), stage)
        for name in storage.list_files(folder):
            if name.count("/") == 1 and name.endswith(f"/{artifact.MANIFEST}") and not name.startswith("."):
                took.setdefault(stage, []).append(
                    float(storage.read_json(storage.join(folder, name))["seconds"])
                )
    return {stage: statistics.median(seconds) for stage, seconds in took.items()}


def _study(settings: SweepSettings, uri: str) -> list[dict[str, Any]]:
    """Run the study, or what is left of it. Returns a row for each trial, best first, failed ones last."""
    name = artifact.published(uri)
    where = settings.study or studies.place_of(settings.root, name.rsplit("/", 1)[-1])
    kept = studies.storage_of(where)
    study = studies.open_study(kept, name, settings.search_seed, _is_there, settings.objectives)
    before = study.get_trials(deepcopy=False)
    done = sum(trial.state in studies.DONE for trial in before)
    if before:
        logger.info(
            "sweep: going on with the study that was begun, %d of %d trials done", done, settings.trials
        )
    errors = {}
    if left := settings.trials - done:
        progress = _Progress(settings, uri, study, done)
        search = studies.Search(
            settings.draw,
            kept,
            name,
            settings.search_seed,
            progress.on_finished,
            settings.objectives,
            settings.halving.factor if settings.halving else None,
        )
        logger.info("sweep: the study is in %s", where)
        errors = _run_trials(settings, uri, left, search)
    rows = studies.rows(study)
    for row in rows:
        if row["score"] is None and row["error"] is None:
            row["error"] = errors.get(json.dumps(row["settings"], sort_keys=True), "the trial was killed")
    return rows


def _run_trials(settings: SweepSettings, uri: str, trials: int, search: studies.Search) -> dict[str, str]:
    """Run trials with Ray Tune. Returns {settings as JSON: why that trial failed}."""
    cluster.connect()
    fs, path = storage.arrow_filesystem(storage.join(uri, artifact.RUN))
    at_once = _at_once(settings) if settings.concurrent == "auto" else settings.concurrent
    logger.info("sweep: %d trials, %d at a time", trials, at_once)
    tuner = tune.Tuner(
        tune.with_resources(
            tune.with_parameters(
                _trial,
                experiment=plain(settings.experiment),
                seeds=[[seed] for seed in settings.seeds] if settings.halving else [settings.seeds],
                root=settings.root,
            ),
            # A trial waits for trainings and answers, so it holds no core. Ray Tune wants at least one resource:
            # a byte.
            tune.PlacementGroupFactory([{"CPU": 0, "memory": 1}]),
        ),
        tune_config=tune.TuneConfig(
            search_alg=search,
            scheduler=_Halving(settings, search) if settings.halving else None,
            num_samples=trials,
            max_concurrent_trials=at_once,
        ),
        run_config=tune.RunConfig(
            name=f"trials-{uuid.uuid4().hex[:8]}",
            storage_path=path,
            storage_filesystem=fs,
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=1),
        ),
    )
    grid = tuner.fit()
    return {
        json.dumps(result.config, sort_keys=True): str(result.error).strip().splitlines()[-1]
        for result in (grid[i] for i in range(len(grid)))
        if result.error is not None
    }


class _Halving(FIFOScheduler):
    """Stops a trial after a seed if the study says so."""

    def __init__(self, settings: SweepSettings, search: studies.Search) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Ray Tune's
        self._settings, self._search = settings, search

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        done = len(result.get("runs", []))
        if not 0 < done < len(self._settings.seeds) or self._settings.halving is None:
            return str(FIFOScheduler.CONTINUE)
        by = self._settings.halving.by
        values = [math.nan if run[by] is None else run[by] for run in result["runs"]]
        value = sum(values) / done * (1 if by == "score" else -1)
        stops = self._search.stops(trial.trial_id, done, value)
        return str(FIFOScheduler.STOP if stops else FIFOScheduler.CONTINUE)


def _is_there(model: str) -> bool:
    return storage.exists(storage.join(model, artifact.MANIFEST))


def _at_once(settings: SweepSettings) -> int:
    """How many trials the cluster has room for: a trial takes as much as the fine-tunings that it runs at once."""
    training = settings.experiment.language.finetune.training
    workers = training.workers_range[0] * (1 if settings.halving else len(settings.seeds))
    if cluster.uses_gpus(training.accelerator):
        return max(1, int(cluster.most("GPU")) // workers)
    return max(1, int(cluster.most("CPU")) // (workers * cluster.cpus_for(training.workers_range[1])))


def _trial(config: dict[str, Any], experiment: dict[str, Any], seeds: list[list[int]], root: str) -> None:
    """One Tune trial, in a Ray worker: train and measure the drawn settings (`config`) with every seed.

    seeds: those of a list run side by side, each waiting for the resources that it needs. After each list the trial
        reports; successive halving may stop it then.
    """
    log_to_stdout()
    cluster.connect()
    runs: list[dict[str, Any]] = []
    for together in seeds:
        if len(together) == 1:
            runs.append(_run_seed(config, experiment, together[0], root))
        else:
            run_seed = ray.remote(num_cpus=0, max_retries=0)(_run_seed)
            runs += ray.get([run_seed.remote(config, experiment, seed, root) for seed in together])
        if wrong := [run["input_error"] for run in runs if "input_error" in run]:
            # So it would be each time: the trial ends, and Tune does not try it again.
            # Ray Tune wants every objective in each report.
            costs = dict.fromkeys(studies.COSTS, math.nan)
            tune.report({"score": math.nan, **costs, "runs": [], "input_error": wrong[0]})
            return
        tune.report(
            {
                "score": mean_score(runs),
                "runs": runs,
                "data": runs[0]["data"],
                **{cost: _sum([run[cost] for run in runs]) for cost in studies.COSTS},
            }
        )


def _sum(values: Sequence[float | None]) -> float | None:
    """None if one of them is not known."""
    return None if None in values else sum(value or 0.0 for value in values)


def _run_seed(config: dict[str, Any], experiment: dict[str, Any], seed: int, root: str) -> dict[str, Any]:
    """Train and measure the drawn settings with one seed. A wrong input is `input_error`, not an exception."""
    log_to_stdout()
    cluster.connect()
    settings = override(PipelineSettings.model_validate(experiment | {"root": root}), config, "sweep")
    try:
        return validate(train(with_seed(settings, seed)).model, root) | {"seed": seed}
    except InputError as error:
        return {"input_error": str(error)}


_BEST = 5
"""Trials in the table that is logged whenever one ends."""


class _Progress:
    """Logs every trial that ends, the best ones so far and the time that is left. Sends the trial to MLflow.

    done: trials that had ended before.
    """

    def __init__(self, settings: SweepSettings, uri: str, study: Study, done: int) -> None:
        self._settings, self._sweep, self._study = settings, artifact.published(uri), study
        self._before = self._done = done
        self._started = time.time()

    def _best(self) -> list[dict[str, Any]]:
        return [row for row in studies.rows(self._study) if ran_all_seeds(row)][:_BEST]

    def on_finished(self, trial: FrozenTrial) -> None:
        self._done += 1
        left = (
            (time.time() - self._started) / (self._done - self._before) * (self._settings.trials - self._done)
        )
        so_far = f"sweep: trial {self._done} of {self._settings.trials}"
        if trial.state == TrialState.PRUNED:
            seeds = len(trial.user_attrs["runs"])
            logger.info("%s: stopped after %d of %d seeds", so_far, seeds, len(self._settings.seeds))
            self._record(trial)
            return
        if trial.state != TrialState.COMPLETE:
            why = trial.user_attrs.get("input_error", "an error, see above")
            logger.warning("%s: failed (%s)  %s", so_far, why, trial.params)
            return
        logger.info(
            "%s: score %.3f, about %.0f min left. The best so far:\n%s",
            *(so_far, trial.values[0], math.ceil(left / 60), _table(self._best())),
        )
        self._record(trial)

    def _record(self, trial: FrozenTrial) -> None:
        run = _record(studies.row_of(trial), self._sweep)
        tracking.record_beside(self._settings.tracking, run)


def _record(trial: Mapping[str, Any], sweep: str) -> dict[str, Any]:
    """The MLflow run of a finished trial, a row of `trials.json`."""
    return {
        "name": f"sweep {sweep.rsplit('/', 1)[-1]} {trial['trial']}",
        "params": trial["settings"],
        "metrics": _mean_scores(trial["runs"]) | {key: trial[key] for key in ("score", *studies.COSTS)},
        "tags": {
            "sweep": sweep,
            "data": trial["data"],
            "models": " ".join(run["model"] for run in trial["runs"]),
            "stopped_after": str(trial["stopped_after"] or ""),
            **tracking.code_tags(code_version()),
        },
    }


def _mean_scores(runs: list[dict[str, Any]]) -> dict[str, float | None]:
    """Mean over seeds of each task's score; None if it is undefined for a seed."""
    by_task = {task: [run["tasks"].get(task) for run in runs] for task in runs[0]["tasks"]}
    return {task: None if None in scores else sum(scores) / len(scores) for task, scores in by_task.items()}
