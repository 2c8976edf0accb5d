"""Gait measures: of walks whose cadence and speed are known, simulated ones and real ones."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import real_recordings
from biomechgpt import simulator
from biomechgpt.cohort import CohortSettings
from biomechgpt.core import settings
from biomechgpt.motion import gait, norms
from biomechgpt.motion.resampling import resample
from biomechgpt.motion.skeleton import INDEX, mirror
from biomechgpt.recordings import readers

CONFIGS = Path(__file__).parents[2] / "configs" / "cohort"
RATE = 30.0


def walk(stride_hz=0.9, seconds=8.0, size=1.0, phase=0.3, lag=0.5, heading=0.0):
    """The published gait at this pace, on the spot: angles (T, 34) in radians and pelvis (T, 7).

    lag: how much of a stride the left foot strikes after the right.
    """
    strides = phase + stride_hz * np.arange(round(seconds * RATE)) / RATE
    angles = np.zeros((len(strides), 34))
    for name in ("hip_flexion", "knee_angle", "ankle_angle"):
        for side, late in (("r", 0.0), ("l", lag)):
            mean, _ = norms.gait_band(f"{name}_{side}")
            at = 100 * ((strides - late) % 1)
            angles[:, INDEX[f"{name}_{side}"]] = size * np.radians(np.interp(at, np.arange(101), mean))
    pelvis = np.tile([0, 1, 0, np.cos(heading / 2), 0, np.sin(heading / 2), 0], (len(angles), 1))
    return angles, pelvis


@hypothesis_settings(max_examples=40, deadline=None)
@given(st.floats(0.4, 1.2), st.floats(0.35, 1.2), st.floats(0, 1), st.floats(-3, 3))
def test_cadence_is_two_steps_per_stride_at_any_rate_size_and_heading(stride_hz, size, phase, heading):
    found = gait.measure(*walk(stride_hz, 8.0, size, phase, heading=heading), RATE)
    assert found.cadence_steps_min == pytest.approx(120 * stride_hz, rel=0.02)
    assert found.step_time_symmetry > 0.95
    assert found.step_length_m[0] == pytest.approx(found.step_length_m[1], abs=0.03)
    assert not found.overground


def test_heel_strike_is_at_the_start_of_the_published_cycle():
    angles, pelvis = walk()
    strikes = gait.events(angles, pelvis, RATE).heel_strikes["r"]
    at = (0.3 + 0.9 * strikes / RATE + 0.5) % 1 - 0.5
    assert np.abs(at).max() < 0.06
    assert gait.measure(angles, pelvis, RATE).stance_fraction == pytest.approx((0.62, 0.62), abs=0.05)
    curves = gait.own_cycles(angles, gait.measure(angles, pelvis, RATE))
    for name in ("hip_flexion_r", "knee_angle_l", "ankle_angle_l"):
        mean, sd = norms.gait_band(name)
        assert curves[name].shape[1:] == mean.shape
        assert np.sqrt(np.mean((np.degrees(curves[name].mean(0)) - mean) ** 2)) < sd.mean()


def test_partial_strides_of_a_short_recording_make_one_cycle():
    angles, pelvis = walk(seconds=1.45)
    found = gait.measure(angles, pelvis, RATE)
    assert not any(found.events.strides(side) for side in gait.SIDES)
    assert found.cadence_steps_min == pytest.approx(108, rel=0.05)
    curves = np.degrees(gait.own_cycles(angles, found)["knee_angle_l"])
    assert curves.shape == (1, 101)
    assert np.abs(curves[0] - norms.gait_band("knee_angle_l")[0]).mean() < 5
    half = gait.measure(angles[:20], pelvis[:20], RATE)
    assert gait.own_cycles(angles[:20], half)["knee_angle_l"].shape == (0, 101)


def test_a_mirrored_walk_has_the_parameters_of_the_other_side():
    angles, pelvis = walk(lag=0.42)
    left, right = gait.measure(angles, pelvis, RATE), gait.measure(mirror(angles), pelvis, RATE)
    assert left.step_time_symmetry == pytest.approx(0.42 / 0.58, abs=0.04)
    assert right.step_time_symmetry == pytest.approx(left.step_time_symmetry)
    assert right.step_length_m == pytest.approx(left.step_length_m[::-1])


@pytest.mark.parametrize("heading", [0.0, 2.0])
def test_speed_by_the_legs_equals_speed_by_the_pelvis(heading):
    angles, pelvis = walk(heading=heading)
    treadmill = gait.measure(angles, pelvis, RATE)
    gone = treadmill.speed_legs_m_s * np.arange(len(pelvis)) / RATE
    pelvis[:, [0, 2]] = gone[:, None] * [np.cos(heading), -np.sin(heading)]
    ground = gait.measure(angles, pelvis, RATE)
    assert ground.overground
    assert not treadmill.overground
    assert treadmill.speed_pelvis_m_s == 0
    assert ground.speed_pelvis_m_s == pytest.approx(treadmill.speed_m_s)
    assert ground.speed_legs_m_s == pytest.approx(treadmill.speed_legs_m_s)
    steps = sum(ground.step_length_m) / 2 * ground.cadence_steps_min / 60
    assert ground.speed_m_s == pytest.approx(steps, rel=0.2)  # a step is where the heel lands
    taller = gait.measure(angles, walk(heading=heading)[1], RATE, height_m=1.87)
    assert taller.speed_m_s == pytest.approx(1.1 * treadmill.speed_m_s, rel=1e-2)


def test_standing_and_squatting_are_not_walking():
    still = np.zeros((90, 34)), np.tile([0, 0, 0, 1.0, 0, 0, 0], (90, 1))
    squat = still[0].copy()
    down = np.sin(np.arange(90) / 10)[:, None] ** 2
    squat[:, [INDEX["hip_flexion_r"], INDEX["hip_flexion_l"]]] = 1.5 * down
    squat[:, [INDEX["knee_angle_r"], INDEX["knee_angle_l"]]] = -1.8 * down
    for angles in (still[0], squat):
        found = gait.measure(angles, still[1], RATE)
        assert found.steps == 0
        assert np.isnan(found.cadence_steps_min)
        assert all(np.isnan(found.step_length_m))
    for frames in (1, 2, 5):
        assert gait.measure(squat[:frames], still[1][:frames], RATE).steps == 0


def test_gait_of_simulated_walkways_agrees_with_their_annotations():
    how = settings.load(CohortSettings, CONFIGS / "tiny.yaml").simulator
    rows = []
    for person in simulator.participants(how):
        for t in simulator.trials(how, person, RATE):
            if t.annotations.get("walking_speed") is not None:
                found = gait.measure(t.angles_rad, t.pelvis, RATE)
                known = t.annotations["cadence"], t.annotations["walking_speed"]
                rows.append((*known, found.cadence_steps_min, found.speed_pelvis_m_s, found.speed_legs_m_s))
    values = np.array(rows, dtype=float)
    # A fifth of the recordings hold one to a few steps. Of one step no cadence is measured.
    measured = np.isfinite(values).all(axis=1)
    assert measured.mean() > 0.75
    cadence, speed, found_cadence, by_pelvis, by_legs = values[measured].T
    assert measured.sum() > 20
    assert np.corrcoef(cadence, found_cadence)[0, 1] > 0.97
    assert abs(np.mean(found_cadence - cadence)) < 1
    assert np.corrcoef(speed, by_pelvis)[0, 1] > 0.95
    assert abs(np.mean(by_pelvis - speed)) < 0.05
    assert np.corrcoef(speed, by_legs)[0, 1] > 0.9  # of people whose height it does not know
    assert abs(np.mean(by_legs - speed)) < 0.1


@pytest.mark.parametrize("row", real_recordings.rows("overground walking"))
def test_gait_of_real_walks_is_plausible(row):
    settings = readers.ReaderSettings(missing_joints="neutral")
    recording = readers.read(str(real_recordings.path_of(row["path"])), settings)
    angles, pelvis = resample(recording.time_s, recording.angles_rad, recording.pelvis, RATE)
    found = gait.measure(angles, pelvis, RATE)
    assert 80 < found.cadence_steps_min < 125
    assert 0.8 < found.speed_m_s < 1.5
    if found.overground:
        assert found.speed_legs_m_s == pytest.approx(found.speed_pelvis_m_s, rel=0.2)
