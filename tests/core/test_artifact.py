"""Artifacts: they exist once their manifest does, and are reused."""

from pathlib import Path

import pytest

from biomechgpt.core import artifact, storage
from biomechgpt.core.job import run_job
from biomechgpt.core.settings import InputError, Settings


class Width(Settings):
    width: int = 4


def test_the_library_prints_no_messages_and_a_job_shows_them(tmp_path, capsys):
    def make(name: str) -> None:
        artifact.make(name, 1, Width(), {}, lambda uri: {}, str(tmp_path), provenance="synthetic")

    make("quiet")
    assert capsys.readouterr().out == ""

    def make_twice(settings: Width) -> None:
        make("shown")
        make("shown")

    run_job(Width, make_twice, arguments=[])
    messages = [line.split(": ", 1)[1] for line in capsys.readouterr().out.splitlines()]
    assert messages == ["building", "done in 0 s", "found, reused"]


def test_an_artifact_is_reused_and_an_unfinished_one_does_not_exist(tmp_path):
    calls = []

    def build(uri: str) -> dict:
        calls.append(uri)
        storage.write_bytes(storage.join(uri, "a.bin"), b"abc")
        if len(calls) == 1:
            raise RuntimeError("killed")
        return {"count": 3}

    def make():
        return artifact.make("thing", 1, Width(), {}, build, str(tmp_path), provenance="synthetic")

    with pytest.raises(RuntimeError):
        make()
    with pytest.raises(InputError, match="no finished artifact"):
        artifact.load(calls[0])
    first, second = make(), make()
    assert first == second
    assert len(calls) == 2
    assert first.metrics == {"count": 3}
    (Path(first.uri) / "a.bin").write_bytes(b"abd")
    with pytest.raises(InputError, match=r"'a.bin' is altered"):
        artifact.load(first.uri, verify=True)
