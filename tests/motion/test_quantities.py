"""Measured quantities: against the simulator's truth, on real recordings, and where there is nothing to measure."""

import numpy as np
import pytest
import simulated
from scipy.spatial.transform import Rotation
from test_gait import RATE, walk

import real_recordings
from biomechgpt.motion import norms, quantities
from biomechgpt.motion.quantities import QUANTITIES, Person, measure, measure_all, movement
from biomechgpt.motion.resampling import resample
from biomechgpt.motion.skeleton import INDEX, N_JOINTS, mirror
from biomechgpt.recordings import readers


def value(name, of, part=""):
    (found,) = [m for m in measure(name, of) if m.part == part]
    return found


def of_trial(trial, frames=slice(None)):
    return movement(trial.angles_rad[frames], trial.pelvis[frames], simulated.RATE)


def of_file(path):
    settings = readers.ReaderSettings(missing_joints="neutral")
    recording = readers.read(str(real_recordings.path_of(path)), settings)
    angles, pelvis = resample(recording.time_s, recording.angles_rad, recording.pelvis, RATE)
    return movement(angles, pelvis, RATE, recording.joint_mask)


def moving(stride_hz=0.9, seconds=8.0, **options):
    """The published gait (`test_gait.walk`) over the ground at the speed of its legs."""
    angles, pelvis = walk(stride_hz, seconds, **options)
    pelvis = pelvis.astype(float)
    speed = value("speed", movement(angles, pelvis, RATE)).value
    pelvis[:, 0] = speed * np.arange(len(pelvis)) / RATE
    return angles, pelvis, speed


def test_speed_and_cadence_of_simulated_walks_agree_with_the_truth():
    """Of walks of at least two steps: shorter ones are in the next test."""
    differences = []
    for trial in simulated.annotated("walking_speed"):
        speed, cadence = (value(name, of_trial(trial)) for name in ("speed", "cadence"))
        if speed.n < 2:
            assert len(trial.angles_rad) < 2 * simulated.RATE
            continue
        assert speed.value == pytest.approx(trial.annotations["walking_speed"], rel=0.08)
        # The truth is that of the whole walk; three steps of an unsteady person may be quicker.
        assert cadence.value == pytest.approx(trial.annotations["cadence"], rel=0.04 if speed.n > 3 else 0.06)
        differences.append(speed.value - trial.annotations["walking_speed"])
        assert 0 <= speed.begin_s < speed.end_s <= len(trial.angles_rad) / simulated.RATE
    assert len(differences) >= 8
    assert abs(np.mean(differences)) < 0.03
    assert np.std(differences) < 0.05


@pytest.mark.parametrize("seconds", [1.2, 1.4, 1.6])
def test_short_walks_are_measured_from_one_or_two_steps(seconds):
    """Windows of simulated walks, as long as a laboratory trial.

    Of nine in ten of those measured, cadence is within 15 % of the whole walk's, and speed within 22 % of the speed
    at which the pelvis went in this window. That may differ from the whole walk's by half in unsteady people.
    """
    frames, errors, missing = round(seconds * simulated.RATE), [], 0
    for trial in simulated.annotated("walking_speed"):
        # Before and after the walk people stand; then they are getting up to speed.
        begin, end = (round(trial.latent[name] * simulated.RATE) for name in ("begin_s", "end_s"))
        begin, end = begin + round(simulated.RATE), end - round(simulated.RATE)
        for start in range(begin, end - frames, frames):
            short = of_trial(trial, slice(start, start + frames))
            speed, cadence = value("speed", short), value("cadence", short)
            if speed.value is None:
                missing += 1
                assert speed.reason
                continue
            assert 1 <= speed.n <= 3
            way_m = np.linalg.norm(np.subtract(*short.pelvis[[-1, 0]][:, [0, 2]].astype(float)))
            errors.append((
                speed.value * (frames - 1) / simulated.RATE / way_m - 1,
                cadence.value / trial.annotations["cadence"] - 1,
            ))  # fmt: skip
    assert len(errors) > 20
    assert missing <= 0.15 * (missing + len(errors))
    assert (np.percentile(np.abs(errors), 90, axis=0) < (0.26, 0.15)).all()
    assert (np.abs(np.mean(errors, axis=0)) < 0.07).all()


def test_times_of_simulated_clinical_tests_agree_with_the_truth():
    for column, largest_s, mean_s in (("tug_time", 1.5, 0.75), ("fsst_time", 0.6, 0.4)):
        tests = simulated.annotated(column)
        assert len(tests) >= 5
        errors = [value(column, of_trial(t)).value - t.annotations[column] for t in tests]
        assert np.abs(errors).max() < largest_s
        assert np.abs(errors).mean() < mean_s


def test_step_and_stride_lengths_belong_to_speed_and_cadence():
    for trial in simulated.annotated("walking_speed")[:6]:
        of = of_trial(trial)
        stride = 120 * value("speed", of).value / value("cadence", of).value
        assert value("stride_length", of).value == pytest.approx(stride, rel=1e-6)
        steps = [value("step_length", of, part).value for part in ("right", "left")]
        assert sum(steps) == pytest.approx(stride, rel=1e-6)


def test_a_recording_without_a_test_says_why():
    for trial in simulated.of_activity("overground walking"):
        of = of_trial(trial)
        for name in ("tug_time", "tug_phases", "fsst_time", "fsst_phases", "sit_to_stand_time"):
            (found,) = measure(name, of)
            assert found.value is None, (trial.trial, name)
            assert found.reason
    for trial in simulated.of_activity("FSST", "sitting", "standing", "TUG"):
        of, activity = of_trial(trial), trial.annotations["activity"]
        if activity != "TUG":
            assert value("speed", of).value is None, activity
            assert measure("step_length", of)[0].reason == quantities.NO_WALK
        if activity != "FSST":
            assert value("fsst_time", of).value is None, activity
        if activity == "TUG":
            assert value("speed", of).n >= 2  # the walk there and back


def test_every_quantity_names_its_unit_and_either_a_value_or_a_reason():
    recordings = [of_trial(trial) for trial in simulated.trials()[::6]]
    still = np.zeros((60, N_JOINTS)), np.tile([0.0, 1, 0, 1, 0, 0, 0], (60, 1))
    recordings += [movement(*still, RATE), movement(still[0][:1], still[1][:1], RATE)]
    for of in recordings:
        for name, found in measure_all(of).items():
            assert found
            assert len({m.part for m in found}) == len(found)
            for m in found:
                assert m.unit == QUANTITIES[name].unit
                assert (m.value is None) == bool(m.reason)
                assert m.value is None or (np.isfinite(m.value) and 0 <= m.begin_s <= m.end_s)
                assert m.n is None or (m.n >= 1 and m.events)
                assert (m.norm is None) == (not m.norm_of)


@pytest.mark.parametrize("stride_hz", [0.7, 1.0])
def test_knees_and_stance_of_the_published_gait_are_those_published(stride_hz):
    angles, pelvis, _ = moving(stride_hz)
    of = movement(angles, pelvis, RATE)
    mean, _ = norms.gait_band("knee_angle_r")
    for part in ("right", "left"):
        peak, contact = (
            value(name, of, part) for name in ("peak_knee_flexion_swing", "knee_extension_contact")
        )
        assert peak.value == pytest.approx(-mean.min(), abs=2)
        assert contact.value == pytest.approx(-mean[0], abs=6)
        assert peak.norm.mean == pytest.approx(peak.value, abs=3)
        assert value("stance_share", of, part).value == pytest.approx(62, abs=5)
        assert value("knee_range", of, part).value == pytest.approx(np.ptp(mean), abs=3)
    assert value("step_time_symmetry", of).value > 0.95


def test_the_values_of_a_mirrored_walk_change_sides():
    angles, pelvis, _ = moving(lag=0.44)
    angles[:, INDEX["knee_angle_r"]] *= 0.6
    of, other = movement(angles, pelvis, RATE), movement(mirror(angles), pelvis, RATE)
    for name in ("peak_knee_flexion_swing", "knee_range", "step_length", "stance_share"):
        for part, opposite in (("right", "left"), ("left", "right")):
            assert value(name, of, part).value == pytest.approx(value(name, other, opposite).value, rel=1e-3)
    assert value("peak_knee_flexion_swing", of, "right").value < 45


def test_the_trunk_leans_to_the_side_and_as_far_as_it_is_turned():
    angles, pelvis, _ = moving()
    angles[:, INDEX["lumbar_extension"]] = np.radians(-10)
    angles[:, INDEX["lumbar_bending"]] = np.radians(5)
    for turned in (0.0, 1.2):
        placed = pelvis.copy()
        placed[:, 3:] = [np.cos(turned / 2), 0, np.sin(turned / 2), 0]
        of = movement(angles, placed, RATE)
        assert value("trunk_lean", of, "forward, mean").value == pytest.approx(10, abs=0.5)
        assert value("trunk_lean", of, "to the right, mean").value == pytest.approx(5, abs=0.5)
        assert "not recorded" in value("trunk_lean", of, "forward, mean").note


@pytest.mark.parametrize("side", ["r", "l"])
def test_the_pelvis_drops_on_the_side_of_the_swinging_leg(side):
    angles, pelvis, _ = moving()
    walked = quantities.find_walk(angles, pelvis, RATE)
    # About X, the right side goes down: lower the left one by 8 degrees while the right leg stands, or the reverse.
    list_deg = np.zeros(len(angles))
    for begin, end in quantities._single_stances(walked, side):
        list_deg[int(begin) : int(end) + 1] = -8 if side == "r" else 8
    pelvis[:, 3:] = Rotation.from_euler("X", list_deg[:, None], degrees=True).as_quat(scalar_first=True)
    of = movement(angles, pelvis, RATE)
    named, other = ("right", "left") if side == "r" else ("left", "right")
    assert value("pelvic_drop", of, f"{named} stance").value == pytest.approx(8, abs=0.5)
    assert value("pelvic_drop", of, f"{other} stance").value < 8.5
    upright = movement(*moving()[:2], RATE)
    assert "not recorded" in measure("pelvic_drop", upright)[0].reason


def test_norms_are_those_of_age_and_sex():
    angles, pelvis, _ = moving()
    woman = movement(angles, pelvis, RATE, person=Person(72, "female"))
    assert value("speed", woman).norm == norms.walking_speed_m_s(72, "female")
    assert value("speed", woman).norm_of == "healthy women of 72 years"
    nobody = value("cadence", movement(angles, pelvis, RATE))
    assert nobody.norm == norms.cadence_steps_min(50, "")
    assert "age not known" in nobody.norm_of
    assert value("stride_length", woman).norm is None


def test_what_was_not_recorded_is_not_measured():
    angles, pelvis, speed = moving()
    mask = np.ones(N_JOINTS, dtype=bool)
    mask[[INDEX["knee_angle_r"], INDEX["lumbar_bending"], INDEX["arm_flex_l"]]] = False
    of = movement(angles, pelvis, RATE, mask)
    for name, part in (
        ("knee_range", "right"),
        ("peak_knee_flexion_swing", "right"),
        ("shoulder_range", "left"),
    ):
        assert value(name, of, part).value is None
        assert "not recorded" in value(name, of, part).reason
    assert measure("trunk_lean", of)[0].value is None
    assert value("knee_range", of, "left").value is not None
    treadmill = pelvis.copy()
    treadmill[:, 0] = 0
    on_treadmill = value("speed", movement(angles, treadmill, RATE))
    assert on_treadmill.value == pytest.approx(speed, rel=0.05)
    assert "1.70 m" in on_treadmill.note


@pytest.mark.parametrize("row", real_recordings.rows("overground walking"))
def test_real_walks_are_measured_however_short(row):
    of = of_file(row["path"])
    speed, cadence = value("speed", of), value("cadence", of)
    assert 0.8 < speed.value < 1.5
    assert 80 < cadence.value < 125
    assert speed.n >= 1
    assert speed.n <= max(2, of.duration_s * 2.2)
    peaks = [m.value for m in measure("peak_knee_flexion_swing", of) if m.value is not None]
    assert peaks
    assert all(45 < peak < 85 for peak in peaks)
    assert value("tug_time", of).value is None


@pytest.mark.parametrize("row", [*real_recordings.rows("squat"), *real_recordings.rows("jump")])
def test_real_squats_and_jumps_are_no_walk_and_no_rising_from_a_chair(row):
    of = of_file(row["path"])
    for name in ("speed", "cadence", "tug_time", "fsst_time", "sit_to_stand_time"):
        assert all(m.value is None and m.reason for m in measure(name, of))


@pytest.mark.parametrize("row", real_recordings.rows("sit to stand"))
def test_real_rises_from_a_chair_are_counted_and_timed(row):
    of = of_file(row["path"])
    for part in ("standing up", "sitting down"):
        found = value("sit_to_stand_time", of, part)
        assert found.n == 5
        assert 0.6 < found.value < 2.5
    assert value("speed", of).value is None


def test_a_walk_with_trunk_sway_has_a_larger_range_from_side_to_side():
    usual, sway = (
        value("trunk_lean", of_file(f"opensim/addbiomechanics/{name}.mot"), "from side to side, range").value
        for name in ("walking1", "walkingTS1")
    )
    assert sway > usual + 10
