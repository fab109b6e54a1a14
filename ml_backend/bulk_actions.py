"""Work on many tasks that somebody asked for in the Data Manager, as a job.

Label Studio does it, some hundred tasks a call; the job brings the tasks, and shows how far it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpc_jobs import progress
from label_studio_config.api import Api
from label_studio_config.batches import batches
from label_studio_config.home import Home

TASKS_PER_CALL = 250
"""Of one transaction: about half a second, in which others wait on SQLite."""


def act_key(project_id: int) -> str:
    """The job key of such work in a project."""
    return f"act project {project_id}"


def act_on_tasks(
    home_folder: str | Path, project_id: int, order: str, ids: Sequence[int], verb: str
) -> dict[str, Any]:
    """Have done to some tasks what was ordered; what was done, for the record of the job.

    Called again from the beginning it does nothing twice.

    Parameters
    ----------
    order : what was asked for and by whom, signed by Label Studio

    Raises
    ------
    ApiError
        Label Studio cannot be reached or refuses; what it has done stays.
    """
    api = Api(Home(home_folder))
    path = f"/api/planktrait/projects/{project_id}/orders"
    told: dict[str, Any] = {}
    done = 0
    progress.report(verb, 0, len(ids))
    for some in batches(ids, TASKS_PER_CALL):
        told = api.post(path, {"order": order, "tasks": some, "so_far": told})
        if told["withdrawn"]:
            break
        done += len(some)
        progress.report(verb, done, len(ids), told["words"])
    return told
