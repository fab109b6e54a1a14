"""What happens inside a job: the call itself, and the small files that say how it went."""

from __future__ import annotations

import errno
import json
import logging
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hpc_jobs.files import read_json, write_json
from hpc_jobs.processes import ProcessIdentity
from hpc_jobs.progress import JOB_FOLDER_VARIABLE
from hpc_jobs.records import (
    CANCELLED_FILE,
    HEARTBEAT_FILE,
    JOB_FILE,
    OUTCOME_FILE,
    SECONDS_BETWEEN_HEARTBEATS,
    STARTED_FILE,
)

logger = logging.getLogger(__name__)

LONGEST_RESULT = 10_000
TERMINATED = 143  # 128 + SIGTERM, as a shell tells it
RESERVE_FILE = "reserve"
RESERVED_BYTES = 1 << 17
AUTOGROUP_TRIES = 50


class JobCall:
    """A function with its arguments, as submitit pickles it and the job runs it.

    Has submitit's `checkpoint`: a job that Slurm pre-empts is queued again with the same call, so
    functions that are handed to a job resume their own work. Where a job has several processes,
    each calls the function; the first one (rank 0) keeps the record.
    """

    def __init__(
        self,
        job_folder: Path,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        niceness: int,
    ) -> None:
        self.job_folder = job_folder
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self.niceness = niceness
        self._queued_again = False

    def __call__(self) -> Any:
        """Run the function; its outcome is written before this returns or raises."""
        rank = _rank()
        if rank == 0:
            os.environ[JOB_FOLDER_VARIABLE] = str(self.job_folder)
        if self.niceness:
            _be_nice(self.niceness)
        logging.basicConfig(
            level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
        )
        return self.run() if rank == 0 else self._run_beside(rank)

    def run(self) -> Any:
        """Run the function in this process as it is."""
        self._queued_again = False
        # Of a run before this one, where the job was queued again.
        (self.job_folder / OUTCOME_FILE).unlink(missing_ok=True)
        if (self.job_folder / CANCELLED_FILE).exists():
            self._end("cancelled", None)
            raise KeyboardInterrupt
        if threading.current_thread() is threading.main_thread():
            # A process started in the background may have been born deaf to the interrupt.
            signal.signal(signal.SIGINT, signal.default_int_handler)
        with suppress(OSError):
            # A disk that is full later still has room for the outcome. Random: zeros may be packed.
            (self.job_folder / RESERVE_FILE).write_bytes(os.urandom(RESERVED_BYTES))
        process = ProcessIdentity.of(os.getpid())
        write_json(
            self.job_folder / STARTED_FILE, {"process": process.as_json(), "time": time.time()}
        )
        try:
            with _heartbeat(self.job_folder):
                result = self.function(*self.args, **self.kwargs)
        except KeyboardInterrupt:
            self._end("cancelled", None)
            raise
        except BaseException as error:
            if self._queued_again:
                raise
            if type(error).__name__ == "SIGTERMException":
                # Lightning's answer to SIGTERM, before a kill. What becomes of the job is told by
                # whoever sent it: Slurm may queue it again.
                raise SystemExit(TERMINATED) from error
            logger.exception("job %s failed", self.job_folder.name)
            self._end("failed", _told(error))
            raise
        self._end("finished", None, _as_json(result))
        return result

    def checkpoint(self) -> Any:
        """For submitit, when the job is pre-empted or out of time: the same call once more."""
        from submitit.helpers import DelayedSubmission

        if (self.job_folder / CANCELLED_FILE).exists():
            return None
        self._queued_again = True
        (self.job_folder / STARTED_FILE).unlink(missing_ok=True)
        return DelayedSubmission(self)

    def _run_beside(self, rank: int) -> Any:
        """Run the function in a further process of the job; only its failure is told."""
        try:
            return self.function(*self.args, **self.kwargs)
        except Exception as error:
            outcome = self.job_folder / OUTCOME_FILE
            if not outcome.exists():
                told = f"process {rank}: {_told(error)}"
                write_json(outcome, outcome_of("failed", told))
            raise

    def _end(self, state: str, error: str | None, result: Any = None) -> None:
        from hpc_jobs.once import end_job

        if (self.job_folder / CANCELLED_FILE).exists():
            # Whatever the function made of the interrupt, somebody asked for this end.
            state, error = "cancelled", None
        job = read_json(self.job_folder / JOB_FILE) or {}
        path = self.job_folder / OUTCOME_FILE

        (self.job_folder / RESERVE_FILE).unlink(missing_ok=True)

        def write() -> None:
            # A process beside this one that failed first is why this one failed.
            if state != "failed" or not path.exists():
                write_json(path, outcome_of(state, error, result))

        end_job(self.job_folder.parent, job.get("key"), write)


def outcome_of(state: str, error: str | None, result: Any = None) -> dict[str, Any]:
    """What is written of a job that ends now."""
    return {"state": state, "error": error, "result": result, "time": time.time()}


def _told(error: BaseException) -> str:
    """An error in one line; a full disk with what to do, however a library words it."""
    told = f"{type(error).__name__}: {error}"
    one: BaseException | None = error
    seen: set[int] = set()
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        full = isinstance(one, OSError) and one.errno in {errno.ENOSPC, errno.EDQUOT}
        if full or "No space left on device" in str(one):
            return f"the disk is full: make room, and start it again ({type(one).__name__}: {one})"
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
    return told


def _rank() -> int:
    """Of this process among those of its Slurm job; 0 elsewhere."""
    of_slurm = os.environ.get("SUBMITIT_EXECUTOR") == "slurm"
    return int(os.environ.get("SLURM_PROCID", 0)) if of_slurm else 0


@contextmanager
def _heartbeat(job_folder: Path) -> Iterator[None]:
    """Touch a file while the function runs: other machines cannot see our process."""
    ended = threading.Event()

    def beat() -> None:
        while True:
            with suppress(OSError):  # a full disk must not end the job
                (job_folder / HEARTBEAT_FILE).touch()
            if ended.wait(SECONDS_BETWEEN_HEARTBEATS):
                return

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()


def _as_json(result: Any) -> Any:
    """What a record can show of a result; None for what JSON cannot hold in a few lines."""
    try:
        return result if len(json.dumps(result)) <= LONGEST_RESULT else None
    except (TypeError, ValueError):
        return None


def _be_nice(niceness: int) -> None:
    """Set the priority of every thread there is: an imported library may have started some.

    Absolute, since a follow-up job starts from a process that is nice already.
    """
    threads = Path("/proc/self/task")
    for thread_id in [int(path.name) for path in threads.glob("*")] or [0]:
        with suppress(ProcessLookupError):
            os.setpriority(os.PRIO_PROCESS, thread_id, niceness)
    _make_session_nice(niceness)


def _make_session_nice(niceness: int) -> None:
    """Where the kernel groups processes by session, theirs counts only within it (sched(7)).

    A job has a session of its own: without this, its nice threads get as much as a whole server.
    """
    with suppress(OSError), open("/proc/self/autogroup", "wb", buffering=0) as file:
        for _ in range(AUTOGROUP_TRIES):
            # None: the kernel takes one such change in 0.1 s, of all processes together.
            if file.write(str(niceness).encode()) is not None:
                return
            time.sleep(0.05 + 0.1 * random.random())
