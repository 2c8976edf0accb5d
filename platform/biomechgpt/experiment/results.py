"""Where the results of an experiment are found again."""

from biomechgpt.core import storage
from biomechgpt.core.settings import InputError

DEMO = "results/demo"
"""Folder of the demo's report and metrics.json."""


def demo_model(folder: str = DEMO) -> str:
    """URI of the model that a report is of. folder: the report's. Raises InputError if it has no metrics.json."""
    metrics = storage.join(folder, "metrics.json")
    if not storage.exists(metrics):
        raise InputError(
            f"{metrics}: expected the results of `make demo`, found no such file (give a model's URI)"
        )
    return storage.read_json(metrics)["model"]["uri"]
