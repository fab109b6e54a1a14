"""One job per key at a time, whoever asks, in whichever process.

A request that comes while the job of its key is active is kept as *pending*: one follow-up run,
however many requests there were, the last one's arguments. The ending job starts it. If that job
was killed, the next request or `start_pending` does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc_jobs.call import JobCall
from hpc_jobs.errors import JobError
from hpc_jobs.files import read_json
from hpc_jobs.job import Job
from hpc_jobs.job_folder import JOB_FILE
from hpc_jobs.pending import ASIDE_FILE, PENDING_FILE, KeyState, each_locked, locked
from hpc_jobs.runner import submit

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Submission:
    """What became of a request.

    Attributes
    ----------
    job : Job
        The job that was started, or the active one that the request waits for.
    coalesced : bool
        True where the request waits as the follow-up of `job`.
    """

    job: Job[Any]
    coalesced: bool


def submit_once(
    function: Callable[..., Any],
    *args: Any,
    name: str,
    folder: Path | str,
    key: str,
    **kwargs: Any,
) -> Submission:
    """As `hpc_jobs.submit`, unless a job of this key is active: then run once more after it.

    Safe across threads, processes and machines that share the folder's file system (flock).

    Parameters
    ----------
    key : str
        What must not run twice at the same time, e.g. "train project 3".

    Raises
    ------
    ValueError
        `executor` is "debug": the job would wait in this call for the lock that this call holds;
        or it is an array, whose parts each end by themselves.
    JobError
        Slurm does not take the job.
    """
    if kwargs.get("parts", 1) != 1:
        raise ValueError("submit_once runs one job at a time, no array: use submit")
    if kwargs.get("executor") == "debug":
        raise ValueError(
            "submit_once cannot run a job in this process (executor 'debug'): use submit, or the "
            "executor 'local'"
        )
    folder = Path(folder).expanduser().absolute()
    with locked(folder, key) as state:
        active = state.active_job()
        if active is not None:
            state.keep_pending((function, args, {"name": name, "key": key} | kwargs))
            logger.info("%s is %s: one more run of %r after it", active.id, active.state, key)
            return Submission(Job(active.folder), coalesced=True)
        job = _submit(state, function, *args, name=name, key=key, **kwargs)
    return Submission(job, coalesced=False)


def start_pending(folder: Path | str) -> list[Job[Any]]:
    """Start the follow-up runs whose job was killed before it could. For a server's start."""
    folder = Path(folder).expanduser().absolute()
    return [job for state in each_locked(folder, PENDING_FILE) for job in _start_pending(state)]


def put_pending_back(folder: Path | str) -> list[Job[Any]]:
    """Follow-up runs that were set aside wait again; those that wait for no job are started."""
    folder = Path(folder).expanduser().absolute()
    for state in each_locked(folder, ASIDE_FILE):
        state.put_pending_back()
    return start_pending(folder)


def with_follow_up(job_folder: Path, write_outcome: Callable[[], None]) -> None:
    """For an ending job: write its outcome and start what waits for it, with no gap between."""
    key = (read_json(job_folder / JOB_FILE) or {}).get("key")
    if key is None:
        write_outcome()
        return
    with locked(job_folder.parent, key) as state:
        write_outcome()
        try:
            _start_pending(state)
        except JobError:
            # Some clusters take no jobs from their nodes. It stays, for the next request or
            # the next start of the server; what this job did is done.
            logger.exception("the run that waits for %s could not be submitted", key)


def _start_pending(state: KeyState) -> list[Job[Any]]:
    """What waits for no active job."""
    call = None if state.active_job() is not None else state.pending_call()
    if call is None:
        return []
    function, args, kwargs = call
    return [_submit(state, function, *args, **kwargs)]


def _submit(state: KeyState, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Job[Any]:
    """Whatever waited, it needs no run of its own any more."""
    job = submit(
        function,
        *args,
        folder=state.jobs_folder,
        announce=state.set_current,
        at_end=with_follow_up,
        **kwargs,
    )
    state.forget_pending()
    return job


# A call that an earlier version has pickled does not say what happens at its end: this did.
JobCall.at_end = staticmethod(with_follow_up)
