"""Tasks: the nine of the paper, what an answer says and what is read back from it, and what is refused."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from biomechgpt.core.settings import InputError
from biomechgpt.questions.tasks import (
    KINDS,
    ClassificationTask,
    LabelTask,
    NumberTask,
    RegressionTask,
    json_schema,
    load_tasks,
)

CONFIGS = Path(__file__).parents[2] / "configs" / "tasks"
SHIPPED = load_tasks(CONFIGS)
LABELLED = [task for task in SHIPPED.values() if isinstance(task, LabelTask) and task.labels]
MEASURED = [task for task in SHIPPED.values() if isinstance(task, NumberTask)]
FEW = hypothesis_settings(max_examples=100, deadline=None)
QUESTIONS = [f"Question {i}?" for i in range(8)]
AB = {"A": "movement A", "B": "movement B"}


def folder_of(path: Path, **task) -> Path:
    """A folder with one task file, `speed.yaml` unless named otherwise; None leaves a field out."""
    task = {"name": "speed", "kind": "classification", "annotation": "speed", "templates": QUESTIONS} | task
    task = {key: value for key, value in task.items() if value is not None}
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
    assert len(task.templates) >= 8
    assert all(text == text.strip() and text[0].isupper() and text[-1] in ".?" for text in task.templates)
    elsewhere = {text for other in SHIPPED.values() if other is not task for text in other.templates}
    assert not elsewhere & set(task.templates)


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
    task = RegressionTask(name="a", annotation="a", unit="m", plausible=(-9, 9), templates=QUESTIONS)
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
        ({"kind": "guess"}, r"speed\.yaml: kind: expected one of classification, .*, found 'guess'"),
        ({"kind": None}, r"speed\.yaml: kind: expected one of classification, .*, found None"),
        ({"templates": QUESTIONS[:7]}, "templates: .*8 items"),
        ({"templates": [*QUESTIONS, QUESTIONS[0]]}, "templates repeat"),
        ({"labels": {"a": "fast", "b": "fast"}}, "two labels have the same text"),
        ({"labels": {"a": "fast", "b": "Fast."}}, "two labels have the same text"),
        ({"kind": "regression", "unit": "m/s"}, r"speed\.yaml.*\n.*plausible: "),
        ({"kind": "regression", "plausible": [0, 1]}, r"speed\.yaml.*\n.*unit: "),
        ({"kind": "regression", "unit": "m/s", "plausible": [0, 1], "decimals": -1}, "decimals: "),
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
    task = ClassificationTask(name="fog", annotation="fog", labels=labels, templates=QUESTIONS,
                applies_when={"stage": ["2", "3"]})  # fmt: skip
    row = {"trial": "t", "fog": 1.0, "stage": 3.0}
    assert task.applies(row)
    assert task.answer(task.truth(row)) == "freezing of gait"


def test_a_label_that_ends_in_a_stop_is_understood():
    labels = {"a": "approx. 2 falls p.a.", "b": "none"}
    task = ClassificationTask(name="f", annotation="f", labels=labels, templates=QUESTIONS)
    assert task.parse(task.answer("a")) == "a"


BEYOND = load_tasks(CONFIGS.parent / "tasks_extra")


def test_questions_beyond_the_paper_are_shipped_apart_and_share_no_wording():
    assert {t.kind for t in (SHIPPED | BEYOND).values()} == set(KINDS) - {"measured"}
    assert {t.answer_kind for t in BEYOND.values()} == {
        "classification",
        "regression",
        "description",
        "refusal",
        "generation",
    }
    both = load_tasks([str(CONFIGS), str(CONFIGS.parent / "tasks_extra")])
    assert list(both) == [*SHIPPED, *BEYOND]
    every = [text for task in both.values() for text in (*task.templates, *task.test_templates)]
    assert len({text.casefold() for text in every}) == len(every)
    assert len(BEYOND["out_of_scope"].test_templates) >= 60


def test_two_folders_with_a_task_of_one_name_are_refused():
    with pytest.raises(InputError, match="found another task 'activity'"):
        load_tasks([str(CONFIGS), str(CONFIGS)])


@pytest.mark.parametrize(
    ("task", "named"),
    [
        ({"annotation": None}, "annotation: Field required"),
        ({"kind": "description"}, r"annotation: unknown key\n  a description task has name, "),
        ({"kind": "refusal", "annotation": None}, "refusal_text: Field required"),
        ({"refusal_text": "No."}, r"refusal_text: unknown key\n  a classification task has name, "),
        ({"kind": "generation", "annotation": None}, r"templates: expected `\{\}` in each"),
        ({"kind": "label_comparison", "labels": AB}, "label: Field required"),
        ({"kind": "number_comparison", "labels": AB, "label": "x"}, "label: unknown key"),
        ({"kind": "change", "labels": AB}, "labels: unknown key"),
        ({"kind": "number_comparison"}, "labels: Field required"),
        ({"kind": "number_comparison", "labels": {"A": "A"}}, r"labels: .* movements \['A', 'B'\]"),
        ({"sample_share": 0}, "sample_share: "),
        ({"test_templates": [QUESTIONS[0]]}, "templates repeat"),
        ({"paraphrases": [QUESTIONS[0]]}, "templates repeat"),
        ({"labels": {"a": "A"}, "synonyms": {"b": ["beta"]}}, "synonyms: 'b' is none of the labels"),
        ({"synonyms": {"a": ["alpha"], "b": ["Alpha."]}}, "synonyms: 'alpha' stands for two labels"),
    ],
)
def test_a_task_that_is_not_whole_is_refused(tmp_path, task, named):
    with pytest.raises(InputError, match=named):
        load_tasks(folder_of(tmp_path, **task))


def test_two_movements_are_compared_as_the_task_says():
    which, more, change = (BEYOND[name] for name in ("which_impaired", "quicker", "speed_change"))
    yes, no = {"impaired": "yes"}, {"impaired": "no"}
    assert (which.compare(yes, no), which.compare(no, yes)) == ("A", "B")
    assert which.compare(yes, yes) is which.compare(no, no) is None
    slow, fast = {"walking_speed": 0.8}, {"walking_speed": 1.3}
    assert (more.compare(slow, fast), more.compare(fast, slow)) == ("B", "A")
    assert more.compare(slow, {"walking_speed": 0.85}) is None
    assert change.compare(slow, fast) == pytest.approx(0.5)
    assert change.compare(fast, slow) == pytest.approx(-0.5)
    assert change.answer(-0.501) == "-0.50 m/s"
    assert change.answer(-0.001) == change.answer(0.001) == "0.00 m/s"
    assert change.parse("-0.50 m/s") == -0.5


def test_a_refusal_is_told_from_an_answer():
    task = BEYOND["out_of_scope"]
    assert task.parse(f" {task.refusal_text.upper()} ") == task.parse(task.answer("refused")) == "refused"
    assert task.parse("Paris") == task.parse("") == "answered"


def test_excluded_tasks_are_left_out_and_must_exist():
    tasks = load_tasks(CONFIGS, exclude=["cadence"])
    assert list(tasks) == [name for name in SHIPPED if name != "cadence"]
    assert list(load_tasks(CONFIGS, ["cadence", "activity"], ["cadence"])) == ["activity"]
    with pytest.raises(InputError, match=r"unknown \['balance'\]"):
        load_tasks(CONFIGS, exclude=["balance"])


def test_paraphrases_and_synonyms_are_no_training_fields():
    task = SHIPPED["activity"]
    changes = {"paraphrases": [*task.paraphrases, "Doing what?"], "synonyms": {"TUG": ["chair test"]}}
    more = task.model_copy(update=changes)
    assert more != task
    assert more.training_fields() == task.training_fields()
    for field in ("templates", "test_templates", "annotation", "labels", "sample_share", "kind"):
        assert field in task.training_fields()


def test_each_task_names_the_columns_that_it_reads():
    assert SHIPPED["diagnosis"].columns == ("diagnosis", "impaired")
    assert SHIPPED["diagnosis"].annotation_columns == ("diagnosis",)
    assert BEYOND["quicker"].columns == ("walking_speed", "activity")
    assert BEYOND["description"].columns == ()


def test_the_schema_for_editors_is_current():
    """To renew it: `python -m biomechgpt.questions.tasks > configs/tasks/schema.json`."""
    assert json.loads((CONFIGS / "schema.json").read_text()) == json_schema()


@pytest.mark.parametrize(
    "path", [*CONFIGS.glob("*.yaml"), *CONFIGS.parent.glob("tasks_[em]*/*.yaml")], ids=lambda p: p.stem
)
def test_the_schema_takes_every_shipped_file_and_no_misspelt_one(path):
    validator = jsonschema.Draft202012Validator(json_schema())
    values = yaml.safe_load(path.read_text())
    validator.validate(values)
    assert not validator.is_valid(values | {"phrasing": []})
    assert not validator.is_valid(values | {"kind": "guess"})
    assert not validator.is_valid({key: value for key, value in values.items() if key != "kind"})


def test_labels_are_known_in_whichever_case_people_write_them():
    tasks = SHIPPED
    assert tasks["impaired"].truth({"impaired": "Yes", "trial": "a"}) == "yes"
    assert tasks["activity"].truth({"activity": "tug", "trial": "a"}) == "TUG"
    assert tasks["activity"].truth({"activity": "My own test", "trial": "a"}) == "My own test"
    assert tasks["diagnosis"].applies({"diagnosis": "Stroke", "impaired": "YES"})
    assert not tasks["diagnosis"].applies({"diagnosis": "stroke", "impaired": "No"})
