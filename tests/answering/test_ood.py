"""The check for out-of-distribution movements, on made-up statistics and on simulated people. No Ray, no torch."""

import importlib

import numpy as np
import pytest

from biomechgpt.answering.ood import (
    MIN_PARTICIPANTS,
    CheckedMovements,
    ReferenceMovements,
    fit_ood,
    leave_one_out_distances,
    reference_rows,
    worst,
)
from biomechgpt.motion.features import N_FEATURES, kinematic_features
from biomechgpt.motion.skeleton import HIGH_RAD, INDEX, LOW_RAD, N_JOINTS
from biomechgpt.motion.statistics import MovementStatistics, measure_statistics

simulator = importlib.import_module("biomechgpt.simulator.participants")
RATE_HZ = 30.0


def drawn(rng, people, trials, shift=0.0):
    """Movements whose three statistics differ between people and between trials."""
    who = [f"p{i}" for i in range(people) for _ in range(trials)]
    person = np.repeat(rng.normal(size=people), trials)

    def values():
        return person + rng.normal(size=people * trials) + shift

    columns = {"distance": values(), "rmse_deg": values(), "log_likelihood": -values()}
    return CheckedMovements(who, columns, np.full(len(who), 10.0))


def statistics(movements, i):
    return MovementStatistics(
        10.0, 5, distance=movements.values["distance"][i], rmse_deg=movements.values["rmse_deg"][i]
    )


def share_refused(check, movements):
    judged = [
        check.judge(statistics(movements, i), movements.values["log_likelihood"][i]).unlike
        for i in range(len(movements.participants))
    ]
    return float(np.mean(judged))


@pytest.mark.parametrize(("people", "most"), [(5, 1 / 6), (20, 1 / 21), (60, 0.03)])
def test_new_participants_are_refused_no_more_often_than_promised(people, most):
    refused = []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        check = fit_ood(drawn(rng, 40, 3), drawn(rng, people, 3))
        assert (check.participants, check.fitted_on) == (people, "validation")
        refused.append(share_refused(check, drawn(rng, 30, 3)))
    # Two standard errors of the mean are left for chance.
    assert np.mean(refused) <= most + 2 * np.std(refused) / np.sqrt(len(refused))


def test_with_few_validation_participants_the_training_participants_decide_and_it_is_said():
    rng = np.random.default_rng(0)
    check = fit_ood(drawn(rng, 40, 3), drawn(rng, MIN_PARTICIPANTS - 1, 3))
    assert (check.participants, check.fitted_on) == (40, "training")
    assert share_refused(check, drawn(rng, 30, 3)) < 0.05
    assert share_refused(check, drawn(rng, 30, 3, shift=20)) == 1
    judged = check.judge(MovementStatistics(10.0, 5, distance=99.0), None)
    assert (judged.checked, judged.unlike, judged.participants, judged.fitted_on) == (
        True,
        True,
        40,
        "training",
    )


def test_without_participants_nothing_is_checked():
    nobody = CheckedMovements([], {}, np.empty(0))
    assert fit_ood(nobody, nobody) is None


def test_each_statistic_refuses_alone_and_is_named_with_its_usual_range():
    rng = np.random.default_rng(1)
    check = fit_ood(drawn(rng, 40, 3), drawn(rng, 20, 3))
    usual = MovementStatistics(10.0, 5, distance=0.0, rmse_deg=0.0)
    assert not check.judge(usual, 0.0).unlike
    for name, likelihood, words in (
        ("distance", 0.0, "distance"),
        ("rmse_deg", 0.0, "reconstruction error"),
        (None, -99.0, "log-likelihood"),
    ):
        changed = MovementStatistics(
            10.0, 5, **({"distance": 0.0, "rmse_deg": 0.0} | ({name: 99.0} if name else {}))
        )
        judged = check.judge(changed, likelihood)
        assert judged.unlike
        assert words in judged.quantity
        assert abs(judged.value) == 99
        low, high = judged.usual
        assert not low <= judged.value <= high


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"duration_s": 1.4}, "duration"),
        ({"duration_s": 60.0}, "duration"),
        ({"legs_recorded": False}, "legs"),
    ],
)
def test_a_recording_of_another_length_or_without_legs_is_unlike(changed, words):
    rng = np.random.default_rng(2)
    check = fit_ood(drawn(rng, 40, 3), drawn(rng, 20, 3))
    fields = {"duration_s": 10.0, "steps": 5, "distance": 0.0, "rmse_deg": 0.0}
    judged = check.judge(MovementStatistics(**(fields | changed)), 0.0)
    assert judged.unlike
    assert words in judged.quantity


def test_a_movement_of_which_only_tokens_are_known_is_not_checked():
    rng = np.random.default_rng(3)
    check = fit_ood(drawn(rng, 40, 3), drawn(rng, 20, 3))
    judged = check.judge(None, -99.0)
    assert (judged.checked, judged.unlike) == (False, False)
    assert worst([check.judge(statistics(drawn(rng, 1, 1), 0), None), judged]) == judged


def test_references_come_evenly_from_all_participants(monkeypatch):
    monkeypatch.setattr("biomechgpt.answering.ood.MAX_REFERENCES", 4)
    assert list(reference_rows(["a", "a", "a", "b", "c", "c"])) == [0, 1, 3, 4]


def test_the_distance_of_a_training_movement_is_to_other_people():
    features = np.zeros((4, N_FEATURES))
    features[2:] = 3.0
    distances = leave_one_out_distances(features, ["a", "a", "b", "b"])
    assert np.allclose(distances, distances[0])
    assert distances[0] > 1
    assert ReferenceMovements.of(features, ["a", "a", "b", "b"]).distance(features[0]) < distances[0]


def test_joints_that_were_not_recorded_do_not_count():
    rng = np.random.default_rng(4)
    reference = ReferenceMovements.of(rng.normal(size=(30, N_FEATURES)), [f"p{i}" for i in range(30)])
    angles, mask = np.zeros((30, N_JOINTS)), np.ones(N_JOINTS, dtype=bool)
    mask[20:] = False
    features = kinematic_features(angles, RATE_HZ, mask)
    assert np.isnan(features).sum() == 3 * 14
    assert np.isfinite(reference.distance(features))


# --- Simulated people against movements that nobody makes


def people(split, count, seed=0):
    settings = simulator.SimulatorSettings(scale=0.1, seed=seed, duration_range_s=(5, 8))
    chosen = [p for p in simulator.participants(settings) if p.enrolment.split == split][:count]
    for person in chosen:
        for n, trial in enumerate(simulator.trials(settings, person, RATE_HZ)):
            if n == 3:
                break
            yield person.name, trial.angles_rad


@pytest.fixture(scope="module")
def check():
    everybody = np.ones(N_JOINTS, dtype=bool)
    training = list(people("train", 24))
    validation, training = training[:18], training[18:]
    features = {
        name: np.array([kinematic_features(angles, RATE_HZ, everybody) for _, angles in rows])
        for name, rows in (("train", training), ("validation", validation))
    }
    reference = ReferenceMovements.of(features["train"], [who for who, _ in training])
    checked = [
        CheckedMovements(
            [who for who, _ in rows],
            {"distance": distances},
            np.array([len(angles) / RATE_HZ for _, angles in rows]),
        )
        for rows, distances in (
            (training, leave_one_out_distances(features["train"], [who for who, _ in training])),
            (validation, np.array([reference.distance(row) for row in features["validation"]])),
        )
    ]
    fitted = fit_ood(*checked)

    def judge(angles):
        distance = reference.distance(kinematic_features(angles, RATE_HZ, everybody))
        return fitted.judge(MovementStatistics(len(angles) / RATE_HZ, 0, distance=distance), None)

    return judge


def strange(name, rng):
    time_s = np.arange(int(6 * RATE_HZ))[:, None] / RATE_HZ
    own_phase = rng.uniform(0, 2 * np.pi, N_JOINTS)
    amplitude = rng.uniform(0.05, 0.5, N_JOINTS) * (HIGH_RAD - LOW_RAD) / 2
    return {
        "sines": lambda: amplitude * np.sin(2 * np.pi * rng.uniform(0.2, 3, N_JOINTS) * time_s + own_phase),
        "sway": lambda: (
            np.radians(1) * np.sin(2 * np.pi * rng.uniform(0.1, 0.5, N_JOINTS) * time_s + own_phase)
        ),
        "shaking": lambda: np.radians(6) * np.sin(2 * np.pi * 6 * time_s + own_phase),
        "zeros": lambda: np.zeros((len(time_s), N_JOINTS)),
        "noise": lambda: rng.uniform(LOW_RAD, HIGH_RAD, (len(time_s), N_JOINTS)),
    }[name]()


@pytest.mark.parametrize("name", ["sines", "sway", "shaking", "zeros", "noise"])
def test_movements_that_nobody_makes_are_unlike(check, name):
    for seed in range(5):
        judged = check(strange(name, np.random.default_rng(seed)))
        assert judged.unlike, judged
        assert judged.value > judged.usual[1]


def test_most_new_people_are_like_the_training_data(check):
    refused = [check(angles).unlike for _, angles in people("test", 6, seed=1)]
    assert np.mean(refused) <= 0.2


def test_statistics_of_a_walk():
    _, walk = next(people("train", 1))
    everything = measure_statistics(walk, np.ones(N_JOINTS, dtype=bool), RATE_HZ)
    assert everything.duration_s == pytest.approx(len(walk) / RATE_HZ)
    assert everything.legs_recorded
    mask = np.ones(N_JOINTS, dtype=bool)
    mask[3] = False  # a knee
    assert not measure_statistics(walk, mask, RATE_HZ).legs_recorded
    without_feet = np.ones(N_JOINTS, dtype=bool)
    without_feet[[INDEX["subtalar_angle_r"], INDEX["subtalar_angle_l"], INDEX["mtp_angle_r"]]] = False
    assert measure_statistics(walk, without_feet, RATE_HZ).legs_recorded
