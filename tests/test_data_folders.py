"""What the page Data rests on: folders below the images root, kept files, usable configs."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from label_studio_config.folders import FolderError, folder_below, look_into, table_below
from label_studio_config.kept_files import forget, keep, kept_file, list_kept
from label_studio_config.project import config_names, read_config, require_usable
from label_studio_config.schema import SchemaError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two images in `cruise`, one deeper, a table, and links that lead in and out."""
    root = tmp_path / "root"
    (root / "cruise" / "deep").mkdir(parents=True)
    for name in ("cruise/a.png", "cruise/b.png", "cruise/deep/c.png"):
        Image.new("L", (4, 4)).save(root / name)
    (root / "cruise" / "meta.csv").write_text("filename\na.png\n")
    (tmp_path / "outside").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "outside" / "secret.png")
    (tmp_path / "outside" / "secret.csv").write_text("filename\n")
    (root / "out").symlink_to(tmp_path / "outside")
    (root / "cruise" / "out.csv").symlink_to(tmp_path / "outside" / "secret.csv")
    (root / "in").symlink_to(root / "cruise")
    (root / ".hidden").mkdir()
    return root


def test_what_a_folder_holds(root: Path) -> None:
    top = look_into(root, "")
    assert (top["path"], top["parent"], top["images"], top["complete"]) == ("", None, 3, True)
    assert [(f["name"], f["images"]) for f in top["folders"]] == [("cruise", 3), ("in", 3)]
    cruise = look_into(root, "cruise")
    assert (cruise["path"], cruise["parent"], cruise["tables"]) == ("cruise", "", ["meta.csv"])
    assert cruise["folders"] == [
        {"name": "deep", "path": "cruise/deep", "images": 1, "complete": True}
    ]
    assert look_into(root, "cruise/deep")["parent"] == "cruise"
    assert look_into(root, "in")["path"] == "cruise"


@pytest.mark.parametrize(
    "path", ["..", "../outside", "cruise/../../outside", "out", "/etc", "a\0b"]
)
def test_outside_is_refused(root: Path, path: str) -> None:
    with pytest.raises(FolderError, match="outside the images root"):
        folder_below(root, path)


def test_what_is_not_there_is_named(root: Path) -> None:
    with pytest.raises(FolderError, match="no folder 'cruise 8' below the images root"):
        folder_below(root, "cruise 8")
    folder = folder_below(root, "cruise")
    assert table_below(folder, root, "meta.csv").name == "meta.csv"
    for name, words in (
        ("out.csv", "outside the images root"),
        ("../../outside/secret.csv", "outside the images root"),
        ("a.png", "ends in .csv"),
        ("none.csv", "no table"),
    ):
        with pytest.raises(FolderError, match=words):
            table_below(folder, root, name)


def test_kept_files_are_whole_or_not_there(tmp_path: Path) -> None:
    def make(folder: Path) -> dict:
        (folder / "traits.csv").write_text("a\n")
        assert not list_kept(tmp_path)
        return {"format": "csv", "rows": 1}

    first = keep(tmp_path, "csv", make)
    second = keep(tmp_path, "csv", lambda folder: {"format": "csv"})
    assert first != second
    kept = list_kept(tmp_path)
    assert {one["id"] for one in kept} == {first, second}
    told = next(one for one in kept if one["id"] == first)
    assert told["files"] == [{"name": "traits.csv", "bytes": 2}]
    assert (told["format"], told["rows"]) == ("csv", 1)
    path = kept_file(tmp_path, first, "traits.csv")
    assert path is not None
    assert path.read_text() == "a\n"
    for kept_id, name in (
        (first, "../about.json"),
        (first, "about.json"),
        ("..", "x"),
        ("no", "x"),
    ):
        assert kept_file(tmp_path, kept_id, name) is None

    def fail(folder: Path) -> dict:
        (folder / "half.csv").write_text("")
        raise ValueError("broken off")

    with pytest.raises(ValueError, match="broken off"):
        keep(tmp_path, "csv", fail)
    assert forget(tmp_path, first)
    assert not forget(tmp_path, first)
    assert not forget(tmp_path, "../data")
    assert [path.name for path in tmp_path.iterdir()] == [second]


@pytest.mark.parametrize("name", config_names())
def test_our_configs_can_be_used(name: str) -> None:
    assert require_usable(read_config(name)).controls


@pytest.mark.parametrize(
    ("xml", "words"),
    [
        ("<View></View>", "0 <Image> tags"),
        ('<View><Image name="i" value="$image"/></View>', "asks nothing"),
        (
            '<View><Image name="i" value="$photo"/><Choices name="c" toName="i">'
            '<Choice value="a"/><Choice value="b"/></Choices></View>',
            r'write value="\$image"',
        ),
    ],
)
def test_configs_that_cannot_say_why(xml: str, words: str) -> None:
    with pytest.raises(SchemaError, match=words):
        require_usable(xml)
