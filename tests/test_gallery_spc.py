"""The plugin on colour images of the Scripps Plankton Camera, small and large, in Chromium.

Their pixel size is not known, so that the scale is one of pixels; their sample is the day.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from playwright.sync_api import Browser, expect

from label_studio_config.results import read_result
from label_studio_config.sources import read_folder
from tests.gallery_page_fixtures import Filled, Shelf, Window, window_on
from tests.test_map_page import Map

pytestmark = pytest.mark.slow
expect.set_options(timeout=20_000)

CHOSEN = {
    "Calanus": ("Copepod", 9),
    "Metridia": ("Copepod", 8),
    "Copepod": ("Copepod", 10),
    "Oithona": ("Copepod", 5),
    "Siphonophora": ("Siphonophore", 6),
    "Aglantha": ("Medusa", 6),
    "Pleurobrachia": ("Ctenophore", 5),
    "Oikopleura": ("Appendicularian", 5),
    "Limacina": ("Pelagic gastropod", 4),
    "Pluteus": ("Echinoderm larva", 2),
}
"""The group and the number of images of each class."""


@dataclass
class Camera:
    """A project of 60 images; `images` has their task, group, metadata, file and size."""

    filled: Filled
    images: pd.DataFrame

    def between(self, first: str, last: str) -> pd.DataFrame:
        """The images of some days."""
        day = self.images.captured_at.str[:10]
        return self.images[(day >= first) & (day <= last)]


@pytest.fixture(scope="module")
def camera(shelf_with_backend: Shelf) -> Camera:
    folder = shelf_with_backend.server.images_root / "spc"
    if not (folder / "labels.csv").is_file():
        pytest.skip("shared/data/spc is not on this machine")
    manifest, skipped = read_folder(folder, folder / "labels.csv", decode=False)
    assert not skipped
    every = manifest.table.assign(file=manifest.paths)
    every = every[every.source_class.isin(CHOSEN)]
    every = every.assign(size=[_size(path) for path in every.file])
    every = every.assign(longest=every["size"].map(max))
    chosen = []
    for name, (group, count) in CHOSEN.items():
        # From the smallest to the largest.
        by_size = every[every.source_class == name].sort_values(["longest", "image_id"])
        places = np.linspace(0, len(by_size) - 1, count).astype(int)
        chosen.append(by_size.iloc[places].assign(group=group))
    images = pd.concat(chosen).sample(frac=1, random_state=0).reset_index(drop=True)
    filled = shelf_with_backend.imported(
        "Plankton camera", manifest.select(images.image_id), images.group.tolist()
    )
    filled.learn()
    return Camera(filled, images.assign(task=filled.tasks))


@pytest.fixture
def window(browser: Browser, camera: Camera) -> Iterator[Window]:
    with window_on(browser, camera.filled) as opened:
        yield opened


def _size(path: Path) -> tuple[int, int]:
    with Image.open(path) as opened:
        return opened.size


def _boxes(window: Window) -> dict[int, tuple[int, int, int, int, bool]]:
    """Of the crops that are seen whole: left, top, width and height, and whether shrunk."""
    found = window.page.evaluate(
        """() => [...document.querySelectorAll('.row:not(.cut) .cell')].filter(cell =>
             cell.getBoundingClientRect().bottom
             <= document.getElementById('mosaic').getBoundingClientRect().bottom
           ).map(cell => {
             const at = cell.querySelector('.crop').getBoundingClientRect();
             return [Number(cell.dataset.task), at.x, at.y, at.width, at.height,
                     'shrunk' in cell.dataset];
           })"""
    )
    in_view = set(window.in_view())
    return {
        task: (round(x), round(y), round(width), round(height), shrunk)
        for task, x, y, width, height, shrunk in found
        if task in in_view
    }


def test_crops_are_in_colour_and_at_one_scale(camera: Camera, window: Window) -> None:
    assert max(camera.images.longest) > 2000
    window.open("?all=1").page.mouse.move(5, 5)
    images = camera.images.set_index("task")
    boxes = _boxes(window)
    assert len(boxes) >= 8
    screen = np.asarray(
        Image.open(io.BytesIO(window.page.screenshot(animations="disabled"))).convert("RGB"), float
    )
    coloured = 0
    for task, (x, y, width, height, shrunk) in boxes.items():
        native = images["size"][task]
        seen = screen[y : y + height, x : x + width]
        coloured += np.ptp(seen, axis=2).max() > 40
        if shrunk:
            # Too large for a row: smaller, in its own proportions.
            assert width < native[0]
            assert width / height == pytest.approx(native[0] / native[1], rel=0.05)
            continue
        assert (width, height) == native
        true = np.asarray(Image.open(images.file[task]).convert("RGB"), float)
        # Less the bar of the confidence at its foot.
        assert np.abs(seen - true)[:-6].mean() < 6, images.file[task]
    assert coloured > len(boxes) / 2
    assert 0 < sum(shrunk for *_, shrunk in boxes.values()) < len(boxes)
    expect(window.page.locator("#scale-bar span")).to_have_text(re.compile(r"^\d+ px$"))
    window.visit.keep_screenshot("spc-gallery")

    # Half as large, so that more of them have room at their scale.
    window.press("-", "-", "-", "-")
    window.look().wait()
    smaller = _boxes(window)
    assert len(smaller) > len(boxes)
    for task, (_, _, width, height, shrunk) in smaller.items():
        if not shrunk:
            assert (width, height) == pytest.approx(np.array(images["size"][task]) / 2, abs=1)
    window.visit.keep_screenshot("spc-gallery-half")


def test_days_and_samples(camera: Camera, window: Window) -> None:
    page = window.open("?all=1").page
    page.get_by_role("button", name="Filters").click()
    page.get_by_label("Captured from").fill("2016-06-01")
    page.get_by_label("Captured until").fill("2016-06-30")
    june = camera.between("2016-06-01", "2016-06-30")
    assert 5 < len(june) < 60
    expect(page.locator("#count")).to_have_text(f"{len(june)} to judge")
    window.wait()
    seen = window.in_view()
    assert seen == june.task.tolist()[: len(seen)]
    window.visit.keep_screenshot("spc-june")
    day = june.sample_id.value_counts().index[0]
    page.get_by_label("Sample", exact=True).fill(day)
    page.wait_for_url(f"**sample={day}**")
    of_day = june[june.sample_id == day]
    assert 1 < len(of_day) < len(june)
    expect(page.locator("#count")).to_have_text(f"{len(of_day)} to judge")
    window.wait()
    seen = window.in_view()
    assert seen == of_day.task.tolist()[: len(seen)]
    # Whoever asks for another day beside it asks for nothing.
    page.get_by_label("Captured until").fill("2016-06-02")
    page.get_by_label("Sample", exact=True).fill("2016-06-30")
    expect(page.locator("#count")).to_have_text("0 to judge")


def test_a_page_is_judged_with_one_key(camera: Camera, window: Window) -> None:
    filled = camera.filled
    window.open("?label=Copepod")
    copepods = camera.images[camera.images.group == "Copepod"].task.tolist()
    first = window.in_view()
    assert first == copepods[: len(first)]
    assert len(first) > 5
    window.press("Enter")
    window.says(f"Accepted: {len(first)} images saved.")
    saved = filled.annotations()
    assert set(saved) == set(first)
    for (annotation,) in saved.values():
        answer = read_result(filled.project.schema, annotation["result"])[filled.primary]
        assert answer.labels == ("Copepod",)
        assert annotation["parent_prediction"]
    window.wait()
    assert window.in_view()[0] == copepods[len(first)]
    window.press("Control+z")
    window.says(f"Undone: {len(first)} images.")
    assert filled.annotations() == {}
    window.press("Escape")
    window.wait()
    window.visit.keep_screenshot("spc-judged-and-undone")


def labels_of(camera: Camera) -> dict[int, str]:
    """What was saved, by task."""
    filled = camera.filled
    return {
        task: read_result(filled.project.schema, one["result"])[filled.primary].labels[0]
        for task, (one,) in filled.annotations().items()
    }


def test_a_band_is_labelled_by_typing_and_found_by_its_state(
    camera: Camera, window: Window
) -> None:
    page = window.open("?all=1").page
    window.press("Shift+S", "-", "-")
    window.look().wait()
    boxes = {task: (w, h) for task, (_, _, w, h, _) in _boxes(window).items()}
    assert len(boxes) > 12
    longest = [max(box) for box in boxes.values()]
    assert max(longest) - min(longest) <= 1
    expect(page.locator("#scale-bar")).to_be_hidden()
    tasks = window.in_view()
    first, last = (window.cell(task).bounding_box() for task in (tasks[0], tasks[2]))
    assert first is not None
    assert last is not None
    page.mouse.move(first["x"] + 2, first["y"] + 2)
    page.mouse.down()
    page.mouse.move(last["x"] + 3, first["y"] + 20, steps=5)
    assert window.selected() == set(tasks[:3])
    window.visit.keep_screenshot("spc-same-size-band")
    page.mouse.up()
    window.press("/")
    page.keyboard.type("mar sn")
    window.press("Enter")
    window.says("Marine snow: 3 images saved.")
    assert labels_of(camera) == dict.fromkeys(tasks[:3], "Marine snow")
    page.locator("#show").select_option("mine")
    expect(page.locator("#count")).to_have_text("3 images")
    window.wait()
    assert window.in_view() == sorted(tasks[:3])
    for task in tasks[:3]:
        expect(window.cell(task)).to_have_attribute("data-state", "mine")
    page.mouse.move(5, 5)
    window.visit.keep_screenshot("spc-mine")
    page.locator("#show").select_option("")
    window.press("Control+z")
    window.says("Undone: 3 images.")
    assert labels_of(camera) == {}


def test_clusters_and_what_looks_like_a_file(camera: Camera, window: Window) -> None:
    page = window.page
    page.goto(f"{camera.filled.address}?tab=clusters")
    page.locator("#view-clusters").get_by_role("button", name="Make clusters").click()
    rows = page.locator("#view-clusters .cluster:not(.aside)")
    expect(rows.first).to_be_visible(timeout=240_000)
    expect(page.locator("#view-clusters .cluster.aside .strip i").first).to_be_visible()
    window.visit.keep_screenshot("spc-clusters")
    size = int(rows.first.locator("b").inner_text().split()[0])
    rows.first.locator("select").select_option("Copepod")
    rows.first.get_by_role("button", name="Label all").click()
    expect(rows.first).to_contain_text(f"✓ {size} images: Copepod")
    assert list(labels_of(camera).values()) == ["Copepod"] * size
    window.visit.keep_screenshot("spc-cluster-labelled")
    rows.first.get_by_role("button", name="Undo").click()
    expect(rows.first).to_contain_text(f"Label all {size}")
    assert labels_of(camera) == {}
    window.open("?all=1")
    # A large one, of 1,000 pixels and more.
    image = camera.images.sort_values("longest").iloc[-2]
    page.set_input_files("#upload-file", image.file)
    expect(page.locator("#similar-chip")).to_contain_text(f"Like {image.file.name}")
    window.wait()
    assert window.in_view()[0] == image.task
    window.visit.keep_screenshot("spc-similar")
    # From an image that is selected: those of its class are among the nearest.
    task = int(camera.images[camera.images.source_class == "Siphonophora"].task.iloc[0])
    window.open("?label=Siphonophore").cell(task).click()
    page.get_by_role("button", name="More like this").click()
    expect(page.locator("#title")).to_have_text("More like this")
    expect(page.locator("#count")).to_have_text("59 of 59 images")
    window.wait()
    path = f"/api/planktrait/projects/{camera.filled.project.id}/neighbours"
    nearest = camera.filled.api.post(path, {"tasks": [task], "limit": 60})["tasks"]
    seen = window.in_view()
    assert seen == [one["task"] for one in nearest][: len(seen)]
    window.visit.keep_screenshot("spc-more-like-this")


def test_a_lasso_on_the_map_opens_in_the_gallery(camera: Camera, window: Window) -> None:
    the_map = Map(window.visit, camera.filled).open()
    the_map.box.get_by_role("button", name="Draw the map").click()
    the_map.drawn()
    assert set(the_map.places) == set(camera.images.task)
    box = the_map.canvas.bounding_box()
    assert box is not None
    left, top = box["x"] + 12, box["y"] + 12
    right, low = box["x"] + box["width"] / 2, box["y"] + box["height"] - 12
    sides = [(left, top), (right, top), (right, low), (left, low)]
    the_map.lasso([*sides, sides[0]])
    inside = {
        task
        for task, (x, y) in zip(the_map.places, the_map.on_screen(*the_map.places), strict=True)
        if left < x < right and top < y < low
    }
    assert 5 < len(inside) < 55
    expect(the_map.chosen()).to_have_text(f"{len(inside)} images")
    window.visit.keep_screenshot("spc-map-lasso")
    the_map.box.get_by_role("button", name="Open in gallery").click()
    expect(window.page.locator("#count")).to_have_text(f"{len(inside)} of {len(inside)} images")
    window.wait()
    assert set(window.in_view()) <= inside
    window.visit.keep_screenshot("spc-from-the-map")


def test_what_to_label_next(camera: Camera, window: Window) -> None:
    path = f"/api/planktrait/projects/{camera.filled.project.id}/next"
    order = camera.filled.api.get(path, limit=200)["tasks"]
    assert sorted(order) == sorted(camera.images.task)
    page = window.page
    page.goto(f"{camera.filled.address}?order=next")
    expect(page.locator("#title")).to_have_text("What to label next")
    window.wait()
    seen = window.in_view()
    assert seen == order[: len(seen)]
    expect(page.locator("#next-options")).to_contain_text("Typical and uncertain")
    window.visit.keep_screenshot("spc-next")
    window.look().cell(seen[0]).click()
    window.press("Enter")
    window.says("Accepted: 1 image saved.")
    expect(window.cell(seen[0])).to_have_count(0)
    window.press("Control+z")
    window.says("Undone: 1 image.")


def test_a_blind_image_and_the_keys_in_the_dark(camera: Camera, window: Window) -> None:
    filled = camera.filled
    task = filled.suggested("Ctenophore")[0]
    data = filled.api.get(f"/api/tasks/{task}/")["data"]
    filled.api.patch(f"/api/tasks/{task}/", {"data": data | {"blind": "yes"}})
    page = window.open().page
    page.evaluate("window.planktraitScheme.set('Dark')")
    for order in ("certain", "next"):
        window.open(f"?state=any&label=Ctenophore&order={order}")
        expect(window.cell(task)).to_have_count(0)
    window.open("?suggested=0")
    assert window.in_view() == [task]
    cell = window.cell(task)
    expect(cell.locator(".bar")).to_be_hidden()
    cell.hover()
    expect(page.locator("#card")).to_contain_text("Blind: never suggested")
    for shown in (cell, page.locator("#card")):
        assert "%" not in shown.inner_text()
        assert "Ctenophore" not in shown.inner_text()
    window.visit.keep_screenshot("spc-blind-dark")
    page.mouse.move(5, 5)
    window.press("?")
    expect(page.locator("#help-body")).to_contain_text("Accept the selection as suggested")
    window.visit.keep_screenshot("spc-help-dark")
    window.press("Escape")
    window.open("?all=1")
    window.visit.keep_screenshot("spc-gallery-dark")
    page.goto(f"{filled.address}?tab=clusters")
    expect(page.locator(".cluster.aside .strip i").first).to_be_visible()
    expect(page.locator(f'.strip i[data-task="{task}"]')).to_have_count(0)
    window.visit.keep_screenshot("spc-clusters-dark")
    the_map = Map(window.visit, filled).open().drawn()
    assert task not in the_map.places
    expect(the_map.box.locator(".what")).to_contain_text("59 images")
    window.visit.keep_screenshot("spc-map-dark")


def test_the_data_manager_and_the_pages_beside_the_gallery(camera: Camera, window: Window) -> None:
    filled, page, visit = camera.filled, window.page, window.visit
    tab = tab_of_columns(filled, "-tasks:confidence")
    visit.open_data_manager(filled.project.id, tab)
    for column in ("Suggested", "Confidence", "Second choice", "Novelty"):
        expect(page.locator(".lsf-table-head").get_by_text(column, exact=True)).to_have_count(1)
    surest = next(iter(filled.labels))
    rows = page.locator(".lsf-table__row-wrapper")
    expect(rows.first).to_contain_text(str(surest))
    expect(rows.first).to_contain_text("0.99")
    expect(rows.first).to_contain_text(filled.labels[surest])
    visit.keep_screenshot("spc-data-manager")
    visit.act_on(0, "Find similar")
    page.wait_for_url(f"**/planktrait/projects/{filled.project.id}/gallery?similar={surest}")
    expect(page.locator("#status")).to_contain_text("most similar first")
    window.wait()
    visit.keep_screenshot("spc-find-similar")
    page.get_by_role("link", name="Model", exact=True).click()
    expect(page.locator("#versions")).to_contain_text("start a training")
    expect(page.locator("#jobs")).to_contain_text("clusters")
    visit.keep_screenshot("spc-model")
    page.get_by_role("link", name="Data", exact=True).click()
    expect(page.locator("#folders button", has_text="spc")).to_be_visible()
    expect(page.locator('[data-step="import"]')).to_have_text("60 images")
    visit.keep_screenshot("spc-data")
    page.get_by_role("link", name="Counts").click()
    expect(page.locator("#count-checks")).to_contain_text("There is no model yet")
    assert {"sample", "day"} <= set(page.locator("#count-by option").all_inner_texts())
    visit.keep_screenshot("spc-counts")


def tab_of_columns(filled: Filled, order: str) -> int:
    """A tab of the Data Manager with our columns alone, in an order."""
    columns = filled.api.get("/api/dm/columns", project=filled.project.id)["columns"]
    shown = {"id", "image", "suggested_label", "confidence", "second_choice", "novelty", "data"}
    hidden = [
        f"tasks:{'data.' if column.get('parent') == 'data' else ''}{column['id']}"
        for column in columns
        if column["id"] not in shown
    ]
    data = {
        "title": "Our columns",
        "type": "list",
        "ordering": [order],
        "filters": {"conjunction": "and", "items": []},
        "hiddenColumns": {"explore": hidden, "labeling": []},
    }
    view = filled.api.post("/api/dm/views/", {"project": filled.project.id, "data": data})
    return int(view["id"])
