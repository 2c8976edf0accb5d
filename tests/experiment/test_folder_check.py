"""A folder is checked before anything is trained: what is read and what is not, labels, people in each split."""

import numpy as np
import pytest

from biomechgpt.cohort import CohortSettings
from biomechgpt.cohort.annotations import AnnotationTable
from biomechgpt.core.settings import InputError
from biomechgpt.experiment.folder_check import (
    CheckSettings,
    NewTableSettings,
    check_folder,
    run_folder_check,
    write_new_table,
)
from biomechgpt.questions.tasks import load_tasks
from conftest import ROOT
from opensim_files import mot, walk

TASKS = load_tasks(ROOT / "configs/tasks")


@pytest.fixture
def folder(tmp_path):
    """Twelve people with a walk each, a file that cannot be read, and a recording without a row."""
    lines = ["path,participant,activity,impaired,shoe_size"]
    for person in range(12):
        columns = walk(2.0)
        columns["hip_flexion_r"] = columns["hip_flexion_r"] + person * np.sin(7 * columns["time"])
        (tmp_path / f"p{person}").mkdir()
        (tmp_path / f"p{person}/walk.mot").write_text(mot(columns))
        lines.append(f"p{person}/walk.mot,p{person},overground walking,{'maybe' if person == 3 else 'no'},42")
    (tmp_path / "p0/broken.mot").write_text(mot(walk(2.0))[:-400])
    lines.append("p0/broken.mot,p0,overground walking,no,42")
    (tmp_path / "extra.mot").write_text(mot(walk(3.0)))
    (tmp_path / "notes.txt").write_text("no recording")
    (tmp_path / "annotations.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_a_folder_is_reported(folder):
    report = check_folder(str(folder), CohortSettings(), TASKS)
    assert len(report.read) == 13
    assert list(report.unread) == ["p0/broken.mot"]
    assert report.unannotated == ["extra.mot"]
    assert report.unknown_labels == {"impaired": {"maybe": 1}}
    assert report.unused_columns == ["shoe_size"]
    assert sum(report.people.values()) == 12
    text = report.text("lab")
    assert "13 recordings are read, 1 are not" in text
    assert "p0/broken.mot" in text
    assert "no task knows 'maybe' (1)" in text
    assert "biomechgpt answer lab" not in text or report.people["train"] < 10


def test_without_a_table_the_recordings_are_checked_and_the_next_step_is_named(folder):
    (folder / "annotations.csv").unlink()
    report = check_folder(str(folder), CohortSettings(), TASKS)
    assert len(report.read) == 13
    assert report.people == {}
    assert any("new-table" in problem for problem in report.problems)


def test_a_wrong_table_is_a_problem_and_the_rest_is_still_checked(folder):
    (folder / "annotations.csv").write_text("file,who\nwalk.mot,p1\n")
    report = check_folder(str(folder), CohortSettings(), TASKS)
    assert any("expected a column 'path'" in problem for problem in report.problems)
    assert len(report.read) == 13


def test_a_row_without_its_file_is_named(folder):
    with (folder / "annotations.csv").open("a") as table:
        table.write("p1/lost.mot,p1,TUG,no,42\n")
    assert any(
        "p1/lost.mot" in problem for problem in check_folder(str(folder), CohortSettings(), TASKS).problems
    )


def test_an_absent_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        run_folder_check(CheckSettings(folder=str(tmp_path / "nowhere")))


def test_a_new_table_is_one_to_fill_in_and_never_replaces_another(folder):
    settings = NewTableSettings(folder=str(folder))
    with pytest.raises(InputError, match=r"without annotations\.csv"):
        write_new_table(settings)
    (folder / "annotations.csv").unlink()
    write_new_table(settings)
    table = AnnotationTable.parse("annotations.csv", (folder / "annotations.csv").read_bytes())
    assert {row.path: row.participant for row in table.rows}["p3/walk.mot"] == "p3"
    assert {row.path: row.participant for row in table.rows}["extra.mot"] == "extra"
    assert {"activity", "walking_speed"} <= set(table.columns)


def test_a_table_with_semicolons_and_decimal_commas(folder):
    lines = [
        "path;participant;walking_speed;activity",
        "a.mot;P1;1,21;overground walking, slow",
        "b.mot;P2;;TUG",
    ]
    table = AnnotationTable.parse("annotations.csv", "\n".join(lines).encode())
    assert [row.annotations["walking_speed"] for row in table.rows] == [1.21, None]
    assert table.rows[0].annotations["activity"] == "overground walking, slow"


def test_near_copies_and_files_of_other_kinds_are_named(folder):
    columns = walk(3.0)
    (folder / "copy.mot").write_text(
        mot({k: v[:-7] + (0 if k == "time" else 0.01) for k, v in columns.items()})
    )
    (folder / "walk.qtm").write_bytes(bytes(range(256)))
    report = check_folder(str(folder), CohortSettings(), TASKS)
    assert any("copy.mot and extra.mot are nearly the same" in pair for pair in report.near_copies)
    assert "a recording of Qualisys (.qtm)" in report.unread["walk.qtm"]
    assert "  copies: copy.mot" in report.text("lab")


def test_tables_of_joint_angles_are_in_a_new_table_and_others_are_not(tmp_path):
    columns = walk(2.0)
    lines = [
        ",".join(columns),
        *(",".join(f"{v:.5f}" for v in row) for row in zip(*columns.values(), strict=True)),
    ]
    (tmp_path / "P1").mkdir()
    (tmp_path / "P1/w\u00e4lk 1.csv").write_text("\n".join(lines))
    (tmp_path / "forces.csv").write_text("time,Fx,Fy\n0.0,1,2\n0.1,1,2\n")
    write_new_table(NewTableSettings(folder=str(tmp_path)))
    table = AnnotationTable.parse("annotations.csv", (tmp_path / "annotations.csv").read_bytes())
    assert {row.path: row.participant for row in table.rows} == {"P1/w\u00e4lk 1.csv": "P1"}


def test_labels_and_paths_in_another_case_are_the_same(folder):
    text = (folder / "annotations.csv").read_text()
    text = (
        text.replace("path,participant", "Path,Participant")
        .replace(",no,", ",No,")
        .replace("/walk", "\\Walk")
    )
    (folder / "annotations.csv").write_bytes(text.encode("utf-16"))
    report = check_folder(str(folder), CohortSettings(), TASKS)
    assert report.problems == []
    assert report.unknown_labels == {"impaired": {"maybe": 1}}
    assert report.unannotated == ["extra.mot"]


def test_links_and_names_of_tables(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "linked.mot").write_text(mot(walk(4.0)))
    (folder / "more").symlink_to(elsewhere)
    (folder / "back").symlink_to(folder)
    (folder / "lost.mot").symlink_to(folder / "nowhere.mot")
    (folder / "annotations.csv").rename(folder / "Annotations.csv")
    report = check_folder(str(folder), CohortSettings(), TASKS)
    assert "more/linked.mot" in report.read
    assert "expected a file that can be read" in report.unread["lost.mot"]
    assert not any(name.startswith("back") for name in report.read)
    assert "Annotations.csv: save it as annotations.csv" in report.problems
