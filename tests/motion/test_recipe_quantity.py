"""The recipe "a measured quantity" of docs/extending.md, carried out: one entry in a copy of the package."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from test_gait import RATE, walk

from conftest import ROOT

REGISTRY = "QUANTITIES: dict[str, Quantity] = {\n"
USE = """
import json, sys
import numpy as np
from biomechgpt.motion.quantities import measure, measure_all, movement
arrays = np.load(sys.argv[1])
walk = movement(arrays["angles"], arrays["pelvis"], float(arrays["rate"]))
standing = movement(0 * arrays["angles"], arrays["pelvis"], float(arrays["rate"]))
print(json.dumps([
    {m.part: m.value for m in measure("swing_time", walk)},
    [m.reason for m in measure("swing_time", standing)],
    list(measure_all(walk)),
]))
"""


def test_a_measured_quantity_is_one_entry(tmp_path):
    package = tmp_path / "platform" / "biomechgpt"
    shutil.copytree(ROOT / "platform" / "biomechgpt", package, ignore=shutil.ignore_patterns("__pycache__"))
    module = package / "motion" / "quantities.py"
    text = module.read_text()
    recipe = (ROOT / "docs/extending.md").read_text().split("## A measured quantity\n")[1].split("\n## ")[0]
    (block,) = re.findall(r"```python\n(.*?) *```", recipe, flags=re.DOTALL)
    entry = "".join(line.removeprefix("   ") for line in block.splitlines(keepends=True))
    assert REGISTRY in text
    module.write_text(text.replace(REGISTRY, REGISTRY + entry))
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
    swing, reasons, names = json.loads(result.stdout)
    assert swing["right"] == pytest.approx(0.38 / 0.9, abs=0.06)
    assert swing["left"] == pytest.approx(swing["right"], abs=0.03)
    assert reasons == ["the recording shows no steady walk"] * 2
    assert "swing_time" in names
