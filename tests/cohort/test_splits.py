"""Splits other than the stratified one: designed, by fold, by site; and whoever is in them is in one only."""

import pytest
from hypothesis import assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from biomechgpt.cohort.splits import SPLITS, SplitSettings, assign
from biomechgpt.core import settings
from biomechgpt.core.settings import InputError

NAMES = st.text(alphabet="abcdefgh", min_size=1, max_size=4)
LABELS = st.dictionaries(NAMES, st.frozensets(st.sampled_from("xyz"), max_size=3), min_size=6, max_size=50)
QUICK = hypothesis_settings(max_examples=40, deadline=None)


def of(split: dict[str, str], name: str) -> set[str]:
    return {who for who, where in split.items() if where == name}


@QUICK
@given(LABELS, st.integers(2, 6), st.integers(0, 3), st.floats(0, 0.3))
def test_over_the_folds_everybody_is_tested_once(labels, folds, seed, validation):
    made = [
        assign(
            labels,
            SplitSettings(method="kfold", folds=folds, fold=k, seed=seed, validation=validation),
        )
        for k in range(folds)
    ]
    tested = [of(split, "test") for split in made]
    assert set.union(*tested) == set(labels)
    assert sum(map(len, tested)) == len(labels)
    assert max(map(len, tested)) - min(map(len, tested)) <= 1
    for split in made:
        assert split.keys() == labels.keys()
        assert of(split, "train")
        assert bool(of(split, "validation")) == (validation > 0)


def test_folds_share_a_rare_label():
    labels = {f"p{i}": frozenset(["rare"] if i < 5 else ["common"]) for i in range(40)}
    for k in range(5):
        split = assign(labels, SplitSettings(method="kfold", folds=5, fold=k))
        assert sum("rare" in labels[who] for who in of(split, "test")) == 1


@QUICK
@given(LABELS, st.data())
def test_one_site_is_left_out_whole(labels, data):
    sites = {name: frozenset([data.draw(st.sampled_from(["north", "south", "west"]))]) for name in labels}
    there = set().union(*sites.values())
    assume(len(there) > 1)
    for site in there:
        how = SplitSettings(method="leave_one_site_out", held_out=site)
        split = assign(labels, how, sites=sites)
        assert split.keys() == labels.keys()
        assert of(split, "test") == {name for name in labels if sites[name] == {site}}
        assert of(split, "train")


@QUICK
@given(LABELS, st.data())
def test_a_predefined_split_is_kept(labels, data):
    given_splits = {name: data.draw(st.sampled_from(SPLITS)) for name in labels}
    split = assign(labels, SplitSettings(method="predefined"), predefined=given_splits)
    if "validation" in given_splits.values():
        assert split == given_splits
    assert of(split, "test") == of(given_splits, "test")
    left = len(labels) - len(of(split, "test"))
    assert bool(of(split, "validation")) == (left > 1 or "validation" in given_splits.values())


def test_auto_keeps_a_design_where_there_is_one():
    design = dict(zip(PEOPLE, ["test", *["train"] * 5], strict=True))
    assert of(assign(PEOPLE, SplitSettings(), predefined=design), "test") == {"p0"}
    assert assign(PEOPLE, SplitSettings()) == assign(PEOPLE, SplitSettings(method="stratified"))
    with pytest.raises(InputError, match="found none for p1, p2, p3, p4, p5"):
        assign(PEOPLE, SplitSettings(), predefined={"p0": "test"})


PEOPLE = {f"p{i}": frozenset() for i in range(6)}
HALVES = {name: frozenset(["north" if i % 2 else "south"]) for i, name in enumerate(PEOPLE)}


@pytest.mark.parametrize(
    ("how", "known", "message"),
    [
        ({"method": "predefined"}, {"predefined": {"p0": "test"}}, "found none for p1, p2, p3, p4, p5"),
        (
            {"method": "leave_one_site_out", "held_out": "north"},
            {"sites": HALVES | {"p2": frozenset(["north", "south"])}},
            "one site a participant, found two or more for p2",
        ),
        (
            {"method": "leave_one_site_out", "held_out": "north"},
            {"sites": {k: v for k, v in HALVES.items() if k != "p3"}},
            "a site for every participant, none for p3",
        ),
        (
            {"method": "leave_one_site_out", "held_out": "east"},
            {"sites": HALVES},
            r"two or more of site \(north, south\), found 'east'",
        ),
        ({"method": "kfold", "folds": 7}, {}, r"as many participants as folds \(7\), found 6"),
    ],
)
def test_what_cannot_be_split(how, known, message):
    with pytest.raises(InputError, match=message):
        assign(PEOPLE, SplitSettings(**how), **known)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"method": "kfold", "fold": 5}, "counts from 0"),
        ({"method": "leave_one_site_out"}, "needs held_out"),
        ({"method": "kfold", "folds": 2, "validation": 0.5}, "leave something to train on"),
    ],
)
def test_settings_that_contradict(how, message):
    with pytest.raises(InputError, match=message):
        settings.validate(SplitSettings, how, "here")
