"""Where a push goes: into which database, into which project, and with which images."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from label_studio_config.database import DatabaseError
from label_studio_config.home import Home
from label_studio_config.manifest import Manifest, ManifestError
from label_studio_config.pack import pack
from label_studio_config.project import ProjectError, create_project, find_project
from label_studio_config.project_choice import choose_project
from label_studio_config.sources import read_source
from ml_backend.push import push_project
from planktrait import app
from tests.label_studio_fixtures import LabelStudioForTests
from tests.push_fixtures import CONFIG, in_django, kept_django, manifest_of, new_project, shard


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
    with pytest.raises(DatabaseError, match="are in PostgreSQL"):
        push_project(home.folder, 1, tmp_path / "a folder that would take long to read")
    with pytest.raises(DatabaseError, match="are in PostgreSQL, but the environment says SQLite"):
        push_project(home.folder, 1, path)
    assert not database.exists()


def test_what_a_browser_cannot_show_is_no_task(home: Home, tmp_path: Path) -> None:
    number = new_project(home)
    manifest = manifest_of(home.images_root, 3)
    paths = manifest.table["path"].str.replace("-0001.png", "-0001.TIF")
    manifest = Manifest(manifest.table.assign(path=paths), manifest.root)
    shard(tmp_path / "v1" / "part-00000.parquet", [*manifest.image_ids, "gone"], "v1")
    told = push_project(
        home.folder, number, manifest.write(tmp_path / "m.parquet"), tmp_path / "v1"
    )
    assert told["added"] == 2
    assert [(one.path, one.reason.split(":")[0]) for one in told["bad"]] == [
        (paths[1], "browsers cannot show TIFF"),
        ("gone", "not in the manifest"),
    ]
    for name in ("a.png", "b.png"):
        Image.new("L", (8, 8), 80).save(home.images_root / name)
    packed = pack(read_source(home.images_root)[0], home.images_root / "packed").folder
    for source in (packed, packed / "index.parquet"):
        with pytest.raises(ManifestError, match="packed images cannot be shown: give the folder"):
            push_project(home.folder, number, source)


def type_in(*words: object) -> str:
    """What `planktrait` says, which must not be an error."""
    answer = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "250"})
    assert answer.exit_code == 0, answer.output
    return answer.output


def test_a_title_may_be_a_number(home: Home, tmp_path: Path) -> None:
    """Also where no server answers."""
    path = manifest_of(home.images_root, 1).write(tmp_path / "m.parquet")
    number, other = new_project(home), new_project(home)
    rename = "from projects.models import Project\nProject.objects.filter(id={}).update(title={!r})"
    with kept_django(home):
        in_django(home, rename.format(number, "2024"))
        type_in("push", path, "--project", "2024", "--home", home.folder)
        in_django(home, rename.format(number, "-5 [m]"))
        assert push_project(home.folder, "-5 [m]", path)["present"] == 1
        assert " -5 [m] " in type_in("reindex", "--project=-5 [m]", "--home", home.folder)
        # The number of one is the title of another.
        in_django(home, rename.format(other, str(number)))
    for words in (("push", path), ("reindex",)):
        asked = [*words, "--project", number, "--home", home.folder]
        answer = CliRunner().invoke(app, list(map(str, asked)), env={"COLUMNS": "250"})
        assert answer.exit_code == 1
        said = (
            f"'{number}' means more than one project (#{number} '-5 [m]', #{other} '{number}'): "
            "give '#NUMBER' of one, in quotes"
        )
        assert said in " ".join(answer.output.split())


def test_a_title_that_several_have_needs_a_number() -> None:
    known = [(3, "Cruise"), (4, "Cruise"), (5, "5")]
    with pytest.raises(ProjectError, match=r"\(#3 'Cruise', #4 'Cruise'\): give '#NUMBER' of one"):
        choose_project("Cruise", known)
    # Whatever they are called, each can be named.
    odd = [(3, "5"), (5, "3"), (7, "7"), (8, "#7"), (9, "7")]
    assert [choose_project(f"#{number}", odd) for number, _ in odd] == [3, 5, 7, 8, 9]
    assert choose_project(7, odd) == 7
    assert choose_project("4", known) == choose_project(4, known) == 4
    assert choose_project("5", known) == 5
    with pytest.raises(ProjectError, match=r"there are: 3 'Cruise', 4 'Cruise', 5 '5'"):
        choose_project("6", known)


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
        with pytest.raises(ProjectError, match="means more than one project"):
            find_project(home, str(first.id))
        with pytest.raises(ProjectError, match="means more than one project"):
            push_project(tmp_path, str(first.id), path, **where)
    finally:
        label_studio.client.projects.update(second.id, title="Number, not title")
