"""A person at Label Studio, in Chromium, on real images: what they see, press, and leave behind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from playwright.sync_api import expect

from export_tools import export_tasks
from label_studio_config.api import Api
from label_studio_config.project import ProjectInfo, create_project
from label_studio_config.results import read_result, write_result
from label_studio_config.server_tasks import fetch_tasks
from label_studio_config.votes import read_votes
from tests.browser_fixtures import Visit, visiting
from tests.label_studio_fixtures import LabelStudioForTests, serve_for_tests

pytestmark = pytest.mark.slow
expect.set_options(timeout=20_000)

REAL = Path(__file__).parents[2] / "shared" / "data"
COPEPOD = "ndsb/images/copepod_calanoid_eggs"
VERSION = "browser-v0001"
SUGGESTED = {
    COPEPOD: "Copepod",
    "ndsb/images/protist_noctiluca": "Noctiluca scintillans",
    "ndsb/images/diatom_chain_string": "Diatom chain",
    "ndsb/images/fecal_pellet": "Marine snow",
}
_CHOSEN = ".ant-checkbox-wrapper-checked"
_LOWEST_CONTRAST = """chips => Math.min(...chips.map(chip => {
  const numbers = colour => colour.match(/[\\d.]+/g).slice(0, 3).map(Number);
  const light = colour => numbers(colour).map(c => c / 255)
    .map(c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const text = light(getComputedStyle(chip.querySelector('span + span > span')).color);
  const ground = light(getComputedStyle(chip).backgroundColor);
  return (Math.max(text, ground) + 0.05) / (Math.min(text, ground) + 0.05);
}))"""


@dataclass
class Shelf:
    """A Label Studio whose images are the real ones."""

    server: LabelStudioForTests

    @property
    def api(self) -> Api:
        return Api(self.server.home)

    def images(self, folder: str, count: int) -> list[str]:
        """Paths relative to the images root."""
        found = sorted((REAL / folder).iterdir())[:count]
        return [str(path.relative_to(REAL)) for path in found]

    def add(
        self, project: ProjectInfo, image: str, suggested: str | None = None, score: float = 0.9
    ) -> int:
        """A task for the image, with a suggestion of its group if given; its number."""
        task: dict[str, Any] = {
            "data": {
                "image": self.server.home.image_url(image),
                "image_id": Path(image).stem,
                "blind": "no",
            }
        }
        if suggested is not None:
            shares = {"group": {suggested: score, "Unknown": 1 - score}}
            result = write_result(
                project.schema, {"group": suggested}, probabilities=shares, novelty=0.2
            )
            task["predictions"] = [{"model_version": VERSION, "score": score, "result": result}]
        path = f"/api/projects/{project.id}/import?return_task_ids=true"
        return int(self.api.post(path, [task])["task_ids"][0])

    def exported(self, project: ProjectInfo, task_id: int) -> dict[str, Any]:
        """The task as every export reads it, with exactly one annotation."""
        tasks = fetch_tasks(self.server.home, project.id)
        (task,) = [task for task in tasks if task["id"] == task_id]
        assert len(task["annotations"]) == 1
        return task


@pytest.fixture(scope="module")
def shelf(tmp_path_factory, database_template) -> Iterator[Shelf]:
    if not (REAL / "ndsb").is_dir():
        pytest.skip("shared/data/ndsb is not on this machine")
    folder = tmp_path_factory.mktemp("browser")
    with serve_for_tests(folder, template=database_template, images_root=REAL) as server:
        yield Shelf(server)


@pytest.fixture
def visit(browser, shelf) -> Iterator[Visit]:
    with visiting(browser, shelf.server) as opened:
        yield opened


def chosen(visit: Visit) -> list[str]:
    """The answers on screen, without their keys."""
    labels = visit.page.locator(f"{_CHOSEN}:visible input").all()
    return [label.get_attribute("name") or "" for label in labels]


def choose(visit: Visit, trait: str, value: str) -> None:
    """Click an answer in the row of a trait."""
    row = visit.page.locator(".pt-trait:visible").filter(
        has=visit.page.get_by_text(trait, exact=True)
    )
    row.locator("label").filter(has=visit.page.locator(f"input[name='{value}']")).click()


def at(visit: Visit, x: float, y: float) -> tuple[float, float]:
    """Where a point of the image, in shares of width and height, is on the screen."""
    box = visit.page.locator(".lsf-image img").bounding_box()
    assert box is not None
    return box["x"] + x * box["width"], box["y"] + y * box["height"]


def click(visit: Visit, x: float, y: float) -> None:
    visit.page.mouse.click(*at(visit, x, y))
    visit.page.wait_for_timeout(300)


def drag(visit: Visit, start: tuple[float, float], end: tuple[float, float]) -> None:
    visit.page.mouse.move(*at(visit, *start))
    visit.page.mouse.down()
    visit.page.mouse.move(*at(visit, *end), steps=5)
    visit.page.mouse.up()
    visit.page.wait_for_timeout(300)


def press(visit: Visit, key: str) -> None:
    visit.page.keyboard.press(key)
    visit.page.wait_for_timeout(200)


def submit(visit: Visit) -> None:
    visit.page.keyboard.press("Control+Enter")
    expect(visit.page.get_by_text("Annotation saved successfully").first).to_be_visible()


def test_from_a_suggestion_to_the_export(shelf, visit, tmp_path):
    project = create_project(shelf.server.home, "Browser loop", "functional_groups")
    tasks = {}
    for number, (folder, group) in enumerate(SUGGESTED.items()):
        for image in shelf.images(folder, 2):
            tasks[shelf.add(project, image, group, score=0.9 - 0.1 * number)] = group
    shelf.api.patch(f"/api/projects/{project.id}/", {"model_version": VERSION})

    visit.open_data_manager(project.id)
    rows = visit.page.locator(".lsf-table__row-wrapper, .lsf-table-row")
    expect(visit.page.get_by_text(f"Predictions: {len(tasks)}")).to_be_visible(timeout=30_000)
    for tab in ("All", "Least certain first", "Suggested", "Annotated", "Blind"):
        expect(visit.page.get_by_text(tab, exact=True).first).to_be_visible()
    expect(visit.page.get_by_text("0.900").first).to_be_visible()
    visit.page.wait_for_function(
        "count => [...document.querySelectorAll('img')].filter(i => "
        "i.src.includes('local-files') && i.naturalWidth > 0).length >= count",
        arg=6,
    )
    visit.keep_screenshot("data-manager")

    task_id, suggested = next(iter(tasks.items()))
    rows.filter(has_text=Path(shelf.images(COPEPOD, 1)[0]).stem).first.click()
    visit.await_image()
    expect(visit.page.get_by_text(VERSION)).to_be_visible()
    assert chosen(visit) == [suggested]
    visit.keep_screenshot("suggestion")

    press(visit, "n")
    press(visit, "6")
    assert chosen(visit) == ["Noctiluca scintillans", "Blurry"]
    submit(visit)
    visit.keep_screenshot("submitted")

    task = shelf.exported(project, task_id)
    annotation = task["annotations"][0]
    answers = read_result(project.schema, annotation["result"])
    assert answers["group"].labels == ("Noctiluca scintillans",)
    assert answers["image_quality"].labels == ("Blurry",)
    assert annotation["prediction"]["model_version"] == VERSION
    votes = read_votes(project.schema, [task]).set_index("control")
    assert votes.loc["group", "labels"] == ("Noctiluca scintillans",)
    assert votes.loc["group", "suggestion_shown"]
    assert votes.loc["group", "suggestion_version"] == VERSION

    export_tasks([task], project.schema, "parquet", tmp_path / "export.parquet")
    (row,) = pd.read_parquet(tmp_path / "export.parquet").to_dict("records")
    assert row["group"] == "Noctiluca scintillans"
    assert row["image_quality"] == "Blurry"
    assert row["annotator"] == shelf.server.home.secrets.user_email
    assert row["suggestion_shown"]
    assert row["suggestion_version"] == VERSION


@pytest.mark.parametrize("where", ["stream", "list"])
@pytest.mark.parametrize("config", ["functional_groups", "traits"])
def test_the_group_is_answered_without_scrolling(shelf, visit, config, where):
    project = create_project(shelf.server.home, f"Fits {config}", config)
    task_id = shelf.add(project, shelf.images(COPEPOD, 4)[3])
    if where == "stream":
        visit.open_label_stream(project.id)
    else:
        visit.open_task(project.id, task_id)
    page = visit.page
    bottom = page.locator(".lsf-bottombar").bounding_box()
    panel = page.locator(".lsf-sidepanels__content").bounding_box()
    image = page.locator(".lsf-image img").bounding_box()
    assert bottom is not None
    assert panel is not None
    assert image is not None
    answers = [*project.schema.control("group").labels, "Not assessable"]
    for label in answers:
        box = page.locator(f".pt-groups label:has(input[name='{label}'])").first.bounding_box()
        assert box is not None, label
        assert box["y"] + box["height"] < bottom["y"], label
        assert box["x"] > image["x"] + image["width"], f"{label} is not beside the image"
        assert box["x"] + box["width"] < panel["x"] + panel["width"], label
    # The crop is 41 by 39 pixels.
    assert image["width"] > (400 if where == "stream" else 200)
    visit.keep_screenshot(f"{config}-{where}")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("config", ["functional_groups", "traits"])
def test_answers_can_be_read_in_light_and_dark(shelf, browser, config, dark):
    project = create_project(shelf.server.home, f"Contrast {config}", config)
    shelf.add(project, shelf.images(COPEPOD, 4)[3])
    with visiting(browser, shelf.server) as visit:
        visit.open_label_stream(project.id)
        if dark:
            visit.darken()
        press(visit, "c")
        press(visit, "0")
        chips = visit.page.locator(".pt-answers .lsf-choice__checkbox:visible")
        assert chips.evaluate_all(_LOWEST_CONTRAST) >= 4.5
        press(visit, "c")
        visit.keep_screenshot(f"{config}-{'dark' if dark else 'light'}")


def test_traits_appear_with_their_group(shelf, visit):
    project = create_project(shelf.server.home, "Panels", "traits")
    shelf.add(project, shelf.images(COPEPOD, 4)[3])
    visit.open_label_stream(project.id)
    page = visit.page
    visible = page.locator(".pt-answers .pt-trait:visible h3")
    assert visible.count() == 0
    press(visit, "c")
    expect(page.get_by_text("Egg sac", exact=True)).to_be_in_viewport()
    assert "Cells in chain" not in visible.all_inner_texts()
    assert "Eggs" not in visible.all_inner_texts()
    choose(visit, "Egg sac", "present")
    expect(page.get_by_text("Eggs", exact=True)).to_be_in_viewport()
    visit.keep_screenshot("traits-copepod")
    press(visit, "d")
    assert "Egg sac" not in visible.all_inner_texts()
    expect(page.get_by_text("Cells in chain", exact=True)).to_be_in_viewport()
    visit.keep_screenshot("traits-diatom-chain")


def test_suggested_traits_are_answered_in_their_panels(shelf, visit):
    project = create_project(shelf.server.home, "Suggested traits", "traits")
    values: dict[str, str | float] = {"group": "Copepod", "egg_sac": "present", "egg_count": 9}
    result = write_result(project.schema, values | {"antennae": "tucked"})
    image = shelf.server.home.image_url(shelf.images(COPEPOD, 1)[0])
    task = {
        "data": {"image": image},
        "predictions": [{"model_version": VERSION, "result": result}],
    }
    shelf.api.post(f"/api/projects/{project.id}/import", [task])
    visit.open_label_stream(project.id)
    assert chosen(visit) == ["Copepod", "present", "tucked"]
    expect(visit.page.locator("input[name=egg_count]")).to_have_value("9")
    visit.keep_screenshot("traits-suggested")


def test_a_copepod_is_measured_and_judged(shelf, visit):
    project = create_project(shelf.server.home, "Measured", "traits")
    task_id = shelf.add(project, shelf.images(COPEPOD, 4)[3])
    visit.open_label_stream(project.id)
    press(visit, "c")
    press(visit, "5")
    press(visit, "k")
    click(visit, 0.30, 0.25)
    press(visit, "4")
    click(visit, 0.50, 0.50)
    visit.page.get_by_text("urosome end").click()
    click(visit, 0.65, 0.70)
    press(visit, "r")
    drag(visit, (0.10, 0.10), (0.25, 0.20))
    press(visit, "u")
    press(visit, "p")
    for corner in ((0.6, 0.2), (0.8, 0.2), (0.8, 0.4), (0.6, 0.2)):
        click(visit, *corner)
    choose(visit, "Egg sac", "present")
    choose(visit, "Sex", "Not assessable")
    visit.page.locator("input[name=egg_count]").fill("12")
    visit.page.locator(".pt-groups h3").first.click()
    visit.keep_screenshot("traits-measured")
    submit(visit)

    task = shelf.exported(project, task_id)
    answers = read_result(project.schema, task["annotations"][0]["result"])
    points = {region.labels[0]: region.points[0] for region in answers["landmarks"].regions}
    assert points["anterior end"] == pytest.approx((30, 25), abs=4)
    assert points["prosome end"] == pytest.approx((50, 50), abs=4)
    assert points["urosome end"] == pytest.approx((65, 70), abs=4)
    assert answers["boxes"].regions[0].labels == ("prey",)
    assert answers["outlines"].regions[0].labels == ("body",)
    assert len(answers["outlines"].regions[0].points) == 3
    assert answers["egg_sac"].labels == ("present",)
    assert answers["egg_count"].number == 12
    assert not answers["sex"].assessable
    assert answers["image_quality"].labels == ("Sharp",)


def test_a_number_whose_panel_was_hidden_again_is_no_answer(shelf, visit):
    project = create_project(shelf.server.home, "Changed my mind", "traits")
    task_id = shelf.add(project, shelf.images(COPEPOD, 4)[3])
    visit.open_label_stream(project.id)
    press(visit, "c")
    choose(visit, "Egg sac", "present")
    choose(visit, "Sex", "female")
    visit.page.locator("input[name=egg_count]").fill("12")
    visit.page.locator(".pt-groups h3").first.click()
    press(visit, "m")
    submit(visit)

    task = shelf.exported(project, task_id)
    answers = read_result(project.schema, task["annotations"][0]["result"])
    assert {name: answer.labels for name, answer in answers.items()} == {"group": ("Medusa",)}


def test_a_chain_is_traced(shelf, visit):
    project = create_project(shelf.server.home, "Traced", "traits")
    task_id = shelf.add(project, shelf.images("ndsb/images/diatom_chain_string", 1)[0])
    visit.open_label_stream(project.id)
    press(visit, "d")
    press(visit, "v")
    for point in ((0.2, 0.8), (0.5, 0.5), (0.8, 0.2)):
        click(visit, *point)
    press(visit, "Escape")
    visit.page.locator("input[name=chain_cell_count]").fill("7")
    visit.page.locator(".pt-groups h3").first.click()
    visit.keep_screenshot("traits-traced")
    submit(visit)

    task = shelf.exported(project, task_id)
    answers = read_result(project.schema, task["annotations"][0]["result"])
    (line,) = answers["chain_line"].regions
    assert line.points[0] == pytest.approx((20, 80), abs=4)
    assert line.points[-1] == pytest.approx((80, 20), abs=4)
    assert answers["chain_cell_count"].number == 7


def test_a_frame_gets_boxes_with_a_quality_each(shelf, visit):
    project = create_project(shelf.server.home, "Framed", "frames")
    task_id = shelf.add(project, shelf.images("spc/images/Siphonophora", 1)[0])
    visit.open_label_stream(project.id)
    press(visit, "s")
    drag(visit, (0.1, 0.1), (0.5, 0.5))
    press(visit, "1")
    drag(visit, (0.6, 0.6), (0.9, 0.9))
    press(visit, "u")
    click(visit, 0.75, 0.75)
    press(visit, "6")
    visit.keep_screenshot("frames")
    submit(visit)

    task = shelf.exported(project, task_id)
    answers = read_result(project.schema, task["annotations"][0]["result"])
    boxes = {region.labels[0]: region for region in answers["organisms"].regions}
    assert set(boxes) == {"Siphonophore", "Marine snow"}
    assert boxes["Siphonophore"].points[1] == pytest.approx((50, 50), abs=4)
    assert answers["region_quality"].by_region == {boxes["Marine snow"].id: ("Blurry",)}
