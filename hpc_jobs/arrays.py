"""An array: one function for many parts of some work, each a job of its own, told of as one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpc_jobs.job_record import JobRecord, State, where_of
from hpc_jobs.progress import Progress

WORTH_A_LOOK = ("failed", "killed", "running", "cancelled", "finished", "queued")


def record_of_array(job_folder: Path, job: dict[str, Any], parts: Sequence[JobRecord]) -> JobRecord:
    """How an array stands: active while one part is, and only as good as its worst part."""
    state = _state({part.state for part in parts})
    shown = min(parts, key=lambda part: WORTH_A_LOOK.index(part.state), default=None)
    wrong = [part for part in parts if part.error]
    waits = [part.waits_for for part in parts if part.waits_for]
    results = [part.result for part in parts]
    over = state not in {"queued", "running"}
    return JobRecord(
        id=job["id"],
        name=job["name"],
        key=job["key"],
        state=state,
        progress=_progress(parts),
        submitted=job["submitted"],
        started=min((part.started for part in parts if part.started), default=None),
        finished=max((part.finished or 0.0 for part in parts), default=None) if over else None,
        error=f"{wrong[0].folder.name}: {wrong[0].error}" if wrong and over else None,
        log=None if shown is None else shown.log,
        folder=job_folder,
        result=results if state == "finished" else None,
        where=where_of(job),
        waits_for=waits[0] if waits and state == "queued" else None,
        parts=tuple(parts),
    )


def _state(states: set[str]) -> State:
    if not states:
        return "killed"  # between its own job.json and the first part's nothing was left
    if states <= {"queued"}:
        return "queued"
    if states & {"queued", "running"}:
        return "running"
    ends: tuple[State, ...] = ("failed", "killed", "cancelled")
    return next((end for end in ends if end in states), "finished")


def _progress(parts: Sequence[JobRecord]) -> Progress | None:
    """The mean of the parts' shares, of the largest total that a part counts to."""
    told = [part.progress for part in parts if part.progress is not None]
    if not told:
        return None
    newest = max(told, key=lambda progress: progress.updated)
    shares = [
        1.0 if part.state == "finished" else (part.progress and part.progress.share) or 0.0
        for part in parts
    ]
    total = max(progress.total for progress in told)
    finished = sum(part.state == "finished" for part in parts)
    return Progress(
        stage=newest.stage,
        done=round(total * sum(shares) / len(shares)),
        total=total,
        message=f"{finished} of {len(parts)} parts done",
        updated=newest.updated,
    )
