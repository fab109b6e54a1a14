"""Temporary files: whose they are, and when they are nobody's."""

import os
import time
from pathlib import Path

from hpc_jobs.whole_files import ABANDONED_S, remove_abandoned, replacing, write_once


def test_only_what_nobody_writes_any_more_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "part-00001.parquet"
    other = [tmp_path / f".node7.12.345.{name}.{path.name}" for name in ("fresh", "old")]
    with replacing(path) as mine, replacing(path) as too:
        assert mine != too
        for temporary in (mine, too, *other):
            temporary.touch()
        long_ago = time.time() - 2 * ABANDONED_S
        os.utime(other[1], (long_ago, long_ago))
        os.utime(mine, (long_ago, long_ago))  # slow, but this process lives
        remove_abandoned(path)
        assert {mine, too, other[0]} == set(tmp_path.iterdir())
    assert {path, other[0]} == set(tmp_path.iterdir())


def test_of_several_writers_the_first_one_wins(tmp_path: Path) -> None:
    path = tmp_path / "record"
    assert write_once(path, "first")
    assert not write_once(path, "second")
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]
