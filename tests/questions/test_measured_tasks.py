"""Tasks of measured quantities: their files, and that nothing is ever trained on them."""

import pytest

from biomechgpt.core.settings import InputError
from biomechgpt.motion.quantities import QUANTITIES
from biomechgpt.questions.dataset import QuestionsSettings, ask
from biomechgpt.questions.tasks import MeasuredTask, RegressionTask, askable, load_tasks, read_task
from conftest import ROOT

FOLDERS = [str(ROOT / "configs/tasks"), str(ROOT / "configs/tasks_extra")]
SHIPPED = load_tasks(ROOT / "configs/tasks_measured")
BY_CADENCE = """\
name: by_cadence
kind: measured
quantity: cadence
unit: steps/min
decimals: 0
templates: [a, b, c, d, e, f, g, h]
"""


def test_every_quantity_has_a_file():
    assert {task.quantity for task in SHIPPED.values()} == set(QUANTITIES)
    assert len(SHIPPED) == len(QUANTITIES)


@pytest.mark.parametrize("task", SHIPPED.values(), ids=list(SHIPPED))
def test_a_shipped_file_has_enough_wordings_and_shows_the_quantity_as_it_is(task):
    assert isinstance(task, MeasuredTask)
    assert len(task.templates) >= 8
    assert len(task.paraphrases) >= 20
    assert task.decimals == QUANTITIES[task.quantity].decimals
    spoken = [text.casefold() for text in [*task.templates, *task.paraphrases]]
    assert len(set(spoken)) == len(spoken)


def test_no_trial_is_asked_a_measured_task():
    rows = [{"trial": "a", "participant": "p", "split": "train", "activity": "overground walking"}]
    assert ask(rows, SHIPPED, 0) == []


def test_measured_tasks_are_asked_of_a_model_and_not_learned():
    settings = QuestionsSettings(tasks=FOLDERS, measured=str(ROOT / "configs/tasks_measured"))
    assert not any(isinstance(task, MeasuredTask) for task in settings.load().values())
    assert set(settings.load_measured()) == set(SHIPPED)
    assert set(askable(settings.load_measured(), 1)) == set(SHIPPED)
    assert QuestionsSettings(tasks=FOLDERS, measured=[]).load_measured() == {}


def test_a_measured_task_in_any_folder_of_tasks_is_not_learned_either(tmp_path):
    (tmp_path / "by_cadence.yaml").write_text(BY_CADENCE)
    settings = QuestionsSettings(tasks=[*FOLDERS, str(tmp_path)], measured=[])
    assert "by_cadence" not in settings.load()
    assert list(settings.load_measured()) == ["by_cadence"]
    assert settings.model_copy(update={"exclude": ["by_cadence"]}).load_measured() == {}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "quantity: cadence",
            "quantity: hopping",
            r"quantity: expected one of duration, .*, found 'hopping'",
        ),
        ("unit: steps/min", "unit: Hz", r"cadence is measured in 'steps/min', found 'Hz'"),
        ("decimals: 0\n", "", "decimals"),
    ],
)
def test_a_wrong_file_names_what_is_expected(tmp_path, old, new, message):
    path = tmp_path / "by_cadence.yaml"
    path.write_text(BY_CADENCE.replace(old, new))
    with pytest.raises(InputError, match=message) as error:
        read_task(path)
    assert str(path) in str(error.value)


def test_the_tasks_of_known_quantities_name_them_and_a_tolerance():
    shown = {
        name: (task.measured_as, task.tolerance)
        for name, task in load_tasks(FOLDERS).items()
        if isinstance(task, RegressionTask) and task.measured_as
    }
    assert {name: quantity for name, (quantity, _) in shown.items()} == {
        "walking_speed": "speed",
        "cadence": "cadence",
        "tug_time": "tug_time",
        "fsst_time": "fsst_time",
    }
    for quantity, tolerance in shown.values():
        assert tolerance >= QUANTITIES[quantity].tolerance


def test_a_tolerance_needs_a_quantity_of_the_same_unit():
    fields = {"name": "a", "annotation": "a", "unit": "m", "plausible": (0, 9), "templates": list("abcdefgh")}
    RegressionTask(**fields, measured_as="step_length", tolerance=0.1)
    for wrong in ({"tolerance": 0.1}, {"measured_as": "cadence"}, {"measured_as": "hopping"}):
        with pytest.raises(ValueError, match=r"expected|measured in"):
            RegressionTask(**fields, **wrong)
