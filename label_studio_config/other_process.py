"""Items that another process makes, one ahead of whoever takes them."""

from __future__ import annotations

import gc
import multiprocessing
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection
from typing import Any, TypeVar

Item = TypeVar("Item")

_ITEM, _ERROR, _END = range(3)


class ProcessKilledError(RuntimeError):
    """The other process ended before its last item."""


def in_other_process(make: Callable[[], Iterable[Item]], what: str) -> Iterator[Item]:
    """The items of `make()`, made in a copy of this process while the last one is used here.

    The copy is forked: it sees what is in memory now, and is not to use a database's connection.
    Where processes cannot be forked safely the items are made here.

    Parameters
    ----------
    make : its items can be pickled
    what : what it does, for the error ("reads the shards")

    Raises
    ------
    ProcessKilledError
        It was killed; other errors are those of `make`.
    """
    if sys.platform == "darwin" or "fork" not in multiprocessing.get_all_start_methods():
        yield from make()
        return
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(make, here, there), daemon=True)
    process.start()
    there.close()
    try:
        while True:
            try:
                kind, sent = here.recv()
            except EOFError:
                process.join()
                raise ProcessKilledError(
                    f"the process that {what} was killed (exit code {process.exitcode}): is the "
                    "memory full? A repetition goes on where this run stopped"
                ) from None
            if kind == _END:
                return
            if kind == _ERROR:
                raise sent
            yield sent
    finally:
        here.close()
        process.terminate()
        process.join()


def _send(make: Callable[[], Iterable[Any]], here: Connection, there: Connection) -> None:
    here.close()  # else nobody would notice that the parent is gone
    gc.freeze()  # what was there is not looked at, and so not copied
    try:
        for item in make():
            there.send((_ITEM, item))
        there.send((_END, None))
    except BrokenPipeError:
        return
    except Exception as error:
        error.add_note(traceback.format_exc())
        there.send((_ERROR, error))
