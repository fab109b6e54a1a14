"""Where a push goes: into which database, into which project, and with which images."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from label_studio_config.database import DatabaseError
from label_studio_config.home import Home
from ml_backend.push import push_project
from tests.push_fixtures import manifest_of


@pytest.fixture
def home(tmp_path: Path, database_template: Path) -> Home:
    """A home that is not served."""
    home = Home(tmp_path / "home")
    shutil.copy(database_template, home.label_studio_folder / "label_studio.sqlite3")
    (tmp_path / "images").mkdir()
    home.change_settings(images_root=str(tmp_path / "images"))
    return home


def test_a_home_never_gets_a_second_database(home: Home, tmp_path: Path) -> None:
    path = manifest_of(home.images_root, 1).write(tmp_path / "m.parquet")
    database = home.label_studio_folder / "label_studio.sqlite3"
    database.unlink()
    with pytest.raises(DatabaseError, match="has no database yet: start it once"):
        push_project(home.folder, 1, path)
    home.change_settings(database="PostgreSQL")
    with pytest.raises(DatabaseError, match="are in PostgreSQL, but the environment says SQLite"):
        push_project(home.folder, 1, path)
    assert not database.exists()
