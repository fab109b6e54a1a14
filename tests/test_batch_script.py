"""The shell around a job: what is queued again after a kill, and what is not."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
from pathlib import Path

import pytest

from hpc_jobs.batch_script import after_the_call, before_the_call
from hpc_jobs.job_folder import CANCELLED_FILE, OUTCOME_FILE

ENDED = (CANCELLED_FILE, OUTCOME_FILE)


@pytest.fixture
def cgroups(tmp_path: Path) -> Path:
    """A job's control group, as Slurm makes it, and a `scontrol` that notes what it is asked."""
    job = tmp_path / "cgroup" / "system.slice" / "slurmstepd.scope" / "job_7"
    job.mkdir(parents=True)
    (job / "memory.events").write_text("low 0\noom 0\noom_kill 0\noom_group_kill 0\n")
    (tmp_path / "own").write_text("0::/system.slice/slurmstepd.scope/job_7/step_batch/user/task_0")
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    scontrol.chmod(0o755)
    return tmp_path


def end_of_job(
    folder: Path, status: int, log: str = "", restarts: int = 0
) -> tuple[list[str], str]:
    """What `scontrol` was asked, and the log, after a job that ended so."""
    lines = after_the_call(folder, ENDED, cgroups=folder / "cgroup", own_cgroup=folder / "own")
    (folder / "log").write_text(log)
    with (folder / "log").open("a") as file:
        done = subprocess.run(
            ["bash", "-c", "\n".join([f"(exit {status})", *lines])],
            env={
                "PYTHONPATH": str(Path(__file__).parent.parent),
                "PATH": f"{folder}:{os.environ['PATH']}",
                "SLURM_JOB_ID": "7",
                "SLURM_RESTART_COUNT": str(restarts),
            },
            stdout=file,
            stderr=file,
        )
    assert done.returncode == status
    asked = folder / "asked"
    return asked.read_text().splitlines() if asked.exists() else [], (folder / "log").read_text()


def test_a_killed_job_begins_again(cgroups: Path) -> None:
    log = "RuntimeError: CUDA out of memory\nsrun: error: n1: task 0: Killed\n"
    assert end_of_job(cgroups, 137, log) == (["requeue 7"], log)


def test_a_count_that_is_not_the_jobs_says_nothing(cgroups: Path) -> None:
    (cgroups / "own").write_text("0::/")
    (cgroups / "cgroup" / "memory.events").write_text("oom_kill 5\n")
    assert end_of_job(cgroups, 137) == (["requeue 7"], "")


def test_no_kill_no_restart(cgroups: Path) -> None:
    for status in (0, 1):
        assert end_of_job(cgroups, status) == ([], "")


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_whose_call_cannot_be_read_does_not_begin_again(cgroups: Path, rank: int) -> None:
    """Submitit keeps that; srun ends the others by a kill."""
    kept = pickle.dumps(("error", "Traceback ...\nImportError: no torch on this node"))
    (cgroups / f"7_{rank}_result.pkl").write_bytes(kept)
    assert end_of_job(cgroups, 137) == ([], "")
    outcome = json.loads((cgroups / OUTCOME_FILE).read_text())
    assert outcome["error"] == "ImportError: no torch on this node"


@pytest.mark.parametrize(
    ("of_array", "variables", "number"),
    [
        (False, {"SLURM_JOB_ID": "7"}, "7"),
        (True, {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2"}, "7_2"),
    ],
)
def test_what_was_kept_of_an_earlier_run_is_not_told_of_the_next(
    tmp_path: Path, of_array: bool, variables: dict[str, str], number: str
) -> None:
    job = tmp_path / "part-002" if of_array else tmp_path
    job.mkdir(exist_ok=True)
    stay = [tmp_path / f"1{number}_1_result.pkl", tmp_path / f"{number}_1_log.out"]
    gone = [tmp_path / f"{number}_{rank}_result.pkl" for rank in (0, 1, 12)]
    gone.append(job / OUTCOME_FILE)
    for path in [*stay, *gone]:
        path.touch()
    lines = before_the_call(tmp_path, OUTCOME_FILE, of_array=of_array)
    for restarts in ({}, {"SLURM_RESTART_COUNT": "1"}):
        assert all(path.exists() for path in [*stay, *gone])
        environment = os.environ | variables | restarts
        subprocess.run(["bash", "-c", "\n".join(lines)], env=environment, check=True)
    assert [path.exists() for path in [*stay, *gone]] == [True] * 2 + [False] * 4


def test_one_that_is_killed_after_the_other_has_ended_begins_again(cgroups: Path) -> None:
    (cgroups / "7_1_result.pkl").write_bytes(pickle.dumps(("success", "error")))
    assert end_of_job(cgroups, 137) == (["requeue 7"], "")


def test_a_terminated_job_begins_again(cgroups: Path) -> None:
    assert end_of_job(cgroups, 143) == (["requeue 7"], "")


def test_not_for_ever_and_not_once_cancelled(cgroups: Path) -> None:
    assert end_of_job(cgroups, 137, restarts=3) == ([], "")
    (cgroups / "cancelled").touch()
    assert end_of_job(cgroups, 137) == ([], "")


@pytest.mark.parametrize(
    ("status", "log", "killed"),
    [
        (253, "", 0),
        (137, "", 1),
        (137, "slurmstepd: error: Detected 1 oom_kill event in StepId=7.0. Some of the step\n", 0),
        (137, "slurmstepd: error: Detected 1 oom-kill event(s) in StepId=7.0.\n", 0),
        (137, "srun: error: n1: task 0: Out Of Memory\n", 0),
    ],
)
def test_one_that_took_too_much_memory_is_not_killed_again(
    cgroups: Path, status: int, log: str, killed: int
) -> None:
    (events,) = cgroups.glob("cgroup/**/memory.events")
    events.write_text(events.read_text().replace("oom_kill 0", f"oom_kill {killed}"))
    asked, log = end_of_job(cgroups, status, log)
    assert asked == []
    assert log.endswith("raise memory_gb in the site profile, and start it again\n")
    outcome = json.loads((cgroups / OUTCOME_FILE).read_text())
    assert outcome["state"] == "failed"
    assert outcome["error"].startswith("out of memory: raise memory_gb")


def test_of_several_processes_the_first_failure_says_what_becomes_of_the_job(
    cgroups: Path,
) -> None:
    told = {"rank": 1, "error": "ValueError: as asked", "of_another": False}
    lost = {"rank": 0, "error": "RuntimeError: gone", "of_another": True}
    (cgroups / "lost-0.json").write_text(json.dumps(lost))
    assert end_of_job(cgroups, 1)[0] == ["requeue 7"]
    (cgroups / "failure-0.json").write_text(json.dumps(told))
    assert end_of_job(cgroups, 137)[0] == ["requeue 7"]  # that was the one before
    outcome = json.loads((cgroups / OUTCOME_FILE).read_text())
    assert outcome["error"] == "process 1: ValueError: as asked"


def test_what_has_its_outcome_does_not_begin_again(cgroups: Path) -> None:
    (cgroups / OUTCOME_FILE).write_text("{}")
    assert end_of_job(cgroups, 137) == ([], "")
