"""A submitted call, for whoever waits for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from hpc_jobs.ending import cancel
from hpc_jobs.errors import JobError
from hpc_jobs.job_record import JobRecord
from hpc_jobs.kept_results import read_result
from hpc_jobs.records import existing_job, wait_for_end

Result = TypeVar("Result")


@dataclass(frozen=True)
class Job(Generic[Result]):
    """A submitted call. Nothing but its folder, so it can be made again from there."""

    folder: Path

    @property
    def id(self) -> str:
        """Unique among the jobs of one folder."""
        return self.folder.name

    def record(self) -> JobRecord:
        """How the job stands now. Raises `JobError` where its folder is gone."""
        return existing_job(self.folder)

    def wait(self, timeout_s: float | None = None) -> JobRecord:
        """Wait for the end of the job, or for `timeout_s` seconds; how it stands then."""
        return wait_for_end(self.folder, timeout_s)

    def result(self, timeout_s: float | None = None) -> Result:
        """What the function returned; waits for it. Raises `JobError` where there is nothing.

        Of an array, a list of what it returned for each part.
        """
        record = self.wait(timeout_s)
        if record.state != "finished":
            raise JobError(f"job {self.id} is {record.state}: {record.error or 'no error'}")
        if record.parts:
            return [Job(part.folder).result() for part in record.parts]  # type: ignore[return-value]
        content = read_result(self.folder)
        if content is None:
            raise JobError(f"job {self.id} finished, but its result could not be kept")
        return content[0]

    def cancel(self, grace_s: float = 10.0) -> JobRecord:
        """As `hpc_jobs.cancel`."""
        return cancel(self, grace_s)
