"""Who is in training, validation and test: by participant, seeded, rare labels spread evenly.

Iterative stratification (Sechidis, Tsoumakas and Vlahavas 2011): the rarest label still to be placed is
placed first, each of its participants where that label is most wanted. Or as the cohort was designed, by folds,
or one site left out; what is not decided by these is stratified. Knows nothing about trials.
"""

from collections.abc import Hashable, Mapping
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from biomechgpt.core.settings import InputError, Settings

SPLITS = ("train", "validation", "test")


class SplitSettings(Settings):
    """Fractions of participants, and what decides who is tested.

    stratified: a fraction, rare labels spread. predefined: who the data itself names (a `split` column, or the
    simulator's protocol); without anybody for validation, that is taken from training. kfold: one of `folds`,
    over all of which everybody is tested once. leave_one_site_out: all of `held_out`. auto: predefined where the
    data names any, or else stratified.
    """

    method: Literal["auto", "stratified", "predefined", "kfold", "leave_one_site_out"] = "auto"
    test: float = Field(0.1, gt=0, lt=1, description="of stratified")
    validation: float = Field(0.1, ge=0, lt=1)
    seed: int = Field(0, ge=0)
    folds: int = Field(5, ge=2, description="of kfold")
    fold: int = Field(0, ge=0, description="of kfold: which is tested, from 0")
    site_column: str = Field("site", description="of leave_one_site_out: the annotation that names the site")
    held_out: str | None = Field(None, description="of leave_one_site_out: the site that is tested")

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
        """These settings with the method that auto is for such data."""
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
    """Each participant's split, from {participant: what is known of them}.

    predefined, sites: what the data says of each participant, for the methods of these names.
    Two participants or more give at least one test participant, three or more also one for validation
    (where its fraction is not 0). The order of `labels` does not matter.
    Raises InputError where a participant has no predefined split, or no site, or two.
    """
    settings = settings.decided(predefined or {})
    names = sorted(labels)
    names = [names[i] for i in np.random.default_rng(settings.seed).permutation(len(names))]
    if settings.method == "stratified":
        return _spread(names, labels, dict(zip(SPLITS, _sizes(len(names), settings), strict=True)))
    if settings.method == "kfold":
        tested = _fold(names, labels, settings)
    elif settings.method == "leave_one_site_out":
        tested = _at_site(names, sites or {}, settings)
    else:
        given = {name: (predefined or {}).get(name) for name in names}
        _name(
            [n for n in names if given[n] is None],
            "splits: method predefined expects a split for every participant (a column `split`), found none for",
        )
        if "validation" in given.values() or settings.validation == 0:
            return {name: str(split) for name, split in given.items()}
        tested = {name for name, split in given.items() if split == "test"}
    left = [name for name in names if name not in tested]
    held = max(round(settings.validation * len(names)), 1) if settings.validation > 0 and len(left) > 1 else 0
    held = min(held, len(left) - 1) if left else 0
    rest = _spread(left, labels, {"train": len(left) - held, "validation": held, "test": 0})
    return {name: rest.get(name, "test") for name in names}


def _fold(names: list[str], labels: Mapping[str, frozenset[Hashable]], settings: SplitSettings) -> set[str]:
    """The participants of one fold. The folds are the same whichever of them is asked for."""
    if settings.folds > len(names):
        raise InputError(
            f"splits: expected at least as many participants as folds ({settings.folds}), found {len(names)}"
        )
    more = len(names) % settings.folds
    room = {str(k): len(names) // settings.folds + (k < more) for k in range(settings.folds)}
    return {name for name, k in _spread(names, labels, room).items() if k == str(settings.fold)}


def _at_site(names: list[str], sites: Mapping[str, frozenset[str]], settings: SplitSettings) -> set[str]:
    """The participants of the site held out."""
    column = settings.site_column
    at = {name: sites.get(name, frozenset()) for name in names}
    _name(
        [name for name in names if len(at[name]) > 1],
        f"splits: leaving one site out expects one {column} a participant, found two or more for",
    )
    _name(
        [name for name in names if not at[name]],
        f"splits: expected a {column} for every participant, none for",
    )
    there = sorted(set().union(*at.values()))
    if settings.held_out not in there or len(there) < 2:
        raise InputError(
            f"splits: expected held_out to be one of two or more of {column} ({', '.join(there)}), "
            f"found {settings.held_out!r}"
        )
    return {name for name in names if settings.held_out in at[name]}


def _name(wrong: list[str], message: str, most: int = 10) -> None:
    if wrong:
        more = f" and {len(wrong) - most} more" if len(wrong) > most else ""
        raise InputError(f"{message} {', '.join(sorted(wrong)[:most])}{more}")


def _spread(
    names: list[str], labels: Mapping[str, frozenset[Hashable]], sizes: Mapping[str, int]
) -> dict[str, str]:
    """Each name's part, where `sizes` says how many each part takes."""
    room = dict(sizes)
    fractions = {part: size / max(len(names), 1) for part, size in room.items()}
    holders: dict[Hashable, list[str]] = {}
    for name in names:
        for label in sorted(labels[name], key=str):
            holders.setdefault(label, []).append(name)
    # What only one participant has cannot be spread.
    holders = {label: who for label, who in holders.items() if len(who) > 1}
    wanted = {label: _wanted(len(who), fractions) for label, who in holders.items()}
    result: dict[str, str] = {}

    def place(name: str, label: Hashable | None) -> None:
        open_parts = [part for part in room if room[part] > 0]
        need = wanted[label] if label is not None else {}
        part = max(open_parts, key=lambda s: (round(need.get(s, 0.0), 9), room[s]))
        result[name] = part
        room[part] -= 1
        for other in labels[name] & wanted.keys():
            wanted[other][part] -= 1

    while True:
        left = {label: [n for n in who if n not in result] for label, who in holders.items()}
        left = {label: who for label, who in left.items() if who}
        if not left:
            break
        rarest = min(left, key=lambda label: (len(left[label]), str(label)))
        for name in left[rarest]:
            place(name, rarest)
    for name in names:
        if name not in result:
            place(name, None)
    return result


def _sizes(count: int, settings: SplitSettings) -> tuple[int, int, int]:
    test = max(round(settings.test * count), 1) if count >= 2 else 0
    validation = max(round(settings.validation * count), 1) if count >= 3 and settings.validation > 0 else 0
    while test + validation >= count and test + validation > 0:
        test, validation = (test, validation - 1) if validation > 0 else (test - 1, validation)
    return count - test - validation, validation, test


def _wanted(count: int, fractions: Mapping[str, float]) -> dict[str, float]:
    """How many of a label's participants each part wants; a label that three have wants one in test."""
    wanted = {part: fraction * count for part, fraction in fractions.items()}
    if count >= 3 and fractions.get("test", 0) > 0:
        wanted["test"] = max(wanted["test"], 1.0)
        wanted["train"] = count - wanted["test"] - wanted["validation"]
    return wanted
