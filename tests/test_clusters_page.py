"""Clusters, “More like this” and what to label next, with the real backend and real images."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Locator, Route, expect

from label_studio_config.server_tasks import fetch_tasks
from ml_backend.project_features import CLUSTERS_FILE, features_folder
from ml_backend.stored_clusters import StoredClusters
from tests.backend_fixtures import await_jobs
from tests.browser_fixtures import Visit, visiting
from tests.gallery_page_fixtures import Filled, Shelf, Window

pytestmark = pytest.mark.slow
expect.set_options(timeout=20_000)

COUNT = 500


@pytest.fixture(scope="module")
def filled(shelf_with_backend: Shelf) -> Filled:
    """With an encoder, and no features yet."""
    filled = shelf_with_backend.assorted("Clusters", COUNT)
    filled.learn()
    return filled


@pytest.fixture
def visit(browser: Browser, shelf_with_backend: Shelf) -> Iterator[Visit]:
    with visiting(browser, shelf_with_backend.server) as opened:
        yield opened


def open_clusters(visit: Visit, filled: Filled) -> Locator:
    """The tab's rows."""
    visit.page.goto(f"{filled.address}?tab=clusters")
    return visit.page.locator("#view-clusters .cluster:not(.aside)")


def drawn(rows: Locator) -> None:
    """Until every row in the window has its pictures."""
    expect(rows.first).to_be_visible()
    rows.page.wait_for_function(
        """() => [...document.querySelectorAll('.cluster')]
             .filter(row => row.getBoundingClientRect().bottom > 0)
             .filter(row => row.getBoundingClientRect().top < innerHeight)
             .every(row => row.querySelector('.strip i'))"""
    )


def label(row: Locator, choice: str | None) -> None:
    """All of a row; with None as it is suggested."""
    if choice:
        row.locator("select").select_option(choice)
    row.get_by_role("button", name="Label all").click()


def size_of(row: Locator) -> int:
    return int(row.locator("b").inner_text().split()[0].replace(",", ""))


def answers(filled: Filled) -> dict[int, list[str]]:
    return {
        task: [one["result"][0]["value"]["choices"][0] for one in annotations]
        for task, annotations in filled.annotations().items()
    }


def file_of(filled: Filled) -> Path:
    return features_folder(filled.shelf.server.home, filled.project.id) / CLUSTERS_FILE


def set_clusters(filled: Filled, *clusters: list[int], outliers: list[int] | None = None) -> None:
    """As a job that has just ended leaves them."""
    file_of(filled).parent.mkdir(parents=True, exist_ok=True)
    tasks = np.concatenate(clusters)
    aside = np.array(outliers or [], dtype=np.int64)
    starts = np.cumsum([0, *map(len, clusters)])
    count = len(tasks) + len(aside)
    made_at = datetime.now(UTC).isoformat()
    StoredClusters(tasks, starts, aside, made_at, count, len(aside)).write(file_of(filled))


def test_a_cluster_is_labelled_as_a_whole_and_undone(filled: Filled, visit: Visit) -> None:
    page = visit.page
    rows = open_clusters(visit, filled)
    box = page.locator("#view-clusters")
    expect(box).to_contain_text("No clusters yet")
    box.get_by_role("button", name="Make clusters").click()
    expect(rows.first).to_be_visible(timeout=240_000)
    drawn(rows)
    visit.keep_screenshot("clusters")
    visit.darken()
    visit.keep_screenshot("clusters-dark")
    page.evaluate("window.planktraitScheme.set('Light')")

    size, count = size_of(rows.first), rows.count()
    assert size >= 5
    label(rows.first, "Rhizaria")
    expect(rows.first).to_contain_text(f"✓ {size} images: Rhizaria", timeout=60_000)
    expect(box.locator(".clusters-head")).to_contain_text("1 done")
    said = answers(filled)
    assert len(said) == size
    assert set(map(tuple, said.values())) == {("Rhizaria",)}
    assert not {task for i, task in enumerate(filled.tasks) if i % 50 == 49} & set(said)
    visit.keep_screenshot("clusters-labelled")
    # Seen again after the gallery, it still offers to undo.
    page.get_by_role("tab", name="Labels").click()
    page.get_by_role("tab", name="Clusters").click()
    expect(rows).to_have_count(count)
    rows.first.get_by_role("button", name="Undo").click()
    expect(page.locator("#status")).to_contain_text(f"{size} judgements undone")
    expect(rows.first).to_contain_text(f"Label all {size}")
    assert answers(filled) == {}
    rows.nth(1).get_by_role("button", name="Open").click()
    expect(page.locator("#title")).to_contain_text("Cluster of")
    expect(page.locator(".cell.painted").first).to_be_visible()
    visit.keep_screenshot("clusters-opened")

    # Somebody makes them anew while they are looked at: the numbers are those of other images.
    with page.expect_response("**/clusters?*"):
        page.get_by_role("tab", name="Clusters").click()
    expect(rows).to_have_count(count)
    before = file_of(filled).read_bytes()
    set_clusters(filled, filled.tasks[40:45], filled.tasks[10:30])
    label(rows.first, "Rhizaria")
    expect(page.locator("#status")).to_contain_text("made anew meanwhile")
    expect(rows).to_have_count(2)
    expect(rows.first).to_contain_text("5 images")
    assert answers(filled) == {}
    file_of(filled).write_bytes(before)
    visit.our_errors.clear()  # the 409


def test_outliers_are_opened_and_not_labelled_as_a_whole(filled: Filled, visit: Visit) -> None:
    page = visit.page
    rows = open_clusters(visit, filled)
    aside = page.locator("#view-clusters .cluster.aside")
    made = StoredClusters.read(file_of(filled))
    assert made is not None
    assert len(made.aside) == made.outliers == made.n_images - len(made.task) > 50
    assert page.locator("#view-clusters .cluster").last.get_attribute("class") == "cluster aside"
    assert size_of(aside) == len(made.aside)
    expect(aside.get_by_role("button")).to_have_text(["Open"])
    aside.scroll_into_view_if_needed()
    expect(aside.locator(".strip i").first).to_be_visible()
    visit.keep_screenshot("clusters-outliers")
    aside.get_by_role("button", name="Open").click()
    n = len(made.aside)
    expect(page.locator("#similar-chip")).to_contain_text(f"{n} outliers")
    expect(page.locator("#count")).to_contain_text(f"of {n} images")
    expect(page.locator(".cell.painted").first).to_be_visible()
    visit.keep_screenshot("clusters-outliers-opened")
    # Clusters of before there were ids of outliers are shown without them.
    old = {name: value for name, value in vars(made).items() if name != "aside"}
    before = file_of(filled).read_bytes()
    np.savez(file_of(filled), **old)
    page.get_by_role("tab", name="Clusters").click()
    expect(aside).to_have_count(0)
    expect(rows.first).to_be_visible()
    expect(page.locator(".clusters-head")).to_contain_text(f"{n} of")
    file_of(filled).write_bytes(before)


def test_what_is_judged_is_gone_for_everybody(
    shelf_with_backend: Shelf, browser: Browser, visit: Visit
) -> None:
    filled = shelf_with_backend.project(40)
    tasks = filled.tasks
    set_clusters(filled, tasks[:12], tasks[12:22], tasks[22:30], outliers=tasks[30:40])
    anna = filled.colleague()
    for task in tasks[12:15]:
        filled.annotate(anna, task, "Copepod")
    head = visit.page.locator(".clusters-head")
    rows = open_clusters(visit, filled)
    expect(head).to_contain_text("3 clusters to judge ·")
    expect(rows.nth(1)).to_contain_text("7 images")
    expect(rows.nth(1)).to_contain_text("3 judged already")
    drawn(rows)
    visit.keep_screenshot("clusters-partly-judged")
    with visiting(browser, shelf_with_backend.server, anna) as others:
        theirs = open_clusters(others, filled)
        expect(theirs).to_have_count(3)
        label(rows.first, "Copepod")
        expect(rows.first).to_contain_text("✓ 12 images: Copepod")
        rows = open_clusters(visit, filled)
        expect(head).to_contain_text("2 clusters to judge, 1 done")
        expect(rows.first).to_have_attribute("aria-label", "Cluster 1, 7 images")
        # Who has the old list on the screen is told why nothing is saved.
        label(theirs.first, "Copepod")
        expect(others.page.locator("#status")).to_have_text(
            "Copepod: 0 images saved. 12 images had been judged before."
        )
        expect(theirs.first).to_contain_text("✓ judged before")
        others.page.reload()
        expect(theirs).to_have_count(2)
        label(theirs.first, "Medusa")
        expect(theirs.first).to_contain_text("✓ 7 images: Medusa")
        label(theirs.nth(1), "Medusa")
        expect(theirs.nth(1)).to_contain_text("✓ 8 images: Medusa")
    visit.page.reload()
    expect(head).to_contain_text("0 clusters to judge, 3 done")
    expect(visit.page.locator("#view-clusters")).to_contain_text("All clusters are judged")
    visit.keep_screenshot("clusters-all-judged")
    assert {len(given) for given in answers(filled).values()} == {1}


def test_where_two_votes_are_wanted_others_still_see_it(
    shelf_with_backend: Shelf, browser: Browser, visit: Visit
) -> None:
    filled = shelf_with_backend.project(20, annotators_per_image=2)
    set_clusters(filled, filled.tasks[:12], filled.tasks[12:20])
    rows = open_clusters(visit, filled)
    label(rows.first, "Copepod")
    expect(rows.first).to_contain_text("✓ 12 images: Copepod")
    visit.page.reload()
    expect(rows).to_have_count(1)
    with visiting(browser, shelf_with_backend.server, filled.colleague()) as others:
        theirs = open_clusters(others, filled)
        expect(theirs).to_have_count(2)
        expect(theirs.first).not_to_contain_text("judged")
        label(theirs.first, "Medusa")
        expect(theirs.first).to_contain_text("✓ 12 images: Medusa")
        others.page.reload()
        expect(theirs).to_have_count(1)
    assert sorted(map(sorted, answers(filled).values())) == [["Copepod", "Medusa"]] * 12


def test_what_others_have_answered_is_clustered_where_it_is_still_to_judge(
    shelf_with_backend: Shelf,
) -> None:
    filled = shelf_with_backend.project(30, config="traits", annotators_per_image=2)
    filled.learn()
    _judge(filled, filled.tasks)
    anna = filled.colleague()
    assert _made(filled) == "finished"
    assert _left(filled, token=anna.token) == set(filled.tasks)
    assert _left(filled) == set()
    # One answer an image is wanted now: only another question is still open.
    filled.api.patch(f"/api/projects/{filled.project.id}/", {"maximum_annotations": 1})
    assert _made(filled) == "failed"
    trait = filled.project.schema.trainable[1].name
    assert _made(filled, control=trait) == "finished"
    assert _left(filled, control=trait) == set(filled.tasks)
    assert _left(filled) == set()


def test_a_question_is_not_open_where_it_is_not_asked(
    shelf_with_backend: Shelf, visit: Visit
) -> None:
    """By what the person said of the question before it; elsewhere a judgement is refused."""
    filled = shelf_with_backend.project(20, config="traits")
    filled.learn()
    copepods, others = filled.tasks[:8], filled.tasks[8:16]
    _judge(filled, copepods)
    _judge(filled, others, "Diatom chain")
    asked = {"control": "egg_sac"}
    assert _made(filled, **asked) == "finished"
    assert _left(filled, **asked) == set(copepods)
    assert sorted(_next(filled, **asked)) == copepods
    alike = filled.api.post(f"/api/planktrait/projects/{filled.project.id}/neighbours",
        {"tasks": copepods[:1], "limit": 30, "open": 1, **asked})["tasks"]  # fmt: skip
    assert {one["task"] for one in alike} == set(copepods[1:])
    _judge(filled, copepods[:3], "absent", **asked)
    assert _left(filled, **asked) == set(copepods[3:])
    assert sorted(_next(filled, **asked)) == copepods[3:]
    # Whoever has not answered the question before it is told why there is none.
    anna = filled.colleague()
    assert _left(filled, token=anna.token, **asked) == set()
    page = visit.page
    words = "asked of images for which your answer about group leads to it"
    page.goto(f"{filled.address}?tab=clusters&control=noctiluca_gut_content")
    expect(page.locator("#view-clusters")).to_contain_text(words)
    visit.keep_screenshot("clusters-not-asked")
    page.goto(f"{filled.address}?order=next&control=noctiluca_gut_content")
    expect(page.locator("#empty")).to_contain_text(words)
    visit.keep_screenshot("gallery-next-not-asked")


def _made(filled: Filled, **body: str) -> str:
    """How the job ends that makes clusters."""
    started = filled.api.post(f"/api/planktrait/projects/{filled.project.id}/clusters", body)
    records = await_jobs(filled.shelf.server.home)
    (record,) = [record for record in records if record.id == started["job"]]
    assert record.state == "finished" or "no image left to judge" in str(record.error)
    return record.state


def _left(filled: Filled, token: str = "", **query: str) -> set[int]:
    """The tasks of all clusters, and aside of them, that a person has to judge."""
    server = filled.shelf.server
    headers = {"Authorization": f"Token {token or server.home.secrets.api_token}"}
    path = f"{server.url}/api/planktrait/projects/{filled.project.id}/clusters"

    def get(address: str) -> Any:
        answer = server.session.get(path + address, params=query, headers=headers, timeout=60)
        assert answer.ok, answer.text
        return answer.json()

    told = get("")
    names = [one["id"] for one in told["clusters"]] + (["outliers"] if told["aside"] else [])
    left = [task for name in names for task in get(f"/{name}/tasks")["tasks"]]
    assert sum(one["size"] for one in [*told["clusters"], told["aside"]] if one) == len(left)
    return set(left)


def test_the_time_and_the_suggestions_are_those_of_the_row(
    shelf_with_backend: Shelf, visit: Visit
) -> None:
    filled = shelf_with_backend.project(60)
    tasks = filled.tasks
    set_clusters(filled, tasks[:24], tasks[24:40], tasks[40:48])
    suggested = filled.labels
    came = time.monotonic()
    rows = open_clusters(visit, filled)
    drawn(rows)
    expect(rows.first).to_contain_text("mostly suggested as Copepod")
    visit.page.wait_for_timeout(1500)  # a person looks
    tiles = rows.first.locator(".strip i").evaluate_all(
        """all => all.filter(one => one.getBoundingClientRect().right
                                 <= one.parentNode.getBoundingClientRect().right + 1)
                    .map(one => Number(one.dataset.task))"""
    )
    assert 3 < len(tiles) < 24
    label(rows.first, "Medusa")
    clicked = time.monotonic()
    expect(rows.first).to_contain_text("✓ 24 images: Medusa")
    label(rows.nth(1), None)
    again = time.monotonic()
    expect(rows.nth(1)).to_contain_text("✓ 16 images: Copepod")
    saved = {task: given[0] for task, given in filled.annotations().items()}
    assert 1.5 <= sum(saved[task]["lead_time"] for task in tasks[:24]) <= clicked - came
    assert 0 < sum(saved[task]["lead_time"] for task in tasks[24:40]) <= again - clicked + 1

    # The words sum up the first images' suggestions, of which those are on the screen.
    shown = {task for task in tasks[:10] if suggested[task] == "Copepod"} & set(tiles)
    assert shown
    assert {suggested[task] for task in tasks[:10]} > {"Copepod"}
    for task in tasks[:24]:
        told = _predictions(filled, task)
        assert saved[task]["parent_prediction"] == (told[0]["id"] if task in shown else None)
        assert bool(saved[task]["prediction"]) == (task in shown)


def _predictions(filled: Filled, task: int) -> list[dict[str, Any]]:
    tasks = fetch_tasks(filled.shelf.server.home, filled.project.id)
    return next(one["predictions"] for one in tasks if one["id"] == task)


def test_a_large_cluster_is_labelled_to_its_end(shelf_with_backend: Shelf, visit: Visit) -> None:
    filled = shelf_with_backend.project(10)
    image = filled.api.get(f"/api/tasks/{filled.tasks[0]}")["data"]["image"]
    new = [{"data": {"image": image, "image_id": f"again-{i}"}} for i in range(1010)]
    path = f"/api/projects/{filled.project.id}/import?return_task_ids=true"
    many = sorted(filled.api.post(path, new)["task_ids"])
    set_clusters(filled, many)
    page = visit.page
    row = open_clusters(visit, filled)
    row.locator("select").select_option("Rhizaria")
    # The network fails once on the way.
    asked: list[str] = []

    def fail_once(route: Route) -> None:
        asked.append(route.request.url)
        if len(asked) == 3:
            route.abort()
        else:
            route.continue_()

    page.route("**/judgements", fail_once)
    row.get_by_role("button", name="Label all 1,010").click()
    rest = row.get_by_role("button", name="Label the other 610")
    expect(rest).to_be_visible(timeout=120_000)
    visit.keep_screenshot("clusters-partly")
    rest.click()
    expect(row).to_contain_text("✓ 1,010 images: Rhizaria", timeout=120_000)
    assert set(answers(filled)) == set(many)
    row.get_by_role("button", name="Undo").click()
    expect(page.locator("#status")).to_contain_text("1,010 judgements undone", timeout=60_000)
    assert answers(filled) == {}
    visit.our_errors.clear()  # the call that failed


def test_more_like_this_goes_on(filled: Filled, visit: Visit) -> None:
    """With the features that the clusters were made from."""
    page = visit.page
    window = Window(visit, filled).open()
    task = window.in_view()[0]
    window.cell(task).click()
    page.get_by_role("button", name="More like this").click()
    expect(page.locator("#title")).to_have_text("More like this")
    expect(page.locator("#count")).to_contain_text("of 200 images")
    window.wait()
    nearest = _nearest(filled, task, 400)
    assert window.in_view() == nearest[: len(window.in_view())]
    window.cell(nearest[0]).hover()
    expect(page.locator("#card")).to_contain_text(re.compile(r"similarity (0\.[89]|1\.0)"))
    page.mouse.move(5, 5)
    visit.keep_screenshot("gallery-similar-real")
    # Once all are judged, the next ones are a click away.
    page.route(
        "**/neighbours",
        lambda route: route.continue_(post_data={**route.request.post_data_json, "limit": 12}),
    )
    page.reload()
    expect(page.locator("#count")).to_have_text("12 of 12 images")
    window.wait()
    assert window.in_view() == nearest[:12]
    window.press("Control+a", "o")
    window.says("Appendicularian: 12 images saved.")
    expect(page.locator("#empty")).to_contain_text(f"Like image {task}: nothing left to judge")
    visit.keep_screenshot("gallery-similar-judged")
    page.get_by_role("button", name="Find the next ones").click()
    expect(page.locator("#count")).to_have_text("12 of 12 images")
    window.wait()
    assert window.in_view() == nearest[12:24]
    # However many of the nearest ones are judged.
    page.unroute("**/neighbours")
    _judge(filled, nearest[12:300])
    page.reload()
    expect(page.locator("#count")).to_contain_text(re.compile(r"of 1\d\d images"))
    window.wait()
    assert window.in_view() == nearest[300 : 300 + len(window.in_view())]
    page.locator("#show").select_option("any")
    expect(page.locator("#count")).to_contain_text("of 200 images")
    window.wait()
    assert window.in_view() == nearest[: len(window.in_view())]


def test_a_file_finds_itself(filled: Filled, visit: Visit) -> None:
    """Uploaded with the browser, it is compared as the project's own images are."""
    page = visit.page
    window = Window(visit, filled).open("?all=1&state=any")
    task = window.in_view()[3]
    file = filled.shelf.server.home.resolve_image(
        filled.api.get(f"/api/tasks/{task}")["data"]["image"]
    )
    page.set_input_files("#upload-file", file)
    expect(page.locator("#similar-chip")).to_contain_text(f"Like {file.name}")
    window.wait()
    itself, *others = window.in_view()
    assert itself == task
    # Those that are most like the task, which is left out where it is asked about by its number.
    by_number = _nearest(filled, task, 200)
    assert len(set(others) & set(by_number[: len(others)])) > 0.8 * len(others)
    window.cell(task).hover()
    expect(page.locator("#card")).to_contain_text(re.compile(r"similarity (1\.0|0\.99)"))
    page.mouse.move(5, 5)
    visit.keep_screenshot("gallery-similar-file")

    no_image = {"name": "notes.png", "mimeType": "image/png", "buffer": b"not an image"}
    page.set_input_files("#upload-file", files=[no_image])
    window.says("the file is not an image that can be read")
    assert window.in_view()[0] == task
    window.forgive("400")


def test_what_to_label_next_is_an_order_of_the_gallery(filled: Filled, visit: Visit) -> None:
    page = visit.page
    left = _next(filled, limit=200)
    page.goto(f"{filled.address}?order=next")
    expect(page.locator("#title")).to_have_text("What to label next")
    window = Window(visit, filled).wait()
    assert window.in_view() == left[: len(window.in_view())]
    expect(page.locator("#count")).to_contain_text(f"{len(left)} of {len(left)}")
    # Of all labels: none is marked in the list, and one that is chosen is shown as usual.
    marked = page.locator("#labels [aria-current]")
    expect(page.locator("#labels .label").first).to_be_visible()
    expect(marked).to_have_count(0)
    page.get_by_label("How to choose").select_option("diversity")
    page.get_by_label("Label stream in this order").check()
    expect(page.locator("#next-options")).to_contain_text("The label stream follows")
    expect(page.locator("#status")).to_contain_text("Chosen from")
    window.wait()
    visit.keep_screenshot("gallery-next")
    order = filled.api.get(f"/api/planktrait/projects/{filled.project.id}/label-order")
    assert (order["strategy"], order["in_label_stream"]) == ("diversity", True)
    group = next(filled.labels[task] for task in left if task in filled.labels)
    page.locator("#labels").get_by_role("button", name=group).first.click()
    expect(page.locator("#title")).to_have_text(group)
    expect(page.locator("#order")).to_have_value("certain")
    expect(marked).to_contain_text(group)

    # Every image waits for an answer about its quality, whatever was said of its group.
    every = len(_next(filled, control="image_quality"))
    assert every == COUNT - COUNT // 50
    page.locator("#order").select_option("next")
    page.locator("#control").select_option("image_quality")
    expect(page.locator("#title")).to_have_text("What to label next")
    expect(page.locator("#count")).to_contain_text("of 200 images")
    # Nor is told of what was asked for before.
    page.wait_for_load_state("networkidle")
    expect(page.locator("#status")).to_contain_text(f"Chosen from {every} images")
    window.wait()
    visit.keep_screenshot("gallery-next-quality")


def test_what_to_label_next_goes_on_until_nothing_is_left(filled: Filled, visit: Visit) -> None:
    """At the end of a list the next ones are appended, none twice."""
    there = _next(filled)
    asked: list[list[int]] = []
    at_once = 60

    def few(route: Route) -> None:
        said = route.request.post_data_json
        asked.append(said.get("not", []))
        route.continue_(post_data={**said, "limit": at_once})

    page = visit.page
    page.route("**/next", few)
    page.goto(f"{filled.address}?order=next")
    page.wait_for_function(
        """(words) => {
          const box = document.getElementById('mosaic');
          box.scrollTop = box.scrollHeight;
          return document.getElementById('count').textContent.includes(words);
        }""",
        arg=f"{len(there)} of {len(there)}",
    )
    Window(visit, filled).wait()
    visit.keep_screenshot("gallery-next-all")
    assert len(asked) >= len(there) / at_once > 2
    assert [len(shown_before) for shown_before in asked[:3]] == [0, at_once, 2 * at_once]
    assert sorted(asked[-1]) == sorted(there)


def _next(filled: Filled, limit: int = 1000, **asked: Any) -> list[int]:
    path = f"/api/planktrait/projects/{filled.project.id}/next"
    return filled.api.get(path, limit=limit, **asked)["tasks"]


def _nearest(filled: Filled, task: int, limit: int) -> list[int]:
    path = f"/api/planktrait/projects/{filled.project.id}/neighbours"
    found = filled.api.post(path, {"tasks": [task], "limit": limit})["tasks"]
    return [one["task"] for one in found]


def _judge(
    filled: Filled, tasks: list[int], label: str = "Copepod", control: str | None = None
) -> None:
    path = f"/api/planktrait/projects/{filled.project.id}/judgements"
    judgements = [{"task": task, "label": label} for task in tasks]
    asked = {"control": control or filled.primary, "judgements": judgements}
    assert filled.api.post(path, asked)["saved"] == len(tasks)
