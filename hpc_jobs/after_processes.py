"""For the batch script of a job that is not queued again, once its processes are over.

    python -m hpc_jobs.after_processes JOB_FOLDER [WHY]

Where several of them share the work, none has written that it failed: see `failures`. One that was
killed has written nothing at all.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from hpc_jobs import failures
from hpc_jobs.call import end
from hpc_jobs.records import OUTCOME_FILE


def after_processes(job_folder: Path, why: str | None = None) -> None:
    """Write the outcome of a job that has failed without one.

    Parameters
    ----------
    why : str, optional
        What the batch script knows; by default what the processes have noted, if anything.
    """
    if why is None:
        failure = failures.last(job_folder, failures.run_number())
        why = None if failure is None else failure.told
    if why is not None and not (job_folder / OUTCOME_FILE).exists():
        end(job_folder, "failed", why)


if __name__ == "__main__":
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    after_processes(Path(sys.argv[1]), *sys.argv[2:])
