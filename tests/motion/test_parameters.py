"""Motion parameters: measured from the angles, written into descriptions and read back from them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from test_gait import RATE, walk

from biomechgpt.motion import norms
from biomechgpt.motion.parameters import (
    PARAMETERS,
    format_description,
    format_parameter,
    measure_parameters,
    mirror_parameters,
    normal_range,
    normal_range_source,
    parse_description,
)
from biomechgpt.motion.skeleton import INDEX, mirror

FEW = hypothesis_settings(max_examples=50, deadline=None)


@FEW
@given(st.floats(0.5, 1.1), st.floats(0.5, 1.2), st.integers(4, 12))
def test_parameters_of_a_walk_with_known_pace_and_size(stride_hz, size, seconds):
    found = measure_parameters(*walk(stride_hz, seconds, size), RATE)
    assert found["duration"] == pytest.approx(seconds, abs=1 / RATE)
    assert found["cadence"] == pytest.approx(120 * stride_hz, rel=0.02)
    assert found["symmetry"] > 0.95
    assert found["knee_r"] == pytest.approx(found["knee_l"], abs=2)
    assert found["knee_r"] == pytest.approx(
        size * measure_parameters(*walk(stride_hz, seconds), RATE)["knee_r"], rel=0.02
    )


def test_standing_has_no_cadence_and_an_unrecorded_joint_no_range():
    angles, pelvis = np.zeros((90, 34)), np.tile([0, 1.0, 0, 1, 0, 0, 0], (90, 1))
    mask = np.ones(34, dtype=bool)
    mask[INDEX["ankle_angle_r"]] = False
    found = measure_parameters(angles, pelvis, RATE, mask)
    assert [found[name] for name in ("cadence", "speed", "symmetry", "ankle_r")] == [None] * 4
    assert found["ankle_l"] == 0
    assert "cadence" not in format_description(found)


def test_mirrored_parameters_are_those_of_the_mirrored_movement():
    angles, pelvis = walk(lag=0.42)
    angles[:, INDEX["knee_angle_r"]] *= 0.5
    angles[:, INDEX["arm_flex_l"]] = 0.3 * np.sin(np.arange(len(angles)) / 5)
    one, other = (
        mirror_parameters(measure_parameters(angles, pelvis, RATE)),
        measure_parameters(mirror(angles), pelvis, RATE),
    )
    assert one["knee_l"] < one["knee_r"] / 1.5
    assert one == {name: pytest.approx(value, rel=1e-6) for name, value in other.items()}


known = st.dictionaries(st.sampled_from(list(PARAMETERS)), st.floats(0, 200))


@FEW
@given(known, st.permutations(list(PARAMETERS)))
def test_a_description_is_parsed_back_in_any_order(values, order):
    text = format_description(values, order)
    assert parse_description(text) == {
        name: float(f"{value:.{PARAMETERS[name].decimals}f}") for name, value in values.items()
    }
    assert text.count(",") == max(len(values) - 1, 0)


def test_nothing_is_parsed_from_other_words():
    assert parse_description("stroke") == parse_description("1.25 m/s") == parse_description("") == {}
    assert parse_description("right knee 58 deg, right knee 10 deg") == {"knee_r": 58.0}
    assert format_parameter("speed", 1.234) == "speed 1.23 m/s"


def test_a_published_walk_is_within_the_normal_range():
    found = measure_parameters(*walk(0.95, 8.0), RATE)
    for name in ("cadence", "hip_r", "knee_l", "ankle_r"):
        low, high = normal_range(name)
        assert low < found[name] < high
    assert normal_range("duration") is None


def test_a_normal_range_has_the_source_of_its_norm():
    for name in PARAMETERS:
        source = normal_range_source(name)
        assert (source is None) == (normal_range(name) is None)
    assert normal_range_source("speed") is norms.WALKING_SPEED
    assert normal_range_source("cadence") is norms.OBERG
    assert normal_range_source("knee_l") is norms.CURVES
