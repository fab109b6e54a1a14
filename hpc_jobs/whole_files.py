"""Files that appear whole or not at all, whoever reads or kills the program meanwhile."""

from __future__ import annotations

import errno
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hpc_jobs.processes import ProcessIdentity

ABANDONED_S = 3600.0
"""A temporary of another machine that nobody has written to for so long is nobody's."""

_NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP}
"""What a file system without hard links answers."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary file beside `path` to write to; it takes the place of `path` at the end.

    After an error it is removed, and `path` is as it was. The suffix is kept, since some libraries
    choose a format by it. Only a process that is killed leaves it behind, see `remove_abandoned`;
    its name begins with a dot, and is that of no other process of any machine.
    """
    temporary = _beside(path)
    try:
        yield temporary
        with temporary.open("rb") as file:
            # Else a power cut may leave a whole file's name with holes in it.
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_abandoned(path: Path) -> None:
    """Remove what killed processes left of `path`: for whoever writes it now."""
    for temporary in path.parent.glob(f".*.{path.name}"):
        host, pid, ticks, *_ = [*temporary.name[1:].split("."), "", ""]
        with suppress(FileNotFoundError):
            owner = _process(host, pid, ticks)
            if owner is not None:
                abandoned = not owner.is_alive()
            else:
                abandoned = time.time() - temporary.stat().st_mtime > ABANDONED_S
            if abandoned:
                temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a text file whole, as UTF-8."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_once(path: Path, text: str) -> bool:
    """Write a text file whole, unless there is one: see `place_once`.

    Returns
    -------
    bool
        Whether it was written.
    """
    return place_once(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def place_once(path: Path, write: Callable[[Path], object]) -> bool:
    """Have a file written whole, unless there is one: of several writers the first one wins.

    Also between machines, where locks may not hold.

    Parameters
    ----------
    write : function of a path
        Writes the file there; the suffix is that of `path`.

    Returns
    -------
    bool
        Whether it took the place of `path`.
    """
    temporary = _beside(path)
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if path.exists():
                return False
            temporary.replace(path)
        return True
    finally:
        temporary.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    mine = ".".join(map(str, _owner_of(ProcessIdentity.of(os.getpid()))))
    return path.with_name(f".{mine}.{uuid.uuid4().hex[:8]}.{path.name}")


def _owner_of(process: ProcessIdentity) -> tuple[str, int, int]:
    return process.host.replace(".", "-"), process.pid, process.started_ticks


def _process(host: str, pid: str, ticks: str) -> ProcessIdentity | None:
    """The process of this machine that a name tells of; None where it tells of another machine."""
    here = ProcessIdentity.of(os.getpid())
    if host != _owner_of(here)[0] or not (pid.isdecimal() and ticks.isdecimal()):
        return None
    return ProcessIdentity(int(pid), int(ticks), here.host)
