"""How any work runs: here or on a cluster. Knows no plankton.

`submit` runs a function as a job, `submit_once` never twice at a time, `list_jobs` tells how they
stand, `cancel` ends one, `take_up_interrupted` begins again what was cut off; `progress` is for the
function itself. `read_site` reads what a site asks for.
"""

from hpc_jobs import progress
from hpc_jobs.ending import cancel, cancel_all
from hpc_jobs.errors import JobError
from hpc_jobs.interrupted import Interrupted, end_with_servers, take_up_interrupted
from hpc_jobs.job import Job
from hpc_jobs.job_record import JobRecord
from hpc_jobs.once import Submission, start_pending, submit_once
from hpc_jobs.pending import has_pending
from hpc_jobs.progress import Progress
from hpc_jobs.records import list_jobs, read_job, read_log
from hpc_jobs.runner import submit
from hpc_jobs.site import Site, SiteError, find_site, read_site

__all__ = [
    "Interrupted",
    "Job",
    "JobError",
    "JobRecord",
    "Progress",
    "Site",
    "SiteError",
    "Submission",
    "cancel",
    "cancel_all",
    "end_with_servers",
    "find_site",
    "has_pending",
    "list_jobs",
    "progress",
    "read_job",
    "read_log",
    "read_site",
    "start_pending",
    "submit",
    "submit_once",
    "take_up_interrupted",
]
