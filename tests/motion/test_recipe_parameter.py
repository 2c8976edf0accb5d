"""The recipe "a motion parameter" of docs/extending.md, carried out: one entry in a copy of the package."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from test_gait import RATE, walk

from biomechgpt.motion import parameters
from conftest import ROOT

REGISTRY = "PARAMETERS: dict[str, MotionParameter] = {\n"
USE = """
import json, sys
import numpy as np
from biomechgpt.motion.parameters import (
    format_description, measure_parameters, mirror_parameters, parse_description
)
movements = np.load(sys.argv[1])
values = measure_parameters(movements["angles"], movements["pelvis"], float(movements["rate"]))
standing = measure_parameters(0 * movements["angles"], movements["pelvis"], float(movements["rate"]))
description = format_description(values)
print(json.dumps([values, mirror_parameters(values), standing, parse_description(description), description]))
"""


def entry() -> str:
    """The code block of the recipe, without the indentation of the list it stands in."""
    recipe = (ROOT / "docs/extending.md").read_text().split("## A motion parameter\n")[1].split("\n## ")[0]
    (block,) = re.findall(r"```python\n(.*?) *```", recipe, flags=re.DOTALL)
    return "".join(line.removeprefix("   ") for line in block.splitlines(keepends=True))


def test_a_motion_parameter_is_one_entry(tmp_path):
    package = tmp_path / "platform" / "biomechgpt"
    shutil.copytree(ROOT / "platform" / "biomechgpt", package, ignore=shutil.ignore_patterns("__pycache__"))
    module = package / "motion" / "parameters.py"
    text = module.read_text()
    assert REGISTRY in text
    module.write_text(text.replace(REGISTRY, REGISTRY + entry()))
    angles, pelvis = walk()
    np.savez(tmp_path / "walk.npz", angles=angles, pelvis=pelvis, rate=RATE)
    result = subprocess.run(
        [sys.executable, "-c", USE, str(tmp_path / "walk.npz")],
        env={"PYTHONPATH": str(package.parent), "PATH": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    values, mirrored, standing, stated, description = json.loads(result.stdout)
    assert values["stance_r"] == pytest.approx(62, abs=5)
    assert (mirrored["stance_l"], mirrored["stance_r"]) == (values["stance_r"], values["stance_l"])
    assert standing["stance_r"] is None
    assert stated["stance_r"] == round(values["stance_r"])
    assert f"right stance {values['stance_r']:.0f} %" in description
    before = parameters.measure_parameters(angles, pelvis, RATE)
    assert {name: values[name] for name in before} == before
