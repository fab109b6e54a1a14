"""Whether a job waits, runs or has ended, told by its files, its processes and Slurm."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from hpc_jobs import failures, slurm
from hpc_jobs.files import read_json, update_json, write_json
from hpc_jobs.job_folder import CANCELLED_FILE, JOB_FILE, OUTCOME_FILE, SLURM_FILE, STARTED_FILE
from hpc_jobs.job_record import ACTIVE_STATES, State
from hpc_jobs.kept_results import kept_error
from hpc_jobs.processes import ProcessIdentity
from hpc_jobs.whole_files import write_once

SECONDS_TO_SUBMIT = 60.0
SECONDS_TO_SUBMIT_TO_SLURM = 180.0  # sbatch asks a busy controller again for two minutes
SECONDS_OF_SILENCE = 600.0  # ten heartbeats: clocks of two machines may differ a little
GIVEN_UP: State = "killed"
"""The state of an outcome that is written by others than the job: it left none itself."""


def state_of(
    job_folder: Path, job: dict[str, Any], started: dict[str, Any]
) -> tuple[State, float | None, str | None]:
    """State, time of the end and error. The processes are asked before the outcome is read again,
    since a job may end between two looks."""
    ended = outcome(job_folder, job)
    if ended:
        return ended
    process = ProcessIdentity.from_json(started.get("process"))
    if job["executor"] == "slurm" and not job.get("scheduler_id"):
        job = _found_in_slurm(job_folder, job)
    if job["executor"] == "slurm" and job.get("scheduler_id"):
        state, error = _state_in_slurm(job_folder, job["scheduler_id"], process, started)
    else:
        state, error = _state_of_process(job_folder, job, process)
    if state in ACTIVE_STATES:
        return state, None, None
    if (job_folder / CANCELLED_FILE).exists():
        state, error = "cancelled", None
    return outcome(job_folder, job) or (state, _last_sign(job_folder), error)


def _state_in_slurm(
    job_folder: Path,
    scheduler_id: str,
    process: ProcessIdentity | None,
    started: dict[str, Any],
) -> tuple[State, str | None]:
    """Without an outcome: by the process where it is on this machine, else by the scheduler.

    Where several processes have noted a failure, the batch script has not come to write it.
    """
    if process is not None and process.is_alive():
        return "running", None
    said = slurm.state_of(scheduler_id)
    if said is None:
        said = (read_json(job_folder / SLURM_FILE) or {}).get("state")
    elif said in slurm.ENDED:
        _keep_end(job_folder, said)
    noted = failures.last(job_folder, started.get("run", 0))
    if said in slurm.WAITING:
        return "queued", None
    if said == "CANCELLED":
        return "cancelled", slurm.why_ended(said)
    if said is None or said in slurm.ENDED:
        # Whatever ends a job, its processes may miss each other.
        of_itself = noted is not None and not noted.of_another
        if noted is not None and (of_itself or said in {None, "FAILED", "NODE_FAIL"}):
            return "failed", noted.told
        return "killed", slurm.why_ended(said)
    # Also where it is COMPLETED: what it wrote is still on its way through the file system.
    return ("queued" if process is None else "running"), None


def _keep_end(job_folder: Path, state: str) -> None:
    """The job itself removes it when it begins once more."""
    told = {"state": state}
    if read_json(job_folder / SLURM_FILE) != told:
        with suppress(OSError):  # somebody who may only read
            write_json(job_folder / SLURM_FILE, told)


def _found_in_slurm(job_folder: Path, job: dict[str, Any]) -> dict[str, Any]:
    """Who submitted it may have been killed before Slurm's number was noted: by its name."""
    if _is_submitted_perhaps(job):
        return job
    name, _, part = job["id"].partition("/part-")
    main = slurm.job_named(name)
    if main == slurm.UNREACHABLE:
        return job | {"submitted": time.time()}
    if main is None:
        if not (job_folder / STARTED_FILE).exists():
            _give_up(job_folder)
        return job
    scheduler_id = f"{main}_{int(part)}" if part else main
    log = f"{scheduler_id}_0_log.out"
    found = {"scheduler_id": scheduler_id, "log": f"../{log}" if part else log}
    if part:
        found["submitit_folder"] = str(job_folder.parent)
    with suppress(OSError):
        update_json(job_folder / JOB_FILE, **found)
        if part:
            update_json(job_folder.parent / JOB_FILE, scheduler_id=main)
    return job | found


def _give_up(job_folder: Path) -> None:
    """Note that Slurm knows no such job: nobody asks it again."""
    error = "who submitted it was killed, and Slurm knows no such job: start it again"
    ended = {"state": GIVEN_UP, "error": error, "result": None, "time": time.time()}
    with suppress(OSError):  # somebody who may only read
        write_once(job_folder / OUTCOME_FILE, json.dumps(ended))


def was_submitted_after_all(job_folder: Path) -> None:
    """Slurm's number is noted: whoever has looked for the job meanwhile gave it up too early."""
    if (read_json(job_folder / OUTCOME_FILE) or {}).get("state") == GIVEN_UP:
        (job_folder / OUTCOME_FILE).unlink(missing_ok=True)


def _is_submitted_perhaps(job: dict[str, Any]) -> bool:
    limit_s = SECONDS_TO_SUBMIT_TO_SLURM if job["executor"] == "slurm" else SECONDS_TO_SUBMIT
    return time.time() - float(job["submitted"]) < limit_s


def _state_of_process(
    job_folder: Path, job: dict[str, Any], process: ProcessIdentity | None
) -> tuple[State, str | None]:
    """Here by the process itself; on another machine by its heartbeat."""
    holder = ProcessIdentity.from_json(job.get("process"))
    state: State = "queued" if process is None else "running"
    known = process or holder
    if known is None:
        active = _is_submitted_perhaps(job)
    elif known.is_here:
        active = known.is_alive()
    else:
        active = time.time() - _last_sign(job_folder) <= SECONDS_OF_SILENCE
    if active:
        return state, None
    return "killed", "its process ended without an outcome (killed, or the machine went)"


def outcome(job_folder: Path, job: dict[str, Any]) -> tuple[State, float | None, str | None] | None:
    """State, time of the end and error, as the job itself or submitit has left them."""
    left = read_json(job_folder / OUTCOME_FILE)
    if isinstance(left, dict) and not (left["state"] == GIVEN_UP and _is_there(job_folder)):
        return left["state"], left["time"], left["error"]
    kept = kept_error(job_folder, job)
    return None if kept is None else ("failed", *kept)


def _is_there(job_folder: Path) -> bool:
    """Whether Slurm has taken a job, or it has begun: then it was given up too early."""
    noted = read_json(job_folder / JOB_FILE) or {}
    return bool(noted.get("scheduler_id")) or (job_folder / STARTED_FILE).exists()


def _last_sign(job_folder: Path) -> float:
    """Of the job itself: when it has written one of its files."""
    moments = [0.0]
    for path in job_folder.iterdir():
        if SLURM_FILE in path.name:
            continue  # by whoever looked, also while it is written
        with suppress(FileNotFoundError):  # a file that was just replaced
            if path.is_file():
                moments.append(path.stat().st_mtime)
    return max(moments)
