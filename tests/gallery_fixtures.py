"""A project with drawn crops, suggestions and people, for tests of the gallery."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import requests
from PIL import Image, ImageDraw

from label_studio_config.api import Api
from label_studio_config.hosting import server_environment
from label_studio_config.project import ProjectInfo, create_project
from label_studio_config.results import write_result
from label_studio_config.server_tasks import fetch_tasks
from label_studio_config.users import UserInfo, add_user
from tests.label_studio_fixtures import LabelStudioForTests

VERSION = "project-0-v0001"
CONFIG = """<View><Image name="image" value="$image"/>
<Choices name="group" toName="image" choice="single" trait="functional group">
  <Choice value="Copepod" hotkey="c" aphia="1080"/><Choice value="Detritus" hotkey="d"/>
  <Choice value="&lt;script&gt;alert(1)&lt;/script&gt;"/>
  <Choice value="Not assessable" role="not_assessable"/>
</Choices>
<View visibleWhen="choice-selected" whenTagName="group" whenChoiceValue="Copepod">
  <Choices name="egg_sac" toName="image" choice="single">
    <Choice value="present"/><Choice value="absent"/>
  </Choices>
  <Number name="cells" toName="image" min="0" unit="count"/>
</View></View>"""
SCRIPT = "<script>alert(1)</script>"

AT_ONCE = 5000
_numbers = itertools.count(1)


@dataclass
class GalleryForTests:
    """A project in the gallery, seen by its first user or by others.

    `tasks` are the ids in the order in which the crops were loaded.
    """

    server: LabelStudioForTests
    project: ProjectInfo
    tasks: list[int] = field(default_factory=list)
    sessions: dict[int, requests.Session] = field(default_factory=dict)

    @property
    def api(self) -> Api:
        """As the first user."""
        return Api(self.server.home)

    def person(self, name: str) -> UserInfo:
        """A colleague."""
        return add_user(self.server.home, f"{name}-{self.project.id}@example.org")

    def stranger(self) -> UserInfo:
        """Somebody of another organisation."""
        person = self.person("stranger")
        self.run(
            "from organizations.models import Organization, OrganizationMember\n"
            "from users.models import User\n"
            f"user = User.objects.get(id={person.id})\n"
            "other = Organization.create_organization(created_by=user, title='Other')\n"
            "other.jwt.legacy_api_tokens_enabled = True; other.jwt.save()\n"
            "user.active_organization = other; user.save()\n"
            "OrganizationMember.objects.filter(user=user).exclude(organization=other).delete()\n"
        )
        return person

    def log_in(self, person: UserInfo) -> None:
        """From now on this person's calls come from a browser's session, with its CSRF token."""
        session = requests.Session()
        session.trust_env = False
        url = f"{self.server.url}/user/login/"
        session.get(url, timeout=60)
        form = {"email": person.email, "password": person.password}
        form["csrfmiddlewaretoken"] = session.cookies["csrftoken"]
        done = session.post(url, data=form, timeout=60, allow_redirects=False)
        assert done.status_code == 302, done.text[:2000]
        session.headers["X-CSRFToken"] = session.cookies["csrftoken"]
        self.sessions[person.id] = session

    def load(self, rows: Sequence[dict[str, Any]]) -> list[int]:
        """One task a row of task data; the ids of the new tasks."""
        before = set(self.tasks)
        tasks = [{"data": dict(row)} for row in rows]
        for start in range(0, len(tasks), AT_ONCE):
            path = f"/api/projects/{self.project.id}/import"
            self.api.post(path, tasks[start : start + AT_ONCE])
        there = fetch_tasks(self.server.home, self.project.id, full=False, page_size=5000)
        new = [task["id"] for task in there if task["id"] not in before]
        self.tasks += new
        return new

    def suggest(
        self, labels: dict[int, tuple[str, float]], version: str = VERSION, **more: Any
    ) -> None:
        """Save suggestions by task: a label and its confidence; `version` becomes the shown one."""
        path = f"/api/planktrait/projects/{self.project.id}"
        said = [
            suggestion(self.project, task_id, label, confidence, version, **more)
            for task_id, (label, confidence) in labels.items()
        ]
        for start in range(0, len(said), AT_ONCE):
            self.api.post(f"{path}/suggestions", said[start : start + AT_ONCE])
        self.api.post(f"{path}/model-version", {"model_version": version})

    def call(
        self,
        method: str,
        path: str,
        person: UserInfo | None = None,
        **options: Any,
    ) -> requests.Response:
        """One call to the gallery's API; `path` is what follows the project."""
        url = f"{self.server.url}/api/planktrait/projects/{self.project.id}/{path}"
        if person is not None and person.id in self.sessions:
            return self.sessions[person.id].request(method, url, timeout=60, **options)
        token = person.token if person else self.server.home.secrets.api_token
        headers = {"Authorization": f"Token {token}"}
        return requests.request(method, url, headers=headers, timeout=60, **options)

    def get(self, path: str, person: UserInfo | None = None, **query: Any) -> Any:
        """The JSON answer of a GET that must succeed."""
        response = self.call("GET", path, person, params=query)
        assert response.ok, response.text[:2000]
        return response.json()

    def page(self, person: UserInfo | None = None, **query: Any) -> Any:
        """A page."""
        return self.get("gallery/page", person, **query)

    def on_page(self, person: UserInfo | None = None, **query: Any) -> list[int]:
        """Positions in `tasks` of what all pages of a query show, in their order."""
        position = {task_id: i for i, task_id in enumerate(self.tasks)}
        found: list[int] = []
        while True:
            page = self.page(person, **query)
            found += [position[crop["task"]] for crop in page["crops"]]
            if page["next"] is None:
                return found
            query["after"] = page["next"]

    def judge(
        self,
        judgements: Sequence[dict[str, Any]],
        person: UserInfo | None = None,
        *,
        control: str = "group",
        lead_time_s: float = 6.0,
        seen_at: str | None = None,
        **more: Any,
    ) -> Any:
        """Judge what the gallery shows now, or showed at `seen_at`; `more` of the request."""
        if seen_at is None:
            seen_at = self.page(person, limit=1)["seen_at"]
        body = {
            "control": control,
            "judgements": list(judgements),
            "lead_time_s": lead_time_s,
            "seen_at": seen_at,
            **more,
        }
        response = self.call("POST", "judgements", person, json=body)
        assert response.ok, response.text[:2000]
        return response.json()

    def accept(self, task_ids: Sequence[int], person: UserInfo | None = None, **how: Any) -> Any:
        """Accept the suggestions of some tasks as they are shown now."""
        page = self.page(person, tasks=",".join(map(str, task_ids)))
        judgements = [
            {"task": c["task"], "accept": True, "prediction": c["suggestion"]["prediction"]}
            for c in page["crops"]
        ]
        return self.judge(judgements, person, **{"seen_at": page["seen_at"], **how})

    def wait_a_second(self) -> None:
        """Until an answer of now is no longer taken for one that is still being saved."""
        end = time.monotonic() + 1.1
        while (left := end - time.monotonic()) > 0:
            time.sleep(left)

    def run(self, code: str) -> str:
        """What Python prints inside the server's environment, with Django set up."""
        done = subprocess.run(
            [sys.executable, "-c", f"import django; django.setup()\n{code}"],
            env=server_environment(self.server.home),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    def task(self, task_id: int) -> Any:
        """A task as Label Studio's own API gives it."""
        return self.api.get(f"/api/tasks/{task_id}/")

    def annotate(
        self, task_id: int, values: dict[str, Any], person: UserInfo | None = None, **more: Any
    ) -> Any:
        """Save an annotation as the editor does."""
        token = person.token if person else self.server.home.secrets.api_token
        response = requests.post(
            f"{self.server.url}/api/tasks/{task_id}/annotations/",
            json={"result": write_result(self.project.schema, values), **more},
            headers={"Authorization": f"Token {token}"},
            timeout=60,
        )
        response.raise_for_status()
        return response.json()


def suggestion(
    project: ProjectInfo,
    task_id: int,
    label: str,
    confidence: float,
    version: str = VERSION,
    novelty: float | None = None,
) -> dict[str, Any]:
    """A prediction with a second choice."""
    second = next(name for name in project.schema.control("group").labels if name != label)
    shares = {label: confidence, second: round(1 - confidence, 4)}
    result = write_result(
        project.schema, {"group": label}, probabilities={"group": shares}, novelty=novelty
    )
    return {"task": task_id, "result": result, "score": confidence, "model_version": version}


def crop_rows(server: LabelStudioForTests, count: int, **more: Any) -> list[dict[str, Any]]:
    """Draw crops of different sizes into a folder of their own; task data for each."""
    folder = f"gallery-{next(_numbers)}"
    (server.images_root / folder).mkdir()
    rows = []
    for i in range(count):
        image = Image.new("L", (20 + i % 7, 30 + i % 11), 230)
        ImageDraw.Draw(image).ellipse((4, 4, 14, 24), fill=20 + i % 200)
        name = f"{folder}/crop-{i:04d}.png"
        image.save(server.images_root / name)
        rows.append(
            {
                "image": f"/data/local-files/?d={name}",
                "image_id": f"crop-{i:04d}",
                "sample_id": f"haul-{i % 3}",
                "captured_at": f"2014-06-{1 + i % 9:02d}T12:00:00Z",
                "depth_m": float(i % 5) * 10,
                "pixel_size_um": 50.0,
                "n": i,
                "blind": "no",
                **more,
            }
        )
    return rows


@pytest.fixture
def new_gallery(label_studio, request) -> Callable[..., GalleryForTests]:
    """Makes a project with `count` crops: `new_gallery(12, votes=2, config=…, blind={3})`."""

    def make(
        count: int,
        *,
        votes: int = 1,
        config: str = CONFIG,
        blind: Sequence[int] = (),
        suggestions_shown: bool = True,
    ) -> GalleryForTests:
        name = f"Gallery {next(_numbers)}"
        project = create_project(
            label_studio.home,
            name,
            config,
            annotators_per_image=votes,
            show_suggestions=suggestions_shown,
        )
        gallery = GalleryForTests(label_studio, project)
        rows = crop_rows(label_studio, count)
        for i in blind:
            rows[i]["blind"] = "yes"
        if rows:
            gallery.load(rows)
        return gallery

    return make
