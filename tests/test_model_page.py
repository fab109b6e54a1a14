"""The model's page inside Label Studio: versions, a report, promotion, jobs, in light and dark."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from playwright.sync_api import expect

from label_studio_config.api import Api
from label_studio_config.project import ProjectInfo, create_project
from label_studio_config.schema import LabelSchema
from label_studio_config.server_tasks import fetch_tasks
from ml_backend.fit import FitSettings
from ml_backend.registry import Registry
from ml_backend.train import train
from simclr.encoder import Encoder
from tests.browser_fixtures import Visit, visiting
from tests.label_studio_fixtures import LabelStudioForTests
from tests.trait_fixtures import XML, make_tasks, resolver

pytestmark = pytest.mark.slow
expect.set_options(timeout=20_000)

SETTINGS = replace(
    FitSettings(views=1, untrained=True), fine_tune=replace(FitSettings().fine_tune, epochs=0)
)


@pytest.fixture(scope="module")
def project(label_studio_with_backend, tmp_path_factory) -> ProjectInfo:
    """A project with two versions that were trained on drawn images by two annotators."""
    server: LabelStudioForTests = label_studio_with_backend
    project = create_project(server.home, "Versions side by side", XML)
    images = server.images_root / "model-page"
    images.mkdir()
    encoder = Encoder.create("resnet10t", 32).save(tmp_path_factory.mktemp("encoder"))
    tasks = make_tasks(images, 240, annotators=2)
    for known in (tasks[:120], tasks):
        train(
            known,
            LabelSchema.from_xml(XML),
            resolve_image=resolver(images),
            registry=Registry(server.home.models_folder(project.id)),
            encoder=encoder,
            settings=SETTINGS,
        )
    return project


@pytest.fixture
def visit(browser, label_studio_with_backend) -> Iterator[Visit]:
    with visiting(browser, label_studio_with_backend) as opened:
        yield opened


def test_the_model_in_the_browser(project, visit: Visit) -> None:
    page = visit.page
    page.goto(f"{visit.server.url}/planktrait/projects/{project.id}/model")
    names = [f"project-{project.id}-v000{number}" for number in (2, 1)]
    cards = page.locator(".version")
    expect(cards).to_have_count(2)
    assert [card.locator(".name").inner_text() for card in cards.all()] == names
    live = Registry(visit.server.home.models_folder(project.id)).live
    assert live is not None
    expect(cards.filter(has=page.locator(".tag"))).to_contain_text(live.name)
    expect(page.locator(".agreement")).to_contain_text("Disc / Rod")
    report = page.frame_locator("#page")
    expect(report.locator("h1").first).to_contain_text(live.name)
    # Its scripts run in an origin of their own: the reader's cookies are out of their reach.
    assert report.locator("body").evaluate("() => window.origin") == "null"
    visit.keep_screenshot("model-light")

    other = next(name for name in names if name != live.name)
    page.on("dialog", lambda dialog: dialog.accept())
    cards.filter(has_text=other).get_by_role("button", name="Roll back").click()
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
    visit.keep_screenshot("model-dark")


def test_suggest_labels_is_a_job_and_find_similar_opens_the_gallery(project, visit: Visit) -> None:
    api, page = Api(visit.server.home), visit.page
    images = sorted((visit.server.images_root / "model-page").glob("*.png"))
    rows = [{"data": {"image": f"/data/local-files/?d=model-page/{p.name}"}} for p in images]
    rows[0]["data"]["blind"] = "yes"
    api.post(f"/api/projects/{project.id}/import", rows)
    visit.open_data_manager(project.id)
    visit.act_on(None, "Suggest labels")
    visit.confirm_action()
    chip = page.locator(".planktrait-jobs")
    expect(chip).to_contain_text("suggest")
    visit.keep_screenshot("data-manager-job")
    expect(chip).to_contain_text("finished", timeout=120_000)
    live = Registry(visit.server.home.models_folder(project.id)).live
    assert live is not None
    tasks = list(fetch_tasks(visit.server.home, project.id))
    assert len(tasks) == len(images) > 200
    assert tasks[0]["predictions"] == []
    assert all([p["model_version"] for p in t["predictions"]] == [live.name] for t in tasks[1:])
    # A part of them, once more: they have theirs already.
    some = {"all": False, "included": [task["id"] for task in tasks[1:230]]}
    path = f"/api/dm/actions?id=suggest_labels&project={project.id}"
    again = api.post(path, {"selectedItems": some})
    assert "229 of 229 images have a suggestion" in again["detail"]
    assert "job" not in again

    visit.open_data_manager(project.id)
    visit.act_on(1, "Find similar")
    page.wait_for_url(f"**/planktrait/projects/{project.id}/gallery*")
    # Nobody has looked at these images' features before: the page waits for the job.
    expect(page.locator("#status")).to_contain_text("most similar first", timeout=120_000)
    visit.keep_screenshot("find-similar")


def test_a_project_without_a_model_says_what_to_do(visit: Visit) -> None:
    empty = create_project(visit.server.home, "No model yet", XML)
    page = visit.page
    page.goto(f"{visit.server.url}/planktrait/projects/{empty.id}/model")
    expect(page.locator("#versions")).to_contain_text("start a training")
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
