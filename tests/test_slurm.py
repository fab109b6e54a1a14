"""Jobs on a real Slurm: results, arrays, several processes, cancelling, lost nodes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import hpc_jobs
from hpc_jobs import runner
from hpc_jobs.files import update_json
from hpc_jobs.job_folder import JOB_FILE
from hpc_jobs.pending import drop_pending
from tests.slurm_fixtures import SlurmForTests, await_true
from tests.slurm_work import (
    OfFirstProcess,
    add,
    note_and_wait,
    note_scratch,
    rank_and_size,
    sum_together,
    wait_for_ever,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROOT = Path(__file__).parent.parent
LONGEST_S = 120


@pytest.fixture(autouse=True)
def _importable_on_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def submit(folder: Path, function: Any, *args: Any, **options: Any) -> hpc_jobs.Job[Any]:
    return hpc_jobs.submit(
        function, *args, name="x", folder=folder / "jobs", executor="slurm", **options
    )


def submit_once(folder: Path, *call: Any, **options: Any) -> hpc_jobs.Submission:
    options |= {"name": "x", "folder": folder / "jobs", "executor": "slurm"}
    return hpc_jobs.submit_once(*call, key="k", **options)


def began(folder: Path, part: int = 0, times: int = 1) -> list[str]:
    """Process id and node of each time that a part began, once it has so often."""
    path = folder / f"only-{part}.began"

    def lines() -> list[str]:
        return path.read_text().splitlines() if path.exists() else []

    await_true(lambda: len(lines()) >= times, LONGEST_S, lambda: f"{path}: {lines()}")
    return lines()


def test_a_job_its_record_and_its_log(slurm: SlurmForTests, tmp_path: Path) -> None:
    job = submit(tmp_path, add, 1, 2)
    assert job.record().where.startswith("Slurm ")
    assert job.result(LONGEST_S) == 3
    (record,) = hpc_jobs.list_jobs(tmp_path / "jobs")
    assert (record.state, record.result, record.parts) == ("finished", 3, ())
    assert "Job completed successfully" in record.log.read_text()


def test_an_array_is_one_job_of_parts(slurm: SlurmForTests, tmp_path: Path) -> None:
    job = submit(tmp_path, note_and_wait, tmp_path, parts=3)
    for part in range(3):
        began(tmp_path, part)
    (record,) = hpc_jobs.list_jobs(tmp_path / "jobs")
    assert (record.id, record.state, record.as_json()["parts"]) == (
        job.id,
        "running",
        {"running": 3},
    )
    assert (record.progress.stage, record.progress.done, record.progress.total) == ("wait", 2, 10)
    (tmp_path / "go").touch()
    assert [len(lines) for lines in job.result(LONGEST_S)] == [1, 1, 1]
    assert job.record().progress.message == "3 of 3 parts done"


def test_what_slurm_does_not_take_is_a_failed_job(slurm: SlurmForTests, tmp_path: Path) -> None:
    with pytest.raises(hpc_jobs.JobError, match="partition"):
        submit(tmp_path, add, 1, 2, parameters={"slurm_partition": "nowhere"})
    (record,) = hpc_jobs.list_jobs(tmp_path / "jobs")
    assert record.state == "failed"
    assert "partition" in record.error


@pytest.mark.parametrize("spread", [{"nodes": 2, "tasks_per_node": 1}, {"tasks_per_node": 2}])
def test_a_job_of_two_processes(
    slurm: SlurmForTests, tmp_path: Path, spread: dict[str, int]
) -> None:
    job = submit(tmp_path, rank_and_size, parameters=spread | {"cpus_per_task": 1})
    assert job.result(LONGEST_S) == (0, 2, "1")


def test_a_process_that_fails_ends_its_job(slurm: SlurmForTests, tmp_path: Path) -> None:
    job = submit(tmp_path, rank_and_size, 1, parameters={"tasks_per_node": 2})
    record = job.wait(LONGEST_S)
    assert (record.state, record.error) == ("failed", "process 1: ValueError: as asked")
    # It was no kill, though srun ends the other process by one.
    assert not list(record.folder.glob("failure-1.json"))


@pytest.mark.parametrize("rank", [0, 1])
def test_kill_9_of_one_process_of_two_and_they_begin_again(
    slurm: SlurmForTests, tmp_path: Path, rank: int
) -> None:
    """The one that is left fails, which is not the end of the job at any moment."""
    (tmp_path / "jobs").mkdir()
    job = submit_once(tmp_path, sum_together, tmp_path, parameters={"tasks_per_node": 2}).job
    for one in range(2):
        began(tmp_path, one)
    os.kill(int(began(tmp_path, rank)[0].split()[0]), signal.SIGKILL)
    seen = []

    def again() -> bool:
        seen.append(job.record().state)
        return len((tmp_path / "only-0.began").read_text().splitlines()) == 2

    await_true(again, LONGEST_S, lambda: hpc_jobs.read_log(job.record()))
    assert set(seen) <= {"queued", "running"}
    assert submit_once(tmp_path, sum_together, tmp_path).coalesced
    drop_pending(tmp_path / "jobs", "k")
    (tmp_path / "go").touch()
    assert job.result(LONGEST_S) == 2


def test_a_lost_node_of_two_and_they_begin_again(slurm: SlurmForTests, tmp_path: Path) -> None:
    job = submit(tmp_path, sum_together, tmp_path, parameters={"nodes": 2, "tasks_per_node": 1})
    nodes = [began(tmp_path, rank)[0].split()[1] for rank in range(2)]
    slurm.lose(nodes[1])
    try:
        await_true(lambda: job.record().state == "queued", LONGEST_S, slurm.logs)
    finally:
        slurm.start_node(nodes[1])
    (tmp_path / "go").touch()
    assert job.result(LONGEST_S) == 2


def test_one_process_of_two_is_killed_too_often(
    slurm: SlurmForTests, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits for the job starts after it."""
    monkeypatch.setattr("hpc_jobs.batch_script.MOST_RESTARTS", 0)
    (tmp_path / "jobs").mkdir()
    job = submit_once(tmp_path, sum_together, tmp_path, parameters={"tasks_per_node": 2}).job
    assert submit_once(tmp_path, add, 1, 2).coalesced
    os.kill(int(began(tmp_path, 1)[0].split()[0]), signal.SIGKILL)
    record = job.wait(LONGEST_S)
    assert record.state == "failed"
    assert "was killed, or its node went; process 0 noticed: RuntimeError" in str(record.error)
    jobs = tmp_path / "jobs"
    await_true(lambda: len(hpc_jobs.list_jobs(jobs)) == 2, LONGEST_S, slurm.logs)
    assert hpc_jobs.Job(hpc_jobs.list_jobs(jobs)[0].folder).result(LONGEST_S) == 3


@pytest.mark.parametrize("rank", [0, 1])
def test_an_error_of_one_process_ends_the_others_and_no_run_follows(
    slurm: SlurmForTests, tmp_path: Path, rank: int
) -> None:
    job = submit(tmp_path, sum_together, tmp_path, rank, parameters={"tasks_per_node": 2})
    record = job.wait(LONGEST_S)
    assert (record.state, record.error) == ("failed", f"process {rank}: ValueError: as asked")
    assert len(began(tmp_path, rank)) == 1


def test_a_call_that_the_second_process_cannot_read_ends_the_job_and_no_run_follows(
    slurm: SlurmForTests, tmp_path: Path
) -> None:
    spread = {"tasks_per_node": 2}
    job = submit(tmp_path, wait_for_ever, OfFirstProcess(tmp_path), parameters=spread)
    record = job.wait(LONGEST_S)
    assert (record.state, record.error) == ("failed", "ImportError: no torch on this node")
    number = record.where.split()[1]

    def told() -> str:
        return slurm.run("scontrol", "show", "job", number)

    await_true(lambda: "JobState=FAILED" in told(), LONGEST_S, told)
    assert "Restarts=0" in told()


def test_two_processes_that_are_cancelled_by_hand_have_not_failed(
    slurm: SlurmForTests, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit(tmp_path, sum_together, tmp_path, parameters={"nodes": 2, "tasks_per_node": 1})
    for rank in range(2):
        began(tmp_path, rank)
    slurm.run("scancel", job.record().where.split()[1])
    assert job.wait(LONGEST_S).state == "cancelled"
    # Whichever missed the other first.
    (job.folder / "lost-0.json").write_text('{"rank": 0, "error": "gone", "of_another": true}')
    told = job.record()
    assert told.state == "cancelled"
    # It stands for the minutes after which Slurm forgets a job.
    monkeypatch.setattr("hpc_jobs.slurm.state_of", lambda _: None)
    assert job.record() == told


def test_what_was_cancelled_by_hand_is_so_when_slurm_has_forgotten_it(
    slurm: SlurmForTests, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit(tmp_path, note_and_wait, tmp_path, parts=2)
    for part in range(2):
        began(tmp_path, part)
    slurm.run("scancel", job.record().where.split()[1])
    told = job.wait(LONGEST_S)
    assert [part.state for part in told.parts] == ["cancelled"] * 2
    monkeypatch.setattr("hpc_jobs.slurm.state_of", lambda _: None)
    assert job.record() == told


def test_two_processes_whose_time_was_up_too_often(
    slurm: SlurmForTests, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpc_jobs.slurm_submission.MOST_TIMEOUTS", 0)
    parameters = {"timeout_min": 1, "slurm_signal_delay_s": 10, "tasks_per_node": 2}
    job = submit(tmp_path, sum_together, tmp_path, parameters=parameters)
    for rank in range(2):
        began(tmp_path, rank)
    slurm.run("scancel", "--signal=USR2", job.record().where.split()[1])
    record = job.wait(LONGEST_S)
    assert record.state == "failed"
    assert "give it more time in the site profile" in str(record.error)
    slurm.run("scancel", record.where.split()[1])


def test_cancel(slurm: SlurmForTests, tmp_path: Path) -> None:
    job = submit(tmp_path, note_and_wait, tmp_path, parts=2)
    for part in range(2):
        began(tmp_path, part)
    assert job.cancel().state == "cancelled"
    assert [part.state for part in job.record().parts] == ["cancelled"] * 2


def test_cancel_before_the_start(slurm: SlurmForTests, tmp_path: Path) -> None:
    with slurm.full():
        waiting = submit(tmp_path, note_and_wait, tmp_path)
        assert waiting.record().state == "queued"
        assert waiting.record().waits_for == "PartitionDown"
        assert waiting.cancel().state == "cancelled"
    assert not list(tmp_path.glob("*.began"))


@pytest.mark.parametrize("part", [0, 1])
def test_kill_9_of_a_task_and_it_begins_again(
    slurm: SlurmForTests, tmp_path: Path, part: int
) -> None:
    """It alone, also where Slurm has given it the number of the whole array."""
    job = submit(tmp_path, note_and_wait, tmp_path, parts=2)
    other = began(tmp_path, 1 - part)
    (line,) = began(tmp_path, part)
    os.kill(int(line.split()[0]), signal.SIGKILL)
    assert job.record().active
    began(tmp_path, part, times=2)
    assert job.record().state == "running"
    (tmp_path / "go").touch()
    lines = job.result(LONGEST_S)
    assert (len(lines[part]), lines[1 - part]) == (2, other)


def test_a_lost_node_and_it_begins_again(slurm: SlurmForTests, tmp_path: Path) -> None:
    job = submit(tmp_path, note_and_wait, tmp_path)
    node = began(tmp_path)[0].split()[1]
    slurm.lose(node)
    try:
        # Slurm may say for a moment that the lost one is completing.
        await_true(lambda: job.record().state == "queued", LONGEST_S, slurm.logs)
        assert began(tmp_path, times=2)[1].split()[1] != node
    finally:
        slurm.start_node(node)
    (tmp_path / "go").touch()
    assert len(job.result(LONGEST_S)) == 2


def test_preemption_and_it_begins_again(slurm: SlurmForTests, tmp_path: Path) -> None:
    """Slurm's own: a job of higher priority needs the node."""
    job = submit(tmp_path, note_and_wait, tmp_path)
    began(tmp_path)
    slurm.preempt()
    began(tmp_path, times=2)
    assert job.record().state == "running"
    (tmp_path / "go").touch()
    assert len(job.result(LONGEST_S)) == 2


def test_the_signal_before_its_end_and_it_begins_again(
    slurm: SlurmForTests, tmp_path: Path
) -> None:
    """The one that submitit waits for, where a cluster gives notice."""
    job = submit(tmp_path, note_and_wait, tmp_path)
    began(tmp_path)
    slurm.run("scancel", "--signal=USR2", job.record().where.split()[1])
    began(tmp_path, times=2)
    assert job.record().state == "running"
    (tmp_path / "go").touch()
    assert len(job.result(LONGEST_S)) == 2


def test_its_time_was_up_too_often(
    slurm: SlurmForTests, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a minute of time, submitit takes each signal for its end."""
    monkeypatch.setattr("hpc_jobs.slurm_submission.MOST_TIMEOUTS", 0)
    # Not Slurm's own signal, which may come before anybody listens: 90 s before the end.
    parameters = {"timeout_min": 1, "slurm_signal_delay_s": 10}
    job = submit(tmp_path, note_and_wait, tmp_path, parameters=parameters)
    began(tmp_path)
    slurm.run("scancel", "--signal=USR2", job.record().where.split()[1])
    record = job.wait(LONGEST_S)
    assert record.state == "failed"
    assert "give it more time in the site profile" in str(record.error)


@contextmanager
def partition(slurm: SlurmForTests, **settings: str) -> Iterator[None]:
    """With other limits of time."""
    told = [f"{name}={value}" for name, value in settings.items()]
    slurm.run("scontrol", "update", "PartitionName=all", *told)
    try:
        yield
    finally:
        slurm.run(
            "scontrol", "update", "PartitionName=all", "DefaultTime=INFINITE", "MaxTime=INFINITE"
        )


def test_a_time_that_is_not_asked_for_is_left_to_slurm(
    slurm: SlurmForTests, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And its end is counted as with one that is."""
    monkeypatch.setattr("hpc_jobs.slurm_submission.MOST_TIMEOUTS", 0)
    with partition(slurm, DefaultTime="5", MaxTime="60"):
        job = submit(tmp_path, note_and_wait, tmp_path)
    began(tmp_path)
    number = job.record().where.split()[1]
    assert slurm.run("squeue", "--noheader", "--jobs", number, "--format=%l") == "5:00"
    slurm.run("scancel", "--signal=USR2", number)
    record = job.wait(LONGEST_S)
    assert record.state == "failed"
    assert "give it more time in the site profile" in str(record.error)


def test_a_time_that_no_partition_allows_is_told(slurm: SlurmForTests, tmp_path: Path) -> None:
    with partition(slurm, MaxTime="60"):
        job = submit(tmp_path, add, 1, 2, parts=2, parameters={"timeout_min": 61})

        def told() -> str:
            return str(job.record().as_json()["waits_for"])

        await_true(lambda: told().startswith("PartitionTimeLimit"), LONGEST_S, told)
        assert "too much time: change that in the site profile" in told()
        assert job.cancel().waits_for is None


def profile(folder: Path, text: str) -> dict[str, Any]:
    (folder / "site.toml").write_text(f'cluster = "slurm"\n{text}')
    options: dict[str, Any] = hpc_jobs.read_site(folder / "site.toml", []).options("train")
    return options["parameters"]  # type: ignore[no-any-return]


def test_a_scratch_folder_on_each_node(slurm: SlurmForTests, tmp_path: Path) -> None:
    site = tmp_path / "not there yet"
    parameters = profile(tmp_path, f'scratch = "{site}"')
    parameters |= {"nodes": 2, "tasks_per_node": 1, "cpus_per_task": 1}
    submit(tmp_path, note_scratch, tmp_path, parameters=parameters).result(LONGEST_S)
    noted = [tmp_path / f"rank-{rank}" for rank in (0, 1)]
    await_true(lambda: all(path.exists() for path in noted), LONGEST_S, slurm.logs)
    told = [path.read_text().splitlines() for path in noted]
    assert [folder for folder, _ in told] == [temporary for _, temporary in told]
    assert len({folder for folder, _ in told}) == 2
    assert {str(Path(folder).parent) for folder, _ in told} == {str(site)}
    await_true(lambda: not list(site.iterdir()), LONGEST_S, lambda: str(list(site.iterdir())))


def test_a_module_that_is_missing_is_told(slurm: SlurmForTests, tmp_path: Path) -> None:
    job = submit(tmp_path, add, 1, 2, parameters=profile(tmp_path, 'modules = ["cuda/12"]'))
    record = job.wait(LONGEST_S)
    assert (record.state, "its log may say why" in str(record.error)) == ("killed", True)
    assert "modules of the site profile: there is no command module" in hpc_jobs.read_log(record)


def test_a_job_that_is_not_to_be_queued_again(slurm: SlurmForTests, tmp_path: Path) -> None:
    asked = profile(tmp_path, "sbatch = { requeue = false, overcommit = false }")
    job = submit(tmp_path, note_and_wait, tmp_path, parameters=asked)
    began(tmp_path)
    number = job.record().where.split()[1]
    assert "Requeue=0" in slurm.run("scontrol", "show", "job", number)
    slurm.run("scancel", "--signal=USR2", number)
    record = job.wait(LONGEST_S)
    assert record.state == "failed"
    assert "the site profile says that it is not queued again" in str(record.error)


def test_a_finished_job_that_is_queued_again_is_not_finished_meanwhile(
    slurm: SlurmForTests, tmp_path: Path
) -> None:
    (tmp_path / "go").touch()
    job = submit(tmp_path, note_and_wait, tmp_path)
    assert len(job.result(LONGEST_S)) == 1
    (tmp_path / "go").unlink()
    number = job.record().where.split()[1]
    slurm.run("scontrol", "requeue", number)
    (line,) = began(tmp_path, times=2)[1:]
    assert job.record().state == "running"
    os.kill(int(line.split()[0]), signal.SIGKILL)
    began(tmp_path, times=3)
    (tmp_path / "go").touch()
    assert len(job.result(LONGEST_S)) == 3


def test_requeue_by_hand(slurm: SlurmForTests, tmp_path: Path) -> None:
    job = submit(tmp_path, note_and_wait, tmp_path)
    began(tmp_path)
    slurm.run("scontrol", "requeue", job.record().where.split()[1])
    began(tmp_path, times=2)
    (tmp_path / "go").touch()
    assert len(job.result(LONGEST_S)) == 2


@pytest.mark.parametrize("parts", [1, 2])
def test_who_submits_is_killed_just_after_sbatch(
    slurm: SlurmForTests, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: int
) -> None:
    """The job waits and is shown so, whatever it waits; it is not submitted a second time."""

    def killed_then(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    once = parts == 1
    # It stands for an hour that goes by: what Slurm said before then is no answer any more.
    monkeypatch.setattr("hpc_jobs.slurm.SECONDS_BETWEEN_QUESTIONS", -1.0)
    with slurm.full():
        with monkeypatch.context() as patch:
            patch.setattr(runner, "update_json", killed_then)
            with pytest.raises(KeyboardInterrupt):
                (submit_once if once else submit)(tmp_path, note_and_wait, tmp_path, parts=parts)
        (folder,) = (tmp_path / "jobs").glob("[!.]*")
        for path in [*folder.glob(JOB_FILE), *folder.glob(f"part-*/{JOB_FILE}")]:
            update_json(path, submitted=time.time() - 3600)
        job: hpc_jobs.Job[Any] = hpc_jobs.Job(folder)
        assert job.record().state == "queued"
        assert job.record().where.startswith("Slurm ")
        if once:
            again = submit_once(tmp_path, note_and_wait, tmp_path)
            assert (again.coalesced, again.job.id) == (True, job.id)
            drop_pending(tmp_path / "jobs", "k")
            assert len(list((tmp_path / "jobs").glob("[!.]*"))) == 1
    (tmp_path / "go").touch()
    assert job.wait(LONGEST_S).state == "finished"
    assert "successfully" in (job.record().log or tmp_path).read_text()


def test_who_submits_is_killed_just_before_sbatch(
    slurm: SlurmForTests, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed_then(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hpc_jobs.runner.submit_calls", killed_then)
    with pytest.raises(KeyboardInterrupt):
        submit(tmp_path, add, 1, 2)
    (record,) = hpc_jobs.list_jobs(tmp_path / "jobs")
    assert record.state == "queued"
    update_json(record.folder / JOB_FILE, submitted=time.time() - 3600)
    (record,) = hpc_jobs.list_jobs(tmp_path / "jobs")
    assert (record.state, "start it again" in str(record.error)) == ("killed", True)


def test_one_at_a_time_and_once_more(slurm: SlurmForTests, tmp_path: Path) -> None:
    """Also where the ending job itself has to queue the follow-up, from its node."""
    (tmp_path / "jobs").mkdir()
    submissions = [
        hpc_jobs.submit_once(
            note_and_wait, tmp_path, name="x", folder=tmp_path / "jobs", key="k", executor="slurm"
        )
        for _ in range(3)
    ]
    assert [one.coalesced for one in submissions] == [False, True, True]
    (tmp_path / "go").touch()
    submissions[0].job.result(LONGEST_S)
    began(tmp_path, times=2)
    first, follow_up = hpc_jobs.list_jobs(tmp_path / "jobs")[::-1]
    assert (first.state, hpc_jobs.Job(follow_up.folder).wait(LONGEST_S).state) == ("finished",) * 2
