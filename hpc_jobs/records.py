"""What jobs there are and how they stand, read from their files and their processes.

Nothing is kept in memory, so the answer is right after a `kill -9` of the job, and after the
program that started it is gone. A job's folder `<jobs folder>/<job id>/` holds

- `job.json`: id, name, key, executor, when it was submitted, and by which process it is held
- `started.json`: written by the job itself when it begins
- `progress.json`: its last progress
- `outcome.json`: written by the job itself when it ends, with its result or its error
- `heartbeat`: an empty file, touched by the job once a minute
- `cancelled`: an empty file, there once somebody asked for an end
- the files of submitit: the pickled call, its result, and the log
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from hpc_jobs import progress as progress_module
from hpc_jobs.files import read_json
from hpc_jobs.processes import ProcessIdentity
from hpc_jobs.progress import Progress

JOB_FILE = "job.json"
STARTED_FILE = "started.json"
OUTCOME_FILE = "outcome.json"
CANCELLED_FILE = "cancelled"
HEARTBEAT_FILE = "heartbeat"
SECONDS_TO_SUBMIT = 60.0
SECONDS_BETWEEN_HEARTBEATS = 60.0
SECONDS_OF_SILENCE = 600.0  # ten heartbeats: clocks of two machines may differ a little

State = Literal["queued", "running", "finished", "failed", "cancelled", "killed"]
ACTIVE_STATES: frozenset[str] = frozenset({"queued", "running"})


@dataclass(frozen=True)
class JobRecord:
    """One job as it stands now.

    Attributes
    ----------
    id : str
        Unique in its folder; sorts by the time of submission.
    name : str
        What it does, for people.
    key : str or None
        Jobs with one key never run at the same time (`submit_once`).
    state : str
        "queued", "running", "finished", "failed" (raised an error), "cancelled" (somebody asked),
        or "killed" (its process is gone and left no outcome).
    progress : Progress or None
    submitted, started, finished : float or None
        Unix times in seconds.
    error : str or None
        Why it failed, in one line; the log has the traceback.
    result : object
        What the function returned, if it is short and JSON can hold it; else None.
    log : Path or None
    folder : Path
        The folder of this job.
    """

    id: str
    name: str
    key: str | None
    state: State
    progress: Progress | None
    submitted: float
    started: float | None
    finished: float | None
    error: str | None
    log: Path | None
    folder: Path
    result: Any = None

    @property
    def active(self) -> bool:
        """Whether it is queued or running."""
        return self.state in ACTIVE_STATES

    def as_json(self) -> dict[str, Any]:
        """As plain values, times in ISO 8601 (UTC), for an API."""
        share = self.progress.share if self.progress else None
        return {
            "id": self.id,
            "name": self.name,
            "key": self.key,
            "state": self.state,
            "progress": None if self.progress is None else vars(self.progress) | {"share": share},
            "submitted": _iso(self.submitted),
            "started": _iso(self.started),
            "finished": _iso(self.finished),
            "error": self.error,
            "result": self.result,
            "log": None if self.log is None else str(self.log),
        }


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
    started = read_json(job_folder / STARTED_FILE) or {}
    state, finished, error = _state(job_folder, job, started)
    log = job.get("log")
    return JobRecord(
        id=job["id"],
        name=job["name"],
        key=job["key"],
        state=state,
        progress=progress_module.read(job_folder),
        submitted=job["submitted"],
        started=started.get("time"),
        finished=finished,
        error=error,
        log=job_folder / log if log else None,
        folder=job_folder,
        result=(read_json(job_folder / OUTCOME_FILE) or {}).get("result"),
    )


def _records(folder: Path, keys: Collection[str] | None) -> Iterator[JobRecord]:
    if not folder.is_dir():
        return
    for job_folder in sorted(folder.iterdir(), reverse=True):
        if keys is not None and (read_json(job_folder / JOB_FILE) or {}).get("key") not in keys:
            continue
        record = read_job(job_folder) if job_folder.is_dir() else None
        if record is not None:
            yield record


def _state(
    job_folder: Path, job: dict[str, Any], started: dict[str, Any]
) -> tuple[State, float | None, str | None]:
    """State, time of the end and error. The processes are asked before the outcome is read again,
    since a job may end between two looks."""
    ended = _outcome(job_folder)
    if ended:
        return ended
    process = ProcessIdentity.from_json(started.get("process"))
    if process is not None:
        if _is_running(process, job_folder, job):
            return "running", None, None
    elif _may_still_start(job_folder, job):
        return "queued", None, None
    cancelled = (job_folder / CANCELLED_FILE).exists()
    return _outcome(job_folder) or (
        "cancelled" if cancelled else "killed",
        _last_sign(job_folder),
        None if cancelled else "its process ended without an outcome (killed, or the machine went)",
    )


def _outcome(job_folder: Path) -> tuple[State, float | None, str | None] | None:
    outcome = read_json(job_folder / OUTCOME_FILE)
    if isinstance(outcome, dict):
        return outcome["state"], outcome["time"], outcome["error"]
    # A call that cannot even be unpickled fails before our own code runs; submitit keeps why.
    for path in job_folder.glob("*_result.pkl"):
        try:
            kind, content = pickle.loads(path.read_bytes())
        except Exception:
            continue
        if kind == "error":
            return "failed", path.stat().st_mtime, str(content).strip().splitlines()[-1]
    return None


def _is_running(process: ProcessIdentity, job_folder: Path, job: dict[str, Any]) -> bool:
    """Here by the process itself; on another machine by its heartbeat, then by the scheduler."""
    if process.is_here:
        return process.is_alive()
    if time.time() - _last_sign(job_folder) < SECONDS_OF_SILENCE:
        return True
    return _is_scheduled(job)


def _may_still_start(job_folder: Path, job: dict[str, Any]) -> bool:
    if job["executor"] == "slurm" and job.get("scheduler_id"):
        return _is_scheduled(job)
    holder = ProcessIdentity.from_json(job.get("process"))
    if holder is None:
        return time.time() - job["submitted"] < SECONDS_TO_SUBMIT
    if holder.is_here:
        return holder.is_alive()
    return time.time() - _last_sign(job_folder) < SECONDS_OF_SILENCE


def _is_scheduled(job: dict[str, Any]) -> bool:
    if job["executor"] != "slurm" or not job.get("scheduler_id"):
        return False
    from submitit import SlurmJob

    known: SlurmJob[Any] = SlurmJob(job["submitit_folder"], job["scheduler_id"])
    return not known.done()


def _last_sign(job_folder: Path) -> float:
    moments = [0.0]
    for path in job_folder.iterdir():
        with suppress(FileNotFoundError):  # a file that was just replaced
            if path.is_file():
                moments.append(path.stat().st_mtime)
    return max(moments)


def _iso(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
