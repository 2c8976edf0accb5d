"""Fixtures shared by the suite."""

import os
import runpy
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest_plugins = ["language_fixtures", "s3_server"]
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# What the served application asks for: its replicas get it with their environment.
os.environ.setdefault("BIOMECHGPT_API_KEY", "the-key-of-the-tests")
# Many tests train on two workers, which one GPU has no room for. CUDA_VISIBLE_DEVICES=0 runs the others on it.
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
# Ray's processes would otherwise give way to the other tests that run beside them, and they are the long part.
os.environ.setdefault("RAY_worker_niceness", "0")
# Two processes of tests on two cores: more threads only take turns.
os.environ.setdefault("OMP_NUM_THREADS", "1")
TESTS = Path(__file__).parent
# Ray's workers import the functions that a test defines, so they need every folder of tests on their path.
_FOLDERS = [str(TESTS), *sorted(str(folder) for folder in TESTS.iterdir() if folder.is_dir())]
os.environ["PYTHONPATH"] = os.pathsep.join([*_FOLDERS, os.environ.get("PYTHONPATH", "")])
ROOT = Path(__file__).parents[1]
# Appended: platform/ must not come before the standard library's module of that name.
sys.path += [*_FOLDERS[1:], str(ROOT)]


@pytest.hookimpl(tryfirst=True)  # before xdist looks at groups
def pytest_collection_modifyitems(items):
    """Side by side (`make test`): the tests of a group run in one process, so that they share its fixtures.

    The groups are: all that needs the tiny run; all else that starts Ray; the build of the images; of the rest, the
    tests of each file. `make test` starts groups in this order, so the longest come first.
    """
    groups: dict[str, list[pytest.Item]] = {"tiny": [], "ray": [], "images": []}
    for item in items:
        if "ray_cluster" in item.fixturenames:
            item.add_marker("cluster")
        on_ray = item.get_closest_marker("cluster")
        group = "tiny" if "tiny" in item.fixturenames else "ray" if on_ray else item.path.name
        if marker := item.get_closest_marker("xdist_group"):
            group = marker.args[0]
        else:
            item.add_marker(pytest.mark.xdist_group(group))
        groups.setdefault(group, []).append(item)
    items[:] = [item for group in groups.values() for item in group]


@pytest.fixture(scope="session")
def ray_cluster():
    """A local Ray for the whole run of the suite."""
    import ray

    from biomechgpt.core import cluster

    cluster.connect()
    yield
    ray.shutdown()


@pytest.fixture
def run_job(ray_cluster, monkeypatch, capfd, tmp_path_factory):
    """Runs a script of jobs/ in this process: `run_job(name, *arguments)` is what it printed."""
    records = tmp_path_factory.getbasetemp() / "mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{records}")

    def run_script(name: str, *arguments: object) -> str:
        monkeypatch.chdir(ROOT)
        monkeypatch.setattr(sys, "argv", [f"jobs/{name}.py", *map(str, arguments)])
        capfd.readouterr()
        runpy.run_path(str(ROOT / "jobs" / f"{name}.py"), run_name="__main__")
        return capfd.readouterr().out

    return run_script


def printed_uri(printed: str) -> str:
    """The path or URI in the last line that a job prints."""
    last = printed.strip().splitlines()[-1]
    assert last.startswith("artifact: "), printed
    return last.removeprefix("artifact: ")


@dataclass(frozen=True)
class Tiny:
    """A finished tiny run: its evaluation, the folders of its artifacts and report, its settings."""

    evaluation: Any
    root: Path
    out: Path
    settings: Any

    def made(self, kind: str) -> Any:
        """The artifact of a kind that the evaluation came from, its checksums verified."""
        from biomechgpt.core import artifact

        waiting = [self.evaluation]
        while waiting[0].kind != kind:
            first = waiting.pop(0)
            waiting += [first.input(name) for name in first.manifest["inputs"]]
        return artifact.load(waiting[0].uri, kind, verify=True)


@pytest.fixture(scope="session")
def tiny(ray_cluster, tmp_path_factory):
    """The whole path on the tiny settings, once for all tests that need something trained."""
    from biomechgpt.core.settings import load
    from biomechgpt.experiment.pipeline import run_pipeline
    from biomechgpt.experiment.settings import PipelineSettings

    # Spaces and accents, as in many people's folders: every stage, and all that uses its artifacts, works in it.
    folder = tmp_path_factory.mktemp("tiny run (Étude n° 1)")
    os.chdir(ROOT)
    arguments = ["--root", str(folder / "artifacts"), "--output", str(folder / "out")]
    settings = load(PipelineSettings, ROOT / "configs/experiments/tiny.yaml", arguments)
    return Tiny(run_pipeline(settings), folder / "artifacts", folder / "out", settings)
