"""Where a push goes: into which database, into which project, and with which images."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from label_studio_config.database import DatabaseError
from label_studio_config.home import Home
from label_studio_config.project import ProjectError, create_project, find_project
from ml_backend.push import PushError, push_project
from planktrait import app
from tests.label_studio_fixtures import LabelStudioForTests
from tests.push_fixtures import CONFIG, in_django, manifest_of, new_project


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


def type_in(*words: object) -> str:
    """What `planktrait` says, which must not be an error."""
    answer = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "250"})
    assert answer.exit_code == 0, answer.output
    return answer.output


def test_a_title_may_be_a_number(home: Home, tmp_path: Path) -> None:
    """Also where no server answers."""
    path = manifest_of(home.images_root, 1).write(tmp_path / "m.parquet")
    number = new_project(home)
    rename = "from projects.models import Project\nProject.objects.filter(id={}).update(title={!r})"
    for title in ("2024", "-5", "Cruise [7]"):
        in_django(home, rename.format(number, title))
        type_in("push", path, f"--project={title}", "--home", home.folder)
        assert f" {title} " in type_in("reindex", f"--project={title}", "--home", home.folder)
    # The number of one is the title of another.
    other = new_project(home)
    in_django(home, rename.format(other, str(number)))
    for words in (("push", path), ("reindex",)):
        asked = [*words, "--project", number, "--home", home.folder]
        answer = CliRunner().invoke(app, list(map(str, asked)), env={"COLUMNS": "250"})
        assert answer.exit_code == 1
        said = (
            f"'{number}' is the title of project {other} and the number of 'Cruise [7]': give "
            f"{other} for the first, 'Cruise [7]' for the second"
        )
        assert said in " ".join(answer.output.split())
    assert push_project(home.folder, other, path)["added"] == 1
    in_django(home, rename.format(other, "Cruise [7]"))
    with pytest.raises(PushError, match=f"projects {number}, {other} are all called"):
        push_project(home.folder, "Cruise [7]", path)


def test_a_title_that_is_a_number_is_found_on_a_server(
    label_studio: LabelStudioForTests, tmp_path: Path
) -> None:
    home = label_studio.home
    first, second = (create_project(home, title, CONFIG) for title in ("2024", "Number, not title"))
    path = manifest_of(home.images_root, 1).write(tmp_path / "m.parquet")
    where = {"url": label_studio.url, "token": home.secrets.api_token}
    assert push_project(tmp_path, "2024", path, **where)["project"] == first.id
    assert find_project(home, "2024").id == first.id
    in_django(
        home,
        "from projects.models import Project\n"
        f"Project.objects.filter(id={second.id}).update(title='{first.id}')\n",
    )
    try:
        assert find_project(home, first.id).id == first.id
        with pytest.raises(ProjectError, match=f"title of project {second.id} and the number of"):
            find_project(home, str(first.id))
        with pytest.raises(ProjectError, match=f"title of project {second.id} and the number of"):
            push_project(tmp_path, str(first.id), path, **where)
    finally:
        label_studio.client.projects.update(second.id, title="Number, not title")
