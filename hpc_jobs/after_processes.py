"""For the batch script of a job that is not queued again, once its processes are over.

    python -m hpc_jobs.after_processes JOB_FOLDER

Where several of them share the work, none has written that it failed: see `failures`.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from hpc_jobs import failures
from hpc_jobs.call import end
from hpc_jobs.records import OUTCOME_FILE


def after_processes(job_folder: Path) -> None:
    """Write the outcome of a job of several processes that has failed."""
    failure = failures.last(job_folder, failures.run_number())
    if failure is not None and not (job_folder / OUTCOME_FILE).exists():
        end(job_folder, "failed", failure.told)


if __name__ == "__main__":
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    after_processes(Path(sys.argv[1]))
