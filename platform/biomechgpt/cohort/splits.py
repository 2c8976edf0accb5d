"""Training, validation and test by participant, seeded, with rare labels spread evenly.

Participants are assigned by iterative stratification (Sechidis, Tsoumakas and Vlahavas 2011), by predefined splits,
by folds, or with one site held out. Validation participants that a method does not name are drawn by stratification
from those that are not tested. Knows nothing about trials.
"""

from collections.abc import Hashable, Mapping
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from biomechgpt.core.settings import InputError, Settings

SPLITS = ("train", "validation", "test")


class SplitSettings(Settings):
    """Assignment of participants to training, validation and test.

    stratified: a fraction of the participants is tested, rare labels are spread evenly.
    predefined: the data names each participant's split (a `split` column, or the simulator's protocol). If it names
    nobody for validation, validation participants are taken from training.
    kfold: one of `folds` is tested; over all folds every participant is tested once.
    leave_one_site_out: all participants of the site `held_out` are tested.
    auto: predefined if the data names any split, else stratified.
    """

    method: Literal["auto", "stratified", "predefined", "kfold", "leave_one_site_out"] = "auto"
    """Method that chooses the test participants."""
    test: float = Field(0.1, gt=0, lt=1)
    """Fraction of the participants in the test split (stratified)."""
    validation: float = Field(0.1, ge=0, lt=1)
    """Fraction of the participants in the validation split."""
    seed: int = Field(0, ge=0)
    """Seed of the order in which participants are assigned."""
    folds: int = Field(5, ge=2)
    """Number of folds (kfold)."""
    fold: int = Field(0, ge=0)
    """The fold that is tested, from 0 (kfold)."""
    site_column: str = "site"
    """Annotation that names a participant's site (leave_one_site_out)."""
    held_out: str | None = None
    """The site that is tested (leave_one_site_out)."""

    @model_validator(mode="after")
    def _leaves_some(self) -> "SplitSettings":
        tested = {"auto": self.test, "stratified": self.test, "kfold": 1 / self.folds}.get(self.method, 0.0)
        if tested + self.validation >= 1:
            raise ValueError("test and validation together must leave something to train on")
        if self.fold >= self.folds:
            raise ValueError(
                f"fold counts from 0: expected one below folds ({self.folds}), found {self.fold}"
            )
        if self.method == "leave_one_site_out" and self.held_out is None:
            raise ValueError("leave_one_site_out needs held_out, a site")
        return self

    def decided(self, predefined: Mapping[str, str | None]) -> "SplitSettings":
        """These settings with `auto` replaced by the method that it stands for with such data."""
        if self.method != "auto":
            return self
        named = any(split is not None for split in predefined.values())
        return self.model_copy(update={"method": "predefined" if named else "stratified"})


def assign(
    labels: Mapping[str, frozenset[Hashable]],
    settings: SplitSettings,
    *,
    predefined: Mapping[str, str | None] | None = None,
    sites: Mapping[str, frozenset[str]] | None = None,
) -> dict[str, str]:
    """Each participant's split.

    labels: {participant: labels to spread evenly over the splits}; their order does not matter.
    predefined: {participant: the split that the data names}, for the method of this name.
    sites: {participant: sites}, for leave_one_site_out.
    Two participants or more give at least one test participant, three or more also one for validation (unless its
    fraction is 0). Raises InputError where a participant has no predefined split, no site, or two sites.
    """
    settings = settings.decided(predefined or {})
    names = sorted(labels)
    # A seeded order: where several participants fit equally well, the seed decides.
    names = [names[i] for i in np.random.default_rng(settings.seed).permutation(len(names))]
    if settings.method == "stratified":
        return _stratify(names, labels, dict(zip(SPLITS, _split_sizes(len(names), settings), strict=True)))
    if settings.method == "kfold":
        tested = _fold(names, labels, settings)
    elif settings.method == "leave_one_site_out":
        tested = _at_site(names, sites or {}, settings)
    else:
        given = {name: (predefined or {}).get(name) for name in names}
        _raise_for(
            [name for name in names if given[name] is None],
            "splits: method predefined expects a split for every participant (a column `split`), found none for",
        )
        if "validation" in given.values() or settings.validation == 0:
            return {name: str(split) for name, split in given.items()}
        tested = {name for name, split in given.items() if split == "test"}
    # Validation participants come from those that are not tested; at least one is left to train on.
    rest = [name for name in names if name not in tested]
    n_validation = 0
    if settings.validation > 0 and len(rest) > 1:
        n_validation = min(max(round(settings.validation * len(names)), 1), len(rest) - 1)
    sizes = {"train": len(rest) - n_validation, "validation": n_validation, "test": 0}
    split = _stratify(rest, labels, sizes)
    return {name: split.get(name, "test") for name in names}


def _fold(names: list[str], labels: Mapping[str, frozenset[Hashable]], settings: SplitSettings) -> set[str]:
    """The participants of one fold. All folds are made every time, so they fit together whichever is asked for."""
    if settings.folds > len(names):
        raise InputError(
            f"splits: expected at least as many participants as folds ({settings.folds}), found {len(names)}"
        )
    larger = len(names) % settings.folds  # this many folds have one participant more
    sizes = {str(k): len(names) // settings.folds + (k < larger) for k in range(settings.folds)}
    return {name for name, k in _stratify(names, labels, sizes).items() if k == str(settings.fold)}


def _at_site(names: list[str], sites: Mapping[str, frozenset[str]], settings: SplitSettings) -> set[str]:
    """The participants of the site that is held out."""
    column = settings.site_column
    site_of = {name: sites.get(name, frozenset()) for name in names}
    _raise_for(
        [name for name in names if len(site_of[name]) > 1],
        f"splits: leaving one site out expects one {column} a participant, found two or more for",
    )
    _raise_for(
        [name for name in names if not site_of[name]],
        f"splits: expected a {column} for every participant, none for",
    )
    all_sites = sorted(set().union(*site_of.values()))
    if settings.held_out not in all_sites or len(all_sites) < 2:
        raise InputError(
            f"splits: expected held_out to be one of two or more of {column} ({', '.join(all_sites)}), "
            f"found {settings.held_out!r}"
        )
    return {name for name in names if settings.held_out in site_of[name]}


def _raise_for(participants: list[str], message: str, most: int = 10) -> None:
    """Raise InputError that names the first of these participants; do nothing without any."""
    if participants:
        more = f" and {len(participants) - most} more" if len(participants) > most else ""
        raise InputError(f"{message} {', '.join(sorted(participants)[:most])}{more}")


def _stratify(
    names: list[str], labels: Mapping[str, frozenset[Hashable]], sizes: Mapping[str, int]
) -> dict[str, str]:
    """Each name's part by iterative stratification; sizes: {part: number of names}.

    The rarest label is placed first, since the fewer participants have it, the less freedom there is. Each of its
    participants goes to the part that still lacks this label most; among equals, to the part with most places left.
    """
    places_left = dict(sizes)
    fractions = {part: size / max(len(names), 1) for part, size in sizes.items()}
    participants: dict[Hashable, list[str]] = {}
    for name in names:
        for label in sorted(labels[name], key=str):
            participants.setdefault(label, []).append(name)
    # A label that one participant has cannot be spread.
    participants = {label: having for label, having in participants.items() if len(having) > 1}
    wanted = {label: _wanted(len(having), fractions) for label, having in participants.items()}
    result: dict[str, str] = {}

    def place(name: str, label: Hashable | None) -> None:
        open_parts = [part for part in places_left if places_left[part] > 0]
        missing = wanted[label] if label is not None else {}
        # Rounded, so that sums of fractions that are equal on paper are equal here.
        part = max(open_parts, key=lambda p: (round(missing.get(p, 0.0), 9), places_left[p]))
        result[name] = part
        places_left[part] -= 1
        # The participant brings all of their labels into the part, not only the one that was placed.
        for label_of_name in labels[name] & wanted.keys():
            wanted[label_of_name][part] -= 1

    while True:
        unplaced = {label: [n for n in having if n not in result] for label, having in participants.items()}
        unplaced = {label: having for label, having in unplaced.items() if having}
        if not unplaced:
            break
        rarest = min(unplaced, key=lambda label: (len(unplaced[label]), str(label)))
        for name in unplaced[rarest]:
            place(name, rarest)
    # Participants without any label that can be spread fill the places that are left.
    for name in names:
        if name not in result:
            place(name, None)
    return result


def _split_sizes(count: int, settings: SplitSettings) -> tuple[int, int, int]:
    """Numbers of participants in training, validation and test, out of `count`."""
    test = max(round(settings.test * count), 1) if count >= 2 else 0
    validation = max(round(settings.validation * count), 1) if count >= 3 and settings.validation > 0 else 0
    # At least one participant is left to train on: first validation gives way, then test.
    while test + validation >= count and test + validation > 0:
        test, validation = (test, validation - 1) if validation > 0 else (test - 1, validation)
    return count - test - validation, validation, test


def _wanted(count: int, fractions: Mapping[str, float]) -> dict[str, float]:
    """Desired number of a label's `count` participants in each part.

    With three participants or more, at least one is tested: a label that is never tested has no metric.
    """
    wanted = {part: fraction * count for part, fraction in fractions.items()}
    if count >= 3 and fractions.get("test", 0) > 0:
        wanted["test"] = max(wanted["test"], 1.0)
        wanted["train"] = count - wanted["test"] - wanted["validation"]
    return wanted
