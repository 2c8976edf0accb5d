"""infra/slurm on a real Slurm whose nodes are all on this machine: a job is stopped in the middle and resumes."""

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from safetensors.numpy import load_file
from test_submit import BIN, FOUND_BY_A_TRIAL, ROOT, SHARED_BY_TRIALS

from biomechgpt.core import artifact
from ports import free_port

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol")
MISSING = [name for name in PROGRAMS if shutil.which(name) is None]
NODES = 2
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT")
# What Ray says if one of its processes takes more than 30 s to start. No setting changes that time.
BUSY = ("timed out during startup", "waiting for GCS to become available")
CONTROLLER = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
KillWait=20
ReturnToService=2
MpiDefault=none
"""

# Says which cluster it joined and what a worker on each node has; the first time it then waits for a signal.
LOOK = """
import os, sys, time
from pathlib import Path
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On
from biomechgpt.core import cluster
from biomechgpt.core.logs import log_to_stdout

@ray.remote(num_cpus=0)
def look():
    import biomechgpt
    return f"{biomechgpt.__file__} {Path('seen').exists()}"

log_to_stdout()
Path("seen").touch()
mode = os.stat(os.environ["RAY_AUTH_TOKEN_PATH"]).st_mode & 0o777
print("token:", oct(mode), os.environ.get("RAY_AUTH_TOKEN"), flush=True)
cluster.connect()
for node in ray.nodes():
    print("worker:", ray.get(look.options(scheduling_strategy=On(node["NodeID"], soft=False)).remote()), flush=True)
print("run", os.environ.get("SLURM_RESTART_COUNT", "0"), flush=True)
if "SLURM_RESTART_COUNT" not in os.environ:
    time.sleep(600)
"""

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.xdist_group("tiny"),
    pytest.mark.skipif(bool(MISSING), reason=f"no Slurm here: {', '.join(MISSING)} missing"),
    pytest.mark.skipif(os.getuid() != 0, reason="only root starts Slurm's daemons"),
]


class Slurm:
    """A controller and nodes of one CPU each, apart from any other Slurm or munge on this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.temporary = folder / "t"  # short: Ray's sockets lie in it
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "SLURM", "SBATCH"))}
        self.environment = inherited | {
            "SLURM_CONF": str(folder / "slurm.conf"),
            "SLURM_TMPDIR": str(self.temporary),
            "HOME": str(folder),  # nobody's ~/.ray/auth_token
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT / "platform"),
        }
        self.daemons: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        self.folder.chmod(0o711)  # munge wants others to reach its socket
        for name in ("state", "t"):
            (self.folder / name).mkdir()
        host = socket.gethostname().split(".")[0]
        nodes = [
            f"NodeName=n{i} NodeHostname={host} NodeAddr=127.0.0.1 Port={free_port()} CPUs=1 RealMemory=1000"
            for i in range(1, NODES + 1)
        ]
        text = CONTROLLER.format(host=host, port=free_port(), folder=self.folder)
        partition = "PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP"
        (self.folder / "slurm.conf").write_text("\n".join([text, *nodes, partition, ""]))
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        files = [f"--{name}={self.folder}/munge.{name[:4]}" for name in ("pid-file", "log-file", "seed-file")]
        self._daemon(
            "munged", "--foreground", f"--key-file={key}", f"--socket={self.folder}/munge.socket", *files
        )
        self.wait(lambda: (self.folder / "munge.socket").exists(), "munge")
        self._daemon("slurmctld", "-D")
        for i in range(1, NODES + 1):
            self._daemon("slurmd", "-D", "-N", f"n{i}")
        self.wait(
            lambda: self.run("sinfo", "-h", "-t", "idle", "-o", "%D").strip() == str(NODES), "idle nodes"
        )

    def _daemon(self, *command: str) -> None:
        with (self.folder / f"{command[0]}{len(self.daemons)}.log").open("w") as log:
            daemon = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)
        self.daemons.append(daemon)

    def run(self, *command: str) -> str:
        done = subprocess.run(
            command, cwd=ROOT, env=self.environment, capture_output=True, text=True, check=False, timeout=60
        )
        return done.stdout if done.returncode == 0 else done.stderr

    def wait(self, condition, what: str, seconds: float = 120) -> None:
        until = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > until or any(daemon.poll() is not None for daemon in self.daemons):
                logs = [path.read_text()[-4000:] for path in sorted(self.folder.glob("*.log"))]
                raise AssertionError("\n".join([f"no {what} in {seconds:.0f} s:", *logs]))
            time.sleep(0.5)

    def submit(self, name: str, *command: str, folder: Path = ROOT) -> str:
        """The id of the job that runs `command`; its output is in NAME.log."""
        return self.run(
            *("sbatch", "--parsable", f"--chdir={folder}", f"--output={self.log(name)}"),
            *("--cpus-per-task=1", f"--nodes={NODES}", str(ROOT / "infra/slurm/job.sbatch"), *command),
        ).strip()

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def said(self, name: str, text: str) -> bool:
        return self.log(name).exists() and text in self.log(name).read_text()

    def state(self, job: str) -> str:
        words = self.run("scontrol", "show", "job", job).split()
        return next((word.removeprefix("JobState=") for word in words if word.startswith("JobState=")), "")

    def wait_for(self, name: str, job: str, condition, what: str, seconds: float) -> None:
        """Wait for what a job does. A machine that is too busy for Ray skips the test."""
        self.wait(lambda: condition() or self.state(job) in ENDED, what, seconds)
        if not condition():
            printed = self.log(name).read_text()
            if any(text in printed for text in BUSY):
                pytest.skip("Ray gave up after its 30 s: this machine is too busy")
            raise AssertionError(f"no {what}: {printed}")

    def left(self) -> list[str]:
        """Files and processes of jobs that are still there."""
        commands = []
        for process in psutil.process_iter():
            try:
                commands.append(" ".join(process.cmdline()))
            except psutil.Error:
                continue
        mine = [command for command in commands if f"{self.temporary}/" in command]
        return mine + [str(path) for path in self.temporary.iterdir()]

    def stop(self) -> None:
        """End the daemons, and what of their jobs is left: only what carries this folder in its environment."""
        for daemon in reversed(self.daemons):
            daemon.terminate()
        psutil.wait_procs([psutil.Process(d.pid) for d in self.daemons if d.poll() is None], timeout=20)
        for process in psutil.process_iter():
            try:
                if process.environ().get("SLURM_CONF") == self.environment["SLURM_CONF"]:
                    process.kill()
            except psutil.Error:
                continue
        for daemon in self.daemons:
            daemon.wait(timeout=10)


@pytest.fixture(scope="module")
def slurm():
    slurm = Slurm(Path(tempfile.mkdtemp(prefix="s-")))
    try:
        slurm.start()
        yield slurm
    finally:
        slurm.stop()
        shutil.rmtree(slurm.folder, ignore_errors=True)


@pytest.mark.timeout(1800)
def test_a_job_runs_on_every_node_and_is_queued_again_before_the_time_limit(slurm, tmp_path):
    (tmp_path / "look.py").write_text(LOOK)
    job = slurm.submit("look", "python", "look.py", folder=tmp_path)
    slurm.wait_for("look", job, lambda: slurm.said("look", "run 0"), "first run", 900)
    printed = slurm.log("look").read_text()
    assert "token: 0o600 None" in printed
    assert f": {NODES} node(s), {NODES} CPU" in printed
    assert printed.count("cluster: joined Ray at ") == 1
    # Each worker runs the code that was sent, in the folder where the job was started.
    workers = [line.split()[1:] for line in printed.splitlines() if line.startswith("worker:")]
    assert len(workers) == NODES
    assert all("working_dir_files" in module and seen == "True" for module, seen in workers)
    # As Slurm does before the time limit.
    slurm.run("scancel", "--batch", "--signal=USR1", job)
    slurm.wait_for("look", job, lambda: slurm.said("look", "run 1"), "second run", 900)
    slurm.wait(lambda: slurm.state(job) == "COMPLETED", "end", 120)
    assert slurm.said("look", "queued again")
    slurm.wait(lambda: not slurm.left(), "end of all processes", 60)


@pytest.mark.timeout(2400)
def test_a_cancelled_sweep_is_submitted_again_and_makes_the_same_model(slurm, tiny):
    """Its one trial has the settings of the tiny run, so its model is that of a run that nothing stopped."""
    root = slurm.folder / "artifacts"
    for kind in SHARED_BY_TRIALS | FOUND_BY_A_TRIAL:
        folder = Path(tiny.made(kind).uri)
        shutil.copytree(folder, root / folder.relative_to(tiny.root))
    command = [
        *("python", "jobs/sweep.py", "--config", "configs/experiments/sweep_tiny.yaml", "--trials", "1"),
        *("--root", str(root), "--tracking.uri", f"sqlite:///{slurm.folder}/mlflow.db"),
    ]
    begun = time.monotonic()
    job = slurm.submit("first", *command)
    # In the middle: the adapter is trained, and not there yet.
    slurm.wait_for("first", job, lambda: list((root / "adapter").glob("*/run")), "training", 600)
    slurm.run("scancel", job)
    slurm.wait(lambda: slurm.state(job) == "CANCELLED" and not slurm.left(), "end of all processes", 120)
    assert not list(root.glob("adapter/*/manifest.json"))
    assert not list(root.glob("sweep/*/manifest.json"))
    job = slurm.submit("second", *command)
    slurm.wait_for("second", job, lambda: slurm.state(job) == "COMPLETED", "end", 900)
    printed = slurm.log("second").read_text()
    assert slurm.state(job) == "COMPLETED", printed
    assert "going on with the study" in printed
    uri = next(line for line in printed.splitlines() if line.startswith("artifact: ")).split(" ", 1)[1]
    (trial,) = artifact.load(uri, "sweep", verify=True).read_json("trials.json")
    assert trial["error"] is None
    assert [Path(run["model"]).name for run in trial["runs"]] == [Path(tiny.made("model").uri).name]
    same = tiny.made("adapter")
    again = artifact.load(str(root / Path(same.uri).relative_to(tiny.root)), "adapter", verify=True)
    # Not bit by bit: a node of one CPU sums in another order than the two threads of the tiny run.
    weights = [load_file(f"{made.uri}/adapter/adapter_model.safetensors") for made in (same, again)]
    assert weights[0].keys() == weights[1].keys()
    for name, value in weights[0].items():
        np.testing.assert_allclose(weights[1][name], value, rtol=1e-3, atol=1e-5, err_msg=name)
    losses = [made.manifest["metrics"]["loss"] for made in (same, again)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    apart = max(float(np.abs(weights[0][name] - weights[1][name]).max()) for name in weights[0])
    print(json.dumps({"slurm_seconds": round(time.monotonic() - begun), "weights_apart": apart}))
    slurm.wait(lambda: not slurm.left(), "end of all processes", 60)
