"""Projects, users and tasks in a real Label Studio: complete, and never doubled on repeat."""

from __future__ import annotations

import os

import pandas as pd
import pytest
import requests
from PIL import Image

from label_studio_config.api import Api, ApiError
from label_studio_config.backend_connection import WEBHOOK_ACTIONS, authorization
from label_studio_config.home import Home, OutsideRootError
from label_studio_config.manifest import Manifest, ManifestError
from label_studio_config.project import (
    ProjectError,
    config_names,
    create_project,
    find_project,
    read_config,
)
from label_studio_config.schema import SchemaError
from label_studio_config.sources import read_folder
from label_studio_config.tabs import tabs
from label_studio_config.task_import import import_manifest, is_blind, task_data
from label_studio_config.users import UserError, add_user
from ml_backend.backend import COUNTED_EVENTS
from tests.label_studio_fixtures import backend_for_tests

pytestmark = pytest.mark.slow

CONFIG = """<View><Image name="image" value="$image"/><Choices name="group" toName="image">
<Choice value="Copepod" aphia="1080"/><Choice value="Detritus"/></Choices></View>"""


@pytest.fixture
def home(label_studio):
    return label_studio.home


def make_images(folder, count):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        Image.new("L", (8, 8), i % 255).save(folder / f"{i:04d} a+b.png")
    return Manifest(
        pd.DataFrame(
            {
                "image_id": [f"{folder.name}/{i}" for i in range(count)],
                "path": [f"{folder.name}/{i:04d} a+b.png" for i in range(count)],
                "sample_id": "profile 1",
                "depth_m": [float("nan") if i % 2 else 10.5 for i in range(count)],
                "pixel_size_um": 59.6,
            }
        ),
        folder.parent,
    )


def counts(server, project_id):
    api = Api(server.home)
    return {
        "storages": len(api.get("/api/storages/localfiles", project=project_id)),
        "backends": len(api.get("/api/ml", project=project_id)),
        "webhooks": len([w for w in api.get("/api/webhooks/") if w["project"] == project_id]),
        "tabs": len(api.get("/api/dm/views/", project=project_id)),
        "tasks": api.get(f"/api/projects/{project_id}/")["task_number"],
    }


def test_creating_twice_makes_one_of_everything(label_studio, home):
    with backend_for_tests(home):
        first = create_project(home, "Twice", CONFIG)
        assert first.created
        once = counts(label_studio, first.id)
        second = create_project(home, "Twice", CONFIG)
    assert second.id == first.id
    assert not second.created
    assert second.tab_ids == first.tab_ids
    assert counts(label_studio, first.id) == once
    assert once == {"storages": 1, "backends": 1, "webhooks": 1, "tabs": 5, "tasks": 0}
    assert [p["title"] for p in Api(home).pages("/api/projects/")].count("Twice") == 1
    assert find_project(home, "Twice").id == find_project(home, first.id).id == first.id
    # A title that holds the name of another is another project.
    assert create_project(home, "Twice again", CONFIG).id != first.id


def test_options_change_on_a_second_call(home):
    project = create_project(home, "Options", CONFIG)
    path = f"/api/projects/{project.id}/"
    before = Api(home).get(path)
    assert before["maximum_annotations"] == 1
    assert before["sampling"] == "Uncertainty sampling"
    assert before["show_collab_predictions"]
    create_project(
        home, "Options", annotators_per_image=3, sampling="uniform", show_suggestions=False
    )
    after = Api(home).get(path)
    assert after["maximum_annotations"] == 3
    assert after["sampling"] == "Uniform sampling"
    assert not after["show_collab_predictions"]
    assert after["label_config"] == before["label_config"]
    # What is not named stays.
    create_project(home, "Options")
    assert Api(home).get(path)["maximum_annotations"] == 3


def test_an_edited_config_is_kept_and_a_new_one_applied(home):
    project = create_project(home, "Edited", CONFIG)
    edited = CONFIG.replace("Detritus", "Marine snow")
    Api(home).patch(f"/api/projects/{project.id}/", {"label_config": edited})
    assert create_project(home, "Edited").schema.control("group").labels[1] == "Marine snow"
    again = create_project(home, "Edited", CONFIG)
    assert again.schema.control("group").labels[1] == "Detritus"


@pytest.mark.parametrize("name", config_names())
def test_each_of_our_configs_makes_a_project(home, name):
    project = create_project(home, f"Config {name}", name)
    assert project.schema.controls


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"config": "no such config"}, ProjectError, "functional_groups"),
        ({"config": "<View><Imag"}, SchemaError, "XML"),
        ({"annotators_per_image": 0}, ProjectError, "at least 1"),
        ({"sampling": "best"}, ProjectError, "uncertainty"),
        ({"name": "ab"}, ProjectError, "3 to 50"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_made(home, options, error, message):
    name = options.pop("name", "Wrong")
    with pytest.raises(error, match=message):
        create_project(home, name, **options)
    with pytest.raises(ProjectError, match="no project"):
        find_project(home, name)


def test_the_webhook_has_the_password_and_our_actions_only(home):
    with backend_for_tests(home) as backend:
        project = create_project(home, "Webhook", CONFIG)
        webhook = Api(home).get(f"/api/webhooks/{project.webhook_id}/")
        assert webhook["headers"] == {"Authorization": authorization(home.secrets)}
        # Only what the backend counts: each is sent inside the annotator's request.
        assert set(webhook["actions"]) == set(WEBHOOK_ACTIONS) == COUNTED_EVENTS
        assert not webhook["send_for_all_actions"]
        backend.requests.clear()
        task = Api(home).post(
            "/api/tasks/", {"project": project.id, "data": {"image": "/data/x.png"}}
        )
        assert backend.sent_to("webhook") == []
        result = [
            {
                "from_name": "group",
                "to_name": "image",
                "type": "choices",
                "value": {"choices": ["Copepod"]},
            }
        ]
        made = Api(home).post(f"/api/tasks/{task['id']}/annotations/", {"result": result})
        Api(home).patch(f"/api/annotations/{made['id']}/", {"result": result})
        Api(home).call("DELETE", f"/api/annotations/{made['id']}/")
        assert [body["action"] for body in backend.sent_to("webhook")] == ["ANNOTATION_CREATED"]


def test_a_bare_name_is_our_config_and_a_path_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ours = read_config("traits")
    (tmp_path / "traits").write_text("not a config")
    (tmp_path / "mine").write_text("<View/>")
    assert read_config("traits") == read_config("traits.xml") == ours
    with pytest.raises(ProjectError, match="no config 'mine'"):
        read_config("mine")
    assert read_config("./mine") == read_config(tmp_path / "mine") == "<View/>"
    (tmp_path / "traits.xml").write_text("<View/>")
    assert read_config("traits.xml") == "<View/>"


def test_wrong_backend_password_is_refused(home, tmp_path):
    """The backend of another home: its password is another one."""
    other = Home(tmp_path / "other")
    other.change_settings(backend_port=home.settings.backend_port)
    with backend_for_tests(other), pytest.raises(ApiError, match="authentication"):
        create_project(home, "Wrong password", CONFIG)


def test_our_own_backend_connects(label_studio_with_backend):
    home = label_studio_with_backend.home
    project = create_project(home, "Own backend", CONFIG)
    (backend,) = Api(home).get("/api/ml", project=project.id)
    assert backend["readable_state"] == "Connected", backend
    assert backend["basic_auth_pass_is_set"]
    for path in ("health", "versions", "jobs", "nothing"):
        url = f"{home.settings.backend_url}/{path}"
        assert requests.get(url, timeout=30).status_code == 401
        assert requests.get(url, auth=("label-studio", "wrong"), timeout=30).status_code == 401


def test_without_a_backend_the_project_is_made_and_connected_later(label_studio, home):
    project = create_project(home, "Later", CONFIG)
    assert project.backend_id is None
    assert counts(label_studio, project.id)["backends"] == 0
    with backend_for_tests(home):
        assert create_project(home, "Later").backend_id is not None


def test_annotating_goes_on_when_the_backend_stops(home):
    with backend_for_tests(home):
        project = create_project(home, "Stopped", CONFIG)
    api = Api(home)
    task = api.post("/api/tasks/", {"project": project.id, "data": {"image": "/data/x.png"}})
    assert api.get(f"/api/tasks/{task['id']}/")["id"] == task["id"]
    annotation = api.post(f"/api/tasks/{task['id']}/annotations/", {"result": []})
    assert annotation["id"]


def test_tabs_filter_and_sort(label_studio, home):
    project = create_project(home, "Tabs", CONFIG)
    api = Api(home)
    views = {v["data"]["title"]: v for v in api.get("/api/dm/views/", project=project.id)}
    assert list(views) == [tab["title"] for tab in tabs()]
    tasks = []
    for i, score in enumerate([0.9, 0.2, None, 0.5]):
        tasks.append(
            {
                "data": {"image": f"/data/{i}.png", "blind": "yes" if score is None else "no"},
                "predictions": []
                if score is None
                else [{"result": [], "score": score, "model_version": "v1"}],
                "annotations": [{"result": []}] if score == 0.5 else [],
            }
        )
    api.post(f"/api/projects/{project.id}/import", tasks)
    api.post(f"/api/planktrait/projects/{project.id}/model-version", {"model_version": "v1"})

    def shown(title):
        page = api.get("/api/tasks", view=views[title]["id"], project=project.id)
        return [task["data"]["image"][6] for task in page["tasks"]]

    assert sorted(shown("All")) == ["0", "1", "2", "3"]
    assert shown("Least certain first") == ["1", "3", "0"]
    assert sorted(shown("Suggested")) == ["0", "1"]
    assert shown("Annotated") == ["3"]
    assert shown("Blind") == ["2"]


def test_import_twice_adds_nothing(label_studio, home):
    project = create_project(home, "Import", CONFIG)
    manifest = make_images(label_studio.images_root / "cruise one", 60)
    report = import_manifest(home, project.id, manifest, blind_share=0.3, batch_size=25)
    assert (report.added, report.present) == (60, 0)
    again = import_manifest(home, project.id, manifest, blind_share=0.3)
    assert (again.added, again.present) == (0, 60)
    assert counts(label_studio, project.id)["tasks"] == 60
    assert counts(label_studio, project.id)["storages"] == 1
    page = Api(home).get("/api/tasks", project=project.id, page_size=100, fields="all")
    tasks = {task["data"]["image_id"]: task["data"] for task in page["tasks"]}
    assert sorted(tasks) == sorted(manifest.image_ids)
    for row in manifest.table.to_dict("records"):
        data = tasks[row["image_id"]]
        assert data["blind"] == ("yes" if is_blind(row["image_id"], 0.3) else "no")
        assert home.resolve_image(data["image"]) == manifest.root.resolve() / row["path"]
        assert data["pixel_size_um"] == 59.6
        assert data.get("depth_m") == (10.5 if row["depth_m"] == 10.5 else None)
    assert report.blind == sum(data["blind"] == "yes" for data in tasks.values())
    # More images later: only those are added.
    more = make_images(label_studio.images_root / "cruise one", 63)
    assert import_manifest(home, project.id, more, blind_share=0.3).added == 3


def write_images(folder, names, color=0):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("L", (8, 8), color).save(folder / name)


def data_of(home, project):
    page = Api(home).get("/api/tasks", project=project.id, page_size=100, fields="all")
    return {task["data"]["image_id"]: task["data"] for task in page["tasks"]}


def test_folders_with_equal_file_names_are_imported_each(label_studio, home):
    """An id is the path below the images root, from whatever folder an image is imported."""
    project = create_project(home, "Cruises", CONFIG)
    data = label_studio.images_root / "cruises"
    names = [f"{i}.png" for i in range(20)]
    for number in (7, 8):
        write_images(data / f"cruise{number}", names, number)
    for number in (7, 8):
        manifest, _ = read_folder(data / f"cruise{number}")
        report = import_manifest(home, project.id, manifest, blind_share=0.5)
        assert (report.added, report.present) == (20, 0)
    wider, _ = read_folder(data)
    # The same blind images as before: no twin of a blind image is opened.
    again = import_manifest(home, project.id, wider, blind_share=0.5)
    assert (again.added, again.present) == (0, 40)
    tasks = data_of(home, project)
    assert set(tasks) == {f"cruises/cruise{n}/{name}" for n in (7, 8) for name in names}
    for image_id, one in tasks.items():
        assert one["blind"] == ("yes" if is_blind(image_id, 0.5) else "no")
        assert home.resolve_image(one["image"]) == (label_studio.images_root / image_id).resolve()
    written = max(home.manifests_folder.glob(f"project-{project.id}-*"), key=os.path.getmtime)
    assert set(Manifest.read(written).image_ids) == set(tasks)


def test_an_image_that_was_imported_under_another_id_is_not_doubled(label_studio, home):
    """Tasks of an older import, whose ids are relative to the folder that was given."""
    project = create_project(home, "Older ids", CONFIG)
    write_images(label_studio.images_root / "older", ["a.png", "b.png"])
    address = home.image_url("older/a.png")
    api = Api(home)
    api.post(
        f"/api/projects/{project.id}/import", [{"data": {"image": address, "image_id": "a.png"}}]
    )
    manifest, _ = read_folder(label_studio.images_root / "older")
    report = import_manifest(home, project.id, manifest)
    assert (report.added, report.present) == (1, 1)
    assert set(data_of(home, project)) == {"a.png", "older/b.png"}


def test_the_id_of_another_image_is_refused(label_studio, home):
    project = create_project(home, "Same ids", CONFIG)
    write_images(label_studio.images_root / "ids", ["a.png", "b.png"])

    def manifest(name):
        table = pd.DataFrame({"image_id": ["object 1"], "path": [name]})
        return Manifest(table, label_studio.images_root / "ids")

    assert import_manifest(home, project.id, manifest("a.png")).added == 1
    with pytest.raises(ManifestError, match=r"'object 1' of .*ids/b\.png .*ids/a\.png .*another"):
        import_manifest(home, project.id, manifest("b.png"))
    assert counts(label_studio, project.id)["tasks"] == 1


@pytest.mark.parametrize("column", ["image", "task_id"])
def test_a_column_that_a_task_cannot_hold_is_refused(label_studio, home, column):
    project = create_project(home, "Columns", CONFIG)
    manifest = make_images(label_studio.images_root / "columns", 1)
    table = manifest.table.assign(**{column: "http://example.org/other.png"})
    with pytest.raises(ManifestError, match=f"'{column}'.*rename"):
        import_manifest(home, project.id, Manifest(table, manifest.root))
    assert counts(label_studio, project.id)["tasks"] == 0


def test_a_column_blind_adds_to_the_blind_share(label_studio, home):
    project = create_project(home, "Blind column", CONFIG)
    manifest = make_images(label_studio.images_root / "blind column", 6)
    table = manifest.table.assign(blind=["yes", True, 1, "No", None, float("nan")])
    report = import_manifest(home, project.id, Manifest(table, manifest.root))
    tasks = data_of(home, project)
    blind = [tasks[image_id]["blind"] for image_id in manifest.image_ids]
    assert blind == ["yes", "yes", "yes", "no", "no", "no"]
    assert report.blind == 3
    with pytest.raises(ManifestError, match="blind is 'perhaps'"):
        import_manifest(home, project.id, Manifest(table.assign(blind="perhaps"), manifest.root))


def test_a_row_never_replaces_what_a_task_needs():
    row = {"image_id": "a", "path": "a.png", "blind": "true", "image": "x", "depth_m": 1.0}
    data = task_data(row, "/data/local-files/?d=a.png", blind=False)
    assert data == {
        "image_id": "a",
        "depth_m": 1.0,
        "image": "/data/local-files/?d=a.png",
        "blind": "yes",
    }


def test_only_images_are_served(label_studio, home):
    create_project(home, "Only images", CONFIG)
    root = label_studio.images_root
    (root / "notes.json").write_text("{}")
    (root / "page.svg").write_text("<svg/>")
    (root / "shown.png").symlink_to(root / "notes.json")
    write_images(root, ["upper.PNG"])
    for name in ("notes.json", "page.svg", "shown.png"):
        assert label_studio.request("GET", home.image_url(name)).status_code == 404, name
    assert label_studio.request("GET", home.image_url("upper.PNG")).ok


def test_images_are_served_to_members_only(label_studio, home):
    project = create_project(home, "Served", CONFIG)
    manifest = make_images(label_studio.images_root / "served", 1)
    import_manifest(home, project.id, manifest)
    address = home.image_url(manifest.table["path"][0])
    answer = label_studio.request("GET", address)
    assert answer.content == manifest.paths[0].read_bytes()
    assert requests.get(label_studio.url + address, timeout=10).status_code in (401, 403)
    token = {"Authorization": f"Token {add_user(home, 'served@example.org').token}"}
    assert requests.get(label_studio.url + address, headers=token, timeout=10).ok


def test_images_in_the_root_itself_are_served(label_studio, home):
    project = create_project(home, "In the root", CONFIG)
    Image.new("L", (8, 8)).save(label_studio.images_root / "alone.png")
    table = pd.DataFrame({"image_id": ["alone"], "path": ["alone.png"]})
    import_manifest(home, project.id, Manifest(table, label_studio.images_root))
    assert label_studio.request("GET", home.image_url("alone.png")).ok


def test_nothing_outside_the_root_is_imported_or_served(label_studio, home, tmp_path):
    project = create_project(home, "Outside", CONFIG)
    outside = make_images(tmp_path / "elsewhere", 2)
    with pytest.raises(OutsideRootError, match="serve --images ROOT"):
        import_manifest(home, project.id, outside)
    link = label_studio.images_root / "link"
    link.symlink_to(tmp_path / "elsewhere")
    linked = Manifest(
        pd.DataFrame({"image_id": ["x"], "path": [f"link/{outside.paths[0].name}"]}),
        label_studio.images_root,
    )
    with pytest.raises(OutsideRootError):
        import_manifest(home, project.id, linked)
    assert counts(label_studio, project.id)["tasks"] == 0
    for path in (f"link/{outside.paths[0].name}", "../home/secrets.json", "/etc/passwd"):
        answer = label_studio.request("GET", "/data/local-files/", params={"d": path})
        assert answer.status_code == 404, path


def test_the_blind_share_is_a_pure_function():
    ids = [f"image {i}" for i in range(20_000)]
    blind = {i for i in ids if is_blind(i, 0.1)}
    assert 0.09 < len(blind) / len(ids) < 0.11
    assert blind <= {i for i in ids if is_blind(i, 0.2)}
    assert blind != {i for i in ids if is_blind(i, 0.1, seed=1)}
    assert not any(is_blind(i, 0.0) for i in ids)
    assert all(is_blind(i, 1.0) for i in ids)


def test_adding_a_user_twice_adds_one(label_studio, home):
    first = add_user(home, "Twice@example.org")
    again = add_user(home, "twice@example.org")
    assert first.created
    assert first.password
    assert not again.created
    assert again.password is None
    assert (again.id, again.token) == (first.id, first.token)
    emails = [user["email"] for user in label_studio.get("/api/users/")]
    assert emails.count("twice@example.org") == 1
    assert first.password not in repr(first)


def test_annotations_bear_their_author(home, label_studio):
    project = create_project(home, "Authors", CONFIG)
    task = Api(home).post("/api/tasks/", {"project": project.id, "data": {"image": "/data/x.png"}})
    people = [add_user(home, f"author{i}@example.org") for i in range(2)]
    for person in people:
        answer = requests.post(
            f"{label_studio.url}/api/tasks/{task['id']}/annotations/",
            json={"result": []},
            headers={"Authorization": f"Token {person.token}"},
            timeout=30,
        )
        assert answer.json()["completed_by"] == person.id


@pytest.mark.parametrize(
    ("email", "password", "message"),
    [("not an address", None, "email"), ("short@example.org", "short", "password")],
)
def test_wrong_users_are_refused(home, email, password, message):
    with pytest.raises(UserError, match=message):
        add_user(home, email, password)


def test_only_the_owner_adds_users(label_studio, home):
    token = {"Authorization": f"Token {add_user(home, 'member@example.org').token}"}
    answer = requests.post(
        f"{label_studio.url}/api/planktrait/users",
        json={"email": "friend@example.org", "password": "a long password"},
        headers=token,
        timeout=30,
    )
    assert answer.status_code == 403
    assert requests.post(f"{label_studio.url}/api/planktrait/users", timeout=30).status_code == 401


def test_a_server_that_is_down_is_named(tmp_path):
    home = Home(tmp_path / "home")
    home.change_settings(label_studio_url="http://127.0.0.1:9")
    with pytest.raises(ApiError, match="planktrait serve"):
        create_project(home, "Down", CONFIG)
