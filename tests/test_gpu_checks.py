"""benchmarks/gpu.sh runs what needs a GPU. A stand-in for Python plays the GPU here, as test machines have none."""

import os
import subprocess

import pytest

from conftest import ROOT

FAKE_PYTHON = """#!/bin/bash
if [ "$1" = -c ]; then echo "Some card"; exit 0; fi
echo "$*" >> "$OUT/calls"
case "$*" in *tokenizer.py*) [ -e "$OUT/mended" ] || exit 3 ;; esac
echo '{"ratio": 2}'
"""


def gpu_sh(*arguments, **environment):
    return subprocess.run(
        ["bash", ROOT / "benchmarks" / "gpu.sh", *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def environment(tmp_path):
    python = tmp_path / "python"
    python.write_text(FAKE_PYTHON)
    python.chmod(0o755)
    return {"PYTHON": str(python), "OUT": str(tmp_path / "out")}


def test_every_check_names_a_script_or_a_test_that_exists():
    for line in gpu_sh("--list").stdout.splitlines():
        files = [word for word in line.split()[1:] if word.endswith(".py")]
        assert files, line
        assert all((ROOT / name).exists() for name in files), line


def test_a_failed_check_does_not_stop_the_others_and_alone_is_run_again(environment, tmp_path):
    first = gpu_sh(**environment)
    assert first.returncode == 1
    assert "tokenizer: exit code 3" in first.stdout
    n_checks = len(gpu_sh("--list").stdout.splitlines())
    assert len((tmp_path / "out" / "done").read_text().split()) == n_checks - 1

    (tmp_path / "out" / "mended").touch()
    second = gpu_sh(**environment)
    assert second.returncode == 0
    assert second.stdout.count("finished before") == n_checks - 1
    assert len((tmp_path / "out" / "calls").read_text().splitlines()) == n_checks + 1
    assert (tmp_path / "out" / "card.txt").read_text() == "Some card\n"


def test_without_a_gpu_nothing_runs_and_the_message_says_so(tmp_path):
    result = gpu_sh(PYTHON="/bin/false", OUT=str(tmp_path / "out"))
    assert result.returncode == 2
    assert "finds no GPU" in result.stderr
    assert not (tmp_path / "out").exists()
