"""Files that appear whole or not at all, whoever reads or kills the program meanwhile."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary file beside `path` to write to; it takes the place of `path` at the end.

    After an error it is removed, and `path` is as it was. The suffix is kept, since some libraries
    choose a format by it.
    """
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            # Else a power cut may leave a whole file's name with holes in it.
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole, as UTF-8."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
