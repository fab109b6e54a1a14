"""For the batch script of a job that is not queued again, once its processes are over.

    python -m hpc_jobs.after_processes JOB_FOLDER [WHY]
    python -m hpc_jobs.after_processes --kept FOLDER_OF_SUBMITIT SLURM_ID

The second only says, by its status, whether submitit has kept an error: then no other run helps.
Where several of them share the work, none has written that it failed: see `failures`. One that was
killed has written nothing at all.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from hpc_jobs import failures
from hpc_jobs.call import LOG_FORMAT, end
from hpc_jobs.files import read_json
from hpc_jobs.job_folder import JOB_FILE, OUTCOME_FILE
from hpc_jobs.kept_results import kept_error
from hpc_jobs.once import with_follow_up


def after_processes(job_folder: Path, why: str | None = None) -> None:
    """Write the outcome of a job that has failed without one; of any other nothing.

    Parameters
    ----------
    why : str, optional
        What the batch script knows; by default what submitit has told, or what the processes have
        noted.
    """
    if (job_folder / OUTCOME_FILE).exists():
        return
    kept = kept_error(job_folder, read_json(job_folder / JOB_FILE) or {}, rank="*")
    failure = failures.last(job_folder, failures.run_number())
    error = why or (kept and kept[1]) or (failure and failure.told)
    if error:
        end(job_folder, "failed", error, at_end=with_follow_up)


if __name__ == "__main__":
    if sys.argv[1] == "--kept":
        sys.exit(kept_error(Path(sys.argv[2]), {"scheduler_id": sys.argv[3]}, rank="*") is None)
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)
    after_processes(Path(sys.argv[1]), *sys.argv[2:])
