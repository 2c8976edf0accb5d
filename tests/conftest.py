"""Fixtures shared by the suite."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Ray's workers import what a test defines.
os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
REAL = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def ray_cluster():
    """A local Ray for the whole run of the suite."""
    import ray

    from biomechgpt import cluster

    cluster.connect()
    yield
    ray.shutdown()
