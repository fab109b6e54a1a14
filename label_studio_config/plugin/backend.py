"""What the plugin asks of the ML backend, over HTTP with the home's credentials."""

from __future__ import annotations

from typing import Any

import requests
from django.conf import settings
from projects.models import Project

PREDICT_TIMEOUT_S = 300.0
ANSWER_TIMEOUT_S = 30.0


class BackendError(ValueError):
    """The backend cannot be reached or refused; the message says what to do.

    Attributes
    ----------
    status : int
        HTTP status of a refusal; 503 where it did not answer.
    """

    def __init__(self, message: str, status: int = 503) -> None:
        super().__init__(message)
        self.status = status


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


def ask(method: str, path: str, *, timeout_s: float = ANSWER_TIMEOUT_S, **options: Any) -> Any:
    """The backend's answer to one call, from JSON.

    Parameters
    ----------
    path : str
        Without a leading slash.
    timeout_s : float
        Until the first byte of the answer.
    options
        As `requests` takes them: json, params, files, data.

    Raises
    ------
    BackendError
        If the backend does not answer or refuses; `status` is what it said.
    """
    response = fetch(method, path, timeout_s=timeout_s, **options)
    try:
        return response.json()
    except ValueError as error:
        raise BackendError("The ML backend answered with something else than JSON.") from error


def fetch(
    method: str, path: str, *, timeout_s: float = ANSWER_TIMEOUT_S, **options: Any
) -> requests.Response:
    """As `ask`, for an answer that is no JSON."""
    home = settings.PLANKTRAIT_HOME
    url = f"{home.settings.backend_url}/{path}"
    auth = (home.secrets.backend_username, home.secrets.backend_password)
    try:
        with requests.Session() as session:
            session.trust_env = False
            response = session.request(method, url, auth=auth, timeout=(2, timeout_s), **options)
    except requests.RequestException as error:
        raise BackendError(
            "The ML backend does not answer. Annotating goes on without suggestions; "
            "start it with `planktrait serve`."
        ) from error
    if response.ok:
        return response
    try:
        answer = response.json()
    except ValueError:
        answer = {}
    reason = answer.get("error") or answer.get("detail") or response.text[:300]
    raise BackendError(
        f"The ML backend refused ({response.status_code}): {reason}", response.status_code
    )


def _post(path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = ask("POST", path, json=body, timeout_s=PREDICT_TIMEOUT_S)
    if not isinstance(answer, dict):
        raise BackendError("The ML backend answered with something else than a JSON object.")
    return answer
