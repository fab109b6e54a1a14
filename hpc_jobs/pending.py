"""What waits for the end of a key's job, and which job that is: files below the key's lock.

A key's folder `<jobs folder>/.keys/<key>/` holds

- `lock`: held while one of the others is touched; the system frees it when its holder dies
- `current.json`: id of the job that was started last
- `pending.pkl`: the call that runs once more after it, the newest one asked for
- `aside.pkl`: the same, where it must not start until it is put back
"""

from __future__ import annotations

import fcntl
import logging
import pickle
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from hpc_jobs.files import read_json, write_json
from hpc_jobs.job_record import JobRecord
from hpc_jobs.records import read_job

logger = logging.getLogger(__name__)

KEYS_FOLDER = ".keys"
PENDING_FILE = "pending.pkl"
ASIDE_FILE = "aside.pkl"
Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]
"""A function, its arguments, and those by name; of `submit`'s too."""


def has_pending(folder: Path | str, key: str) -> bool:
    """Whether a follow-up run of this key waits."""
    return (_key_folder(Path(folder).expanduser().absolute(), key) / PENDING_FILE).exists()


def drop_pending(folder: Path, key: str | None) -> None:
    """Forget the follow-up run of a key."""
    if key is not None:
        with locked(folder, key) as state:
            state.forget_pending()


def set_pending_aside(folder: Path, key: str | None) -> None:
    """Keep the follow-up run of a key from starting, until it is put back."""
    if key is not None:
        with locked(folder, key) as state:
            state.set_pending_aside()


class KeyState:
    """What is kept for one key, to be touched under its lock only."""

    def __init__(self, jobs_folder: Path, folder: Path) -> None:
        self.jobs_folder = jobs_folder
        self.folder = folder

    def active_job(self) -> JobRecord | None:
        """The job of this key that is queued or running."""
        current = read_json(self.folder / "current.json")
        record = read_job(self.jobs_folder / current["id"]) if current else None
        return record if record is not None and record.active else None

    def set_current(self, job_id: str) -> None:
        """Note the job that is being started."""
        write_json(self.folder / "current.json", {"id": job_id})

    def keep_pending(self, call: Call) -> None:
        """Let a call wait, in place of any other."""
        import cloudpickle

        temporary = self.folder / f"{PENDING_FILE}.new"
        temporary.write_bytes(cloudpickle.dumps(call))
        temporary.replace(self.folder / PENDING_FILE)

    def pending_call(self) -> Call | None:
        """The call that waits; one that cannot be read is dropped."""
        path = self.folder / PENDING_FILE
        if not path.exists():
            return None
        try:
            function, args, kwargs = pickle.loads(path.read_bytes())
        except Exception:
            logger.exception("the waiting run in %s cannot be read: dropped", path)
            self.forget_pending()
            return None
        return function, args, kwargs

    def forget_pending(self) -> None:
        """Let no call wait."""
        (self.folder / PENDING_FILE).unlink(missing_ok=True)

    def set_pending_aside(self) -> None:
        """Keep the call that waits from starting."""
        with suppress(FileNotFoundError):
            (self.folder / PENDING_FILE).replace(self.folder / ASIDE_FILE)

    def put_pending_back(self) -> None:
        """Let it wait again, unless another was asked for since: that has the newer arguments."""
        aside = self.folder / ASIDE_FILE
        if (self.folder / PENDING_FILE).exists():
            aside.unlink(missing_ok=True)
        else:
            with suppress(FileNotFoundError):
                aside.replace(self.folder / PENDING_FILE)


@contextmanager
def locked(folder: Path, key: str) -> Iterator[KeyState]:
    """The state of a key of a folder of jobs, under its lock."""
    with _locked(folder, _key_folder(folder, key)) as state:
        yield state


def each_locked(folder: Path, holding: str) -> Iterator[KeyState]:
    """The state of each key whose folder holds such a file, one after the other under its lock."""
    for path in sorted((folder / KEYS_FOLDER).glob(f"*/{holding}")):
        with _locked(folder, path.parent) as state:
            yield state


@contextmanager
def _locked(folder: Path, key_folder: Path) -> Iterator[KeyState]:
    key_folder.mkdir(parents=True, exist_ok=True)
    with open(key_folder / "lock", "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield KeyState(folder, key_folder)


def _key_folder(folder: Path, key: str) -> Path:
    slug = re.sub(r"[^a-z0-9]+", "-", key.lower()).strip("-")[:40]
    return folder / KEYS_FOLDER / f"{slug}-{sha256(key.encode()).hexdigest()[:8]}"
