"""Steps of the loop that a person would do by a click: an action, and waiting for its job."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import requests

from label_studio_config.api import Api
from label_studio_config.home import Home


def run_action(home: Home, project_id: int, name: str) -> dict[str, Any]:
    """An action of the Data Manager on all tasks of a project; its answer."""
    return Api(home).call(
        "POST",
        "/api/dm/actions",
        params={"id": name, "project": project_id},
        json={"selectedItems": {"all": True, "excluded": []}},
    )


def wait_for_job(
    home: Home,
    project_id: int,
    kind: str,
    *,
    timeout_s: float = 3600,
    on_progress: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """The newest "pretrain" or "train" job of a project, once it and what follows it have ended.

    Raises
    ------
    RuntimeError
        It did not finish, or not in time; with its reason.
    """
    session = requests.Session()
    session.trust_env = False  # a proxy named in the environment must not see the password
    session.auth = (home.secrets.backend_username, home.secrets.backend_password)
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        answer = session.get(
            f"{home.settings.backend_url}/jobs", params={"project": project_id}, timeout=60
        )
        answer.raise_for_status()
        jobs = [job for job in answer.json()["jobs"] if str(job["key"]).startswith(kind)]
        if not jobs:
            raise RuntimeError(f"no {kind} job of project {project_id} was started")
        job = jobs[0]
        if on_progress is not None:
            on_progress(job)
        if job["state"] not in ("queued", "running") and not job["follow_up"]:
            if job["state"] != "finished":
                raise RuntimeError(f"{kind} {job['state']}: {job['error']} (log: {job['log']})")
            return job
        time.sleep(1)
    raise RuntimeError(f"{kind} took over {timeout_s:.0f} s")
