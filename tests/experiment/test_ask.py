"""Which files `biomechgpt answer` asks about."""

import pytest

from biomechgpt.core.settings import InputError
from biomechgpt.experiment.ask import _files, _participants
from opensim_files import mot, walk


def test_files_that_a_person_takes_for_recordings(tmp_path):
    """Each is read or named, but for a session's markers, notes and the table of people."""
    motion = mot(walk(1.0))
    files = {
        "annotations.csv": "path,participant\n",
        "notes.txt": "Anna walked well\n",
        "S1/MarkerData/walk.trc": "PathFileType\t4\n",
        "S1/OpenSimData/Kinematics/walk.mot": motion,
        "S1/Videos/walk.mov": "x",
        "alone.trc": "PathFileType\t4\n",
        "__MACOSX/walk.mot": motion,
        ".hidden/walk.mot": motion,
        "readme.md": "text",
        "renamed.txt": motion,
        "table.dat": "time,hip_flexion_r,knee_angle_r\n0.0,1.0,2.0\n0.1,1.0,2.0\n",
        "without suffix": motion,
        "session.zip": "x",
        "walk.qtm": "x",
    }
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    found = [name for name, _ in _files(str(tmp_path))]
    assert found == [
        "S1/OpenSimData/Kinematics/walk.mot",
        "alone.trc",
        "renamed.txt",
        "session.zip",
        "table.dat",
        "walk.qtm",
        "without suffix",
    ]
    with pytest.raises(InputError, match="expected a recording or a folder of recordings, found nothing"):
        _files(str(tmp_path / "S1" / "Videos"))
    with pytest.raises(InputError, match="found no such file or folder"):
        _files(str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    "table",
    [
        b"path,participant\nP1/walk.mot,Anna\n",
        b"sep=;\r\nPath;Participant;age\r\nP1\\walk.mot;Anna;40\r\n",
        "Participant\tPath\nAnna\tp1/Walk.mot\n".encode("utf-16"),
        "path;participant;note\nP1/walk.mot;Anna;müde\n".encode("latin-1"),
    ],
)
def test_the_participant_comes_from_the_table_however_it_was_saved(tmp_path, table):
    (tmp_path / "annotations.csv").write_bytes(table)
    people = _participants(str(tmp_path), ["P1/walk.mot", "P2/walk.mot", "run.mot"])
    assert people == {"P1/walk.mot": "Anna", "P2/walk.mot": "P2", "run.mot": "run"}


def test_a_table_that_cannot_be_read_leaves_the_folders(tmp_path, caplog):
    (tmp_path / "annotations.csv").write_text("file,who\nP1/walk.mot,Anna\n")
    assert _participants(str(tmp_path), ["P1/walk.mot"]) == {"P1/walk.mot": "P1"}
    assert "expected columns path and participant, found file, who" in caplog.text
