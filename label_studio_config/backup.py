"""Back up a home and its database into one folder, and restore them.

A backup holds the database, and of the home what cannot be computed again: models, encoders,
secrets, settings, manifests, uploads, exports, records of jobs. Images are not copied: the backup
says where they lie and how many there are. It appears under its name once it is complete.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from label_studio_config.database import Database, Report
from label_studio_config.database_choice import database_of, require_same_kind
from label_studio_config.home import Home
from label_studio_config.serve_lock import LOCK_NAME, ServeLock

RECORD_NAME = "backup.json"
HOME_NAME = "home"
_LEFT_OUT = ("cache", "logs", LOCK_NAME)
_RESTORING = ".restoring"
_REPLACED = ".replaced-"


class BackupError(ValueError):
    """A backup that cannot be made or restored; the message says what to do."""


@dataclass(frozen=True)
class BackupReport:
    """What a backup holds.

    Attributes
    ----------
    folder : of the backup
    counts : projects, images, annotations, suggestions, people
    images_root : where the images lie, which are not in the backup
    files, n_bytes : of the home, and of everything
    replaced : where what was in the home before lies now, after a restore that replaced it
    """

    folder: Path
    counts: dict[str, int]
    images_root: str | None
    files: int
    n_bytes: int
    replaced: Path | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """For people."""
        where = self.images_root or "no images root was set"
        facts = {
            **self.counts,
            "files of the home": self.files,
            "MB": round(self.n_bytes / 1e6, 1),
            "images, not in the backup": where,
        }
        return facts | ({"what was there before": self.replaced} if self.replaced else {})


def back_up(home: Home, folder: str | os.PathLike[str], report: Report) -> BackupReport:
    """Write a backup into a new folder; people may annotate and jobs may run meanwhile.

    Parameters
    ----------
    home : Home
    folder : must not exist yet; outside the home and the images root
    report : told of the progress as `report(stage, done, total)`

    Raises
    ------
    BackupError
        The folder exists, or lies where it must not.
    DatabaseError
        The database cannot be dumped.
    """
    folder = Path(folder).expanduser().absolute()
    _require_place(home, folder)
    database = database_of(home)
    require_same_kind(home, database)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True, mode=0o700)
        record = _fill(partial, home, database, report)
        partial.rename(folder)
    except OSError as error:
        raise BackupError(f"{folder} cannot be written ({error}): choose another place") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return _report_of(folder, record)


def _fill(partial: Path, home: Home, database: Database, report: Report) -> dict[str, Any]:
    # First the database: it then names no file of the home that is not copied.
    counts = database.dump(partial / database.dump_name, report)
    root = home.settings.images_root
    images = None if root is None else Path(root).resolve()

    def kept(file: Path) -> bool:
        inside = images is not None and file.resolve().is_relative_to(images)
        return not inside and not database.owns(file)

    names = [name for name in _files(home.folder, _LEFT_OUT) if kept(home.folder / name)]
    _copy(home.folder, names, partial / HOME_NAME, report)
    files = {name: _sha256(partial / name) for name in sorted(_files(partial))}
    n_bytes = sum((partial / name).stat().st_size for name in files)
    record = {
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "home": str(home.folder),
        "database": {"kind": database.kind, "place": str(database), "dump": database.dump_name},
        "label_studio": version("label-studio"),
        "planktrait": version("planktrait"),
        "images_root": root,
        "counts": counts,
        "n_bytes": n_bytes,
        "sha256": files,
    }
    (partial / RECORD_NAME).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return record


def restore(
    folder: str | os.PathLike[str], home: Home, report: Report, *, replace: bool = False
) -> BackupReport:
    """Make a home and its database what they were when a backup was made.

    The backup is checked as a whole before anything is changed.

    Parameters
    ----------
    folder : of a backup
    home : must be new, and not being served
    report : told of the progress as `report(stage, done, total)`
    replace : the home or the database may hold something. What was in the home is moved into a
        folder `.replaced-<time>` of it, what was in the database is gone.

    Raises
    ------
    BackupError
        The backup is incomplete or damaged, is of another kind of database, or something is
        there and `replace` is False.
    DatabaseError
        The database cannot be reached or filled.
    HostingError
        The home is being served.
    """
    folder = Path(folder).expanduser().absolute()
    record = _read_record(folder)
    database = database_of(home)
    lock = ServeLock(home)
    try:
        _require_fits(home, database, record, folder, replace)
        _check(folder, record["sha256"], report)
        coming = home.folder / _RESTORING
        shutil.rmtree(coming, ignore_errors=True)
        # What may fail for want of space comes first, and changes nothing.
        _copy(folder / HOME_NAME, list(_files(folder / HOME_NAME)), coming, report)
        # SQLite's file comes with the rest of the home.
        database_of(Home(coming)).fill(folder / record["database"]["dump"], report)
        replaced = _swap(home, coming)
    finally:
        lock.release()
    counts = database.count()
    if counts != record["counts"]:
        raise BackupError(
            f"{database} holds {counts} after the restore, the backup says {record['counts']}: "
            "is something else connected to it? Stop that and repeat with --replace"
        )
    return _report_of(folder, record, replaced)


def _require_place(home: Home, folder: Path) -> None:
    if folder.exists():
        raise BackupError(f"{folder} exists already: give a new name, such as one with the date")
    resolved = folder.resolve()
    root = home.settings.images_root
    for what, place in (("home", str(home.folder)), ("images root", root)):
        if place is not None and resolved.is_relative_to(Path(place).resolve()):
            raise BackupError(f"{folder} lies inside the {what} {place}: choose a place outside")


def _require_fits(
    home: Home, database: Database, record: dict[str, Any], folder: Path, replace: bool
) -> None:
    kind = record["database"]["kind"]
    if kind != database.kind:
        raise BackupError(
            f"{folder} holds a dump of {kind}, but the environment says {database}: "
            + ("set DJANGO_DB=default and POSTGRE_*" if kind == "PostgreSQL" else "unset DJANGO_DB")
        )
    made_by = record["label_studio"].split(".")
    if [int(part) for part in made_by] > [int(part) for part in version("label-studio").split(".")]:
        raise BackupError(
            f"{folder} was made with Label Studio {record['label_studio']}, which is newer than "
            f"the installed {version('label-studio')}: install that, or a newer one, first"
        )
    there = [path.name for path in home.folder.iterdir() if not _is_ours(path.name)]
    if there and not replace:
        raise BackupError(
            f"{home.folder} is not empty ({', '.join(sorted(there)[:5])}): name another home with "
            "--home, or repeat with --replace, which moves what is there aside"
        )
    if not database.is_empty() and not replace:
        raise BackupError(
            f"{database} is not empty: make a new database (createdb), or repeat with --replace, "
            "which drops its tables"
        )


def _is_ours(name: str) -> bool:
    return name in (LOCK_NAME, _RESTORING) or name.startswith(_REPLACED)


def _read_record(folder: Path) -> dict[str, Any]:
    path = folder / RECORD_NAME
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        assert {"database", "counts", "sha256", "label_studio"} <= set(record)
    except (OSError, ValueError, AssertionError) as error:
        raise BackupError(
            f"{folder} is no complete backup ({path.name} is missing or damaged): give a folder "
            "that `planktrait backup` wrote"
        ) from error
    return record


def _check(folder: Path, sha256: dict[str, str], report: Report) -> None:
    for done, (name, wanted) in enumerate(sha256.items(), start=1):
        path = folder / name
        if not path.is_file() or _sha256(path) != wanted:
            raise BackupError(
                f"{path} is missing or damaged: nothing was restored. Take another backup"
            )
        report("check", done, len(sha256))


def _copy(source: Path, names: list[str], target: Path, report: Report) -> None:
    """Copy files of a folder with their modes and times."""
    target.mkdir(parents=True, mode=0o700)
    total = len(names)
    for done, name in enumerate(names, start=1):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        # Somebody deletes an export, or a job replaces a file, while we copy.
        with suppress(FileNotFoundError):
            shutil.copy2(source / name, target / name)
        report("files", done, total)


def _files(folder: Path, left_out: tuple[str, ...] = ()) -> Iterator[str]:
    """Paths, relative to the folder, of every file that is not hidden nor in a hidden folder.

    What lies at the top may be a link, to a folder on another disk.
    """
    for top in sorted(folder.iterdir()):
        if top.name.startswith(".") or top.name in left_out:
            continue
        if top.is_file():
            yield top.name
        for place, folders, names in os.walk(top):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(names):
                if not name.startswith("."):
                    yield str((Path(place) / name).relative_to(folder))


def _swap(home: Home, coming: Path) -> Path | None:
    """Move what is in the home aside, and what comes into its place."""
    old = [path for path in home.folder.iterdir() if not _is_ours(path.name)]
    replaced = None
    if old:
        replaced = home.folder / f"{_REPLACED}{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
        replaced.mkdir()
        for path in old:
            path.rename(replaced / path.name)
    for path in coming.iterdir():
        path.rename(home.folder / path.name)
    coming.rmdir()
    return replaced


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _report_of(folder: Path, record: dict[str, Any], replaced: Path | None = None) -> BackupReport:
    files = sum(name.startswith(f"{HOME_NAME}/") for name in record["sha256"])
    return BackupReport(
        folder, record["counts"], record["images_root"], files, record["n_bytes"], replaced
    )
