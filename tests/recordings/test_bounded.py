"""Reading of uploads in processes with little memory and time: what a file may do there, and what it may not."""

import asyncio
import gzip
import io
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import opensim_files
from benchmarks.malformed import whole_files
from biomechgpt.core.settings import InputError
from biomechgpt.recordings import bounded
from biomechgpt.recordings.bounded import Limits, Reader
from biomechgpt.recordings.upload import TooLarge, UploadSettings, read
from conftest import TESTS

WALK = TESTS / "data/recordings/opensim/opencap-processing/walking1_videoAndMocap.mot"
SETTINGS = UploadSettings(rate_hz=30)

pytestmark = pytest.mark.skipif(not bounded.SUPPORTED, reason="this system has no processes with limits")


@pytest.fixture(scope="module")
def reader():
    reader = Reader()
    reader.start()
    yield reader
    reader.stop()


def send(reader, name, content, settings=SETTINGS):
    return asyncio.run(reader.read(name, content, settings))


def npz(**arrays):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def mot(step_s, rows=100, **changes):
    columns = {name: values[:rows] for name, values in opensim_files.walk(4.0).items()}
    columns["time"] = np.arange(len(columns["time"])) * step_s
    return opensim_files.mot(columns | changes).encode()


def test_a_process_of_its_own_reads_what_the_readers_read(reader):
    content = WALK.read_bytes()
    there, here = send(reader, WALK.name, content), read(WALK.name, content, SETTINGS)
    np.testing.assert_array_equal(there.angles_rad, here.angles_rad)
    np.testing.assert_array_equal(there.pelvis, here.pelvis)
    np.testing.assert_array_equal(there.joint_mask, here.joint_mask)
    assert (there.knee_flexion, there.provenance, there.notes) == (
        here.knee_flexion,
        here.provenance,
        here.notes,
    )


def parquet(columns, rows):
    table = pa.table({f"c{i}": pa.array(np.zeros(rows, np.int8)) for i in range(columns)})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def deep_zip():
    """A .zip of a .gz of zeros."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("walk.mot.gz", gzip.compress(bytes(600 << 20), 1))
    return buffer.getvalue()


def promised(shape):
    """An .npy whose header promises more than there is."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return buffer.getvalue()


BOMBS = {
    "int8 zeros": lambda: ("a.npz", npz(q_knee_angle_r=np.zeros(200_000_000, np.int8))),
    "34 arrays": lambda: ("a.npz", npz(**{f"q_{i}": np.zeros(5_000_000, np.int8) for i in range(34)})),
    "promised npy": lambda: ("a.npy", promised((10**9, 33, 3))),
    "wide parquet": lambda: ("a.parquet", parquet(3000, 10)),
    "long parquet": lambda: ("a.parquet", parquet(30, 1_000_000)),
    "gzip": lambda: ("a.mot.gz", gzip.compress(bytes(600 << 20), 1)),
    "zip of gzip": lambda: ("a.zip", deep_zip()),
    "long time": lambda: ("a.mot", mot(100.0)),
    "milliseconds": lambda: ("a.mot", mot(10.0)),
    "promised table": lambda: (
        "a.mot",
        b"a\nversion=1\nnRows=5000000\nnColumns=5000000\nendheader\ntime\n0\n",
    ),
    "deep json": lambda: ("a.json", b"[" * 200_000),
    "deep xml": lambda: ("a.mvnx", b"<?xml version='1.0'?><mvnx>" + b"<a>" * 300_000),
    "numbers of 1 MB": lambda: ("a.csv", b"time,a,b\n0,1,2\n1," + b"9" * 1_000_000 + b",2\n"),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_refused_and_the_server_does_not_grow(reader, bomb):
    name, content = BOMBS[bomb]()
    before = psutil.Process().memory_info().rss
    with pytest.raises(InputError, match=r"a\."):
        send(reader, name, content)
    assert psutil.Process().memory_info().rss - before < 50 << 20
    assert send(reader, WALK.name, WALK.read_bytes()).angles_rad.shape[1] == 34


@pytest.mark.parametrize(
    ("times_s", "message"),
    [(np.arange(100) * 1.0, "frames a second"), (np.arange(100) * 1e-5, "at most 10000 frames a second")],
)
def test_a_rate_that_no_movement_has_is_refused(times_s, message):
    with pytest.raises(InputError, match=message):
        read("a.mot", mot(1.0, time=times_s), SETTINGS)


def test_a_movement_is_bounded_by_its_duration_too():
    short = SETTINGS.model_copy(update={"max_duration_s": 0.9})
    with pytest.raises(TooLarge, match=r"at most 0.9 s \(max_duration_s\), found 1 s"):
        read("a.mot", mot(0.01), short)


SPIN = """
import numpy, sys
from biomechgpt.recordings import bounded, upload
def read(name, content, settings):
    if name == "memory":
        numpy.ones(2 << 30, numpy.int8)
    if name == "crash":
        import ctypes
        ctypes.string_at(0)
    if name == "bug":
        [][0]
    if name == "sleep":
        import subprocess
        code = f"open({content.decode()!r}, 'w').close(); import time; time.sleep(60)"
        subprocess.run([sys.executable, "-c", code])
    if name == "file":
        import tempfile
        tempfile.mkstemp(prefix="left-behind-")
        sys.exit()
    if name == "environment":
        import os
        raise upload.TooLarge(" ".join(os.environ))
    while True:
        pass
bounded.read = read
bounded.main()
"""


@pytest.fixture(scope="module")
def attacked(tmp_path_factory):
    """A reader whose files do what their names say."""
    folder = tmp_path_factory.mktemp("attacked")
    script = folder / "helper.py"
    script.write_text(SPIN)
    real = subprocess.Popen

    def start(command, **options):
        return real([sys.executable, str(script), *command[3:]], **options)

    reader = Reader(Limits(cpu_s=1, wall_s=3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BIOMECHGPT_API_KEY", "secret")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("TMPDIR", str(folder))
        patch.setattr(bounded.subprocess, "Popen", start)
        reader.start()
    yield reader
    reader.stop()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("spin", "read within 1 s"),
        ("memory", "MiB of memory"),
        ("crash", "that is damaged"),
        ("bug", r"bug: expected a recording, found a damaged one \(IndexError\)"),
    ],
)
def test_a_reader_that_takes_too_much_or_fails_ends_alone(attacked, name, message):
    with pytest.raises(InputError, match=message):
        send(attacked, name, b"")
    assert attacked._helper.poll() is None


def test_what_a_reader_started_is_killed_with_it(attacked, tmp_path):
    with pytest.raises(InputError):
        send(attacked, "sleep", str(tmp_path / "started").encode())
    assert (tmp_path / "started").exists()
    time.sleep(0.3)
    assert psutil.Process(attacked.pid).children(recursive=True) == []
    assert not any(
        "time.sleep(60)" in " ".join(p.info["cmdline"] or []) for p in psutil.process_iter(["cmdline"])
    )


def test_a_client_that_leaves_ends_its_reader(attacked):
    async def leave():
        task = asyncio.create_task(attacked.read("spin", b"", SETTINGS))
        await asyncio.sleep(0.4)
        assert len(psutil.Process(attacked.pid).children()) == 1
        task.cancel()
        await asyncio.sleep(0.4)
        assert psutil.Process(attacked.pid).children() == []

    asyncio.run(leave())


def test_a_reader_leaves_no_files_and_has_no_secrets(attacked):
    with pytest.raises(InputError):
        send(attacked, "file", b"")
    time.sleep(0.3)
    folder = psutil.Process(attacked.pid).environ()["TMPDIR"]
    assert list(Path(folder).rglob("left-behind-*")) == []
    with pytest.raises(TooLarge) as seen:
        send(attacked, "environment", b"")
    assert "OMP_NUM_THREADS" in str(seen.value)
    assert not any(name in str(seen.value) for name in ("BIOMECHGPT_API_KEY", "AWS_SECRET_ACCESS_KEY"))


def test_a_lost_helper_is_replaced(reader):
    before = reader.pid
    psutil.Process(before).kill()
    psutil.Process(before).wait()
    assert send(reader, WALK.name, WALK.read_bytes()).angles_rad.shape[1] == 34
    assert reader.pid != before


def test_the_helper_ends_with_its_server(tmp_path):
    code = (
        "from biomechgpt.recordings.bounded import Reader; import os, signal; r = Reader(); r.start(); "
        "print(r.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    helper = int(done.stdout)
    for _ in range(100):
        if not psutil.pid_exists(helper) or psutil.Process(helper).status() == psutil.STATUS_ZOMBIE:
            return
        time.sleep(0.1)
    pytest.fail("the helper still runs")


def test_systems_without_limited_processes_read_within_the_server(monkeypatch):
    monkeypatch.setattr(bounded, "SUPPORTED", False)
    reader = Reader()
    assert send(reader, WALK.name, WALK.read_bytes()).angles_rad.shape[1] == 34
    assert reader.pid is None


def test_no_module_of_one_system_is_needed_to_import_the_reader():
    code = (
        "import sys; sys.modules['resource'] = sys.modules['fcntl'] = sys.modules['pwd'] = None; "
        "import biomechgpt.recordings.bounded"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={**os.environ, "TMPDIR": tempfile.gettempdir()}
    )


def test_a_reader_needs_neither_torch_nor_ray():
    code = (
        "import sys, biomechgpt.recordings.bounded; print([m for m in ('torch', 'ray') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_format_is_read_within_the_limits(reader):
    """What the readers read here, a limited process reads too; what they refuse, it refuses in the same words."""
    read_at_all = 0
    for name, content in whole_files().items():
        try:
            expected = read(name, content, SETTINGS).angles_rad.shape
            read_at_all += 1
        except InputError as error:
            expected = str(error)
        except Exception as error:  # a file of another kind, which its reader does not expect
            expected = type(error).__name__
        try:
            found = send(reader, name, content).angles_rad.shape
        except InputError as error:
            found = str(error)
        assert found == expected or expected in found, name
    assert read_at_all >= 6
