"""Where the demo writes its results, and which model it made."""

from biomechgpt.core import storage
from biomechgpt.core.settings import InputError

DEMO = "results/demo"
"""Folder of the demo's report and metrics.json."""


def demo_model() -> str:
    """URI of the demo's model artifact. Raises InputError if the demo was not run here."""
    metrics = storage.join(DEMO, "metrics.json")
    if not storage.exists(metrics):
        raise InputError(
            f"{metrics}: expected the results of `make demo`, found no such file (give a model's URI)"
        )
    return str(storage.read_json(metrics)["model"]["uri"])
