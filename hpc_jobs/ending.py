"""Ending jobs before their time, wherever they run."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from hpc_jobs import slurm
from hpc_jobs.errors import JobError
from hpc_jobs.files import read_json
from hpc_jobs.job_folder import CANCELLED_FILE, JOB_FILE, STARTED_FILE, part_folders
from hpc_jobs.job_record import JobRecord
from hpc_jobs.pending import drop_pending, set_pending_aside
from hpc_jobs.processes import ProcessIdentity
from hpc_jobs.records import existing_job, list_jobs, wait_for_end

logger = logging.getLogger(__name__)


class InFolder(Protocol):
    """A `Job`, or a `JobRecord`."""

    @property
    def folder(self) -> Path:
        """The folder of the job."""


def cancel(job: InFolder, grace_s: float = 10.0, *, keep_follow_up: bool = False) -> JobRecord:
    """End a job: an interrupt first, the hard way after `grace_s` seconds.

    A job that is over stays as it is. A waiting follow-up of the same key is dropped, or set aside.

    Returns
    -------
    JobRecord
        How the job stands afterwards.

    Raises
    ------
    JobError
        The job runs on another machine and no scheduler can be asked to end it.
    """
    record = existing_job(job.folder)
    if not record.active:
        return record
    description = read_json(record.folder / JOB_FILE) or {}
    in_slurm = description.get("executor") == "slurm"
    folders = part_folders(record.folder, description)
    processes = [] if in_slurm else [process for one in folders for process in _processes(one)]
    host = next((process.host for process in processes if not process.is_here), "")
    if host:
        # The same number is another process here.
        raise JobError(f"job {record.id} runs on {host}: cancel it there")
    for one in {record.folder, *folders}:
        (one / CANCELLED_FILE).touch()
    follow_up = set_pending_aside if keep_follow_up else drop_pending
    follow_up(record.folder.parent, record.key)
    if in_slurm:
        return _cancel_in_slurm(record, str(description.get("scheduler_id", "")), grace_s)
    for one in folders:
        for process in _processes(one, STARTED_FILE):
            with suppress(ProcessLookupError):  # it may end between two looks
                os.kill(process.pid, signal.SIGINT)
    has_begun = any(_processes(one, STARTED_FILE) for one in folders)
    wait_for_end(record.folder, grace_s if has_begun else 0)
    for one in folders:
        for process in _processes(one):
            with suppress(ProcessLookupError):
                # Its session is its own (see `local_executor`), so this ends its workers too.
                os.killpg(os.getpgid(process.pid), signal.SIGKILL)
    return wait_for_end(record.folder, 2.0)


def _cancel_in_slurm(job: JobRecord, scheduler_id: str, grace_s: float) -> JobRecord:
    if not scheduler_id:
        raise JobError(f"job {job.id} is being submitted: cancel it in a moment")
    try:
        if existing_job(job.folder).state == "running":
            slurm.interrupt(scheduler_id)
            ended = wait_for_end(job.folder, grace_s)
            if not ended.active:
                return ended
        slurm.end(scheduler_id)
    except slurm.SlurmError as error:
        raise JobError(str(error)) from error
    return wait_for_end(job.folder, grace_s)


def _processes(job_folder: Path, *files: str) -> list[ProcessIdentity]:
    """The job's own process, and the one that holds it; those elsewhere, and here the live ones."""
    found = []
    for name in files or (STARTED_FILE, JOB_FILE):
        content = (read_json(job_folder / name) or {}).get("process")
        process = ProcessIdentity.from_json(content)
        if process is not None and (not process.is_here or process.is_alive()):
            found.append(process)
    return found


def cancel_all(
    folder: Path | str,
    chosen: Callable[[JobRecord], bool] = lambda job: True,
    *,
    keep_follow_ups: bool = False,
) -> list[JobRecord]:
    """End every job of a folder that runs on this machine; those on a cluster go on.

    Parameters
    ----------
    folder : path
    chosen : callable
        Whether a job is meant; by default each is.
    keep_follow_ups : bool
        Set aside what waits for them, see `put_pending_back`; else it is dropped.

    Returns
    -------
    list of JobRecord
        The jobs that were ended, as they stand afterwards.
    """
    ended = []
    for job in list_jobs(Path(folder)):
        here = (read_json(job.folder / JOB_FILE) or {}).get("executor") == "local"
        if job.active and here and chosen(job):
            try:
                ended.append(cancel(job, keep_follow_up=keep_follow_ups))
            except JobError as error:
                logger.warning("not cancelled: %s", error)
    return ended
