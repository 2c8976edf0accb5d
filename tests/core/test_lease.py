"""Writers never mix: of two processes that share only the storage, one publishes, whatever happens."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import two_writers

from biomechgpt.core import artifact, lease, storage

KILLS = 12


def start(name, root, seed, folder, *late, **environment):
    """A writer. Its lock files are its own, as on another machine."""
    (folder / name).mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, two_writers.__file__, name, str(root), str(seed), *map(str, late)],
        env=os.environ | {"TMPDIR": str(folder / name)} | environment,
        stdout=subprocess.PIPE,
        text=True,
    )


def whose(uri):
    """Who made each file of an artifact, and who its manifest says."""
    made = artifact.load(uri, verify=True)
    assert (
        set(made.manifest["files"])
        == set(two_writers.FILES)
        == {*storage.list_files(uri)} - {"manifest.json"}
    )
    names = {storage.read_bytes(made.path(name)).decode().split()[0] for name in two_writers.FILES}
    return names | {made.metrics["made_by"].strip()}


def kill_one_of_two(root, seed, folder, environments=None):
    """Two writers at once, one killed at a random moment and started again; returns who made the artifact.

    environments: {writer: its environment variables}.
    """
    environments = environments or {"A": {}, "B": {}}
    drawn = random.Random(seed)
    writers = {name: start(name, root, seed, folder, **environments[name]) for name in "AB"}
    victim = drawn.choice("AB")
    writers[victim].stdout.readline()  # it builds, or the other has built
    time.sleep(drawn.uniform(0, 0.6))
    writers[victim].kill()
    writers[victim].communicate()
    writers[victim] = start(victim, root, seed, folder, **environments[victim])
    outputs = [writer.communicate(timeout=120)[0].split() for writer in writers.values()]
    ends = {name: writer.returncode for name, writer in writers.items()}
    assert ends == {"A": 0, "B": 0}, (victim, ends, outputs)
    (uri,) = {output[-1] for output in outputs}
    return whose(uri)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["local", "s3"])
def test_killed_writers_publish_no_mixed_artifact(where, tmp_path, request):
    root = str(tmp_path / "root") if where == "local" else request.getfixturevalue("bucket")
    for seed in range(KILLS // 2):
        assert len(kill_one_of_two(root, seed, tmp_path)) == 1
    # Nothing is left but the artifacts.
    kinds = {name.split("/")[1] for name in storage.list_files(root)}
    assert len(kinds) == KILLS // 2
    assert not any(kind.startswith(".") for kind in kinds)


@pytest.mark.parametrize("where", ["local", "s3"])
def test_a_writer_that_was_stopped_does_not_publish_over_another(where, tmp_path, request):
    """As when a laptop sleeps: the first one's lease expires, the second builds, then the first wakes up."""
    root = str(tmp_path / "root") if where == "local" else request.getfixturevalue("bucket")
    first = start("A", root, 0, tmp_path, 3)
    assert [first.stdout.readline(), first.stdout.readline()] == ["building\n", "late\n"]
    first.send_signal(signal.SIGSTOP)
    second = start("B", root, 0, tmp_path)
    (uri,) = {second.communicate(timeout=60)[0].split()[-1]}
    first.send_signal(signal.SIGCONT)
    assert first.communicate(timeout=60)[0].split()[-1] == uri
    (maker,) = whose(uri)
    assert maker.startswith("B")
    assert second.returncode == first.returncode == 0


def test_a_lease_is_renewed_so_a_long_build_is_not_taken_over(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "EXPIRY_S", two_writers.EXPIRY_S)
    uri = str(tmp_path / "thing" / "abc")
    with lease.hold(uri) as held:
        time.sleep(2 * lease.EXPIRY_S)
        assert Path(held.folder, "1").exists()
        held.check()
        content = Path(held.folder, "1").read_text()
        until = time.monotonic() + 30
        while Path(held.folder, "1").read_text() == content:
            assert time.monotonic() < until
            time.sleep(0.05)


def test_a_clock_an_hour_off_changes_nothing(tmp_path, monkeypatch):
    """The lease has no time in it, and waiting uses a clock that nobody sets."""
    uri = str(tmp_path / "thing" / "abc")
    with lease.hold(uri) as held:
        os.utime(Path(held.folder, "1"), (0, 0))
        monkeypatch.setattr(time, "time", lambda: 4e9)
        held.renew()
        held.check()


def test_the_next_attempt_takes_over_checkpoints_only(tmp_path):
    seen = []

    def build(uri):
        seen.append(storage.list_files(uri))
        storage.write_bytes(storage.join(uri, "half.bin"), b"half")
        storage.write_bytes(storage.join(uri, "run/step"), b"10")
        if len(seen) == 1:
            raise RuntimeError("power cut")
        storage.remove(storage.join(uri, "half.bin"))
        return {}

    def make():
        return artifact.make("thing", 1, {}, {}, build, str(tmp_path), provenance="synthetic")

    with pytest.raises(RuntimeError):
        make()
    made = make()
    assert seen == [[], ["run/step"]]
    assert storage.list_files(str(tmp_path)) == [f"thing/{made.fingerprint}/manifest.json"]


def test_a_failed_build_without_checkpoints_leaves_nothing(tmp_path):
    def build(uri):
        storage.write_bytes(storage.join(uri, "half.bin"), b"half")
        raise RuntimeError("bad input")

    with pytest.raises(RuntimeError):
        artifact.make("thing", 1, {}, {}, build, str(tmp_path), provenance="synthetic")
    assert storage.list_files(str(tmp_path)) == []
