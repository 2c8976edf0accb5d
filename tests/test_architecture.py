"""The layers of DESIGN: imports point down, and light modules stay light."""

import ast
import importlib.util
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

LIGHT = (
    "biomechgpt.recordings.readers",
    "biomechgpt.recordings.load",
    "biomechgpt.recordings.quality",
    "biomechgpt.motion.gait",
    "biomechgpt.motion.norms",
    "biomechgpt.motion.parameters",
    "biomechgpt.questions.tasks",
    "biomechgpt.questions.dataset",
    "biomechgpt.simulator",
    "biomechgpt.core.training",
    "biomechgpt.tokenizer.settings",
    "biomechgpt.language.settings",
    "biomechgpt.language.families",
    "biomechgpt.experiment.settings",
    "biomechgpt.experiment.folder_check",
)
"""Modules that a biomechanist uses as a library, without the cluster or the networks."""


def run_python(code: str) -> str:
    """What a fresh interpreter prints; with its error if it fails."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_platform_is_the_standard_librarys():
    assert platform.python_version() == sys.version.split()[0]
    assert not (ROOT / "platform" / "__init__.py").exists()
    code = "import platform, biomechgpt; print(platform.__file__)"
    assert str(ROOT) not in run_python(code).replace(str(ROOT / ".venv"), "")


def test_imports_point_down():
    """The contracts stand in pyproject.toml, under tool.importlinter."""
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_load_neither_ray_nor_torch(module):
    heavy = ("ray", "torch", "transformers", "datasets")
    code = f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])"
    assert run_python(code).strip() == "[]"


def test_a_training_worker_imports_deepspeed_without_its_autotuner():
    """The autotuner's libraries take seconds of every worker's start. They can still be imported afterwards."""
    code = (
        "import sys; from biomechgpt.core import training_loop; training_loop._set_up_deepspeed();"
        "print([name for name in ('mlflow', 'xgboost', 'sklearn') if name in sys.modules]); import xgboost"
    )
    assert run_python(code).strip().splitlines()[-1] == "[]"


def test_readers_and_answering_need_neither_deepspeed_nor_mlflow():
    """They are imported where these two libraries are missing."""
    run_python(
        "import sys; sys.modules.update(deepspeed=None, mlflow=None); import biomechgpt.recordings.readers, "
        "biomechgpt.answering.answerer, biomechgpt.answering.bundle, biomechgpt.experiment.ask"
    )


@pytest.mark.parametrize(
    "path", sorted((ROOT / "benchmarks").rglob("*.py")), ids=lambda path: path.relative_to(ROOT).as_posix()
)
def test_what_a_benchmark_imports_exists(path):
    """Nothing else runs most of them, and mypy leaves them out."""
    imports = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
    for node in imports:
        if (node.module or "").split(".")[0] not in ("biomechgpt", "serve"):
            continue
        found = importlib.util.find_spec(node.module)
        assert found is not None, node.module
        source = Path(found.origin).read_text()
        for name in (alias.name for alias in node.names):
            is_module = (
                importlib.util.find_spec(f"{node.module}.{name}")
                if found.submodule_search_locations
                else None
            )
            assert is_module or re.search(rf"\b{name}\b", source), f"{node.module}: {name}"
