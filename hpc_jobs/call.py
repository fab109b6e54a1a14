"""What happens inside a job: the call itself, and the small files that say how it went."""

from __future__ import annotations

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

from hpc_jobs import failures
from hpc_jobs.batch_script import TERMINATED
from hpc_jobs.errors import told
from hpc_jobs.files import write_json
from hpc_jobs.job_folder import (
    CANCELLED_FILE,
    HEARTBEAT_FILE,
    OUTCOME_FILE,
    RESERVE_FILE,
    SLURM_FILE,
    STARTED_FILE,
)
from hpc_jobs.processes import ProcessIdentity
from hpc_jobs.progress import JOB_FOLDER_VARIABLE

logger = logging.getLogger(__name__)

LONGEST_RESULT = 10_000
LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
SECONDS_BETWEEN_HEARTBEATS = 60.0
RESERVED_BYTES = 1 << 17
AUTOGROUP_TRIES = 50

AtEnd = Callable[[Path, Callable[[], None]], None]
"""Given the job's folder and what writes its outcome, which it must call."""


class JobCall:
    """A function with its arguments, as submitit pickles it and the job runs it.

    Has submitit's `checkpoint`: a job that Slurm pre-empts is queued again with the same call, so
    functions that are handed to a job resume their own work. Where a job has several processes,
    each calls the function; the first one (rank 0) keeps the record, and a failure is no outcome
    yet, see `failures`.
    """

    at_end: AtEnd | None = None

    def __init__(
        self,
        job_folder: Path,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        niceness: int,
        at_end: AtEnd | None = None,
    ) -> None:
        self.job_folder = job_folder
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self.niceness = niceness
        self.at_end = at_end
        self._queued_again = False

    def __call__(self) -> Any:
        """Run the function; its outcome is written before this returns or raises."""
        rank = _rank()
        if rank == 0:
            os.environ[JOB_FOLDER_VARIABLE] = str(self.job_folder)
        if self.niceness:
            _be_nice(self.niceness)
        logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)
        if rank == 0:
            return self.run()
        return self._run_beside(rank)

    def run(self) -> Any:
        """Run the function in this process as it is."""
        self._queued_again = False
        # Of a run before this one, where the job was queued again.
        for name in (OUTCOME_FILE, SLURM_FILE):
            (self.job_folder / name).unlink(missing_ok=True)
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
        started = {"process": process.as_json(), "time": time.time(), "run": failures.run_number()}
        try:
            write_json(self.job_folder / STARTED_FILE, started)
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
            if _processes() > 1 and not (self.job_folder / CANCELLED_FILE).exists():
                self._note(0, error)
                # Not the error itself, of which submitit would write a result.
                raise SystemExit(1) from error
            self._end("failed", told(error))
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

    def _end(self, state: str, error: str | None, result: Any = None) -> None:
        end(self.job_folder, state, error, result, at_end=self.at_end)

    def _run_beside(self, rank: int) -> None:
        """Run the function in a further process of the job; only its failure is told."""
        try:
            self.function(*self.args, **self.kwargs)
        except Exception as error:
            logger.exception("process %d of job %s failed", rank, self.job_folder.name)
            self._note(rank, error)
            raise SystemExit(1) from error  # as in `run`

    def _note(self, rank: int, error: BaseException) -> None:
        (self.job_folder / RESERVE_FILE).unlink(missing_ok=True)
        failures.note(self.job_folder, rank, error)


def end(
    job_folder: Path,
    state: str,
    error: str | None,
    result: Any = None,
    *,
    at_end: AtEnd | None = None,
) -> None:
    """Write a job's outcome, in the hands of `at_end` if there is one."""
    if (job_folder / CANCELLED_FILE).exists():
        # Whatever the function made of the interrupt, somebody asked for this end.
        state, error = "cancelled", None
    (job_folder / RESERVE_FILE).unlink(missing_ok=True)

    def write() -> None:
        write_json(job_folder / OUTCOME_FILE, outcome_of(state, error, result))

    if at_end is None:
        write()
    else:
        at_end(job_folder, write)


def outcome_of(state: str, error: str | None, result: Any = None) -> dict[str, Any]:
    """What is written of a job that ends now."""
    return {"state": state, "error": error, "result": result, "time": time.time()}


def _rank() -> int:
    """Of this process among those of its Slurm job; 0 elsewhere."""
    return int(os.environ.get("SLURM_PROCID", 0)) if _is_of_slurm() else 0


def _processes() -> int:
    """Of this Slurm job; 1 elsewhere."""
    return int(os.environ.get("SLURM_NTASKS", 1)) if _is_of_slurm() else 1


def _is_of_slurm() -> bool:
    return os.environ.get("SUBMITIT_EXECUTOR") == "slurm"


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
