"""A real Slurm of a test's own: munge, a controller and two nodes, all on this machine.

The fixture `slurm` (session scope) starts it and points Slurm's commands and every process that is
started meanwhile to it (`SLURM_CONF`). A job goes there with

    job = hpc_jobs.submit(work, 1, name="x", folder=tmp_path, executor="slurm")
    assert job.result(120) == ...

and one of two processes, one a node, as distributed training needs it, with

    hpc_jobs.submit(..., executor="slurm", parameters={"nodes": 2, "tasks_per_node": 1})

(`{"tasks_per_node": 2}` for both on one node). The function is called in each of them; they find
their rank in SLURM_PROCID and their number in SLURM_NTASKS. Only what rank 0 returns is kept.

Nodes are named n1 and n2 and claim two processors each, whatever the machine has. They can be lost
(`slurm.lose("n1")`) and come back (`slurm.start_node("n1")`); a job that was on a lost node starts
again on another one some seconds later. What a job runs must be importable: functions of a test
module need `PYTHONPATH` (see tests/test_slurm.py).
"""

from __future__ import annotations

import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from label_studio_config.processes import free_port

PROGRAMS = ("munged", "munge", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol")
NODES = ("n1", "n2")
URGENT = "urgent"
PROCESSORS_A_NODE = 2
# As long as a job's credentials live, a job that is queued again waits.
CREDENTIAL_LIFE_S = 8
SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


@dataclass
class SlurmForTests:
    """A running Slurm.

    Attributes
    ----------
    folder : Path
        Its configuration, state, and the logs of its daemons.
    variables : dict
        The environment in which Slurm's commands speak to it.
    """

    folder: Path
    variables: dict[str, str]
    nodes: tuple[str, ...]
    daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def run(self, *command: str) -> str:
        """What one of Slurm's commands prints; it must succeed."""
        done = subprocess.run(
            command, env=os.environ | self.variables, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def state_of_node(self, name: str) -> str:
        """As `sinfo` says it, e.g. "idle", "mixed", "down*"."""
        return self.run("sinfo", "--noheader", "--nodes", name, "--format=%T")

    def start_node(self, name: str) -> None:
        """Start a node's daemon and wait until jobs may run there."""
        self._start(name, _program("slurmd"), "-D", "-N", name)
        with suppress(AssertionError):  # it was not down
            self.run("scontrol", "update", f"NodeName={name}", "State=RESUME")
        await_true(
            lambda: self.state_of_node(name) in {"idle", "mixed", "allocated"},
            30,
            lambda: f"node {name} is {self.state_of_node(name)}\n{self.logs()}",
        )

    def lose(self, name: str) -> None:
        """As when a machine loses its power: all that runs there is dead; then it is down."""
        daemon = self.daemons.pop(name)
        daemon.kill()
        daemon.wait()

        def none_left() -> bool:
            left = self.processes_on(name)
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return not left

        await_true(none_left, 30, lambda: f"{self.processes_on(name)} still run on {name}")
        self.run("scontrol", "update", f"NodeName={name}", "State=DOWN", "Reason=lost")

    def preempt(self) -> None:
        """As when a job of a partition of higher priority comes that needs all nodes."""
        asked = ("--nodes", str(len(self.nodes)), "--exclusive", "--output=/dev/null")
        self.run("sbatch", "--partition", URGENT, *asked, "--wrap", "sleep 2")

    @contextmanager
    def full(self) -> Iterator[None]:
        """As when all nodes are taken: what is submitted waits."""
        self.run("scontrol", "update", "PartitionName=all", "State=DOWN")
        try:
            yield
        finally:
            self.run("scontrol", "update", "PartitionName=all", "State=UP")

    def processes_on(self, name: str) -> list[int]:
        """Process ids of what jobs run on a node, and of Slurm's own that watch over it there."""
        found, watching = [], set()
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                environment = (process / "environ").read_bytes().split(b"\0")
                ours = f"SLURM_CONF={self.variables['SLURM_CONF']}".encode() in environment
                if ours and f"SLURMD_NODENAME={name}".encode() in environment:
                    found.append(int(process.name))
                    parent = Path("/proc") / _parent(process)
                    if (parent / "comm").read_text().strip() == "slurmstepd":
                        watching.add(int(parent.name))
        return [*watching, *found]

    def logs(self, lines: int = 30) -> str:
        """The last lines that the daemons have logged."""
        parts = []
        for path in sorted([*self.folder.glob("*.log"), self.folder / "munged.out"]):
            text = path.read_text(errors="replace").splitlines()
            parts += [f"--- {path.name}", *text[-lines:]]
        return "\n".join(parts)

    def _start(self, name: str, *command: str) -> None:
        with open(self.folder / f"{name}.out", "ab") as log:
            self.daemons[name] = subprocess.Popen(
                command,
                env=os.environ | self.variables | {"PATH": SEARCH_PATH},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _start_controller(self, socket_file: Path) -> None:
        munge = ["--foreground", "--force", f"--socket={socket_file}"]
        for kind in ("key", "pid", "log", "seed"):
            munge.append(f"--{kind}-file={self.folder / f'munge.{kind}'}")
        self._start("munged", _program("munged"), *munge)
        await_true(socket_file.exists, 20, self.logs)
        self._start("slurmctld", _program("slurmctld"), "-D", "-i")
        await_true(self._answers, 30, self.logs)

    def _answers(self) -> bool:
        command = ["scontrol", "ping"]
        done = subprocess.run(command, env=os.environ | self.variables, capture_output=True)
        return done.returncode == 0

    def _stop(self) -> None:
        for name in self.nodes:
            for pid in self.processes_on(name):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        # The nodes first, then the controller, then what all of them speak through.
        for daemon in reversed(self.daemons.values()):
            daemon.terminate()
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


def await_true(condition: Callable[[], bool], timeout_s: float, why: Callable[[], str]) -> None:
    """Wait for something that comes about by itself."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"not within {timeout_s} s: {why()}"
        time.sleep(0.1)


@contextmanager
def slurm_for_tests(
    nodes: tuple[str, ...] = NODES,
    processors: int = PROCESSORS_A_NODE,
    task_plugin: str = "task/none",
) -> Iterator[SlurmForTests]:
    """A Slurm of its own; the test is skipped where the programs are not installed."""
    for program in PROGRAMS:
        if shutil.which(program, path=SEARCH_PATH) is None:
            pytest.skip(f"no {program}: apt-get install slurm-wlm munge")
    # A short path (sockets have at most 107 letters) that a user of munge may enter.
    folder = Path(tempfile.mkdtemp(prefix="planktrait-slurm-"))
    folder.chmod(0o755)
    socket_file = folder / "munge.socket"
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(128))
    (folder / "state").mkdir()
    config = folder / "slurm.conf"
    config.write_text(_configuration(folder, socket_file, nodes, processors, task_plugin))
    slurm = SlurmForTests(folder, {"SLURM_CONF": str(config)}, nodes)
    with ExitStack() as ending:
        ending.callback(shutil.rmtree, folder, ignore_errors=True)
        ending.callback(slurm._stop)
        slurm._start_controller(socket_file)
        for name in nodes:
            slurm.start_node(name)
        yield slurm


@pytest.fixture(scope="session")
def slurm() -> Iterator[SlurmForTests]:
    """Slurm, shared by all tests of a worker: leave no job behind and no node lost."""
    with slurm_for_tests() as running, pytest.MonkeyPatch.context() as patch:
        for name, value in running.variables.items():
            patch.setenv(name, value)
        yield running


def _parent(process: Path) -> str:
    return (process / "stat").read_text().rpartition(")")[2].split()[1]


def _program(name: str) -> str:
    return str(shutil.which(name, path=SEARCH_PATH))


def _configuration(
    folder: Path, socket_file: Path, nodes: tuple[str, ...], processors: int, task_plugin: str
) -> str:
    host, user = socket.gethostname().split(".")[0], getpass.getuser()
    lines = [
        "ClusterName=planktrait-tests",
        f"SlurmctldHost={host}(127.0.0.1)",
        f"SlurmctldPort={free_port()}",
        f"SlurmUser={user}",
        f"SlurmdUser={user}",
        f"AuthInfo=socket={socket_file},cred_expire={CREDENTIAL_LIFE_S}",
        f"StateSaveLocation={folder / 'state'}",
        f"SlurmdSpoolDir={folder}/spool-%n",
        f"SlurmctldPidFile={folder}/slurmctld.pid",
        f"SlurmdPidFile={folder}/slurmd-%n.pid",
        f"SlurmctldLogFile={folder}/slurmctld.log",
        f"SlurmdLogFile={folder}/slurmd-%n.log",
        "ProctrackType=proctrack/linuxproc",
        f"TaskPlugin={task_plugin}",
        "JobAcctGatherType=jobacct_gather/none",
        "MpiDefault=none",
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_CPU",
        # Nodes may claim more than the machine has.
        "SlurmdParameters=config_overrides",
        "SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,"
        "bf_interval=1",
        "JobRequeue=1",
        "ReturnToService=1",
        "KillWait=2",
        "MinJobAge=300",
        "PreemptType=preempt/partition_prio",
        "PreemptMode=REQUEUE",
        "SlurmdTimeout=60",
    ]
    lines += [
        f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={free_port()} "
        f"CPUs={processors} State=UNKNOWN"
        for name in nodes
    ]
    every = f"Nodes={','.join(nodes)} MaxTime=INFINITE State=UP"
    lines.append(f"PartitionName=all {every} Default=YES PriorityTier=1")
    lines.append(f"PartitionName={URGENT} {every} PriorityTier=2 PreemptMode=OFF")
    return "\n".join(lines) + "\n"
