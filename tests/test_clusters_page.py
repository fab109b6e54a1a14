"""Clusters in the gallery, with the real backend: made, seen, labelled as a whole, undone."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import numpy as np
import pytest
import torch
from playwright.sync_api import Route, expect

from label_studio_config.server_tasks import fetch_tasks
from ml_backend.encoders import set_newest_encoder
from ml_backend.project_features import CLUSTERS_FILE, features_folder
from simclr.encoder import Encoder
from tests.browser_fixtures import Visit, visiting
from tests.test_feature_views import Shown, project_with_images

pytestmark = pytest.mark.slow
expect.set_options(timeout=20_000)


@pytest.fixture(scope="module")
def shown(label_studio_with_backend) -> Shown:
    shown = project_with_images(label_studio_with_backend, "Clusters", "clusters")
    folder = shown.server.home.encoders_folder(shown.project.id)
    torch.manual_seed(0)
    set_newest_encoder(folder, Encoder.create("resnet10t", 32).save(folder / "small" / "encoder"))
    return shown


@pytest.fixture
def visit(browser, shown: Shown) -> Iterator[Visit]:
    with visiting(browser, shown.server) as opened:
        yield opened


def answers(shown: Shown) -> dict[int, list[str]]:
    tasks = fetch_tasks(shown.server.home, shown.project.id, annotated_only=True)
    return {
        task["id"]: [one["result"][0]["value"]["choices"][0] for one in task["annotations"]]
        for task in tasks
    }


def set_clusters(shown: Shown, clusters: list[list[int]]) -> None:
    """As a job that has just ended leaves them."""
    home = shown.server.home
    np.savez(
        features_folder(home, shown.project.id) / CLUSTERS_FILE,
        task=np.concatenate(clusters),
        starts=np.cumsum([0, *map(len, clusters)]),
        n_images=sum(map(len, clusters)),
        outliers=0,
        made_at=datetime.now(UTC).isoformat(),
    )


def test_a_cluster_is_labelled_as_a_whole_and_undone(shown: Shown, visit: Visit) -> None:
    page = visit.page
    page.goto(f"{visit.server.url}/planktrait/projects/{shown.project.id}/gallery?tab=clusters")
    box = page.locator("#view-clusters")
    expect(box).to_contain_text("No clusters yet")
    box.get_by_role("button", name="Make clusters").click()
    rows = box.locator(".cluster")
    expect(rows.first).to_be_visible(timeout=240_000)
    expect(rows.first.locator(".strip i").first).to_be_visible()
    visit.keep_screenshot("clusters")

    size = int(rows.first.locator("b").inner_text().split()[0])
    assert size >= 5
    rows.first.locator("select").select_option("disc")
    rows.first.get_by_role("button", name="Label all").click()
    expect(rows.first).to_contain_text(f"✓ {size} images: disc", timeout=60_000)
    said = answers(shown)
    assert len(said) == size
    assert set(map(tuple, said.values())) == {("disc",)}
    assert shown.blind not in said
    visit.keep_screenshot("clusters-labelled")

    rows.first.get_by_role("button", name="Undo").click()
    expect(page.locator("#status")).to_contain_text(f"{size} judgements undone")
    assert answers(shown) == {}
    rows.nth(1).get_by_role("button", name="Open").click()
    expect(page.locator("#title")).to_contain_text("Cluster of")
    expect(page.locator(".cell.painted").first).to_be_visible()
    visit.keep_screenshot("clusters-opened")

    # Somebody makes them anew while they are looked at: the numbers are those of other images.
    page.get_by_role("tab", name="Clusters").click()
    set_clusters(shown, [shown.tasks[40:45], shown.tasks[10:30]])
    rows.first.locator("select").select_option("disc")
    rows.first.get_by_role("button", name="Label all").click()
    expect(page.locator("#status")).to_contain_text("made anew meanwhile")
    expect(rows).to_have_count(2)
    expect(rows.first).to_contain_text("5 images")
    assert answers(shown) == {}
    visit.our_errors.clear()  # the 409


def test_a_large_cluster_is_labelled_to_its_end(shown: Shown, visit: Visit) -> None:
    image = shown.api.get(f"/api/tasks/{shown.tasks[0]}")["data"]["image"]
    rows = [{"data": {"image": image, "image_id": f"again-{i}"}} for i in range(1010)]
    path = f"/api/projects/{shown.project.id}/import?return_task_ids=true"
    many = sorted(shown.api.post(path, rows)["task_ids"])
    set_clusters(shown, [many])
    page = visit.page
    page.goto(f"{visit.server.url}/planktrait/projects/{shown.project.id}/gallery?tab=clusters")
    row = page.locator(".cluster")
    row.locator("select").select_option("bar")
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
    expect(row).to_contain_text("✓ 1,010 images: bar", timeout=120_000)
    assert set(answers(shown)) == set(many)
    row.get_by_role("button", name="Undo").click()
    expect(page.locator("#status")).to_contain_text("1,010 judgements undone", timeout=60_000)
    assert answers(shown) == {}
    visit.our_errors.clear()  # the call that failed
