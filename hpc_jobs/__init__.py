"""How any work runs: here or on a cluster. Knows no plankton.

`submit` runs a function as a job, `submit_once` never twice at a time, `list_jobs` tells how they
stand, `cancel` ends one; `progress` is for the function itself.
"""

from hpc_jobs import progress
from hpc_jobs.once import Submission, has_pending, start_pending, submit_once
from hpc_jobs.progress import Progress
from hpc_jobs.records import JobRecord, list_jobs, read_job
from hpc_jobs.runner import Job, JobError, cancel, cancel_all, submit

__all__ = [
    "Job",
    "JobError",
    "JobRecord",
    "Progress",
    "Submission",
    "cancel",
    "cancel_all",
    "has_pending",
    "list_jobs",
    "progress",
    "read_job",
    "start_pending",
    "submit",
    "submit_once",
]
