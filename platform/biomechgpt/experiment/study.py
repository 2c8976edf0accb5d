"""The study of a sweep, in Optuna's own storage: what was tried, and what came out.

optuna-dashboard opens it (of one on S3, a copy), and a killed sweep goes on from it. The storage is the only state:
what Ray Tune writes while it runs is never read.
"""

import json
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState
from ray.tune.search.optuna import OptunaSearch

from biomechgpt.core import storage
from biomechgpt.core.settings import InputError, StorageError
from biomechgpt.experiment.scores import mean_score
from biomechgpt.experiment.tracking import SQLITE, database_file

_JOURNAL = "journal:///"
_STARTUP = 10
"""Trials that are drawn at random before TPE models the results; Optuna's default."""
DONE = (TrialState.COMPLETE, TrialState.PRUNED)
"""States of trials that are not run again. Successive halving has stopped those that are pruned."""
_WENT_ON = "went_on"
"""User attribute of a trial: the number of seeds after which successive halving let it go on."""
_AGAIN = "again"
"""User attribute of a trial that repeats one that failed."""
COSTS = ("seconds", "core_hours", "gpu_hours")
"""What a trial cost, with all seeds."""
SCORE = "score"
"""The first objective of every study: higher is better. The others are costs."""
KEPT = ("runs", "data", *COSTS, "input_error")
"""What a trial reports beside its score. It is kept as user attributes."""


def storage_of(uri: str) -> BaseStorage:
    """Optuna's storage at a URI. Makes the folder of a local file.

    Raises InputError for a storage that cannot be opened.
    """
    try:
        if uri.startswith("s3://"):
            return JournalStorage(_JournalObject(uri))
        if uri.startswith(_JOURNAL):
            return JournalStorage(JournalFileBackend(str(database_file(uri.removeprefix(_JOURNAL)))))
        if uri.startswith(SQLITE):
            return RDBStorage(f"{SQLITE}{database_file(uri.removeprefix(SQLITE))}")
        return RDBStorage(uri)
    except StorageError:
        raise
    except Exception as error:  # of the database, its driver, the file system
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"study: expected sqlite:///FILE, journal:///FILE, s3://BUCKET/FILE or the URI of a database, "
            f"found {uri}: {first}"
        ) from None


def place_of(root: str, name: str) -> str:
    """URI of the storage of a sweep, beside its artifacts. The folder of a submitted job is removed with the job.

    root: folder or s3:// URI of all artifacts; name: of the sweep.
    """
    file = storage.join(storage.absolute(root), "study", f"{name}.log")
    return file if storage.is_remote(file) else _JOURNAL + file


class _JournalObject(BaseJournalBackend):
    """Optuna's journal in one S3 object, which each change writes anew. Its text is that of Optuna's own file.

    For one process at a time: a sweep runs under the lease of its artifact. Two sweeps need two objects.
    """

    def __init__(self, uri: str) -> None:
        self._uri, self._written = uri, _content(uri)
        self._logs: list[dict[str, Any]] = [json.loads(line) for line in self._written.splitlines()]

    def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
        return self._logs[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Raises InputError if another process has written the object meanwhile."""
        if _content(self._uri) != self._written:
            raise InputError(f"{self._uri}: another sweep writes its study there: name an object of its own")
        lines = [json.dumps(log, separators=(",", ":")) + "\n" for log in logs]
        self._written += "".join(lines).encode()
        storage.write_bytes(self._uri, self._written)
        # From text, so that what is read now is what is read later.
        self._logs += [json.loads(line) for line in lines]


def _content(uri: str) -> bytes:
    return storage.read_bytes(uri) if storage.exists(uri) else b""


def open_study(
    kept: BaseStorage | None,
    name: str,
    seed: int,
    is_there: Callable[[str], bool] = lambda model: True,
    objectives: Sequence[str] = (SCORE,),
) -> Study:
    """The study of a name, made if it is not there. Trials that did not finish are put into its queue once more.

    kept: Optuna's storage; None: in memory.
    objectives: the score, and costs.
    is_there: whether a model is still there. A study that is about models that were removed begins anew.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = _created(kept, name, seed, objectives)
    trials = study.get_trials(deepcopy=False)
    models = {run["model"] for trial in trials for run in trial.user_attrs.get("runs", [])}
    if kept is not None and not all(is_there(model) for model in models):
        optuna.delete_study(study_name=name, storage=kept)
        return _created(kept, name, seed, objectives)
    for trial in trials:
        if trial.state == TrialState.RUNNING:  # of a sweep that was killed
            study.tell(trial.number, state=TrialState.FAIL)
    there = [t.params for t in trials if t.state in DONE]
    there += [t.system_attrs["fixed_params"] for t in trials if t.state == TrialState.WAITING]
    for trial in trials:
        if trial.state in (TrialState.RUNNING, TrialState.FAIL) and trial.params not in there:
            went_on = {key: value for key, value in trial.user_attrs.items() if key == _WENT_ON}
            study.enqueue_trial(trial.params, user_attrs={_AGAIN: True, **went_on})
            there.append(trial.params)
    return study


def _created(kept: BaseStorage | None, name: str, seed: int, objectives: Sequence[str]) -> Study:
    return optuna.create_study(
        storage=kept,
        study_name=name,
        directions=["maximize" if objective == SCORE else "minimize" for objective in objectives],
        sampler=Sampler(seed),
        load_if_exists=True,
    )


class Sampler(BaseSampler):
    """TPE that draws each trial from the seed and from how many trials came before it.

    So a study that was interrupted goes on as it would have gone on. Optuna's own sampler would begin anew.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._of_trial: dict[int, TPESampler] = {}

    def _sampler(self, study: Study, trial: FrozenTrial) -> TPESampler:
        if trial.number not in self._of_trial:
            trials = study.get_trials(deepcopy=False)
            before = sum(t.number < trial.number and _AGAIN not in t.user_attrs for t in trials)
            seed = int(np.random.SeedSequence([self._seed, before]).generate_state(1)[0])
            self._of_trial[trial.number] = TPESampler(seed=seed, n_startup_trials=_STARTUP)
        return self._of_trial[trial.number]

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._sampler(study, trial).sample_independent(study, trial, param_name, param_distribution)


def _rungs(factor: int | None, most: int) -> list[int]:
    """The numbers of seeds up to `most` after which trials are judged: 1, factor, factor², ..."""
    rungs = [1] if factor else []
    while factor and rungs[-1] * factor <= most:
        rungs.append(rungs[-1] * factor)
    return rungs


Draw = Callable[[Trial], None]
"""Asks a trial of Optuna for the value of each setting that it has."""


def first_draws(draw: Draw, trials: int, seed: int) -> list[dict[str, Any]]:
    """The settings of the first trials. Later ones depend on the results of these."""
    study = open_study(None, "dry run", seed)
    first = [study.ask() for _ in range(min(trials, _STARTUP))]
    for trial in first:
        draw(trial)
    return [trial.params for trial in first]


class Search(OptunaSearch):
    """Ray Tune's search by Optuna, with all that a trial reports kept in the study.

    on_finished: called with a finished trial of the study.
    objectives: the score, and costs. Optuna searches for a high score and low costs.
    halving: of so many trials that have run as many seeds, the best one goes on; None: each runs all its seeds.
    """

    def __init__(
        self,
        draw: Draw,
        kept: BaseStorage,
        name: str,
        seed: int,
        on_finished: Callable[[FrozenTrial], None],
        objectives: Sequence[str] = (SCORE,),
        halving: int | None = None,
    ) -> None:
        modes = ["max" if objective == SCORE else "min" for objective in objectives]
        one = len(objectives) == 1
        super().__init__(
            draw,
            metric=objectives[0] if one else list(objectives),
            mode=modes[0] if one else modes,
            sampler=Sampler(seed),
            study_name=name,
            storage=kept,
        )
        self._on_finished, self._objectives = on_finished, objectives
        self._factor = halving
        self._stopped: set[str] = set()

    def stops(self, trial_id: str, seeds_done: int, value: float) -> bool:
        """Whether a trial is not worth another seed. value: higher is better; after so many seeds.

        As Optuna's SuccessiveHalvingPruner decides. That counts a trial that was killed twice: once more when it is
        run again. Here all that decides is in the study, so a sweep that was killed halves as it would have.
        """
        trial = self._ot_trials[trial_id]
        trial.report(value, seeds_done)
        went_on = trial.user_attrs.get(_WENT_ON, 0)
        if seeds_done <= went_on or seeds_done not in _rungs(self._factor, seeds_done):
            return False
        others = [
            other.intermediate_values[seeds_done]
            for other in trial.study.get_trials(deepcopy=False)
            if other.state != TrialState.FAIL and seeds_done in other.intermediate_values
        ]
        best = sorted((other for other in others if not math.isnan(other)), reverse=True)
        kept = max(1, len(others) // (self._factor or 1))
        if value in best[:kept]:
            trial.set_user_attr(_WENT_ON, seeds_done)
            return False
        self._stopped.add(trial_id)
        return True

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing: `stops` tells Optuna what it needs."""

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        trial, result = self._ot_trials[trial_id], dict(result or {})
        if unknown := [name for name in self._objectives if result.get(name, 0) is None]:
            result["input_error"] = (
                f"objectives: {unknown[0]} is not known of artifacts that did not count it"
            )
        for key in KEPT:
            if key in result:
                trial.set_user_attr(key, result[key])
        wrong = error or not result or "input_error" in result
        # Without a result and without an error, the trial is pruned.
        no_result = wrong or trial_id in self._stopped
        super().on_trial_complete(trial_id, None if no_result else result, error=wrong)
        self._on_finished(trial.study.trials[trial.number])

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study's own storage has all of it."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, see `save`."""


def rows(study: Study) -> list[dict[str, Any]]:
    """`row_of` each trial: best first, then those that were stopped, then those that failed. One that was tried
    again counts once.

    Each row also has `front`: whether no other trial is better in one objective and as good in all others; False
    with one objective.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    front = {trial.number for trial in study.best_trials} if len(study.directions) > 1 else set()
    for trial in study.get_trials(deepcopy=False):
        if not trial.state.is_finished():
            continue
        row = row_of(trial) | {"front": trial.number in front}
        # A draw may repeat an earlier one: both are trials then, unless the earlier one failed.
        same = found.setdefault(json.dumps(trial.params, sort_keys=True), [])
        if same and same[-1]["score"] is None:
            same.pop()
        same.append(row)
    return sorted(
        (row for same in found.values() for row in same),
        key=lambda row: (row["score"] is not None, row["stopped_after"] is None, row["score"] or 0.0),
        reverse=True,
    )


def row_of(trial: FrozenTrial) -> dict[str, Any]:
    """The row of a trial that has ended, for the sweep's table.

    score: None for one that failed. Of one that was stopped, the mean of the seeds that it ran.
    stopped_after: seeds that it ran before successive halving stopped it; None: it was not stopped.
    trial: its number in the study.
    settings: {path of a setting: value}.
    runs: a record for each seed. data: provenance. seconds: of all its artifacts.
    core_hours, gpu_hours: of its trainings.
    error: what was wrong with the input; None of any other failure. input_error: whether the input was wrong.
    """
    attributes, stopped = trial.user_attrs, trial.state == TrialState.PRUNED
    runs = attributes.get("runs", [])
    score = mean_score(runs) if stopped else trial.values[0] if trial.state in DONE else None
    return {
        "score": score,
        "trial": trial.number,
        "stopped_after": len(runs) if stopped else None,
        "settings": trial.params,
        "runs": runs,
        "data": attributes.get("data"),
        **{cost: attributes.get(cost) for cost in COSTS},
        "error": attributes.get("input_error"),
        "input_error": "input_error" in attributes,
    }
