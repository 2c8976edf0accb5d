"""Carries out a recipe of docs/extending.md for a registry of `biomechgpt.motion`, in a copy of the package."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from test_gait import RATE, walk

from conftest import ROOT


def carry_out(folder: Path, heading: str, module: str, registry: str, use: str) -> Any:
    """What the script `use` prints, as JSON, with the recipe's entry in a registry. Its argument is a walk's file.

    heading: of the recipe. module: file in the package `motion`. registry: the line that opens it.
    """
    package = folder / "platform" / "biomechgpt"
    shutil.copytree(ROOT / "platform" / "biomechgpt", package, ignore=shutil.ignore_patterns("__pycache__"))
    path = package / "motion" / module
    text = path.read_text()
    assert registry in text
    path.write_text(text.replace(registry, registry + _entry(heading)))
    angles, pelvis = walk()
    np.savez(folder / "walk.npz", angles=angles, pelvis=pelvis, rate=RATE)
    result = subprocess.run(
        [sys.executable, "-c", use, str(folder / "walk.npz")],
        env={"PYTHONPATH": str(package.parent), "PATH": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def _entry(heading: str) -> str:
    """The code block of the recipe, without the indentation of the list it stands in."""
    recipe = (ROOT / "docs/extending.md").read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    (block,) = re.findall(r"```python\n(.*?) *```", recipe, flags=re.DOTALL)
    return "".join(line.removeprefix("   ") for line in block.splitlines(keepends=True))
