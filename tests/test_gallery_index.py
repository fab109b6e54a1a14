"""The gallery's index follows what Label Studio holds, however it came there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from label_studio_config.hosting import server_environment
from label_studio_config.plugin import migrations
from planktrait import app
from tests.gallery_fixtures import VERSION, crop_rows, new_gallery, suggestion

__all__ = ["new_gallery"]

pytestmark = pytest.mark.slow


def contents(gallery):
    """Everything indexed of a project, but for ids of rows."""
    code = (
        "import json\n"
        "from label_studio_config.plugin.models import Crop, GivenAnswer, SuggestedLabel\n"
        "out = []\n"
        "for table, order in ((Crop, 'task_id'), (SuggestedLabel, 'prediction_id'),"
        " (GivenAnswer, 'task_id')):\n"
        f"    rows = table.objects.filter(project_id={gallery.project.id}).order_by(order, 'pk')\n"
        "    rows = [{k: str(v) for k, v in row.items() if k not in ('id', 'list_id')}"
        " for row in rows.values()]\n"
        "    out.append(rows)\n"
        "print(json.dumps(out))"
    )
    return json.loads(gallery.run(code).splitlines()[-1])


def reindex(gallery, *arguments):
    """What `planktrait reindex` says and answers."""
    home = gallery.server.home.folder
    words = ["reindex", "--home", str(home), *arguments]
    return CliRunner().invoke(app, words, env={"COLUMNS": "200"})


def test_suggestions_reach_an_index_that_exists_at_once(new_gallery):
    gallery = new_gallery(4)
    assert gallery.get("gallery/index")["suggestions"] == 0
    gallery.suggest({gallery.tasks[0]: ("Copepod", 0.6)})
    assert gallery.on_page() == [0]
    # Replaced in place, as a refresh of the same version does.
    gallery.suggest({gallery.tasks[0]: ("Detritus", 0.7), gallery.tasks[1]: ("Detritus", 0.9)})
    assert gallery.on_page(label="Detritus") == [1, 0]
    assert gallery.on_page(label="Copepod") == []
    # A new version is shown instead; the old one is there to go back to.
    gallery.suggest({gallery.tasks[2]: ("Copepod", 0.5)}, version="project-0-v0002")
    assert gallery.on_page() == [2]
    assert gallery.on_page(suggested=0) == [0, 1, 3]
    path = f"/api/planktrait/projects/{gallery.project.id}/model-version"
    gallery.api.post(path, {"model_version": VERSION})
    assert gallery.on_page() == [1, 0]
    assert gallery.on_page(suggested=0) == [2, 3]
    # Without a version that is not shown, what is shown stays.
    gallery.suggest({gallery.tasks[0]: ("Copepod", 0.5)}, version="project-0-v0002")
    gallery.api.post(path, {"model_version": VERSION})
    assert gallery.get("gallery/labels")["open"] == 2
    versions = f"/api/projects/{gallery.project.id}/model-versions/"
    gallery.api.call("DELETE", versions, json={"model_version": "project-0-v0002"})
    assert gallery.get("gallery/labels")["open"] == 2
    assert gallery.on_page() == [1, 0]


def test_what_comes_through_label_studio_itself_is_indexed(new_gallery):
    gallery = new_gallery(2)
    gallery.get("gallery")
    one = suggestion(gallery.project, gallery.tasks[0], "Copepod", 0.6)
    made = gallery.api.post("/api/predictions/", one)
    path = f"/api/planktrait/projects/{gallery.project.id}/model-version"
    gallery.api.post(path, {"model_version": VERSION})
    assert gallery.on_page() == [0]
    changed = suggestion(gallery.project, gallery.tasks[0], "Detritus", 0.8)
    gallery.api.patch(f"/api/predictions/{made['id']}/", {"result": changed["result"]})
    assert gallery.on_page(label="Detritus") == [0]
    # An import with predictions and annotations in it, which sends no signals.
    row = crop_rows(gallery.server, 1)[0]
    two = suggestion(gallery.project, 0, "Copepod", 0.9)
    annotation = {"result": suggestion(gallery.project, 0, "Copepod", 0.9)["result"]}
    gallery.api.post(
        f"/api/projects/{gallery.project.id}/import",
        [{"data": row, "predictions": [two], "annotations": [annotation]}],
    )
    said = gallery.get("gallery/index")
    assert (said["tasks"], said["suggestions"]) == (3, 2)
    assert len(gallery.page(state="suggested")["crops"]) == 1
    gallery.api.call("DELETE", f"/api/predictions/{made['id']}/")
    assert len(gallery.page()["crops"]) == 1
    assert gallery.on_page(suggested=0) == [0, 1]


def test_what_is_changed_in_a_task_is_found(new_gallery):
    gallery = new_gallery(2)
    gallery.suggest(dict.fromkeys(gallery.tasks, ("Copepod", 0.9)))
    gallery.get("gallery")
    data = gallery.task(gallery.tasks[0])["data"]
    change = {"data": {**data, "remark": "Two eggs", "depth_m": 77.5}}
    gallery.api.patch(f"/api/tasks/{gallery.tasks[0]}/", change)
    assert gallery.on_page(text="two EGGS") == [0]
    assert gallery.on_page(depth_from=70) == [0]
    # A long remark hides nothing that is short, nor does what lies within a list.
    net = {"gear": [{"name": "Bongo net"}, 333.5]}
    change = {"data": {**data, "remark": "nothing to see " * 300, "net": net}}
    gallery.api.patch(f"/api/tasks/{gallery.tasks[0]}/", change)
    for text in ("bongo", "333.5", data["image_id"], "nothing to see"):
        assert gallery.on_page(text=text) == [0], text
    # Of two predictions by one version the newer counts; without it, the older.
    one = suggestion(gallery.project, gallery.tasks[1], "Detritus", 0.6)
    newer = gallery.api.post("/api/predictions/", one)
    assert gallery.on_page(label="Detritus") == [1]
    assert gallery.on_page(label="Copepod") == [0]
    gallery.api.call("DELETE", f"/api/predictions/{newer['id']}/")
    assert gallery.on_page(label="Copepod", order="task") == [0, 1]


def test_a_task_that_becomes_blind_loses_its_predictions(new_gallery):
    gallery = new_gallery(3)
    gallery.suggest(dict.fromkeys(gallery.tasks, ("Copepod", 0.9)))
    gallery.accept(gallery.tasks[:1])

    def mark(task_id):
        data = {**gallery.task(task_id)["data"], "blind": "yes"}
        gallery.api.patch(f"/api/tasks/{task_id}/", {"data": data})

    mark(gallery.tasks[0])
    (task,) = gallery.get("tasks", ids=gallery.tasks[0])["tasks"]
    (annotation,) = task["annotations"]
    assert annotation["parent_prediction"] is None
    assert annotation["prediction"]["model_version"] == VERSION
    # Where nobody has opened the gallery yet, too.
    other = new_gallery(1)
    other.suggest({other.tasks[0]: ("Copepod", 0.9)})
    assert len(other.task(other.tasks[0])["predictions"]) == 1
    other.api.patch(f"/api/tasks/{other.tasks[0]}/", {"data": {"image": "/x.png", "blind": "yes"}})
    # With SQL: found when the gallery would show it.
    gallery.run(
        "from tasks.models import Task\n"
        f"Task.objects.filter(id={gallery.tasks[1]}).update(data={{'image': 'x', 'blind': 'yes'}})"
    )
    assert gallery.on_page() == [2]
    for task_id in (*gallery.tasks[:2], *other.tasks):
        task = gallery.task(task_id)
        assert (task["predictions"], task["total_predictions"]) == ([], 0)
    assert len(gallery.task(gallery.tasks[2])["predictions"]) == 1


def test_old_suggestions_go_but_for_those_that_an_annotation_came_from(new_gallery):
    from ml_backend.suggestions import delete_old_suggestions

    gallery = new_gallery(5)
    versions = [f"project-0-v000{n}" for n in range(1, 5)]
    for version in versions:
        gallery.suggest(dict.fromkeys(gallery.tasks, ("Copepod", 0.9)), version=version)
        if version == versions[0]:
            gallery.accept(gallery.tasks[1:2])
    gallery.get("gallery")
    live = SimpleNamespace(version=SimpleNamespace(name=versions[3]))
    assert delete_old_suggestions(gallery.server.home, gallery.project.id, live) == 9
    assert delete_old_suggestions(gallery.server.home, gallery.project.id, live) == 0
    tasks = [gallery.task(task_id) for task_id in gallery.tasks]
    kept = [[p["model_version"] for p in task["predictions"]] for task in tasks]
    assert [sorted(names) for names in kept] == [
        versions[2:],
        [versions[0], *versions[2:]],
        *([versions[2:]] * 3),
    ]
    assert [task["total_predictions"] for task in tasks] == [2, 3, 2, 2, 2]
    assert tasks[1]["annotations"][0]["parent_prediction"] is not None
    index = contents(gallery)
    assert len(index[1]) == 11
    # Thousands are deleted in several calls, of which each goes on where the one before stopped.
    said = gallery.run(
        "from label_studio_config.plugin import old_versions\n"
        "from projects.models import Project\n"
        "old_versions.CHUNK = 2\n"
        f"project, after = Project.objects.get(id={gallery.project.id}), 0\n"
        "while after is not None:\n"
        f"    done = old_versions.remove_version(project, '{versions[2]}', after)\n"
        "    after = done.next\n"
        "    print(done.deleted, end=' ')"
    )
    assert said.split()[-3:] == ["2", "2", "1"]
    assert reindex(gallery, "--project", str(gallery.project.id)).exit_code == 0
    assert len(contents(gallery)[1]) == 6
    path = f"suggestions?model_version={versions[3]}"
    assert gallery.call("DELETE", path).status_code == 400
    assert len(gallery.on_page(order="task", state="suggested")) == 4


def test_what_is_gone_is_never_shown(new_gallery):
    gallery = new_gallery(9)
    gallery.suggest({task: ("Copepod", 0.9 - i / 100) for i, task in enumerate(gallery.tasks)})
    gallery.get("gallery")
    gallery.api.call("DELETE", f"/api/tasks/{gallery.tasks[0]}/")
    # With SQL, as Label Studio does in places: nobody is told.
    gallery.run(
        "from tasks.models import Prediction, Task\n"
        f"rows = Prediction.objects.filter(task_id__in={gallery.tasks[1:4]})\n"
        "rows._raw_delete(rows.db)\n"
        f"rows = Task.objects.filter(id={gallery.tasks[1]}); rows._raw_delete(rows.db)\n"
        f"Task.objects.filter(id={gallery.tasks[4]}).update("
        "data={'image': 'x', 'blind': 'yes'})\n"
    )
    # The page is filled from what follows.
    page = gallery.page(limit=3)
    assert [crop["task"] for crop in page["crops"]] == gallery.tasks[5:8]
    assert gallery.on_page(limit=2) == [5, 6, 7, 8]
    assert gallery.on_page(suggested=0) == [2, 3, 4]
    said = gallery.get("gallery/index")
    assert (said["tasks"], said["suggestions"]) == (7, 4)


def test_the_index_is_made_anew_from_label_studios_tables(new_gallery):
    gallery = new_gallery(12, blind=[11])
    anna = gallery.person("anna")
    gallery.suggest(
        {task: ("Copepod", 0.9 - i / 100) for i, task in enumerate(gallery.tasks[:8])}, novelty=0.3
    )
    gallery.accept(gallery.tasks[:3], anna)
    gallery.annotate(gallery.tasks[3], {"group": "Detritus", "egg_sac": "present"})
    gallery.annotate(gallery.tasks[3], {"group": "Copepod"}, anna)
    gallery.get("gallery")
    grown = contents(gallery)
    assert [len(rows) for rows in grown] == [12, 8, 5]
    # Another's row, that Label Studio does not know.
    task = gallery.tasks[5]
    gallery.run(
        "from label_studio_config.plugin.models import SuggestedLabel\n"
        f"SuggestedLabel.objects.filter(task_id={task}).update(label='Detritus')"
    )
    done = reindex(gallery, "--project", gallery.project.name)
    assert done.exit_code == 0, done.output
    (row,) = [line for line in done.output.splitlines() if gallery.project.name in line]
    assert re.findall(r"\d+", row)[-2:] == ["12", "8"]
    made = contents(gallery)
    for row in grown[0] + made[0]:
        # Read from the files when they are first shown.
        row["width_px"] = row["height_px"] = None
    assert made == grown
    refused = reindex(gallery, "--project", "999999")
    assert refused.exit_code == 1
    assert "no project '999999' (there are: " in " ".join(refused.output.split())
    everything = reindex(gallery)
    assert everything.exit_code == 0
    assert gallery.project.name in everything.output


def test_another_config_asks_other_questions(new_gallery):
    gallery = new_gallery(2)
    gallery.suggest({gallery.tasks[0]: ("Copepod", 0.9), gallery.tasks[1]: ("Detritus", 0.8)})
    assert gallery.on_page() == [0, 1]
    config = gallery.project.schema.xml.replace('"Detritus"', '"Marine snow"')
    gallery.api.patch(f"/api/projects/{gallery.project.id}/", {"label_config": config})
    counts = gallery.get("gallery/labels")
    assert counts == {"labels": [{"label": "Copepod", "count": 1}], "open": 1}
    assert gallery.on_page(suggested=0) == [1]
    config = gallery.project.schema.xml.replace('name="group"', 'name="taxon"')
    config = config.replace('whenTagName="group"', 'whenTagName="taxon"')
    gallery.api.patch(f"/api/projects/{gallery.project.id}/", {"label_config": config})
    assert gallery.get("gallery")["control"] == "taxon"
    assert gallery.on_page() == []
    assert gallery.on_page(suggested=0) == [0, 1]


def test_judging_tasks_of_another_project_leaves_its_index_alone(new_gallery):
    mine, other = new_gallery(1), new_gallery(2)
    for gallery in (mine, other):
        gallery.suggest(dict.fromkeys(gallery.tasks, ("Copepod", 0.9)))
        assert gallery.get("gallery/index")["tasks"] == len(gallery.tasks)
    before = contents(other)
    done = mine.judge([{"task": task_id, "label": "Copepod"} for task_id in other.tasks])
    assert (done["saved"], done["crops"], len(done["conflicts"])) == (0, [], 2)
    # As the tables are: opening the gallery would find what is lost.
    assert contents(other) == before


def test_ten_requests_at_once_index_everything_once(new_gallery):
    gallery = new_gallery(300)
    gallery.suggest(dict.fromkeys(gallery.tasks, ("Copepod", 0.9)))
    with ThreadPoolExecutor(10) as pool:
        pages = list(pool.map(lambda _: gallery.page(limit=200), range(10)))
    assert {len(page["crops"]) for page in pages} == {200}
    assert [len(rows) for rows in contents(gallery)] == [300, 300, 0]


def test_a_page_takes_few_queries_however_long_it_is(new_gallery):
    gallery = new_gallery(60)
    gallery.suggest(dict.fromkeys(gallery.tasks, ("Copepod", 0.9)))
    gallery.accept(gallery.tasks[:30])
    gallery.page(limit=200)
    code = (
        "from django.db import connection\n"
        "from django.test.utils import CaptureQueriesContext as Capture\n"
        "from django.http import QueryDict\n"
        "from projects.models import Project\n"
        "from label_studio_config.plugin.gallery_filters import read_page\n"
        "from label_studio_config.plugin.gallery_page import page\n"
        "from label_studio_config.plugin.gallery_parts import View\n"
        "from label_studio_config.plugin.gallery_rows import questions_of\n"
        f"project = Project.objects.get(id={gallery.project.id})\n"
        "questions = questions_of(project.label_config)\n"
        f"view = View(project, questions, questions.primary, '{VERSION}', 1, False)\n"
        "counts = []\n"
        "for limit in (1, 60):\n"
        "    with Capture(connection) as queries:\n"
        "        found = page(view, read_page(QueryDict(f'limit={limit}')))\n"
        "    assert len(found['crops']) == limit\n"
        "    assert not any(w in q['sql'] for q in queries for w in ('OFFSET', 'COUNT('))\n"
        "    counts.append(len(queries))\n"
        "assert counts[0] == counts[1] <= 10, counts\n"
    )
    gallery.run(code)


def test_the_migrations_are_complete_and_in_the_package(label_studio):
    done = subprocess.run(
        [sys.executable, "-m", "django", "makemigrations", "planktrait", "--check", "--dry-run"],
        env=server_environment(label_studio.home),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert migrations.__file__ is not None
