"""The simulated study: the number of participants and trials with each annotation.

The default is the paper's table of samples, separately for train and test, so that a cohort of this size has the
same support per task. Knows nothing about how people move or who they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from biomechgpt.core.settings import Settings

Count = tuple[int, int]
"""(participants, trials) with an annotation."""


class Collected(Settings):
    """Annotations collected in one split, as (participants, trials)."""

    activity: Count
    """Trials with an annotated activity."""
    impaired: Count
    """Trials with known impairment, yes or no."""
    diagnosis: Count
    """Trials of impaired participants with a diagnosis."""
    assistive_device: Count
    """Trials with an annotated assistive device."""
    falls_history: Count
    """Trials of participants asked about falls."""
    walking_speed: Count
    """Walkway trials, with walking speed and cadence."""
    tug_time: Count
    """Timed up and go trials with a time."""
    fsst_time: Count
    """Four square step tests with a time."""

    @model_validator(mode="after")
    def _nested(self) -> "Collected":
        for inner, outer in (("diagnosis", "impaired"), ("impaired", "assistive_device"),
                             ("assistive_device", "activity"), ("falls_history", "diagnosis"),
                             ("walking_speed", "impaired"), ("tug_time", "impaired"),
                             ("fsst_time", "impaired")):  # fmt: skip
            few, many = getattr(self, inner), getattr(self, outer)
            if few[0] > many[0] or few[1] > many[1]:
                raise ValueError(
                    f"expected {inner} of no more participants and trials than {outer}, "
                    f"found {few} and {many}"
                )
        for name, (people, trials) in self:
            if people < 0 or trials < people:
                raise ValueError(f"{name}: expected a trial a participant at least, found {people, trials}")
        measured = self.walking_speed[1] + self.tug_time[1] + self.fsst_time[1]
        if measured > 0.75 * self.impaired[1]:
            raise ValueError(
                f"expected at most three of four trials measured, found {measured} of {self.impaired[1]}"
            )
        return self

    def scaled(self, scale: float) -> "Collected":
        """These numbers times `scale`; a number above 0 stays at least 1."""

        def count(n: int) -> int:
            return max(round(n * scale), min(n, 1))

        return Collected(**{
            name: (count(people), max(count(trials), count(people))) for name, (people, trials) in self
        })  # fmt: skip


PAPER = {
    "train": Collected(
        activity=(424, 6447),
        impaired=(397, 6271),
        diagnosis=(200, 2685),
        assistive_device=(415, 6361),
        falls_history=(42, 632),
        walking_speed=(126, 1401),
        tug_time=(111, 295),
        fsst_time=(98, 205),
    ),
    "test": Collected(
        activity=(41, 401),
        impaired=(38, 388),
        diagnosis=(20, 204),
        assistive_device=(40, 389),
        falls_history=(2, 33),
        walking_speed=(11, 79),
        tug_time=(8, 18),
        fsst_time=(5, 7),
    ),
}
"""The paper's table of samples."""


class ProtocolSettings(Settings):
    """The participants of the study. Validation participants are split off from train later."""

    train: Collected = PAPER["train"]
    """Annotations collected from the training participants."""
    test: Collected = PAPER["test"]
    """Annotations collected from the test participants."""
    unannotated: int = Field(2, ge=0)
    """Participants whose trials have no annotation."""

    def scaled(self, scale: float) -> "ProtocolSettings":
        """The study with `scale` times the participants; every annotation is still collected."""
        return ProtocolSettings(
            train=self.train.scaled(scale),
            test=self.test.scaled(scale),
            unannotated=round(self.unannotated * scale),
        )


@dataclass
class Enrolment:
    """One participant's part in the study, before their traits are drawn.

    split: train or test.
    impaired: impairment, "unknown" if it is not annotated.
    falls, device, activity: whether this annotation is collected.
    trials: number of trials by kind; `others` are trials of any other activity.
    """

    split: Literal["train", "test"]
    impaired: Literal["yes", "no", "unknown"]
    falls: bool = False
    device: bool = True
    activity: bool = True
    trials: dict[str, int] = field(default_factory=lambda: {"walkway": 0, "TUG": 0, "FSST": 0, "others": 0})

    def alike(self, other: "Enrolment") -> bool:
        """Whether the same annotations are collected from both."""
        first, second = ((e.impaired, e.falls, e.device, e.activity) for e in (self, other))
        return first == second

    @property
    def count(self) -> int:
        return sum(self.trials.values())


def enrol(settings: ProtocolSettings, rng: np.random.Generator) -> list[Enrolment]:
    """All participants of the study. The numbers for each annotation are those of `settings`, except that every
    participant has at least one trial."""
    people = [*_side("train", settings.train, rng), *_side("test", settings.test, rng)]
    for _ in range(settings.unannotated):
        trials = {"walkway": 0, "TUG": 0, "FSST": 0, "others": 6}
        people.append(Enrolment("train", "unknown", device=False, activity=False, trials=trials))
    return people


def _side(split: Literal["train", "test"], collected: Collected, rng: np.random.Generator) -> list[Enrolment]:
    activity, impaired, diagnosis, device, falls = (
        np.array(getattr(collected, name))
        for name in ("activity", "impaired", "diagnosis", "assistive_device", "falls_history")
    )
    # The counts are nested (falls in diagnosis in impaired in device in activity), so differences give the groups.
    groups: list[tuple[Count, Enrolment]] = [
        (tuple(falls), Enrolment(split, "yes", falls=True)),
        (tuple(diagnosis - falls), Enrolment(split, "yes")),
        (tuple(impaired - diagnosis), Enrolment(split, "no")),
        (tuple(device - impaired), Enrolment(split, "unknown")),
        (tuple(activity - device), Enrolment(split, "unknown", device=False)),
    ]
    # The trials of a group without participants go to the next group.
    for k in range(len(groups) - 1):
        (n_people, n_trials), enrolment = groups[k]
        if n_people == 0:
            (next_people, next_trials), next_enrolment = groups[k + 1]
            groups[k : k + 2] = [((0, 0), enrolment), ((next_people, next_trials + n_trials), next_enrolment)]
    members = [
        [Enrolment(split, group.impaired, group.falls, group.device) for _ in range(n_people)]
        for (n_people, _), group in groups
    ]
    # Walkway, TUG and FSST: participants with known impairment, more likely those with more trials.
    candidates = [
        (enrolment, n_trials / n_people)
        for ((n_people, n_trials), _), group_members in zip(groups[:3], members, strict=False)
        for enrolment in group_members
    ]
    for kind, (n_people, n_trials) in (
        ("walkway", collected.walking_speed),
        ("TUG", collected.tug_time),
        ("FSST", collected.fsst_time),
    ):
        if n_people:
            # Hardly anybody has more than 40 % of their trials measured.
            weight = np.array([mean if e.count < 0.4 * mean else 0.01 for e, mean in candidates])
            chosen = rng.choice(len(candidates), n_people, replace=False, p=weight / weight.sum())
            for k, n in zip(chosen, spread(rng, n_trials, [1] * n_people, 0.35), strict=True):
                candidates[k][0].trials[kind] = n
    # The rest of each group's trials are other activities.
    for ((_, n_trials), _), group_members in zip(groups, members, strict=True):
        least = [max(enrolment.count, 1) for enrolment in group_members]
        counts = spread(rng, max(n_trials, sum(least)), least, 0.5)
        for enrolment, n in zip(group_members, counts, strict=True):
            enrolment.trials["others"] = n - enrolment.count
    return [enrolment for group_members in members for enrolment in group_members]


def spread(rng: np.random.Generator, total: int, least: Sequence[int], sigma: float) -> list[int]:
    """Split `total` into parts of at least `least` each; the rest is distributed by lognormal shares of this
    sigma."""
    if not least:
        return []
    share = np.exp(sigma * rng.standard_normal(len(least)))
    ends = np.round((total - sum(least)) * np.cumsum(share) / share.sum()).astype(int)
    result: list[int] = (np.asarray(least) + np.diff(ends, prepend=0)).tolist()
    return result
