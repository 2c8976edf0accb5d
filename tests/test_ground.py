"""The ground floor: skeleton, settings, storage, artifacts, trials."""

import ast
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from biomechgpt import artifact, settings, skeleton, storage
from biomechgpt.settings import InputError, Settings
from biomechgpt.trial import Trial, from_row, table


class Inner(Settings):
    width: int = 4


class Outer(Settings):
    inner: Inner = Inner()
    rate: float = 1.0


def test_platform_is_the_standard_librarys():
    assert platform.python_version() == sys.version.split()[0]
    root = Path(__file__).parent.parent
    assert not (root / "platform" / "__init__.py").exists()
    code = "import platform, biomechgpt; print(platform.__file__)"
    out = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert str(root) not in out.stdout.replace(str(root / ".venv"), "")


def test_skeleton_has_26_tracked_of_34_and_mirroring_twice_changes_nothing():
    assert (skeleton.N_JOINTS, int(skeleton.TRACKED.sum())) == (34, 26)
    assert skeleton.NAMES[3] == "knee_angle_r"
    assert skeleton.NAMES[20] == "arm_flex_r"
    assert skeleton.NAMES[27] == "arm_flex_l"
    angles = np.random.default_rng(0).normal(size=(5, 34))
    once = skeleton.mirror(angles)
    assert not np.allclose(once, angles)
    np.testing.assert_array_equal(skeleton.mirror(once), angles)


def test_unknown_settings_key_is_named_with_its_path(tmp_path):
    (tmp_path / "a.yaml").write_text("inner: {widht: 3}\n")
    with pytest.raises(InputError, match=r"inner\.widht: unknown key"):
        settings.load(Outer, tmp_path / "a.yaml")


def test_overrides_and_includes(tmp_path):
    (tmp_path / "base.yaml").write_text("width: 7\n")
    (tmp_path / "a.yaml").write_text("inner: {include: base.yaml}\nrate: 2\n")
    assert settings.load(Outer, tmp_path / "a.yaml") == Outer(inner=Inner(width=7), rate=2)
    loaded = settings.load(Outer, tmp_path / "a.yaml", ["--rate=3.5"])
    assert loaded == Outer(inner=Inner(width=7), rate=3.5)
    with pytest.raises(InputError, match=r"rate: .*found 'fast'"):
        settings.load(Outer, tmp_path / "a.yaml", ["--rate", "fast"])


def test_artifact_is_reused_and_a_half_built_one_does_not_exist(tmp_path):
    calls = []

    def build(uri: str) -> dict:
        calls.append(uri)
        storage.write_bytes(storage.join(uri, "a.bin"), b"abc")
        if len(calls) == 1:
            raise RuntimeError("killed")
        return {"count": 3}

    def make():
        return artifact.make("thing", 1, Inner(), {}, build, str(tmp_path), data="synthetic")

    with pytest.raises(RuntimeError):
        make()
    with pytest.raises(InputError, match="no finished artifact"):
        artifact.load(calls[0])
    first, second = make(), make()
    assert first == second
    assert len(calls) == 2
    assert first.figures == {"count": 3}
    (Path(first.uri) / "a.bin").write_bytes(b"abd")
    with pytest.raises(InputError, match=r"'a.bin' is altered"):
        artifact.load(first.uri, verify=True)


def test_trial_survives_parquet_types():
    rng = np.random.default_rng(1)
    trial = Trial("t", "p", rng.normal(size=(6, 34)).astype("f4"), rng.normal(size=(6, 7)).astype("f4"), 30.0,
                  annotations={"activity": "FSST", "fsst_time": 9.5})  # fmt: skip
    rows = table([trial], {"activity": "text", "fsst_time": "number", "diagnosis": "text"}).to_pylist()
    back = from_row(rows[0])
    np.testing.assert_array_equal(back.angles_rad, trial.angles_rad)
    assert back.annotations == {"activity": "FSST", "fsst_time": 9.5, "diagnosis": None}


def test_imports_point_down():
    level = {
        "experiment": 7,
        "evaluation": 6,
        "language": 5,
        "dialogue": 4,
        "tokenizer": 3,
        "tasks": 3,
        "cohort": 2,
    }
    package = Path(__file__).parent.parent / "platform" / "biomechgpt"
    for path in package.rglob("*.py"):
        here = path.relative_to(package).parts[0]
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ImportFrom) or (node.module or "").split(".")[0] != "biomechgpt":
                continue
            below = (node.module or "").split(".")[1:2] or [alias.name for alias in node.names]
            for room in below:
                assert room == here or level.get(room, 1) < max(level.get(here, 1), 2), (
                    f"{path}: imports {room}"
                )
