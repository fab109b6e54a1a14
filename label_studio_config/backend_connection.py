"""The connection of a project with our ML backend: the backend row and its webhook."""

from __future__ import annotations

import base64
import logging
from typing import Any

import requests

from label_studio_config.api import Api
from label_studio_config.home import Home, Secrets

logger = logging.getLogger(__name__)

BACKEND_TITLE = "Planktrait"
WEBHOOK_ACTIONS = ("ANNOTATION_CREATED", "ANNOTATIONS_CREATED")
"""What the backend counts. Label Studio sends each within the annotator's request, so nothing else
is asked for; TASKS_CREATED would even carry every imported task, inside the import request."""


def authorization(secrets: Secrets) -> str:
    """The basic-auth header that the backend asks for."""
    pair = f"{secrets.backend_username}:{secrets.backend_password}"
    return "Basic " + base64.b64encode(pair.encode()).decode()


def connect_backend(api: Api, home: Home, project_id: int) -> tuple[int | None, int | None]:
    """Connect a project with the home's backend; repeats update and never double it.

    Returns
    -------
    (backend id, webhook id), or (None, None) while the backend does not answer

    Raises
    ------
    ApiError
        If Label Studio refuses, for instance because the backend's password is another one.
    """
    if not _answers(home):
        logger.warning(
            "The ML backend does not answer at %s: project %d is not connected yet; "
            "run `planktrait project create` again once it does",
            home.settings.backend_url,
            project_id,
        )
        return None, None
    return _ensure_backend(api, home, project_id), _ensure_webhook(api, home, project_id)


def _answers(home: Home) -> bool:
    with requests.Session() as session:
        session.trust_env = False
        try:
            session.get(f"{home.settings.backend_url}/health", timeout=5)
        except requests.RequestException:
            return False
    return True


def _ensure_backend(api: Api, home: Home, project_id: int) -> int:
    secrets = home.secrets
    body = {
        "project": project_id,
        "url": home.settings.backend_url,
        "title": BACKEND_TITLE,
        "description": "Suggests labels and learns from annotations",
        "is_interactive": False,
        "auth_method": "BASIC_AUTH",
        "basic_auth_user": secrets.backend_username,
        "basic_auth_pass": secrets.backend_password,
    }
    for backend in api.get("/api/ml", project=project_id):
        if backend["title"] == BACKEND_TITLE:
            return int(api.patch(f"/api/ml/{backend['id']}", body)["id"])
    return int(api.post("/api/ml", body)["id"])


def _ensure_webhook(api: Api, home: Home, project_id: int) -> int:
    """Label Studio makes the webhook with the backend, for all actions and without the password."""
    body: dict[str, Any] = {
        "project": project_id,
        "url": f"{home.settings.backend_url}/webhook",
        "headers": {"Authorization": authorization(home.secrets)},
        "send_payload": True,
        "send_for_all_actions": False,
        "actions": list(WEBHOOK_ACTIONS),
        "is_active": True,
    }
    ours = [
        webhook
        for webhook in api.get("/api/webhooks/", project=project_id)
        if webhook["project"] == project_id
        and (webhook["url"] == body["url"] or webhook["headers"] == body["headers"])
    ]
    for double in ours[1:]:
        api.call("DELETE", f"/api/webhooks/{double['id']}/")
    if ours:
        return int(api.patch(f"/api/webhooks/{ours[0]['id']}/", body)["id"])
    return int(api.post("/api/webhooks/", body)["id"])
