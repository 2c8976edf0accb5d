"""Machines that people have: no home folder, another Ray, a full or slow one, a port in use, no POSIX modules."""

import errno
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import ezc3d
import numpy as np
import pytest

from biomechgpt.core import cluster, storage
from biomechgpt.core.settings import InputError
from conftest import ROOT
from opensim_files import mot, walk
from serve import main as serving

POSIX_ONLY = ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog", "crypt", "spwd", "nis")
NO_HOME = "/proc/no such home"
"""A folder that not even root can make."""


def run_python(code: str, **environment: str) -> str:
    """What a fresh interpreter prints; with its error if it fails."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_reading_and_answering_need_neither_posix_nor_ray(tmp_path):
    """Nor a home folder. Reading a C3D file starts another process, in which these modules are hidden too."""
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({POSIX_ONLY}))\n")
    file = ezc3d.c3d()
    file["parameters"]["POINT"]["RATE"]["value"] = [100]
    file["parameters"]["POINT"]["LABELS"]["value"] = ["LASI"]
    file["data"]["points"] = np.ones((4, 1, 200))
    file.write(str(tmp_path / "markers.c3d"))
    (tmp_path / "walk.mot").write_text(mot(walk(4.0)))
    printed = run_python(
        f"""
import sys, os
os.chdir({str(tmp_path)!r})
sys.modules["ray"] = None
import biomechgpt.answering.answerer, biomechgpt.answering.bundle, biomechgpt.experiment.ask
import biomechgpt as bg
print(len(bg.read("walk.mot").measure()) > 0)
try:
    bg.read("markers.c3d")
except bg.answering.library.InputError as error:
    print(error)
print([name for name in {POSIX_ONLY} if sys.modules.get(name)])
""",
        PYTHONPATH=os.pathsep.join([str(hidden), os.environ["PYTHONPATH"]]),
        HOME=NO_HOME,
    )
    assert printed.splitlines()[0] == "True"
    assert "markers.c3d: expected" in printed
    assert "LASI" in printed  # ezc3d has read it
    assert printed.splitlines()[-1] == "[]"


def test_a_command_without_a_home_says_only_what_it_has_to_say(tmp_path):
    """Matplotlib would complain about its folder. Names with spaces are written as a shell reads them."""
    folder = tmp_path / "Études (2)"
    folder.mkdir()
    (folder / "marche à pied.mot").write_text(mot(walk(4.0)))
    code = f"""
import os
os.environ.pop("MPLCONFIGDIR", None)
from biomechgpt.commands import main
main(["check", {str(folder)!r}])
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env=os.environ | {"HOME": NO_HOME, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert done.returncode == 0
    assert "1 recordings are read, 0 are not" in said
    assert f"biomechgpt new-table '{folder}'" in said
    assert "atplotlib" not in said


def test_serving_imports_no_posix_module_of_its_own():
    """Ray comes first: it has other modules in their place where these are absent."""
    run_python(
        f"import ray.serve, sys; sys.modules.update(dict.fromkeys({POSIX_ONLY})); "
        "import serve.main, serve.app, serve.gateway, serve.deployment, biomechgpt.answering.answerer"
    )


@pytest.mark.cluster
def test_ray_starts_without_a_home_beside_another_ray_and_with_little_shared_memory():
    """Its own temporary folder names another cluster, as `ray start` of another user leaves it."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))  # short: sockets lie in it
    try:
        (folder / "ray").mkdir()
        (folder / "ray/ray_current_cluster").write_text("127.0.0.1:1")
        printed = run_python(
            """
import ray._private.utils
ray._private.utils.get_shared_memory_bytes = lambda: 64 << 20
from biomechgpt.core import cluster
print(sorted(row["n"] for row in cluster.map_ordered([{"n": 1}, {"n": 2}], lambda row: {"n": 10 * row["n"]})))
import os
print(cluster.is_own(), os.path.exists(os.environ["HOME"]))
""",
            HOME=NO_HOME,
            RAY_TMPDIR=str(folder),
            MPLCONFIGDIR=str(folder),
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    assert printed.strip().splitlines()[-2:] == ["[10, 20]", "True False"]


@pytest.fixture
def no_ray(monkeypatch):
    """Ray as it is before it starts; returns its module."""
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(cluster, "_size", lambda: "1 node(s), 2 CPU, 0 GPU")
    for name in ("RAY_ADDRESS", cluster._OWN, "RAY_AUTH_TOKEN"):
        monkeypatch.setenv(name, "")  # so that it is as before afterwards
        monkeypatch.delenv(name)
    for name, value in cluster._ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return ray


def test_a_ray_that_starts_too_slowly_is_started_again(no_ray, monkeypatch):
    calls = []

    def init(**options):
        calls.append(options)
        if len(calls) < 3:
            raise Exception("The current node timed out during startup. This could happen because ...\nmore")

    monkeypatch.setattr(no_ray, "init", init)
    cluster._start()
    assert len(calls) == 3
    assert calls[-1]["address"] == "local"
    assert not calls[-1]["include_dashboard"]

    def never(**options):
        raise Exception("The current node timed out during startup.\nmore")

    monkeypatch.setattr(no_ray, "init", never)
    with pytest.raises(
        InputError, match=r"Ray did not start in 3 attempts\. Other programs .*timed out"
    ) as raised:
        cluster.connect()
    assert "\n" not in str(raised.value)


def test_a_cluster_that_is_not_there_is_one_plain_error(no_ray, monkeypatch):
    def init(**options):
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.setattr(no_ray, "init", init)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with pytest.raises(InputError, match=r"RAY_ADDRESS: .*found 10\.0\.0\.1:6379: Could not find"):
        cluster.connect()


def test_the_address_for_ray_job_submit_is_told_from_that_of_a_cluster(no_ray, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:8265")
    with pytest.raises(InputError, match=r"RAY_ADDRESS: expected auto, or .* `ray job submit`"):
        cluster.connect()


def test_workers_of_a_joined_cluster_get_code_path_and_folder(no_ray, monkeypatch, tmp_path):
    monkeypatch.delenv(cluster._SUBMITTED, raising=False)
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setenv("PYTHONPATH", f"own{os.pathsep}/shared")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.chdir(tmp_path)
    sent = cluster._runtime_environment()
    assert sent is not None
    assert sent["working_dir"] == str(ROOT)
    assert ".git" in sent["excludes"]
    path = ["platform", str(tmp_path / "own"), "/shared"]
    assert sent["env_vars"]["PYTHONPATH"].split(os.pathsep) == path
    assert sent["env_vars"]["RAY_CHDIR_TO_TRIAL_DIR"] == "0"
    assert "secret" not in str(sent)
    # In a worker, which starts in the code that was sent.
    monkeypatch.setenv("PYTHONPATH", sent["env_vars"]["PYTHONPATH"])
    monkeypatch.setenv(cluster._FOLDER, sent["env_vars"][cluster._FOLDER])
    monkeypatch.chdir(ROOT)
    cluster.prepare_worker()
    assert str(Path.cwd()) == str(tmp_path)
    assert os.environ["PYTHONPATH"].split(os.pathsep)[0] == str(ROOT / "platform")
    monkeypatch.setenv(cluster._FOLDER, "/not on this node")
    cluster.prepare_worker()
    assert str(Path.cwd()) == str(tmp_path)
    # What `ray job submit` started has all this, and so has a child of a local Ray.
    monkeypatch.setenv(cluster._SUBMITTED, "{}")
    assert cluster._runtime_environment() is None
    monkeypatch.delenv(cluster._SUBMITTED)
    monkeypatch.setenv(cluster._OWN, "auto")
    assert cluster._runtime_environment() is None


def test_another_ray_on_this_machine_is_left_alone_and_named(no_ray, monkeypatch, caplog):
    from ray._private import utils

    monkeypatch.setattr(no_ray, "init", lambda **options: None)
    monkeypatch.setattr(no_ray, "get_runtime_context", lambda: SimpleNamespace(gcs_address="127.0.0.1:1"))
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        monkeypatch.setattr(utils, "read_ray_address", lambda: address)
        assert cluster._started_here() == address
        monkeypatch.setattr(cluster.logger, "propagate", True)
        with caplog.at_level("INFO", cluster.logger.name):
            cluster.connect()
    (line,) = [record.getMessage() for record in caplog.records if "cluster:" in record.getMessage()]
    assert line.startswith("cluster: started Ray on this machine for this process: 1 node(s)")
    assert f"RAY_ADDRESS=auto joins the Ray at {address}" in line
    assert cluster._started_here() is None  # its file is still there


def test_only_a_server_s_own_ray_is_on_loopback(no_ray, monkeypatch):
    """tests/serve/test_real_security.py looks at its ports."""
    from ray._private import ray_constants

    seen = []
    monkeypatch.setattr(
        no_ray,
        "init",
        lambda **options: seen.append(
            (ray_constants.ENABLE_RAY_CLUSTER, os.environ.get(cluster._MANY_NODES))
        ),
    )
    monkeypatch.setattr(no_ray, "get_runtime_context", lambda: SimpleNamespace(gcs_address="127.0.0.1:1"))
    monkeypatch.setattr(ray_constants, "ENABLE_RAY_CLUSTER", True)
    monkeypatch.delenv(cluster._MANY_NODES, raising=False)
    cluster.connect(loopback=True)
    assert cluster._MANY_NODES not in os.environ  # a child process may join another cluster
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setenv(cluster._MANY_NODES, "0")  # as in a worker of the first
    cluster.connect(loopback=True)
    monkeypatch.delenv("RAY_ADDRESS")
    monkeypatch.setenv(cluster._MANY_NODES, "1")  # what the user has set stays
    cluster.connect(loopback=True)
    assert seen == [(False, "0"), (True, None), (True, "1")]


def test_the_token_stays_in_memory_only_without_a_home(monkeypatch, tmp_path):
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    cluster._make_token()
    assert "RAY_AUTH_TOKEN" not in os.environ
    assert (tmp_path / ".ray/auth_token").stat().st_mode & 0o777 == 0o600
    monkeypatch.setenv("HOME", NO_HOME)
    cluster._make_token()
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64


def test_a_port_in_use_is_named_before_ray_starts(tmp_path):
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=rf"port: {port} is in use on 127\.0\.0\.1.*--port {port + 1}"):
            serving.serve_model(serving.LocalSettings(bundle=str(tmp_path), port=port))
    serving.require_free("127.0.0.1", port)
    with pytest.raises(InputError, match="host, port: expected an address that can be listened on"):
        serving.require_free("192.0.2.1", port)
    with pytest.raises(InputError, match="host, port: expected an address that can be listened on"):
        serving.require_free("no.such.host.invalid", port)


def test_a_place_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for write in (storage.require_writable, lambda uri: storage.write_bytes(uri, b"")):
        with pytest.raises(InputError, match=r"file/answers\.csv: expected a place that can be written"):
            write(str(tmp_path / "file" / "answers.csv"))

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left on device"):
        storage.write_bytes(str(tmp_path / "answers.csv"), b"1")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
