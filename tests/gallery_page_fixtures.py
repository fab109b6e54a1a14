"""Projects of real crops (phantoms where there are none) for tests of the gallery in a browser."""

from __future__ import annotations

import itertools
import random
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from label_studio_config.api import Api
from label_studio_config.manifest import Manifest
from label_studio_config.phantoms import draw_phantoms
from label_studio_config.project import ProjectInfo, create_project
from label_studio_config.results import write_result
from label_studio_config.server_tasks import fetch_tasks
from label_studio_config.task_import import import_manifest
from label_studio_config.users import UserInfo, add_user
from ml_backend.encoders import set_newest_encoder
from tests.browser_fixtures import Visit, visiting
from tests.figures import tell_images
from tests.label_studio_fixtures import LabelStudioForTests, serve_for_tests

REAL = Path(__file__).parents[2] / "shared" / "data"
ENCODER = Path(__file__).parents[1] / "benchmarks" / "encoders" / "ndsb-resnet10t"
"""Has learned from `ndsb`, without labels."""

VERSION = "project-0-v0001"
PIXEL_SIZE_UM = 62.5
GROUPS = {"Copepod": 0.6, "Medusa": 0.2, "Diatom chain": 0.12, "Chaetognath": 0.08}
"""Suggested labels and their share of the images."""

_numbers = itertools.count(1)


@dataclass
class Shelf:
    """A Label Studio, and images with their groups: `(path, group)`, paths below its root."""

    server: LabelStudioForTests
    images: list[tuple[str, str]]

    def project(self, count: int, *, config: str = "functional_groups", **more: Any) -> Filled:
        """A project with `count` images, the most certain suggestion first."""
        name = f"Gallery page {next(_numbers)}"
        project = create_project(self.server.home, name, config, **more)
        filled = Filled(self, project)
        filled.load(_mixed(self.images, count))
        return filled

    def assorted(self, title: str, count: int) -> Filled:
        """A project with images of all groups, most with a suggestion."""
        filled = Filled(self, create_project(self.server.home, title, "functional_groups"))
        filled.load(random.Random(0).sample(self.images, min(count, len(self.images))))
        return filled

    def imported(self, title: str, manifest: Manifest, groups: Sequence[str]) -> Filled:
        """A project with a manifest's images and metadata, and a suggestion for each of them."""
        home = self.server.home
        filled = Filled(self, create_project(home, title, "functional_groups"))
        import_manifest(home, filled.project.id, manifest)
        there = fetch_tasks(home, filled.project.id, full=False)
        by_address = {task["data"]["image"]: task["id"] for task in there}
        below_root = [path.relative_to(home.images_root) for path in manifest.paths]
        filled.tasks = [by_address[home.image_url(path)] for path in below_root]
        filled.suggest(dict(enumerate(groups)))
        return filled


def _mixed(images: Sequence[tuple[str, str]], count: int) -> list[tuple[str, str]]:
    """`count` images of the groups in their shares, mixed; repeated where there are too few."""
    by_group = {name: [image for image in images if image[1] == name] for name in GROUPS}
    chosen = []
    for name, share in GROUPS.items():
        many = itertools.cycle(by_group[name])
        chosen += [
            (i / max(1, round(count * share)), next(many)) for i in range(round(count * share))
        ]
    return [image for _, image in sorted(chosen, key=lambda pair: pair[0])][:count]


@dataclass
class Filled:
    """A project of the gallery; `tasks` are its ids, the most certain first."""

    shelf: Shelf
    project: ProjectInfo
    tasks: list[int] = field(default_factory=list)
    labels: dict[int, str] = field(default_factory=dict)

    @property
    def api(self) -> Api:
        return Api(self.shelf.server.home)

    @property
    def address(self) -> str:
        return f"{self.shelf.server.url}/planktrait/projects/{self.project.id}/gallery"

    def load(self, images: Sequence[tuple[str, str]]) -> None:
        """Tasks for the images; every 25th has no suggestion, every 50th is blind."""
        rows = [
            {
                "image": self.shelf.server.home.image_url(path),
                "image_id": Path(path).stem,
                "sample_id": f"cast-{i % 6 + 1:02d}",
                "depth_m": 5.0 + i % 50,
                "captured_at": f"2014-06-{1 + i % 9:02d}T12:00:00Z",
                "pixel_size_um": PIXEL_SIZE_UM,
                "blind": "yes" if i % 50 == 49 else "no",
            }
            for i, (path, _) in enumerate(images)
        ]
        path = f"/api/projects/{self.project.id}/import?return_task_ids=true"
        ids = self.api.post(path, [{"data": row} for row in rows])["task_ids"]
        self.tasks = sorted(ids)
        self.suggest({i: group for i, (_, group) in enumerate(images) if i % 25 != 24})

    def suggest(self, groups: Mapping[int, str]) -> None:
        """A suggestion for some tasks, by their place; the first are the most certain."""
        said = [self._suggestion(i, group) for i, group in groups.items()]
        ours = f"/api/planktrait/projects/{self.project.id}"
        self.api.post(f"{ours}/suggestions", said)
        self.api.post(f"{ours}/model-version", {"model_version": VERSION})

    def _suggestion(self, i: int, group: str) -> dict[str, Any]:
        name = self.primary
        labels = self.project.schema.control(name).labels
        label = group if group in labels else labels[i % len(labels)]
        second = next(other for other in labels if other != label)
        sure = round(0.99 - 0.75 * i / len(self.tasks), 4)
        shares = {name: {label: sure, second: round(0.7 * (1 - sure), 4)}}
        self.labels[self.tasks[i]] = label
        result = write_result(
            self.project.schema, {name: label}, probabilities=shares, novelty=round(i % 10 / 10, 2)
        )
        return {
            "task": self.tasks[i],
            "result": result,
            "score": sure,
            "model_version": VERSION,
        }

    def learn(self) -> None:
        """As if SimCLR had learned from the project's images."""
        folder = self.shelf.server.home.encoders_folder(self.project.id) / "from-benchmarks"
        shutil.copytree(ENCODER, folder)
        set_newest_encoder(folder.parent, folder / "encoder")

    @property
    def primary(self) -> str:
        control = self.project.schema.primary
        assert control is not None
        return control.name

    def suggested(self, label: str) -> list[int]:
        """The tasks with that suggestion, the most certain first."""
        return [task for task in self.tasks if self.labels.get(task) == label]

    def annotations(self) -> dict[int, list[dict[str, Any]]]:
        """By task, as every export reads them."""
        tasks = fetch_tasks(self.shelf.server.home, self.project.id)
        return {task["id"]: task["annotations"] for task in tasks if task["annotations"]}

    def colleague(self) -> UserInfo:
        return add_user(self.shelf.server.home, f"anna-{self.project.id}@example.org")

    def annotate(self, person: UserInfo, task_id: int, label: str) -> None:
        """Save an answer as the editor does, for somebody else."""
        result = write_result(self.project.schema, {self.primary: label})
        response = self.shelf.server.session.post(
            f"{self.shelf.server.url}/api/tasks/{task_id}/annotations/",
            json={"result": result},
            headers={"Authorization": f"Token {person.token}"},
            timeout=60,
        )
        response.raise_for_status()


@dataclass
class Window:
    """The gallery of a project, as one person sees it."""

    visit: Visit
    filled: Filled

    @property
    def page(self) -> Page:
        return self.visit.page

    def open(self, query: str = "") -> Window:
        """Go there and wait for the first pictures."""
        self.page.goto(self.filled.address + query)
        return self.wait().look()

    def look(self) -> Window:
        """As quickly as a person can: what was on the screen for less is not accepted."""
        self.page.wait_for_timeout(400)
        return self

    def wait(self) -> Window:
        """Until every crop in the window has its picture."""
        expect(self.cells.first).to_be_visible()
        self.page.wait_for_function(
            """() => document.querySelectorAll('.row:not(.cut) .cell:not(.painted)').length === 0
                 && document.querySelector('.cell.leaving') === null"""
        )
        return self

    @property
    def cells(self) -> Locator:
        return self.page.locator(".cell")

    def cell(self, task_id: int) -> Locator:
        return self.page.locator(f'.cell[data-task="{task_id}"]')

    def in_view(self) -> list[int]:
        """The tasks of the rows that are seen whole, in reading order."""
        return self.page.evaluate(
            """() => {
              const box = document.getElementById('mosaic').getBoundingClientRect();
              return [...document.querySelectorAll('.row:not(.cut) .cell')]
                .map(cell => [cell, cell.getBoundingClientRect()])
                .filter(([, at]) => at.bottom > box.top && at.top < box.bottom)
                .sort(([, a], [, b]) => a.top - b.top || a.left - b.left)
                .map(([cell]) => Number(cell.dataset.task));
            }"""
        )

    def to_the_end(self) -> set[int]:
        """Every task that is met when the mosaic, all of it loaded, is scrolled through."""
        found = self.page.evaluate(
            """async () => {
              const box = document.getElementById('mosaic');
              const drawn = () => new Promise(done => setTimeout(done, 100));
              const tasks = new Set();
              for (let top = 0; top < box.scrollHeight; top += box.clientHeight / 2) {
                box.scrollTop = top;
                await drawn();
                for (const cell of document.querySelectorAll('.cell'))
                  tasks.add(Number(cell.dataset.task));
              }
              return [...tasks];
            }"""
        )
        return set(found)

    def selected(self) -> set[int]:
        cells = self.page.locator(".cell.selected").all()
        return {int(cell.get_attribute("data-task") or 0) for cell in cells}

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def says(self, text: str) -> None:
        """The status line says it, and so does the live region."""
        expect(self.page.locator("#status")).to_contain_text(text)
        expect(self.page.locator("#live")).to_contain_text(text)

    def forgive(self, *words: str) -> None:
        """Errors in the console that the test has caused itself."""
        rest = [e for e in self.visit.our_errors if not any(word in e for word in words)]
        self.visit.our_errors[:] = rest


@contextmanager
def window_on(browser: Browser, filled: Filled) -> Iterator[Window]:
    """A fresh window, logged in."""
    with visiting(browser, filled.shelf.server) as visit:
        yield Window(visit, filled)


@contextmanager
def serve_shelf(folder: Path, template: Path, **options: Any) -> Iterator[Shelf]:
    """Real crops of `ndsb`, phantoms where those are not on this machine."""
    tell_images("the gallery's pages", real=(REAL / "ndsb").is_dir())
    if (REAL / "ndsb").is_dir():
        root = REAL
        table = pd.read_csv(REAL / "ndsb" / "labels.csv")
        pairs = zip("ndsb/" + table.image, table.functional_group, strict=True)
    else:
        root = folder / "images"
        drawn = draw_phantoms(root, 600, processes=1)
        truth = pd.read_csv(drawn.truth_csv)
        pairs = zip(truth.image_id, truth.group, strict=True)
    with serve_for_tests(folder, template=template, images_root=root, **options) as server:
        yield Shelf(server, list(pairs))


@pytest.fixture(scope="module")
def shelf(tmp_path_factory, database_template) -> Iterator[Shelf]:
    """A Label Studio without the backend."""
    with serve_shelf(tmp_path_factory.mktemp("gallery-page"), database_template) as opened:
        yield opened


@pytest.fixture(scope="session")
def shelf_with_backend(tmp_path_factory, database_template) -> Iterator[Shelf]:
    """With the backend; shared by all tests of a process."""
    folder = tmp_path_factory.mktemp("gallery-backend")
    with pytest.MonkeyPatch.context() as patch:
        # No training that nobody asked for beside the tests.
        patch.setenv("PLANKTRAIT_TRAIN_EVERY", "1000000")
        with serve_shelf(folder, database_template, with_backend=True) as opened:
            yield opened
