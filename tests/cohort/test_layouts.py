"""Layouts: whose recordings a folder has, by its metadata, its names and the user's table."""

from pathlib import Path

import pytest

import real_recordings
from biomechgpt.cohort.folder import Folder, open_folder
from biomechgpt.core.settings import InputError
from opensim_files import mot, walk

METADATA = "height_m: 1.78\nmass_kg: 72.0\nopenSimModel: LaiUhlrich2022\nsex: m\n"
WALK = mot(walk(0.6))


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def session(name: str, metadata: str = METADATA, trials: tuple[str, ...] = ("walk",)) -> dict[str, str]:
    """An OpenCap session's files, with what else lies in one."""
    files = {f"{name}/OpenSimData/Kinematics/{trial}.mot": WALK for trial in trials}
    others = {
        "OpenSimData/Dynamics/forces.mot": WALK,
        "MarkerData/walk.trc": "PathFileType\t4\n",
        "README.txt": "x",
    }
    return files | {f"{name}/{k}": v for k, v in others.items()} | {f"{name}/sessionMetadata.yaml": metadata}


def who(folder: Folder) -> dict[str, str]:
    return {row.path.rsplit("/", 1)[-1]: row.participant for row in folder.rows}


def test_opencap_sessions_need_no_table(tmp_path):
    old = METADATA.replace("sex", "gender_mf").replace(": m", ": f") + "subjectID: P05\nage: 61\n"
    write(
        tmp_path,
        session("OpenCapData_1", trials=("walk", "squat")) | session("x/OpenCapData_2", old, ("tug",)),
    )
    folder = open_folder(str(tmp_path))
    assert who(folder) == {"walk.mot": "OpenCapData_1", "squat.mot": "OpenCapData_1", "tug.mot": "P05"}
    assert folder.columns == {"height_m": "number", "mass_kg": "number", "sex": "text", "age": "number"}
    by_person = {row.participant: row.annotations for row in folder.rows}
    assert by_person["OpenCapData_1"] == {"height_m": 1.78, "mass_kg": 72.0, "sex": "male", "age": None}
    assert by_person["P05"] == {"height_m": 1.78, "mass_kg": 72.0, "sex": "female", "age": 61.0}
    assert folder.unannotated == []


def test_subjects_of_addbiomechanics_need_no_table(tmp_path):
    metadata = '{"sex": "female", "massKg": "90.3", "heightM": 1.65, "subjectTags": ["healthy"]}'
    files = {
        "S1/_subject.json": metadata,
        "S1/IK/walk_ik.mot": WALK,
        "S1/ID/walk_id.mot": WALK,
        "study/S2/_subject.json": '{"sex": "unknown"}',
        "study/S2/trials/run/ik.mot": WALK,
    }
    folder = open_folder(str(write(tmp_path, files)))
    assert who(folder) == {"walk_ik.mot": "S1", "ik.mot": "S2"}
    by_person = {row.participant: row.annotations for row in folder.rows}
    assert by_person["S1"] == {"height_m": 1.65, "mass_kg": 90.3, "sex": "female"}
    assert by_person["S2"] == {"height_m": None, "mass_kg": None, "sex": None}
    write(tmp_path, {"S1/_subject.json": '{"massKg": "heavy"}'})
    with pytest.raises(
        InputError, match=r"S1/_subject.json: massKg: expected a number above 0, found 'heavy'"
    ):
        open_folder(str(tmp_path))


def test_markers_of_a_trial_need_no_row(tmp_path):
    """Laboratories keep a trial's markers beside its joint angles; alone they are a recording of their own."""
    trc = "PathFileType\t4\t(X/Y/Z)\n"
    table = "path,participant\nS1/walk.mot,S1\n"
    files = {"S1/walk.mot": WALK, "S1/walk.trc": trc, "S2/walk.trc": trc, "annotations.csv": table}
    assert open_folder(str(write(tmp_path, files))).unannotated == ["S2/walk.trc"]


def test_real_metadata_of_a_session(tmp_path):
    metadata = real_recordings.SHIPPED / "opensim" / "opencap-to-nwb" / "metadata.yaml"
    walk = real_recordings.path_of("opensim/opencap-processing/walking1_videoAndMocap.mot")
    inside = tmp_path / "S" / "OpenSimData" / "Kinematics"
    inside.mkdir(parents=True)
    (inside / walk.name).write_bytes(walk.read_bytes())
    (tmp_path / "S" / "sessionMetadata.yaml").write_bytes(metadata.read_bytes())
    (row,) = open_folder(str(tmp_path)).rows
    assert row.participant == "S"
    assert row.annotations == {"height_m": 1.78, "mass_kg": 72.0, "sex": "male"}


def test_a_table_adds_to_what_metadata_say(tmp_path):
    """And names who they leave nameless, in all of the session's recordings: nobody is two participants."""
    write(tmp_path, session("S1", trials=("walk", "squat")) | {"other.mot": WALK})
    table = f"path,participant,activity,mass_kg\n{WALK_ROW},P01,walking,72\nother.mot,P02,,\n"
    (tmp_path / "annotations.csv").write_text(table)
    folder = open_folder(str(tmp_path))
    assert who(folder) == {"squat.mot": "P01", "walk.mot": "P01", "other.mot": "P02"}
    assert [row.annotations.get("activity") for row in folder.rows] == [None, "walking", None]
    assert [row.annotations["mass_kg"] for row in folder.rows] == [72, 72, None]
    assert all(row.annotations.keys() == folder.columns.keys() for row in folder.rows)


WALK_ROW = "S1/OpenSimData/Kinematics/walk.mot"
CONTRADICTIONS = {
    f"path,participant,mass_kg\n{WALK_ROW},P05,80\n": r"annotations.csv: line 2, column 'mass_kg': "
    r"expected 72.0, as S1/sessionMetadata.yaml says, found 80.0",
    f"path,participant\n{WALK_ROW},P06\n": r"line 2, column 'participant': expected 'P05', as .* found 'P06'",
    f"path,participant,sex\n{WALK_ROW},P05,female\n": r"line 2, column 'sex': expected 'male', .* found 'female'",
    f"path,participant,height_m\n{WALK_ROW},P05,tall\n": r"line 1: column 'height_m': expected numbers, .*texts",
}


@pytest.mark.parametrize("table", CONTRADICTIONS, ids=["mass", "participant", "sex", "kind"])
def test_a_contradiction_is_named_by_line(table, tmp_path):
    write(tmp_path, session("S1", METADATA + "subjectID: P05\n") | {"annotations.csv": table})
    with pytest.raises(InputError, match=CONTRADICTIONS[table]):
        open_folder(str(tmp_path))


BAD_METADATA = {
    "height_m: tall\n": r"S1/sessionMetadata.yaml: height_m: expected a number above 0, found 'tall'",
    "mass_kg: -3\n": r"S1/sessionMetadata.yaml: mass_kg: expected a number above 0, found -3",
    "- 1\n": r"S1/sessionMetadata.yaml: expected a mapping, found list",
    "a: [\n": r"S1/sessionMetadata.yaml: not valid YAML",
}


@pytest.mark.parametrize("metadata", BAD_METADATA)
def test_bad_metadata_are_refused_by_file_and_key(metadata, tmp_path):
    write(tmp_path, session("S1", metadata))
    with pytest.raises(InputError, match=BAD_METADATA[metadata]):
        open_folder(str(tmp_path))


ONE = "[project]\nmulti_person = false\nparticipant_height = 1.72\nparticipant_mass = 70.0\n"
TWO = "[project]\nmulti_person = true\nparticipant_height = [1.72, 1.40]\nparticipant_mass = 'auto'\n"


def test_a_pose2sim_project(tmp_path):
    files = {
        "Anna/Config.toml": ONE,
        "Anna/kinematics/Anna_0-100_filt.mot": WALK,
        "Anna/pose-3d/Anna.trc": "x",
    }
    write(tmp_path, files)
    folder = open_folder(str(tmp_path))
    assert who(folder) == {"Anna_0-100_filt.mot": "Anna"}
    assert folder.rows[0].annotations == {"height_m": 1.72, "mass_kg": 70.0}
    assert folder.unannotated == []


def test_several_people_in_a_pose2sim_trial(tmp_path):
    files = {"T/Config.toml": TWO} | {f"T/kinematics/T_P{n}_0-99.mot": WALK for n in (1, 2)}
    folder = open_folder(str(write(tmp_path, files)))
    assert who(folder) == {"T_P1_0-99.mot": "T P1", "T_P2_0-99.mot": "T P2"}
    assert [row.annotations["height_m"] for row in folder.rows] == [1.72, 1.40]
    assert "mass_kg" not in folder.columns


def test_a_pose2sim_batch(tmp_path):
    """Trials of a participant's folder are one participant's; what a trial does not set, levels above do."""
    files = {
        "S/Config.toml": ONE,
        "S/S_P0/Config.toml": "[project]\nparticipant_mass = 55\n",
        "S/S_P0/walk/Config.toml": "",
        "S/S_P0/walk/kinematics/walk_P0.mot": WALK,
        "S/S_P0/sit/Config.toml": "",
        "S/S_P0/sit/kinematics/sit.mot": WALK,
        "S/S_P1/run/kinematics/no_config.mot": WALK,
    }
    folder = open_folder(str(write(tmp_path, files)))
    assert who(folder) == {"sit.mot": "S_P0", "walk_P0.mot": "S_P0"}
    assert all(row.annotations == {"height_m": 1.72, "mass_kg": 55.0} for row in folder.rows)
    assert folder.unannotated == ["S/S_P1/run/kinematics/no_config.mot"]


def test_a_table_may_part_people_whom_a_folder_joins(tmp_path):
    files = {"S/Config.toml": ONE} | {f"S/{t}/Config.toml": "" for t in "ab"}
    files |= {f"S/{t}/kinematics/{t}.mot": WALK for t in "ab"} | {"S/b/kinematics/c.mot": WALK}
    table = "path,participant\nS/a/kinematics/a.mot,A\nS/b/kinematics/b.mot,B\n"
    folder = open_folder(str(write(tmp_path, files | {"annotations.csv": table})))
    assert who(folder) == {"a.mot": "A", "b.mot": "B", "c.mot": "B"}
    (tmp_path / "S/b/kinematics/d.mot").write_text(WALK)
    (tmp_path / "annotations.csv").write_text(table + "S/b/kinematics/c.mot,C\n")
    with pytest.raises(
        InputError, match=r"expected a row for 'S/b/kinematics/d.mot', .*participants \(B, C\)"
    ):
        open_folder(str(tmp_path))


def test_bad_toml(tmp_path):
    write(tmp_path, {"T/Config.toml": "[project\n", "T/kinematics/a.mot": WALK})
    with pytest.raises(InputError, match=r"T/Config.toml: not valid TOML"):
        open_folder(str(tmp_path))


def test_recordings_are_found_by_content(tmp_path):
    files = {"a.txt": WALK, "people.csv": "id,age,time\n1,61,2\n2,70,3\n", "b.mot": "notes", "empty.mot": ""}
    write(tmp_path, files | {"c.mot": WALK, "annotations.csv": "path,participant,age,tug\nc.mot,1,61,9\n"})
    assert open_folder(str(tmp_path)).unannotated == ["a.txt"]


def test_metadata_make_the_checksum(tmp_path):
    write(tmp_path, session("S1"))
    before = open_folder(str(tmp_path)).checksum
    (tmp_path / "S1" / "sessionMetadata.yaml").write_text(METADATA + "subjectID: P05\n")
    assert open_folder(str(tmp_path)).checksum != before
