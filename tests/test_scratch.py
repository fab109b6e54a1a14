"""The fast folder of a node: a job has one of its own in it, and leaves nothing behind."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hpc_jobs.scratch import own_scratch, scratch_folder
from ml_backend.training_jobs import images_scratch

HELD = """
from hpc_jobs.scratch import own_scratch, scratch_folder
with own_scratch():
    (scratch_folder() / "image").touch()
    print(scratch_folder(), flush=True)
    input()
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Not there before the first job."""
    monkeypatch.setenv("PLANKTRAIT_SCRATCH", str(tmp_path / "fast"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURMD_NODENAME", "n1")
    return tmp_path / "fast"


@contextmanager
def another_process(**variables: str) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """One that holds its scratch folder until it is told to end."""
    process = subprocess.Popen(
        [sys.executable, "-c", HELD],
        env=os.environ | variables,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield process, Path(process.stdout.readline().strip())
    finally:
        process.communicate("\n")


def test_it_is_there_for_the_job_alone(site: Path) -> None:
    with own_scratch():
        folder = scratch_folder()
        assert folder is not None
        assert (folder.parent, folder.is_dir()) == (site, True)
        assert images_scratch() == folder / "images"
        assert tempfile.gettempdir() == os.environ["TMPDIR"] == str(folder)
        (folder / "images").mkdir()
    assert list(site.iterdir()) == []
    assert os.environ["PLANKTRAIT_SCRATCH"] == str(site)
    assert tempfile.gettempdir() == str(site.parent)


def test_a_failed_job_leaves_nothing(site: Path) -> None:
    with pytest.raises(SystemExit), own_scratch():
        raise SystemExit
    assert list(site.iterdir()) == []


def test_the_last_process_of_a_job_removes_it(site: Path) -> None:
    with another_process() as (_, folder):
        with own_scratch():
            assert scratch_folder() == folder
        assert (folder / "image").exists()
    assert list(site.iterdir()) == []


def test_another_job_on_the_node_keeps_its_own(site: Path) -> None:
    with another_process(SLURM_JOB_ID="8") as (_, folder):
        with own_scratch():
            assert scratch_folder() != folder
        assert (folder / "image").exists()


def test_what_a_killed_job_left_goes_with_the_next(site: Path) -> None:
    """But not that of another node, whose locks are not seen here on every file system."""
    with another_process(SLURM_JOB_ID="8") as (process, folder):
        process.kill()
        process.wait()
    with another_process(SLURM_JOB_ID="8", SLURMD_NODENAME="n2") as (process, elsewhere):
        process.kill()
        process.wait()
    assert folder.is_dir()
    with own_scratch():
        assert not folder.exists()
    assert elsewhere.is_dir()


def test_one_that_cannot_be_made_is_not_used(site: Path, caplog: pytest.LogCaptureFixture) -> None:
    site.touch()
    with caplog.at_level(logging.WARNING), own_scratch():
        assert scratch_folder() is None
        assert images_scratch() is None
        assert tempfile.gettempdir() == str(site.parent)
    assert "no scratch folder on n1" in caplog.text


def test_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PLANKTRAIT_SCRATCH", raising=False)
    with own_scratch():
        assert scratch_folder() is None
