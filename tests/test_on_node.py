"""A job's call on its node, without a cluster."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from submitit.core.job_environment import SignalHandler
from submitit.core.utils import DelayedSubmission, JobPaths
from submitit.slurm.slurm import SlurmJobEnvironment

from hpc_jobs.on_node import OnNode


@pytest.fixture
def squeue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What takes Slurm's place: it fails while the file that is given here is not there."""
    answer = tmp_path / "answer"
    (tmp_path / "squeue").write_text(f"#!/bin/sh\ncat {answer}\n")
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    return answer


@pytest.fixture
def delayed(tmp_path: Path) -> Iterator[DelayedSubmission]:
    """A call as submitit holds it while it listens to Slurm's signal."""
    held = DelayedSubmission(OnNode(dict, requeued=True))
    held.set_timeout(None, 3)  # type: ignore[arg-type]
    listener = SignalHandler(SlurmJobEnvironment(), JobPaths(tmp_path, "7"), held)
    before = signal.signal(signal.SIGUSR2, listener.checkpoint_and_try_requeue)
    yield held
    signal.signal(signal.SIGUSR2, before)


def test_a_time_limit_that_slurm_did_not_tell_is_asked_for_in_the_next_run(
    squeue: Path, delayed: DelayedSubmission
) -> None:
    """What the last run has noted goes with the call into the next one."""
    delayed.function()
    assert delayed._timeout_min == 0
    squeue.write_text("5:00\n")
    delayed.function()
    assert delayed._timeout_min == 5
    squeue.unlink()
    delayed.function()
    assert delayed._timeout_min == 5


def test_a_time_limit_that_the_site_profile_gives_is_not_asked_for(
    squeue: Path, delayed: DelayedSubmission
) -> None:
    squeue.write_text("5:00\n")
    delayed.set_timeout(60, 3)
    delayed.function()
    assert delayed._timeout_min == 60
