"""The model and the Data Manager's actions in Chromium, on real images that two people judged."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, expect

from label_studio_config.api import Api
from label_studio_config.project import ProjectInfo, create_project
from label_studio_config.results import write_result
from label_studio_config.server_tasks import fetch_tasks
from label_studio_config.users import add_user
from ml_backend.fit import FitSettings
from ml_backend.registry import Registry
from ml_backend.train import train
from tests.backend_fixtures import await_jobs
from tests.browser_fixtures import Visit, visiting
from tests.gallery_page_fixtures import ENCODER, Shelf

pytestmark = pytest.mark.slow
expect.set_options(timeout=20_000)

SETTINGS = replace(FitSettings(views=1), fine_tune=replace(FitSettings().fine_tune, epochs=0))
JUDGED, NEW = 240, 230
CONTROL = "group"


@dataclass
class Judged:
    """A project with two versions; of its images the first were judged by two people.

    Attributes
    ----------
    conflicts : tasks that they answered differently
    new : tasks that nobody has judged
    """

    shelf: Shelf
    project: ProjectInfo
    conflicts: list[int] = field(default_factory=list)
    new: list[int] = field(default_factory=list)

    @property
    def api(self) -> Api:
        return Api(self.shelf.server.home)

    @property
    def address(self) -> str:
        return f"{self.shelf.server.url}/planktrait/projects/{self.project.id}"

    @property
    def live(self) -> str:
        live = Registry(self.shelf.server.home.models_folder(self.project.id)).live
        assert live is not None
        return live.name

    def add(self, images: Sequence[tuple[str, str]], people: Sequence[int] = ()) -> list[int]:
        """Tasks for images, each with the answers of people: the second is at times mistaken."""
        rows: list[dict[str, Any]] = []
        for n, (path, group) in enumerate(images):
            mistaken = "Marine snow" if group != "Marine snow" else "Unknown"
            said = (group, mistaken if n % 8 == 3 else group)
            answers = [
                {
                    "completed_by": person,
                    "result": write_result(self.project.schema, {CONTROL: label}),
                }
                for person, label in zip(people, said, strict=False)
            ]
            url = self.shelf.server.home.image_url(path)
            data = {"image": url, "image_id": Path(path).stem, "blind": "no"}
            rows.append({"data": data, "annotations": answers})
        address = f"/api/projects/{self.project.id}/import?return_task_ids=true"
        return sorted(self.api.post(address, rows)["task_ids"])

    def answers(self, ids: Sequence[int]) -> dict[int, list[str]]:
        """What was said of some tasks."""
        wanted = set(ids)
        return {
            task["id"]: [
                item["value"]["choices"][0] if "choices" in item["value"] else str(item["value"])
                for annotation in task["annotations"]
                for item in annotation["result"]
            ]
            for task in fetch_tasks(self.shelf.server.home, self.project.id)
            if task["id"] in wanted
        }


@pytest.fixture(scope="module")
def judged(shelf_with_backend: Shelf) -> Judged:
    server = shelf_with_backend.server
    project = create_project(server.home, "Versions side by side", "functional_groups")
    made = Judged(shelf_with_backend, project)
    people = [add_user(server.home, f"{name}@example.org").id for name in ("anna", "ben")]
    images = random.Random(3).sample(
        shelf_with_backend.images, min(JUDGED + NEW, len(shelf_with_backend.images))
    )
    ids = made.add(images[:JUDGED], people)
    made.conflicts = [task for n, task in enumerate(ids) if n % 8 == 3]
    tasks = list(fetch_tasks(server.home, project.id))
    for known in (tasks[: JUDGED // 2], tasks):
        train(
            known,
            project.schema,
            resolve_image=server.home.resolve_image,
            registry=Registry(server.home.models_folder(project.id)),
            encoder=ENCODER / "encoder",
            settings=SETTINGS,
        )
    made.new = images[JUDGED:] and made.add(images[JUDGED:])
    return made


@pytest.fixture
def visit(browser, judged: Judged) -> Iterator[Visit]:
    with visiting(browser, judged.shelf.server) as opened:
        yield opened


def test_the_model_in_the_browser(judged: Judged, visit: Visit) -> None:
    page = visit.page
    page.goto(f"{judged.address}/model")
    names = [f"project-{judged.project.id}-v000{number}" for number in (2, 1)]
    cards = page.locator(".version")
    expect(cards).to_have_count(2)
    assert [card.locator(".name").inner_text() for card in cards.all()] == names
    live = judged.live
    expect(cards.filter(has=page.locator(".tag"))).to_contain_text(live)
    report = page.frame_locator("#page")
    expect(report.locator("h1").first).to_contain_text(live)
    # Its scripts run in an origin of their own: the reader's cookies are out of their reach.
    assert report.locator("body").evaluate("() => window.origin") == "null"
    visit.keep_screenshot("model-light")

    other = next(name for name in names if name != live)
    page.on("dialog", lambda dialog: dialog.accept())
    cards.filter(has_text=other).get_by_role("button", name=re.compile("Roll back|Promote")).click()
    expect(cards.filter(has=page.locator(".tag"))).to_contain_text(other)
    job = page.locator(".job").first
    expect(job).to_contain_text("suggest for project")
    expect(job.locator(".state")).to_have_text("finished", timeout=120_000)
    job.get_by_role("button", name="Log").click()
    expect(page.locator("#log")).to_contain_text("suggestions of")
    visit.keep_screenshot("model-log")
    page.get_by_role("button", name="Back to the page").click()
    cards.filter(has_text=other).locator(".name").click()
    expect(report.locator("h1").first).to_contain_text(other)
    assert other in page.url
    page.locator("#theme").click()
    expect(page.locator("html")).to_have_attribute("data-color-scheme", "dark")
    expect(report.locator("html")).to_have_attribute("data-color-scheme", "dark")
    body, plot = report.locator("body"), report.locator("figure img").first
    assert lightness(body, "backgroundColor") < 0.2
    assert lightness(body, "color") > 0.8
    # Plots are drawn in dark ink.
    plot.scroll_into_view_if_needed()
    assert lightness(plot, "backgroundColor") > 0.9
    expect(plot).to_be_in_viewport(ratio=0.9)
    visit.keep_screenshot("model-plots-dark")
    report.locator("h1").first.scroll_into_view_if_needed()
    expect(report.locator("h1").first).to_be_in_viewport()
    assert body.evaluate("body => body.scrollWidth <= body.clientWidth")
    visit.keep_screenshot("model-dark")
    page.locator("#theme").click()
    page.locator("#theme").click()
    expect(report.locator("html")).to_have_attribute("data-color-scheme", "light")
    assert lightness(body, "backgroundColor") > 0.9


def lightness(element: Locator, what: str) -> float:
    """Of a colour of an element, 0 (black) to 1 (white)."""
    colour = element.evaluate("(element, what) => getComputedStyle(element)[what]", what)
    assert colour.startswith("rgb(")  # nothing shines through
    return sum(map(float, re.findall(r"[\d.]+", colour)[:3])) / 3 / 255


def test_what_people_disagree_on_is_one_click_away(judged: Judged, visit: Visit) -> None:
    """Whatever was suggested for it, and as it is now."""
    page, n = visit.page, len(judged.conflicts)
    page.goto(f"{judged.address}/model")
    table = page.locator(".agreement")
    expect(table).to_contain_text(str(JUDGED))
    expect(table).to_contain_text("Marine snow")
    table.get_by_role("link", name=f"see all {n}").click()
    expect(page.locator("#title")).to_have_text("All images")
    expect(page.locator("#count")).to_contain_text(f"{n} images")
    expect(page.locator(".cell.painted")).to_have_count(n)
    shown = page.locator(".cell").evaluate_all("cells => cells.map(c => Number(c.dataset.task))")
    assert shown == judged.conflicts
    visit.keep_screenshot("gallery-conflicts")
    page.get_by_role("button", name=re.compile("^All suggested")).first.click()
    expect(page.locator("#title")).to_have_text("All suggested")


def test_suggest_labels_is_a_job_and_find_similar_opens_the_gallery(
    judged: Judged, visit: Visit
) -> None:
    page = visit.page
    more = judged.add(random.Random(4).sample(judged.shelf.images, NEW))
    judged.api.patch(f"/api/tasks/{more[0]}/", {"data": judged_blind(judged, more[0])})
    visit.open_data_manager(judged.project.id)
    visit.act_on(None, "Suggest labels")
    visit.confirm_action()
    chip = page.locator(".planktrait-jobs")
    expect(chip).to_contain_text("suggest")
    expect(chip).to_have_role("link")
    expect(chip.get_by_role("status")).to_contain_text("suggest")
    visit.keep_screenshot("data-manager-job")
    expect(chip).to_contain_text("finished", timeout=120_000)
    tasks = {task["id"]: task for task in fetch_tasks(visit.server.home, judged.project.id)}
    assert tasks[more[0]]["predictions"] == []
    for task in more[1:]:
        assert [p["model_version"] for p in tasks[task]["predictions"]] == [judged.live]
    # Once more: they have theirs already, but for the blind one.
    some = {"all": False, "included": more}
    path = f"/api/dm/actions?id=suggest_labels&project={judged.project.id}"
    again = judged.api.post(path, {"selectedItems": some})
    assert f"{NEW - 1} of {NEW} images have a suggestion" in again["detail"]
    assert "1 blind image was left alone" in again["detail"]
    assert "job" not in again

    visit.open_data_manager(judged.project.id)
    visit.act_on(0, "Learn features from all images")
    visit.confirm_action()
    expect(notice(visit)).to_contain_text("Learning features from all images has started")
    expect(chip).to_contain_text("pretrain")
    visit.keep_screenshot("data-manager-learn")
    path = f"/api/planktrait/projects/{judged.project.id}"
    started = judged.api.get(f"{path}/jobs")["jobs"][0]["id"]
    judged.api.post(f"{path}/model/jobs/{started}/cancel")
    expect(chip).to_contain_text("cancelled")

    visit.open_data_manager(judged.project.id)
    visit.act_on(1, "Find similar")
    page.wait_for_url(f"**/planktrait/projects/{judged.project.id}/gallery*")
    # Nobody has looked at these images' features before: the page waits for the job.
    expect(page.locator("#status")).to_contain_text("most similar first", timeout=120_000)
    visit.keep_screenshot("find-similar")


def judged_blind(judged: Judged, task: int) -> dict[str, Any]:
    """The data of a task, marked blind."""
    return {**judged.api.get(f"/api/tasks/{task}/")["data"], "blind": "yes"}


def of_new(judged: Judged, title: str) -> int:
    """A tab of the Data Manager with the new images alone, and all of our columns."""
    first, last = judged.new[0], judged.new[-1]
    columns = judged.api.get("/api/dm/columns", project=judged.project.id)["columns"]
    shown = {"id", "image", "suggested_label", "confidence", "second_choice", "novelty"}
    shown |= {"agreement_of_annotators", "total_annotations", "data"}
    hidden = [
        f"tasks:{'data.' if column.get('parent') == 'data' else ''}{column['id']}"
        for column in columns
        if column["id"] not in shown
    ]
    between = {
        "filter": "filter:tasks:id",
        "operator": "in",
        "type": "Number",
        "value": {"min": first, "max": last},
    }
    data = {
        "title": title,
        "type": "list",
        "filters": {"conjunction": "and", "items": [between]},
        "hiddenColumns": {"explore": hidden, "labeling": []},
    }
    view = judged.api.post("/api/dm/views/", {"project": judged.project.id, "data": data})
    return int(view["id"])


def notice(visit: Visit) -> Locator:
    """What is told of an action, below the page."""
    return visit.page.locator(".planktrait-notice")


def test_accept_sure_says_what_it_would_do_and_is_undone(judged: Judged, visit: Visit) -> None:
    """Of what is selected, before anything is saved."""
    page = visit.page
    visit.open_data_manager(judged.project.id, of_new(judged, "To accept"))
    for column in ("Suggested", "Confidence", "Second choice", "Novelty", "Agreement"):
        expect(page.locator(".lsf-table-head").get_by_text(column, exact=True)).to_have_count(1)
    visit.keep_screenshot("data-manager-columns")
    visit.act_on(None, "Accept sure suggestions …")
    dialog = page.get_by_role("dialog", name="Accept sure suggestions")
    n = len(judged.new)
    expect(dialog).to_contain_text(f"Of {n} images, {n} have a suggestion that waits")
    path = f"/api/dm/actions?id=accept_suggestions&project={judged.project.id}"
    some = {"selectedItems": {"all": False, "included": judged.new}}
    preview = judged.api.post(path, some)["preview"]
    figures = [row.inner_text().split("\t") for row in dialog.locator("tbody tr").all()]
    assert [int(row[1]) for row in figures] == [one["images"] for one in preview["choices"]]
    assert set(map(tuple, judged.answers(judged.new).values())) == {()}
    visit.keep_screenshot("data-manager-accept")
    half = preview["choices"][-1]
    assert 0 < half["images"] < n
    dialog.get_by_label("50 % or more").check()
    dialog.get_by_role("button", name=f"Accept {half['images']} images").click()
    wrong = f"about {half['wrong']:.0f} of them will be wrong"
    expect(notice(visit)).to_contain_text(f"Accepted {half['images']} suggestions; {wrong}")
    expect(page.locator(".lsf-select-row").first).to_be_visible()
    visit.keep_screenshot("data-manager-accepted")
    said = [answer for answer in judged.answers(judged.new).values() if answer]
    assert len(said) == half["images"]
    notice(visit).get_by_role("button", name="Undo").click()
    expect(notice(visit)).to_contain_text(f"Undone: {half['images']} images")
    assert set(map(tuple, judged.answers(judged.new).values())) == {()}
    visit.check()


def test_label_mark_blind_and_second_opinion(judged: Judged, visit: Visit) -> None:
    page = visit.page
    tab = of_new(judged, "One by one")
    visit.open_data_manager(judged.project.id, tab)
    visit.act_on(0, "Label as …")
    visit.choose_in_dialog("Copepod")
    visit.keep_screenshot("data-manager-label")
    visit.confirm_action()
    expect(notice(visit)).to_contain_text("Labelled 1 image as Copepod.")
    assert judged.answers(judged.new[:2]) == {judged.new[0]: ["Copepod"], judged.new[1]: []}

    visit.open_data_manager(judged.project.id, tab)
    visit.act_on(0, "Ask for a second opinion")
    expect(page.get_by_role("button", name="Confirm", exact=True)).to_be_visible()
    visit.keep_screenshot("data-manager-opinion")
    visit.confirm_action()
    expect(notice(visit)).to_contain_text("A further opinion is asked for on 1 image.")

    visit.open_data_manager(judged.project.id, tab)
    visit.act_on(1, "Mark blind")
    expect(page.get_by_role("button", name="Confirm", exact=True)).to_be_visible()
    visit.keep_screenshot("data-manager-blind")
    visit.confirm_action()
    expect(notice(visit)).to_contain_text("Marked 1 image blind.")
    task = judged.api.get(f"/api/tasks/{judged.new[1]}/")
    assert (task["data"]["blind"], task["predictions"]) == ("yes", [])
    # What was done stays told when the page is loaded again, and goes when it is closed.
    page.reload()
    expect(notice(visit)).to_contain_text("Marked 1 image blind.")
    notice(visit).get_by_role("button", name="Close").click()
    expect(notice(visit)).to_have_count(0)


def test_export_selection_leads_to_the_file(judged: Judged, visit: Visit) -> None:
    page = visit.page
    visit.open_data_manager(judged.project.id, of_new(judged, "To export"))
    visit.act_on(2, "Export selection …")
    expect(page.get_by_role("button", name="Confirm", exact=True)).to_be_visible()
    visit.keep_screenshot("data-manager-export")
    visit.confirm_action()
    page.wait_for_url(f"**/planktrait/projects/{judged.project.id}/data#export")
    file = page.get_by_role("link", name=f"project-{judged.project.id}.csv")
    expect(file).to_be_visible(timeout=120_000)
    visit.keep_screenshot("data-exported")


def test_a_project_without_a_model_says_what_to_do(visit: Visit) -> None:
    empty = create_project(visit.server.home, "No model yet", "functional_groups")
    page = visit.page
    page.goto(f"{visit.server.url}/planktrait/projects/{empty.id}/model")
    expect(page.locator("#versions")).to_contain_text("start a training")
    expect(page.locator("#agreement")).to_contain_text("No image has been judged by two people")
    expect(page.locator("#jobs")).to_contain_text("Nothing has been started yet")
    page.get_by_role("button", name="Refresh suggestions").click()
    expect(page.locator("#status")).to_contain_text("start a training")
    visit.keep_screenshot("model-empty")
    visit.our_errors.clear()  # the refusal itself stands in the console
    missing = page.goto(f"{visit.server.url}/planktrait/projects/99999/model")
    assert missing is not None
    assert missing.status == 404
    visit.our_errors.clear()
    assert Api(visit.server.home).get(f"/api/planktrait/projects/{empty.id}/model")["live"] is None


PAGES = {
    "gallery": ("gallery?all=1&state=any", ".cell.painted", "Take the last judgement back"),
    "clusters": ("gallery?tab=clusters", ".cluster .strip i", "save the label for all of them"),
    "map": ("gallery?tab=map", "#view-map canvas", "Draw a lasso"),
    "model": ("model", ".version", "make it live"),
    "data set-up": ("data#set-up", "#checks li", "go into it"),
    "data import": ("data#import", "#folders button", "go into it"),
    "data export": ("data#export", "#formats .choice", "go into it"),
    "data counts": ("data#counts", "#count-checks li", "go into it"),
}
"""By name: the address below the project's, what is there when it is drawn, and its help."""

NEEDS_A_NAME = {
    *("button", "link", "textbox", "searchbox", "spinbutton", "combobox", "listbox", "checkbox"),
    *("radio", "slider", "tab", "switch", "menuitem", "option", "Iframe", "dialog"),
}
BOXES = "html, body, header, main, aside, nav, footer, form, dialog[open], .tools, .sheet section"


def drawn(visit: Visit, judged: Judged, name: str) -> None:
    """Go to a page and wait until it is drawn."""
    path, sign, _ = PAGES[name]
    # Where only what follows the # differs, the browser would stay.
    visit.page.goto("about:blank")
    visit.page.goto(f"{judged.address}/{path}")
    expect(visit.page.locator(sign).first).to_be_visible()


def without_a_name(visit: Visit, at_least: int = 6) -> list[str]:
    """Controls of the page that a screen reader could not name, as Chromium tells it of them."""
    session = visit.page.context.new_cdp_session(visit.page)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    named = [
        (node["role"]["value"], (node.get("name") or {}).get("value", ""))
        for node in nodes
        if not node.get("ignored") and node.get("role", {}).get("value") in NEEDS_A_NAME
    ]
    assert len(named) >= at_least
    return [role for role, words in named if not words.strip()]


def too_wide(visit: Visit) -> list[str]:
    """Boxes of the page whose content does not fit in their width."""
    return visit.page.locator(BOXES).evaluate_all(
        """boxes => boxes.filter(box => box.getClientRects().length)
             .filter(box => box.scrollWidth > box.clientWidth + 1)
             .map(box => `${box.tagName} ${box.id} ${box.className}: ${box.scrollWidth}`)"""
    )


@pytest.fixture(scope="module")
def looked_at(judged: Judged) -> Judged:
    """With suggestions, clusters and a map."""
    path = f"/api/planktrait/projects/{judged.project.id}"
    for what in ("model/start/suggestions", "clusters", "map"):
        judged.api.post(f"{path}/{what}", {})
    await_jobs(judged.shelf.server.home)
    return judged


@pytest.mark.parametrize("name", PAGES)
def test_every_page_in_a_small_window_in_light_and_dark(
    looked_at: Judged, visit: Visit, name: str
) -> None:
    page = visit.page
    for scheme in ("light", "dark"):
        drawn(visit, looked_at, name)
        if page.evaluate("document.documentElement.dataset.colorScheme") != scheme:
            page.locator("#theme").click()
        expect(page.locator("html")).to_have_attribute("data-color-scheme", scheme)
        assert too_wide(visit) == []
        assert without_a_name(visit) == []
        visit.keep_screenshot(f"page-{name.replace(' ', '-')}-{scheme}")
        page.keyboard.press("?")
        dialog = page.get_by_role("dialog", name="Keyboard and mouse")
        expect(dialog).to_contain_text(PAGES[name][2])
        assert too_wide(visit) == []
        assert without_a_name(visit, at_least=2) == []  # the rest of the page waits
        visit.keep_screenshot(f"help-{name.replace(' ', '-')}-{scheme}")
        page.keyboard.press("Escape")
        expect(dialog).to_be_hidden()
    visit.check()
