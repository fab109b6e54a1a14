"""Bulk loading of tasks and predictions into a real Label Studio, through its database."""

import itertools
import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from label_studio_config.api import Api, ApiError
from label_studio_config.home import Home, OutsideRootError
from label_studio_config.hosting import server_environment
from label_studio_config.manifest import Manifest, ManifestError
from label_studio_config.project import create_project
from label_studio_config.results import write_result
from label_studio_config.source_import import import_source
from label_studio_config.task_import import import_manifest
from ml_backend.push import PushError, push_project
from planktrait import app
from tests.push_fixtures import (
    CONFIG,
    LABELS,
    in_django,
    kept_django,
    manifest_of,
    new_project,
    shard,
    state_and_recount,
    state_of,
)
from tests.small_disk import small_disk

_names = itertools.count(1)


@pytest.fixture(scope="module")
def django_beside(label_studio):
    """A process that looks into the database of the Label Studio that all tests share."""
    with kept_django(label_studio.home):
        yield


@pytest.fixture
def project(label_studio, django_beside):
    return create_project(
        label_studio.home, f"Pushed {next(_names)}", CONFIG, annotators_per_image=2
    )


def counts(told: dict) -> dict:
    names = ("added", "blind", "suggested", "replaced", "unchanged")
    names += ("pruned", "kept", "unreplaced", "shown")
    return {name: told[name] for name in names if told[name]}


def test_only_what_is_new_or_changed_is_written(label_studio, project, tmp_path):
    home = label_studio.home
    blind = ["yes" if number == 3 else "no" for number in range(40)]
    manifest = manifest_of(home.images_root, 40, blind=blind)
    path = manifest.write(tmp_path / "cruise.parquet")
    ids = manifest.image_ids
    first = tmp_path / "v1"
    shard(first / "part-00000.parquet", ids[:25], "cruise-v1")
    shard(first / "part-00001.parquet", ids[25:38], "cruise-v1")
    # Half of the images are tasks already.
    import_manifest(home, project.id, manifest.select(ids[10:30]))
    told = push_project(home.folder, project.id, path, first)
    assert counts(told) == {"added": 20, "blind": 1, "suggested": 37}
    assert told["bad"] == []

    state, recounted = state_and_recount(home, project.id)
    assert state["indexed"]
    assert state == recounted
    assert sorted(task[2]["image_id"] for task in state["tasks"]) == sorted(ids)
    assert [task[1] for task in state["tasks"]] == list(range(1, 41))
    assert {task[4] for task in state["tasks"]} == {2}
    assert sum(task[3] for task in state["tasks"]) == len(state["predictions"]) == 37
    assert sum(crop[7] for crop in state["crops"]) == len(state["labels"]) == 37
    assert state["model_version"] == "cruise-v1"
    assert Api(home).get(f"/api/projects/{project.id}/")["task_number"] == 40
    page = Api(home).get(f"/api/planktrait/projects/{project.id}/gallery/page", state="suggested")
    assert len(page["crops"]) == 37

    told = push_project(home.folder, project.id, path, first)
    assert counts(told) == {"unchanged": 37}
    assert state_of(home, project.id) == state

    # What one annotation came from, and what another was made beside, outlives pruning.
    by_image = {task[2]["image_id"]: task[0] for task in state["tasks"]}
    made = {prediction[1]: prediction[0] for prediction in state["predictions"]}
    result = write_result(project.schema, {"group": "Detritus"})
    accepted, beside = by_image[ids[0]], by_image[ids[20]]
    for task, more in ((accepted, {"parent_prediction": made[accepted]}), (beside, {})):
        body = {"result": result, **more}
        Api(home).post(f"/api/tasks/{task}/annotations/", body)
    second = tmp_path / "v2"
    shard(second / "part-00000.parquet", ids[:38], "cruise-v2", shift=1)
    told = push_project(home.folder, project.id, path, second, prune=True)
    assert counts(told) == {"suggested": 37, "shown": 37}
    # Somebody had this task open all the time.
    still_open = by_image[ids[21]]
    body = {"result": result, "parent_prediction": made[still_open]}
    Api(home).post(f"/api/tasks/{still_open}/annotations/", body)
    # Also after a push that was killed when it had shown its version, or one without --prune.
    told = push_project(home.folder, project.id, path, second, prune=True)
    assert counts(told) == {"unchanged": 37, "shown": 37}
    third = tmp_path / "v3"
    shard(third / "part-00000.parquet", ids[:38], "cruise-v3", shift=1)
    told = push_project(home.folder, project.id, path, third, prune=True)
    assert (counts(told)["suggested"], counts(told)["shown"]) == (37, 37)
    assert counts(told)["pruned"] + counts(told)["kept"] == 37
    state, recounted = state_and_recount(home, project.id)
    # Label Studio counts a task's columns once more with each annotation.
    assert state.pop("columns")["image"] == recounted.pop("columns")["image"] + 3
    assert state == recounted
    assert state["model_version"] == "cruise-v3"
    left = {one[1] for one in state["predictions"] if one[2] == "cruise-v1"}
    assert {accepted, still_open} <= left
    assert len(left) == counts(told)["kept"] <= 3
    # Label Studio refuses what comes from a suggestion that is gone.
    gone = next(task_id for task_id in made if task_id not in left)
    body = {"result": result, "parent_prediction": made[gone]}
    with pytest.raises(ApiError, match="object does not exist"):
        Api(home).post(f"/api/tasks/{gone}/annotations/", body)

    shard(third / "part-00000.parquet", ids[:38], "cruise-v3", shift=1, confidences={5: 0.99})
    told = push_project(home.folder, project.id, path, third)
    assert counts(told) == {"replaced": 1, "unchanged": 36}
    state, recounted = state_and_recount(home, project.id)
    assert state["labels"] == recounted["labels"]
    assert state["tasks"] == recounted["tasks"]


def versions_of(state: dict) -> dict[str, list[str]]:
    """The versions that each image has predictions of."""
    image = {task[0]: task[2]["image_id"] for task in state["tasks"]}
    found: dict[str, list[str]] = {image_id: [] for image_id in image.values()}
    for _, task_id, version, *_ in state["predictions"]:
        found[image[task_id]].append(version)
    return {image_id: sorted(versions) for image_id, versions in found.items()}


def prune_around_damage(home: Home, project: int, folder: Path, **where: str) -> None:
    """Another cruise, images of a damaged shard, and versions that may be open keep theirs."""
    both = manifest_of(home.images_root, 24)
    shard(folder / "old" / "part-00000.parquet", both.image_ids, "spared-v1")
    all_images = both.write(folder / "both.parquet")
    push_project(home.folder, project, all_images, folder / "old", **where)
    ids = both.image_ids[12:]
    cruise = both.select(ids).write(folder / "cruise.parquet")
    for version in ("spared-v2", "spared-v3"):
        new = folder / version
        shard(new / "part-00000.parquet", ids[:8], version, shift=1)
        whole = shard(new / "part-00001.parquet", ids[8:], version, shift=1).read_bytes()
        (new / "part-00001.parquet").write_bytes(whole[: len(whole) // 2])

    def push(version: str, **options: bool) -> dict[str, int]:
        shards = folder / version
        return counts(push_project(home.folder, project, cruise, shards, **options, **where))

    assert push("spared-v2", show=False, prune=True) == {"suggested": 8, "shown": 24}
    assert push("spared-v3", show=False, prune=True) == {"suggested": 8, "shown": 32}
    pruned = {"pruned": 8, "unreplaced": 16, "shown": 8}
    assert push("spared-v3") == {"unchanged": 8}
    assert push("spared-v3", prune=True) == {"unchanged": 8, **pruned}
    state, recounted = state_and_recount(home, project)
    assert state["predictions"] == recounted["predictions"]
    assert state["labels"] == recounted["labels"]
    assert state["model_version"] == "spared-v3"
    replaced = set(ids[:8])
    assert versions_of(state) == {
        image_id: ["spared-v2", "spared-v3"] if image_id in replaced else ["spared-v1"]
        for image_id in both.image_ids
    }


@pytest.mark.parametrize("way", ["database", "http"])
def test_pruning_takes_only_what_is_replaced(label_studio, project, tmp_path, way, monkeypatch):
    home = label_studio.home
    where = {"url": label_studio.url, "token": home.secrets.api_token} if way == "http" else {}
    label_studio.get(f"/api/planktrait/projects/{project.id}/gallery")  # which makes its index
    reported = []
    monkeypatch.setattr("hpc_jobs.progress.report", lambda *what: reported.append(what))
    prune_around_damage(home, project.id, tmp_path, **where)
    assert reported[-1][:3] == ("remove earlier versions", 24, 24)


def test_odd_rows_are_listed_and_the_rest_is_loaded(label_studio, project, tmp_path):
    home = label_studio.home
    words = ["<script>alert(1)</script>", "Čerenkov ☃ 浮游", None, "\0", float("nan"), "ok", "ok"]
    manifest = manifest_of(home.images_root, 7, station=words)
    path = manifest.write(tmp_path / "odd.parquet")
    ids = [*manifest.image_ids, "of another cruise"]
    folder = tmp_path / "shards"
    shard(
        folder / "part-00000.parquet",
        ids,
        "odd-v1",
        labels={5: "Krill"},
        confidences={6: float("nan")},
    )
    whole = shard(tmp_path / "whole.parquet", ids, "odd-v1").read_bytes()
    (folder / "part-00001.parquet").write_bytes(whole[: len(whole) // 2])
    told = push_project(home.folder, project.id, path, folder)
    bad = {one.path: one.reason for one in told["bad"]}
    assert "NUL" in bad.pop(ids[3])
    assert "Krill" in bad.pop(ids[5])
    assert "NaN" in bad.pop(ids[6])
    assert bad.pop("of another cruise") == "not in the manifest"
    assert "predict" in bad.pop(str(folder / "part-00001.parquet"))
    assert not bad
    assert counts(told) == {"added": 6, "suggested": 4}
    state, recounted = state_and_recount(home, project.id)
    assert state == recounted
    stations = {task[2].get("station") for task in state["tasks"]}
    assert stations == {words[0], words[1], None, "ok"}
    assert LABELS[2] in {row[3] for row in state["labels"]}


def test_refused_before_anything_is_written(label_studio, project, tmp_path):
    home = label_studio.home
    path = manifest_of(home.images_root, 2).write(tmp_path / "m.parquet")
    with pytest.raises(PushError, match="planktrait predict"):
        push_project(home.folder, project.id, path, tmp_path)
    with pytest.raises(PushError, match="no project '#99999'"):
        push_project(home.folder, 99999, path)
    # A folder of images is not even read.
    table = tmp_path / "ecotaxa_haul.tsv"
    table.touch()
    for source in (tmp_path, table):
        with pytest.raises(PushError, match="no project 'Cruse 7'"):
            push_project(home.folder, "Cruse 7", source)
        with pytest.raises(OutsideRootError, match=f"^{source} is not under the images root"):
            push_project(home.folder, project.id, source)
    with pytest.raises(OutsideRootError, match=f"^{tmp_path} is not under the images root"):
        import_source(home, project.id, tmp_path)
    with pytest.raises(PushError, match="planktrait predict"):
        push_project(home.folder, project.id, tmp_path, tmp_path / "nothing")
    assert Api(home).get(f"/api/projects/{project.id}/")["task_number"] == 0


def test_an_id_that_another_image_has_shows_no_images_to_anybody(label_studio, project, tmp_path):
    """Neither pushed, in both ways, nor imported."""
    home = label_studio.home
    first = manifest_of(home.images_root, 2)
    push_project(home.folder, project.id, first.write(tmp_path / "1.parquet"))
    label_studio.request("DELETE", f"/api/storages/localfiles/{project.storage_id}")
    same_ids = Manifest(first.table.assign(path=["x.png", "y.png"]), home.images_root)
    path = same_ids.write(tmp_path / "2.parquet")
    where = {"url": label_studio.url, "token": home.secrets.api_token}
    with pytest.raises(PushError, match="give one of them another image_id"):
        push_project(home.folder, project.id, path)
    with pytest.raises(ManifestError, match="give one of them another image_id"):
        push_project(home.folder, project.id, path, **where)
    with pytest.raises(ManifestError, match="give one of them another image_id"):
        import_manifest(home, project.id, same_ids)
    assert label_studio.get(f"/api/storages/localfiles?project={project.id}") == []


def test_a_killed_push_goes_on_where_it_stopped(label_studio, project, tmp_path):
    home = label_studio.home
    manifest = manifest_of(home.images_root, 600)
    path = manifest.write(tmp_path / "m.parquet")
    shard(tmp_path / "shards" / "part-00000.parquet", manifest.image_ids, "killed-v1")
    command = [sys.executable, "-m", "django", "planktrait_push", str(project.id), str(path)]
    command += ["--predictions", str(tmp_path / "shards"), "--batch-size", "20"]
    process = subprocess.Popen(
        command,
        env=server_environment(home),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    for line in process.stdout:
        if '"push", 60' in line:
            process.kill()
            break
    process.wait()
    state, recounted = state_and_recount(home, project.id)
    assert 60 <= len(state["tasks"]) < 600
    assert len(state["tasks"]) % 20 == 0
    assert state == recounted
    told = push_project(home.folder, project.id, path, tmp_path / "shards")
    assert told["added"] == 600 - len(state["tasks"])
    state, recounted = state_and_recount(home, project.id)
    assert state == recounted
    assert sorted(task[2]["image_id"] for task in state["tasks"]) == sorted(manifest.image_ids)
    assert [task[1] for task in state["tasks"]] == list(range(1, 601))
    assert {task[3] for task in state["tasks"]} == {1}


def test_a_full_disk_loses_and_doubles_nothing(tmp_path, database_template):
    (tmp_path / "small").mkdir()
    with small_disk(tmp_path / "small", "9m") as grow:
        home = Home(tmp_path / "small" / "home")
        shutil.copy(database_template, home.label_studio_folder / "label_studio.sqlite3")
        fill_a_disk(tmp_path, home, grow, 7000)


@pytest.mark.slow
def test_a_full_disk_of_postgresql_loses_and_doubles_nothing(
    tmp_path, monkeypatch, postgres_template
):
    from tests.postgres_fixtures import postgres_server

    with (
        postgres_server() as server,
        server.database_on_small_disk("small", postgres_template, room_mb=18) as (variables, grow),
    ):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        fill_a_disk(tmp_path, Home(tmp_path / "home"), grow, 12_000)


def fill_a_disk(tmp_path, home, grow, count) -> None:
    """What is written at once is 5,000 images, which take 7 MB on SQLite."""
    (tmp_path / "images").mkdir()
    home.change_settings(images_root=str(tmp_path / "images"))
    number = new_project(home)
    manifest = manifest_of(home.images_root, count)
    path = manifest.write(tmp_path / "m.parquet")
    shard(tmp_path / "shards" / "part-00000.parquet", manifest.image_ids, "full-v1")
    with pytest.raises(PushError, match="disk of the database is full: make room"):
        push_project(home.folder, number, path, tmp_path / "shards")
    grow("200m")
    told = push_project(home.folder, number, path, tmp_path / "shards")
    assert 0 < told["present"] < count
    assert told["present"] + told["added"] == count
    state, recounted = state_and_recount(home, number)
    assert state == recounted
    assert len({task[2]["image_id"] for task in state["tasks"]}) == len(state["tasks"]) == count
    assert len(state["predictions"]) == count


@pytest.mark.slow
def test_on_postgresql(tmp_path, monkeypatch, postgres_template):
    from tests.postgres_fixtures import postgres_cluster

    with postgres_cluster(postgres_template) as variables:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        home = Home(tmp_path / "home")
        (tmp_path / "images").mkdir()
        home.change_settings(images_root=str(tmp_path / "images"))
        with kept_django(home):
            bulk_load_on_postgresql(home, tmp_path, variables)


def bulk_load_on_postgresql(home: Home, tmp_path: Path, variables: dict[str, str]) -> None:
    number = new_project(home)
    station = ["\ttab\\N", "\\", "Čerenkov ☃", "\0", *["ok"] * 296]
    manifest = manifest_of(home.images_root, 300, station=station)
    path = manifest.write(tmp_path / "m.parquet")
    for version, shift in (("pg-v1", 0), ("pg-v2", 1), ("pg-v3", 0)):
        shard(tmp_path / version / "part-00000.parquet", manifest.image_ids, version, shift=shift)
    told = push_project(home.folder, number, path, tmp_path / "pg-v1", blind_share=0.1)
    blind = told["blind"]
    assert counts(told) == {"added": 299, "blind": blind, "suggested": 299 - blind}
    assert "NUL" in told["bad"][0].reason
    state, recounted = state_and_recount(home, number)
    assert state == recounted
    assert state["indexed"]
    assert {task[2]["station"] for task in state["tasks"]} == {*station} - {"\0"}
    told = push_project(home.folder, number, path, tmp_path / "pg-v1", blind_share=0.1)
    assert counts(told) == {"unchanged": 299 - blind}
    told = push_project(home.folder, number, path, tmp_path / "pg-v2", prune=True)
    assert counts(told) == {"suggested": 299 - blind, "shown": 299 - blind}
    told = push_project(home.folder, number, path, tmp_path / "pg-v3", prune=True)
    assert counts(told) == dict.fromkeys(("suggested", "pruned", "shown"), 299 - blind)
    state, recounted = state_and_recount(home, number)
    assert state == recounted
    prune_around_damage(home, new_project(home), tmp_path)
    prune_beside_others(home, new_project(home), tmp_path, variables)


def prune_beside_others(home: Home, number: int, folder: Path, variables: dict[str, str]) -> None:
    """What somebody shows, or annotates, while pruning has begun outlives it."""
    from tests.postgres_fixtures import comes_to_wait, open_connection

    manifest = manifest_of(home.images_root, 4)
    path = manifest.write(folder / "beside.parquet")
    for version, shift in (("beside-v1", 0), ("beside-v2", 1)):
        shard(folder / version / "part-00000.parquet", manifest.image_ids, version, shift=shift)
        push_project(home.folder, number, path, folder / version)
    in_django(
        home,
        "from tasks.models import Annotation, Task; from users.models import User\n"
        f"task = Task.objects.filter(project={number}).first()\n"
        "Annotation.objects.create(task=task, project=task.project, result=[],\n"
        "    completed_by=User.objects.first())\n",
    )
    prune = (
        "from projects.models import Project\n"
        "from label_studio_config.plugin.old_versions import remove_version\n"
        f"project = Project.objects.get(id={number})\n"
        "try: print(remove_version(project, 'beside-v1', 0, 'beside-v2'))\n"
        "except ValueError as error: print(error)\n"
    )
    show = "UPDATE project SET model_version = %s WHERE id = %s"
    comes_from = (
        "UPDATE task_completion SET parent_prediction_id = (SELECT id FROM prediction p "
        "WHERE p.task_id = task_completion.task_id AND model_version = %s) WHERE project_id = %s"
    )
    with open_connection(variables) as other, ThreadPoolExecutor(1) as pool:
        for change, said in (
            (show, "beside-v1 is shown: make another version live first"),
            (comes_from, "Removed(deleted=3, kept=1, unreplaced=0, next=None)"),
        ):
            # As of one that is saved alone, also what an annotation refers to is held from now on.
            other.execute("SET CONSTRAINTS ALL IMMEDIATE")
            other.execute(change, ("beside-v1", number))
            answer = pool.submit(in_django, home, prune)
            waited = comes_to_wait(answer, other, 60)
            other.commit()
            assert said in answer.result()
            assert waited
            other.execute(show, ("beside-v2", number))
            other.commit()


def test_what_push_writes_is_what_suggest_writes(tmp_path):
    from label_studio_config.manifest import Manifest
    from label_studio_config.prediction_shards import Shards
    from ml_backend.model import TraitModel
    from ml_backend.predict import predict, write_predictions
    from tests.backend_fixtures import add_version, draw_images

    home = Home(tmp_path / "home")
    drawn = draw_images(tmp_path / "images", 9)
    model = TraitModel.load(add_version(home).folder)
    names = [name for name, _ in drawn]
    manifest = Manifest(pd.DataFrame({"image_id": names, "path": names}), tmp_path / "images")
    write_predictions(model, manifest, tmp_path / "shards", model_version="m-v1")
    expected = predict(model, manifest, model_version="m-v1").suggestions()
    (batch,) = Shards(tmp_path / "shards", model.schema).batches(100)
    assert not batch.bad
    assert _rounded(batch.suggestions) == _rounded(expected)


def _rounded(value):
    return json.loads(json.dumps(value), parse_float=lambda text: round(float(text), 3))


def test_a_folder_is_a_source_too(label_studio, project, tmp_path):
    from PIL import Image

    folder = Path(label_studio.home.images_root) / f"folder-{project.id}"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        Image.new("L", (12, 12), 90).save(folder / name)
    shard(tmp_path / "shards" / "part-00000.parquet", ["a.png", "b.png"], "f-v1")
    for number in range(11):
        (folder / f"broken-{number}.png").write_bytes(b"no image")
    command = ["push", folder, "--predictions", tmp_path / "shards", "--project", project.id]
    command += ["--home", label_studio.home.folder]
    answer = CliRunner().invoke(app, [str(word) for word in command])
    assert answer.exit_code == 0, answer.output
    said = " ".join(answer.output.split())
    file = label_studio.home.logs_folder / f"push-project-{project.id}-skipped.csv"
    assert f"All 11 are listed in {file}" in said
    assert len(pd.read_csv(file)) == 11
    tasks = label_studio.get(f"/api/tasks?project={project.id}&fields=all")["tasks"]
    assert [task["total_predictions"] for task in tasks] == [1, 1]
