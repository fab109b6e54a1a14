"""Run a function as a job: in a process of its own here, or on a Slurm cluster, by one call.

>>> import hpc_jobs, tempfile
>>> job = hpc_jobs.submit(sum, [1, 2, 3], name="add", folder=tempfile.mkdtemp(), executor="debug")
>>> job.result()
6
>>> job.record().state
'finished'
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from hpc_jobs.call import JobCall
from hpc_jobs.files import read_json, write_json
from hpc_jobs.processes import ProcessIdentity
from hpc_jobs.progress import JOB_FOLDER_VARIABLE
from hpc_jobs.records import (
    CANCELLED_FILE,
    JOB_FILE,
    OUTCOME_FILE,
    STARTED_FILE,
    JobRecord,
    list_jobs,
    read_job,
)

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
ExecutorName = Literal["local", "slurm", "debug"]

NICENESS = 10
LONGEST_JOB_MIN = 60 * 24 * 30


class JobError(RuntimeError):
    """A job has no result (it failed, was cancelled, was killed, or is not done), or cannot be
    cancelled from here."""


@dataclass(frozen=True)
class Job(Generic[Result]):
    """A submitted call. Nothing but its folder, so it can be made again from there."""

    folder: Path

    @property
    def id(self) -> str:
        """Unique among the jobs of one folder."""
        return self.folder.name

    def record(self) -> JobRecord:
        """How the job stands now. Raises `JobError` where its folder is gone."""
        record = read_job(self.folder)
        if record is None:
            raise JobError(f"no job in {self.folder}: was the folder deleted?")
        return record

    def wait(self, timeout_s: float | None = None) -> JobRecord:
        """Wait for the end of the job, or for `timeout_s` seconds; how it stands then."""
        end = None if timeout_s is None else time.monotonic() + timeout_s
        while (record := self.record()).active and (end is None or time.monotonic() < end):
            time.sleep(0.1)
        return record

    def result(self, timeout_s: float | None = None) -> Result:
        """What the function returned; waits for it. Raises `JobError` where there is nothing."""
        record = self.wait(timeout_s)
        if record.state != "finished":
            raise JobError(f"job {self.id} is {record.state}: {record.error or 'no error'}")
        content = _read_result(self.folder)
        if content is None:
            raise JobError(f"job {self.id} finished, but its result could not be kept")
        return content[0]

    def cancel(self, grace_s: float = 10.0) -> JobRecord:
        """As `hpc_jobs.cancel`."""
        return cancel(self, grace_s)


def submit(
    function: Callable[..., Result],
    *args: Any,
    name: str,
    folder: Path | str,
    key: str | None = None,
    executor: ExecutorName = "local",
    threads: int | None = None,
    niceness: int = NICENESS,
    parameters: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> Job[Result]:
    """Run `function(*args, **kwargs)` as a job and return at once.

    Parameters
    ----------
    function : callable
        Pickled by name: it must be importable in a fresh interpreter. Jobs are queued again after
        a pre-emption, so it should resume its own work.
    name : str
        What the job does, for people.
    folder : Path
        Where all jobs live, one sub-folder each; on Slurm, on a file system that the nodes share.
    key : str, optional
        See `submit_once`; here it is only noted.
    executor : {"local", "slurm", "debug"}
        "local": a process of its own session, that outlives this one. "slurm": sbatch.
        "debug": in this process, before this call returns.
    threads : int, optional
        Threads for numeric libraries; by default the processors this process may use (local).
    niceness : int
        Scheduling priority of a local job, 0 to 19; high, so that servers beside it stay quick.
    parameters : mapping, optional
        For submitit's executor, e.g. `{"slurm_partition": "gpu", "timeout_min": 600}`.

    Returns
    -------
    Job

    References
    ----------
    submitit, https://github.com/facebookincubator/submitit
    """
    job_folder = _new_folder(Path(folder).expanduser().absolute(), name)
    description: dict[str, Any] = {
        "id": job_folder.name,
        "name": name,
        "key": key,
        "executor": executor,
        "submitted": time.time(),
    }
    write_json(job_folder / JOB_FILE, description)
    call = JobCall(job_folder, function, args, kwargs, niceness if executor == "local" else 0)
    if executor == "debug":
        _run_here(call)
    else:
        description |= _submit(call, job_folder, executor, threads, dict(parameters or {}))
        write_json(job_folder / JOB_FILE, description)
    logger.info("job %s submitted (%s)", job_folder.name, executor)
    return Job(job_folder)


def cancel(job: Job[Any] | JobRecord, grace_s: float = 10.0) -> JobRecord:
    """End a job: an interrupt first, the hard way after `grace_s` seconds.

    A job that is over stays as it is. A waiting follow-up of the same key is dropped.

    Returns
    -------
    JobRecord
        How the job stands afterwards.

    Raises
    ------
    JobError
        The job runs on another machine and no scheduler can be asked to end it.
    """
    from hpc_jobs.once import drop_pending

    handle: Job[Any] = Job(job.folder)
    record = handle.record()
    if not record.active:
        return record
    description = read_json(record.folder / JOB_FILE) or {}
    started = read_json(record.folder / STARTED_FILE) or {}
    own = ProcessIdentity.from_json(started.get("process"))
    holder = ProcessIdentity.from_json(description.get("process"))
    host = next((process.host for process in (own, holder) if process and not process.is_here), "")
    if host and description.get("executor") != "slurm":
        # The same number is another process here.
        raise JobError(f"job {record.id} runs on {host}: cancel it there")
    (record.folder / CANCELLED_FILE).touch()
    drop_pending(record.folder.parent, record.key)
    if description.get("executor") == "slurm":
        subprocess.run(["scancel", description["scheduler_id"]], check=True)
        return handle.record()
    if own is not None and own.is_alive():
        with suppress(ProcessLookupError):  # it may end between two looks
            os.kill(own.pid, signal.SIGINT)
        handle.wait(grace_s)
    for process in (own, holder):
        if process is not None and process.is_alive():
            with suppress(ProcessLookupError):
                # Its session is its own (see `local_executor`), so this ends its workers too.
                os.killpg(os.getpgid(process.pid), signal.SIGKILL)
    return handle.wait(2.0)


def cancel_all(folder: Path | str) -> list[JobRecord]:
    """End every job of a folder that runs on this machine; those on a cluster go on.

    Returns
    -------
    list of JobRecord
        The jobs that were ended, as they stand afterwards.
    """
    ended = []
    for job in list_jobs(Path(folder)):
        if job.active and (read_json(job.folder / JOB_FILE) or {}).get("executor") == "local":
            try:
                ended.append(cancel(job))
            except JobError as error:
                logger.warning("not cancelled: %s", error)
    return ended


def _new_folder(folder: Path, name: str) -> Path:
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")[:-3]
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40] or "job"
    job_folder = folder / f"{moment}-{slug}-{secrets.token_hex(2)}"
    job_folder.mkdir(parents=True)
    return job_folder


def _run_here(call: JobCall) -> None:
    import cloudpickle

    before = os.environ.get(JOB_FOLDER_VARIABLE)
    os.environ[JOB_FOLDER_VARIABLE] = str(call.job_folder)
    try:
        result = call.run()
    except Exception:
        logger.debug("job %s failed", call.job_folder.name, exc_info=True)
    else:
        (call.job_folder / "debug_0_result.pkl").write_bytes(cloudpickle.dumps(("success", result)))
    finally:
        if before is None:
            del os.environ[JOB_FOLDER_VARIABLE]
        else:
            os.environ[JOB_FOLDER_VARIABLE] = before


def _submit(
    call: JobCall,
    job_folder: Path,
    executor: ExecutorName,
    threads: int | None,
    parameters: dict[str, Any],
) -> dict[str, Any]:
    """Hand the call to submitit; what to note about it in job.json."""
    import submitit

    parameters = {"timeout_min": LONGEST_JOB_MIN} | parameters
    if executor == "slurm":
        slurm = submitit.AutoExecutor(folder=job_folder, cluster="slurm")
        slurm.update_parameters(name=job_folder.name, stderr_to_stdout=True, **parameters)
        job = slurm.submit(call)
        scheduler = {"scheduler_id": job.job_id, "submitit_folder": str(job_folder)}
        return scheduler | {"log": job.paths.stdout.name}
    from hpc_jobs.local_executor import OwnSessionExecutor

    local = OwnSessionExecutor(folder=job_folder)
    local.update_parameters(stderr_to_stdout=True, threads=threads, **parameters)
    job = local.submit(call)
    process = ProcessIdentity.of(int(job.job_id))
    return {"process": process.as_json(), "log": job.paths.stdout.name}


def _read_result(job_folder: Path) -> tuple[Any] | None:
    import pickle

    # submitit writes the result just after our outcome.
    for _ in range(100):
        for path in job_folder.glob("*_result.pkl"):
            kind, content = pickle.loads(path.read_bytes())
            return (content,) if kind == "success" else None
        if not (job_folder / OUTCOME_FILE).exists():
            return None
        time.sleep(0.05)
    return None
