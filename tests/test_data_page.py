"""The page "Data": a project made on the web is set up, filled, exported and counted by browser."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import requests
from PIL import Image
from playwright.sync_api import Page, expect

from label_studio_config.api import Api, ApiError
from label_studio_config.hosting import server_environment
from label_studio_config.phantoms import draw_phantoms
from label_studio_config.results import write_result
from label_studio_config.schema import LabelSchema
from label_studio_config.server_tasks import fetch_project, fetch_tasks
from label_studio_config.users import add_user
from label_studio_config.votes import is_blind
from ml_backend.fit import FitSettings
from ml_backend.registry import Registry
from ml_backend.train import train
from simclr.encoder import Encoder
from tests.backend_fixtures import await_jobs
from tests.browser_fixtures import Visit, visiting
from tests.figures import FIGURES, tell_images
from tests.label_studio_fixtures import LabelStudioForTests, serve_for_tests

pytestmark = pytest.mark.slow
expect.set_options(timeout=30_000)

REAL = Path(__file__).parents[2] / "shared" / "data" / "ndsb"
N_IMAGES = 60
SETTINGS = replace(
    FitSettings(views=1, untrained=True), fine_tune=replace(FitSettings().fine_tune, epochs=0)
)


@dataclass
class Cruise:
    """A Label Studio with a backend, its images in `cruise7`, and the group of each by name."""

    server: LabelStudioForTests
    groups: dict[str, str]
    project: int = 0

    @property
    def api(self) -> Api:
        return Api(self.server.home)

    @property
    def path(self) -> str:
        return f"/api/planktrait/projects/{self.project}/data"

    def job(self, work: str, body: dict[str, Any]) -> dict[str, Any]:
        """Start work and wait for its end."""
        job_id = self.api.post(f"{self.path}/start/{work}", body)["job"]
        await_jobs(self.server.home)
        return next(job for job in self.api.get(f"{self.path}/jobs")["jobs"] if job["id"] == job_id)

    def refusal(self, method: str, path: str, **options: Any) -> str:
        """What a call that must be refused with 4xx is told."""
        response = self.server.request(method, self.path + path, **options)
        assert 400 <= response.status_code < 500, response.text
        return response.text

    def annotate(self) -> None:
        """Everything, by one person through the API, as it is known."""
        schema = LabelSchema.from_xml(fetch_project(self.server.home, self.project)["label_config"])
        assert schema.primary is not None
        for task in fetch_tasks(self.server.home, self.project):
            group = self.groups[task["data"]["image_id"].rsplit("/", 1)[-1]]
            result = write_result(schema, {schema.primary.name: group})
            self.api.post(f"/api/tasks/{task['id']}/annotations/", {"result": result})

    def train(self, encoder: Path) -> None:
        """A small version, made live."""
        home = self.server.home
        train(
            list(fetch_tasks(home, self.project)),
            LabelSchema.from_xml(fetch_project(home, self.project)["label_config"]),
            resolve_image=home.resolve_image,
            registry=Registry(home.models_folder(self.project)),
            encoder=encoder,
            settings=SETTINGS,
        )


def fill(root: Path) -> dict[str, str]:
    """Sixty images (real ones where there are), one broken file, a table; the groups by name."""
    folder = root / "cruise7"
    (folder / "casts").mkdir(parents=True)
    known = {"Copepod": 0, "Chaetognath": 0, "Medusa": 0}
    tell_images("the page “Data”", real=REAL.is_dir())
    if REAL.is_dir():
        table = pd.read_csv(REAL / "labels.csv")
        pairs = list(zip(REAL / table.image, table.functional_group, strict=True))
    else:
        drawn = draw_phantoms(root.parent / "phantoms", 1200, processes=1)
        truth = pd.read_csv(drawn.truth_csv)
        pairs = list(zip(drawn.folder / truth.image_id, truth.group, strict=True))
    groups: dict[str, str] = {}
    for path, group in pairs:
        if known.get(group, N_IMAGES) < N_IMAGES // len(known):
            known[group] += 1
            name = f"{len(groups):03d}{path.suffix}"
            shutil.copy(path, folder / "casts" / name)
            groups[name] = group
    assert len(groups) == N_IMAGES, known
    (folder / "casts" / "broken.png").write_bytes(b"not an image")
    with (folder / "cruise7.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["filename", "sample", "depth", "captured_at", "station"])
        for i, name in enumerate(groups):
            writer.writerow(
                [f"casts/{name}", f"cast-{i % 6}", 5 * (i % 6), "2014-06-05", "ABC"[i % 3]]
            )
    (folder / "no-names.csv").write_text("cell,depth_m\n1,5\n")
    (root / "empty").mkdir()
    return groups


@pytest.fixture(scope="module")
def cruise(tmp_path_factory, database_template) -> Iterator[Cruise]:
    """A server for this module: nothing but the tests starts a training on it."""
    folder = tmp_path_factory.mktemp("data-page")
    root = folder / "images"
    groups = fill(root)
    (folder / "outside").mkdir()
    Image.new("L", (9, 9)).save(folder / "outside" / "secret.png")
    (root / "leads-out").symlink_to(folder / "outside")
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setenv("PLANKTRAIT_TRAIN_EVERY", "100000")
        served = serve_for_tests(
            folder, template=database_template, images_root=root, with_backend=True
        )
        server = stack.enter_context(served)
        cruise = Cruise(server, groups)
        # As "Create project" makes one: a title, and no config.
        cruise.project = cruise.api.post("/api/projects", {"title": "Cruise 7"})["id"]
        yield cruise


@pytest.fixture
def visit(browser, cruise: Cruise) -> Iterator[Visit]:
    with visiting(browser, cruise.server) as opened:
        yield opened


def open_step(visit: Visit, cruise: Cruise, step: str) -> Page:
    page = visit.page
    page.goto(f"{cruise.server.url}/planktrait/projects/{cruise.project}/data#{step}")
    expect(page.locator(f"#view-{step}")).to_be_visible()
    expect(page.locator("#project")).to_have_text("Cruise 7")
    return page


def keep_both(visit: Visit, name: str) -> None:
    """A screenshot in light, and one in dark."""
    for scheme in ("light", "dark"):
        visit.page.evaluate("scheme => window.planktraitScheme.set(scheme)", scheme.title())
        visit.keep_screenshot(f"data-{name}-{scheme}")
    visit.page.evaluate("() => window.planktraitScheme.set('Light')")


def fetched(page: Page, link: str) -> bytes:
    """The file behind a link, as the browser saves it."""
    with page.expect_download() as download:
        page.get_by_role("link", name=link).first.click()
    return Path(download.value.path()).read_bytes()


def test_1_a_project_made_on_the_web_is_set_up(cruise: Cruise, visit: Visit) -> None:
    assert "set the project up first" in cruise.refusal("POST", "/start/look", json={"folder": ""})
    assert "0 <Image> tags" in cruise.refusal("POST", "/start/set-up", json={})
    page = visit.page
    page.goto(f"{cruise.server.url}/planktrait/projects/{cruise.project}/data")
    checks = page.locator("#checks")
    expect(checks).to_contain_text("None yet: choose one below")
    expect(checks).to_contain_text("not connected to it yet")
    expect(checks).to_contain_text(str(cruise.server.images_root))
    keep_both(visit, "set-up-before")
    page.get_by_label("Functional groups").check()
    page.get_by_role("button", name="Set up this project").click()
    expect(page.locator("#status")).to_contain_text("The project is set up", timeout=60_000)
    expect(checks).to_contain_text("Ours, “functional_groups”")
    expect(checks).to_contain_text("Connected. There is no version yet")
    expect(page.locator('[data-step="set-up"]')).to_have_text("Ready")
    expect(page.get_by_label("Keep the present one")).to_be_checked()
    keep_both(visit, "set-up")
    project = cruise.api.get(f"/api/projects/{cruise.project}/")
    assert project["sampling"] == "Uncertainty sampling"
    tabs = cruise.api.get("/api/dm/views/", project=cruise.project)
    assert "Blind" in {tab["data"]["title"] for tab in tabs}
    # Once more changes nothing and doubles nothing: not even the order that somebody chose.
    ours = f"/api/projects/{cruise.project}/"
    cruise.api.patch(ours, {"sampling": "Uniform sampling"})
    open_step(visit, cruise, "set-up").reload()
    expect(page.locator("#least-certain")).not_to_be_checked()
    page.get_by_role("button", name="Set up this project").click()
    expect(page.locator("#status")).to_contain_text("Setting up")
    expect(page.locator("#status")).to_contain_text("The project is set up", timeout=60_000)
    assert len(cruise.api.get("/api/dm/views/", project=cruise.project)) == len(tabs)
    assert len(cruise.api.get("/api/ml", project=cruise.project)) == 1
    assert cruise.api.get(ours)["sampling"] == "Uniform sampling"
    page.get_by_role("link", name="Gallery").click()
    page.get_by_role("link", name="Import images").click()
    expect(page.locator("#view-import")).to_be_visible()
    visit.check()


def test_2_images_come_from_a_folder(cruise: Cruise, visit: Visit) -> None:
    assert any(line.startswith("images of the page “Data”: ") for line in FIGURES)
    page = open_step(visit, cruise, "import")
    folders = page.locator("#folders")
    expect(folders).to_contain_text("cruise7")
    expect(folders).not_to_contain_text("leads-out")
    expect(folders.locator("button", has_text="cruise7")).to_contain_text("61 images")
    folders.locator("button", has_text="cruise7").click()
    expect(page.locator("#here")).to_contain_text("Chosen: cruise7, 61 images with all below")
    page.locator("#table").select_option(label="cruise7.csv")
    page.locator("#blind").fill("30")
    page.get_by_role("button", name="See what it adds").click()
    found = page.locator("#found")
    expect(found).to_contain_text("Importing cruise7 would add", timeout=60_000)
    expect(found).to_contain_text("60new images")
    expect(found).to_contain_text("casts/broken.pngunreadable: not an image")
    for column in ("sample_id", "depth_m", "captured_at", "station"):
        expect(found.locator("code", has_text=column)).to_be_visible()
    keep_both(visit, "import")
    page.locator("#import").click()
    expect(found).to_contain_text("60images added", timeout=60_000)
    expect(page.locator('[data-step="import"]')).to_have_text("60 images")
    # Importing again adds nothing.
    page.locator("#import").click()
    expect(found).to_contain_text("60there already", timeout=60_000)
    expect(found).to_contain_text("0images added")
    visit.keep_screenshot("data-imported")
    tasks = list(fetch_tasks(cruise.server.home, cruise.project))
    assert len(tasks) == N_IMAGES
    assert 5 < sum(task["data"]["blind"] == "yes" for task in tasks) < 35
    visit.check()


def test_3_exports_are_fetched_and_deleted(cruise: Cruise, visit: Visit) -> None:
    cruise.annotate()
    page = open_step(visit, cruise, "export")
    expect(page.locator("#exports")).to_contain_text("Nothing has been exported yet")
    for name in ("CSV", "JSON", "COCO"):
        page.locator("#formats label", has=page.get_by_text(name, exact=True)).click()
        page.get_by_role("button", name="Export", exact=True).click()
        row = page.locator("#exports tbody tr").filter(has_text=name)
        expect(row).to_be_visible(timeout=60_000)
    keep_both(visit, "export")
    stem = f"project-{cruise.project}"
    rows = list(csv.DictReader(io.StringIO(fetched(page, f"{stem}.csv").decode())))
    assert len(rows) == N_IMAGES
    assert {row["annotator"] for row in rows} == {cruise.server.home.secrets.user_email}
    said = {row["image_id"].rsplit("/", 1)[-1]: row["group"] for row in rows}
    assert said == cruise.groups
    nested = json.loads(fetched(page, f"{stem}.json"))
    assert len(nested) == N_IMAGES
    coco = json.loads(fetched(page, f"{stem}.coco.json"))
    assert len(coco["images"]) == N_IMAGES
    assert all(image["width"] > 0 for image in coco["images"])
    assert b"group" in fetched(page, f"{stem}.dictionary.csv")
    page.on("dialog", lambda dialog: dialog.accept())
    coco_row = page.locator("#exports tbody tr").filter(has_text="COCO")
    coco_row.get_by_role("button", name="Delete").click()
    expect(coco_row).to_have_count(0)
    assert len(cruise.api.get(cruise.path)["exports"]) == 2

    # A selection of the Data Manager comes to the same place.
    ids = [task["id"] for task in fetch_tasks(cruise.server.home, cruise.project, full=False)]
    action = f"/api/dm/actions?id=export_selection&project={cruise.project}"
    chosen = {"selectedItems": {"all": False, "included": ids[5:12]}}
    with pytest.raises(ApiError, match="no format"):
        cruise.api.post(action, {**chosen, "format": "XLS"})
    started = cruise.api.post(action, {**chosen, "format": "JSON"})
    page.goto(cruise.server.url + started["address"])
    page.reload()
    expect(page.locator("#exports tbody tr")).to_have_count(3, timeout=60_000)
    assert len(json.loads(fetched(page, f"{stem}.json"))) == 7
    visit.check()


def test_4_counts_with_their_intervals(
    cruise: Cruise, visit: Visit, tmp_path_factory: pytest.TempPathFactory
) -> None:
    page = open_step(visit, cruise, "counts")
    expect(page.locator("#count-checks")).to_contain_text("There is no model yet")
    expect(page.locator("#count-form button")).to_be_disabled()
    visit.keep_screenshot("data-counts-no-model")
    assert "there is no model yet" in cruise.refusal("POST", "/start/count", json={})
    cruise.train(Encoder.create("resnet10t", 32).save(tmp_path_factory.mktemp("encoder")))
    blind = [t for t in fetch_tasks(cruise.server.home, cruise.project) if is_blind(t)]
    for task in blind[:3]:
        answer = f"/api/annotations/{task['annotations'][0]['id']}/"
        assert cruise.server.request("DELETE", answer).status_code == 204
    page = open_step(visit, cruise, "counts")
    page.reload()
    expect(page.locator("#count-checks")).to_contain_text("Live version: project-")
    expect(page.locator("#count-checks")).to_contain_text("they tell how wrong")
    assert page.locator("#count-by option").all_inner_texts() == [
        "sample",
        "depth",
        "day",
        "station",
    ]
    page.locator("#count-by").select_option("station")
    page.get_by_role("button", name="Count", exact=True).click()
    table = page.locator(".counted")
    expect(table).to_be_visible(timeout=120_000)
    assert table.locator(".groups").count() == 3
    expect(table.locator(".groups").first).to_contain_text("A20 images")
    # Of blind images only what people said is counted, and the page says so.
    expect(table.locator(".groups", has_text="blind and not annotated").first).to_be_visible()
    expect(page.locator("#counts")).to_contain_text("3 blind images were not judged by anybody yet")
    expect(page.locator("#counts")).to_contain_text("Blind images have no suggestion")
    plot = page.locator("img.plot")
    expect(plot).to_be_visible()
    page.wait_for_function("() => document.querySelector('img.plot').naturalWidth > 0")
    keep_both(visit, "counts")
    rows = list(csv.DictReader(io.StringIO(fetched(page, "CSV").decode())))
    assert sum(int(row["raw_count"]) for row in rows) == N_IMAGES - len(blind)
    counted = sum(float(row["corrected_count"]) for row in rows)
    assert counted == pytest.approx(N_IMAGES, abs=0.01)
    assert sum({row["group"]: int(row["n_shared_out"]) for row in rows}.values()) == 3
    assert all("blind validated" in row["method"] for row in rows)
    assert b"<svg" in fetched(page, "Plot (SVG)")
    assert fetched(page, "Plot (PNG)").startswith(b"\x89PNG")
    assert b"n_not_predicted" in fetched(page, "Columns (CSV)")
    # A label that the model does not know has no interval, and is shown nevertheless; so is the
    # head of a group of which nothing is counted.
    kept = cruise.server.home.kept_folder("counts", cruise.project)
    (path,) = kept.glob("*/counts.csv")
    first = rows[0] | {"corrected_count": "2.0", "count_low95": "", "count_high95": ""}
    nothing = dict.fromkeys(("n_images", "n_validated", "n_shared_out", "raw_count"), "0")
    unread = rows[0] | nothing | {"group": "Z", "n_not_predicted": "7"}
    unread |= {"corrected_count": "0.0", "count_low95": "0", "count_high95": "0"}
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows([first | {"raw_count": "0", "n_not_predicted": "4"}, *rows[1:]])
        writer.writerows([unread, unread | {"label": rows[1]["label"]}])
    page.reload()
    expect(table).to_contain_text("none: only as people saw it", timeout=30_000)
    expect(table.locator(".groups").first).to_contain_text("4 more without a prediction")
    expect(table.locator(".groups").last).to_contain_text("Z0 images, 7 more without a prediction")
    expect(table.locator("tbody tr").last).to_have_class("groups")
    told = cruise.refusal("POST", "/start/count", json={"by": "salinity"})
    assert "no 'salinity' to count by; they have sample_id, depth, day, station" in told
    visit.check()


def test_5_what_is_wrong_is_named(cruise: Cruise, visit: Visit) -> None:
    for folder in ("..", "../outside", "leads-out", "/etc", "cruise7/../../outside"):
        assert "outside the images root" in cruise.refusal(
            "GET", "/folders", params={"path": folder}
        )
        for work in ("look", "import"):
            told = cruise.refusal("POST", f"/start/{work}", json={"folder": folder})
            assert "outside the images root" in told
    told = cruise.refusal("POST", "/start/import", json={"folder": "cruise8"})
    assert "there is no folder 'cruise8' below the images root" in told
    wrong_table = {"folder": "cruise7", "table": "../../outside/secret.csv"}
    assert "outside the images root" in cruise.refusal("POST", "/start/import", json=wrong_table)
    wrong_table = {"folder": "cruise7", "uploaded": "../../secrets.json"}
    assert "table" in cruise.refusal("POST", "/start/import", json=wrong_table)
    assert "blind_share" in cruise.refusal(
        "POST", "/start/import", json={"folder": "cruise7", "blind_share": 2}
    )
    assert "format" in cruise.refusal("POST", "/start/export", json={"format": "xml"})
    assert "config" in cruise.refusal("POST", "/start/set-up", json={"config": "../secrets"})
    assert "known are" in cruise.refusal("POST", "/start/export", json={"output": "/tmp/x"})
    cruise.refusal("POST", "/start/reboot", json={})
    empty = cruise.job("import", {"folder": "empty"})
    assert (empty["state"], "no usable image in" in empty["error"]) == ("failed", True)
    refused = cruise.server.request(
        "POST", f"{cruise.path}/tables", files={"table": ("run.exe", b"x")}
    )
    assert refused.status_code == 400
    assert "ends in .csv" in refused.text

    page = open_step(visit, cruise, "import")
    page.locator("#folders button", has_text="cruise7").click()
    table = cruise.server.images_root / "cruise7" / "no-names.csv"
    page.locator("#table-file").set_input_files(str(table))
    expect(page.locator("#table")).to_have_value("uploaded")
    page.get_by_role("button", name="See what it adds").click()
    job = page.locator("#jobs-import .job")
    expect(job).to_contain_text(
        "no column that names the image: call it 'filename'", timeout=60_000
    )
    expect(job).to_contain_text("columns: cell, depth_m")
    expect(job).not_to_contain_text(str(cruise.server.home.folder))
    expect(page.locator("#status")).to_contain_text("no column that names the image")
    visit.keep_screenshot("data-import-refused")
    job.get_by_role("button", name="Log").click()
    expect(page.locator("#log-text")).to_contain_text("no column that names the image")
    visit.check()


def test_6_only_for_who_may_see_the_project(cruise: Cruise, visit: Visit) -> None:
    home, url = cruise.server.home, cruise.server.url
    kept = cruise.api.get(cruise.path)["exports"][0]
    file = f"/exports/{kept['id']}/files/{kept['files'][0]['name']}"
    paths = [("GET", path) for path in ("", "/jobs", "/folders", file)]
    paths += [("POST", "/start/export"), ("POST", "/tables"), ("DELETE", f"/exports/{kept['id']}")]
    for method, path in paths:
        anonymous = requests.request(method, url + cruise.path + path, timeout=20)
        assert anonymous.status_code == 401, path

    other = cruise.api.post("/api/projects", {"title": "Another"})["id"]
    elsewhere = cruise.path.replace(f"/{cruise.project}/", f"/{other}/")
    assert cruise.server.request("GET", elsewhere + file).status_code == 404
    for name in ("../../../secrets.json", "about.json"):
        path = f"{cruise.path}/exports/{kept['id']}/files/{requests.utils.quote(name, safe='')}"
        assert cruise.server.request("GET", path).status_code == 404

    stranger = add_user(home, "data-stranger@example.org", "a-good-password-1")
    script = (
        "from organizations.models import Organization, OrganizationMember\n"
        "from users.models import User\n"
        f"user = User.objects.get(id={stranger.id})\n"
        "other = Organization.create_organization(created_by=user, title='Other')\n"
        "other.jwt.legacy_api_tokens_enabled = True; other.jwt.save()\n"
        "user.active_organization = other; user.save()\n"
        "OrganizationMember.objects.filter(user=user).exclude(organization=other).delete()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"import django; django.setup()\n{script}"],
        env=server_environment(home),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    headers = {"Authorization": f"Token {stranger.token}"}
    for method, path in paths:
        refused = requests.request(method, url + cruise.path + path, headers=headers, timeout=20)
        assert refused.status_code in (403, 404), (path, refused.text)
    assert cruise.api.get(cruise.path)["exports"]
    for name in ("model", "tasks", "images"):
        address = f"{url}/api/planktrait/projects/{cruise.project}/{name}"
        assert requests.get(address, headers=headers, timeout=20).status_code == 403
    session = requests.Session()
    login = f"{url}/user/login/"
    session.get(login, timeout=20)
    form = {"email": stranger.email, "password": "a-good-password-1"}
    form["csrfmiddlewaretoken"] = session.cookies["csrftoken"]
    session.post(login, data=form, headers={"Referer": login}, timeout=20)
    assert session.get(f"{url}/api/current-user/whoami", timeout=20).status_code == 200
    for name in ("data", "model", "gallery"):
        address = f"{url}/planktrait/projects/{cruise.project}/{name}"
        assert session.get(address, timeout=20).status_code == 404

    # A browser's session must send the token that another page cannot know.
    cookies = {cookie["name"]: cookie["value"] for cookie in visit.page.context.cookies()}
    for method, path in paths[4:]:
        refused = requests.request(method, url + cruise.path + path, cookies=cookies, timeout=20)
        assert refused.status_code == 403, path
    missing = visit.page.goto(f"{url}/planktrait/projects/99999/data")
    assert missing is not None
    assert missing.status == 404
    visit.our_errors.clear()
