"""A few simulated participants, whose walking speed, cadence and times of clinical tests are known."""

from functools import cache
from pathlib import Path

from biomechgpt import simulator
from biomechgpt.cohort import CohortSettings
from biomechgpt.core import settings
from biomechgpt.motion.trial import Trial

TINY = Path(__file__).parents[2] / "configs" / "cohort" / "tiny.yaml"
RATE = 30.0
N_PARTICIPANTS = 14


@cache
def trials() -> tuple[Trial, ...]:
    """All trials of the participants. Not a participant of any cohort that a model is trained on."""
    how = settings.load(CohortSettings, TINY).simulator.model_copy(update={"seed": 20})
    people = simulator.participants(how)[:N_PARTICIPANTS]
    return tuple(trial for person in people for trial in simulator.trials(how, person, RATE))


def annotated(column: str) -> list[Trial]:
    """The trials with a value in this column."""
    return [trial for trial in trials() if trial.annotations.get(column) is not None]


def of_activity(*names: str) -> list[Trial]:
    return [trial for trial in trials() if trial.annotations.get("activity") in names]
