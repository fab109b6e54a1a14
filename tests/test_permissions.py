"""Every address of ours, found by looking, refuses who may not see the project, and forgeries.

A new address is walked too: its parameters must have a value in `VALUES`.
"""

from __future__ import annotations

import json
import re

import pytest
import requests

from tests.gallery_fixtures import GalleryForTests, new_gallery

__all__ = ["new_gallery"]

pytestmark = pytest.mark.slow

FOR_EVERYBODY = ("heidi-tips/", "planktrait/plankton.svg", "planktrait/static/")
"""Files of the program: they hold nothing of a project, and the log-in page may need them."""

VALUES = {
    **{"version": "project-1-v0001", "job": "train-1", "work": "train", "kind": "exports"},
    **{"kept": "some", "name": "some.csv", "number": "1", "batch": "1"},
}
CHANGING = ("POST", "PUT", "PATCH", "DELETE")
LIST_OURS = """
import json
from core.urls import urlpatterns as theirs
from label_studio_config.plugin.urls import urlpatterns
ours = urlpatterns[: len(urlpatterns) - len(theirs)]
assert urlpatterns[len(ours):] == theirs
methods = lambda view: [
    one.upper() for one in ("get", "post", "put", "patch", "delete")
    if hasattr(getattr(view, "view_class", None), one)
]
print(json.dumps([[str(one.pattern), methods(one.callback) or ["GET"]] for one in ours]))
"""
LIST_ACTIONS = """
import json
from django.conf import settings
actions = settings.DATA_MANAGER_ACTIONS.items()
is_ours = lambda action: action["entry_point"].__module__.startswith("label_studio_config.")
print(json.dumps([name for name, action in actions if is_ours(action)]))
"""


def test_every_address_refuses_strangers_and_forgeries(new_gallery):
    gallery = new_gallery(2)
    member, stranger = gallery.person("anna"), gallery.stranger()
    gallery.log_in(member)
    gallery.log_in(stranger)
    insider, outsider = gallery.sessions[member.id], gallery.sessions[stranger.id]
    nobody = requests.Session()
    forger = requests.Session()
    forger.cookies.update(insider.cookies)
    seen = set()
    for route, methods in json.loads(gallery.run(LIST_OURS).splitlines()[-1]):
        if route.startswith(FOR_EVERYBODY):
            continue
        url = address(gallery, route)
        seen.add(route)
        for method in methods:
            what = f"{method} {url}"
            refused = call(outsider, method, url)
            if route.startswith("api/"):
                assert refused.status_code == 403, (what, refused.text)
                assert "CSRF" not in refused.text, what
            else:
                assert refused.status_code == 404, (what, refused.text)
            unknown = call(nobody, method, url)
            to_login = unknown.headers.get("Location", "").startswith("/user/login")
            assert unknown.status_code in (401, 403) or to_login, (what, unknown.status_code)
            if method in CHANGING:
                forged = call(forger, method, url)
                assert (forged.status_code, "CSRF" in forged.text) == (403, True), what
            else:
                allowed = call(insider, method, url)
                assert allowed.status_code not in (401, 403), (what, allowed.text)
    assert {"data/local-files/", "planktrait/projects/<int:pk>/gallery"} <= seen
    assert len(seen) > 40
    assert gallery.task(gallery.tasks[0])["annotations"] == []


def test_actions_refuse_pages_of_other_origins(new_gallery):
    """Label Studio's own page sends no CSRF token with them, and still may; so may a token."""
    gallery = new_gallery(2)
    member, here = gallery.person("anna"), gallery.server.url
    gallery.log_in(member)
    page = requests.Session()
    page.trust_env = False
    page.cookies.update(gallery.sessions[member.id].cookies)
    host = here.removeprefix("http://").partition(":")[0]
    neighbour = {"Origin": f"http://{host}:1"}  # its cookies go along: SameSite knows no ports
    others = (
        *(neighbour, {"Origin": "null"}, {"Origin": f"{here}.example.org"}, {}),
        *({**neighbour, "Sec-Fetch-Site": "same-site"}, {"Sec-Fetch-Site": "cross-site"}),
    )
    token = {"Authorization": f"Token {member.token}"}
    ours = ({"Origin": here}, {"Sec-Fetch-Site": "same-origin"}, {**neighbour, **token})

    def act(action: str, headers: dict[str, str], **selected) -> requests.Response:
        asked = {"selectedItems": selected, "label": "Copepod"}
        address = f"{here}/api/dm/actions?id={action}&project={gallery.project.id}"
        return page.post(address, json=asked, headers=headers, timeout=60)

    names = json.loads(gallery.run(LIST_ACTIONS).splitlines()[-1])
    assert {"accept_suggestions", "export_selection", "next_task"} <= set(names)
    for action in [*names, "delete_tasks"]:
        for headers in others:
            forged = act(action, headers, all=True, excluded=[])
            assert (forged.status_code, "CSRF" in forged.text) == (403, True), (action, headers)
        for headers in ours:
            done = act(action, headers, all=False, included=[0])
            assert done.status_code not in (401, 403), (action, headers, done.text)
    assert gallery.task(gallery.tasks[0])["annotations"] == []
    assert act("label_as", ours[0], all=True, excluded=[]).json()["processed_items"] == 2
    assert len(gallery.task(gallery.tasks[0])["annotations"]) == 1


def test_label_studios_own_addresses_of_a_project_refuse_strangers(new_gallery):
    gallery = new_gallery(1)
    task, stranger = gallery.tasks[0], gallery.stranger()
    made = gallery.annotate(task, {"group": "Copepod"})
    image = gallery.task(task)["data"]["image"]
    for path in (
        f"/api/projects/{gallery.project.id}/",
        f"/api/tasks/{task}/",
        f"/api/tasks/{task}/annotations/",
        f"/api/annotations/{made['id']}/",
        image,
    ):
        url = gallery.server.url + path
        headers = {"Authorization": f"Token {stranger.token}"}
        answer = requests.get(url, headers=headers, timeout=60)
        assert answer.status_code in (403, 404), (path, answer.text)
        assert gallery.server.request("GET", path).ok, path
    assert gallery.server.request("GET", image).headers["Content-Type"] == "image/png"


def address(gallery: GalleryForTests, route: str) -> str:
    """The route with values in place of its parameters."""
    values = {"pk": gallery.project.id, **VALUES}
    path = re.sub(r"<(?:\w+:)?(\w+)>", lambda found: str(values[found[1]]), route)
    if path == "data/local-files/":
        path = gallery.task(gallery.tasks[0])["data"]["image"].lstrip("/")
    return f"{gallery.server.url}/{path}"


def call(session: requests.Session, method: str, url: str) -> requests.Response:
    body = {} if method == "GET" else {"json": {}}
    return session.request(method, url, timeout=60, allow_redirects=False, **body)
