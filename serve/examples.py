"""Recordings to try the page with: simulated participants, written as .mot files on request."""

from functools import cache

import numpy as np

from biomechgpt import simulator
from biomechgpt.motion.trial import Trial
from biomechgpt.recordings.readers import opensim
from biomechgpt.simulator import SimulatorSettings

RATE_HZ = 60.0
SETTINGS = SimulatorSettings(scale=0.1, seed=20_240, duration_range_s=(5, 13))
"""The seed differs from that of every cohort, so no model was trained on these participants."""
EXAMPLES_PER_KIND = {"walkway": 5, "TUG": 2, "FSST": 1, "sitting": 1}


@cache
def _trials() -> dict[str, tuple[str, Trial]]:
    """{file name: (description, trial)}. The trials of a kind come from participants with different conditions."""
    chosen: dict[str, tuple[str, Trial]] = {}
    used: set[tuple[str, str]] = set()
    remaining = dict(EXAMPLES_PER_KIND)
    for person in simulator.participants(SETTINGS):
        # Simulation takes most of the time, so a participant whose trials are not needed is left out.
        if not any(
            remaining.get(kind, 0) > 0 and (kind, person.condition) not in used for kind in person.kinds
        ):
            continue
        for kind, trial in zip(person.kinds, simulator.trials(SETTINGS, person, RATE_HZ), strict=True):
            if remaining.get(kind, 0) > 0 and (kind, person.condition) not in used:
                used.add((kind, person.condition))
                remaining[kind] -= 1
                title = trial.annotations["activity"] or kind
                name = f"{str(title).replace(' ', '-')}-{person.name}.mot"
                chosen[name] = (f"{title}, simulated participant", trial)
                break  # one trial of each participant
    return dict(sorted(chosen.items()))


def listed() -> list[dict[str, str]]:
    """Names and descriptions of the examples."""
    return [{"name": name, "description": text} for name, (text, _) in _trials().items()]


def mot(name: str) -> str:
    """An example as the text of a .mot file. Raises KeyError for an unknown name."""
    trial = _trials()[name][1]
    time_s = np.arange(len(trial.angles_rad)) / RATE_HZ
    return opensim.write(time_s, trial.angles_rad, trial.pelvis, provenance=trial.provenance)
