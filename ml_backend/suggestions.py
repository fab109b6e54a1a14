"""Suggestions in Label Studio: the live model's answers for all tasks, kept up to date.

Idempotent by task and model version: a task that has a suggestion of this version is not asked for
again, so a refresh that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

from hpc_jobs import progress
from hpc_jobs.files import read_json, write_json
from label_studio_config.api import Api
from label_studio_config.batches import ahead, batches
from label_studio_config.home import Home
from label_studio_config.schema import LabelSchema
from label_studio_config.server_tasks import fetch_project, fetch_some_tasks, fetch_tasks
from label_studio_config.votes import is_blind
from ml_backend.live_model import LiveModel, TaskImages, find_images

logger = logging.getLogger(__name__)

TASKS_PER_CALL = 500
TASKS_PER_CHUNK = 20_000
FIRST_CHUNK = 3000
"""Few, so that the first suggestions come soon: the others are fetched while these are at work."""
VERSIONS_KEPT = 2
WRITTEN_FOR_FILE = "suggested.json"


@dataclass(frozen=True)
class Refreshed:
    """What a refresh did.

    Attributes
    ----------
    suggested : int
        Tasks that got a suggestion.
    blind, without : int
        Tasks that must not have one, and tasks whose image could not be read.
    deleted : int
        Older suggestions that were removed.
    """

    suggested: int
    blind: int
    without: int
    deleted: int


def refresh_suggestions(home: Home, project_id: int, live: LiveModel) -> Refreshed:
    """Give every task that is not blind a suggestion of the live version, unannotated ones first.

    Where the config has changed since, tasks that nobody has annotated are suggested to again;
    elsewhere the suggestion is part of the record of what the annotator saw.

    `project.model_version`, by which Label Studio sorts and samples, is set in between: when the
    tasks that people will be asked next are done.

    Raises
    ------
    ApiError
        Label Studio cannot be reached or refuses.
    """
    project = fetch_project(home, project_id)
    schema = LabelSchema.from_xml(project["label_config"])
    version = live.version.name
    tally = _Tally(total=int(project.get("task_number") or 0))
    written = _WrittenFor(live)
    changed = written.other_config(schema)
    # Those that people will be asked next come first.
    waiting = fetch_tasks(
        home,
        project_id,
        full=False,
        unannotated_only=True,
        missing_version=None if changed else version,
    )
    _suggest(home, project_id, live, schema, waiting, tally)
    written.note(schema)
    set_model_version(home, project_id, version)
    judged = fetch_tasks(home, project_id, full=False, annotated_only=True, missing_version=version)
    _suggest(home, project_id, live, schema, judged, tally)
    deleted = delete_old_suggestions(home, project_id, live)
    logger.info("project %d: %d suggestions of %s", project_id, tally.suggested, version)
    progress.report("suggest", tally.total, tally.total, f"{tally.suggested} suggestions")
    return Refreshed(tally.suggested, tally.blind, tally.without, deleted)


def suggest_some(home: Home, project_id: int, ids: Sequence[int], live: LiveModel) -> Refreshed:
    """Give some tasks a suggestion of the live version; those that have one are left as they are.

    Raises
    ------
    ApiError
        Label Studio cannot be reached or refuses.
    """
    project = fetch_project(home, project_id)
    schema = LabelSchema.from_xml(project["label_config"])
    version = live.version.name
    missing = None if _WrittenFor(live).other_config(schema) else version
    waiting = fetch_some_tasks(home, project_id, ids, missing_version=missing, full=False)
    tally = _Tally(total=len(ids))
    _suggest(home, project_id, live, schema, waiting, tally)
    # Another version that is shown stays so until the refresh that a promotion starts is done.
    if not project.get("model_version"):
        set_model_version(home, project_id, version)
    progress.report("suggest", len(ids), len(ids), f"{tally.suggested} suggestions")
    return Refreshed(tally.suggested, tally.blind, tally.without, 0)


def set_model_version(home: Home, project_id: int, version: str) -> None:
    """Tell Label Studio which version's scores count in sorting and sampling."""
    # Label Studio's own address refuses a version that has no suggestion yet.
    path = f"/api/planktrait/projects/{project_id}/model-version"
    Api(home).post(path, {"model_version": version})


def delete_old_suggestions(home: Home, project_id: int, live: LiveModel) -> int:
    """Remove the suggestions of versions before the live one and the one before it.

    Not those of other origins, and none that an annotation came from: it is part of the record of
    what the annotator saw.
    """
    api = Api(home)
    present = api.get(f"/api/projects/{project_id}/model-versions/") or {}
    prefix, _, _ = live.version.name.rpartition("-v")
    ours = sorted(
        (name for name in present if name.rpartition("-v")[0] == prefix),
        key=lambda name: int(name.rpartition("-v")[2]),
        reverse=True,
    )
    old = [name for name in ours if name != live.version.name][VERSIONS_KEPT - 1 :]
    total = sum(int(present[name]) for name in old)
    path = f"/api/planktrait/projects/{project_id}/suggestions"
    deleted = kept = 0
    for name in old:
        after = 0
        while after is not None:
            asked = {"model_version": name, "after": after}
            done = api.call("DELETE", path, params=asked)
            deleted, kept, after = deleted + done["deleted"], kept + done["kept"], done["next"]
            progress.report("delete old suggestions", deleted + kept, total, name)
    return deleted


class _WrittenFor:
    """For which config the suggestions of the live version were written: a file by the versions."""

    def __init__(self, live: LiveModel) -> None:
        self.version = live.version.name
        self.file = live.version.folder.parent / WRITTEN_FOR_FILE

    def other_config(self, schema: LabelSchema) -> bool:
        """Whether some were written for another config; notes the config of the first ones."""
        noted = read_json(self.file) or {}
        if noted.get("version") != self.version:
            self.note(schema)
            return False
        return bool(noted.get("schema") != schema.fingerprint)

    def note(self, schema: LabelSchema) -> None:
        write_json(self.file, {"version": self.version, "schema": schema.fingerprint})


@dataclass
class _Tally:
    total: int
    suggested: int = 0
    blind: int = 0
    without: int = 0

    def report(self) -> None:
        done = self.suggested + self.blind + self.without
        progress.report("suggest", done, self.total, f"{self.suggested} suggestions")


def _suggest(
    home: Home,
    project_id: int,
    live: LiveModel,
    schema: LabelSchema,
    tasks: Iterator[dict[str, Any]],
    tally: _Tally,
) -> None:
    path = f"/api/planktrait/projects/{project_id}/suggestions"
    api = Api(home)

    def find(tasks: list[dict[str, Any]]) -> tuple[int, list[int], TaskImages]:
        seen = [task for task in tasks if not is_blind(task)]
        return len(tasks), [task["id"] for task in seen], find_images(seen, schema, home)

    chunks = chain(
        batches(islice(tasks, FIRST_CHUNK), FIRST_CHUNK), batches(tasks, TASKS_PER_CHUNK)
    )
    # Label Studio saves some while the next ones are classified.
    with ThreadPoolExecutor(1) as saving:
        saved: Future[Any] | None = None
        for n_tasks, seen, images in ahead(map(find, chunks)):
            tally.blind += n_tasks - len(seen)
            suggested = live.suggest_many(images, schema, TASKS_PER_CALL)
            n_suggested = 0
            for batch in batches(suggested, TASKS_PER_CALL):
                predictions = [suggestion | {"task": seen[row]} for row, suggestion in batch]
                if saved is not None:
                    saved.result()
                    tally.report()
                saved = saving.submit(api.post, path, predictions)
                n_suggested += len(batch)
                tally.suggested += len(batch)
            tally.without += len(seen) - n_suggested
        if saved is not None:
            saved.result()
    tally.report()
