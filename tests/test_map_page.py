"""The map of features in Chromium, with the real backend: drawn by a job, seen, chosen from."""

from __future__ import annotations

import io
import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from label_studio_config.results import write_result
from tests.browser_fixtures import Visit, visiting
from tests.gallery_page_fixtures import Filled, Shelf

pytestmark = pytest.mark.slow
expect.set_options(timeout=20_000)

COUNT = 700


@pytest.fixture(scope="module")
def filled(shelf_with_backend: Shelf) -> Filled:
    return shelf_with_backend.assorted("Map", COUNT)


@dataclass
class Map:
    """The map in a window."""

    visit: Visit
    filled: Filled

    @property
    def page(self) -> Page:
        return self.visit.page

    @property
    def box(self) -> Locator:
        return self.page.locator("#view-map")

    @property
    def canvas(self) -> Locator:
        return self.page.locator("#view-map canvas")

    def open(self) -> Map:
        """Go there."""
        self.page.goto(f"{self.filled.address}?tab=map")
        return self

    def drawn(self) -> Map:
        """Until it is drawn."""
        expect(self.canvas).to_have_attribute("data-window", re.compile(r"\d"), timeout=240_000)
        return self.settled()

    def settled(self) -> Map:
        """Until it no longer moves."""
        self.page.wait_for_function(
            """async () => {
              const canvas = document.querySelector('#view-map canvas');
              const before = canvas.dataset.window;
              for (let i = 0; i < 3; i += 1) await new Promise(requestAnimationFrame);
              return before === canvas.dataset.window && canvas.ariaBusy === 'false';
            }"""
        )
        return self

    @cached_property
    def places(self) -> dict[int, tuple[float, float]]:
        """By task, on the map."""
        told = self.filled.api.get(f"/api/planktrait/projects/{self.filled.project.id}/map")
        pairs = zip(told["x"], told["y"], strict=True)
        return dict(zip(told["task"], pairs, strict=True))

    def on_screen(self, *tasks: int) -> list[tuple[float, float]]:
        """Where tasks are in the window, in px."""
        left, top, right, low = map(float, self.canvas.get_attribute("data-window").split())
        box = self.canvas.bounding_box()
        across, down = box["width"] / (right - left), box["height"] / (top - low)
        places = [self.places[task] for task in tasks]
        return [(box["x"] + (x - left) * across, box["y"] + (top - y) * down) for x, y in places]

    def pixels(self) -> np.ndarray:
        """What the canvas shows, RGB."""
        box = self.canvas.bounding_box()
        picture = Image.open(io.BytesIO(self.page.screenshot(clip=box, animations="disabled")))
        return np.asarray(picture.convert("RGB")).astype(int)

    def count(self, colour: tuple[int, ...]) -> int:
        """Pixels of about a colour."""
        return int((np.abs(self.pixels() - colour).max(axis=2) < 12).sum())

    def entry(self, name: str) -> Locator:
        """One of the legend."""
        return self.box.locator(".legend-list button").filter(has_text=re.compile(f"^{name}"))

    def lasso(self, path: list[tuple[float, float]], *, shift: bool = True) -> None:
        """Drag along a path, in px of the window."""
        mouse, keyboard = self.page.mouse, self.page.keyboard
        if shift:
            keyboard.down("Shift")
        mouse.move(*path[0])
        mouse.down()
        for place in path[1:]:
            mouse.move(*place, steps=4)
        mouse.up()
        if shift:
            keyboard.up("Shift")

    def chosen(self) -> Locator:
        return self.box.locator(".map-bar .selected")


@pytest.fixture
def the_map(browser, filled: Filled) -> Iterator[Map]:
    with visiting(browser, filled.shelf.server) as visit:
        yield Map(visit, filled).open()


def test_it_is_drawn_by_a_job(the_map: Map, filled: Filled) -> None:
    box, page = the_map.box, the_map.page
    expect(box).to_contain_text("A map lays all images on one plane")
    the_map.visit.keep_screenshot("map-none")
    box.get_by_role("button", name="Draw the map").click()
    expect(box.locator(".error")).to_contain_text("Learn features from all images")
    the_map.visit.our_errors[:] = [e for e in the_map.visit.our_errors if "409" not in e]

    filled.learn()
    box.get_by_role("button", name="Draw the map").click()
    expect(box).to_contain_text("Being drawn")
    the_map.drawn()
    blind = [task for i, task in enumerate(filled.tasks) if i % 50 == 49]
    assert set(the_map.places) == set(filled.tasks) - set(blind)
    n = len(the_map.places)
    expect(box.locator(".what")).to_contain_text(f"{n} images")
    expect(the_map.canvas).to_have_attribute("role", "application")
    expect(the_map.canvas).to_have_attribute(
        "aria-label", re.compile(f"^Map of {n} images, coloured by suggested label")
    )
    shown = the_map.pixels()
    ground = shown[2, 2]
    assert 0.01 < (np.abs(shown - ground).max(axis=2) > 20).mean() < 0.7
    # Every place of an image has something on it.
    bounds = the_map.canvas.bounding_box()
    for x, y in the_map.on_screen(*random.Random(1).sample(sorted(the_map.places), 40)):
        pixel = shown[int(y - bounds["y"]), int(x - bounds["x"])]
        assert np.abs(pixel - ground).max() > 15, (x, y)
    the_map.visit.keep_screenshot("map-light")
    page.evaluate("window.planktraitScheme.set('Dark')")
    the_map.settled()
    the_map.visit.keep_screenshot("map-dark")


def test_an_image_is_shown_with_its_suggestion(the_map: Map, filled: Filled) -> None:
    the_map.drawn()
    page, card = the_map.page, the_map.box.locator(".map-card")
    task = _alone(the_map)
    page.mouse.move(*the_map.on_screen(task)[0])
    expect(card).to_be_visible()
    expect(card.locator(".facts")).to_contain_text(f"#{task}")
    assert card.locator("img").evaluate("picture => picture.naturalWidth") > 5
    if task in filled.labels:
        expect(card.locator(".first span").first).to_have_text(filled.labels[task])
        expect(card.locator(".first b")).to_have_text(re.compile(r"\d+(\.\d)? %"))
    else:
        expect(card).to_contain_text("Not suggested")
    the_map.visit.keep_screenshot("map-hover")
    page.mouse.move(5, 5)
    expect(card).to_be_hidden()


def test_colours_and_what_is_seen_alone(the_map: Map, filled: Filled) -> None:
    the_map.drawn()
    box, page = the_map.box, the_map.page
    on_map = set(the_map.places)
    counts = Counter(label for task, label in filled.labels.items() if task in on_map)
    names = box.locator(".legend-list .name").all_inner_texts()
    assert names[:-1] == sorted(names[:-1], key=lambda name: -counts[name])
    assert names[-1] == "Not suggested"
    for name, count in counts.items():
        expect(the_map.entry(name)).to_have_attribute("aria-label", f"{name}, {count} images")
    most = names[0]
    swatch = the_map.entry(most).locator(".swatch")
    colour = tuple(map(int, re.findall(r"\d+", swatch.evaluate("e => e.style.backgroundColor"))))
    grey = the_map.entry("Not suggested").locator(".swatch")
    assert the_map.count(colour) > 50
    # Alone, it is all that has a colour.
    the_map.entry(names[1]).click()
    the_map.settled()
    assert the_map.count(colour) == 0
    expect(the_map.entry(names[1])).to_have_attribute("aria-pressed", "true")
    expect(the_map.canvas).to_have_attribute("aria-label", re.compile(f"{names[1]} alone"))
    the_map.visit.keep_screenshot("map-alone")
    the_map.entry(most).click(modifiers=["Control"])
    the_map.settled()
    assert the_map.count(colour) > 50
    box.get_by_role("button", name="Show all").click()
    assert grey.evaluate("e => e.style.backgroundColor")

    box.get_by_role("button", name="Confidence").click()
    the_map.settled()
    expect(the_map.canvas).to_have_attribute("aria-label", re.compile("coloured by confidence"))
    bins = box.locator(".legend-list .count").all_inner_texts()
    assert sum(map(int, bins)) == len(on_map)
    assert int(bins[-1]) == len(on_map) - counts.total()
    assert the_map.count(colour) == 0
    the_map.visit.keep_screenshot("map-confidence")
    page.evaluate("window.planktraitScheme.set('Dark')")
    the_map.settled()
    the_map.visit.keep_screenshot("map-confidence-dark")
    page.evaluate("window.planktraitScheme.set('Light')")
    box.get_by_role("button", name="State").click()
    expect(the_map.entry("Suggested")).to_have_attribute(
        "aria-label", re.compile(f"{counts.total()} images")
    )
    page.reload()
    the_map.drawn()
    expect(box.get_by_role("button", name="State")).to_have_attribute("aria-pressed", "true")


def test_a_lasso_opens_in_the_gallery(the_map: Map, filled: Filled) -> None:
    the_map.drawn()
    page = the_map.page
    ((x, y),) = the_map.on_screen(_alone(the_map))
    sides = [(x - 90, y - 70), (x + 90, y - 70), (x + 90, y + 70), (x - 90, y + 70)]
    the_map.lasso([*sides, sides[0]])
    inside = _within(the_map, sides)
    assert 3 < len(inside) < len(the_map.places) / 2
    expect(the_map.chosen()).to_have_text(f"{len(inside)} images")
    expect(page.locator("#live")).to_have_text(f"{len(inside)} images chosen.")
    the_map.visit.keep_screenshot("map-lasso")
    page.keyboard.press("Escape")
    expect(the_map.box.get_by_role("button", name="Open in gallery")).to_be_hidden()

    # With one label alone, only that is taken; the button of the lasso does without Shift.
    label = Counter(filled.labels[task] for task in inside if task in filled.labels)
    most = label.most_common(1)[0][0]
    the_map.entry(most).click()
    the_map.box.get_by_role("button", name="Lasso").click()
    the_map.lasso([*sides, sides[0]], shift=False)
    some = {task for task in inside if filled.labels.get(task) == most}
    expect(the_map.chosen()).to_have_text(re.compile(rf"^{len(some)} images?$"))
    for _ in range(3):
        page.keyboard.press("Escape")
    expect(the_map.entry(most)).to_have_attribute("aria-pressed", "false")

    the_map.lasso([*sides, sides[0]])
    the_map.box.get_by_role("button", name="Open in gallery").click()
    expect(page.locator("#count")).to_have_text(f"{len(inside)} of {len(inside)} images")
    expect(page.locator("#similar-chip")).to_have_text(re.compile("^On the map"))
    shown: set[int] = set()
    while len(shown) < len(inside):
        cells = page.locator("#mosaic .cell").all()
        now = {int(cell.get_attribute("data-task") or 0) for cell in cells}
        assert now - shown, "the gallery does not go on"
        shown |= now
        page.keyboard.press("PageDown")
        page.wait_for_timeout(100)
    assert shown == inside
    the_map.visit.keep_screenshot("map-opened")
    # What is judged is seen on the map, and still opens with the others.
    result = write_result(filled.project.schema, {filled.primary: "Copepod"})
    filled.api.post(f"/api/tasks/{min(inside)}/annotations/", {"result": result})
    page.locator("#tab-map").click()
    expect(the_map.chosen()).to_have_text(f"{len(inside)} images")
    the_map.box.get_by_role("button", name="State").click()
    expect(the_map.entry("Your own answer")).to_have_attribute("aria-label", re.compile("1 image$"))
    page.keyboard.press("Enter")
    expect(page.locator("#count")).to_have_text(f"{len(inside)} of {len(inside)} images")
    expect(page.locator("#show")).to_have_value("any")


def test_the_keyboard_does_it_too(the_map: Map) -> None:
    the_map.drawn()
    page = the_map.page

    def window() -> list[float]:
        the_map.settled()
        return [float(one) for one in the_map.canvas.get_attribute("data-window").split()]

    whole = window()
    page.keyboard.press("+")
    near = window()
    assert near[2] - near[0] == pytest.approx((whole[2] - whole[0]) / 1.5)
    page.keyboard.press("ArrowRight")
    assert window()[0] > near[0]
    page.keyboard.press("0")
    assert window() == pytest.approx(whole)
    # The wheel leaves what is under the pointer where it is.
    task = _alone(the_map)
    (before,) = the_map.on_screen(task)
    page.mouse.move(*before)
    page.mouse.wheel(0, -400)
    assert window()[2] - window()[0] < whole[2] - whole[0]
    assert the_map.on_screen(task)[0] == pytest.approx(before, abs=1)
    page.mouse.down()
    page.mouse.move(before[0] + 60, before[1] - 40)
    page.mouse.up()
    the_map.settled()
    moved = (before[0] + 60, before[1] - 40)
    assert the_map.on_screen(task)[0] == pytest.approx(moved, abs=1)
    page.keyboard.press("0")
    the_map.settled()
    page.keyboard.press("a")
    expect(the_map.chosen()).to_have_text(f"{len(the_map.places)} images")
    page.keyboard.press("?")
    expect(page.locator("#help-body")).to_contain_text("Draw a lasso")
    the_map.visit.keep_screenshot("map-help")
    page.keyboard.press("Escape")
    page.keyboard.press("Enter")
    expect(page.locator("#count")).to_contain_text(f"of {len(the_map.places)} images")


def test_what_came_since_and_what_became_blind(the_map: Map, filled: Filled) -> None:
    the_map.drawn()
    n = len(the_map.places)
    task = next(task for task in the_map.places if task in filled.labels)
    data = filled.api.get(f"/api/tasks/{task}/")["data"]
    filled.api.patch(f"/api/tasks/{task}/", {"data": {**data, "blind": "yes"}})
    again = {**data, "image_id": "again"}
    filled.api.post(f"/api/projects/{filled.project.id}/import", [{"data": again}])
    the_map.open().drawn()
    expect(the_map.box.locator(".what")).to_contain_text(f"{n - 1} images")
    expect(the_map.box.locator(".map-note")).to_have_text("1 new image is not on it yet")
    the_map.visit.keep_screenshot("map-stale")
    the_map.box.get_by_role("button", name="Draw again").click()
    expect(the_map.box.locator(".map-note")).to_contain_text("Being drawn")
    expect(the_map.box.locator(".map-note")).to_have_text("", timeout=240_000)
    expect(the_map.box.locator(".what")).to_contain_text(f"{n} images")
    now = Map(the_map.visit, filled).places
    assert task not in now
    assert len(set(now) - set(the_map.places)) == 1
    filled.api.patch(f"/api/tasks/{task}/", {"data": data})


def test_a_browser_without_webgl_and_a_server_without_backend_say_so(the_map: Map) -> None:
    page = the_map.page
    page.add_init_script(
        """const get = HTMLCanvasElement.prototype.getContext;
        HTMLCanvasElement.prototype.getContext = function (kind, ...more) {
          return kind === "webgl2" ? null : get.call(this, kind, ...more);
        };"""
    )
    page.reload()
    expect(the_map.box).to_contain_text("WebGL 2 is missing or turned off")
    the_map.visit.keep_screenshot("map-without-webgl")
    page.route("**/map/state", lambda route: route.fulfill(status=503, json={"detail": "away"}))
    page.reload()
    expect(the_map.box).to_contain_text("needs the ML backend, which does not answer")
    the_map.visit.our_errors[:] = [e for e in the_map.visit.our_errors if "503" not in e]


def _alone(the_map: Map) -> int:
    """A task near the middle that lies apart from all others, so that a pointer meets only it."""
    tasks = list(the_map.places)
    places = np.array([the_map.places[task] for task in tasks])
    apart = np.hypot(*(places[:, None] - places[None]).transpose(2, 0, 1))
    np.fill_diagonal(apart, np.inf)
    middle = np.abs(places).max(axis=1) < 0.6
    return tasks[int(np.argmax(np.where(middle, apart.min(axis=1), -1)))]


def _within(the_map: Map, sides: list[tuple[float, float]]) -> set[int]:
    """Tasks in an upright rectangle of the window."""
    (left, top), (right, low) = sides[0], sides[2]
    tasks = list(the_map.places)
    places = zip(tasks, the_map.on_screen(*tasks), strict=True)
    return {task for task, (x, y) in places if left < x < right and top < y < low}
