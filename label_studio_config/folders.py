"""Folders below the images root, as a person walks through them in the browser; never outside."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from label_studio_config.home import HomeError
from label_studio_config.source_images import find_images

TABLE_SUFFIXES = frozenset({".csv", ".tsv", ".txt"})
MOST_COUNTED = 10_000
"""Images of a folder are counted up to here."""

MOST_SHOWN = 500
SECONDS_TO_COUNT = 3.0


class FolderError(HomeError):
    """A folder or table that is not there, or lies outside the images root."""


def folder_below(root: Path, path: str) -> Path:
    """The folder of that path below the images root, links followed; "" is the root itself.

    Raises
    ------
    FolderError
        It is absolute, leads outside (`..`, a link), or is no folder.
    """
    return _below(root, path, "folder")


def table_below(folder: Path, root: Path, name: str) -> Path:
    """A table of metadata, named relative to the folder of its images.

    Raises
    ------
    FolderError
        It lies outside the folder, is not there, or is no CSV or TSV.
    """
    relative = (folder.relative_to(root.resolve()) / name).as_posix()
    if Path(name).suffix.lower() not in TABLE_SUFFIXES:
        raise FolderError(f"table {name!r}: choose a file that ends in .csv, .tsv or .txt")
    return _below(root, relative, "table")


def look_into(root: Path, path: str) -> dict[str, Any]:
    """What a folder holds, for a page that shows it.

    Returns
    -------
    dict
        path (relative to the root), parent (None at the root), images (in it and all below it; with
        `complete` False there are more), folders (name, path, images, complete), more (how many
        folders are not listed), tables (names). Counting ends after 3 s: what it did not reach
        has `images` None.

    Raises
    ------
    FolderError
        As `folder_below`.
    """
    folder = folder_below(root, path)
    root = root.resolve()
    relative = folder.relative_to(root)
    here = relative.as_posix() if relative.parts else ""
    end = time.monotonic() + SECONDS_TO_COUNT
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name.lower())
    except OSError as error:
        raise FolderError(f"folder {here!r} cannot be read: {error.strerror}") from error
    seen = [entry for entry in entries if not entry.name.startswith(".") and _inside(entry, root)]
    inner = [entry.name for entry in seen if entry.is_dir()]
    tables = [e.name for e in seen if e.is_file() and Path(e.name).suffix.lower() in TABLE_SUFFIXES]
    folders = []
    for name in inner[:MOST_SHOWN]:
        below = f"{here}/{name}" if here else name
        folders.append({"name": name, "path": below, **_count(folder / name, end)})
    return {
        "path": here,
        "parent": None if not here else relative.parent.as_posix().removeprefix("."),
        **_count(folder, end + 1),
        "folders": folders,
        "more": max(0, len(inner) - MOST_SHOWN),
        "tables": tables[:MOST_SHOWN],
    }


def _below(root: Path, path: str, what: str) -> Path:
    if "\0" in path or Path(path).is_absolute() or ".." in Path(path).parts:
        raise FolderError(f"{what} {path!r} is outside the images root: choose one below it")
    root = root.resolve()
    found = (root / path).resolve()
    if not found.is_relative_to(root):
        raise FolderError(f"{what} {path!r} leads outside the images root: choose one below it")
    if not (found.is_dir() if what == "folder" else found.is_file()):
        raise FolderError(f"there is no {what} {path!r} below the images root: choose another one")
    return found


def _inside(entry: os.DirEntry[str], root: Path) -> bool:
    return not entry.is_symlink() or Path(entry.path).resolve().is_relative_to(root)


def _count(folder: Path, end: float) -> dict[str, Any]:
    if time.monotonic() > end:
        return {"images": None, "complete": False}
    images = 0
    for _ in find_images(folder):
        images += 1
        if images == MOST_COUNTED or (images % 500 == 0 and time.monotonic() > end):
            return {"images": images, "complete": False}
    return {"images": images, "complete": True}
