"""The processes that train together, found from the environment of whoever started them.

Slurm (`srun`, and every job of several tasks that submitit makes) or torchrun starts the processes;
nothing here starts any. A process that neither has started is alone.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
from lightning.fabric.plugins.environments import ClusterEnvironment, SLURMEnvironment
from torch import distributed

from hpc_jobs.processors import processors

Result = TypeVar("Result")

# Rank 0 may decode every image while the others wait for it.
LONGEST_WAIT = timedelta(days=3)
_FIRST_PORT, _PORTS = 20_000, 40_000


@dataclass
class Ranks:
    """Which of how many processes this one is.

    Attributes
    ----------
    rank, size : int
        Among all processes.
    local_rank, local_size : int
        Among those of this node.
    node : int
        Number of the node.
    address, port
        Where rank 0 listens.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    node: int = 0
    address: str = "127.0.0.1"
    port: int = 0
    _control: Any = field(default=None, repr=False, compare=False)

    @classmethod
    def here(cls, environment: Mapping[str, str] = os.environ) -> Ranks:
        """The ranks that this process is one of; alone where no launcher says otherwise."""
        if {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"} <= environment.keys():
            return cls(
                rank=int(environment["RANK"]),
                size=int(environment["WORLD_SIZE"]),
                local_rank=int(environment["LOCAL_RANK"]),
                local_size=int(environment.get("LOCAL_WORLD_SIZE", 1)),
                node=int(environment.get("GROUP_RANK", 0)),
                address=environment["MASTER_ADDR"],
                port=int(environment["MASTER_PORT"]),
            )
        # Of the step: a batch script that does not use srun has several tasks and runs one.
        tasks = int(environment.get("SLURM_STEP_NUM_TASKS", 1))
        if tasks > 1 and "SLURM_PROCID" in environment:
            nodes = environment.get("SLURM_STEP_NODELIST", environment.get("SLURM_NODELIST", ""))
            job, step = environment["SLURM_JOB_ID"], environment.get("SLURM_STEP_ID", "0")
            node = int(environment.get("SLURM_NODEID", 0))
            return cls(
                rank=int(environment["SLURM_PROCID"]),
                size=tasks,
                local_rank=int(environment["SLURM_LOCALID"]),
                local_size=_tasks_of_node(environment, node, tasks),
                node=node,
                address=_address(SLURMEnvironment.resolve_root_node_address(nodes), environment),
                port=_FIRST_PORT + (int(job) * 7 + int(step)) % _PORTS,
            )
        return cls()

    @property
    def is_first(self) -> bool:
        """Whether this process writes and reports."""
        return self.rank == 0

    @property
    def device(self) -> int:
        """Number of this process's GPU; 0 where the launcher shows each process only its own."""
        return self.local_rank % max(1, torch.cuda.device_count())

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Be connected to the other processes: NCCL between GPUs, gloo between CPUs."""
        if self.size == 1:
            yield
            return
        on_gpus = torch.cuda.is_available()
        if on_gpus:
            torch.cuda.set_device(self.device)
        else:
            _share_processors(self.local_size)
        by_torchrun = "TORCHELASTIC_RUN_ID" in os.environ
        distributed.init_process_group(
            "nccl" if on_gpus else "gloo",
            init_method="env://" if by_torchrun else f"tcp://{self.address}:{self.port}",
            rank=self.rank,
            world_size=self.size,
        )
        self._control = distributed.new_group(backend="gloo", timeout=LONGEST_WAIT)
        yield
        # Not after an error, which is to be told before the others miss this process.
        self._control = None
        distributed.destroy_process_group()

    def first(self, function: Callable[[], Result]) -> Result:
        """Call a function in rank 0 only; what it returns or raises, every rank does."""
        if self.size == 1:
            return function()
        outcome: list[Any] = [None, None]
        if self.is_first:
            try:
                outcome = [function(), None]
            except Exception as error:
                outcome = [None, error]
        distributed.broadcast_object_list(outcome, group=self._control)
        result, raised = outcome
        if raised is not None:
            raise raised
        return cast(Result, result)


class RankEnvironment(ClusterEnvironment):
    """What Lightning asks about the ranks; each process has one device."""

    def __init__(self, ranks: Ranks) -> None:
        super().__init__()
        self.ranks = ranks

    @property
    def creates_processes_externally(self) -> bool:
        """Lightning starts none."""
        return True

    @property
    def main_address(self) -> str:
        """Where rank 0 is."""
        return self.ranks.address

    @property
    def main_port(self) -> int:
        """On which port."""
        return self.ranks.port

    @staticmethod
    def detect() -> bool:
        """Never chosen by itself."""
        return False

    def world_size(self) -> int:
        """All processes."""
        return self.ranks.size

    def set_world_size(self, size: int) -> None:
        """The launcher has set it."""

    def global_rank(self) -> int:
        """Of this process."""
        return self.ranks.rank

    def set_global_rank(self, rank: int) -> None:
        """The launcher has set it."""

    def local_rank(self) -> int:
        """Among this process's devices, of which there is one."""
        return 0

    def node_rank(self) -> int:
        """Number of the node."""
        return self.ranks.node


def _address(node: str, environment: Mapping[str, str]) -> str:
    """Of the node of rank 0; where Slurm's name of it is not a host's, of the node of `srun`."""
    try:
        socket.getaddrinfo(node, None)
    except OSError:
        return environment.get("SLURM_LAUNCH_NODE_IPADDR", "127.0.0.1")
    return node


def _tasks_of_node(environment: Mapping[str, str], node: int, tasks: int) -> int:
    """From Slurm's short form: "2(x3),1" is two tasks on each of three nodes and one on another."""
    counts: list[int] = []
    for part in environment.get("SLURM_STEP_TASKS_PER_NODE", str(tasks)).split(","):
        count, _, times = part.partition("(x")
        counts += [int(count)] * int(times.rstrip(")") or 1)
    return counts[min(node, len(counts) - 1)]


def _share_processors(processes: int) -> None:
    """Threads for each process of a node, where nobody has said how many."""
    if "OMP_NUM_THREADS" in os.environ:
        return
    if "SLURM_CPUS_PER_TASK" in os.environ:
        torch.set_num_threads(int(os.environ["SLURM_CPUS_PER_TASK"]))
        return
    allowed, there = processors(), os.cpu_count() or 1
    bound = allowed < there  # to a share of its own already
    torch.set_num_threads(allowed if bound else max(1, allowed // processes))
