"""What the jobs of tests/test_slurm.py do, in a process of its own on a node."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

from hpc_jobs import progress


def add(a: int, b: int) -> int:
    """As its name says."""
    return a + b


def note_and_wait(folder: Path, name: str = "only", part: tuple[int, int] = (0, 1)) -> list[str]:
    """Note that it began; end once the file `go` is there. Who began, in this folder, is told."""
    me = f"{name}-{part[0]}"
    with (folder / f"{me}.began").open("a") as file:
        file.write(f"{os.getpid()} {os.environ.get('SLURMD_NODENAME')}\n")
    progress.report("wait", part[0] + 1, 10)
    while not (folder / "go").exists():
        time.sleep(0.05)
    return (folder / f"{me}.began").read_text().splitlines()


def rank_and_size(fails: int | None = None) -> tuple[int, int, str]:
    """Which of a job's processes this is."""
    rank = int(os.environ["SLURM_PROCID"])
    if rank == fails:
        raise ValueError("as asked")
    if fails is not None:
        time.sleep(600)
    threads = os.environ.get("OMP_NUM_THREADS", "")
    return rank, int(os.environ["SLURM_NTASKS"]), threads


def sum_together(folder: Path, fails: int | None = None) -> int:
    """Sum over all processes of the job, again and again until `go` is there; how often it began.

    As distributed training: a process that is gone is an error in the others.

    Parameters
    ----------
    fails : int, optional
        The process that raises an error meanwhile.
    """
    import torch
    import torch.distributed as dist

    rank = int(os.environ["SLURM_PROCID"])
    began = folder / f"only-{rank}.began"
    run = len(began.read_text().splitlines()) + 1 if began.exists() else 1
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet-{run}", rank=rank, world_size=2
    )
    dist.barrier()
    with began.open("a") as file:
        file.write(f"{os.getpid()} {os.environ.get('SLURMD_NODENAME')}\n")
    stop = torch.zeros(1)
    while not stop:
        if rank == fails:
            raise ValueError("as asked")
        time.sleep(0.05)
        stop = torch.tensor([float((folder / "go").exists())])
        dist.all_reduce(stop)
    dist.destroy_process_group()
    return run


class OfFirstProcess:
    """An argument that only the first process of a job can read: on the others' node, say, a
    module is missing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return _of_first_process, (self.folder,)


def _of_first_process(folder: Path) -> OfFirstProcess:
    rank = os.environ.get("SLURM_PROCID", "0")
    with (folder / f"only-{rank}.began").open("a") as file:
        file.write("\n")
    if rank != "0":
        raise ImportError("no torch on this node")
    return OfFirstProcess(folder)


def wait_for_ever(_: OfFirstProcess) -> None:
    """As a process does that waits for another one."""
    time.sleep(600)


def note_scratch(folder: Path) -> None:
    """Note what this process has as its scratch folder, and leave something there."""
    scratch = Path(os.environ["PLANKTRAIT_SCRATCH"])
    (scratch / "image").touch()
    path = folder / f"rank-{os.environ['SLURM_PROCID']}"
    path.with_suffix(".part").write_text(f"{scratch}\n{tempfile.gettempdir()}\n")
    path.with_suffix(".part").rename(path)
