"""Slurm's side of a job: asking how it stands, ending it.

States are asked of the controller (`squeue`), which every cluster has; accounting may be off.
"""

from __future__ import annotations

import logging
import math
import re
import subprocess
import threading
import time

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_QUESTIONS = 1.0
SECONDS_FOR_AN_ANSWER = 30
UNREACHABLE = "UNREACHABLE"
WAITING = frozenset(
    {"PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "CONFIGURING"}
)
ENDED = frozenset(
    {
        *("BOOT_FAIL", "CANCELLED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY"),
        *("PREEMPTED", "REVOKED", "TIMEOUT"),
    }
)
_REMEDIES = {
    "FAILED": ": its log may say why (killed, or it could not begin)",
    "TIMEOUT": ": give it more time in the site profile, and start it again",
    "OUT_OF_MEMORY": ": give it more memory in the site profile, and start it again",
}


class SlurmError(RuntimeError):
    """Slurm does not take a job, or cannot be asked; the message says what it said."""


def state_of(scheduler_id: str) -> str | None:
    """What Slurm says of a job or a task of an array, e.g. "PENDING"; a second old at most.

    Returns
    -------
    str or None
        None where Slurm has forgotten it, as it does some minutes after its end; `UNREACHABLE`
        where it cannot be asked.
    """
    main = scheduler_id.partition("_")[0]
    with _lock:
        asked_s, states = _answers.get(main, (float("-inf"), None))
        if time.monotonic() - asked_s > SECONDS_BETWEEN_QUESTIONS:
            states = _ask(main)
            _answers[main] = (time.monotonic(), states)
    return UNREACHABLE if states is None else states.get(scheduler_id, (None, None))[0]


def why_waiting(scheduler_id: str) -> str | None:
    """For people: what a queued job waits for, as Slurm said when it was asked for its state."""
    with _lock:
        _, states = _answers.get(scheduler_id.partition("_")[0], (0.0, None))
    reason = (states or {}).get(scheduler_id, (None, None))[1]
    if reason and re.search("TimeLimit|MaxWall", reason):
        remedy = "it asks for too much time: change that in the site profile, and start it again"
        return f"{reason} ({remedy})"
    return reason


def time_limit_min(scheduler_id: str) -> float | None:
    """How long Slurm lets a job run, perhaps without end; None where it does not say so."""
    done = _squeue("--format=%l", "--jobs", scheduler_id)
    said = done.stdout.split()[0] if done.stdout.split() else ""
    if said == "UNLIMITED":
        return math.inf
    if done.returncode or not re.fullmatch(r"(\d+-)?\d+(:\d+)+", said):
        return None
    parts = reversed([int(part) for part in re.split("[-:]", said)])
    return sum(part * unit for part, unit in zip(parts, (1, 60, 3600, 86400), strict=False)) / 60


def why_ended(state: str | None) -> str:
    """For people: why a job that left no outcome is over."""
    if state is None:
        return (
            "it ended without an outcome (killed, or its node went), and Slurm has forgotten it: "
            "its log may say why"
        )
    return f"Slurm ended it: {state}{_REMEDIES.get(state, ' (killed, or its node went)')}"


def with_remedy(error: str) -> str:
    """What submitit says of a job, with what to do about it."""
    if "timed-out too many times" in error:
        return (
            "its time was up again and again: give it more time in the site profile, and start it "
            "again, and it goes on where it was"
        )
    if "checkpoint function returned None" in error:
        return (
            "Slurm took its node, and the site profile says that it is not queued again: start it "
            "again, and it goes on where it was"
        )
    return error


def job_named(name: str) -> str | None:
    """Slurm's number of the job of a name; None where there is none, `UNREACHABLE` as `state_of`.

    Ended ones are found for some minutes. One question is about all names, since the controller
    sends all jobs anyway; a second old at most.
    """
    global _numbers
    with _lock:
        asked_s, numbers = _numbers
        if time.monotonic() - asked_s > SECONDS_BETWEEN_QUESTIONS:
            done = _squeue("--format=%F %j")
            lines = [line.split(None, 1) for line in done.stdout.splitlines()]
            numbers = None if done.returncode else {line[-1]: line[0] for line in lines if line}
            _numbers = (time.monotonic(), numbers)
    return UNREACHABLE if numbers is None else numbers.get(name)


def interrupt(scheduler_id: str) -> None:
    """Send SIGINT to what a job runs; nothing happens where it does not run."""
    _run("scancel", "--quiet", "--signal=INT", scheduler_id)


def end(scheduler_id: str) -> None:
    """Have Slurm end a job, queued or running. Raises `SlurmError` where it does not."""
    done = _run("scancel", scheduler_id)
    if done.returncode:
        raise SlurmError(f"scancel {scheduler_id}: {done.stderr.strip()}")
    with _lock:
        _answers.pop(scheduler_id.partition("_")[0], None)


_lock = threading.Lock()
_States = dict[str, tuple[str | None, str | None]]
"""By Slurm's id: the state, and what it waits for."""
_answers: dict[str, tuple[float, _States | None]] = {}
_numbers: tuple[float, dict[str, str] | None] = (float("-inf"), None)
_silent_since_s = float("-inf")


def _ask(main: str) -> _States | None:
    done = _squeue("--array", "--format=%i %T %r", "--jobs", main)
    if done.returncode:
        if "Invalid job id" in done.stderr:
            return {}
        logger.warning("Slurm cannot be asked for job %s: %s", main, done.stderr.strip())
        return None
    states: _States = {}
    for line in done.stdout.splitlines():
        scheduler_id, state, reason = (*line.split(None, 2), "", "", "")[:3]
        states[scheduler_id] = (state, None if reason in {"", "None"} else reason)
    return states


def _squeue(*options: str) -> subprocess.CompletedProcess[str]:
    """Ask the controller, but not again just after it has not answered: a list asks many times."""
    global _silent_since_s
    command = ("squeue", "--noheader", "--states=all", *options)
    asked_s = time.monotonic()
    if asked_s - _silent_since_s < SECONDS_FOR_AN_ANSWER:
        return subprocess.CompletedProcess(command, 1, "", "it did not answer a moment ago")
    done = _run(*command)
    if time.monotonic() - asked_s >= SECONDS_FOR_AN_ANSWER:
        _silent_since_s = time.monotonic()
    return done


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=SECONDS_FOR_AN_ANSWER, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))
