"""Near-copies of recordings and of participants' names are found, and different movements are not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from biomechgpt import simulator
from biomechgpt.cohort import CohortSettings, data_card
from biomechgpt.cohort.near_copies import excerpt, find_near_copies, similar_names, warnings
from biomechgpt.core import settings
from biomechgpt.motion.resampling import resample

RATE = 30.0
ROOT = Path(__file__).parents[2]
SOME = settings.load(CohortSettings, ROOT / "configs" / "cohort" / "tiny.yaml").simulator


@pytest.fixture(scope="module")
def trials():
    people = list(simulator.participants(SOME))[:12]
    return [t for person in people for t in simulator.trials(SOME, person, RATE)]


def other(trial, angles, pelvis):
    return replace(
        trial,
        trial="copy",
        participant="other",
        split="test",
        angles_rad=angles.astype(np.float32),
        pelvis=pelvis,
    )


def every_second_frame(trial):
    """Read at 15 Hz, resampled to the cohort's rate."""
    time_s = np.arange(len(trial.angles_rad)) / RATE
    return resample(time_s[::2], trial.angles_rad[::2].astype(float), trial.pelvis[::2].astype(float), RATE)


COPIES = {
    "last frame cut": lambda t: (t.angles_rad[:-1], t.pelvis[:-1]),
    "three first frames cut": lambda t: (t.angles_rad[3:], t.pelvis[3:]),
    "rounded": lambda t: (np.radians(np.round(np.degrees(t.angles_rad), 1)), t.pelvis),
    "first half": lambda t: (t.angles_rad[: len(t.angles_rad) // 2], t.pelvis[: len(t.angles_rad) // 2]),
    "every second frame": every_second_frame,
}


@pytest.mark.parametrize("kind", COPIES)
def test_a_near_copy_of_another_participant_is_found_and_named(trials, kind):
    original = replace(trials[4], split="train")
    copy = other(original, *COPIES[kind](original))
    (pair,) = find_near_copies([excerpt(t) for t in [*trials[:4], original, *trials[5:], copy]])
    assert pair["trials"] == [original.trial, "copy"]
    assert not pair["same_participant"]
    (text,) = warnings([pair], [])
    assert original.trial in text
    assert "in splits train and test" in text


def test_different_trials_are_no_copies_even_of_one_participant(trials):
    assert find_near_copies([excerpt(t) for t in trials]) == []


def test_copies_of_the_same_participant_are_listed_without_a_warning(trials):
    copy = replace(trials[0], trial="again")
    (pair,) = find_near_copies([excerpt(t) for t in [*trials, copy]])
    assert pair["same_participant"]
    assert warnings([pair], []) == []


def test_names_that_differ_in_case_zeros_or_separators_are_grouped():
    names = ["P01", "p01", "P1", "P-01", "P10", "P_10", "Q1", "P100", "S1_02", "S10_2"]
    assert similar_names(names) == [["P-01", "P01", "P1", "p01"], ["P10", "P_10"]]
    assert "P10, P_10 differ only in case" in warnings([], [["P10", "P_10"]])[0]


def test_the_data_card_names_both(trials):
    copy = other(trials[0], trials[0].angles_rad[:-1], trials[0].pelvis[:-1])
    named = [
        replace(t, participant="P-01" if t.participant == trials[0].participant else t.participant)
        for t in trials
    ]
    total = data_card.tally([*named, replace(copy, participant="p1")], simulator.COLUMNS)
    card = data_card.summarize(total, simulator.COLUMNS, [], "recorded", RATE)
    assert card["similar_names"] == [["P-01", "p1"]]
    page = data_card.page(card, total)
    assert "are nearly the same recording" in page
    assert "P-01, p1 differ only in case" in page
