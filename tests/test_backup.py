"""What a backup holds and refuses, on a small home without a server."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from label_studio_config.database_choice import database_of
from label_studio_config.home import Home
from label_studio_config.serve_lock import ServeLock
from planktrait import app


def planktrait(*words: object) -> tuple[int, str]:
    """A command as a user types it: its exit status and what it said."""
    answer = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "250"})
    # Lines are broken where the console is narrow.
    return answer.exit_code, " ".join(answer.output.split())


def home_of_annotations(folder: Path) -> Home:
    """A home whose database has the tables that are counted."""
    home = Home(folder)
    home.change_settings(images_root=folder.parents[1] / "images")
    file = home.label_studio_folder / "label_studio.sqlite3"
    with closing(sqlite3.connect(file, isolation_level=None)) as database:
        for table in ("project", "task", "task_completion", "prediction", "htx_user"):
            database.execute(f"CREATE TABLE {table} (id INTEGER)")
        database.execute("INSERT INTO task VALUES (1), (2)")
    models = home.models_folder(1) / "project-1-v0001"
    models.mkdir()
    (models / "model.safetensors").write_bytes(b"weights" * 1000)
    (home.models_folder(1) / ".writing-1").mkdir()
    (home.models_folder(1) / ".writing-1" / "half").touch()
    (home.cache_folder / "images").touch()
    (home.jobs_folder / ".keys").mkdir()
    (home.jobs_folder / ".keys" / "pending.pkl").touch()
    return home


@pytest.fixture
def small(tmp_path) -> tuple[Home, Path]:
    """A small home and a backup of it."""
    home = home_of_annotations(tmp_path / "a" / "home")
    home.secrets  # noqa: B018
    (tmp_path / "images").mkdir()
    status, said = planktrait("backup", tmp_path / "backup", "--home", home.folder)
    assert status == 0, said
    return home, tmp_path / "backup"


def test_half_written_files_and_locks_are_left_out(small, tmp_path):
    home, backup = small
    names = {str(path.relative_to(backup / "home")) for path in (backup / "home").rglob("*")}
    assert names == {
        "models",
        "models/project-1",
        "models/project-1/project-1-v0001",
        "models/project-1/project-1-v0001/model.safetensors",
        "secrets.json",
        "settings.json",
    }
    status, said = planktrait("restore", backup, "--home", tmp_path / "new")
    assert status == 0, said
    assert database_of(Home(tmp_path / "new")).count()["images"] == 2
    assert Home(tmp_path / "new").secrets == home.secrets


def test_a_place_that_cannot_be_written_is_named(small, tmp_path):
    home, _ = small
    (tmp_path / "file").touch()
    status, said = planktrait("backup", tmp_path / "file" / "backup", "--home", home.folder)
    assert (status, "cannot be written" in said) == (1, True)


def test_a_folder_of_the_home_may_be_a_link_to_another_disk(small, tmp_path):
    home, _ = small
    (home.folder / "models").rename(tmp_path / "large-disk")
    (home.folder / "models").symlink_to(tmp_path / "large-disk")
    status, said = planktrait("backup", tmp_path / "second", "--home", home.folder)
    assert status == 0, said
    assert len(list((tmp_path / "second" / "home").rglob("model.safetensors"))) == 1


def test_images_within_the_home_are_not_copied(small, tmp_path):
    home, _ = small
    (home.folder / "images").mkdir()
    (home.folder / "images" / "a.png").touch()
    home.change_settings(images_root=home.folder / "images")
    status, said = planktrait("backup", tmp_path / "second", "--home", home.folder)
    assert status == 0, said
    assert str(home.folder / "images") in said
    assert not list((tmp_path / "second").rglob("*.png"))


def test_a_damaged_backup_restores_nothing(small, tmp_path):
    _, backup = small
    weights = next(backup.rglob("model.safetensors"))
    weights.write_bytes(b"other" * 1000)
    status, said = planktrait("restore", backup, "--home", tmp_path / "new")
    assert (status, "model.safetensors is missing or damaged" in said) == (1, True)
    weights.unlink()
    status, said = planktrait("restore", backup, "--home", tmp_path / "new")
    assert (status, "nothing was restored" in said) == (1, True)
    (backup / "backup.json").unlink()
    status, said = planktrait("restore", backup, "--home", tmp_path / "new")
    assert (status, "no complete backup" in said) == (1, True)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["serve.lock"]


def test_a_backup_that_was_killed_is_not_taken_for_one(small, tmp_path):
    home, backup = small
    partial = tmp_path / ".second.partial"
    shutil.copytree(backup, partial)
    (partial / "backup.json").unlink()
    status, said = planktrait("backup", tmp_path / "second", "--home", home.folder)
    assert status == 0, said
    assert not partial.exists()
    assert (tmp_path / "second" / "backup.json").exists()


def test_a_home_that_is_served_is_not_restored_into(small):
    home, backup = small
    lock = ServeLock(home)
    try:
        status, said = planktrait("restore", backup, "--home", home.folder, "--replace")
    finally:
        lock.release()
    assert (status, "is being served already" in said) == (1, True)


def test_a_backup_of_a_newer_label_studio_is_refused(small, tmp_path):
    _, backup = small
    record = json.loads((backup / "backup.json").read_text())
    (backup / "backup.json").write_text(json.dumps(record | {"label_studio": "99.0.0"}))
    status, said = planktrait("restore", backup, "--home", tmp_path / "new")
    assert (status, "is newer than the installed" in said) == (1, True)


def test_a_home_without_a_database_says_so(tmp_path):
    _ = Home(tmp_path / "home").secrets  # of one that was not served yet
    status, said = planktrait("backup", tmp_path / "backup", "--home", tmp_path / "home")
    assert (status, "there is no database" in said) == (1, True)
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
