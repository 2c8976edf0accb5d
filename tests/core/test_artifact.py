"""Artifacts: they exist once their manifest does, and are reused."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from biomechgpt.core import artifact, lease, storage
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


def test_one_driver_of_a_machine_builds_and_the_others_wait_for_it(tmp_path):
    uri = str(tmp_path / "thing" / "abc")
    order = []

    def wait_for_it() -> None:
        with lease.hold(uri):
            order.append("second")

    with lease.hold(uri):
        other = threading.Thread(target=wait_for_it)
        other.start()
        other.join(timeout=0.5)
        assert other.is_alive()
        with lease.hold(uri + "d"):  # another artifact is not locked
            order.append("first")
    other.join()
    assert order == ["first", "second"]


def test_a_killed_driver_holds_no_lock(tmp_path):
    uri = str(tmp_path / "thing" / "abc")
    hold = (
        "import sys, time; from biomechgpt.core import lease\n"
        "with lease.hold(sys.argv[1]): print('held', flush=True); time.sleep(600)"
    )
    driver = subprocess.Popen([sys.executable, "-c", hold, uri], stdout=subprocess.PIPE, text=True)
    assert driver.stdout.readline() == "held\n"
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    with lease.hold(uri):
        pass
