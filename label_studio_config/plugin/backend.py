"""What the plugin asks of the ML backend, over HTTP with the home's credentials."""

from __future__ import annotations

from typing import Any

import requests
from django.conf import settings
from projects.models import Project

PREDICT_TIMEOUT_S = 300.0


class BackendError(ValueError):
    """The backend cannot be reached or refused; the message says what to do."""


def predict(project: Project, tasks: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Suggestions for tasks, in the wire format of Label Studio.

    Returns
    -------
    list
        One list of `{"result", "score", "model_version"}` a task, in order; an empty one where the
        backend has nothing to suggest.

    Raises
    ------
    BackendError
        If the backend does not answer, or not with one result a task.
    """
    body = {
        "tasks": tasks,
        "project": f"{project.id}.{int(project.created_at.timestamp())}",
        "label_config": project.label_config,
        "params": {"login": None, "password": None, "context": None},
    }
    results = _post("predict", body).get("results")
    if not isinstance(results, list) or len(results) != len(tasks):
        raise BackendError(f"The ML backend did not answer for each of {len(tasks)} tasks.")
    return [[one] if isinstance(one, dict) else list(one or []) for one in results]


def learn_features(project: Project) -> dict[str, Any]:
    """Start SimCLR on every image of the project; the backend's answer names the job.

    Raises
    ------
    BackendError
        If the backend does not answer or refuses.
    """
    return _post("pretrain", {"project": project.id})


def _post(path: str, body: dict[str, Any]) -> dict[str, Any]:
    home = settings.PLANKTRAIT_HOME
    url = f"{home.settings.backend_url}/{path}"
    auth = (home.secrets.backend_username, home.secrets.backend_password)
    try:
        with requests.Session() as session:
            session.trust_env = False
            response = session.post(url, json=body, auth=auth, timeout=(2, PREDICT_TIMEOUT_S))
    except requests.RequestException as error:
        raise BackendError(
            "The ML backend does not answer. Annotating goes on without suggestions; "
            "start it with `planktrait serve`."
        ) from error
    try:
        answer = response.json()
    except ValueError:
        answer = {}
    if not response.ok:
        reason = answer.get("error") or answer.get("detail") or response.text[:300]
        raise BackendError(f"The ML backend refused ({response.status_code}): {reason}")
    if not isinstance(answer, dict):
        raise BackendError("The ML backend answered with something else than a JSON object.")
    return answer
