"""What a job's folder holds, `<jobs folder>/<job id>/`; in these files alone it is kept.

- `job.json`: id, name, key, executor, when it was submitted, and by which process it is held
- `started.json`: written by the job itself when it begins
- `progress.json`: its last progress
- `outcome.json`: written by the job itself when it ends, with its result or its error
- `failure-0.json` and so on: why a run of several processes failed, see `failures`
- `reserve`: room for the outcome, until that is written
- `heartbeat`: an empty file, touched by the job once a minute
- `cancelled`: an empty file, there once somebody asked for an end
- `stopped`: an empty file, there where the servers that had started it took it along
- `slurm.json`: how Slurm has ended it, noted by whoever looked: Slurm forgets it within minutes
- `interrupted.json`: there once somebody was told that it was cut off (see `interrupted`)
- the files of submitit: the pickled call, its result, and the log

An array has a `job.json` that says of how many parts it is, and a folder as above for each of them,
`part-000` and so on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

JOB_FILE = "job.json"
STARTED_FILE = "started.json"
OUTCOME_FILE = "outcome.json"
RESERVE_FILE = "reserve"
HEARTBEAT_FILE = "heartbeat"
CANCELLED_FILE = "cancelled"
STOPPED_FILE = "stopped"
SLURM_FILE = "slurm.json"
TOLD_FILE = "interrupted.json"


def part_folder(job_folder: Path, part: int) -> Path:
    """Where the own files of an array's part lie."""
    return job_folder / f"part-{part:03d}"


def part_folders(job_folder: Path, job: dict[str, Any]) -> list[Path]:
    """Of an array, those of its parts; else the job's own."""
    count = job.get("parts") or 0
    return [part_folder(job_folder, part) for part in range(count)] or [job_folder]
