"""Jobs that were cut off, by the machine's end or with the servers: taken up at the next start.

Each is told of once. What goes on where it was, and was asked for through the servers, is begun
again, but a job that was begun again already is not: it may be what ends the machine.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc_jobs.call import JobCall
from hpc_jobs.ending import cancel_all
from hpc_jobs.files import read_json, update_json, write_json
from hpc_jobs.job import Job
from hpc_jobs.job_folder import CANCELLED_FILE, JOB_FILE, STOPPED_FILE, TOLD_FILE
from hpc_jobs.job_record import JobRecord
from hpc_jobs.once import put_pending_back, submit_once
from hpc_jobs.records import list_jobs

logger = logging.getLogger(__name__)

SECONDS_OF_INTEREST = 7 * 24 * 3600.0


@dataclass(frozen=True)
class Interrupted:
    """A job that was cut off.

    Attributes
    ----------
    job : JobRecord
    again : Job or None
        What goes on with it; None where somebody has to start it again.
    """

    job: JobRecord
    again: Job[Any] | None


def end_with_servers(folder: Path | str) -> list[JobRecord]:
    """End the jobs that servers have started on this machine, to be taken up at their next start.

    They have a key (`submit_once`). Those of `hpc_jobs.command_line`, which somebody has started at
    a terminal, have none and go on.

    Returns
    -------
    list of JobRecord
        The jobs that were ended, as they stand afterwards.
    """
    return cancel_all(folder, _mark_stopped, keep_follow_ups=True)


def _mark_stopped(job: JobRecord) -> bool:
    """Whether a job ends with the servers; noted first, since a second signal may end us."""
    if job.key is None or (job.folder / CANCELLED_FILE).exists():
        return False
    (job.folder / STOPPED_FILE).touch()
    return True


def take_up_interrupted(folder: Path | str, goes_on: Callable[[str], bool]) -> list[Interrupted]:
    """Begin again the jobs of this machine that were cut off. For the start of servers.

    That is the newest job of each key, where no other was started since, and once; of the last
    seven days. Cut off is what `end_with_servers` has ended, and what was killed: with the machine,
    or for its memory. Follow-up runs that waited then wait again, or start.

    A job of a copy of the folder, such as a restored backup, is told of but not begun again: its
    call names the folders of the original.

    Parameters
    ----------
    folder : path
    goes_on : callable
        Whether a job of this key, called again, goes on where it was and does nothing twice.

    Returns
    -------
    list of Interrupted
        All that were cut off, the oldest first, also those that are not begun again.
    """
    found, keys = [], set()
    for record in list_jobs(Path(folder).expanduser().absolute()):
        newest = record.key is not None and record.key not in keys
        keys.add(record.key)
        description = read_json(record.folder / JOB_FILE) or {}
        if not _was_cut_off(record, description):
            continue
        once = newest and goes_on(str(record.key)) and not description.get("goes_on_with")
        again = _begin_again(record) if once else None
        told = record.folder / TOLD_FILE
        with suppress(OSError):  # a full disk must not keep servers from starting
            write_json(told, {"again": None if again is None else again.id})
            # The newest of its files tells when a killed job ended.
            os.utime(told, (record.finished or 0, record.finished or 0))
        found.append(Interrupted(record, again))
    put_pending_back(folder)
    return found[::-1]


def _was_cut_off(record: JobRecord, description: dict[str, Any]) -> bool:
    stopped = record.state == "cancelled" and (record.folder / STOPPED_FILE).exists()
    return (
        (record.state == "killed" or stopped)
        and description.get("executor") == "local"
        and not (record.folder / TOLD_FILE).exists()
        and time.time() - (record.finished or 0) < SECONDS_OF_INTEREST
    )


def _begin_again(record: JobRecord) -> Job[Any] | None:
    from submitit.core.utils import DelayedSubmission

    try:
        (pickled,) = record.folder.glob("*_submitted.pkl")
        call = DelayedSubmission.load(pickled).function
        assert isinstance(call, JobCall)
        if call.job_folder != record.folder:
            logger.warning("%s was started in %s: not begun again", record.id, call.job_folder)
            return None
        job = submit_once(
            call.function,
            *call.args,
            name=record.name,
            folder=record.folder.parent,
            key=str(record.key),
            **call.kwargs,
        ).job
    except Exception:
        # E.g. a call that the program's newer version does not know any more.
        logger.exception("%s cannot be begun again", record.id)
        return None
    with suppress(OSError):
        update_json(job.folder / JOB_FILE, goes_on_with=record.id)
    return job
