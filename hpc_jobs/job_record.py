"""How a job stands at one moment, for whoever asks."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from hpc_jobs.progress import Progress

State = Literal["queued", "running", "finished", "failed", "cancelled", "killed"]
ACTIVE_STATES: frozenset[str] = frozenset({"queued", "running"})


@dataclass(frozen=True)
class JobRecord:
    """One job as it stands now.

    Attributes
    ----------
    id : str
        Unique in its folder; sorts by the time of submission.
    name : str
        What it does, for people.
    key : str or None
        Jobs with one key never run at the same time (`submit_once`).
    state : str
        "queued", "running", "finished", "failed" (raised an error), "cancelled" (somebody asked),
        or "killed" (its process is gone and left no outcome).
    progress : Progress or None
    submitted, started, finished : float or None
        Unix times in seconds.
    error : str or None
        Why it failed, in one line; the log has the traceback.
    result : object
        What the function returned, if it is short and JSON can hold it; else None.
    log : Path or None
        Of an array: of the part that is worth a look, a failed one first.
    folder : Path
        The folder of this job.
    where : str
        "here", or "Slurm" with its number there.
    waits_for : str or None
        Of a queued job, what Slurm says that it waits for.
    parts : tuple of JobRecord
        The tasks of an array; () of any other job.
    """

    id: str
    name: str
    key: str | None
    state: State
    progress: Progress | None
    submitted: float
    started: float | None
    finished: float | None
    error: str | None
    log: Path | None
    folder: Path
    result: Any = None
    where: str = "here"
    waits_for: str | None = None
    parts: tuple[JobRecord, ...] = ()

    @property
    def active(self) -> bool:
        """Whether it is queued or running."""
        return self.state in ACTIVE_STATES

    def as_json(self) -> dict[str, Any]:
        """As plain values, times in ISO 8601 (UTC), for an API."""
        share = self.progress.share if self.progress else None
        return {
            "id": self.id,
            "name": self.name,
            "key": self.key,
            "state": self.state,
            "progress": None if self.progress is None else vars(self.progress) | {"share": share},
            "submitted": _iso(self.submitted),
            "started": _iso(self.started),
            "finished": _iso(self.finished),
            "error": self.error,
            "result": self.result,
            "log": None if self.log is None else str(self.log),
            "where": self.where,
            "waits_for": self.waits_for,
            "parts": {
                state: sum(part.state == state for part in self.parts)
                for state in sorted({part.state for part in self.parts})
            },
        }


def where_of(job: dict[str, Any]) -> str:
    """Where a job runs, for people."""
    if job["executor"] != "slurm":
        return "here"
    return f"Slurm {job['scheduler_id']}" if job.get("scheduler_id") else "Slurm"


def _iso(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
