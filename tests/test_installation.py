"""An installation from the wheel, outside the checkout, has the command, the tasks, the settings and the page."""

import csv
import os
import shutil
import site
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from conftest import ROOT
from real_recordings import SHIPPED

pytestmark = pytest.mark.slow
SOURCES = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "NOTICE", "platform", "serve", "configs")
"""What the image copies too (infra/Dockerfile)."""


def run(folder: Path, *command: object) -> str:
    """What a command prints. It runs in `folder` and sees nothing of the suite's own environment."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    result = subprocess.run(
        list(map(str, command)), cwd=folder, capture_output=True, text=True, check=False, env=environment
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The `bin` folder of a fresh environment with the wheel in it, and an empty folder to work in."""
    folder = tmp_path_factory.mktemp("installation")
    source = folder / "source"
    source.mkdir()
    left_out = shutil.ignore_patterns("node_modules", "__pycache__", "*.egg-info", "page")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=left_out)
        else:
            shutil.copy(ROOT / name, source)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    run(folder, *pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", folder, source)
    shutil.rmtree(source)
    (wheel,) = folder.glob("*.whl")
    environment = folder / "environment"
    venv.create(environment, with_pip=False)
    python = environment / "bin/python"
    run(folder, *pip, "--python", python, "install", "--no-deps", "--no-index", wheel)
    # The libraries are the suite's. A line of a .pth file adds their folder, but not what is editable in it.
    (own,) = environment.glob("lib/*/site-packages")
    (own / "libraries.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    work = folder / "work"
    work.mkdir()
    return environment / "bin", work


def test_package_is_the_installed_one(installed):
    bin_folder, work = installed
    places = run(
        work,
        bin_folder / "python",
        "-c",
        "import biomechgpt, serve; print(biomechgpt.__file__, serve.__path__[0])",
    )
    assert all(Path(place).is_relative_to(bin_folder.parent) for place in places.split())


def test_command_is_there(installed):
    bin_folder, work = installed
    assert "answer" in run(work, bin_folder / "biomechgpt", "--help")
    assert "--recordings" in run(work, bin_folder / "biomechgpt", "answer", "--help")
    assert "export BIOMECHGPT_API_KEY=" in run(work, bin_folder / "biomechgpt", "keys")


def test_settings_tasks_and_page_are_there(installed):
    bin_folder, work = installed
    code = (
        "from biomechgpt.core.settings import find; from biomechgpt.questions.tasks import load_tasks; "
        "from serve.app import STATIC; "
        "print(*load_tasks(['configs/tasks', 'configs/tasks_extra', 'configs/tasks_measured'])); "
        "print((STATIC / 'index.html').exists(), any((STATIC / 'assets').iterdir())); "
        "print(find('configs/experiments/demo.yaml').exists())"
    )
    tasks, page, demo = run(work, bin_folder / "python", "-c", code).splitlines()
    folders = ("tasks", "tasks_extra", "tasks_measured")
    files = [path for folder in folders for path in (ROOT / "configs" / folder).glob("*.yaml")]
    assert set(tasks.split()) == {path.stem for path in files}
    assert page == "True True"
    assert demo == "True"
    missing = run(work, bin_folder / "biomechgpt", "check", "--config", "configs/experiments/tiny.yaml")
    assert "missing" in missing


@pytest.mark.cluster
def test_a_recording_is_answered(installed, tiny):
    bin_folder, work = installed
    shutil.copy(min(SHIPPED.rglob("*.mot")), work / "walk.mot")
    model = tiny.made("model").uri
    run(work, bin_folder / "biomechgpt", "answer", "walk.mot", "--model", model, "--output", "answers.csv")
    with (work / "answers.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["file"] for row in rows} == {"walk.mot"}
    assert all(row["answer"] or row["note"] for row in rows)
    assert any(row["task"] == "activity" for row in rows)
