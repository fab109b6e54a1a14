"""Model versions on disk: folders that never change, and one small file that says which is live.

Knows nothing of what a model is, and imports no torch, so a web worker can ask it for the live
version at every request.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

LIVE_FILE = "live.json"
HISTORY_FILE = "promotions.jsonl"
METRICS_FILE = "metrics.json"
SCHEMA_FILE = "schema.xml"
CARD_FILE = "README.md"
REPORT_FILE = "report.html"
WORK_PREFIX = ".writing-"
VERSION_NAME = re.compile(r"[^/]+-v\d{4,}")
MEND = "take it from a backup, or move the version's folder away"


class RegistryError(ValueError):
    """A version that does not exist, or a registry file that cannot be read."""


@dataclass(frozen=True)
class ModelVersion:
    """One immutable version folder.

    Attributes
    ----------
    name : str
        `<registry folder name>-v0001`; what Label Studio shows as the model version.
    folder : Path
        Weights, schema.xml, metrics.json, the model card (README.md) and the page (report.html,
        the one file that may be written anew).
    """

    name: str
    folder: Path

    @property
    def number(self) -> int:
        """The version number, 1 for the first."""
        return int(self.name.rsplit("-v", 1)[1])

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """What was measured when the version was made (metrics.json).

        Raises
        ------
        RegistryError
            The file is damaged.
        """
        path = self.folder / METRICS_FILE
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise RegistryError(f"{path} cannot be read ({error}): {MEND}") from error
        if not isinstance(told, dict):
            raise RegistryError(f"{path} holds no record: {MEND}")
        return told

    def macro_recall(self, control: str | None = None) -> float | None:
        """Macro recall on its held-out images: of a control, or the mean over all that have one."""
        measured = self.metrics.get("metrics", {}).get("test", {})
        chosen = measured.values() if control is None else [measured.get(control, {})]
        recalls = [m["macro_recall"] for m in chosen if m.get("macro_recall") is not None]
        return sum(recalls) / len(recalls) if recalls else None

    @cached_property
    def schema_xml(self) -> str:
        """The labeling config the version was trained for."""
        path = self.folder / SCHEMA_FILE
        return path.read_text(encoding="utf-8") if path.exists() else ""


class Registry:
    """All versions of one project's model.

    Parameters
    ----------
    folder : Path
        For example `home/models/project-7`; made when missing. One that was renamed keeps its
        versions, under the names they had.

    Raises
    ------
    RegistryError
        It is a file, or cannot be made.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise RegistryError(
                f"{self.folder} is no folder, nor can it be: name the one of the model versions"
            ) from error

    @classmethod
    def existing(cls, folder: str | Path) -> Registry:
        """The registry of a folder that is there: whoever only reads makes none.

        Raises
        ------
        RegistryError
            There is no such folder.
        """
        if not Path(folder).exists():
            raise RegistryError(
                f"there is no folder {folder}: name the one that holds the model versions"
            )
        return cls(folder)

    def list(self) -> list[ModelVersion]:
        """Return every version, oldest first."""
        versions = [
            ModelVersion(path.name, path)
            for path in self.folder.iterdir()
            if path.is_dir() and VERSION_NAME.fullmatch(path.name)
        ]
        return sorted(versions, key=lambda version: (version.number, version.name))

    def readable(self) -> Sequence[ModelVersion]:
        """The versions whose record can be read, oldest first; a warning tells of the others."""
        versions = []
        for version in self.list():
            try:
                _ = version.metrics
            except RegistryError as error:
                logger.warning("%s is left out: %s", version.name, error)
            else:
                versions.append(version)
        return versions

    def version(self, name: str) -> ModelVersion:
        """Return one version by its name.

        Raises
        ------
        RegistryError
            There is no such version.
        """
        if not VERSION_NAME.fullmatch(name) or not (self.folder / name).is_dir():
            known = ", ".join(version.name for version in self.list()) or "none yet"
            raise RegistryError(f"No model version {name!r} in {self.folder}. Known: {known}.")
        return ModelVersion(name, self.folder / name)

    def chosen(self, name: str | None) -> ModelVersion:
        """The version of that name, or the live one.

        Raises
        ------
        RegistryError
            There is none.
        """
        if name is not None:
            return self.version(name)
        if self.live is None:
            names = ", ".join(version.name for version in self.list())
            raise RegistryError(
                f"no version is live in {self.folder}: promote one of {names}"
                if names
                else f"{self.folder} holds no versions: train one, or name the folder of others"
            )
        return self.live

    @property
    def live(self) -> ModelVersion | None:
        """The version that answers now, or None before the first promotion."""
        name = self.live_record.get("version")
        return self.version(name) if name else None

    @property
    def live_record(self) -> dict[str, Any]:
        """What live.json holds: version, promoted_at, previous, reason ({} before the first)."""
        try:
            return json.loads((self.folder / LIVE_FILE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise RegistryError(
                f"{self.folder / LIVE_FILE} cannot be read ({error}). Promote a version again: "
                "planktrait models promote VERSION."
            ) from error

    def add(self, write: Callable[[Path], None]) -> ModelVersion:
        """Make a new version: `write` fills a hidden folder, which then takes its name at once.

        A process killed while writing leaves no version behind, only a hidden folder that the next
        `add` removes. Files become read-only: a version never changes.
        """
        self._remove_unfinished()
        working = self.folder / f"{WORK_PREFIX}{os.getpid()}-{uuid.uuid4().hex[:8]}"
        working.mkdir()
        try:
            write(working)
            for path in working.rglob("*"):
                if path.is_file():
                    path.chmod(0o444)
            return self._take_number(working)
        finally:
            shutil.rmtree(working, ignore_errors=True)

    def promote(self, name: str, reason: str = "by hand") -> ModelVersion:
        """Make `name` the live version; also the way back to an older one.

        live.json is replaced atomically: a reader sees the old version or the new, nothing else.
        """
        version = self.version(name)
        try:
            previous = self.live_record.get("version")
        except RegistryError:
            previous = None
        record = {
            "version": version.name,
            "promoted_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "previous": previous,
            "reason": reason,
        }
        temporary = self.folder / f".{LIVE_FILE}.{os.getpid()}-{uuid.uuid4().hex[:8]}"
        temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        temporary.replace(self.folder / LIVE_FILE)
        with (self.folder / HISTORY_FILE).open("a", encoding="utf-8") as history:
            history.write(json.dumps(record) + "\n")
        logger.info("live model is now %s (%s)", version.name, reason)
        return version

    @property
    def next_name(self) -> str:
        """What the next version will be called, if nobody else adds one."""
        return self._name(self._next_number())

    def _next_number(self) -> int:
        versions = self.list()
        return versions[-1].number + 1 if versions else 1

    def _name(self, number: int) -> str:
        return f"{self.folder.resolve().name}-v{number:04d}"

    def _take_number(self, working: Path) -> ModelVersion:
        number = self._next_number()
        while True:
            name = self._name(number)
            try:
                working.rename(self.folder / name)
            except OSError:
                # Another process took this number in between; a rename onto a filled folder fails.
                if not (self.folder / name).exists():
                    raise
                number += 1
            else:
                return ModelVersion(name, self.folder / name)

    def _remove_unfinished(self) -> None:
        for path in self.folder.glob(f"{WORK_PREFIX}*"):
            pid = path.name.removeprefix(WORK_PREFIX).split("-")[0]
            if not (pid.isdigit() and _is_running(int(pid))):
                shutil.rmtree(path, ignore_errors=True)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
