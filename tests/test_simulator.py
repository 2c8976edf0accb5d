"""The simulator: people move plausibly, measures follow from the movement, and nothing else tells a label."""

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d
from scipy.signal import find_peaks

from biomechgpt import settings
from biomechgpt.cohort import CohortSettings
from biomechgpt.cohort.simulator import COLUMNS, SimulatorSettings, participants, trials
from biomechgpt.cohort.splits import assign
from biomechgpt.skeleton import HIGH_RAD, INDEX, LOW_RAD, TRACKED, mirror

DEMO = settings.load(CohortSettings, Path(__file__).parent.parent / "configs" / "cohort" / "demo.yaml")
RATE = 30.0
CLASSES = {"activity": 6, "impaired": 2, "diagnosis": 4, "assistive_device": 5, "falls_history": 2}


@pytest.fixture(scope="module")
def people():
    return participants(DEMO.simulator)


@pytest.fixture(scope="module")
def cohort(people):
    """(person, trial) of the whole demo."""
    return [(person, t) for person in people for t in trials(DEMO.simulator, person, RATE)]


def knee_flexion(trial, side, smooth=2.0):
    return gaussian_filter1d(-np.degrees(trial.angles_rad[:, INDEX[f"knee_angle_{side}"]]), smooth)


def swings(trial, side):
    """Frames of the peaks of swing, one a stride; the smaller peak of stance is not prominent enough."""
    flexion = knee_flexion(trial, side)
    return find_peaks(flexion, distance=0.6 * RATE, prominence=0.5 * np.ptp(flexion))[0]


def where(cohort, annotation):
    chosen = [t for _, t in cohort if t.annotations[annotation] is not None]
    return chosen, np.array([t.annotations[annotation] for t in chosen])


def test_unimpaired_knees_bend_as_knees_do(cohort):
    walks = [t for p, t in cohort if t.annotations["activity"] == "overground walking" and p.group == "none"]
    peaks = [np.median(knee_flexion(t, side, 0.5)[swings(t, side)]) for t in walks for side in "rl"]
    assert 55 < np.median(peaks) < 67  # textbook: about 60 degrees
    low, high = np.percentile(peaks, [2, 98])
    assert low > 40
    assert high < 80


def test_angles_are_possible_and_untracked_ones_are_zero(cohort):
    angles = np.concatenate([t.angles_rad for _, t in cohort])
    assert not angles[:, ~TRACKED].any()
    at_limit = (angles <= LOW_RAD + 1e-4) | (angles >= HIGH_RAD - 1e-4)
    assert at_limit.mean(0).max() < 1e-3


def test_cadence_follows_from_the_knees(cohort):
    walks, cadence = where(cohort, "cadence")
    counted = []
    for t in walks:
        strides = np.concatenate([np.diff(swings(t, side)) for side in "rl"])
        counted.append(120 * RATE / np.median(strides))
    assert np.corrcoef(counted, cadence)[0, 1] > 0.95
    assert abs(np.median(counted / cadence) - 1) < 0.02


def test_speed_follows_from_legs_and_cadence(cohort):
    walks, speed = where(cohort, "walking_speed")
    seen = []
    for t in walks:
        hip, knee = (
            {s: t.angles_rad[:, INDEX[f"{j}_{s}"]] for s in "rl"} for j in ("hip_flexion", "knee_angle")
        )
        foot = {s: 0.46 * np.sin(hip[s]) + 0.54 * np.sin(hip[s] + knee[s]) for s in "rl"}
        seen.append(np.std(foot["r"] - foot["l"]) * t.annotations["cadence"])
    assert np.corrcoef(seen, speed)[0, 1] > 0.9


def test_tug_time_follows_from_leaving_and_reaching_the_chair(cohort):
    tests, time = where(cohort, "tug_time")
    seen = []
    for t in tests:
        hips = gaussian_filter1d(t.angles_rad[:, [INDEX["hip_flexion_r"], INDEX["hip_flexion_l"]]].mean(1), 4)
        knees = gaussian_filter1d(t.angles_rad[:, [INDEX["knee_angle_r"], INDEX["knee_angle_l"]]].mean(1), 4)
        seated = hips - knees
        up = np.flatnonzero(seated < 0.75 * seated.max())
        seen.append((up[-1] - up[0]) / RATE)
    assert np.corrcoef(seen, time)[0, 1] > 0.95


def test_fsst_time_follows_from_the_steps(cohort):
    tests, time = where(cohort, "fsst_time")
    seen = []
    for t in tests:
        legs = t.angles_rad[:, [INDEX[f"{j}_{s}"] for j in ("hip_flexion", "knee_angle") for s in "rl"]]
        moving = np.abs(np.gradient(gaussian_filter1d(legs, 3, axis=0), axis=0)).sum(1)
        busy = np.flatnonzero(moving > 0.25 * np.median(moving))
        seen.append((busy[-1] - busy[0]) / RATE)
    assert np.corrcoef(seen, time)[0, 1] > 0.95


def test_every_task_has_both_sides_of_its_split(people, cohort):
    split = assign({p.name: p.labels() for p in people}, DEMO.splits)
    found = {side: defaultdict(lambda: defaultdict(set)) for side in ("train", "validation", "test")}
    for p, t in cohort:
        for name, value in t.annotations.items():
            if value is not None:
                found[split[p.name]][name][value].add(p.name)
    for side in ("train", "test"):
        for task, classes in CLASSES.items():
            assert len(found[side][task]) == classes, (side, task)
        for task in ("walking_speed", "cadence", "tug_time", "fsst_time"):
            assert len({name for who in found[side][task].values() for name in who}) >= 15
    assert all(len(who) >= 2 for who in found["test"]["falls_history"].values())
    assert {value for t in found.values() for value in t["falls_history"]} == {"yes", "no"}
    assert all(p.group == "LLPU" for p in people if p.falls is not None)


def test_length_of_a_walk_and_size_of_noise_tell_nothing(cohort):
    """Only how somebody moves may: not how long a walk was recorded, nor how well."""
    walks = [(p, t) for p, t in cohort if t.annotations["activity"] == "overground walking"]
    impaired = np.array([p.group != "none" for p, _ in walks])
    frames = np.array([len(t.angles_rad) for _, t in walks])
    assert abs(np.corrcoef(frames, impaired)[0, 1]) < 0.1
    still = INDEX["arm_rot_r"]  # in a gait table it does not move: what is left is noise
    noise = np.array([np.std(t.angles_rad[:, still]) for _, t in walks])
    assert abs(np.corrcoef(noise, impaired)[0, 1]) < 0.1
    lasts = np.array([len(t.angles_rad) for _, t in cohort if t.annotations["activity"] == "sitting"])
    assert lasts.max() < 13.1 * RATE


def test_names_tell_nothing_and_are_unique(cohort):
    names = [t.trial for _, t in cohort]
    assert len(set(names)) == len(names) == 250 * 12
    people = {p.name: p for p, _ in cohort}
    order = np.argsort(list(people))
    impaired = np.array([p.group != "none" for p in people.values()])[order]
    assert abs(np.corrcoef(np.arange(len(order)), impaired)[0, 1]) < 0.2
    assert all(set(t.annotations) == set(COLUMNS) for _, t in cohort)


def test_a_test_whose_end_is_cut_off_has_no_time():
    how = SimulatorSettings(participants=30, trials_per_participant=10, longest_s=12)
    all_trials = [t for person in participants(how) for t in trials(how, person, RATE)]
    timed = [t for t in all_trials if t.annotations["activity"] in ("TUG", "FSST")]
    cut = [t for t in timed if len(t.angles_rad) == 12 * RATE]
    assert 0 < len(cut) < len(timed)
    assert all(t.annotations["tug_time"] is None and t.annotations["fsst_time"] is None for t in cut)
    for t in timed:
        time = t.annotations["tug_time"] or t.annotations["fsst_time"] or 0.0
        assert time <= len(t.angles_rad) / RATE


def test_a_person_is_the_same_alone(people, cohort):
    person = people[17]
    mine = [t for p, t in cohort if p is person]
    for one, again in zip(mine, trials(DEMO.simulator, person, RATE), strict=True):
        assert one.trial == again.trial
        np.testing.assert_array_equal(one.angles_rad, again.angles_rad)


def test_affected_side_is_mirrored(people):
    """A stroke's stiff knee is on the affected side, whichever that is."""
    for side in "rl":
        signs = []
        for person in people:
            if person.group == "stroke" and person.side == side and person.severity > 0.5:
                for t in trials(DEMO.simulator, person, RATE):
                    if t.annotations["activity"] == "overground walking":
                        angles = t.angles_rad if side == "r" else mirror(t.angles_rad)
                        signs.append(np.ptp(angles[:, 3]) < np.ptp(angles[:, 10]))
        assert np.mean(signs) > 0.8
