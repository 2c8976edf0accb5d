"""Norms: what the published tables say, in our units and signs."""

import numpy as np
import pytest

from biomechgpt.motion import norms
from biomechgpt.motion.skeleton import HIGH_RAD, LOW_RAD, NAMES
from conftest import ROOT

AGES = (20, 35, 45, 55, 65, 75, 85)


@pytest.mark.parametrize("sex", ["male", "female", "unknown"])
@pytest.mark.parametrize("age", AGES)
def test_norms_of_adults_are_plausible(age, sex):
    speed, cadence, step = (
        of(age, sex) for of in (norms.walking_speed_m_s, norms.cadence_steps_min, norms.step_length_m)
    )
    assert 0.9 < speed.mean < 1.5
    assert 110 < cadence.mean < 132
    # Two studies, one walk: slower in Oberg's laboratory than elsewhere, but for the oldest.
    assert 0.8 < cadence.mean / 60 * step.mean / speed.mean < 1.25
    for norm in (speed, cadence, step, norms.tug_s(age), norms.fsst_s(age)):
        assert 0 < norm.sd < norm.mean / 2
        assert norm.source


def test_the_published_extremes_of_walking_speed():
    """Bohannon and Andrews' abstract: 143.4 cm/s for men of 40 to 49 is the fastest, 94.3 for women over 80."""
    speeds = {(a, s): norms.walking_speed_m_s(a, s).mean for a in AGES for s in ("male", "female")}
    assert max(speeds, key=speeds.get) == (45, "male")
    assert min(speeds, key=speeds.get) == (85, "female")
    assert norms.walking_speed_m_s(5, "male") == norms.walking_speed_m_s(25, "male")
    assert [norms.tug_s(age).mean for age in (60, 70, 80)] == [8.1, 9.2, 11.3]


def test_groups_are_slower_than_healthy_people():
    for name, group in norms.GROUPS.items():
        assert group["walking_speed"].mean < norms.walking_speed_m_s(55, "unknown").mean, name
        for measure, norm in group.items():
            assert measure in ("walking_speed", "cadence", "tug_time", "fsst_time")
            assert norm.source
            if measure == "tug_time":
                assert norm.mean > norms.tug_s(55).mean, name


def test_gait_bands_have_the_skeletons_signs():
    bands = {name: norms.gait_band(name) for name in NAMES}
    assert sum(band is not None for band in bands.values()) == 10
    for i, name in enumerate(NAMES):
        if bands[name] is None:
            continue
        mean, sd = bands[name]
        assert mean.shape == sd.shape == (101,)
        assert (sd > 0).all()
        assert abs(mean[0] - mean[-1]) < 1  # a cycle closes
        assert (mean > np.degrees(LOW_RAD[i])).all()
        assert (mean < np.degrees(HIGH_RAD[i])).all()
    knee, hip, ankle = (bands[f"{name}_r"][0] for name in ("knee_angle", "hip_flexion", "ankle_angle"))
    assert -65 < knee.min() < -55  # bends in swing
    assert 68 < knee.argmin() < 78
    assert hip[0] > 25 > 0 > hip.min()
    assert 48 < hip.argmin() < 56
    assert ankle.argmin() == pytest.approx(64, abs=2)  # push-off


def test_every_norm_says_whether_it_was_compared_with_its_source():
    by_age = [of(age, sex) for of in (norms.walking_speed_m_s, norms.cadence_steps_min, norms.step_length_m)
              for age in AGES for sex in ("male", "female", "")]  # fmt: skip
    by_age += [of(age) for of in (norms.tug_s, norms.fsst_s) for age in AGES]
    of_groups = [norm for group in norms.GROUPS.values() for norm in group.values()]
    used = {norm.source for norm in by_age + of_groups} | {norms.CURVES}
    assert used == set(norms.SOURCES)
    for source in norms.SOURCES:
        assert isinstance(source.verified, bool)
        assert source.citation
        assert source.checked.endswith(".")
        # An unverified one says what is missing; a verified one has nothing missing.
        assert ("Not compared" in source.checked) == (not source.verified)
        assert (norms.UNVERIFIED in source.shown) == (not source.verified)
        assert source.citation in source.shown


def test_the_page_of_norms_lists_every_source_as_the_code_has_it():
    lines = (ROOT / "docs" / "norms.md").read_text().splitlines()
    cells = {line.split(" | ")[1]: line for line in lines if line.startswith("| ") and " | " in line}
    for source in norms.SOURCES:
        verified = "yes" if source.verified else "no"
        assert cells[source.citation].endswith(f"| {source.citation} | {verified} | {source.checked} |")
    assert len(cells) == len(norms.SOURCES) + 1  # and the header
    assert norms.UNVERIFIED in " ".join(lines)
