"""The recipe "a folder layout" of docs/extending.md, carried out as a stranger would."""

import json
import shutil
import subprocess
import sys

from conftest import ROOT
from opensim_files import mot, walk

RECIPE = ROOT / "tests" / "data" / "recipes" / "person_folder.py"
LIST = "LAYOUTS: tuple[Layout, ...] = (addbiomechanics, opencap, pose2sim)"
IMPORT = "from biomechgpt.cohort.layouts import addbiomechanics, opencap, pose2sim"
USE = """
import json, sys
from biomechgpt.cohort.folder import open_folder
from biomechgpt.core.settings import InputError
folder = open_folder(sys.argv[1])
try:
    open_folder(sys.argv[2])
except InputError as error:
    print(json.dumps([[[row.path, row.participant, row.annotations] for row in folder.rows], str(error)]))
"""


def test_a_layout_is_one_module_and_one_entry(tmp_path):
    """In a copy of the package: nothing but these two files changes, and the error text knows the new layout."""
    package = tmp_path / "platform" / "biomechgpt"
    shutil.copytree(ROOT / "platform" / "biomechgpt", package, ignore=shutil.ignore_patterns("__pycache__"))
    folder = package / "cohort" / "layouts"
    shutil.copy(RECIPE, folder)
    registry = (folder / "__init__.py").read_text()
    assert IMPORT in registry
    assert LIST in registry
    registry = registry.replace(IMPORT, IMPORT.replace("opencap,", "opencap, person_folder,"))
    registry = registry.replace(LIST, LIST.replace("pose2sim)", "pose2sim, person_folder)"))
    (folder / "__init__.py").write_text(registry)
    for number, name in enumerate(("Ann", "Ben")):
        person = tmp_path / "recordings" / name
        person.mkdir(parents=True)
        (person / "person.json").write_text(json.dumps({"id": f"P{number}", "age": 60 + number}))
        (person / "walk.mot").write_text(mot(walk(0.6)))
    (tmp_path / "unknown").mkdir()
    (tmp_path / "unknown" / "walk.mot").write_text(mot(walk(0.6)))
    result = subprocess.run(
        [sys.executable, "-c", USE, str(tmp_path / "recordings"), str(tmp_path / "unknown")],
        env={"PYTHONPATH": str(package.parent), "PATH": "", "RAY_USAGE_STATS_ENABLED": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    rows, message = json.loads(result.stdout.splitlines()[-1])
    assert rows == [["Ann/walk.mot", "P0", {"age": 60.0}], ["Ben/walk.mot", "P1", {"age": 61.0}]]
    assert (
        "(a subject of AddBiomechanics, an OpenCap session, a Pose2Sim project, a folder with person.json)"
        in message
    )
