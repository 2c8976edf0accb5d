"""Quality control: every fault put into a clean movement is found and named, and clean ones are left alone."""

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import real_recordings
from biomechgpt import simulator
from biomechgpt.cohort import CohortSettings
from biomechgpt.core.settings import InputError
from biomechgpt.core.settings import load as load_settings
from biomechgpt.motion.kinematics import points_m
from biomechgpt.motion.skeleton import INDEX, N_JOINTS, NAMES, NECK, TRACKED
from biomechgpt.recordings import load, quality, readers
from biomechgpt.recordings.load import near_shoulders
from biomechgpt.recordings.quality import QualitySettings, find_duplicates, find_problems
from biomechgpt.recordings.readers import ReaderSettings, Recording
from conftest import ROOT
from opensim_files import mot, walk

DEFAULTS = QualitySettings()
CLEAN = readers.parse("walk.mot", mot(walk(4.0)).encode(), ReaderSettings())
LEGS = [name for name in NAMES if name.startswith(("hip", "knee", "ankle", "subtalar", "lumbar"))]


def changed(edit, recording: Recording = CLEAN) -> Recording:
    """The recording after `edit(angles)`, which changes a copy in place."""
    angles = recording.angles_rad.copy()
    edit(angles)
    return replace(recording, angles_rad=angles)


def only(frames) -> Recording:
    """Some frames of the clean recording."""
    known = CLEAN.time_s[frames], CLEAN.angles_rad[frames], CLEAN.pelvis[frames]
    return replace(CLEAN, **dict(zip(("time_s", "angles_rad", "pelvis"), known, strict=True)))


def kinds(recording: Recording, how: QualitySettings = DEFAULTS, **more) -> list[str]:
    return [problem.kind for problem in find_problems(recording, how, **more)]


@settings(max_examples=15, deadline=None)
@given(st.floats(30, 240), st.floats(0.5, 1.8), st.floats(0.2, 1.3), st.integers(0, 9))
def test_a_clean_movement_has_no_problem(rate_hz, stride_hz, size, seed):
    """At any rate, cadence and size of movement, with a camera's noise."""
    columns = walk(4.0, rate_hz)
    angles = readers.parse("walk.mot", mot(columns).encode(), ReaderSettings()).angles_rad
    noise = np.radians(1.5) * np.random.default_rng(seed).standard_normal(angles.shape)
    time_s = columns["time"] / stride_hz
    recording = replace(
        CLEAN,
        time_s=time_s,
        angles_rad=size * angles + noise,
        pelvis=np.tile(CLEAN.pelvis[:1], (len(time_s), 1)),
    )
    assert find_problems(recording, DEFAULTS) == []


def test_a_joint_that_was_not_recorded_is_not_judged():
    mask = CLEAN.joint_mask.copy()
    mask[INDEX["arm_rot_l"]] = False
    unseen = changed(
        lambda a: a.__setitem__((..., INDEX["arm_rot_l"]), np.nan), replace(CLEAN, joint_mask=mask)
    )
    assert find_problems(unseen, DEFAULTS) == []
    filled, said = quality.accept("a.mot", unseen, DEFAULTS)
    assert said is None
    assert np.isfinite(filled.angles_rad).all()


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(LEGS), st.integers(5, 390), st.integers(1, 3), st.sampled_from([-1, 1]))
def test_a_spike_is_named_with_its_joint_and_time(joint, frame, frames, sign):
    spiked = changed(lambda angles: _add(angles, frame, frames, joint, sign))
    problems = find_problems(spiked, DEFAULTS)
    (spike,) = [p for p in problems if p.kind == "spike"]
    assert (spike.joint, frame <= round(100 * spike.time_s) < frame + frames) == (joint, True)
    assert f"{joint} leaves its course by" in str(spike)
    assert "spike_deg is 40" in str(spike)


@pytest.mark.parametrize("frame", [0, 1, 398, 399])
def test_a_spike_at_an_end(frame):
    problems = find_problems(changed(lambda a: _add(a, frame, 1, "hip_rotation_l", 1)), DEFAULTS)
    (spike,) = [problem for problem in problems if problem.kind == "spike"]
    assert spike.joint == "hip_rotation_l"
    assert spike.time_s == pytest.approx(frame / 100)


def _add(angles, frame, frames, joint, sign):
    angles[frame : frame + frames, INDEX[joint]] += sign * np.radians(75)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from([name for name in NAMES if name not in NECK]), st.integers(1, 300), st.integers(1, 90))
def test_missing_values_are_a_gap_and_filled_only_where_asked(joint, frame, frames):
    holed = changed(lambda angles: angles[frame : frame + frames].__setitem__((..., INDEX[joint]), np.nan))
    (gap,) = find_problems(holed, DEFAULTS)
    assert (gap.kind, gap.joint) == ("gap", joint)
    assert gap.time_s == pytest.approx(frame / 100, abs=1e-6)
    assert gap.value == pytest.approx(frames / 100, abs=1e-6)
    assert "interpolate_gaps_s is 0" in str(gap)
    with pytest.raises(InputError, match=r"a\.mot: gap: "):
        load.prepare("a.mot", holed, DEFAULTS, 30.0)
    allowed = QualitySettings(interpolate_gaps_s=frames / 100)
    assert find_problems(holed, allowed) == []
    filled, said = quality.accept("a.mot", holed, allowed)
    assert said == f"1 gap interpolated, longest {frames / 100:.2f} s"
    assert np.isfinite(filled.angles_rad).all()
    known = np.isfinite(holed.angles_rad)
    np.testing.assert_array_equal(filled.angles_rad[known], holed.angles_rad[known])
    if frames <= 10:
        np.testing.assert_allclose(filled.angles_rad, CLEAN.angles_rad, atol=np.radians(3))
    with pytest.raises(InputError, match="gap"):
        quality.accept("a.mot", holed, QualitySettings(interpolate_gaps_s=frames / 100 - 0.005))


def test_what_is_missing_at_an_end_or_throughout_is_never_filled():
    generous = QualitySettings(interpolate_gaps_s=10)
    for where in (slice(0, 3), slice(397, 400), slice(None)):
        assert kinds(changed(lambda a, w=where: a.__setitem__((w, 4), np.nan)), generous) == ["gap"]


def test_a_jump_in_time_is_a_gap_too():
    keep = np.r_[0:150, 158:400]
    jump = only(keep)
    (gap,) = find_problems(jump, DEFAULTS)
    assert "every joint has no values from 1.50 to 1.58 s" in str(gap)
    angles, _, said = load.prepare("a.mot", jump, QualitySettings(interpolate_gaps_s=0.1), 30.0)
    assert said == "1 gap interpolated, longest 0.08 s"
    whole, _, nothing = load.prepare("a.mot", CLEAN, DEFAULTS, 30.0)
    assert nothing is None
    np.testing.assert_allclose(angles, whole, atol=np.radians(4))


def test_a_clock_that_rounds_loses_no_frames():
    time_s = np.round(np.arange(400) / 240, 3)
    assert find_problems(replace(CLEAN, time_s=time_s), DEFAULTS) == []


@settings(max_examples=25, deadline=None)
@given(st.sampled_from([n for n in NAMES if TRACKED[INDEX[n]] and "neck" not in n]), st.integers(20, 220))
def test_a_joint_that_sticks_is_frozen(joint, frame):
    frozen = changed(
        lambda a: a[frame : frame + 150].__setitem__((..., INDEX[joint]), a[frame, INDEX[joint]])
    )
    stops = CLEAN.angles_rad[:, INDEX[joint]]
    if np.isclose(CLEAN.angles_rad[frame, INDEX[joint]], [stops.min(), stops.max()], atol=1e-3).any():
        return  # where a model stops it
    (problem,) = [p for p in find_problems(frozen, DEFAULTS) if p.kind == "frozen"]
    assert (problem.joint, problem.time_s) == (joint, pytest.approx(frame / 100, abs=0.011))
    assert find_problems(frozen, QualitySettings(frozen_s=2)) == []


def test_frames_that_repeat_freeze_every_joint():
    (problem,) = find_problems(changed(lambda a: a[100:250].__setitem__(..., a[100])), DEFAULTS)
    assert "every joint keeps one value" in str(problem)


@pytest.mark.parametrize("value", [0.0, -0.3])
def test_a_locked_joint_and_a_model_s_stop_are_no_errors(value):
    def lock(angles):
        angles[:, INDEX["subtalar_angle_r"]] = value
        knee = angles[:, INDEX["knee_angle_l"]]
        knee[200:350] = knee.max()

    assert find_problems(changed(lock), DEFAULTS) == []


def test_impossible_angles_and_speeds():
    (angle,) = find_problems(changed(lambda a: a.__setitem__((..., INDEX["ankle_angle_l"]), 1.6)), DEFAULTS)
    assert "ankle_angle_l is 92 degrees at 0.00 s, expected -70 to 50 (range_margin_deg is 20)" in str(angle)
    stepped = changed(lambda a: a[200:].__setitem__((..., INDEX["hip_flexion_r"]), 1.6))
    (speed,) = find_problems(stepped, DEFAULTS)
    assert (speed.kind, speed.joint) == ("impossible speed", "hip_flexion_r")
    assert 1.95 < speed.time_s < 2.0


def test_an_arm_that_passes_its_singularity_is_no_spike():
    """Raised sideways through the horizontal, flexion and rotation turn half a circle within a frame."""
    angles = CLEAN.angles_rad.copy()
    raised = np.radians(np.linspace(0, 170, 400))
    over = raised > np.pi / 2
    flex, add, rot = (INDEX[f"arm_{part}_r"] for part in ("flex", "add", "rot"))
    angles[:, add] = np.where(over, raised - np.pi, -raised)
    angles[:, flex] = angles[:, rot] = np.where(over, np.pi, 0.0)
    assert find_problems(replace(CLEAN, angles_rad=angles), DEFAULTS) == []


def test_too_short():
    short = only(slice(30))
    (problem,) = find_problems(short, DEFAULTS)
    assert "expected at least 0.5 s (min_duration_s), found 30 frames over 0.29 s" in str(problem)
    assert find_problems(short, QualitySettings(min_duration_s=0.3)) == []


def test_a_declared_rate_must_be_the_times():
    assert kinds(CLEAN, declared_rate_hz=120.0) == ["rate mismatch"]
    assert kinds(CLEAN, declared_rate_hz=101.0) == []


def test_sides():
    copied = changed(lambda a: a.__setitem__((..., INDEX["hip_flexion_l"]), a[:, INDEX["hip_flexion_r"]]))
    assert "hip_flexion_l is a copy of hip_flexion_r" in str(find_problems(copied, DEFAULTS)[0])
    arms = [INDEX["arm_flex_r"], INDEX["arm_flex_l"]]
    swapped = changed(lambda a: a.__setitem__((..., arms), a[:, arms[::-1]]))
    assert kinds(swapped) == ["mislabelled side"]
    assert kinds(swapped, QualitySettings(max_side_correlation=1)) == []


def test_knees_on_the_other_side_than_their_hips():
    """A knee bends before its hip: with the sides of the knees, or of the hips, exchanged it bends after it."""
    time_s = CLEAN.time_s
    hips, knees = ([INDEX[f"{k}_{side}"] for side in "rl"] for k in ("hip_flexion", "knee_angle"))
    for early_deg in (70, 90, 110):
        early = float(np.radians(early_deg))

        def stride(angles, early=early):
            for k, start in enumerate((0, np.pi)):
                angles[:, hips[k]] = np.radians(10 + 20 * np.sin(2 * np.pi * time_s + start))
                angles[:, knees[k]] = np.radians(-30 - 25 * np.sin(2 * np.pi * time_s + start + early))

        walked = changed(stride)
        assert kinds(walked) == []
        for columns in (hips, knees):
            swapped = changed(lambda a, c=columns: a.__setitem__((..., c), a[:, c[::-1]]), walked)
            found = kinds(swapped)
            assert "mislabelled side" in found
            assert kinds(swapped, QualitySettings(max_side_correlation=1)) == []
        # Backwards the same strides run the other way, as in an item of the FGA.
        backwards = replace(walked, angles_rad=walked.angles_rad[::-1], pelvis=walked.pelvis[::-1])
        assert kinds(backwards) == []
        standing = replace(backwards, pelvis=np.tile(walked.pelvis[:1], (len(time_s), 1)))
        assert "mislabelled side" in kinds(standing)


def test_trials_that_follow_one_another():
    turned = np.radians([[15.0 + i % 9 for i in range(N_JOINTS)]])
    joined = changed(lambda a: a[200:].__iadd__(turned))
    assert "joined trials" in kinds(joined)
    pelvis = CLEAN.pelvis.copy()
    pelvis[200:, 0] -= 2.4
    (problem,) = find_problems(replace(CLEAN, pelvis=pelvis), DEFAULTS)
    assert (problem.kind, problem.time_s) == ("joined trials", pytest.approx(2.0))


def test_a_pelvis_in_another_unit_or_too_fast():
    for scale, unit in ((1000, "millimetres"), (100, "centimetres")):
        pelvis = CLEAN.pelvis * ([scale] * 3 + [1] * 4)
        problems = find_problems(replace(CLEAN, pelvis=pelvis), DEFAULTS)
        assert "wrong unit" in {problem.kind for problem in problems}
        assert unit in "; ".join(map(str, problems))
    pelvis = CLEAN.pelvis * ([12, 1, 1] + [1] * 4)
    (problem,) = find_problems(replace(CLEAN, pelvis=pelvis), DEFAULTS)
    assert "the pelvis moves at 15 m/s" in str(problem)
    assert kinds(replace(CLEAN, pelvis=pelvis), QualitySettings(max_pelvis_speed_m_s=20)) == []


def test_times_that_are_too_short():
    """A recording at 25 Hz whose times say 100 Hz: four strides a second."""
    longer = readers.parse("walk.mot", mot(walk(8.0)).encode(), ReaderSettings())
    faster = replace(longer, time_s=longer.time_s / 4)
    assert "wrong rate" in kinds(faster)
    assert "wrong rate" not in kinds(replace(CLEAN, time_s=CLEAN.time_s / 2))


def test_several_trials_in_one_text_are_named():
    text, rows = mot(walk()), mot(walk()).splitlines()[8:]
    for content, message in (
        (text + text, "a second header: several trials"),
        (text + "\n".join(rows), "time to increase.*several trials follow one another"),
    ):
        with pytest.raises(InputError, match=message):
            readers.parse("a.mot", content.encode(), ReaderSettings())


def test_the_same_content_is_a_duplicate_and_otherwise_annotated_nobody_s():
    contents = [("a", 1, ("x", "p")), ("b", 1, ("y", "p")), ("c", 2, ("z", "q")), ("d", 3, ("z", "r"))]
    assert find_duplicates(contents) == {
        "b": "duplicate: the same content as a",
        "c": "duplicate: the same content as d, annotated otherwise",
        "d": "duplicate: the same content as c, annotated otherwise",
    }


@pytest.mark.parametrize("which", ["default", "demo"])
def test_simulated_movements_are_clean(which):
    """Some 100 trials of every kind of person and activity; the demo's have laboratories and exercises too."""
    how = simulator.SimulatorSettings()
    if which == "demo":
        how = load_settings(CohortSettings, ROOT / "configs/cohort/demo.yaml").simulator
    how = how.model_copy(update={"scale": 0.1, "seed": 3})
    trials = 0
    for person in simulator.participants(how):
        for trial in islice(simulator.trials(how, person, 30.0), 6):
            time_s = np.arange(len(trial.angles_rad)) / 30
            recording = replace(CLEAN, time_s=time_s, angles_rad=trial.angles_rad, pelvis=trial.pelvis)
            assert find_problems(recording, DEFAULTS) == [], (person.condition, trial.annotations["activity"])
            trials += 1
    assert trials >= 100


@pytest.mark.parametrize("row", real_recordings.rows())
def test_real_recordings_are_clean(row):
    recording = readers.read(
        str(real_recordings.path_of(row["path"])), ReaderSettings(missing_joints="neutral")
    )
    assert find_problems(recording, DEFAULTS) == []


@pytest.mark.parametrize(
    "name",
    [
        "opensim/nimblephysics/HamnerMultipleTrials__run200_ik.mot",
        "opensim/addbiomechanics/walkingTS1.mot",
        "mujoco/02-constspeed_full_humanoid.npz",
    ],
)
def test_swapped_arms_are_found_in_real_movements(name):
    arms = [INDEX["arm_flex_r"], INDEX["arm_flex_l"]]
    recording = readers.read(str(real_recordings.path_of(name)), ReaderSettings())
    swapped = changed(lambda a: a.__setitem__((..., arms), a[:, arms[::-1]]), recording)
    if recording.time_s[-1] - recording.time_s[0] >= 1:
        assert kinds(swapped) == ["mislabelled side"]


@pytest.mark.parametrize(
    "name",
    [
        "opensim/nimblephysics/HamnerMultipleTrials__run200_ik.mot",
        "opensim/addbiomechanics/walkingTS1.mot",
        "opensim/opensim-core/subject_walk_armless_coordinates.mot",
    ],
)
def test_swapped_knees_are_found_in_real_movements(name):
    knees = [INDEX["knee_angle_r"], INDEX["knee_angle_l"]]
    recording = readers.read(str(real_recordings.path_of(name)), ReaderSettings())
    swapped = changed(lambda a: a.__setitem__((..., knees), a[:, knees[::-1]]), recording)
    assert kinds(swapped) == ["mislabelled side"]


def test_an_arm_that_came_down_the_other_way_round_hangs_again():
    angles = np.zeros((90, N_JOINTS), np.float32)
    for side in "rl":
        arm = [INDEX[f"{name}_{side}"] for name in ("arm_flex", "arm_add", "arm_rot")]
        angles[:, arm] = np.radians([10, -15, 5])
        angles[40:, arm] = np.radians([190, 195, 185])
    near = near_shoulders(angles, np.ones(N_JOINTS, bool), 30.0)
    right = [INDEX[f"{name}_r"] for name in ("arm_flex", "arm_add", "arm_rot")]
    np.testing.assert_allclose(np.degrees(near[:, right]), [[10, -15, 5]] * 90, atol=1e-3)
    upright = np.tile([0, 0, 0, 1.0, 0, 0, 0], (90, 1))
    np.testing.assert_allclose(points_m(near, upright), points_m(angles, upright), atol=1e-5)


def test_an_arm_raised_to_the_side_stays_so_and_a_shoulder_not_recorded_whole_is_left():
    angles = np.zeros((60, N_JOINTS), np.float32)
    angles[:, INDEX["arm_add_r"]] = np.radians(np.linspace(0, -150, 60))
    mask = np.ones(N_JOINTS, bool)
    np.testing.assert_allclose(near_shoulders(angles, mask, 30.0), angles, atol=1e-5)
    mask[INDEX["arm_rot_r"]] = False
    angles[:, INDEX["arm_flex_r"]] = np.radians(300)
    np.testing.assert_array_equal(near_shoulders(angles, mask, 30.0), angles)
