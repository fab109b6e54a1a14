"""Versions never change, a half-written one is never seen, live.json is always whole."""

import json
import multiprocessing
import threading
from pathlib import Path

import pytest

from ml_backend.registry import Registry, RegistryError


def write(text: str):
    def fill(folder: Path) -> None:
        (folder / "schema.xml").write_text("<View/>")
        (folder / "metrics.json").write_text(json.dumps({"text": text}))

    return fill


def test_versions_are_numbered_and_listed(tmp_path) -> None:
    registry = Registry(tmp_path / "project-7")
    assert registry.list() == []
    assert registry.live is None
    names = [registry.add(write(str(n))).name for n in range(3)]
    assert names == ["project-7-v0001", "project-7-v0002", "project-7-v0003"]
    assert [version.name for version in registry.list()] == names
    assert registry.version(names[1]).metrics == {"text": "1"}
    assert registry.version(names[1]).schema_xml == "<View/>"


def test_adding_does_not_promote(tmp_path) -> None:
    registry = Registry(tmp_path / "p")
    registry.add(write("one"))
    assert registry.live is None


def test_promote_and_go_back(tmp_path) -> None:
    registry = Registry(tmp_path / "p")
    first, second = registry.add(write("one")), registry.add(write("two"))
    registry.promote(first.name)
    registry.promote(second.name, "better")
    assert registry.live == second
    assert registry.live_record["previous"] == first.name
    registry.promote(first.name, "the new one confuses larvae")
    assert Registry(tmp_path / "p").live == first
    history = (tmp_path / "p" / "promotions.jsonl").read_text().splitlines()
    assert [json.loads(line)["version"] for line in history] == ["p-v0001", "p-v0002", "p-v0001"]


@pytest.mark.parametrize("name", ["p-v0009", "other-v0001", "../p-v0001", "", ".writing-1"])
def test_an_unknown_version_is_refused(tmp_path, name) -> None:
    registry = Registry(tmp_path / "p")
    registry.promote(registry.add(write("one")).name)
    with pytest.raises(RegistryError, match="Known: p-v0001"):
        registry.promote(name)
    assert registry.live is not None
    assert registry.live.name == "p-v0001"


def test_a_renamed_folder_keeps_its_versions(tmp_path) -> None:
    registry = Registry(tmp_path / "p")
    registry.promote(registry.add(write("one")).name)
    (tmp_path / "p").rename(tmp_path / "old cruise")
    renamed = Registry.existing(tmp_path / "old cruise")
    assert [version.name for version in renamed.list()] == ["p-v0001"]
    assert renamed.live == renamed.version("p-v0001")
    assert renamed.add(write("two")).name == "old cruise-v0002"
    with pytest.raises(RegistryError, match="Known: p-v0001, old cruise-v0002"):
        renamed.version("p-v0009")


def test_a_reader_makes_no_folder(tmp_path) -> None:
    with pytest.raises(RegistryError, match="there is no folder"):
        Registry.existing(tmp_path / "mistyped")
    assert not (tmp_path / "mistyped").exists()
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "p"):
        with pytest.raises(RegistryError, match="is no folder"):
            Registry(folder)
    with pytest.raises(RegistryError, match="holds no versions: train one"):
        Registry(tmp_path).chosen(None)


@pytest.mark.parametrize("damaged", ["{", "[]", ""])
def test_a_damaged_record_is_named_and_the_others_are_read(tmp_path, caplog, damaged) -> None:
    registry = Registry(tmp_path / "p")
    first, second = registry.add(write("one")), registry.add(write("two"))
    file = first.folder / "metrics.json"
    file.chmod(0o644)
    file.write_text(damaged)
    with pytest.raises(RegistryError, match=r"p-v0001/metrics\.json .*take it from a backup"):
        _ = first.metrics
    assert registry.readable() == [second]
    assert f"p-v0001 is left out: {file}" in caplog.text
    assert len(registry.list()) == 2


def test_a_failed_write_leaves_nothing(tmp_path) -> None:
    registry = Registry(tmp_path / "p")

    def fail(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        registry.add(fail)
    assert registry.list() == []
    assert not list((tmp_path / "p").iterdir())


def write_and_die(folder: Path) -> None:
    import os

    def fill(working: Path) -> None:
        (working / "half").write_text("half")
        os._exit(1)

    Registry(folder).add(fill)


def test_a_process_killed_while_writing_leaves_no_version(tmp_path) -> None:
    process = multiprocessing.get_context("fork").Process(
        target=write_and_die, args=(tmp_path / "p",)
    )
    process.start()
    process.join()
    registry = Registry(tmp_path / "p")
    assert len(list((tmp_path / "p").glob(".writing-*"))) == 1
    assert registry.list() == []
    registry.add(write("one"))
    assert not list((tmp_path / "p").glob(".writing-*"))


def test_files_of_a_version_are_read_only(tmp_path) -> None:
    version = Registry(tmp_path / "p").add(write("one"))
    assert (version.folder / "metrics.json").stat().st_mode & 0o222 == 0


def test_two_trainings_at_once_get_two_numbers(tmp_path) -> None:
    registry = Registry(tmp_path / "p")
    threads = [threading.Thread(target=registry.add, args=(write(str(n)),)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [version.number for version in registry.list()] == list(range(1, 9))


def test_a_reader_never_sees_half_a_live_file(tmp_path) -> None:
    registry = Registry(tmp_path / "p")
    names = [registry.add(write(str(n))).name for n in range(2)]
    registry.promote(names[0])
    seen, stop = set(), threading.Event()

    def read() -> None:
        while not stop.is_set():
            live = Registry(tmp_path / "p").live
            seen.add(live.name if live else None)

    reader = threading.Thread(target=read)
    reader.start()
    for n in range(300):
        registry.promote(names[n % 2])
    stop.set()
    reader.join()
    assert seen <= set(names)


def test_a_broken_live_file_is_named_and_mended_by_promoting(tmp_path) -> None:
    registry = Registry(tmp_path / "p")
    version = registry.add(write("one"))
    (tmp_path / "p" / "live.json").write_text("{")
    with pytest.raises(RegistryError, match=r"live\.json"):
        _ = registry.live
    registry.promote(version.name)
    assert registry.live == version
