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
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from hpc_jobs.call import AtEnd, JobCall, outcome_of
from hpc_jobs.environment import environment
from hpc_jobs.errors import JobError
from hpc_jobs.files import update_json, write_json
from hpc_jobs.job import Job, Result
from hpc_jobs.job_folder import CANCELLED_FILE, JOB_FILE, OUTCOME_FILE, part_folder
from hpc_jobs.job_state import was_submitted_after_all
from hpc_jobs.processes import ProcessIdentity
from hpc_jobs.processors import processors
from hpc_jobs.progress import JOB_FOLDER_VARIABLE
from hpc_jobs.slurm import SlurmError
from hpc_jobs.slurm_submission import submit_calls

logger = logging.getLogger(__name__)

ExecutorName = Literal["local", "slurm", "debug"]

NICENESS = 10
LONGEST_JOB_MIN = 60 * 24 * 30


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
    parts: int = 1,
    announce: Callable[[str], None] | None = None,
    at_end: AtEnd | None = None,
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
        For submitit's executor, e.g. `{"slurm_partition": "gpu", "timeout_min": 600}`; see
        `hpc_jobs.site`. With several `nodes` or `tasks_per_node` the function is called in each
        process, and its return value in the first one is the result.
    parts : int
        More than one: an array. The function is called so many times, each with a further argument
        `part=(k, parts)`; on Slurm these are tasks of one array, elsewhere processes.
    announce : callable, optional
        Called with the job's id once it has a record, before it is handed to anybody: whoever is
        killed in between has left word of it.
    at_end : callable, optional
        Called in the job when it ends, with its folder and a function that writes its outcome, and
        must call that; importable, as the function is.

    Returns
    -------
    Job

    Raises
    ------
    JobError
        Slurm is not here, or does not take the job.

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
    own = niceness if executor == "local" else 0
    if parts == 1:
        calls = [JobCall(job_folder, function, args, kwargs, own, at_end)]
        write_json(job_folder / JOB_FILE, description)
    else:
        calls = [
            JobCall(
                part_folder(job_folder, k),
                function,
                args,
                kwargs | {"part": (k, parts)},
                own,
                at_end,
            )
            for k in range(parts)
        ]
        for call in calls:
            call.job_folder.mkdir()
            of_part = {"id": f"{job_folder.name}/{call.job_folder.name}", "key": None}
            write_json(call.job_folder / JOB_FILE, description | of_part)
        description["parts"] = parts
        write_json(job_folder / JOB_FILE, description)
    if announce is not None:
        announce(job_folder.name)
    if executor == "debug":
        for call in calls:
            _run_here(call)
    elif executor == "slurm":
        _submit_to_slurm(calls, job_folder, dict(parameters or {}))
    else:
        for call in calls:
            _start_here(call, threads or _share_of_processors(parts), dict(parameters or {}))
    logger.info("job %s submitted (%s)", job_folder.name, executor)
    return Job(job_folder)


def _new_folder(folder: Path, name: str) -> Path:
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")[:-3]
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40] or "job"
    job_folder = folder / f"{moment}-{slug}-{secrets.token_hex(2)}"
    job_folder.mkdir(parents=True)
    return job_folder


def _run_here(call: JobCall) -> None:
    import cloudpickle

    try:
        with environment({JOB_FOLDER_VARIABLE: str(call.job_folder)}):
            result = call.run()
    except Exception:
        logger.debug("job %s failed", call.job_folder.name, exc_info=True)
    else:
        (call.job_folder / "debug_0_result.pkl").write_bytes(cloudpickle.dumps(("success", result)))


def _submit_to_slurm(calls: list[JobCall], job_folder: Path, parameters: dict[str, Any]) -> None:
    """Queue the calls; ids and logs are noted in job.json of the job, and of each part."""
    try:
        queued = submit_calls(
            calls, job_folder, OUTCOME_FILE, CANCELLED_FILE, job_folder.name, parameters
        )
    except SlurmError as error:
        for call in calls:
            write_json(call.job_folder / OUTCOME_FILE, outcome_of("failed", str(error)))
        raise JobError(str(error)) from error
    for call, (scheduler_id, log) in zip(calls, queued, strict=True):
        update_json(
            call.job_folder / JOB_FILE,
            scheduler_id=scheduler_id,
            submitit_folder=str(job_folder),
            log=os.path.relpath(job_folder / log, call.job_folder),
        )
        was_submitted_after_all(call.job_folder)
    if len(calls) > 1:
        update_json(job_folder / JOB_FILE, scheduler_id=queued[0][0].partition("_")[0])


def _start_here(call: JobCall, threads: int | None, parameters: dict[str, Any]) -> None:
    """Start a process for the call; it is noted in its job.json."""
    from hpc_jobs.local_executor import OwnSessionExecutor

    local = OwnSessionExecutor(folder=call.job_folder)
    parameters = {"timeout_min": LONGEST_JOB_MIN} | parameters
    local.update_parameters(stderr_to_stdout=True, threads=threads, **parameters)
    job = local.submit(call)
    process = ProcessIdentity.of(int(job.job_id))
    noted = call.job_folder / JOB_FILE
    update_json(noted, process=process.as_json(), log=job.paths.stdout.name)


def _share_of_processors(parts: int) -> int | None:
    """Threads for each part of an array on this machine; None for all."""
    return None if parts == 1 else max(1, processors() // parts)
