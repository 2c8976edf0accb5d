"""Who is in training, validation and test: by participant, seeded, rare labels spread evenly.

Iterative stratification (Sechidis, Tsoumakas and Vlahavas 2011): the rarest label still to be placed is
placed first, each of its participants where that label is most wanted. Knows nothing about trials.
"""

from collections.abc import Hashable, Mapping

import numpy as np
from pydantic import Field, model_validator

from biomechgpt.settings import Settings

SPLITS = ("train", "validation", "test")


class SplitSettings(Settings):
    """Fractions of participants."""

    test: float = Field(0.1, gt=0, lt=1)
    validation: float = Field(0.1, ge=0, lt=1)
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _leaves_some(self) -> "SplitSettings":
        if self.test + self.validation >= 1:
            raise ValueError("test and validation together must leave something to train on")
        return self


def assign(labels: Mapping[str, frozenset[Hashable]], settings: SplitSettings) -> dict[str, str]:
    """Each participant's split, from {participant: what is known of them}.

    Two participants or more give at least one test participant, three or more also one for validation
    (where its fraction is not 0). The order of `labels` does not matter.
    """
    names = sorted(labels)
    names = [names[i] for i in np.random.default_rng(settings.seed).permutation(len(names))]
    room = dict(zip(SPLITS, _sizes(len(names), settings), strict=True))
    fractions = {split: size / max(len(names), 1) for split, size in room.items()}
    holders: dict[Hashable, list[str]] = {}
    for name in names:
        for label in sorted(labels[name], key=str):
            holders.setdefault(label, []).append(name)
    # What only one participant has cannot be spread.
    holders = {label: who for label, who in holders.items() if len(who) > 1}
    wanted = {label: _wanted(len(who), fractions) for label, who in holders.items()}
    result: dict[str, str] = {}

    def place(name: str, label: Hashable | None) -> None:
        open_splits = [split for split in SPLITS if room[split] > 0]
        need = wanted[label] if label is not None else {}
        split = max(open_splits, key=lambda s: (round(need.get(s, 0.0), 9), room[s]))
        result[name] = split
        room[split] -= 1
        for other in labels[name] & wanted.keys():
            wanted[other][split] -= 1

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
    """How many of a label's participants each split wants; a label that three have wants one in test."""
    wanted = {split: fraction * count for split, fraction in fractions.items()}
    if count >= 3 and fractions["test"] > 0:
        wanted["test"] = max(wanted["test"], 1.0)
        wanted["train"] = count - wanted["test"] - wanted["validation"]
    return wanted
