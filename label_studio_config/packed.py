"""Images inside tar shards are read where they lie: one seek, nothing is unpacked.

In a packed manifest a path reads `shard-00000.tar::1536+20480::copepods/a.png`: the shard, where in
it the image begins and how many bytes it has, and its name. `open_image` opens such a path as it
opens a file of its own; `label_studio_config.pack` makes them.
"""

from __future__ import annotations

import io
import os
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

INDEX_FILE = "index.parquet"
PLAN_FILE = "pack.json"
_PACKED = re.compile(r"(?P<shard>.+\.tar)::(?P<offset>\d+)\+(?P<length>\d+)::(?P<member>.+)")
_OPEN_SHARDS = 64


def index_of(source: Path) -> Path | None:
    """The index of packed images, of their folder or of the index itself; None of other sources.

    It is there once they are packed to their end.
    """
    index = source / INDEX_FILE if source.is_dir() else source
    is_packed = index.name == INDEX_FILE and index.with_name(PLAN_FILE).is_file()
    return index if is_packed else None


@dataclass(frozen=True)
class PackedImage:
    """Where an image lies in a shard."""

    shard: str
    offset: int
    length: int
    member: str

    @classmethod
    def of(cls, path: Path | str) -> PackedImage | None:
        """What a path says; None for a file of its own."""
        found = _PACKED.fullmatch(str(path))
        if found is None:
            return None
        return cls(found["shard"], int(found["offset"]), int(found["length"]), found["member"])

    def __str__(self) -> str:
        return f"{self.shard}::{self.offset}+{self.length}::{self.member}"

    def read(self) -> bytes:
        """The bytes of the image.

        Raises
        ------
        FileNotFoundError
            There is no such shard.
        OSError
            The shard ends before the image does.
        """
        shard = _open_shard(self.shard)
        parts, missing = [], self.length
        while missing:
            part = os.pread(shard.descriptor, missing, self.offset + self.length - missing)
            if not part:
                raise OSError(f"{self.shard} ends inside {self.member}: copy or pack it again")
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)


class _Shard:
    """An open shard. Reads give their own position, so threads and processes may share it."""

    def __init__(self, path: str) -> None:
        self.descriptor = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


# Opening is what a parallel file system is slow at.
_open_shard = lru_cache(maxsize=_OPEN_SHARDS)(_Shard)


def open_image(path: Path | str) -> BinaryIO:
    """Open an image for reading, packed or not; raises OSError where it cannot be read."""
    packed = PackedImage.of(path)
    return open(path, "rb") if packed is None else io.BytesIO(packed.read())


def image_stamp(path: Path | str) -> str:
    """Something that changes when the image does: size and time of its file or shard.

    Raises
    ------
    OSError
        There is no such file.
    """
    packed = PackedImage.of(path)
    facts = os.stat(path) if packed is None else os.fstat(_open_shard(packed.shard).descriptor)
    return f"{facts.st_size}:{facts.st_mtime_ns}"
