"""What jobs there are and how they stand, read from their files and their processes.

Nothing is kept in memory, so the answer is right after a `kill -9` of the job, and after the
program that started it is gone. A job's folder `<jobs folder>/<job id>/` holds

- `job.json`: id, name, key, executor, when it was submitted, and by which process it is held
- `started.json`: written by the job itself when it begins
- `progress.json`: its last progress
- `outcome.json`: written by the job itself when it ends, with its result or its error
- `failure-0.json` and so on: why a run of several processes failed, see `failures`
- `reserve`: room for the outcome, until that is written
- `heartbeat`: an empty file, touched by the job once a minute
- `cancelled`: an empty file, there once somebody asked for an end
- `stopped`: an empty file, there where the servers that had started it took it along
- `slurm.json`: how Slurm has ended it, noted by whoever looked: Slurm forgets it within minutes
- `interrupted.json`: there once somebody was told that it was cut off (see `interrupted`)
- the files of submitit: the pickled call, its result, and the log

An array has a `job.json` that says of how many parts it is, and a folder as above for each of them,
`part-000` and so on.
"""

from __future__ import annotations

import json
import pickle
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from hpc_jobs import failures, slurm
from hpc_jobs import progress as progress_module
from hpc_jobs.files import read_json, update_json, write_json
from hpc_jobs.processes import ProcessIdentity
from hpc_jobs.progress import Progress
from hpc_jobs.whole_files import write_once

JOB_FILE = "job.json"
STARTED_FILE = "started.json"
OUTCOME_FILE = "outcome.json"
CANCELLED_FILE = "cancelled"
HEARTBEAT_FILE = "heartbeat"
SLURM_FILE = "slurm.json"
SECONDS_TO_SUBMIT = 60.0
SECONDS_TO_SUBMIT_TO_SLURM = 180.0  # sbatch asks a busy controller again for two minutes
SECONDS_BETWEEN_HEARTBEATS = 60.0
SECONDS_OF_SILENCE = 600.0  # ten heartbeats: clocks of two machines may differ a little

State = Literal["queued", "running", "finished", "failed", "cancelled", "killed"]
GIVEN_UP: State = "killed"
"""The state of an outcome that is written by others than the job: it left none itself."""
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
        Of an array: of the part that is worth a look, a failed one first.
    folder : Path
        The folder of this job.
    where : str
        "here", or "Slurm" with its number there.
    waits_for : str or None
        Of a queued job, what Slurm says that it waits for.
    parts : tuple of JobRecord
        The tasks of an array; () of any other job.
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
    where: str = "here"
    waits_for: str | None = None
    parts: tuple[JobRecord, ...] = ()

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
            "where": self.where,
            "waits_for": self.waits_for,
            "parts": {
                state: sum(part.state == state for part in self.parts)
                for state in sorted({part.state for part in self.parts})
            },
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
    if job.get("parts"):
        from hpc_jobs.arrays import record_of_array

        return record_of_array(job_folder, job)
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
        where=where_of(job),
        waits_for=slurm.why_waiting(job["scheduler_id"])
        if state == "queued" and job.get("scheduler_id")
        else None,
    )


def where_of(job: dict[str, Any]) -> str:
    """Where a job runs, for people."""
    if job["executor"] != "slurm":
        return "here"
    return f"Slurm {job['scheduler_id']}" if job.get("scheduler_id") else "Slurm"


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


def _state(
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


def kept_error(
    job_folder: Path, job: dict[str, Any], rank: int | str = 0
) -> tuple[float, str] | None:
    """When and why a job failed, where submitit has kept that; None where it has not.

    A call that cannot even be unpickled fails before our own code runs. That of another process
    than the first one counts once the batch script has come to it, see `after_processes`. What our
    own code raises in one of several processes is not kept there at all, see `failures`.

    Parameters
    ----------
    rank : int or "*"
        As `results_of` takes it.
    """
    for path in results_of(job_folder, job, rank):
        try:
            kind, content = pickle.loads(path.read_bytes())
        except Exception:
            continue
        if kind == "error":
            last = str(content).strip().splitlines()[-1]
            return path.stat().st_mtime, slurm.with_remedy(last)
    return None


def _is_there(job_folder: Path) -> bool:
    """Whether Slurm has taken a job, or it has begun: then it was given up too early."""
    noted = read_json(job_folder / JOB_FILE) or {}
    return bool(noted.get("scheduler_id")) or (job_folder / STARTED_FILE).exists()


def results_of(job_folder: Path, job: dict[str, Any], rank: int | str = 0) -> list[Path]:
    """Submitit's pickled results; those of an array lie together, named by the scheduler's ids.

    Parameters
    ----------
    rank : int or "*"
        Of which of the job's processes.
    """
    folder = Path(job.get("submitit_folder") or job_folder)
    return sorted(folder.glob(f"{job.get('scheduler_id') or '*'}_{rank}_result.pkl"))


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


def _iso(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
