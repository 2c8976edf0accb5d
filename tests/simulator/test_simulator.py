"""The simulator: people move plausibly, measures follow from the movement, and nothing else tells a label."""

from collections import defaultdict
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter1d
from scipy.signal import find_peaks

from biomechgpt.cohort import CohortSettings
from biomechgpt.core import settings
from biomechgpt.core.settings import InputError
from biomechgpt.motion import norms
from biomechgpt.motion.kinematics import LANDMARKS, points_m
from biomechgpt.motion.skeleton import HIGH_RAD, INDEX, LOW_RAD, mirror
from biomechgpt.simulator import COLUMNS, SimulatorSettings, participants, trials
from biomechgpt.simulator.protocol import PAPER, ProtocolSettings, enrol

pytestmark = pytest.mark.slow  # its people take longest to simulate of all that needs no Ray
CONFIGS = Path(__file__).parents[2] / "configs" / "cohort"
DEMO = settings.load(CohortSettings, CONFIGS / "demo.yaml").simulator
RATE = 30.0
TEXT = ("activity", "impaired", "diagnosis", "assistive_device", "falls_history")
MEASURES = ("walking_speed", "cadence", "tug_time", "fsst_time")
CLASSES = {"activity": 8, "impaired": 2, "diagnosis": 4, "assistive_device": 5, "falls_history": 2}


@pytest.fixture(scope="module")
def people():
    return participants(DEMO)


@pytest.fixture(scope="module")
def cohort(people):
    """(person, trial) of the demo, the first six trials of each person."""
    return [(person, t) for person in people for t in islice(trials(DEMO, person, RATE), 6)]


@pytest.fixture(scope="module")
def paper():
    """The people of the paper-scale study; what they do is counted without playing it."""
    return participants(SimulatorSettings())


def knee_flexion(trial, side, smooth=2.0):
    return gaussian_filter1d(-np.degrees(trial.angles_rad[:, INDEX[f"knee_angle_{side}"]]), smooth)


def swings(trial, side):
    """Frames of the peaks of swing, one a stride; the smaller peak of stance is not prominent enough."""
    flexion = knee_flexion(trial, side)
    return find_peaks(flexion, distance=0.6 * RATE, prominence=0.5 * np.ptp(flexion))[0]


def where(cohort, annotation):
    chosen = [t for _, t in cohort if t.annotations[annotation] is not None]
    return chosen, np.array([t.annotations[annotation] for t in chosen])


def walkway(cohort, condition="none"):
    return [(p, t) for p, t in cohort if t.latent["kind"] == "walkway" and p.condition == condition]


# Who is in the study


def counted(people, side):
    """{annotation: (participants, trials)} of a side of the split, from the kinds of trial alone."""
    found = {name: (set(), []) for name in (*TEXT, "walking_speed", "tug_time", "fsst_time")}
    measure = {"walkway": "walking_speed", "TUG": "tug_time", "FSST": "fsst_time"}
    for p in people:
        if p.split != side:
            continue
        known = [name for name in TEXT[1:] if p.traits()[name] is not None]
        for kind in p.kinds:
            here = [*known, *(["activity"] if p.enrolment.activity else [])]
            if kind in measure:
                here.append(measure[kind])
            for name in here:
                found[name][0].add(p.name)
                found[name][1].append(kind)
    return {name: (len(who), len(what)) for name, (who, what) in found.items()}


@pytest.mark.parametrize("side", ["train", "test"])
def test_the_paper_s_table_of_samples_is_met_within_5_percent(paper, side):
    found = counted(paper, side)
    for name, wanted in PAPER[side]:
        assert found[name] == pytest.approx(wanted, rel=0.05), name
    assert len(paper) == 467


def test_the_paper_s_classes_are_all_tested(paper):
    for name, classes in CLASSES.items():
        if name != "activity":
            seen = {p.traits()[name] for p in paper if p.split == "test"} - {None}
            assert len(seen) == classes, name


@given(st.floats(0.02, 1.5), st.integers(0, 99))
@hypothesis_settings(max_examples=25, deadline=None)
def test_any_scale_of_the_study_keeps_its_counts(scale, seed):
    wanted = ProtocolSettings().scaled(scale)
    enrolled = enrol(wanted, np.random.default_rng(seed))
    for side in ("train", "test"):
        mine = [e for e in enrolled if e.split == side]
        assert sum(e.activity for e in mine) == getattr(wanted, side).activity[0]
        assert all(e.count >= 1 for e in mine)
        for kind, name in (("walkway", "walking_speed"), ("TUG", "tug_time"), ("FSST", "fsst_time")):
            counts = [e.trials[kind] for e in mine if e.trials[kind]]
            assert (len(counts), sum(counts)) == getattr(getattr(wanted, side), name)


def test_an_impossible_study_is_refused():
    wrong = PAPER["test"].model_dump() | {"diagnosis": (60, 300)}
    with pytest.raises(InputError, match=r"protocol\.test: .*diagnosis of no more participants"):
        settings.validate(CohortSettings, {"simulator": {"protocol": {"test": wrong}}}, "here")


def test_every_task_has_both_sides_of_its_split(cohort):
    found = {side: defaultdict(lambda: defaultdict(set)) for side in ("train", "test")}
    for p, t in cohort:
        for name, value in t.annotations.items():
            if value is not None:
                found[p.split][name][value].add(p.name)
    for side in ("train", "test"):
        for task, classes in CLASSES.items():
            assert len(found[side][task]) == classes, (side, task)
        for task in MEASURES:
            assert len({name for who in found[side][task].values() for name in who}) >= 15
    assert all(len(who) >= 2 for who in found["test"]["falls_history"].values())
    assert all(p.condition.startswith("LLPU") for p, t in cohort if t.annotations["falls_history"])


# How they move


def test_knees_of_unimpaired_participants_bend_as_published(cohort):
    walks = [t for _, t in walkway(cohort)]
    peaks = [np.median(knee_flexion(t, side, 0.5)[swings(t, side)]) for t in walks for side in "rl"]
    assert 52 < np.median(peaks) < 67  # textbook: about 60 degrees
    low, high = np.percentile(peaks, [2, 98])
    assert low > 30
    assert high < 85


def test_angles_are_within_the_skeletons_range(cohort):
    angles = np.concatenate([t.angles_rad for _, t in cohort])
    at_limit = (angles <= LOW_RAD + 1e-4) | (angles >= HIGH_RAD - 1e-4)
    assert at_limit.mean(0).max() < 2e-3
    speed = np.abs(np.concatenate([np.diff(t.angles_rad, axis=0) for _, t in cohort])) * RATE
    assert np.degrees(np.percentile(speed, 99.9, axis=0)).max() < 700


def test_stance_feet_do_not_slide():
    """One of the feet always stays where it is while the pelvis travels on."""
    how = SimulatorSettings(scale=0.1, noise_deg=0)
    balls = [LANDMARKS.index("ball_r"), LANDMARKS.index("ball_l")]
    walkers = [p for p in participants(how) if "walkway" in p.kinds]
    for person in walkers[:8]:
        t = next(t for t in trials(how, person, RATE) if t.latent["kind"] == "walkway")
        points = points_m(t.angles_rad, t.pelvis, ground="none")[:, balls].astype(float)
        moved = np.linalg.norm(np.diff(points[..., [0, 2]], axis=0), axis=2).min(axis=1) * RATE
        assert np.median(moved) < 0.2 * t.annotations["walking_speed"]


def test_affected_side_is_mirrored(people):
    """A stroke's stiff knee is on the affected side, whichever that is."""
    for side in "rl":
        signs = []
        for person in people:
            if person.condition == "stroke" and person.side == side and person.severity > 0.5:
                for t in islice(trials(DEMO, person, RATE), 6):
                    if t.annotations["activity"] == "overground walking":
                        angles = t.angles_rad if side == "r" else mirror(t.angles_rad)
                        signs.append(np.ptp(angles[:, 3]) < np.ptp(angles[:, 10]))
        assert np.mean(signs) > 0.8


# What is measured follows from how they move


def test_cadence_follows_from_the_knees(cohort):
    walks, cadence = where(cohort, "cadence")
    counted = []
    for t in walks:
        strides = np.concatenate([np.diff(swings(t, side)) for side in "rl"])
        counted.append(120 * RATE / np.median(strides))
    close = np.abs(np.array(counted) / cadence - 1) < 0.1
    assert close.mean() > 0.95
    assert np.corrcoef(np.array(counted)[close], cadence[close])[0, 1] > 0.97


def test_speed_is_the_speed_of_the_pelvis(cohort):
    walks, speed = where(cohort, "walking_speed")
    way = [np.hypot(*(t.pelvis[-1, [0, 2]] - t.pelvis[0, [0, 2]])) for t in walks]
    seconds = [(len(t.pelvis) - 1) / RATE for t in walks]
    np.testing.assert_allclose(np.divide(way, seconds), speed, rtol=0.05)


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


def test_a_tug_is_3_metres_there_and_back(cohort):
    far = []
    for t, _ in zip(*where(cohort, "tug_time"), strict=True):
        away = np.linalg.norm(t.pelvis[:, [0, 2]] - t.pelvis[0, [0, 2]], axis=1)
        far.append(away.max())
    assert 2.7 < np.median(far) < 3.6
    assert np.percentile(far, 5) > 2.2


def test_fsst_time_follows_from_the_steps(cohort):
    tests, time = where(cohort, "fsst_time")
    seen = []
    for t in tests:
        legs = t.angles_rad[:, [INDEX[f"{j}_{s}"] for j in ("hip_flexion", "knee_angle") for s in "rl"]]
        moving = np.abs(np.gradient(gaussian_filter1d(legs, 3, axis=0), axis=0)).sum(1)
        busy = np.flatnonzero(moving > 0.25 * np.median(moving))
        seen.append((busy[-1] - busy[0]) / RATE)
    assert np.corrcoef(seen, time)[0, 1] > 0.95


def test_a_cut_off_test_has_no_time():
    how = SimulatorSettings(scale=0.05, longest_s=12)
    all_trials = [t for person in participants(how) for t in islice(trials(how, person, RATE), 8)]
    timed = [t for t in all_trials if t.latent["kind"] in ("TUG", "FSST")]
    times = {t.trial: t.annotations["tug_time"] or t.annotations["fsst_time"] for t in timed}
    cut = [t for t in timed if times[t.trial] is None]
    assert 0 < len(cut) < len(timed)
    assert all(len(t.angles_rad) == 12 * RATE for t in cut)
    assert all((times[t.trial] or 0) <= len(t.angles_rad) / RATE for t in timed)


# Published norms


def healthy(cohort, old):
    return [(p, t) for p, t in cohort
            if p.condition == "none" and p.frail == 0 and p.device == "none" and (p.age >= 65) == old]  # fmt: skip


def assert_ratio(pairs, measure, norm, within):
    """The mean of simulated over published is 1, within this much and what so few people may be off by.

    Each participant counts once.
    """
    by_person = defaultdict(list)
    for p, t in pairs:
        if t.annotations[measure] is not None:
            by_person[p.name].append(t.annotations[measure] / norm(p).mean)
    assert len(by_person) >= 8
    ratios = [np.mean(values) for values in by_person.values()]
    error = 2 * np.std(ratios) / len(ratios) ** 0.5
    assert np.mean(ratios) == pytest.approx(1, abs=within + error), measure


@pytest.mark.parametrize("old", [False, True])
def test_speeds_and_times_of_the_unimpaired_are_as_published(cohort, old):
    people = healthy(cohort, old)
    assert_ratio(people, "walking_speed", lambda p: norms.walking_speed_m_s(p.age, p.sex), 0.08)
    assert_ratio(people, "cadence", lambda p: norms.cadence_steps_min(p.age, p.sex), 0.05)
    assert_ratio(people, "tug_time", lambda p: norms.tug_s(p.age), 0.13)
    assert_ratio(people, "fsst_time", lambda p: norms.fsst_s(p.age), 0.13)
    # Oberg's people, whose steps the norm is, walked 10 % slower than Bohannon's, whose speed it is. Of those
    # past 80 he has none.
    steps = [
        60
        * t.annotations["walking_speed"]
        / t.annotations["cadence"]
        / norms.step_length_m(p.age, p.sex).mean
        for p, t in people
        if t.annotations["cadence"] and p.age < 80
    ]
    assert np.mean(steps) == pytest.approx(1.1, abs=0.12)


@pytest.mark.parametrize("condition", norms.GROUPS)
def test_impaired_groups_are_as_slow_as_published(paper, condition):
    """Means of participants, within 15 % and what so few of them may be off by."""
    how = SimulatorSettings(duration_range_s=(8, 10))
    for kind, measure in (("walkway", "walking_speed"), ("TUG", "tug_time")):
        if measure not in norms.GROUPS[condition]:
            continue
        found = []
        for person in [p for p in paper if p.condition == condition and kind in p.kinds]:
            trial = next(t for t in trials(how, person, RATE) if t.latent["kind"] == kind)
            found.append(trial.annotations[measure])
        published = norms.GROUPS[condition][measure].mean
        error = 2 * np.std(found) / len(found) ** 0.5
        assert np.mean(found) == pytest.approx(published, abs=0.15 * published + error), measure


# Nothing else tells a label


def test_duration_and_noise_do_not_depend_on_labels(cohort):
    """Only how somebody moves may: not how long a walk was recorded, nor how well."""
    walks = [(p, t) for p, t in cohort if t.latent["kind"] == "walkway"]
    impaired = np.array([p.condition != "none" for p, _ in walks])
    frames = np.array([len(t.angles_rad) for _, t in walks])
    assert abs(np.corrcoef(frames, impaired)[0, 1]) < 0.1
    still = INDEX["arm_rot_r"]  # in a gait table it does not move: what is left is noise
    noise = np.array([np.std(t.angles_rad[:, still]) for _, t in walks])
    assert abs(np.corrcoef(noise, impaired)[0, 1]) < 0.12


def test_names_and_order_do_not_depend_on_labels(cohort, people):
    names = [t.trial for _, t in cohort]
    assert len(set(names)) == len(names)
    for order in (np.argsort([p.name for p in people]), np.arange(len(people))):
        impaired = np.array([p.condition != "none" for p in people])[order]
        assert abs(np.corrcoef(np.arange(len(order)), impaired)[0, 1]) < 0.2
    assert all(set(t.annotations) == set(COLUMNS) for _, t in cohort)


def test_latent_traits_are_not_in_the_rows_of_a_cohort(cohort):
    _, t = cohort[0]
    assert {"severity", "unsteady", "condition"} <= set(t.latent)
    assert not set(t.latent) & set(t.row())


def test_a_participant_does_not_depend_on_the_others(people, cohort):
    person = people[17]
    mine = [t for p, t in cohort if p is person]
    assert mine
    for one, again in zip(mine, trials(DEMO, person, RATE), strict=False):
        assert one.trial == again.trial
        np.testing.assert_array_equal(one.angles_rad, again.angles_rad)
