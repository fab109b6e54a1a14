"""What jobs there are and how they stand, read from their folders (`job_folder`).

Nothing is kept in memory, so the answer is right after a `kill -9` of the job, and after the
program that started it is gone.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from itertools import islice
from pathlib import Path

from hpc_jobs import progress, slurm
from hpc_jobs.arrays import record_of_array
from hpc_jobs.errors import JobError
from hpc_jobs.files import read_json
from hpc_jobs.job_folder import JOB_FILE, OUTCOME_FILE, STARTED_FILE, part_folders
from hpc_jobs.job_record import JobRecord, where_of
from hpc_jobs.job_state import state_of


def list_jobs(
    folder: Path, newest: int | None = None, keys: Collection[str] | None = None
) -> list[JobRecord]:
    """All jobs of a folder, the newest first.

    Parameters
    ----------
    folder : Path
        The folder that was given to `submit`; a missing one has no jobs.
    newest : int, optional
        Read no more than this many.
    keys : collection of str, optional
        Only jobs of these keys; `newest` counts them alone.
    """
    return list(islice(_records(Path(folder), keys), newest))


def read_job(job_folder: Path) -> JobRecord | None:
    """The record of the job in this folder; None where there is no job."""
    job = read_json(job_folder / JOB_FILE)
    if not isinstance(job, dict):
        return None
    if job.get("parts"):
        parts = (read_job(folder) for folder in part_folders(job_folder, job))
        return record_of_array(job_folder, job, [part for part in parts if part is not None])
    started = read_json(job_folder / STARTED_FILE) or {}
    state, finished, error = state_of(job_folder, job, started)
    log = job.get("log")
    return JobRecord(
        id=job["id"],
        name=job["name"],
        key=job["key"],
        state=state,
        progress=progress.read(job_folder),
        submitted=job["submitted"],
        started=started.get("time"),
        finished=finished,
        error=error,
        log=job_folder / log if log else None,
        folder=job_folder,
        result=(read_json(job_folder / OUTCOME_FILE) or {}).get("result"),
        where=where_of(job),
        waits_for=slurm.why_waiting(job["scheduler_id"])
        if state == "queued" and job.get("scheduler_id")
        else None,
    )


def existing_job(job_folder: Path) -> JobRecord:
    """As `read_job`; raises `JobError` where the folder is gone."""
    record = read_job(job_folder)
    if record is None:
        raise JobError(f"no job in {job_folder}: was the folder deleted?")
    return record


def wait_for_end(job_folder: Path, timeout_s: float | None = None) -> JobRecord:
    """Wait for the end of a job, or for `timeout_s` seconds; how it stands then."""
    end = None if timeout_s is None else time.monotonic() + timeout_s
    while (record := existing_job(job_folder)).active and (end is None or time.monotonic() < end):
        time.sleep(0.1)
    return record


def read_log(record: JobRecord) -> str:
    """What a job has logged so far; "" before it began. For an array see its parts."""
    if record.log is None or not record.log.is_file():
        return ""
    return record.log.read_text(encoding="utf-8", errors="replace")


def _records(folder: Path, keys: Collection[str] | None) -> Iterator[JobRecord]:
    if not folder.is_dir():
        return
    for job_folder in sorted(folder.iterdir(), reverse=True):
        if keys is not None and (read_json(job_folder / JOB_FILE) or {}).get("key") not in keys:
            continue
        record = read_job(job_folder) if job_folder.is_dir() else None
        if record is not None:
            yield record
