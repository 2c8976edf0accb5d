"""Recordings to try the page with: simulated participants, written as .mot files when asked for."""

from functools import cache

import numpy as np

from biomechgpt import simulator
from biomechgpt.motion.trial import Trial
from biomechgpt.recordings.readers import opensim
from biomechgpt.simulator import SimulatorSettings

RATE_HZ = 60.0
SETTINGS = SimulatorSettings(scale=0.1, seed=20_240, lasts_s=(5, 13))
"""Another seed than any cohort's: nobody here was trained on."""
KINDS = (("walkway", 5), ("TUG", 2), ("FSST", 1), ("sitting", 1))


@cache
def _trials() -> dict[str, tuple[str, Trial]]:
    """{file name: (description, trial)}: of each kind the first of as many different people, groups mixed."""
    chosen: dict[str, tuple[str, Trial]] = {}
    groups: set[tuple[str, str]] = set()
    left = dict(KINDS)
    for person in simulator.participants(SETTINGS):
        for kind, made in zip(person.kinds, simulator.trials(SETTINGS, person, RATE_HZ), strict=True):
            if left.get(kind, 0) > 0 and (kind, person.condition) not in groups:
                groups.add((kind, person.condition))
                left[kind] -= 1
                title = made.annotations["activity"] or kind
                chosen[f"{str(title).replace(' ', '-')}-{person.name}.mot"] = (
                    f"{title}, simulated participant",
                    made,
                )
                break
    return dict(sorted(chosen.items()))


def listed() -> list[dict[str, str]]:
    """Names and descriptions."""
    return [{"name": name, "description": text} for name, (text, _) in _trials().items()]


def mot(name: str) -> str:
    """The file. Raises KeyError."""
    trial = _trials()[name][1]
    return opensim.write(np.arange(len(trial.angles_rad)) / RATE_HZ, trial.angles_rad, trial.pelvis)
