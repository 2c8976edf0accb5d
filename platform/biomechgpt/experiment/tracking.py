"""MLflow: which runs were made, with which results, and which model is the champion.

Only the driver writes here, because a SQLite file is not shared between nodes. Recording is idempotent: an artifact
or a Tune trial that is recorded twice, for instance after a restart, is one MLflow run.
"""

import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from biomechgpt.core.settings import InputError, Settings

if TYPE_CHECKING:
    from biomechgpt.core.artifact import Artifact

SQLITE = "sqlite:///"
REGISTERED = "biomechgpt"
"""The registered model. Its versions are model artifacts."""
CHAMPION = f"models:/{REGISTERED}@champion"


class TrackingSettings(Settings):
    """Where MLflow keeps its runs and its registry."""

    uri: str = Field(
        default_factory=lambda: os.environ.get("MLFLOW_TRACKING_URI", f"{SQLITE}results/mlflow.db")
    )
    """MLflow's SQLite file or server. Default: the environment variable MLFLOW_TRACKING_URI."""
    experiment: str = "biomechgpt"
    """Name of the MLflow experiment."""


def client(settings: TrackingSettings) -> Any:
    """An `mlflow.MlflowClient`. Creates the folder of the SQLite file."""
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
    """Create or update the MLflow run called `name`; returns its id. Metrics that are None are left out."""
    mlflow = client(settings)
    experiment = mlflow.get_experiment_by_name(settings.experiment)
    experiment_id = experiment.experiment_id if experiment else mlflow.create_experiment(settings.experiment)
    existing = mlflow.search_runs([experiment_id], f"attributes.run_name = '{name}'", max_results=1)
    run = existing[0] if existing else mlflow.create_run(experiment_id, run_name=name)
    run_id = run.info.run_id
    for key, value in params.items():
        if key not in run.data.params:  # MLflow refuses to change a parameter
            mlflow.log_param(run_id, key, str(value)[:500])
    for key, number in metrics.items():
        if number is not None and math.isfinite(number):
            mlflow.log_metric(run_id, key, number)
    for key, text in tags.items():
        mlflow.set_tag(run_id, key, text)
    mlflow.set_terminated(run_id, "FINISHED")
    return run_id


def register(
    settings: TrackingSettings, model: "Artifact", run: str, alias: str, tags: Mapping[str, str]
) -> str:
    """Make the model artifact a version of the registered model (once) and give it `alias`; returns the version."""
    mlflow = client(settings)
    if not mlflow.search_registered_models(f"name = '{REGISTERED}'"):
        mlflow.create_registered_model(REGISTERED)
    versions = mlflow.search_model_versions(f"name = '{REGISTERED}'")
    number = next((version.version for version in versions if version.source == model.uri), None)
    if number is None:
        number = mlflow.create_model_version(REGISTERED, model.uri, run_id=run).version
    for key, text in {"fingerprint": model.fingerprint, "data": model.data, **tags}.items():
        mlflow.set_model_version_tag(REGISTERED, number, key, text)
    mlflow.set_registered_model_alias(REGISTERED, alias, number)
    return str(number)


def resolve(settings: TrackingSettings, uri: str) -> str:
    """The artifact URI that `models:/NAME@ALIAS` stands for; any other URI is returned unchanged.

    Raises InputError if the registry has no such model or alias.
    """
    if not uri.startswith("models:/"):
        return uri
    name, _, alias = uri.removeprefix("models:/").partition("@")
    from mlflow.exceptions import MlflowException

    try:
        return client(settings).get_model_version_by_alias(name, alias).source
    except MlflowException:
        raise InputError(
            f"{uri}: no model {name!r} with alias {alias!r} in the registry at {settings.uri}"
        ) from None
