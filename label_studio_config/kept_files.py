"""Files that a job made for people to fetch: one folder each, whole or not there at all.

`<parent>/<id>/` holds the files and `about.json`; the id is the time at which it was made.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

ABOUT_FILE = "about.json"
_MAKING = ".making-"
_LONGEST_S = 7 * 24 * 3600.0
_ID = re.compile(r"\d{8}T\d{6}Z[a-z0-9-]*")


def keep(parent: Path, kind: str, make: Callable[[Path], dict[str, Any]]) -> str:
    """Have `make` fill a new folder, and show it once it is complete.

    Parameters
    ----------
    kind : lower-case letters; stands in the id
    make : writes files into the folder that it is given, and returns what to tell of them

    Returns
    -------
    str
        The id.
    """
    _forget_unfinished(parent)
    temporary = Path(mkdtemp(prefix=_MAKING, dir=parent))
    try:
        about = make(temporary)
        made = datetime.now(UTC)
        about = {"made_at": made.isoformat(timespec="seconds"), **about}
        text = json.dumps(about, ensure_ascii=False, default=str)
        (temporary / ABOUT_FILE).write_text(text, encoding="utf-8")
        return _show(temporary, parent, f"{made:%Y%m%dT%H%M%SZ}-{kind}")
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def list_kept(parent: Path) -> list[dict[str, Any]]:
    """What is kept, the newest first: id, files (name, bytes), and what was told of them."""
    folders = sorted((p for p in parent.iterdir() if _ID.fullmatch(p.name)), reverse=True)
    return [kept for folder in folders if (kept := _read(folder)) is not None]


def kept_file(parent: Path, kept_id: str, name: str) -> Path | None:
    """The file of that name, or None: only names that are listed are known."""
    folder = _folder(parent, kept_id)
    known = {path.name: path for path in _files(folder)} if folder is not None else {}
    return known.get(name)


def forget(parent: Path, kept_id: str) -> bool:
    """Delete one; False where there is none of that id."""
    folder = _folder(parent, kept_id)
    if folder is None:
        return False
    shutil.rmtree(folder)
    return True


def _show(temporary: Path, parent: Path, wanted: str) -> str:
    """Rename to an id that is free: two jobs may end in one second."""
    number = 1
    while True:
        kept_id = wanted if number == 1 else f"{wanted}-{number}"
        try:
            temporary.rename(parent / kept_id)
            return kept_id
        except OSError:
            if not (parent / kept_id).exists():
                raise
            number += 1


def _forget_unfinished(parent: Path) -> None:
    """What a killed job left, once nobody can be working on it any more."""
    for folder in parent.glob(f"{_MAKING}*"):
        if time.time() - folder.stat().st_mtime > _LONGEST_S:
            shutil.rmtree(folder, ignore_errors=True)


def _folder(parent: Path, kept_id: str) -> Path | None:
    folder = parent / kept_id
    return folder if _ID.fullmatch(kept_id) and folder.is_dir() else None


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name != ABOUT_FILE)


def _read(folder: Path) -> dict[str, Any] | None:
    try:
        about = json.loads((folder / ABOUT_FILE).read_text(encoding="utf-8"))
        files = [{"name": path.name, "bytes": path.stat().st_size} for path in _files(folder)]
    except (OSError, ValueError):
        return None  # deleted meanwhile, or not ours
    return {**about, "id": folder.name, "files": files}
