"""The recipe "a measured quantity" of docs/extending.md, carried out: one entry in a copy of the package."""

import pytest
from registry_recipe import carry_out

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
    swing, reasons, names = carry_out(tmp_path, "A measured quantity", "quantities.py", REGISTRY, USE)
    assert swing["right"] == pytest.approx(0.38 / 0.9, abs=0.06)
    assert swing["left"] == pytest.approx(swing["right"], abs=0.03)
    assert reasons == ["the recording shows no steady walk"] * 2
    assert "swing_time" in names
