"""MLflow: the record of runs with their results, and the registry that names the champion.

Only the driver writes here, because a SQLite file is not shared between nodes. Recording is idempotent: an artifact
or a Tune trial that is recorded twice, for example after a restart, is one MLflow run.

No work waits for MLflow. The runs of a sweep or a comparison are a file of its artifact, `runs.json`; `synchronise`
sends them, and where MLflow is away, the same command does so later.
"""

import math
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from biomechgpt.core import artifact, storage
from biomechgpt.core.artifact import Artifact
from biomechgpt.core.logs import logger
from biomechgpt.core.settings import InputError, Settings

SQLITE = "sqlite:///"
REGISTERED = "biomechgpt"
"""Name of the registered model. Each of its versions is a model artifact."""
REPLACED = "replaced"
"""Tag of a version, followed by a dot and an alias: the version that had the alias before it."""
_NOT_FOUND = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""Codes of MLflow's answer for an alias that no version has."""
CHAMPION = f"models:/{REGISTERED}@champion"
RUNS = "runs.json"
"""File of an artifact: its MLflow runs, each the keyword arguments of `record`."""
_PATIENCE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "10", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
"""MLflow's own environment variables: a server that is away costs seconds. By default it is minutes."""
_AT_ONCE = 100
"""Parameters, tags and metrics in one call. MLflow allows 100 parameters."""
_one_at_a_time = threading.Lock()


class TrackingSettings(Settings):
    """Where MLflow keeps its runs and its registry."""

    uri: str = Field(
        default_factory=lambda: os.environ.get("MLFLOW_TRACKING_URI", f"{SQLITE}results/mlflow.db")
    )
    """MLflow's SQLite file or server."""
    experiment: str = "biomechgpt"
    """Name of the MLflow experiment that holds the runs."""


def client(settings: TrackingSettings) -> Any:
    """An `mlflow.MlflowClient`. Makes the folder of a SQLite file if it does not exist."""
    import logging

    for name, value in _PATIENCE.items():
        os.environ.setdefault(name, value)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
    from mlflow import MlflowClient

    uri = settings.uri
    if uri.startswith(SQLITE):
        uri = f"{SQLITE}{database_file(uri.removeprefix(SQLITE))}"
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def database_file(name: str) -> Path:
    """The absolute path of a database's file. Makes its folder if it does not exist."""
    path = Path(name).resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def record(
    settings: TrackingSettings,
    name: str,
    *,
    params: Mapping[str, Any],
    metrics: Mapping[str, float | None],
    tags: Mapping[str, str],
    curves: Mapping[str, Sequence[tuple[int, float]]] | None = None,
) -> str:
    """Record one MLflow run called `name`, or update the run of that name; returns its id.

    params: settings of the run. Those that the run has already stay as they are.
    metrics: results of the run. None and infinite ones are left out.
    curves: {metric: its values by training step}.
    """
    mlflow = client(settings)
    from mlflow.entities import Metric, Param, RunTag

    name = name.replace('"', "'")  # MLflow's filters quote either way, but escape nothing
    experiment = mlflow.get_experiment_by_name(settings.experiment)
    quote = '"' if "'" in name else "'"
    experiment_id = experiment.experiment_id if experiment else mlflow.create_experiment(settings.experiment)
    recorded = mlflow.search_runs(
        [experiment_id], f"attributes.run_name = {quote}{name}{quote}", max_results=1
    )
    run = recorded[0] if recorded else mlflow.create_run(experiment_id, run_name=name)
    run_id = run.info.run_id
    recorded_params = recorded[0].data.params if recorded else {}
    now = int(time.time() * 1000)
    new_params = {k: v for k, v in params.items() if k not in recorded_params}  # MLflow refuses to change one
    points = [(key, value, 0) for key, value in metrics.items() if value is not None]
    if not recorded:
        points += [(key, value, step) for key, curve in (curves or {}).items() for step, value in curve]
    entries = [
        *(Param(key, str(value)[:500]) for key, value in new_params.items()),
        *(RunTag(key, text) for key, text in tags.items()),
        *(Metric(key, value, now, step) for key, value, step in points if math.isfinite(value)),
    ]
    for first in range(0, len(entries), _AT_ONCE):
        some = entries[first : first + _AT_ONCE]
        mlflow.log_batch(
            run_id,
            params=[e for e in some if isinstance(e, Param)],
            tags=[e for e in some if isinstance(e, RunTag)],
            metrics=[e for e in some if isinstance(e, Metric)],
        )
    mlflow.set_terminated(run_id, "FINISHED")
    return str(run_id)


def try_to_record(settings: TrackingSettings, run: Mapping[str, Any]) -> str | None:
    """Record a run (arguments of `record`); returns why that failed, or None."""
    try:
        with _one_at_a_time:
            record(settings, **run)
    except Exception as error:  # of MLflow, of its database, of the network
        return _reason(error)
    return None


def _reason(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:200]


def run_of(made: Artifact, settings: Mapping[str, Any], report: str | None) -> dict[str, Any]:
    """The record (arguments of `record`) of the run that made an artifact and all that it was made from.

    settings: those of the whole experiment.
    report: URI of the report, if the run has written one.
    """
    chain = artifact.chain(made)
    tags = {f"fingerprint.{one.kind}": one.fingerprint for one in chain}
    tags |= {"artifact": made.uri, "data": made.provenance} | code_tags(made.manifest.get("code", {}))
    metrics = {f"{one.kind}.{key}": value for one in chain for key, value in numbers(one.metrics)}
    metrics |= {f"seconds.{one.kind}": one.manifest["seconds"] for one in chain}
    if made.kind == "evaluation":
        metrics |= _scores(made)
    return {
        "name": f"{made.kind} {made.fingerprint}",
        "params": dict(_flat(settings)),
        "metrics": metrics | {"seconds": sum(one.manifest["seconds"] for one in chain)},
        "tags": tags | ({"report": report} if report else {}),
        "curves": {
            f"{one.kind}.{key}": [(row["step"], row[key]) for row in history if key in row]
            for one in chain
            if one.kind != "model"  # it repeats the adapter's
            and (history := one.metrics.get("history"))
            for key in history[-1]
            if key != "step"
        },
    }


def code_tags(code: Mapping[str, Any]) -> dict[str, str]:
    """Tags of a run that say which code made it. code: a result of `code_version`."""
    return {f"code.{name}": str(value) for name, value in code.items()}


def _scores(evaluation: Artifact) -> dict[str, float]:
    """{task.metric: the model's value}, without what is said of single labels."""
    # Imported here: it loads scikit-learn, which most processes that track do without.
    from biomechgpt.evaluation.metrics import METRICS

    by_task = evaluation.read_json("metrics.json")["tasks"]
    return {
        f"{task}.{name}": value
        for task, by_source in by_task.items()
        for name, value in numbers(by_source["model"])
        if name in METRICS
    }


def numbers(content: Any) -> Iterator[tuple[str, float]]:
    """The numbers in nested dictionaries, each with its keys joined by dots. Lists are left out."""
    for key, value in _flat(content):
        if is_number(value):
            yield key, value


def is_number(value: Any) -> bool:
    """Whether a value of a JSON content is a number; true and false are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _flat(content: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        name = f"{before}.{key}" if before else str(key)
        if isinstance(value, Mapping):
            yield from _flat(value, name)
        else:
            yield name, value


def record_beside(settings: TrackingSettings, run: Mapping[str, Any]) -> None:
    """Record a run while the work goes on, if MLflow answers."""
    threading.Thread(target=try_to_record, args=(settings, run), daemon=True).start()


def synchronise(settings: TrackingSettings, made: Artifact) -> None:
    """Record all runs of an artifact. Where MLflow is away, one line says so, and nothing fails."""
    if not storage.exists(made.path(RUNS)):
        return  # made before runs were kept
    for run in made.read_json(RUNS):
        if reason := try_to_record(settings, run):
            logger.warning(
                "MLflow at %s does not record (%s): the runs are in %s, and the same command sends them later",
                *(settings.uri, reason, made.path(RUNS)),
            )
            return


def register(
    settings: TrackingSettings, model: Artifact, run: str, alias: str, tags: Mapping[str, str]
) -> str:
    """Make a model a version of the registered model, once, and give it an alias; returns the version.

    run: id of the MLflow run that recorded the model.
    """
    mlflow = client(settings)
    if not mlflow.search_registered_models(f"name = '{REGISTERED}'"):
        mlflow.create_registered_model(REGISTERED)
    versions = mlflow.search_model_versions(f"name = '{REGISTERED}'")
    registered = [version.version for version in versions if version.source == model.uri]
    if registered:
        version = registered[0]
    else:
        version = mlflow.create_model_version(REGISTERED, model.uri, run_id=run).version
    for key, text in {"fingerprint": model.fingerprint, "data": model.provenance, **tags}.items():
        mlflow.set_model_version_tag(REGISTERED, version, key, text)
    replaced = _holder(settings, alias)
    if replaced is not None and replaced.version != version:
        mlflow.set_model_version_tag(REGISTERED, version, f"{REPLACED}.{alias}", str(replaced.version))
    mlflow.set_registered_model_alias(REGISTERED, alias, version)
    return str(version)


def roll_back(settings: TrackingSettings, alias: str, reason: str) -> str:
    """Give an alias back to the version that had it before; returns the URI of that version's model.

    reason: kept as a tag of the version that loses the alias.
    Raises InputError if no version has the alias, or if the version replaced none.
    """
    mlflow, present = client(settings), _holder(settings, alias)
    if present is None:
        raise InputError(f"{settings.uri}: no version of {REGISTERED} has the alias {alias!r}")
    earlier = present.tags.get(f"{REPLACED}.{alias}")
    if earlier is None:
        raise InputError(
            f"version {present.version} of {REGISTERED}: no version had the alias {alias!r} before it"
        )
    mlflow.set_model_version_tag(REGISTERED, present.version, "rolled_back", reason)
    mlflow.set_registered_model_alias(REGISTERED, alias, earlier)
    return resolve(settings, f"models:/{REGISTERED}@{alias}")


def _holder(settings: TrackingSettings, alias: str) -> Any:
    """The version that has an alias; None if none has. An error of the registry is raised: it is no answer."""
    from mlflow.exceptions import MlflowException

    mlflow = client(settings)
    if not mlflow.search_registered_models(f"name = '{REGISTERED}'"):
        return None
    try:
        return mlflow.get_model_version_by_alias(REGISTERED, alias)
    except MlflowException as error:
        if error.error_code not in _NOT_FOUND:
            raise
        return None


def holder(settings: TrackingSettings, alias: str) -> str | None:
    """URI of the model that has an alias; None if none has."""
    present = _holder(settings, alias)
    return None if present is None else resolve(settings, f"models:/{REGISTERED}@{alias}")


def resolve(settings: TrackingSettings, uri: str) -> str:
    """The URI of the model that `models:/NAME@ALIAS` stands for. Any other URI is returned unchanged.

    The registry's file may have been moved together with the folder of artifacts beside it.
    Raises InputError for an unknown model or alias.
    """
    if not uri.startswith("models:/"):
        return uri
    name, _, alias = uri.removeprefix("models:/").partition("@")
    from mlflow.exceptions import MlflowException

    try:
        source = str(client(settings).get_model_version_by_alias(name, alias).source)
    except MlflowException as error:
        if error.error_code not in _NOT_FOUND:  # the registry is away
            raise InputError(
                f"{uri}: the registry at {settings.uri} does not answer: {_reason(error)}"
            ) from None
        raise InputError(
            f"{uri}: no model {name!r} with alias {alias!r} in the registry at {settings.uri}"
        ) from None
    if not settings.uri.startswith(SQLITE):
        return source
    return artifact.find(source, storage.beside(settings.uri.removeprefix(SQLITE), "../artifacts"))
