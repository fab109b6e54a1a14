"""Clusters in the gallery, with the real backend: made, seen, labelled as a whole, undone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from playwright.sync_api import expect

from label_studio_config.server_tasks import fetch_tasks
from ml_backend.encoders import set_newest_encoder
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
