"""The recipe "a motion parameter" of docs/extending.md, carried out: one entry in a copy of the package."""

import pytest
from registry_recipe import carry_out
from test_gait import RATE, walk

from biomechgpt.motion import parameters

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


def test_a_motion_parameter_is_one_entry(tmp_path):
    values, mirrored, standing, stated, description = carry_out(
        tmp_path, "A motion parameter", "parameters.py", REGISTRY, USE
    )
    assert values["stance_r"] == pytest.approx(62, abs=5)
    assert (mirrored["stance_l"], mirrored["stance_r"]) == (values["stance_r"], values["stance_l"])
    assert standing["stance_r"] is None
    assert stated["stance_r"] == round(values["stance_r"])
    assert f"right stance {values['stance_r']:.0f} %" in description
    before = parameters.measure_parameters(*walk(), RATE)
    assert {name: values[name] for name in before} == before
