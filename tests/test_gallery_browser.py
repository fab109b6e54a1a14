"""The gallery in Chromium: what an annotator sees, selects and judges, and what is then saved."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import requests
from playwright.sync_api import expect

from label_studio_config.project import create_project
from label_studio_config.results import read_result
from tests.browser_fixtures import visiting
from tests.gallery_page_fixtures import PIXEL_SIZE_UM, Filled, Window, shelf, window_on

__all__ = ["shelf"]

pytestmark = pytest.mark.slow
expect.set_options(timeout=20_000)

SCRIPT = "<script>alert(1)</script>"
CONFIG = """<View><Image name="image" value="$image"/>
<Choices name="group" toName="image" choice="single">
  <Choice value="Copepod" hotkey="c"/><Choice value="&lt;script&gt;alert(1)&lt;/script&gt;"/>
  <Choice value="Not assessable" role="not_assessable"/>
</Choices>
<Choices name="egg_sac" toName="image" choice="single">
  <Choice value="present"/><Choice value="absent"/>
</Choices></View>"""


@pytest.fixture
def filled(shelf) -> Filled:
    return shelf.project(420)


@pytest.fixture
def window(browser, filled) -> Iterator[Window]:
    with window_on(browser, filled) as opened:
        yield opened.open()


def labels_saved(filled: Filled, task_id: int) -> list[str]:
    """What the people who judged a task said."""
    schema = filled.project.schema
    return [
        "".join(read_result(schema, annotation["result"])[filled.primary].labels)
        for annotation in filled.annotations().get(task_id, [])
    ]


def test_each_page_of_a_project_links_to_its_gallery(browser, shelf):
    filled = shelf.project(25)
    link = "a.planktrait-gallery-link"
    with visiting(browser, shelf.server) as visit:
        page = visit.page
        page.goto(f"{shelf.server.url}/projects")
        page.get_by_text(filled.project.name).first.wait_for()
        expect(page.locator(link)).to_have_count(0)
        page.get_by_text(filled.project.name).first.click()
        expect(page.locator(link)).to_be_visible()
        # Label Studio throws where its pages are left before they are complete.
        page.get_by_text("Submitted annotations: 0").wait_for()
        visit.keep_screenshot("gallery-link")
        page.get_by_role("link", name="Settings").click()
        page.get_by_text("General Settings").wait_for()
        expect(page.locator(link)).to_be_visible()
        page.locator(link).click()
        page.wait_for_url(re.compile(r"/planktrait/projects/\d+/gallery"))
        Window(visit, filled).wait()
        page.get_by_role("link", name="Data Manager").click()
        page.get_by_text("Submitted annotations: 0").wait_for()
        expect(page.locator(link)).to_be_visible()


def test_the_page_and_its_files_are_served_only_as_they_should(shelf, filled):
    url = shelf.server.url
    anonymous = requests.get(filled.address, timeout=30, allow_redirects=False)
    assert anonymous.status_code == 302
    assert "/user/login" in anonymous.headers["Location"]
    for path in (
        *("../pages.py", "%2e%2e/pages.py", "..%2f..%2fpages.py", "gallery.html", "nothing.js"),
        *("x/../../pages.py", "x/..%2fpages.py"),
    ):
        answer = requests.get(f"{url}/planktrait/static/{path}", timeout=30)
        assert answer.status_code == 404, path
    script = requests.get(f"{url}/planktrait/static/old-version/main.js", timeout=30)
    assert script.headers["Content-Type"].startswith("text/javascript")
    assert script.headers["Cache-Control"] == "no-cache"


def test_the_policy_lets_in_nothing_from_elsewhere(browser, filled):
    with window_on(browser, filled) as window:
        page = window.page
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        answer = page.goto(filled.address)
        window.wait()
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        outside = [url for url in asked if not url.startswith(filled.shelf.server.url)]
        assert not outside
        kept = [url for url in asked if url.endswith("/main.js")]
        assert page.request.get(kept[0]).headers["cache-control"].endswith("immutable")
        missing = page.goto(f"{filled.shelf.server.url}/planktrait/projects/999999/gallery")
        assert missing.status == 404
        window.forgive("404")


def test_what_is_seen_first(window, filled):
    page = window.page
    names = page.locator("#labels .name").all_inner_texts()
    assert names[:2] == ["All suggested", "Copepod"]
    assert names[-1] == "Not suggested"
    expect(page.locator("#count")).to_have_text(f"{len(filled.suggested('Copepod'))} to judge")
    seen = window.in_view()
    assert seen == filled.suggested("Copepod")[: len(seen)]
    assert len(seen) > 20
    expect(page.locator("#accept")).to_have_text(re.compile(f"Accept {len(seen)} in view"))
    # One scale for all: pixels on the screen per pixel of the image.
    shown = page.evaluate(
        """() => [...document.querySelectorAll('.row:not(.cut) .cell:not([data-shrunk]) .crop')]
             .map(crop => [crop.parentElement.dataset.task, crop.offsetWidth, crop.offsetHeight])"""
    )
    crops = filled.api.get(
        f"/api/planktrait/projects/{filled.project.id}/gallery/page",
        tasks=",".join(task for task, _, _ in shown),
        limit=200,
    )["crops"]
    native = {crop["task"]: (crop["width_px"], crop["height_px"]) for crop in crops}
    for task, width, height in shown:
        assert (width, height) == pytest.approx(native[int(task)], abs=1)
    length, unit = page.locator("#scale-bar span").inner_text().split()
    um = float(length) * {"µm": 1, "mm": 1000}[unit]
    bar = page.locator("#scale-bar i").bounding_box()
    assert bar["width"] == pytest.approx(um / PIXEL_SIZE_UM, abs=1)
    window.visit.keep_screenshot("gallery-light")


def test_the_colours_are_label_studios(browser, filled):
    with window_on(browser, filled) as window:
        window.visit.open_data_manager(filled.project.id)
        window.page.locator("a.planktrait-gallery-link").wait_for()
        window.visit.darken()
        window.open()
        assert window.page.evaluate("document.documentElement.dataset.colorScheme") == "dark"
        ground = window.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert ground == "rgb(38, 37, 34)"
        window.visit.keep_screenshot("gallery-dark")
        window.page.get_by_role("button", name="Dark").click()
        window.page.emulate_media(color_scheme="light")
        expect(window.page.locator("html")).to_have_attribute("data-color-scheme", "light")
        window.page.emulate_media(color_scheme="dark")
        expect(window.page.locator("html")).to_have_attribute("data-color-scheme", "dark")
        window.visit.open_data_manager(filled.project.id)
        expect(window.page.get_by_role("button", name="Auto")).to_be_visible()


def test_a_page_is_accepted_with_one_key_and_taken_back(window, filled):
    first = window.in_view()
    window.press("Enter")
    window.says(f"Accepted: {len(first)} images saved.")
    window.wait()
    second = window.in_view()
    assert not set(first) & set(second)
    assert second[0] == filled.suggested("Copepod")[len(first)]
    expect(window.page.locator("#pace")).to_contain_text(f"{len(first)} this visit")
    # A finger that strikes twice: nobody has seen the third page.
    window.look().press("Enter", "Enter")
    expect(window.page.locator("#pace")).to_contain_text(f"{len(first) + len(second)} this visit")
    saved = filled.annotations()
    assert set(saved) == {*first, *second}
    leads = {round(saved[task][0]["lead_time"], 4) for task in first}
    assert len(leads) == 1
    assert leads.pop() > 0
    for task in (first[0], second[-1]):
        (annotation,) = saved[task]
        assert annotation["parent_prediction"]
        assert annotation["prediction"]
        assert labels_saved(filled, task) == ["Copepod"]
    window.press("Control+z")
    window.says(f"Undone: {len(second)} images.")
    assert window.selected() >= set(second[:20])
    window.press("Control+z")
    window.says(f"Undone: {len(first)} images.")
    assert not filled.annotations()
    window.press("Control+z")
    window.says("nothing to undo")
    window.wait()
    assert window.in_view() == first
    expect(window.page.locator("#pace")).to_contain_text("0 this visit")


def test_mouse_and_keyboard_select(window):
    tasks = window.in_view()
    window.cell(tasks[3]).click()
    assert window.selected() == {tasks[3]}
    window.cell(tasks[8]).click(modifiers=["Shift"])
    assert window.selected() == set(tasks[3:9])
    window.cell(tasks[5]).click(modifiers=["Control"])
    window.cell(tasks[11]).click(modifiers=["Control"])
    assert window.selected() == {*tasks[3:5], *tasks[6:9], tasks[11]}
    expect(window.page.locator("#selected")).to_have_text("6 selected")
    window.press("Escape")
    assert window.selected() == set()

    # The rubber band takes what it touches.
    box = window.cell(tasks[0]).bounding_box()
    end = window.cell(tasks[4]).bounding_box()
    mouse = window.page.mouse
    mouse.move(box["x"] + 2, box["y"] + 2)
    mouse.down()
    mouse.move(end["x"] + 3, box["y"] + 30, steps=5)
    assert window.selected() == set(tasks[:5])
    window.visit.keep_screenshot("gallery-band")
    mouse.up()
    window.press("Escape")

    window.cell(tasks[0]).click()
    window.press("ArrowRight", "ArrowRight", "Space")
    assert window.selected() == {tasks[0], tasks[2]}
    window.press("Escape", "Shift+ArrowRight", "Shift+ArrowRight")
    assert window.selected() == set(tasks[2:5])
    window.press("Escape", "ArrowDown", "ArrowUp", "Space")
    assert len(window.selected()) == 1
    window.press("Control+a")
    assert window.selected() == set(tasks)
    window.press("Escape", "Home")
    active = window.page.locator("#mosaic").get_attribute("aria-activedescendant")
    assert window.page.locator(f"#{active}").count() == 1


def test_labels_are_assigned_by_typing_and_by_hotkey(window, filled):
    tasks = window.in_view()
    window.cell(tasks[0]).click()
    window.cell(tasks[1]).click(modifiers=["Shift"])
    window.press("/")
    window.page.keyboard.type("mar sn")
    expect(window.page.locator("#typeahead-title")).to_have_text("Assign to 2 selected images")
    expect(window.page.locator("#typeahead li").first).to_contain_text("Marine snow")
    window.visit.keep_screenshot("gallery-typeahead")
    window.press("Enter")
    window.says("Marine snow: 2 images saved.")
    expect(window.cell(tasks[0])).to_have_count(0)
    window.cell(tasks[2]).click()
    window.press("m")
    window.says("Medusa: 1 image saved.")
    # h is nobody's hotkey: it opens the list, where a click chooses.
    window.cell(tasks[3]).click()
    window.press("h")
    expect(window.page.locator("#typeahead-input")).to_have_value("h")
    window.page.locator("#typeahead li", has_text="Rhizaria").click()
    window.says("Rhizaria: 1 image saved.")
    assert labels_saved(filled, tasks[1]) == ["Marine snow"]
    assert labels_saved(filled, tasks[2]) == ["Medusa"]
    assert labels_saved(filled, tasks[3]) == ["Rhizaria"]
    (annotation,) = filled.annotations()[tasks[1]]
    assert annotation["parent_prediction"]
    # With nothing selected it finds the images of a label.
    window.press("/")
    window.page.keyboard.type("diat")
    window.press("Enter")
    expect(window.page.locator("#title")).to_have_text("Diatom chain")
    window.wait()
    assert window.in_view()[0] == filled.suggested("Diatom chain")[0]


def test_an_answer_that_somebody_gave_meanwhile_is_shown(window, filled):
    anna = filled.colleague()
    tasks = window.in_view()
    filled.annotate(anna, tasks[1], "Rhizaria")
    filled.annotate(anna, tasks[4], "Medusa")
    window.press("Enter")
    window.says(f"Accepted: {len(tasks) - 2} images saved, 2 not")
    expect(window.cell(tasks[1])).to_contain_text("Rhizaria")
    expect(window.cell(tasks[1])).to_contain_text(anna.email.split("@")[0])
    expect(window.cell(tasks[4])).to_have_attribute("data-state", "conflicting")
    expect(window.cell(tasks[4])).to_have_attribute("aria-label", re.compile("said Medusa"))
    expect(window.page.locator("#conflicts")).to_contain_text("2 judgements not saved")
    window.visit.keep_screenshot("gallery-conflicts")
    assert labels_saved(filled, tasks[1]) == ["Rhizaria"]
    window.page.get_by_role("button", name="Show").click()
    assert window.selected() == {tasks[1]}
    window.press("Escape", "Escape")
    expect(window.page.locator("#conflicts")).to_be_hidden()
    expect(window.cell(tasks[1])).to_have_count(0)


def test_nothing_is_lost_when_the_server_does_not_answer(window, filled):
    page = window.page
    page.on("dialog", lambda dialog: dialog.accept())
    tasks = window.in_view()
    page.context.route("**/judgements", lambda route: route.abort())
    window.press("Enter")
    window.says(f"{len(tasks)} judgements not saved yet")
    # The first or the last of them, whether the next page was shown meanwhile or not.
    unsaved = page.locator(".cell[data-state=unsaved]").first
    expect(unsaved).to_contain_text("Not saved yet")
    assert int(unsaved.get_attribute("data-task")) in tasks
    window.wait()
    window.visit.keep_screenshot("gallery-unsaved")
    page.reload()
    expect(page.locator("#unsaved")).to_contain_text(f"{len(tasks)} judgements not saved yet")
    assert not filled.annotations()
    page.context.unroute("**/judgements")
    page.get_by_role("button", name="Retry").click()
    window.says(f"{len(tasks)} images saved.")
    expect(page.locator("#unsaved")).to_be_hidden()
    assert set(filled.annotations()) == set(tasks)
    page.reload()
    window.wait()
    expect(page.locator("#unsaved")).to_be_hidden()

    # Discarding puts the crops back as they were.
    page.context.route("**/judgements", lambda route: route.abort())
    again = window.in_view()
    window.cell(again[0]).click()
    window.press("Enter")
    window.says("1 judgement not saved yet")
    page.get_by_role("button", name="Discard").click()
    expect(window.cell(again[0])).to_have_attribute("data-state", "suggested")
    window.forgive("ERR_FAILED")


def test_an_answer_that_is_lost_is_no_second_judgement(browser, shelf):
    filled = shelf.project(40)
    with window_on(browser, filled) as window:
        page = window.open().page
        first, second, third = window.in_view()[:3]

        def lose(route):
            route.fetch()
            route.abort()

        page.route("**/judgements", lose)
        window.cell(first).click()
        window.press("Enter")
        window.says("1 judgement not saved yet")
        assert list(filled.annotations()) == [first]
        # Taken back, also where the server has it.
        with page.expect_response("**/judgements/undo"):
            window.press("Control+z")
        window.says("Taken back")
        assert filled.annotations() == {}
        window.wait().look()
        window.cell(second).click()
        window.press("Enter")
        window.says("1 judgement not saved yet")
        ((annotation,),) = filled.annotations().values()
        page.unroute("**/judgements")
        page.get_by_role("button", name="Retry").click()
        window.says("1 image saved")
        assert filled.annotations() == {second: [annotation]}
        window.press("Control+z")
        window.says("Undone: 1 image")
        assert filled.annotations() == {}

        # A browser without room for what is not saved says so, and sends it all the same.
        page.evaluate(
            """() => {
              const keep = Storage.prototype.setItem;
              Storage.prototype.setItem = function (key, text) {
                if (key.includes("unsaved")) throw new DOMException("full", "QuotaExceededError");
                return keep.call(this, key, text);
              };
            }"""
        )
        page.route("**/judgements", lambda route: route.abort())
        window.press("Escape")
        window.cell(third).click()
        window.press("Enter")
        expect(page.locator("#unsaved")).to_contain_text("leave this page open")
        page.unroute("**/judgements")
        page.get_by_role("button", name="Retry").click()
        window.says("1 image saved")
        assert list(filled.annotations()) == [third]
        window.forgive("ERR_FAILED")


def test_an_older_judgement_never_overwrites_a_newer_one(browser, shelf):
    filled = shelf.project(40)
    with window_on(browser, filled) as window:
        page = window.open("?state=any").page
        first, second = window.in_view()[:2]
        held = []

        def hold_first(route):
            held.append(route)
            if len(held) > 1:
                route.continue_()

        page.route("**/judgements", hold_first)
        window.cell(first).click()
        window.cell(second).click(modifiers=["Shift"])
        window.press("Enter")
        window.cell(first).click()
        window.press("d")
        expect(window.cell(first)).to_have_attribute("data-state", "mine")
        assert len(held) == 1
        held[0].abort()
        window.says("Diatom chain: 1 image saved.")
        expect(page.locator("#unsaved")).to_contain_text("1 judgement not saved yet")
        page.get_by_role("button", name="Retry").click()
        window.says("Accepted: 1 image saved.")
        assert labels_saved(filled, first) == ["Diatom chain"]
        assert labels_saved(filled, second) == ["Copepod"]
        window.forgive("ERR_FAILED")


def test_where_nothing_is_left_nothing_is_shown(browser, shelf):
    filled = shelf.project(40)
    with window_on(browser, filled) as window:
        page = window.page
        answer = {"tasks": [], "considered": 0, "strategy": "mixture"}
        page.route("**/next", lambda route: route.fulfill(json=answer))
        page.goto(f"{filled.address}?order=next")
        expect(page.locator("#empty")).to_contain_text("What to label next: no images")
        expect(page.locator("#empty")).to_contain_text("Nothing is left to choose from")
        expect(page.locator("#count")).to_have_text("0 of 0 images")
        expect(page.locator("#accept")).to_be_disabled()
        expect(window.cells).to_have_count(0)
        window.visit.keep_screenshot("gallery-next-empty")

        # Far from the window only sizes are kept, but what was on the screen is still known.
        row = {
            "width_px": 9,
            "height_px": 9,
            "suggestion": {"label": "Copepod", "second_label": "x"},
        }

        def one_a_page(route):
            after = re.search(r"after=(\d+)", route.request.url)
            task = int(after[1]) + 1 if after else 1
            crop = {**row, "task": task, "suggestion": {**row["suggestion"], "prediction": task}}
            route.fulfill(json={"crops": [crop], "next": str(task), "seen_at": "2014-06-01T12:00Z"})

        page.route("**/gallery/page?**", one_a_page)
        kept = page.evaluate(
            """async () => {
              const main = document.querySelector('script[src$="main.js"]').src;
              const { Crops } = await import(main.replace("main.js", "crops.js"));
              const crops = new Crops();
              await crops.reset({});
              while (crops.pages.length < 101) await crops.more();
              crops.trim(100);
              const { thin, seenAt, suggestion } = crops.list[0];
              return { thin, seenAt, ...suggestion };
            }"""
        )
        assert kept["thin"] is True
        assert kept["prediction"] == 1
        assert kept["seenAt"] == "2014-06-01T12:00Z"
        assert "second_label" not in kept


def test_filters_stand_in_the_address(browser, window, filled):
    page = window.page
    page.get_by_role("button", name="Filters").click()
    page.get_by_label("Confidence to, percent").fill("80")
    page.get_by_label("Sample", exact=True).fill("cast-03")
    page.get_by_label("Depth from, metres").fill("10")
    page.wait_for_url("**confidence_to=0.8**sample=cast-03**")
    expect(page.locator("#chips .chip")).to_have_count(3)
    rows = filled.api.get(
        f"/api/planktrait/projects/{filled.project.id}/gallery/page",
        **{"control": filled.primary, "label": "Copepod", "confidence_to": 0.8},
        **{"sample": "cast-03", "depth_from": 10},
    )["crops"]
    expected = [row["task"] for row in rows]
    expect(page.locator("#count")).to_have_text(f"{len(expected)} to judge")
    window.wait()
    assert window.in_view() == expected[: len(window.in_view())]
    window.visit.keep_screenshot("gallery-filters")
    shared = page.url
    with window_on(browser, filled) as other:
        other.page.goto(shared)
        other.wait()
        assert other.in_view() == window.in_view()
    page.locator("#chips .chip", has_text="Sample").click()
    page.wait_for_url(lambda url: "sample" not in url)
    page.locator("#order").select_option("uncertain")
    page.wait_for_url("**order=uncertain**")
    window.wait()
    assert window.in_view()[0] == max(filled.suggested("Copepod"))
    page.get_by_role("button", name="Clear all").click()
    page.locator("#labels").get_by_role("button", name="Medusa").click()
    expect(page.locator("#title")).to_have_text("Medusa")
    page.go_back()
    expect(page.locator("#title")).to_have_text("Copepod")


def test_what_was_answered_is_found_by_its_label(browser, shelf):
    filled = shelf.project(60)
    anna = filled.colleague()
    copepods, medusae = filled.suggested("Copepod"), filled.suggested("Medusa")
    blind = next(task for task in filled.tasks if task not in filled.labels)
    answered = [copepods[3], medusae[0], blind]
    with window_on(browser, filled) as window:
        page = window.open().page
        for task in answered[:2]:
            filled.annotate(anna, task, "Diatom chain")
        filled.annotate(anna, copepods[5], "Medusa")
        window.open("?suggested=0").cell(blind).click()
        window.press("d")  # the hotkey of Diatom chain
        window.says("Diatom chain: 1 image saved.")
        window.open()
        page.get_by_role("button", name="Filters").click()
        page.get_by_label("Answered as").select_option("Diatom chain")
        page.wait_for_url("**answered=Diatom+chain**")
        expect(page.locator("#title")).to_have_text("All images")
        expect(page.locator("#count")).to_have_text("3 images")
        window.wait()
        assert window.in_view() == sorted(answered)
        expect(window.cell(blind)).to_have_attribute("data-state", "mine")
        chip = page.locator("#chips .chip", has_text="Answered Diatom chain")
        expect(chip).to_be_visible()
        # By what was suggested for them: where the model errs.
        medusa = page.locator("#labels").get_by_role("button", name="Medusa")
        expect(medusa.locator(".count")).to_have_text("1")
        window.visit.keep_screenshot("gallery-answered")
        page.reload()
        window.wait()
        assert window.in_view() == sorted(answered)
        expect(page.get_by_label("Answered as")).to_have_value("Diatom chain")
        page.locator("#control").select_option("image_quality")
        expect(chip).to_have_count(0)
        expect(page.get_by_label("Answered as").locator("option")).not_to_contain_text(
            ["Diatom chain"]
        )


def test_judged_images_stay_where_everything_is_shown(window, filled):
    page = window.page
    anna = filled.colleague()
    tasks = window.in_view()
    filled.annotate(anna, tasks[2], "Medusa")
    page.locator("#show").select_option("any")
    page.wait_for_url("**state=any**")
    expect(window.cell(tasks[2])).to_have_attribute("data-state", "others")
    window.cell(tasks[0]).click()
    window.press("Enter")
    expect(window.cell(tasks[0])).to_have_attribute("data-state", "accepted")
    window.cell(tasks[1]).click()
    window.press("d")
    window.says("Diatom chain: 1 image saved.")
    expect(window.cell(tasks[1])).to_have_attribute("data-state", "mine")
    expect(window.cell(tasks[1])).to_have_attribute("aria-label", re.compile("Diatom chain"))
    window.press("Shift+D")
    window.wait()
    window.cell(tasks[2]).hover()
    expect(page.locator("#card")).to_contain_text(f"{anna.email}: Medusa")
    window.visit.keep_screenshot("gallery-states")
    page.locator("#show").select_option("mine")
    expect(window.cells).to_have_count(1)


def test_images_without_a_suggestion_come_last_and_take_labels(window, filled):
    page = window.page
    rest = [task for task in filled.tasks if task not in filled.labels]
    page.locator("#labels").get_by_role("button", name="Not suggested").click()
    expect(page.locator("#count")).to_have_text(f"{len(rest)} to judge")
    window.wait()
    assert window.in_view() == rest
    expect(page.locator("#accept")).to_be_disabled()
    window.press("Enter")
    window.says("Nothing here has a suggestion")
    window.press("Control+a", "o")
    window.says(f"Appendicularian: {len(rest)} images saved.")
    expect(page.locator("#empty")).to_contain_text("nothing left to judge")
    window.visit.keep_screenshot("gallery-empty")
    assert all(labels_saved(filled, task) == ["Appendicularian"] for task in rest[:3])


def test_a_blind_image_shows_no_suggestion_and_is_in_no_group_of_one(browser, shelf):
    filled = shelf.project(60)
    # The most certain one becomes blind after its suggestion was saved.
    task = filled.suggested("Copepod")[0]
    data = filled.api.get(f"/api/tasks/{task}/")["data"]
    filled.api.patch(f"/api/tasks/{task}/", {"data": data | {"blind": "yes"}})
    rest = [one for one in filled.tasks if one not in filled.labels or one == task]
    with window_on(browser, filled) as window:
        page = window.page
        for order in ("certain", "uncertain", "novel", "task"):
            for group in ("all=1", "label=Copepod"):
                window.open(f"?state=any&{group}&order={order}")
                assert len(window.in_view()) > 20
                shown = window.to_the_end()
                assert len(shown) == int(page.locator("#count").inner_text().split()[0])
                assert task not in shown
        count = page.locator("#labels").get_by_role("button", name="Copepod").locator(".count")
        expect(count).to_have_text(str(len(filled.suggested("Copepod")) - 1))
        for filters in ("confidence_from=0.9", "novelty_from=0"):
            page.goto(f"{filled.address}?suggested=0&state=any&{filters}")
            expect(page.locator("#count")).to_have_text("0 images")
            expect(window.cells).to_have_count(0)
        window.open("?suggested=0")
        assert window.in_view() == rest
        cell = window.cell(task)
        expect(cell.locator(".bar")).to_be_hidden()
        words = cell.get_attribute("aria-label")
        assert words.startswith("Not suggested, ")
        assert ", blind, " in words
        window.press("Shift+D")
        expect(cell.locator(".caption b")).to_have_text("Blind")
        cell.hover()
        expect(page.locator("#card")).to_contain_text("Blind: never suggested")
        for shown in (cell, page.locator("#card")):
            assert "%" not in shown.inner_text()
            assert "Copepod" not in shown.inner_text()
        window.visit.keep_screenshot("gallery-blind")


def test_more_like_this(window, filled):
    page = window.page
    tasks = window.in_view()
    window.cell(tasks[0]).click()
    page.get_by_role("button", name="More like this").click()
    window.says("not ready on this server yet")
    window.forgive("503", "501", "404")
    found = [task for task in reversed(filled.tasks) if task in filled.labels][:60]
    answer = {
        "tasks": [{"task": task, "similarity": 1 - i / 100} for i, task in enumerate(found)],
        "features": {"n": 420, "missing": 0},
    }
    page.route("**/neighbours", lambda route: route.fulfill(json=answer))
    window.press("Shift+M")
    expect(page.locator("#title")).to_have_text("More like this")
    expect(page.locator("#count")).to_have_text("60 of 60 images")
    window.wait()
    assert window.in_view() == found[: len(window.in_view())]
    assert f"similar={tasks[0]}" in page.url
    window.visit.keep_screenshot("gallery-similar")
    page.locator("#similar-chip button").click()
    expect(page.locator("#title")).to_have_text("Copepod")


def test_only_what_is_near_the_window_is_in_the_page(window, filled):
    page = window.page
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.locator("#labels").get_by_role("button", name="All suggested").click()
    expect(page.locator("#title")).to_have_text("All suggested")
    window.wait()
    seen: list[int] = []
    expected = [task for task in filled.tasks if task in filled.labels]
    most = 0
    for _ in range(200):
        window.wait()
        for task in window.in_view():
            if task not in seen:
                seen.append(task)
        most = max(most, window.cells.count())
        end = page.evaluate(
            """() => { const box = document.getElementById('mosaic');
                       return box.scrollTop + box.clientHeight >= box.scrollHeight - 1; }"""
        )
        # What looks like the end may be a page that is on its way.
        if end and len(seen) == len(expected):
            break
        # One frame tells the page that it was scrolled, the next one draws what is near then.
        page.evaluate(
            """async () => {
              document.getElementById('mosaic').scrollBy(0, 180);
              for (let n = 0; n < 3; n++) await new Promise(requestAnimationFrame);
            }"""
        )
    assert seen == expected
    assert most < 330
    pages = sum("gallery/page" in url and "label=" not in url for url in asked)
    pictures = sum("gallery/sprite" in url for url in asked)
    assert pages <= 4
    assert pictures <= 3 * pages
    assert not [url for url in asked if "local-files" in url]


def test_sizes_and_words(window):
    page = window.page
    tasks = window.in_view()
    box = window.cell(tasks[0]).locator(".crop").bounding_box()
    window.press("+", "+", "+", "+")
    window.wait()
    larger = window.cell(tasks[0]).locator(".crop").bounding_box()
    assert larger["width"] == pytest.approx(2 * box["width"], rel=0.05)
    window.press("-", "-", "-", "-", "Shift+S")
    window.wait()
    sides = page.evaluate(
        """() => [...document.querySelectorAll('.crop')]
             .map(crop => Math.max(crop.offsetWidth, crop.offsetHeight))"""
    )
    assert max(sides) - min(sides) <= 1
    expect(page.locator("#scale-bar")).to_be_hidden()
    window.visit.keep_screenshot("gallery-same-size")
    window.press("Shift+S", "Shift+D")
    window.wait()
    for words in ("99 % Copepod", "1 % Cladoceran", "cast-01"):
        expect(window.cell(tasks[0]).locator(".caption")).to_contain_text(words)
    window.visit.keep_screenshot("gallery-details")
    page.reload()
    window.wait()
    expect(window.cell(tasks[0]).locator(".caption")).to_contain_text("99 % Copepod")


def test_a_screen_reader_and_a_keyboard_are_enough(window, filled):
    page = window.page
    grid = page.get_by_role("grid")
    expect(grid).to_have_attribute("aria-multiselectable", "true")
    for cell in page.get_by_role("gridcell").all()[:10]:
        words = cell.get_attribute("aria-label") or ""
        assert re.match(r"Copepod, [\d.]+ %, suggested, image \d+", words), words
    nameless = page.evaluate(
        """() => [...document.querySelectorAll('button, input, select, [role=grid], [role=tab]')]
             .filter(one => one.offsetParent !== null)
             .filter(one => !(one.getAttribute('aria-label') || one.textContent.trim()
                              || one.labels?.length || one.getAttribute('aria-labelledby')))
             .map(one => one.outerHTML)"""
    )
    assert not nameless
    # By Tab to the mosaic; from there with the arrows.
    page.keyboard.press("Tab")
    for _ in range(80):
        if page.evaluate("document.activeElement.id") == "mosaic":
            break
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "mosaic"
    window.press("ArrowRight", "Space", "ArrowRight", "Space")
    assert len(window.selected()) == 2
    window.visit.keep_screenshot("gallery-keyboard")
    window.press("Enter")
    window.says("Accepted: 2 images saved.")
    window.press("?")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    # Labels have the hotkeys a, m and s: what these letters did needs Shift.
    expect(dialog).to_contain_text("Shift+M")
    window.visit.keep_screenshot("gallery-help")
    window.press("Escape")
    expect(dialog).to_be_hidden()
    window.press("]")
    expect(page.locator("#title")).to_have_text("Medusa")
    window.press("[")
    expect(page.locator("#title")).to_have_text("Copepod")


def test_an_image_opens_in_the_editor(window, filled):
    tasks = window.in_view()
    with window.page.context.expect_page() as opened:
        window.cell(tasks[1]).dblclick()
    assert f"/projects/{filled.project.id}/data?task={tasks[1]}" in opened.value.url
    opened.value.close()
    window.cell(tasks[2]).click()
    with window.page.context.expect_page() as opened:
        window.press("Control+Enter")
    assert f"task={tasks[2]}" in opened.value.url


def test_labels_are_text_and_controls_can_be_changed(browser, shelf):
    filled = shelf.project(60, config=CONFIG)
    assert SCRIPT in filled.labels.values()
    with window_on(browser, filled) as window:
        page = window.open().page
        dialogs: list[str] = []
        page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
        page.locator("#labels").get_by_role("button", name=SCRIPT).click()
        expect(page.locator("#title")).to_have_text(SCRIPT)
        window.wait()
        task = window.in_view()[0]
        window.cell(task).hover()
        expect(page.locator("#card")).to_contain_text(SCRIPT)
        # No label has the hotkeys m, a, s: the letters do it alone.
        window.press("s")
        expect(page.locator("#same-size")).to_have_attribute("aria-pressed", "true")
        window.press("s")
        window.cell(task).click()
        window.press("/")
        window.page.keyboard.type("scr")
        expect(page.locator("#typeahead li").first).to_contain_text(SCRIPT)
        window.press("Enter")
        window.says(f"{SCRIPT}: 1 image saved.")
        assert labels_saved(filled, task) == [SCRIPT]
        expect(window.cell(task)).to_have_count(0)  # what is judged fades out first
        window.cell(window.in_view()[0]).click()
        window.press("/")
        window.page.keyboard.type("not a")
        window.press("Enter")
        window.says("Not assessable: 1 image saved.")
        page.locator("#control").select_option("egg_sac")
        expect(page.locator("#title")).to_have_text("Not suggested")
        window.wait()
        window.cell(window.in_view()[0]).click()
        window.press("/")
        window.page.keyboard.type("pres")
        window.press("Enter")
        window.says("present: 1 image saved.")
        assert not dialogs


def test_the_places_of_clusters_and_map(window):
    page = window.page
    for name in ("Clusters", "Map"):
        page.get_by_role("tab", name=name).click()
        expect(page.get_by_role("tab", name=name)).to_have_attribute("aria-selected", "true")
        expect(page.get_by_role("tabpanel")).to_contain_text(name)
    page.get_by_role("tab", name="Clusters").click()
    # This server has no backend, and says so; the console has the 503.
    expect(page.get_by_role("tabpanel")).to_contain_text("the ML backend, which does not answer")
    page.get_by_role("tab", name="Labels").click()
    expect(page.locator("#mosaic")).to_be_visible()
    page.wait_for_load_state("networkidle")
    window.forgive("503")


def test_a_config_that_the_gallery_cannot_show_says_so(browser, shelf):
    config = """<View><Image name="image" value="$image"/><RectangleLabels name="boxes"
    toName="image"><Label value="Copepod"/></RectangleLabels></View>"""
    project = create_project(shelf.server.home, "Only boxes", config)
    with window_on(browser, Filled(shelf, project)) as window:
        page = window.page
        page.goto(window.filled.address)
        expect(page.locator("#empty")).to_contain_text("The gallery does not open")
        expect(page.locator("#empty")).to_contain_text("the labeling config of this project")
        expect(page.locator("#loading")).to_be_hidden()
        window.forgive("400")
