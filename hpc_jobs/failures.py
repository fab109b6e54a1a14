"""Why a job of several processes failed: what the first of them tells.

It is no outcome yet. Where one process is killed, or its node lost, the others fail too, since they
cannot reach it; and then Slurm, or the batch script, queues the whole job again. So it is kept by
the number of the run, apart from a failure of a process's own, and becomes the outcome once no
other run follows.
"""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from hpc_jobs.errors import chain, told
from hpc_jobs.files import read_json
from hpc_jobs.whole_files import write_once

OWN = "failure"
"""A process has failed by itself: `failure-0.json` for the first run, and so on."""
OF_ANOTHER = "lost"
"""A process could not reach another one: `lost-0.json` and so on."""

_NAME = re.compile(rf"({OWN}|{OF_ANOTHER})-(\d+)\.json")
_OF_TORCH = {"DistBackendError", "DistNetworkError", "DistStoreError"}


@dataclass(frozen=True)
class Failure:
    """What a process tells: its rank, and its error in one line."""

    rank: int
    error: str
    of_another: bool

    @property
    def told(self) -> str:
        """For people."""
        if self.of_another:
            return (
                f"a process of it was killed, or its node went; process {self.rank} noticed: "
                f"{self.error}"
            )
        return f"process {self.rank}: {self.error}"


def run_number() -> int:
    """How often Slurm has queued this job again."""
    return int(os.environ.get("SLURM_RESTART_COUNT", 0))


def note(job_folder: Path, rank: int, error: BaseException) -> None:
    """Note a failure, unless another process of this run was first with one of its kind."""
    failure = Failure(rank, " ".join(told(error).split()), is_of_another(error))
    name = f"{OF_ANOTHER if failure.of_another else OWN}-{run_number()}.json"
    with suppress(OSError):  # a full disk, say: the error that is on its way says more
        write_once(job_folder / name, json.dumps(asdict(failure)))


def last(job_folder: Path, run: int) -> Failure | None:
    """What was noted in this run, or in a later one: a failure of its own before any other."""
    found = [(int(one[2]), one[1] == OWN, one[0]) for one in _noted(job_folder)]
    number, _, name = max(found, default=(-1, False, ""))
    content = read_json(job_folder / name) if number >= run else None
    return Failure(**content) if isinstance(content, dict) else None


def is_of_another(error: BaseException) -> bool:
    """Whether an error says that another process of the job is gone.

    Of PyTorch's distributed package: NCCL and the store have types of their own; gloo raises a
    RuntimeError with the place in its source.
    """
    return any(
        type(one).__name__ in _OF_TORCH or "gloo/transport" in str(one) for one in chain(error)
    )


def _noted(job_folder: Path) -> list[re.Match[str]]:
    names = (path.name for path in job_folder.iterdir())
    return [found for name in names if (found := _NAME.fullmatch(name))]
