"""The recipes "a reader" and "a joint map" of docs/extending.md, carried out as a stranger would."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from biomechgpt.core.settings import InputError
from biomechgpt.motion.skeleton import INDEX
from biomechgpt.recordings import readers
from biomechgpt.recordings.readers import ReaderSettings
from conftest import ROOT
from opensim_files import walk

RECIPES = ROOT / "tests" / "data" / "recipes"
LIST = "READERS: tuple[Reader, ...] = (\n    opensim,"
IMPORT = "from biomechgpt.recordings.readers import (\n"
USE = """
import json, sys
from biomechgpt.recordings import readers
recording = readers.read(sys.argv[1], readers.ReaderSettings())
head = open(sys.argv[1], "rb").read(readers.HEAD_BYTES)
print(json.dumps([recording.format, recording.rate_hz, recording.angles_rad.shape, readers.recognizes(head),
                  list(readers.SUFFIXES)]))
"""


def angle_log(columns) -> str:
    names = [name for name in columns if name != "time"]
    rows = zip(*(columns[name] for name in names), strict=True)
    lines = [" ".join(f"{value:.6f}" for value in row) for row in rows]
    return "\n".join(["#angles rate=100", " ".join(names), *lines])


def test_a_reader_is_one_module_and_one_entry(tmp_path):
    """In a copy of the package: nothing but these two files changes."""
    package = tmp_path / "platform" / "biomechgpt"
    shutil.copytree(ROOT / "platform" / "biomechgpt", package, ignore=shutil.ignore_patterns("__pycache__"))
    folder = package / "recordings" / "readers"
    shutil.copy(RECIPES / "angle_log.py", folder)
    registry = (folder / "__init__.py").read_text()
    assert IMPORT in registry
    assert LIST in registry
    registry = registry.replace(IMPORT, f"{IMPORT}    angle_log,\n")
    registry = registry.replace(LIST, LIST.replace("    opensim", "    angle_log, opensim"))
    (folder / "__init__.py").write_text(registry)
    (tmp_path / "walk.ang").write_text(angle_log(walk()))
    result = subprocess.run(
        [sys.executable, "-c", USE, str(tmp_path / "walk.ang")],
        env={"PYTHONPATH": str(package.parent), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    kind, rate_hz, shape, recognized, suffixes = json.loads(result.stdout)
    assert (kind, shape, recognized) == ("angle log", [200, 34], True)
    assert rate_hz == pytest.approx(100)
    assert suffixes == [".ang", *readers.SUFFIXES]


def test_a_joint_map_is_one_file():
    settings = ReaderSettings(missing_joints="neutral", joint_map=str(RECIPES / "my_lab.yaml"))
    seconds = np.arange(200) / 100
    bend = 30 - 30 * np.cos(2 * np.pi * seconds)
    columns = {
        "t_ms": 1000 * seconds,
        "RHip Flex": 0.5 * bend,
        "LHip Flex": 0.4 * bend,
        "RKnee Flex": bend,
        "LKnee Flex": bend[::-1],
        "L5 S1": np.full(200, 3.0),
        "L4 L5": np.full(200, 4.0),
    }
    rows = zip(*columns.values(), strict=True)
    text = "\n".join([",".join(columns), *(",".join(f"{value:.6f}" for value in row) for row in rows)])
    recording = readers.parse("lab.csv", text.encode(), settings)
    assert recording.joint_map == "my_lab.yaml"
    assert recording.rate_hz == pytest.approx(100)
    angles = np.degrees(recording.angles_rad)
    np.testing.assert_allclose(angles[:, INDEX["knee_angle_r"]], -bend, atol=1e-5)
    np.testing.assert_allclose(angles[:, INDEX["lumbar_extension"]], 7, atol=1e-5)
    assert not recording.joint_mask[INDEX["ankle_angle_r"]]
    with pytest.raises(InputError, match="expected every tracked joint, missing"):
        readers.parse(
            "lab.csv", text.encode(), ReaderSettings(joint_map=settings.joint_map, missing_joints="error")
        )
