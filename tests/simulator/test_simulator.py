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
from scipy.spatial.transform import Rotation

from biomechgpt.cohort import CohortSettings
from biomechgpt.cohort.shortcuts import MEASURED, clues, find_shortcuts
from biomechgpt.core import settings
from biomechgpt.core.settings import InputError
from biomechgpt.motion import norms
from biomechgpt.motion.kinematics import LANDMARKS, points_m
from biomechgpt.motion.skeleton import HIGH_RAD, INDEX, LOW_RAD, mirror
from biomechgpt.simulator import COLUMNS, SimulatorSettings, participants, trials
from biomechgpt.simulator.exercises import EXERCISES
from biomechgpt.simulator.laboratory import LaboratorySettings, laboratory
from biomechgpt.simulator.movement import COLUMNS as TABLE
from biomechgpt.simulator.movement import CYCLE, excursion, foot_heights_m, path_m, typical
from biomechgpt.simulator.participants import body_of, measure_walk
from biomechgpt.simulator.protocol import PAPER, ProtocolSettings, enrol

pytestmark = pytest.mark.slow  # its people take longest to simulate of all that needs no Ray
CONFIGS = Path(__file__).parents[2] / "configs" / "cohort"
DEMO = settings.load(CohortSettings, CONFIGS / "demo.yaml").simulator
RATE = 30.0
TEXT = ("activity", "impaired", "diagnosis", "assistive_device", "falls_history")
MEASURES = ("walking_speed", "cadence", "tug_time", "fsst_time")
CLASSES = {"activity": 15, "impaired": 2, "diagnosis": 4, "assistive_device": 5, "falls_history": 2}


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


def activity_of(trial):
    """The frames of a trial's activity, without the time before and after it."""
    return slice(round(trial.latent["begin_s"] * RATE), round(trial.latent["end_s"] * RATE))


def whole(cohort):
    """Trials that are not cut to a few steps."""
    return [(p, t) for p, t in cohort if t.duration_s > 5]


def where(cohort, annotation):
    chosen = [t for _, t in cohort if t.annotations[annotation] is not None]
    return chosen, np.array([t.annotations[annotation] for t in chosen])


def walkway(cohort, condition="none"):
    return [(p, t) for p, t in whole(cohort) if t.latent["kind"] == "walkway" and p.condition == condition]


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
            assert len(found[side][task]) >= classes, (side, task)
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
    assert low > 40
    assert high < 82
    assert np.std(peaks) < 9  # published: 5 at one speed


@pytest.mark.parametrize(("size", "least", "most"), [(0.6, 48, 56), (1.0, 58, 66), (1.4, 64, 74)])
def test_longer_strides_come_from_the_hips_and_not_from_the_knees(size, least, most):
    body = typical(0.9)
    angles = body.stand + excursion(np.array(size), np.arange(CYCLE)) * (body.cycle - body.stand)
    assert least < -angles[:, TABLE.index("knee_angle_r")].min() < most
    hip = np.ptp(angles[:, TABLE.index("hip_flexion_r")])
    assert hip == pytest.approx(size * np.ptp(body.cycle[:, TABLE.index("hip_flexion_r")]))


def test_a_gait_that_begins_grows_evenly_in_all_joints():
    sizes = np.linspace(0, 0.5, 11)
    factors = excursion(sizes, np.full(len(sizes), 30))
    np.testing.assert_allclose(factors, np.outer(sizes / 0.5, factors[-1]))


def test_angles_are_within_the_skeletons_range(cohort):
    angles = np.concatenate([t.angles_rad for _, t in cohort])
    at_limit = (angles <= LOW_RAD + 1e-4) | (angles >= HIGH_RAD - 1e-4)
    assert at_limit.mean(0).max() < 6e-3  # deep squats and jumps, of which there are many, reach a limit
    speed = np.abs(np.concatenate([np.diff(t.angles_rad, axis=0) for _, t in cohort])) * RATE
    # Sprinters' knees turn by 150 degrees in a quarter of a second.
    assert np.degrees(np.percentile(speed, 99.9, axis=0)).max() < 1000


def feet_of(t):
    """Points (T, 2, 3, 3) of the feet as the trial's own body has them: side, heel, ball and toe, axis."""
    points = points_m(t.angles_rad, t.pelvis, height_m=t.latent["height_m"], ground="none").astype(float)
    parts = [[LANDMARKS.index(f"{part}_{side}") for part in ("heel", "ball", "toe")] for side in "rl"]
    return points[:, parts]


def test_recorded_feet_stand_still_on_the_ground(cohort):
    """With noise and in every laboratory, a foot that bears load neither slides nor sinks."""
    slides = []
    for _, t in walkway(cohort)[:20]:
        feet = feet_of(t)
        moved = (
            np.linalg.norm(np.diff(feet[..., [0, 2]], axis=0), axis=-1).reshape(len(feet) - 1, -1).min(1)
            * RATE
        )
        slides.append(np.median(moved[activity_of(t)]))
        assert abs(feet[..., 1].min(axis=(1, 2))).max() < 2e-3
    # m/s, where the body travels 20 times as fast
    assert np.median(slides) < 0.03
    assert max(slides) < 0.09


def test_the_pelvis_moves_forward_steadily(cohort):
    """In the walks of public recordings its speed has an SD of .07 to .13 within a stride. Noise adds to it."""
    uneven = []
    for _, t in walkway(cohort):
        if t.duration_s > 3:
            speed = np.linalg.norm(np.diff(t.pelvis[activity_of(t)][:, [0, 2]], axis=0), axis=1)
            uneven.append(speed.std() / speed.mean())
    assert 0.08 < np.median(uneven) < 0.2


def test_the_pelvis_sways_to_the_loaded_foot(people):
    """In the walks of public recordings by .006 to .024 m, farthest in rows 31 to 46 of the right foot's cycle."""
    for person in people[:40]:
        body = body_of(person, np.random.default_rng(person.number))
        path = path_m(body, 0.9)
        forward = path[-1] / np.linalg.norm(path[-1])
        right = (path @ [-forward[1], forward[0]])[:-1]
        wave = np.exp(2j * np.pi * np.arange(CYCLE) / CYCLE)
        swayed = 2 * (right * wave).mean()
        healthy = person.condition == "none"  # impaired people sway more
        assert 0.01 < abs(swayed) < (0.03 if healthy else 0.06), person.condition
        assert 25 < np.angle(swayed) / (2 * np.pi) * CYCLE % CYCLE < 45, person.condition


def test_both_feet_are_on_the_ground_in_double_support_and_toes_are_clear_in_swing(people):
    clearances = []
    for person in people[:40]:
        body = body_of(person, np.random.default_rng(person.number))
        heights = foot_heights_m(body)
        above = heights - heights[:, ::-1]
        for k in range(2):
            strike = np.roll(above[:, k], -50 * k)
            assert abs(strike[:4]).mean() < 0.02, person.condition
            if person.condition == "none":
                clearances.append(strike[72:90].min())
    # Toes of healthy adults clear the ground by 10 to 20 mm on average, those of some by half of it.
    assert min(clearances) > 0.003
    assert np.median(clearances) > 0.01


def test_the_pelvis_tilts_lists_and_rotates(cohort):
    ranges = []
    for _, t in walkway(cohort):
        turns = Rotation.from_quat(t.pelvis[activity_of(t), 3:], scalar_first=True).as_euler(
            "ZXY", degrees=True
        )
        ranges.append(np.ptp(gaussian_filter1d(turns, 2, axis=0), axis=0))
    tilt, list_, rotation = np.median(ranges, axis=0)
    assert 1 < tilt < 8
    assert 5 < list_ < 14
    assert 6 < rotation < 18


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
    walks, cadence = where(whole(cohort), "cadence")
    counted = []
    for t in walks:
        strides = np.concatenate([np.diff(swings(t, side)) for side in "rl"])
        counted.append(120 * RATE / np.median(strides))
    close = np.abs(np.array(counted) / cadence - 1) < 0.1
    assert close.mean() > 0.95
    assert np.corrcoef(np.array(counted)[close], cadence[close])[0, 1] > 0.97


def test_speed_is_the_speed_of_the_pelvis(cohort):
    """Speed is annotated over whole strides. Over a whole path it differs: less, the more strides there are."""
    walks, speed = where(cohort, "walking_speed")
    paths = [t.pelvis[activity_of(t)][:, [0, 2]] for t in walks]
    way = [np.hypot(*(path[-1] - path[0])) for path in paths]
    seconds = [(len(path) - 1) / RATE for path in paths]
    off = np.abs(np.divide(way, seconds) / speed - 1)
    assert np.median(off) < 0.03
    assert np.quantile(off[np.array(seconds) > 4], 0.95) < 0.06


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
        busy = np.flatnonzero(moving > 0.25 * np.median(moving[activity_of(t)]))
        seen.append((busy[-1] - busy[0]) / RATE)
    assert np.corrcoef(seen, time)[0, 1] > 0.95


def test_a_cut_off_test_has_no_time():
    how = SimulatorSettings(scale=0.05, longest_s=20)
    all_trials = [t for person in participants(how) for t in islice(trials(how, person, RATE), 8)]
    timed = [t for t in all_trials if t.latent["kind"] in ("TUG", "FSST")]
    times = {t.trial: t.annotations["tug_time"] or t.annotations["fsst_time"] for t in timed}
    cut = [t for t in timed if times[t.trial] is None]
    assert 0 < len(cut) < len(timed)
    assert all(len(t.angles_rad) == 20 * RATE for t in cut)
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
    how = SimulatorSettings(duration_range_s=(8, 10), test_range_s=(8, 10))
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


# People differ as people do

BETWEEN_PEOPLE = {
    "hip_flexion": (6.1, 6.5), "knee_angle": (5.0, 6.4), "ankle_angle": (3.6, 5.7), "hip_adduction": (2.6, 3.2),
    "hip_rotation": (7.0, 14.6), "pelvis_tilt": (4.8, 5.3), "pelvis_list": (1.7, 2.3),
    "pelvis_rotation": (2.4, 4.1),
    "lumbar_extension": (6.6, 9.2), "lumbar_bending": (2.6, 3.7), "arm_flex": (7.0, 8.7), "elbow_flex": (7.0, 9.0),
}  # fmt: skip
"""Smallest and largest published mean SD over the gait cycle: see `simulator.variation`. A tenth less is
allowed."""


@pytest.fixture(scope="module")
def bodies(paper):
    """{condition, and for the unimpaired under 65 years "healthy": their bodies, the affected side on the
    right}."""
    found = defaultdict(list)
    for person in paper:
        healthy = person.condition == "none" and person.age < 65 and person.device == "none"
        if healthy or person.condition != "none":
            body = body_of(person, np.random.default_rng([0, 1, person.number]))
            found["healthy" if healthy else person.condition].append(
                body if person.side == "r" else body.mirrored()
            )
    return found


def curves(bodies, name):
    """(bodies, CYCLE) degrees of a column."""
    return np.stack([body.cycle[:, TABLE.index(name)] for body in bodies])


@pytest.mark.parametrize("name", BETWEEN_PEOPLE)
def test_healthy_people_differ_as_published(bodies, name):
    spread = curves(bodies["healthy"], name if name in TABLE else f"{name}_r").std(0).mean()
    low, high = BETWEEN_PEOPLE[name]
    assert 0.9 * low < spread < 1.1 * high


@pytest.mark.parametrize(
    "name", ["hip_flexion", "hip_adduction", "hip_rotation", "knee_angle", "ankle_angle"]
)
def test_healthy_curves_have_the_shape_of_the_norm(bodies, name):
    """A smoother curve of the same range looks slower: a model then takes real walks for faster ones."""
    norm = norms.gait_band(f"{name}_r")[0][:-1]
    found = curves(bodies["healthy"], f"{name}_r").mean(axis=0)
    assert np.corrcoef(found, norm)[0, 1] > 0.9

    def roughness(curve):
        """Root mean square change along the cycle, relative to the curve's own SD."""
        return np.diff(curve, append=curve[:1]).std() / curve.std()

    assert roughness(found) == pytest.approx(roughness(norm), rel=0.2)


def test_neighbouring_joints_are_correlated(bodies):
    mean = {
        name: curves(bodies["healthy"], name).mean(1)
        for name in ("pelvis_tilt", "hip_flexion_r", "lumbar_extension")
    }
    assert np.corrcoef(mean["pelvis_tilt"], mean["hip_flexion_r"])[0, 1] < -0.6
    assert np.corrcoef(mean["pelvis_tilt"], mean["lumbar_extension"])[0, 1] < -0.5
    left = curves(bodies["healthy"], "knee_angle_l").mean(1)
    assert np.corrcoef(curves(bodies["healthy"], "knee_angle_r").mean(1), left)[0, 1] > 0.6


EFFECTS = [
    # condition, column, rows, extreme, published mean, allowed
    ("healthy", "knee_angle_r", slice(60, 85), "min", -62, 5),
    ("stroke", "knee_angle_r", slice(60, 85), "min", -43, 6),
    ("SCI", "knee_angle_r", slice(60, 85), "min", -50, 7),
    ("LLPU transfemoral", "knee_angle_r", slice(60, 85), "min", -60, 6),
    ("LLPU transfemoral", "knee_angle_r", slice(8, 20), "min", -4, 5),
    ("LLPU transtibial", "knee_angle_r", slice(8, 20), "min", -12, 5),
    ("healthy", "knee_angle_r", slice(8, 20), "min", -18, 4),
    ("healthy", "hip_flexion_r", slice(40, 60), "min", -18, 4),
    ("stroke", "hip_flexion_r", slice(40, 60), "min", -9, 5),
    ("SCI", "hip_flexion_r", slice(40, 60), "min", -8, 6),
]


@pytest.mark.parametrize(("condition", "column", "rows", "extreme", "published", "allowed"), EFFECTS)
def test_impairments_have_published_sizes(bodies, condition, column, rows, extreme, published, allowed):
    found = getattr(curves(bodies[condition], column)[:, rows], extreme)(axis=1)
    assert found.mean() == pytest.approx(published, abs=allowed)


def test_steps_vary_more_in_ataxia(cohort):
    """Coefficient of variation of stride time: below 3 % in healthy adults, larger after a brain injury."""
    variation = defaultdict(list)
    for p, t in whole(cohort):
        if t.latent["kind"] == "walkway":
            times = np.diff(swings(t, "r"))
            if len(times) > 5:
                variation[p.condition].append(np.std(times) / np.mean(times))
    assert np.median(variation["none"]) < 0.04
    assert np.median(variation["TBI"]) > 1.3 * np.median(variation["none"])


# Other movements


def test_exercises_are_named_and_look_like_themselves():
    how = SimulatorSettings(scale=0.3, exercises=0.9, short=0.0, laboratories={"variety": 0.3, "absent": 0})
    found = defaultdict(list)
    for person in participants(how):
        if person.condition == "none" and person.enrolment.activity:
            for t in islice(trials(how, person, RATE), 8):
                found[t.annotations["activity"]].append(t)
    assert set(EXERCISES) | {"treadmill walking"} <= set(found)

    def deepest(name, joint, share=0):
        return np.median(
            [
                np.degrees(np.percentile(t.angles_rad[activity_of(t), INDEX[joint]], share))
                for t in found[name]
            ]
        )

    assert -120 < deepest("squat", "knee_angle_r") < -80
    assert -140 < deepest("running", "knee_angle_r", 2) < -80
    assert -115 < deepest("jump", "knee_angle_r") < -70
    assert deepest("static pose", "knee_angle_r") > -25
    assert deepest("stairs up", "knee_angle_r", 2) < -75
    climbed = [t.pelvis[-1, 1] - t.pelvis[0, 1] for t in found["stairs up"]]
    assert np.median(climbed) > 1
    for t in found["treadmill walking"]:
        assert np.ptp(t.pelvis[:, 0]) < 3


def test_short_recordings_hold_one_to_a_few_steps(cohort):
    short = [t for _, t in cohort if t.duration_s < 4 and t.latent["kind"] == "walkway"]
    assert 0.4 < len(short) / len([t for _, t in cohort if t.latent["kind"] == "walkway"]) < 0.8
    assert all(t.duration_s > 0.9 for t in short)


# Laboratories


def test_laboratories_differ_and_one_is_the_same_each_time():
    settings = LaboratorySettings()
    first = [laboratory(settings, number) for number in range(settings.count)]
    again = laboratory(settings, settings.count)
    np.testing.assert_array_equal(first[0].zero, again.zero)
    assert np.std([one.zero[TABLE.index("hip_rotation_r")] for one in first]) > 1.5
    assert len({one.recorded.tobytes() for one in first}) > 2
    exact = laboratory(LaboratorySettings(variety=0, absent=0), 3)
    assert not exact.zero.any()
    assert exact.recorded.all()


def test_each_trial_can_come_from_a_laboratory_of_its_own(people):
    person = next(person for person in people if len(person.kinds) >= 6)

    def masks(each):
        where = {"each": each, "count": 100_000}
        settings = DEMO.model_copy(update={"laboratories": LaboratorySettings.model_validate(where)})
        return {t.joint_mask.tobytes() for t in islice(trials(settings, person, RATE), 6)}

    assert len(masks("participant")) == 1
    assert len(masks("trial")) > 1


def test_joints_that_a_laboratory_does_not_record_are_masked(cohort):
    masks = {t.joint_mask.tobytes(): t for _, t in cohort}
    assert len(masks) > 2
    for t in masks.values():
        assert not t.angles_rad[:, ~t.joint_mask].any()
        assert np.ptp(t.angles_rad[:, t.joint_mask], axis=0).min() > 0


# Nothing else tells a label


@pytest.fixture(scope="module")
def table(cohort):
    """How well each group of features tells each label."""
    columns = {name: COLUMNS[name] for name in (*TEXT, *MEASURES)}
    return find_shortcuts([clues(t, list(columns)) for _, t in cohort], columns)


def test_length_tells_little_of_a_time(table, cohort):
    for measure in ("tug_time", "fsst_time"):
        timed, seconds = where(cohort, measure)
        assert abs(np.corrcoef([t.duration_s for t in timed], seconds)[0, 1]) < 0.5


@pytest.mark.parametrize("label", [*TEXT, *MEASURES])
def test_no_shortcut_beats_gait_parameters(table, label, cohort):
    scores = dict(table[label])
    justified = max(scores.pop(MEASURED), scores.pop("most frequent", 0.0))
    # Scores vary by chance, the more so the fewer people have the label.
    people = {p.name for p, t in cohort if t.annotations[label] is not None}
    chance = max(0.06, len(people) ** -0.5)
    for name, score in scores.items():
        assert score < justified + chance, (name, score, justified)


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


@pytest.mark.parametrize("walked", [0.7, 1.3, 2.6, 5.9])
def test_the_speed_of_a_walk_does_not_depend_on_where_in_a_stride_it_was_recorded(walked):
    """The pelvis speeds up and slows down within each step, here by half."""
    frames = round(30 * walked)
    seen = []
    for begin in np.linspace(0, 0.5, 7):
        strides = begin + np.arange(frames) / 30
        place = np.zeros((frames, 7))
        place[:, 0] = 1.2 * strides + 0.6 * np.sin(4 * np.pi * strides) / (4 * np.pi)
        seen.append(measure_walk(strides, place, 30, np.random.default_rng(1))["walking_speed"])
    assert np.ptp(seen) < 0.02
    assert np.mean(seen) == pytest.approx(1.2, abs=0.03)


def test_a_walk_that_hardly_moves_has_no_speed():
    strides, forwards = np.linspace(0, 1, 31), np.zeros((31, 7))
    forwards[:, 0] = np.linspace(0, 0.8, 31)
    still = 0.03 * forwards
    (walk, stand) = (
        measure_walk(strides, place, 30, np.random.default_rng(0)) for place in (forwards, still)
    )
    assert walk["walking_speed"] == pytest.approx(0.8, rel=0.05)
    assert walk["cadence"] == stand["cadence"] == pytest.approx(120, rel=0.05)
    assert stand["walking_speed"] is None
