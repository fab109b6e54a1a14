"""Jobs: one call, a process that outlives its starter, and a state that is true after any death."""

from __future__ import annotations

import errno
import itertools
import json
import logging
import operator
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

import hpc_jobs
from hpc_jobs import progress, slurm
from hpc_jobs.call import JobCall
from hpc_jobs.files import read_json, write_json
from hpc_jobs.job_folder import (
    CANCELLED_FILE,
    HEARTBEAT_FILE,
    JOB_FILE,
    OUTCOME_FILE,
    STARTED_FILE,
)
from hpc_jobs.job_state import SECONDS_OF_SILENCE
from hpc_jobs.processors import processors

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(autouse=True)
def _importable_in_jobs(monkeypatch):
    """A job is a fresh interpreter: it finds this file's functions by the path."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


def count_to(total: int, pause_s: float, folder: Path | None = None) -> int:
    for step in progress.track(range(total), "count"):
        time.sleep(pause_s)
        if folder is not None:
            (folder / "last").write_text(str(step))
    return total


def append_line(path: Path, text: str, pause_s: float = 0.0) -> None:
    time.sleep(pause_s)
    with path.open("a") as lines:
        lines.write(text + "\n")


def swallow_the_interrupt() -> None:
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        logging.info("as Lightning does")


def deaf() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    time.sleep(60)


def niceness_of_session() -> str:
    return Path("/proc/self/autogroup").read_text()


def niceness_and_threads() -> tuple[int, str, str, int]:
    return (
        os.getpriority(os.PRIO_PROCESS, 0),
        os.environ["OMP_NUM_THREADS"],
        os.environ["PLANKTRAIT_JOB_FOLDER"],
        os.getsid(0),
    )


def wait_for_state(job: hpc_jobs.Job, state: str, timeout_s: float = 30.0) -> hpc_jobs.JobRecord:
    end = time.monotonic() + timeout_s
    while (record := job.record()).state != state:
        assert time.monotonic() < end, f"still {record.state}, not {state}"
        time.sleep(0.05)
    return record


def job_pid(job: hpc_jobs.Job) -> int:
    return read_json(job.folder / STARTED_FILE)["process"]["pid"]


@pytest.mark.parametrize("executor", ["local", "debug"])
def test_result_and_record(tmp_path, executor):
    job = hpc_jobs.submit(operator.add, 1, 2, name="Add", folder=tmp_path, executor=executor)
    assert job.result(30) == 3
    record = job.record()
    assert (record.id, record.name, record.state, record.error) == (job.id, "Add", "finished", None)
    assert record.submitted <= record.started <= record.finished
    assert record.result == 3
    json.dumps(record.as_json())


@pytest.mark.parametrize("executor", ["local", "debug"])
def test_failure_says_why(tmp_path, executor):
    job = hpc_jobs.submit(operator.truediv, 1, 0, name="div", folder=tmp_path, executor=executor)
    record = job.wait(30)
    assert record.state == "failed"
    assert record.error == "ZeroDivisionError: division by zero"
    with pytest.raises(hpc_jobs.JobError, match="division by zero"):
        job.result()
    if executor == "local":
        assert "Traceback" in record.log.read_text()


def test_call_that_cannot_be_unpickled_is_failed(tmp_path, monkeypatch):
    module = types.ModuleType("only_here")
    exec("def nothing(): pass", vars(module))
    monkeypatch.setitem(sys.modules, "only_here", module)
    record = hpc_jobs.submit(module.nothing, name="x", folder=tmp_path).wait(30)
    assert record.state == "failed"
    assert "No module named" in record.error


def test_job_is_nice_in_its_own_session_and_knows_its_folder(tmp_path):
    job = hpc_jobs.submit(niceness_and_threads, name="x", folder=tmp_path, threads=1)
    niceness, threads, folder, session = job.result(30)
    assert (niceness, threads, folder) == (10, "1", str(job.folder))
    assert session != os.getsid(0)


@pytest.mark.parametrize(("said", "threads"), [("7", "7"), (None, str(processors()))])
def test_it_has_the_threads_that_the_environment_says_else_all(
    tmp_path, monkeypatch, said, threads
):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if said:
        monkeypatch.setenv("OMP_NUM_THREADS", said)
    job = hpc_jobs.submit(niceness_and_threads, name="n", folder=tmp_path)
    assert job.result(30)[1] == threads


@pytest.mark.skipif(
    not Path("/proc/self/autogroup").exists(), reason="the kernel does not group by session"
)
def test_its_session_is_nice_too(tmp_path):
    """With autogroup the niceness of a thread counts only within its session."""
    jobs = [
        hpc_jobs.submit(niceness_of_session, name=str(n), folder=tmp_path, niceness=n)
        for n in (7, 10)
    ]
    said = [job.result(30) for job in jobs]
    # Empty where the kernel is told not to group.
    assert [text.split()[-1] for text in said if text] in ([], ["7", "10"])


def test_progress_of_a_running_job(tmp_path):
    job = hpc_jobs.submit(count_to, 1000, 0.01, name="count", folder=tmp_path)
    end = time.monotonic() + 30
    while not ((record := job.record()).progress and record.progress.done > 10):
        assert time.monotonic() < end
        time.sleep(0.05)
    assert record.state == "running"
    assert (record.progress.stage, record.progress.total) == ("count", 1000)
    assert 0 < record.as_json()["progress"]["share"] < 1
    assert job.cancel().state == "cancelled"


def test_kill_9_is_seen(tmp_path):
    job = hpc_jobs.submit(count_to, 1000, 0.05, name="count", folder=tmp_path)
    wait_for_state(job, "running")
    os.kill(job_pid(job), signal.SIGKILL)
    record = wait_for_state(job, "killed", 5)
    assert "killed" in record.error
    assert record.finished


def test_kill_9_of_everything_before_the_start_is_seen(tmp_path):
    job = hpc_jobs.submit(time.sleep, 60, name="sleep", folder=tmp_path)
    os.killpg(read_json(job.folder / JOB_FILE)["process"]["pid"], signal.SIGKILL)
    wait_for_state(job, "killed", 5)


def test_a_later_process_with_the_same_number_is_not_the_job(tmp_path):
    job = hpc_jobs.submit(operator.add, 1, 2, name="x", folder=tmp_path)
    job.wait(30)
    (job.folder / OUTCOME_FILE).unlink()
    for path in job.folder.glob("*_result.pkl"):
        path.unlink()
    started = read_json(job.folder / STARTED_FILE)
    started["process"]["pid"] = os.getpid()
    write_json(job.folder / STARTED_FILE, started)
    assert job.record().state == "killed"


def test_job_outlives_its_starter(tmp_path):
    """Also when the whole process group of the starter is killed, as a supervisor does."""
    script = (
        "import hpc_jobs, sys, test_jobs, pathlib, time\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "print(hpc_jobs.submit(test_jobs.count_to, 40, 0.05, name='c', folder=folder).folder)\n"
        "sys.stdout.flush(); time.sleep(60)\n"
    )
    starter = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    job: hpc_jobs.Job = hpc_jobs.Job(Path(starter.stdout.readline().strip()))
    wait_for_state(job, "running")
    os.killpg(starter.pid, signal.SIGKILL)
    starter.wait()
    assert job.record().state == "running"
    assert job.result(30) == 40


@pytest.mark.parametrize("function", [swallow_the_interrupt, deaf])
def test_cancel(tmp_path, function):
    job = hpc_jobs.submit(function, name="x", folder=tmp_path)
    wait_for_state(job, "running")
    time.sleep(0.3)
    assert job.cancel(grace_s=1).state == "cancelled"
    assert (job.folder / CANCELLED_FILE).exists()
    assert job.cancel().state == "cancelled"


def test_cancel_before_the_start(tmp_path):
    job = hpc_jobs.submit(time.sleep, 60, name="x", folder=tmp_path)
    assert job.cancel(grace_s=1).state == "cancelled"


def test_list_is_newest_first_and_skips_what_is_no_job(tmp_path):
    assert hpc_jobs.list_jobs(tmp_path / "missing") == []
    jobs = [
        hpc_jobs.submit(operator.add, i, 0, name=f"job {i}", folder=tmp_path, executor="debug")
        for i in range(3)
    ]
    (tmp_path / "other").mkdir()
    (tmp_path / "file").touch()
    broken = tmp_path / "99990101T000000-broken-0000"
    broken.mkdir()
    (broken / JOB_FILE).write_text("{")
    assert [record.id for record in hpc_jobs.list_jobs(tmp_path)] == [j.id for j in jobs[::-1]]
    assert [record.id for record in hpc_jobs.list_jobs(tmp_path, newest=1)] == [jobs[-1].id]


def test_submit_once_runs_one_at_a_time_and_once_more(tmp_path):
    lines = tmp_path / "lines"
    jobs = tmp_path / "jobs"
    submissions = [
        hpc_jobs.submit_once(append_line, lines, str(i), 1.0, name="a", folder=jobs, key="k")
        for i in range(5)
    ]
    assert [submission.coalesced for submission in submissions] == [False] + [True] * 4
    assert {submission.job for submission in submissions} == {submissions[0].job}
    assert hpc_jobs.has_pending(jobs, "k")
    other = hpc_jobs.submit_once(append_line, lines, "other", name="b", folder=jobs, key="k2")
    assert not other.coalesced
    end = time.monotonic() + 60
    # Between the end of the first one and the start of its follow-up none is active.
    while len(hpc_jobs.list_jobs(jobs)) < 3 or any(r.active for r in hpc_jobs.list_jobs(jobs)):
        assert time.monotonic() < end
        time.sleep(0.1)
    assert sorted(lines.read_text().split()) == ["0", "4", "other"]
    first, follow_up = [r for r in hpc_jobs.list_jobs(jobs)[::-1] if r.key == "k"]
    assert first.finished <= follow_up.started


def test_submit_once_across_processes(tmp_path):
    """Six workers ask twenty times each: never two jobs at once, and a run after the last ask."""
    script = (
        "import hpc_jobs, sys, test_jobs, pathlib, time\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "for i in range(20):\n"
        "    hpc_jobs.submit_once(test_jobs.append_line, folder / 'lines', 'x', 0.3, name='a',\n"
        "                         folder=folder / 'jobs', key='k')\n"
        "    time.sleep(0.05)\n"
    )
    workers = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path)]) for _ in range(6)]
    assert [worker.wait(60) for worker in workers] == [0] * 6
    last_ask = time.time()
    end = time.monotonic() + 60
    while any(record.active for record in hpc_jobs.list_jobs(tmp_path / "jobs")):
        assert time.monotonic() < end
        time.sleep(0.1)
    records = hpc_jobs.list_jobs(tmp_path / "jobs")[::-1]
    assert {record.state for record in records} == {"finished"}
    for earlier, later in itertools.pairwise(records):
        assert earlier.finished <= later.started
    assert records[-1].started >= last_ask - 1.0
    assert 2 <= len(records) < 120


def test_follow_up_of_a_killed_job(tmp_path):
    lines = tmp_path / "lines"
    jobs = tmp_path / "jobs"
    first = hpc_jobs.submit_once(append_line, lines, "a", 60, name="a", folder=jobs, key="k").job
    assert hpc_jobs.submit_once(append_line, lines, "b", name="b", folder=jobs, key="k").coalesced
    wait_for_state(first, "running")
    assert hpc_jobs.start_pending(jobs) == []
    os.kill(job_pid(first), signal.SIGKILL)
    wait_for_state(first, "killed", 5)
    (follow_up,) = hpc_jobs.start_pending(jobs)
    assert follow_up.wait(30).state == "finished"
    assert lines.read_text().split() == ["b"]
    assert not hpc_jobs.has_pending(jobs, "k")
    assert hpc_jobs.start_pending(jobs) == []


def test_a_call_that_an_earlier_version_pickled_starts_its_follow_up(tmp_path):
    """It does not say what happens at its end: the job waited on Slurm while all was upgraded."""
    lines, jobs = tmp_path / "lines", tmp_path / "jobs"
    first = hpc_jobs.submit_once(append_line, lines, "a", 60, name="a", folder=jobs, key="k").job
    assert hpc_jobs.submit_once(append_line, lines, "b", name="b", folder=jobs, key="k").coalesced
    wait_for_state(first, "running")
    os.kill(job_pid(first), signal.SIGKILL)
    wait_for_state(first, "killed", 5)
    call = JobCall(first.folder, append_line, (lines, "a"), {}, 0)
    del call.at_end
    pickle.loads(pickle.dumps(call)).run()
    follow_up = hpc_jobs.Job(hpc_jobs.list_jobs(jobs)[0].folder)
    assert follow_up.id != first.id
    assert follow_up.wait(30).state == "finished"
    assert lines.read_text().split() == ["a", "b"]


def test_cancel_drops_the_follow_up(tmp_path):
    job = hpc_jobs.submit_once(time.sleep, 60, name="a", folder=tmp_path, key="k").job
    hpc_jobs.submit_once(time.sleep, 60, name="a", folder=tmp_path, key="k")
    wait_for_state(job, "running")
    assert job.cancel().state == "cancelled"
    assert not hpc_jobs.has_pending(tmp_path, "k")
    assert len(hpc_jobs.list_jobs(tmp_path)) == 1


def test_progress_without_a_job_or_a_terminal_is_log_lines(caplog, monkeypatch):
    monkeypatch.delenv("PLANKTRAIT_JOB_FOLDER", raising=False)
    with caplog.at_level(logging.INFO, logger="hpc_jobs.progress"):
        assert list(progress.track(iter(range(10_000)), "read", total=10_000)) == list(
            range(10_000)
        )
    assert [record.message for record in caplog.records] == ["read 0/10000", "read 10000/10000"]


def test_progress_is_told_to_whoever_listens_but_not_what_is_quiet():
    heard = []
    with progress.told_to(heard.append):
        for _ in progress.track(range(2), "outer"):
            with progress.quiet():
                progress.report("inner", 1, 2)
    progress.report("afterwards", 0, 1)
    assert [(told.stage, told.done) for told in heard] == [("outer", 0), ("outer", 1), ("outer", 2)]


def test_progress_file_is_whole_at_every_moment(tmp_path, monkeypatch):
    monkeypatch.setenv("PLANKTRAIT_JOB_FOLDER", str(tmp_path))
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_FILES", 0.0)
    for done in range(200):
        progress.report("write", done, 0, "x" * done)
        assert progress.read(tmp_path).done == done
    assert [path.name for path in tmp_path.iterdir()] == ["progress.json"]


def test_progress_survives_a_folder_that_is_gone(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("PLANKTRAIT_JOB_FOLDER", str(tmp_path / "gone"))
    progress.report("write", 1, 2)
    assert "progress not written" in caplog.text


def test_cancel_all_ends_what_runs_here(tmp_path):
    folder = tmp_path
    running = hpc_jobs.submit(time.sleep, 60, name="sleep", folder=folder)
    done = hpc_jobs.submit(sum, [1, 2], name="add", folder=folder, executor="debug")
    assert [job.id for job in hpc_jobs.cancel_all(folder)] == [running.id]
    assert running.record().state == "cancelled"
    assert done.record().state == "finished"
    assert hpc_jobs.cancel_all(folder) == []


def killed(job: hpc_jobs.Job) -> hpc_jobs.Job:
    wait_for_state(job, "running")
    os.killpg(read_json(job.folder / JOB_FILE)["process"]["pid"], signal.SIGKILL)
    wait_for_state(job, "killed", 5)
    return job


def test_what_was_cut_off_is_begun_again_once(tmp_path):
    """The newest of its key, where that goes on; whoever began it again, and again, is told."""

    def begin(key: str | None) -> hpc_jobs.Job:
        return hpc_jobs.submit(time.sleep, 60, name=str(key), folder=tmp_path, key=key)

    old, other, unkeyed, long_ago = (killed(begin(key)) for key in ("a", "b", None, "c"))
    finished = hpc_jobs.submit(sum, [1], name="x", folder=tmp_path, key="d", executor="debug")
    newest = killed(begin("a"))
    longer = time.time() - 8 * 24 * 3600
    for path in long_ago.folder.iterdir():
        os.utime(path, (longer, longer))
    ended = newest.record().finished
    found = hpc_jobs.take_up_interrupted(tmp_path, lambda key: key in {"a", "c", "d"})
    assert [one.job.id for one in found] == [old.id, other.id, unkeyed.id, newest.id]
    (again,) = [one.again for one in found if one.again]
    assert found[-1].again == again
    assert (again.record().key, again.record().name) == ("a", "a")
    assert newest.record().finished == ended
    assert finished.record().state == "finished"
    killed(again)
    (told,) = hpc_jobs.take_up_interrupted(tmp_path, lambda key: True)
    assert (told.job.id, told.again) == (again.id, None)
    assert hpc_jobs.take_up_interrupted(tmp_path, lambda key: True) == []


def test_what_ends_with_the_servers_was_started_by_them(tmp_path):
    asked = hpc_jobs.submit(time.sleep, 60, name="by a server", folder=tmp_path, key="a")
    typed = hpc_jobs.submit(time.sleep, 60, name="by a person", folder=tmp_path)
    somebodys = hpc_jobs.submit(time.sleep, 60, name="cancelled", folder=tmp_path, key="b")
    somebodys.cancel(grace_s=1)
    assert [job.id for job in hpc_jobs.end_with_servers(tmp_path)] == [asked.id]
    assert typed.record().active
    (taken_up,) = hpc_jobs.take_up_interrupted(tmp_path, lambda key: True)
    assert taken_up.job.id == asked.id
    assert taken_up.again is not None
    hpc_jobs.cancel_all(tmp_path)


def test_what_waited_for_a_job_that_ends_with_the_servers_waits_again(tmp_path):
    options = {"name": "train", "folder": tmp_path, "key": "a"}
    first = hpc_jobs.submit_once(time.sleep, 60, **options).job
    assert hpc_jobs.submit_once(time.sleep, 61, **options).coalesced
    hpc_jobs.end_with_servers(tmp_path)
    assert [job.id for job in hpc_jobs.list_jobs(tmp_path)] == [first.id]
    (taken_up,) = hpc_jobs.take_up_interrupted(tmp_path, lambda key: True)
    assert hpc_jobs.has_pending(tmp_path, "a")
    killed(taken_up.again)
    (follow_up,) = hpc_jobs.start_pending(tmp_path)
    assert follow_up.record().active
    hpc_jobs.cancel_all(tmp_path)


def test_what_was_cut_off_is_not_begun_again_in_a_copy(tmp_path):
    """The call of a job names the folders it was started with: those of the original."""
    job = killed(hpc_jobs.submit(time.sleep, 60, name="x", folder=tmp_path / "jobs", key="a"))
    copy = tmp_path / "restored"
    shutil.copytree(tmp_path / "jobs", copy)
    (told,) = hpc_jobs.take_up_interrupted(copy, lambda key: True)
    assert (told.job.id, told.again) == (job.id, None)
    assert len(hpc_jobs.list_jobs(tmp_path / "jobs")) == 1


def job_of_another_machine(folder: Path, process: subprocess.Popen, executor: str = "local"):
    """A job that another machine runs, under the number that `process` has here."""
    job_folder = folder / "20260101T000000.000-x-0000"
    job_folder.mkdir()
    identity = {"pid": process.pid, "started_ticks": 1, "host": "another-machine"}
    description = {"id": job_folder.name, "name": "x", "key": "k", "executor": executor}
    write_json(job_folder / JOB_FILE, description | {"submitted": 0.0, "process": identity})
    write_json(job_folder / STARTED_FILE, {"process": identity, "time": 0.0})
    (job_folder / HEARTBEAT_FILE).touch()
    return hpc_jobs.Job(job_folder)


@pytest.fixture
def bystander():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


def test_a_process_of_another_machine_is_never_signalled(tmp_path, bystander, caplog):
    job = job_of_another_machine(tmp_path, bystander)
    assert job.record().state == "running"
    with pytest.raises(hpc_jobs.JobError, match="runs on another-machine: cancel it there"):
        job.cancel(grace_s=0.1)
    assert hpc_jobs.cancel_all(tmp_path) == []
    assert "another-machine" in caplog.text
    assert bystander.poll() is None
    assert job.record().state == "running"


def test_a_job_of_another_machine_without_a_heartbeat_is_killed(tmp_path, bystander):
    job = job_of_another_machine(tmp_path, bystander)
    long_ago = time.time() - SECONDS_OF_SILENCE - 1
    for path in job.folder.iterdir():
        os.utime(path, (long_ago, long_ago))
    assert job.record().state == "killed"
    assert job.cancel().state == "killed"
    (job.folder / STARTED_FILE).unlink()
    assert job.record().state == "killed"
    (job.folder / HEARTBEAT_FILE).touch()
    assert job.record().state == "queued"


def test_a_running_job_has_a_heartbeat(tmp_path, monkeypatch):
    monkeypatch.setattr("hpc_jobs.call.SECONDS_BETWEEN_HEARTBEATS", 0.02)
    moments = hpc_jobs.submit(heartbeats, name="x", folder=tmp_path, executor="debug").result()
    assert len(moments) > 3


def heartbeats() -> set[int]:
    file = Path(os.environ["PLANKTRAIT_JOB_FOLDER"]) / HEARTBEAT_FILE
    moments = set()
    for _ in range(50):
        time.sleep(0.01)
        if file.exists():
            moments.add(file.stat().st_mtime_ns)
    return moments


def test_a_process_that_ends_while_it_is_cancelled_is_no_error(tmp_path, monkeypatch):
    job = hpc_jobs.submit(time.sleep, 60, name="x", folder=tmp_path)
    wait_for_state(job, "running")
    kill = os.kill

    def gone(pid: int, number: int) -> None:
        if number == signal.SIGINT:
            kill(pid, signal.SIGKILL)
            raise ProcessLookupError
        kill(pid, number)

    monkeypatch.setattr(os, "kill", gone)
    assert job.cancel(grace_s=1).state == "cancelled"


def slurm_that_says(text: str, tmp_path: Path, monkeypatch) -> Path:
    """A Slurm whose `squeue` prints a text; the file has a line for each time that it is asked."""
    asked = tmp_path / "asked"
    asked.touch()
    program = tmp_path / "bin" / "squeue"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho \"$*\" >> '{asked}'\necho '{text}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("hpc_jobs.slurm._numbers", (float("-inf"), None))
    return asked


@pytest.mark.parametrize("parts", [1, 3])
def test_what_sbatch_took_long_to_submit_is_not_given_up(tmp_path, monkeypatch, parts):
    jobs = tmp_path / "jobs"

    def slow(calls, *_):
        """Somebody looks meanwhile."""
        for call in calls:
            path = call.job_folder / JOB_FILE
            write_json(path, read_json(path) | {"submitted": time.time() - 3600})
        (record,) = hpc_jobs.list_jobs(jobs)
        assert (record.state, "start it again" in record.error) == ("killed", True)
        return [(number, f"{number}_0_log.out") for number in numbers]

    numbers = [f"424{parts}_{part}" for part in range(parts)]
    waiting = "\n".join(f"{number} PENDING" for number in numbers)
    slurm_that_says(waiting, tmp_path, monkeypatch)
    monkeypatch.setattr("hpc_jobs.runner.submit_calls", slow)
    job = hpc_jobs.submit(sum, [1], name="x", folder=jobs, executor="slurm", parts=parts)
    assert job.record().state == "queued"


def test_a_list_asks_slurm_once_for_all_that_has_no_number(tmp_path, monkeypatch):
    def killed_then(*_):
        raise KeyboardInterrupt

    asked = slurm_that_says("7 of-somebody-else", tmp_path, monkeypatch)
    monkeypatch.setattr("hpc_jobs.slurm.SECONDS_BETWEEN_QUESTIONS", 60.0)
    monkeypatch.setattr("hpc_jobs.runner.submit_calls", killed_then)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            hpc_jobs.submit(sum, [1], name="x", folder=tmp_path / "jobs", executor="slurm", parts=3)
    for path in (tmp_path / "jobs").rglob(JOB_FILE):
        write_json(path, read_json(path) | {"submitted": time.time() - 3600})
    # Slurm forgets a job some minutes after its end, this one is still at work elsewhere.
    begun = next((tmp_path / "jobs").glob("*/part-001"))
    process = {"host": "node-7", "pid": 7, "started_ticks": 7}
    write_json(begun / STARTED_FILE, {"process": process, "time": time.time()})
    states = [[part.state for part in job.parts] for job in hpc_jobs.list_jobs(tmp_path / "jobs")]
    assert sorted(states) == [["killed"] * 3, ["killed", "running", "killed"]]
    assert not (begun / OUTCOME_FILE).exists()
    assert len(asked.read_text().splitlines()) == 1


def test_a_slurm_that_does_not_answer_is_waited_for_once_a_list(tmp_path, monkeypatch):
    asked = slurm_that_says("", tmp_path, monkeypatch)
    with (tmp_path / "bin" / "squeue").open("a") as program:
        program.write("exec sleep 60\n")
    monkeypatch.setattr("hpc_jobs.slurm.SECONDS_FOR_AN_ANSWER", 1.0)
    monkeypatch.setattr("hpc_jobs.slurm._silent_since_s", float("-inf"))
    assert [slurm.state_of("8181"), slurm.job_named("x")] == [slurm.UNREACHABLE] * 2
    assert len(asked.read_text().splitlines()) == 1


def full_disk(how: str) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    if how == "circle":
        first, second = ValueError("first"), ValueError("second")
        first.__cause__, second.__cause__ = second, first
        raise first
    try:
        raise full
    except OSError as error:
        if how == "handled":
            raise ValueError("of its own") from None
        raise ValueError("cannot write") from error


def test_why_a_job_failed_is_told_of_its_causes(tmp_path):
    said = {
        how: hpc_jobs.submit(full_disk, how, name="x", folder=tmp_path, executor="debug")
        .record()
        .error
        for how in ("cause", "handled", "circle")
    }
    assert said.pop("cause").startswith("the disk is full: make room")
    assert said == {"handled": "ValueError: of its own", "circle": "ValueError: first"}


def test_submit_once_refuses_to_wait_for_itself(tmp_path):
    with pytest.raises(ValueError, match="executor 'debug'"):
        hpc_jobs.submit_once(sum, [1], name="x", folder=tmp_path, key="k", executor="debug")
    assert hpc_jobs.list_jobs(tmp_path) == []


def test_list_of_some_keys_counts_those_only(tmp_path):
    for key in ("a", "b", "b", "b"):
        hpc_jobs.submit(sum, [1], name="x", folder=tmp_path, key=key, executor="debug")
    assert [r.key for r in hpc_jobs.list_jobs(tmp_path, newest=2, keys={"a"})] == ["a"]
    assert [r.key for r in hpc_jobs.list_jobs(tmp_path, newest=2, keys={"b"})] == ["b", "b"]
