"""MLflow: what was run and with what result, and which bundle is the champion.

Only the driver writes here (a SQLite file is not shared between nodes). Recording is idempotent: an artifact
or a Tune trial that is recorded twice, after a restart say, is one MLflow run.
"""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from biomechgpt.core.artifact import Artifact
from biomechgpt.core.settings import InputError, Settings

SQLITE = "sqlite:///"
REGISTERED = "biomechgpt"
"""The registered model whose versions are bundles."""
CHAMPION = f"models:/{REGISTERED}@champion"


class TrackingSettings(Settings):
    """Where MLflow keeps its runs and its registry."""

    uri: str = Field(
        default_factory=lambda: os.environ.get("MLFLOW_TRACKING_URI", f"{SQLITE}results/mlflow.db")
    )
    """MLflow's SQLite file or server."""
    experiment: str = "biomechgpt"
    """Name of the MLflow experiment that holds the runs."""


def client(settings: TrackingSettings) -> Any:
    """An `mlflow.MlflowClient`, the SQLite file's folder made."""
    import logging

    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
    from mlflow import MlflowClient

    uri = settings.uri
    if uri.startswith(SQLITE):
        path = Path(uri.removeprefix(SQLITE)).resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        uri = f"{SQLITE}{path}"
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def record(
    settings: TrackingSettings,
    name: str,
    *,
    params: Mapping[str, Any],
    metrics: Mapping[str, float | None],
    tags: Mapping[str, str],
) -> str:
    """One MLflow run called `name`, made or made again; returns its id. Metrics that are None are left out."""
    mlflow = client(settings)
    experiment = mlflow.get_experiment_by_name(settings.experiment)
    number = experiment.experiment_id if experiment else mlflow.create_experiment(settings.experiment)
    known = mlflow.search_runs([number], f"attributes.run_name = '{name}'", max_results=1)
    run = known[0].info.run_id if known else mlflow.create_run(number, run_name=name).info.run_id
    had = known[0].data.params if known else {}
    for key, value in params.items():
        if key not in had:  # MLflow's parameters never change
            mlflow.log_param(run, key, str(value)[:500])
    for key, number_ in metrics.items():
        if number_ is not None and math.isfinite(number_):
            mlflow.log_metric(run, key, number_)
    for key, text in tags.items():
        mlflow.set_tag(run, key, text)
    mlflow.set_terminated(run, "FINISHED")
    return str(run)


def register(
    settings: TrackingSettings, model: Artifact, run: str, alias: str, tags: Mapping[str, str]
) -> str:
    """Make the bundle a version of the registered model (once) and give it `alias`; returns the version."""
    mlflow = client(settings)
    if not mlflow.search_registered_models(f"name = '{REGISTERED}'"):
        mlflow.create_registered_model(REGISTERED)
    versions = mlflow.search_model_versions(f"name = '{REGISTERED}'")
    known = [v.version for v in versions if v.source == model.uri]
    version = known[0] if known else mlflow.create_model_version(REGISTERED, model.uri, run_id=run).version
    for key, text in {"fingerprint": model.fingerprint, "data": model.provenance, **tags}.items():
        mlflow.set_model_version_tag(REGISTERED, version, key, text)
    mlflow.set_registered_model_alias(REGISTERED, alias, version)
    return str(version)


def resolve(settings: TrackingSettings, uri: str) -> str:
    """The bundle's own URI of `models:/NAME@ALIAS`; any other URI is returned as it is.

    Raises InputError where there is no such model or alias.
    """
    if not uri.startswith("models:/"):
        return uri
    name, _, alias = uri.removeprefix("models:/").partition("@")
    from mlflow.exceptions import MlflowException

    try:
        return str(client(settings).get_model_version_by_alias(name, alias).source)
    except MlflowException:
        raise InputError(
            f"{uri}: no model {name!r} with alias {alias!r} in the registry at {settings.uri}"
        ) from None
