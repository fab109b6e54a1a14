"""One person's requests to the gallery and to the Data Manager, timed."""

from __future__ import annotations

import json
import time
from typing import Any

import requests

from label_studio_config.api import Api
from label_studio_config.home import Home
from label_studio_config.users import add_user


class Client:
    """One person's requests, timed."""

    def __init__(self, home: Home, project_id: int) -> None:
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.headers["Authorization"] = f"Token {home.secrets.api_token}"
        self.home = home
        self.url = home.settings.label_studio_url
        self.project_id = project_id

    def at(self, url: str) -> Client:
        """The same person at another server of the same database."""
        other = Client(self.home, self.project_id)
        other.url = url
        return other

    def call(self, method: str, path: str, **options: Any) -> tuple[float, requests.Response]:
        """Milliseconds, and the answer, which must be a good one."""
        started = time.perf_counter()
        response = self.session.request(method, self.url + path, timeout=600, **options)
        took = (time.perf_counter() - started) * 1000
        assert response.ok, response.text[:1000]
        return took, response

    def gallery(self, path: str, **query: Any) -> tuple[float, requests.Response]:
        """A GET at the gallery's API."""
        return self.call("GET", f"/api/planktrait/projects/{self.project_id}/{path}", params=query)

    def data_manager(self, page: int, **filtered: Any) -> float:
        """A page of 100 in Label Studio's own Data Manager, filtered by one column."""
        query: dict[str, Any] = {
            "project": self.project_id,
            "page": page,
            "page_size": 100,
            "fields": "all",
        }
        if filtered:
            item = {"operator": "contains", "type": "String", **filtered}
            query["query"] = json.dumps({"filters": {"conjunction": "and", "items": [item]}})
        took, response = self.call("GET", "/api/tasks", params=query)
        assert response.json()["tasks"]
        return took


def three_people(home: Home) -> list[int]:
    """The ids of the user whose token the client has, and of two colleagues."""
    me = Api(home).get("/api/current-user/whoami")["id"]
    return [me, *(add_user(home, f"{name}@example.org").id for name in ("anna", "ben"))]


def read_all(client: Client) -> int:
    """Until the gallery's index has everything; how many visits that took."""
    visits = 1
    while not client.gallery("gallery/index")[1].json()["complete"]:
        visits += 1
    return visits
