"""The shipped tasks, and trials with annotations that they can be asked about."""

from biomechgpt.motion import parameters
from biomechgpt.questions.tasks import AnnotatedTask, load_tasks
from conftest import ROOT

CONFIGS = ROOT / "configs"
TASKS = load_tasks(CONFIGS / "tasks")
EXTRA_TASKS = load_tasks(CONFIGS / "tasks_extra")
ALL_TASKS = TASKS | EXTRA_TASKS
NOTHING = dict.fromkeys(task.annotation for task in TASKS.values() if isinstance(task, AnnotatedTask))


def row(number: int, **annotations) -> dict:
    return {
        "trial": f"t{number}",
        "participant": f"p{number // 2}",
        "split": "train",
        **NOTHING,
        **annotations,
    }


TRIALS = [
    row(0, activity="FSST", impaired="no", assistive_device="none", fsst_time=7.93),
    row(
        1, activity="overground walking", impaired="yes", diagnosis="LLPU", falls_history="yes", cadence=101.0
    ),
    row(2, activity="TUG", impaired="yes", diagnosis="stroke", falls_history="yes", tug_time=20.0),
    row(3, activity="sitting"),
    *(row(n, activity="overground walking", impaired="no", diagnosis="TBI") for n in range(4, 24)),
]

_MEASURED = {"duration": 9.0, "speed": 0.5, "knee_r": 40.0, "knee_l": 60.0}
PARAMETERS = {f"t{n}": dict.fromkeys(parameters.PARAMETERS) | _MEASURED for n in range(400)}
MANY_TRIALS = [
    row(n, activity="TUG" if n % 3 else "overground walking", impaired=["yes", "no", "no"][n // 2 % 3],
        walking_speed=0.5 + n % 7 / 10, assistive_device="cane", diagnosis="stroke")
    | {"split": "test" if n % 20 < 4 else "train"}
    for n in range(400)
]  # fmt: skip
