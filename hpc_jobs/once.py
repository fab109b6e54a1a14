"""One job per key at a time, whoever asks, in whichever process.

A request that comes while the job of its key is active is kept as *pending*: one follow-up run,
however many requests there were, the last one's arguments. The ending job starts it. If that job
was killed, the next request or `start_pending` does.
"""

from __future__ import annotations

import fcntl
import logging
import pickle
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from hpc_jobs.files import read_json, write_json
from hpc_jobs.records import JobRecord, read_job
from hpc_jobs.runner import Job, JobError, submit

logger = logging.getLogger(__name__)

KEYS_FOLDER = ".keys"
PendingCall = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True)
class Submission:
    """What became of a request.

    Attributes
    ----------
    job : Job
        The job that was started, or the active one that the request waits for.
    coalesced : bool
        True where the request waits as the follow-up of `job`.
    """

    job: Job[Any]
    coalesced: bool


def submit_once(
    function: Callable[..., Any],
    *args: Any,
    name: str,
    folder: Path | str,
    key: str,
    **kwargs: Any,
) -> Submission:
    """As `hpc_jobs.submit`, unless a job of this key is active: then run once more after it.

    Safe across threads, processes and machines that share the folder's file system (flock).

    Parameters
    ----------
    key : str
        What must not run twice at the same time, e.g. "train project 3".

    Raises
    ------
    ValueError
        `executor` is "debug": the job would wait in this call for the lock that this call holds;
        or it is an array, whose parts each end by themselves.
    JobError
        Slurm does not take the job.
    """
    if kwargs.get("parts", 1) != 1:
        raise ValueError("submit_once runs one job at a time, no array: use submit")
    if kwargs.get("executor") == "debug":
        raise ValueError(
            "submit_once cannot run a job in this process (executor 'debug'): use submit, or the "
            "executor 'local'"
        )
    folder = Path(folder).expanduser().absolute()
    with _locked(folder, key) as state:
        active = state.active_job(folder)
        if active is not None:
            state.keep_pending((function, args, {"name": name, "key": key} | kwargs))
            logger.info("%s is %s: one more run of %r after it", active.id, active.state, key)
            return Submission(Job(active.folder), coalesced=True)
        job = state.submit(function, *args, name=name, folder=folder, key=key, **kwargs)
    return Submission(job, coalesced=False)


def start_pending(folder: Path | str) -> list[Job[Any]]:
    """Start the follow-up runs whose job was killed before it could. For a server's start."""
    folder = Path(folder).expanduser().absolute()
    jobs = []
    for path in sorted((folder / KEYS_FOLDER).glob("*/pending.pkl")):
        with _locked_state(path.parent) as state:
            if state.active_job(folder) is None:
                jobs += state.start_pending(folder)
    return jobs


def has_pending(folder: Path | str, key: str) -> bool:
    """Whether a follow-up run of this key waits."""
    return (_key_folder(Path(folder).expanduser().absolute(), key) / "pending.pkl").exists()


def drop_pending(folder: Path, key: str | None) -> None:
    """Forget the follow-up run of a key."""
    if key is not None:
        with _locked(folder, key) as state:
            state.forget_pending()


def set_pending_aside(folder: Path, key: str | None) -> None:
    """Keep the follow-up run of a key from starting, until `put_pending_back`."""
    if key is not None:
        with _locked(folder, key) as state:
            state.set_pending_aside()


def put_pending_back(folder: Path | str) -> list[Job[Any]]:
    """Follow-up runs that were set aside wait again; those that wait for no job are started."""
    folder = Path(folder).expanduser().absolute()
    for path in sorted((folder / KEYS_FOLDER).glob("*/aside.pkl")):
        with _locked_state(path.parent) as state:
            state.put_pending_back()
    return start_pending(folder)


def end_job(folder: Path, key: str | None, write_outcome: Callable[[], None]) -> None:
    """For the ending job: write its outcome and start the follow-up, with no gap between."""
    if key is None:
        write_outcome()
        return
    with _locked(folder, key) as state:
        write_outcome()
        if state.active_job(folder) is None:
            try:
                state.start_pending(folder)
            except JobError:
                # Some clusters take no jobs from their nodes. It stays, for the next request or
                # the next start of the server; what this job did is done.
                logger.exception("the run that waits for %s could not be submitted", key)


class _KeyState:
    """What is kept for one key, to be touched under its lock only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def active_job(self, jobs_folder: Path) -> JobRecord | None:
        current = read_json(self.folder / "current.json")
        record = read_job(jobs_folder / current["id"]) if current else None
        return record if record is not None and record.active else None

    def submit(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Job[Any]:
        """Whatever waited, it needs no run of its own any more."""
        job = submit(function, *args, announce=self._set_current, **kwargs)
        self.forget_pending()
        return job

    def _set_current(self, job_id: str) -> None:
        write_json(self.folder / "current.json", {"id": job_id})

    def keep_pending(
        self, call: tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]
    ) -> None:
        import cloudpickle

        temporary = self.folder / "pending.pkl.new"
        temporary.write_bytes(cloudpickle.dumps(call))
        temporary.replace(self.folder / "pending.pkl")

    def set_pending_aside(self) -> None:
        with suppress(FileNotFoundError):
            (self.folder / "pending.pkl").replace(self.folder / "aside.pkl")

    def put_pending_back(self) -> None:
        """What was asked for since has the newer arguments."""
        aside = self.folder / "aside.pkl"
        if (self.folder / "pending.pkl").exists():
            aside.unlink(missing_ok=True)
        else:
            with suppress(FileNotFoundError):
                aside.replace(self.folder / "pending.pkl")

    def forget_pending(self) -> None:
        (self.folder / "pending.pkl").unlink(missing_ok=True)

    def start_pending(self, jobs_folder: Path) -> list[Job[Any]]:
        path = self.folder / "pending.pkl"
        if not path.exists():
            return []
        try:
            function, args, kwargs = pickle.loads(path.read_bytes())
        except Exception:
            logger.exception("the waiting run in %s cannot be read: dropped", path)
            self.forget_pending()
            return []
        return [self.submit(function, *args, folder=jobs_folder, **kwargs)]


@contextmanager
def _locked(folder: Path, key: str) -> Iterator[_KeyState]:
    with _locked_state(_key_folder(folder, key)) as state:
        yield state


@contextmanager
def _locked_state(key_folder: Path) -> Iterator[_KeyState]:
    key_folder.mkdir(parents=True, exist_ok=True)
    # The system frees the lock when its holder dies, however it dies.
    with open(key_folder / "lock", "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield _KeyState(key_folder)


def _key_folder(folder: Path, key: str) -> Path:
    slug = re.sub(r"[^a-z0-9]+", "-", key.lower()).strip("-")[:40]
    return folder / KEYS_FOLDER / f"{slug}-{sha256(key.encode()).hexdigest()[:8]}"
