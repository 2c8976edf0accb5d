"""Files that adopters look for first: they exist, parse and agree with each other."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import biomechgpt
import real_recordings

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_version_is_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert biomechgpt.__version__ == PROJECT["version"] == citation["version"]
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert "## [Unreleased]" in changelog
    assert f"## [{PROJECT['version']}]" in changelog


def test_reading_the_version_imports_nothing_heavy():
    code = (
        "import sys, biomechgpt; print(biomechgpt.__version__); "
        "print([m for m in ('ray', 'torch', 'numpy', 'pydantic') if m in sys.modules])"
    )
    lines = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert lines.split("\n")[:2] == [PROJECT["version"], "[]"]


def test_an_unknown_attribute_of_the_package_is_an_error():
    with pytest.raises(AttributeError, match="biomechgpt"):
        _ = biomechgpt.version_of_something_else


def test_licence_is_one_and_its_files_exist():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert PROJECT["license"] == citation["license"] == "Apache-2.0"
    assert PROJECT["license-files"] == ["LICENSE", "NOTICE"]
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    assert not [name for name in PROJECT["classifiers"] if name.startswith("License")]  # PEP 639
    image = (ROOT / "infra/Dockerfile").read_text()
    allowed = (ROOT / ".dockerignore").read_text().split()
    for name in PROJECT["license-files"]:
        assert (ROOT / name).is_file()
        assert re.search(rf"^COPY .*\b{name}\b", image, re.M), (
            f"the image installs the package without {name}"
        )
        assert f"!{name}" in allowed


def test_notice_names_what_the_package_took_from_others():
    notice = (ROOT / "NOTICE").read_text()
    for source in ("loco-mujoco", "Copyright (c) 2024 Al-Hafez", "gait2392", "pyCGM2", "three.js", "Gemma"):
        assert source in notice
    for source in ("Permission is hereby granted", 'THE SOFTWARE IS PROVIDED "AS IS"'):
        assert source in notice


def test_citation_has_what_the_format_requires():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= citation.keys()
    assert all({"type", "title", "authors"} <= reference.keys() for reference in citation["references"])


def test_workflow_runs_the_whole_suite_on_every_supported_python():
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    (job,) = workflow["jobs"].values()
    supported = [
        name.rsplit(" ", 1)[1] for name in PROJECT["classifiers"] if re.search(r":: Python :: 3\.\d+$", name)
    ]
    assert job["strategy"]["matrix"]["python"] == supported
    assert any(step.get("run", "").startswith("make test") for step in job["steps"])


def test_hooks_run_installed_tools_without_a_network():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert {repo["repo"] for repo in config["repos"]} == {"local"}
    hooks = {hook["id"]: hook for repo in config["repos"] for hook in repo["hooks"]}
    assert all(hook["language"] == "system" for hook in hooks.values())
    assert all(hook["entry"].startswith(".venv/bin/") for hook in hooks.values())
    assert {
        "ruff-check",
        "ruff-format",
        "mypy",
        "import-linter",
        "yaml",
        "toml",
        "large-files",
    } <= hooks.keys()


def test_every_file_of_the_test_data_has_its_licence_beside_it_and_is_small():
    readme = (real_recordings.DATA / "README.md").read_text()
    files = [
        path
        for path in real_recordings.DATA.rglob("*")
        # recipes/ holds our own examples.
        if path.suffix in (".mot", ".json", ".xml", ".yaml") and path.parent.name != "recipes"
    ]
    assert len(files) == 9
    for path in files:
        assert list(path.parent.glob("LICENSE*")), path
        assert path.stat().st_size < 300_000, path
        assert path.name in readme or "Ray{Cluster,Job,Service}.v1.schema.json" in readme, path
    ids = {parameter.id for parameter in real_recordings.rows()}
    shipped = {
        path.relative_to(real_recordings.SHIPPED).as_posix() for path in files if path.suffix == ".mot"
    }
    assert len(shipped) == 3
    assert shipped <= ids
