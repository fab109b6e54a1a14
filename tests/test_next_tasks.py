"""What to label next, through Label Studio with the backend, and in the gallery's menu."""

from __future__ import annotations

import time

import pytest
import torch
from playwright.sync_api import expect

from label_studio_config.results import write_result
from ml_backend.encoders import set_newest_encoder
from simclr.encoder import Encoder
from tests.browser_fixtures import visiting
from tests.test_feature_views import Shown, project_with_images

pytestmark = pytest.mark.slow
expect.set_options(timeout=20_000)


@pytest.fixture(scope="module")
def shown(label_studio_with_backend) -> Shown:
    return project_with_images(label_studio_with_backend, "Next", "next")


def chosen(shown: Shown, **asked) -> list[int]:
    return shown.api.get(f"{shown.path}/next", **asked)["tasks"]


def test_open_tasks_come_in_an_order_blind_and_judged_ones_never(shown: Shown) -> None:
    path = f"{shown.path}/next"
    refused = shown.server.request("GET", path)
    assert refused.status_code == 409
    assert "Learn features from all images" in refused.text
    folder = shown.server.home.encoders_folder(shown.project.id)
    torch.manual_seed(0)
    set_newest_encoder(folder, Encoder.create("resnet10t", 32).save(folder / "small" / "encoder"))
    end = time.monotonic() + 240  # the first call starts the job that computes the features
    while not (tasks := chosen(shown, limit=1000)):
        assert time.monotonic() < end
        time.sleep(0.5)
    assert sorted(tasks) == sorted(set(shown.tasks) - {shown.blind})
    assert chosen(shown, limit=1000) == tasks
    assert tasks != sorted(tasks)
    for task in tasks[:3]:
        result = write_result(shown.project.schema, {"group": "disc"})
        shown.api.post(f"/api/tasks/{task}/annotations/", {"result": result})
    rest = chosen(shown, limit=1000, strategy="diversity")
    assert sorted(rest) == sorted(set(tasks) - set(tasks[:3]))
    assert len(chosen(shown, limit=7)) == 7
    for wrong in ({"strategy": "luck"}, {"limit": "0"}):
        assert shown.server.request("GET", path, params=wrong).status_code == 400


def test_it_is_an_order_of_the_gallery(browser, shown: Shown) -> None:
    with visiting(browser, shown.server) as visit:
        page = visit.page
        page.goto(f"{visit.server.url}/planktrait/projects/{shown.project.id}/gallery?order=next")
        expect(page.locator("#title")).to_have_text("What to label next")
        expect(page.locator(".cell.painted").first).to_be_visible()
        expect(page.locator("#count")).to_contain_text("56 of 56")
        visit.keep_screenshot("gallery-next")
        page.locator("#order").select_option("certain")
        expect(page.locator("#title")).not_to_have_text("What to label next")
        page.locator("#order").select_option("next")
        expect(page.locator("#title")).to_have_text("What to label next")
