"""The gallery on colour images of the Scripps Plankton Camera, small and large, in Chromium.

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


def test_clusters_and_what_looks_like_a_file(camera: Camera, window: Window) -> None:
    page = window.page
    page.goto(f"{camera.filled.address}?tab=clusters")
    page.locator("#view-clusters").get_by_role("button", name="Make clusters").click()
    rows = page.locator("#view-clusters .cluster:not(.aside)")
    expect(rows.first).to_be_visible(timeout=240_000)
    expect(page.locator("#view-clusters .cluster.aside .strip i").first).to_be_visible()
    window.visit.keep_screenshot("spc-clusters")
    window.open("?all=1")
    # A large one, of 1,000 pixels and more.
    image = camera.images.sort_values("longest").iloc[-2]
    page.set_input_files("#upload-file", image.file)
    expect(page.locator("#similar-chip")).to_contain_text(f"Like {image.file.name}")
    window.wait()
    assert window.in_view()[0] == image.task
    window.visit.keep_screenshot("spc-similar")
