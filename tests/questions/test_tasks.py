"""Tasks: the nine of the paper, what an answer says and what is read back from it, and what is refused."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from biomechgpt.core.settings import InputError
from biomechgpt.questions.tasks import Task, load_tasks

CONFIGS = Path(__file__).parents[2] / "configs" / "tasks"
SHIPPED = load_tasks(CONFIGS)
LABELLED = [task for task in SHIPPED.values() if task.labels]
MEASURED = [task for task in SHIPPED.values() if task.kind == "regression"]
FEW = hypothesis_settings(max_examples=100, deadline=None)
QUESTIONS = [f"Question {i}?" for i in range(8)]


def folder_of(path: Path, **task) -> Path:
    """A folder with one task file, `speed.yaml` unless named otherwise."""
    task = {"name": "speed", "kind": "classification", "annotation": "speed", "phrasings": QUESTIONS} | task
    (path / f"{task.pop('file', 'speed')}.yaml").write_text(yaml.safe_dump(task))
    return path


def test_the_papers_nine_tasks_are_shipped():
    classes = {
        "activity": None,
        "impaired": 2,
        "diagnosis": 4,
        "assistive_device": 5,
        "falls_history": 2,
    }
    units = {"walking_speed": "m/s", "cadence": "steps/min", "tug_time": "s", "fsst_time": "s"}
    assert {t.name: t.unit for t in MEASURED} == units
    others = [t for t in SHIPPED.values() if t.kind == "classification"]
    assert {t.name: t.labels and len(t.labels) for t in others} == classes


@pytest.mark.parametrize("task", SHIPPED.values(), ids=list(SHIPPED))
def test_a_question_has_eight_wordings_of_its_own_ready_for_a_chat(task):
    assert len(task.phrasings) >= 8
    assert all(text == text.strip() and text[0].isupper() and text[-1] in ".?" for text in task.phrasings)
    elsewhere = {text for other in SHIPPED.values() if other is not task for text in other.phrasings}
    assert not elsewhere & set(task.phrasings)


@pytest.mark.parametrize("task", LABELLED, ids=lambda task: task.name)
def test_every_label_is_understood_when_spoken_in_any_case_with_or_without_a_stop(task):
    for label in task.labels:
        said = task.answer(task.truth({task.annotation: label}))
        for text in (said, said.upper(), f" {said.capitalize()}. \n", f"{said} ."):
            assert task.parse(text) == label
    for text in ("", ".", "I cannot tell", " ".join(task.labels.values())):
        assert task.parse(text) is None


@FEW
@given(st.text(min_size=1).filter(lambda text: text.strip().rstrip(".").strip() == text))
def test_without_labels_an_answer_is_its_own_label(text):
    task = SHIPPED["activity"]
    assert task.parse(task.answer(task.truth({"activity": text}))) == text


@FEW
@given(st.data(), st.sampled_from(MEASURED))
def test_a_number_survives_to_the_tasks_decimals(data, task):
    value = data.draw(st.floats(*task.plausible))
    said = task.answer(task.truth({task.annotation: value}))
    assert said.endswith(f" {task.unit}")
    assert (
        task.parse(said) == round(value, task.decimals) == pytest.approx(value, abs=0.51 * 0.1**task.decimals)
    )
    assert task.parse(f"About {said}.") == task.parse(said)


def test_a_number_is_found_in_words_and_missed_where_there_is_none():
    task = Task(name="a", kind="regression", annotation="a", unit="m", plausible=(-9, 9), phrasings=QUESTIONS)
    assert task.parse("minus? no: -1.5 m") == -1.5
    assert task.parse("3.") == 3
    assert task.parse("fast") is None
    assert task.parse("") is None


def test_a_question_is_asked_only_where_it_applies():
    diagnosis, falls, speed = (SHIPPED[name] for name in ("diagnosis", "falls_history", "walking_speed"))
    assert diagnosis.applies({"impaired": "yes", "diagnosis": "stroke"})
    assert not diagnosis.applies({"impaired": "no", "diagnosis": "stroke"})
    assert not diagnosis.applies({"diagnosis": "stroke"})
    assert not diagnosis.applies({"impaired": "yes", "diagnosis": None})
    assert falls.applies({"diagnosis": "LLPU", "falls_history": "no"})
    assert not falls.applies({"diagnosis": "LLPU"})
    for other in ("stroke", "SCI", "TBI", None):
        assert not falls.applies({"diagnosis": other, "falls_history": "yes"})
    assert speed.applies({"walking_speed": 0.0})
    assert not speed.applies({})


@pytest.mark.parametrize("wrong", [0.0, 3.01, -1.0, float("nan"), float("inf"), "fast"])
def test_an_implausible_measurement_is_refused_by_trial_and_column(wrong):
    with pytest.raises(InputError, match=r"trial t7, column 'walking_speed': expected 0.05 to 3 m/s, found"):
        SHIPPED["walking_speed"].truth({"trial": "t7", "walking_speed": wrong})


def test_an_unknown_label_is_refused_with_those_there_are():
    with pytest.raises(
        InputError, match=r"trial t7, column 'diagnosis': expected one of .*LLPU.* found 'flu'"
    ):
        SHIPPED["diagnosis"].truth({"trial": "t7", "diagnosis": "flu"})


@pytest.mark.parametrize(
    ("task", "named"),
    [
        ({"colour": "red"}, r"speed\.yaml.*\n.*colour: unknown key"),
        ({"file": "pace"}, r"pace\.yaml: name: expected the file's name 'pace', found 'speed'"),
        ({"name": "Speed"}, r"name: .*found 'Speed'"),
        ({"kind": "guess"}, r"kind: .*found 'guess'"),
        ({"phrasings": QUESTIONS[:7]}, "phrasings: .*8 items"),
        ({"phrasings": [*QUESTIONS, QUESTIONS[0]]}, "phrasings repeat"),
        ({"labels": {"a": "fast", "b": "fast"}}, "same spoken answer"),
        ({"labels": {"a": "fast", "b": "Fast."}}, "same spoken answer"),
        ({"kind": "regression", "unit": "m/s"}, "needs `unit` and `plausible`"),
        ({"kind": "regression", "plausible": [0, 1]}, "needs `unit` and `plausible`"),
        ({"decimals": -1}, "decimals: "),
    ],
)
def test_a_wrong_task_file_is_refused_by_name(tmp_path, task, named):
    with pytest.raises(InputError, match=named):
        load_tasks(folder_of(tmp_path, **task))


def test_an_empty_folder_and_an_unknown_name_are_refused(tmp_path):
    with pytest.raises(InputError, match=rf"{tmp_path}: no task files"):
        load_tasks(tmp_path)
    with pytest.raises(InputError, match=r"unknown \['balance'\].*tug_time"):
        load_tasks(CONFIGS, ["activity", "balance"])


def test_tasks_come_in_the_order_they_are_named():
    names = ["tug_time", "activity"]
    assert list(load_tasks(CONFIGS, names)) == names


def test_names_may_come_from_anything_that_iterates():
    assert list(load_tasks(CONFIGS, iter(["tug_time"]))) == ["tug_time"]


def test_a_new_question_is_a_new_file_and_nothing_else(tmp_path):
    labels = {"0": "no freezing", "1": "freezing of gait"}
    applies = {"diagnosis": ["parkinsonism"]}
    folder_of(
        tmp_path, file="freezing", name="freezing", annotation="fog", labels=labels, applies_when=applies
    )
    folder_of(tmp_path, kind="regression", unit="km/h", plausible=[0, 30], decimals=3)
    tasks = load_tasks(tmp_path)
    assert list(tasks) == ["freezing", "speed"]
    row = {"trial": "t", "diagnosis": "parkinsonism", "fog": "1", "speed": 4.56789}
    assert all(task.applies(row) for task in tasks.values())
    said = [task.answer(task.truth(row)) for task in tasks.values()]
    assert said == ["freezing of gait", "4.568 km/h"]
    assert [task.parse(text) for task, text in zip(tasks.values(), said, strict=True)] == ["1", 4.568]
    assert not tasks["freezing"].applies(row | {"diagnosis": "stroke"})


def test_a_label_may_be_a_number_as_a_table_has_it():
    labels = {"0": "no freezing", "1": "freezing of gait"}
    task = Task(name="fog", kind="classification", annotation="fog", labels=labels, phrasings=QUESTIONS,
                applies_when={"stage": ["2", "3"]})  # fmt: skip
    row = {"trial": "t", "fog": 1.0, "stage": 3.0}
    assert task.applies(row)
    assert task.answer(task.truth(row)) == "freezing of gait"


def test_a_label_that_ends_in_a_stop_is_understood():
    labels = {"a": "approx. 2 falls p.a.", "b": "none"}
    task = Task(name="f", kind="classification", annotation="f", labels=labels, phrasings=QUESTIONS)
    assert task.parse(task.answer("a")) == "a"


BEYOND = load_tasks(CONFIGS.parent / "dialogue")


def test_questions_beyond_the_paper_are_shipped_apart_and_share_no_wording():
    assert {t.kind for t in BEYOND.values()} == {
        "classification",
        "regression",
        "description",
        "refusal",
        "generation",
    }
    both = load_tasks([str(CONFIGS), str(CONFIGS.parent / "dialogue")])
    assert list(both) == [*SHIPPED, *BEYOND]
    every = [text for task in both.values() for text in (*task.phrasings, *task.held_out)]
    assert len({text.casefold() for text in every}) == len(every)
    assert len(BEYOND["out_of_scope"].held_out) >= 60


def test_two_folders_with_a_task_of_one_name_are_refused():
    with pytest.raises(InputError, match="found another task 'activity'"):
        load_tasks([str(CONFIGS), str(CONFIGS)])


@pytest.mark.parametrize(
    ("task", "named"),
    [
        ({"annotation": None}, "annotation: expected one of a classification task"),
        ({"kind": "description"}, "annotation: expected none of a description task"),
        ({"kind": "refusal", "annotation": None}, "expected `says` of a refusal task"),
        ({"says": "No."}, "expected `says` of a refusal task, and only of one"),
        ({"kind": "generation", "annotation": None}, r"expected `\{\}` in each"),
        ({"compare": {"how": "which"}}, "expected `of` with how: which"),
        ({"compare": {"how": "more", "of": "x"}}, "and only with it"),
        ({"compare": {"how": "change"}}, "how: change of a regression task"),
        ({"compare": {"how": "more"}}, r"labels: expected one for each of \['A', 'B'\]"),
        ({"share": 0}, "share: "),
        ({"held_out": [QUESTIONS[0]]}, "phrasings repeat"),
    ],
)
def test_a_task_that_is_not_whole_is_refused(tmp_path, task, named):
    with pytest.raises(InputError, match=named):
        load_tasks(folder_of(tmp_path, **task))


def test_two_movements_are_compared_as_the_task_says():
    which, more, change = (BEYOND[name] for name in ("which_impaired", "quicker", "speed_change"))
    yes, no = {"impaired": "yes"}, {"impaired": "no"}
    assert (which.compared(yes, no), which.compared(no, yes)) == ("A", "B")
    assert which.compared(yes, yes) is which.compared(no, no) is None
    slow, fast = {"walking_speed": 0.8}, {"walking_speed": 1.3}
    assert (more.compared(slow, fast), more.compared(fast, slow)) == ("B", "A")
    assert more.compared(slow, {"walking_speed": 0.85}) is None
    assert change.compared(slow, fast) == pytest.approx(0.5)
    assert change.compared(fast, slow) == pytest.approx(-0.5)
    assert change.answer(-0.501) == "-0.50 m/s"
    assert change.answer(-0.001) == change.answer(0.001) == "0.00 m/s"
    assert change.parse("-0.50 m/s") == -0.5


def test_a_refusal_is_told_from_an_answer():
    task = BEYOND["out_of_scope"]
    assert task.parse(f" {task.says.upper()} ") == task.parse(task.answer("refused")) == "refused"
    assert task.parse("Paris") == task.parse("") == "answered"
