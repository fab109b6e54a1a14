"""What submitit has kept of a job: its result, or the error that it ended with."""

from __future__ import annotations

import pickle
import time
from pathlib import Path
from typing import Any

from hpc_jobs import slurm
from hpc_jobs.files import read_json
from hpc_jobs.job_folder import JOB_FILE, OUTCOME_FILE


def results_of(job_folder: Path, job: dict[str, Any], rank: int | str = 0) -> list[Path]:
    """Submitit's pickled results; those of an array lie together, named by the scheduler's ids.

    Parameters
    ----------
    rank : int or "*"
        Of which of the job's processes.
    """
    folder = Path(job.get("submitit_folder") or job_folder)
    return sorted(folder.glob(f"{job.get('scheduler_id') or '*'}_{rank}_result.pkl"))


def kept_error(
    job_folder: Path, job: dict[str, Any], rank: int | str = 0
) -> tuple[float, str] | None:
    """When and why a job failed, where submitit has kept that; None where it has not.

    A call that cannot even be unpickled fails before our own code runs. That of another process
    than the first one counts once the batch script has come to it, see `after_processes`. What our
    own code raises in one of several processes is not kept there at all, see `failures`.

    Parameters
    ----------
    rank : int or "*"
        As `results_of` takes it.
    """
    for path in results_of(job_folder, job, rank):
        try:
            kind, content = pickle.loads(path.read_bytes())
        except Exception:
            continue
        if kind == "error":
            last = str(content).strip().splitlines()[-1]
            return path.stat().st_mtime, slurm.with_remedy(last)
    return None


def read_result(job_folder: Path) -> tuple[Any] | None:
    """What the function of a finished job returned; None where it could not be kept.

    submitit writes it just after our outcome: it is waited for.
    """
    job = read_json(job_folder / JOB_FILE) or {}
    for _ in range(100):
        for path in results_of(job_folder, job):
            kind, content = pickle.loads(path.read_bytes())
            return (content,) if kind == "success" else None
        if not (job_folder / OUTCOME_FILE).exists():
            return None
        time.sleep(0.05)
    return None
