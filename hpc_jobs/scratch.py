"""The fast folder of a cluster's node: in it one folder a job, which goes with the job."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from hpc_jobs.environment import environment

logger = logging.getLogger(__name__)

SCRATCH_VARIABLE = "PLANKTRAIT_SCRATCH"


def scratch_folder() -> Path | None:
    """Of this job, on its node; None where there is none."""
    named = os.environ.get(SCRATCH_VARIABLE)
    return Path(named) if named else None


@contextmanager
def own_scratch() -> Iterator[None]:
    """Make a folder of this job in the one that `PLANKTRAIT_SCRATCH` names, and name it there.

    It is `TMPDIR` too. The processes of a job on a node share it, and the last one removes it. What
    killed jobs have left is removed first. Where it cannot be made, the job goes without.
    """
    site = os.environ.get(SCRATCH_VARIABLE)
    if not site:
        yield
        return
    node = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    job = os.environ.get("SLURM_JOB_ID") or str(os.getpid())
    try:
        _remove_left(Path(site), node)
        folder = Path(site) / f"planktrait-{job}@{node}"
        lock = _held(folder)
    except OSError as error:
        logger.warning("no scratch folder on %s (%s): decoded images go elsewhere", node, error)
        with _environment({SCRATCH_VARIABLE: None}):
            yield
        return
    try:
        with _environment({SCRATCH_VARIABLE: str(folder), "TMPDIR": str(folder)}):
            yield
    finally:
        _remove_if_unused(folder, lock)
        os.close(lock)


def _held(folder: Path) -> int:
    """Make a job's folder; its lock, which no process outlives."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    while True:
        lock = os.open(_lock_file(folder), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_SH)
            if _is_at(lock, _lock_file(folder)):
                folder.mkdir(mode=0o700, exist_ok=True)
                return lock
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)  # removed meanwhile, with its folder


def _remove_left(site: Path, node: str) -> None:
    """The folders of this node's jobs that are gone. Locks of other nodes may not be seen here."""
    for path in site.glob(f".planktrait-*@{node}.lock"):
        with suppress(OSError):  # of another user, or removed meanwhile
            lock = os.open(path, os.O_RDWR)
            try:
                _remove_if_unused(site / path.name[1:].removesuffix(".lock"), lock)
            finally:
                os.close(lock)


def _remove_if_unused(folder: Path, lock: int) -> None:
    with suppress(OSError):  # another process holds it
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_at(lock, _lock_file(folder)):
            shutil.rmtree(folder, ignore_errors=True)
            if not folder.exists():
                _lock_file(folder).unlink()


def _lock_file(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.lock")


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is still the one of this path."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


@contextmanager
def _environment(changes: Mapping[str, str | None]) -> Iterator[None]:
    """As `environment`; Python would keep to the temporary folder that it has found before."""
    try:
        with environment(changes):
            tempfile.tempdir = None
            yield
    finally:
        tempfile.tempdir = None
