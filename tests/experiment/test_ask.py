"""Which files `biomechgpt answer` asks about."""

import pytest

from biomechgpt.core.settings import InputError
from biomechgpt.experiment.ask import _files
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
        "renamed.txt": motion,
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
        "walk.qtm",
    ]
    with pytest.raises(InputError, match="expected a recording or a folder of recordings, found nothing"):
        _files(str(tmp_path / "S1" / "Videos"))
