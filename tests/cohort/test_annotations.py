"""Annotations: a study's own tables through a map, and what contradicts what, named by row."""

from pathlib import Path

import pytest
from test_cohort_build import folder_of

from biomechgpt.cohort import CohortSettings, make_cohort
from biomechgpt.cohort.annotation_map import AnnotationMap, MappedTables
from biomechgpt.cohort.annotations import AnnotationTable, Row, csv_lines
from biomechgpt.cohort.contradictions import contradictions
from biomechgpt.core import settings
from biomechgpt.core.settings import InputError
from biomechgpt.motion.outcome_measures import OUTCOME_MEASURES

REDCAP = settings.load(AnnotationMap, Path(__file__).parents[2] / "configs" / "annotations" / "redcap.yaml")
HEAD = (
    "record_id,redcap_repeat_instrument,redcap_repeat_instance,redcap_data_access_group,impaired,dx___1,dx___2,"
    "dx___3,dx___4,age,sex,device,task,speed_cm_s,cadence_strides,tug_s,fsst_s\n"
)
EXPORT = (
    HEAD
    + "P1,,,north,1,1,0,0,0,61,1,1,,,,,\n"
    + "P1,gait_trial,1,north,,,,,,,,,1,84,45,,\n"
    + "P1,gait_trial,2,north,,,,,,,,0,2,,,14.5,\n"
    + "P1,visit,1,north,,,,,,,,,,,,,\n"
    + "P2,,,south,0,0,0,0,0,-99,2,0,,,,,\n"
    + "P2,gait_trial,1,south,,,,,,,,,1,131,-99,,\n"
)


def mapped(text: str, how: AnnotationMap = REDCAP, **tables: str):
    files = {"in/redcap_export.csv": text, **{f"in/{name}.csv": t for name, t in tables.items()}}
    table = MappedTables.open("in", how, lambda uri: files[uri].encode()).annotation_table()
    return table.rows, table.columns


def test_a_redcap_export():
    rows, columns = mapped(EXPORT)
    assert [(r.line, r.path, r.participant) for r in rows] == [
        (3, "P1/trial_1.mot", "P1"),
        (4, "P1/trial_2.mot", "P1"),
        (7, "P2/trial_1.mot", "P2"),
    ]
    assert rows[0].annotations == {
        "impaired": "yes",
        "diagnosis": "stroke",
        "assistive_device": "cane",
        "activity": "overground walking",
        "walking_speed": 0.84,
        "cadence": 90.0,
        "tug_time": None,
        "fsst_time": None,
        "age": 61.0,
        "sex": "female",
        "site": "north",
    }
    assert rows[1].annotations["assistive_device"] == "none"  # a recording's own row comes first
    assert rows[1].annotations["tug_time"] == 14.5
    assert (rows[2].annotations["diagnosis"], rows[2].annotations["age"]) == (None, None)
    assert rows[2].annotations["walking_speed"] == 1.31
    assert columns["walking_speed"] == "number"
    assert contradictions(rows) == []


def test_events_and_several_tables():
    how = AnnotationMap(
        tables=["redcap_export.csv", "trials.csv"],
        path="file",
        columns={"tug_time": {"column": "tug", "unit": "min"}, "site": "site"},
    )
    people = "record_id,redcap_event_name,tug,site\nP1,baseline,0.2,north\nP1,follow_up,0.25,\n"
    trials = "record_id,redcap_event_name,file\nP1,baseline,a.mot\nP1,follow_up,b.mot\n"
    rows, _ = mapped(people, how, trials=trials)
    assert [(r.path, r.table, r.annotations) for r in rows] == [
        ("a.mot", "trials.csv", {"tug_time": 12.0, "site": "north"}),
        ("b.mot", "trials.csv", {"tug_time": 15.0, "site": "north"}),
    ]
    # Without an event of its own, which of the two is the recording's cannot be told.
    with pytest.raises(
        InputError, match=r"trials.csv: line 2: expected one tug_time .*'12' \(redcap_export.csv"
    ):
        mapped(people, how, trials="record_id,file\nP1,a.mot\n")


BAD_EXPORTS = {
    "a recording's row against its person's": (
        EXPORT.replace("2,north,,,,,,,,0", "2,north,,0,1,0,0,,,0"),
        r"line 4: expected one diagnosis for the participant, found 'SCI' \(redcap_export.csv: line 4\) and",
    ),
    "two ticks": (
        EXPORT.replace("north,1,1,0", "north,1,1,1"),
        r"redcap_export.csv: line 2: expected one diagnosis, found 'stroke' and 'SCI' ticked",
    ),
    "two people's rows": (
        EXPORT + "P1,,,north,1,0,0,1,0,61,1,1,,,,,\n",
        r"line 3: expected one diagnosis for the participant, found 'TBI' \(redcap_export.csv: line 8\) and "
        r"'stroke' \(redcap_export.csv: line 2\)",
    ),
    "a code": (
        EXPORT.replace("north,1,1", "north,7,1"),
        r"line 2, column 'impaired': expected one of the codes 0, 1, found '7'",
    ),
    "no number": (EXPORT.replace(",84,", ",fast,"), r"line 3, column 'speed_cm_s': .*found 'fast'"),
    "a column": (EXPORT.replace("tug_s", "tug"), r"redcap_export.csv: .*the map names, missing tug_s"),
    "no participant": (
        EXPORT.replace("record_id", "id"),
        r"line 1: expected a column 'record_id', found id,",
    ),
    "no recordings": (EXPORT.replace("gait_trial", "gait"), r"expected a row a recording, found none"),
}


@pytest.mark.parametrize("case", BAD_EXPORTS)
def test_a_bad_export_is_refused_by_row_and_column(case):
    text, message = BAD_EXPORTS[case]
    with pytest.raises(InputError, match=message):
        mapped(text)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tables": ["a.csv"], "path": "f", "columns": {"split": "s", "trial": "t"}}, "'trial' is a name"),
        (
            {"tables": ["a.csv"], "path": "f", "columns": {"sex": {"values": {}}}},
            "either `column` or `checkbox`",
        ),
        (
            {"tables": ["a.csv"], "path": "f", "columns": {"walking_speed": {"column": "v", "unit": "mph"}}},
            "among m/s, cm/s, km/h, found 'mph'",
        ),
    ],
)
def test_a_bad_map_is_refused(values, message):
    with pytest.raises(InputError, match=message):
        settings.validate(AnnotationMap, values, "map.yaml")


def test_written_lines_of_a_table_are_read_back():
    text = csv_lines([["path", "participant", "note"], ["a.mot", "p", 'a "b", c'], ["b.mot", "q", None]])
    assert text.splitlines()[2] == "b.mot,q,"
    first, second = AnnotationTable.parse("annotations.csv", text.encode()).rows
    assert (first.path, first.annotations["note"]) == ("a.mot", 'a "b", c')
    assert (second.participant, second.annotations["note"]) == ("q", None)


def test_a_yes_that_yaml_took_for_true_is_a_yes():
    how = settings.validate(
        AnnotationMap,
        {"tables": ["a.csv"], "path": "f", "columns": {"x": {"column": "y", "values": {1: True}}}},
        "",
    )
    assert how.columns["x"].values == {"1": "yes"}


def row(line: int, participant: str = "P1", **known) -> Row:
    return Row(line, f"{line}.mot", participant, None, {k: v for k, v in known.items() if k != "split"}, "t.csv",
               split=known.get("split"))  # fmt: skip


CONTRADICTIONS = {
    "two diagnoses": (
        [row(2, diagnosis="stroke"), row(3, diagnosis="SCI")],
        "t.csv: line 3: participant 'P1' has diagnosis 'SCI', but 'stroke' in t.csv: line 2",
    ),
    "two sexes": ([row(2, sex="female"), row(3, sex="male")], "has sex 'male', but 'female' in"),
    "two ages": ([row(2, age=61.0), row(3, age=16.0)], "has age 16, but 61 in"),
    "two splits": ([row(2, split="test"), row(3, split="train")], "has split 'train', but 'test' in"),
    "unimpaired with a diagnosis": (
        [row(2, impaired="no", diagnosis="TBI")],
        "t.csv: line 2: participant 'P1' is unimpaired (impaired: no), but has the diagnosis 'TBI'",
    ),
    "a TUG of no time": (
        [row(2, tug_time=0.2)],
        "line 2, column 'tug_time': expected 3 to 120 s, found 0.2, which looks like min",
    ),
    "a FSST in ms": ([row(2, fsst_time=9400.0)], "found 9400, which looks like ms"),
    "cm/s": ([row(2, walking_speed=120.0)], "expected 0.05 to 3 m/s, found 120, which looks like cm/s"),
    "km/h": ([row(2, walking_speed=4.5)], "found 4.5, which looks like km/h"),
    "a negative speed": ([row(2, walking_speed=-1.0)], "expected 0.05 to 3 m/s, found -1"),
    "steps a second": ([row(2, cadence=1.8)], "found 1.8, which looks like steps/s"),
    "strides beside a speed": (
        [row(2, walking_speed=1.3, cadence=55.0)],
        "1.3 m/s at 55 steps/min are steps of 1.42 m: the cadence looks like strides/min, or the speed like km/h",
    ),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_a_contradiction_is_named_by_row(case):
    rows, message = CONTRADICTIONS[case]
    (found,) = contradictions(rows)
    assert message in found


def test_unimpaired_people_who_take_half_the_steps():
    rows = [row(i, f"P{i}", impaired="no", cadence=50.0 + i) for i in range(2, 7)]
    found = contradictions(rows)
    assert len(found) == 5
    assert "line 2, column 'cadence': 52 steps/min of somebody unimpaired looks like strides/min" in found[0]
    assert (
        contradictions([*rows[:2], *(row(i, f"P{i}", impaired="no", cadence=110.0) for i in range(10, 14))])
        == []
    )


def test_what_can_be_is_no_contradiction():
    rows = [
        row(2, "P1", impaired="no", diagnosis="healthy", age=60.0, assistive_device="none", site="north"),
        row(3, "P1", impaired="no", diagnosis=None, age=61.0, assistive_device="cane", site="south"),
        row(4, "P2", impaired="yes", diagnosis="SCI", walking_speed=0.1, cadence=22.0, tug_time=119.0),
        row(5, "P3", walking_speed=2.4, cadence=140.0, tug_time=4.0),
    ]
    assert contradictions(rows) == []
    assert len(contradictions([row(2, tug_time=150.0)])) == 1
    assert contradictions([row(2, tug_time=150.0)], {"tug_time": (3, 300)}) == []


@pytest.mark.parametrize("measure", OUTCOME_MEASURES)
def test_no_typical_value_looks_like_another_unit(measure):
    known = OUTCOME_MEASURES[measure]
    assert known.looks_like(known.typical) == next(iter(known.units))
    for unit, size in known.units.items():
        if not known.low <= known.typical / size <= known.high:
            assert known.looks_like(known.typical / size) == unit


def test_split_and_frame_rate_are_no_annotations():
    text = b"path,participant,split,frame_rate_hz,activity\na.mot,x,test,100,walk\nb.mot,y,,,walk\n"
    table = AnnotationTable.parse("t.csv", text)
    assert table.columns == {"activity": "text"}
    assert [(r.split, r.frame_rate_hz) for r in table.rows] == [("test", 100.0), (None, None)]
    for wrong, message in ((b"test", "'tset'"), (b"100", "'fast'")):
        with pytest.raises(InputError, match=f"line 2, column .* found {message}"):
            AnnotationTable.parse("t.csv", text.replace(wrong, message.strip("'").encode()))


def test_all_contradictions_stop_the_run_before_anything_is_read(tmp_path):
    folder = folder_of(tmp_path / "in", participants=12, trials=1)
    table = folder / "annotations.csv"
    table.write_text(table.read_text().replace(",1.", ",141.").replace(",2", ",200"))
    with pytest.raises(InputError, match=r"12 contradictions\n(.*cm/s\n){10}  and 2 more$"):
        make_cohort(CohortSettings(recordings=str(folder)), str(tmp_path / "out"))
