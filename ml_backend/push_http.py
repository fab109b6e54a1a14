"""Bulk loading over HTTP, into a Label Studio whose database is out of reach; ours or not."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from hpc_jobs import progress
from label_studio_config.api import Api, ApiError
from label_studio_config.blind import is_blind_data
from label_studio_config.home import LOCAL_FILES_URL, OutsideRootError
from label_studio_config.manifest import Manifest, Skipped
from label_studio_config.prediction_shards import Shards
from label_studio_config.project import projects_of, require_usable
from label_studio_config.project_choice import choose_project
from label_studio_config.task_import import checked_columns, new_rows, ready, tasks_of_rows
from ml_backend.prune_http import prune_over_http

BATCH_SIZE = 1000
"""Images in one call; Label Studio takes about a second for them."""

_PAGE = 1000
Json = dict[str, Any]


class _There(NamedTuple):
    """A task that is there, in a few bytes: hundreds of thousands are in memory at once.

    Attributes
    ----------
    predictions : (model version, id, digest of score and result) of each
    """

    task_id: int
    blind: bool
    predictions: tuple[tuple[str, int, bytes], ...]

    @classmethod
    def of(cls, task: Json) -> _There:
        """Of what the API says of it."""
        predictions = tuple(
            (sys.intern(one["model_version"] or ""), int(one["id"]), _digest(one))
            for one in task.get("predictions") or []
        )
        return cls(int(task["id"]), is_blind_data(task["data"]), predictions)


def find_over_http(
    url: str,
    token: str | None,
    project: str | int,
    predictions: str | os.PathLike[str] | None,
) -> tuple[Api, int]:
    """The Label Studio at `url`, and the number of a project there that takes the predictions.

    Raises
    ------
    ApiError
        There is no token, or Label Studio refuses.
    ProjectError, SchemaError, ShardError
    """
    if not token:
        raise ApiError(f"{url}: give a token of an account there (Account & Settings)")
    api = Api.at(url, token)
    number = choose_project(project, ((one["id"], one["title"]) for one in projects_of(api)))
    schema = require_usable(api.get(f"/api/projects/{number}/")["label_config"])
    if predictions is not None:
        Shards(Path(predictions), schema)
    return api, number


def push_over_http(
    api: Api,
    project: int,
    manifest: Manifest,
    predictions: Path | str | None,
    *,
    blind_share: float = 0.0,
    show: bool = True,
    prune: bool = False,
    images_address: str | None = None,
) -> Json:
    """As `push_project`, through the API of a Label Studio.

    An image's address and id are those that a push into the database of a Label Studio of ours
    gives it: it says which its images root is. With `images_address` the address is that and the
    path in the manifest; likewise in another Label Studio, by default with the address of its
    Local Files (`/data/local-files/?d=`): then the manifest's root is to be its document root. An
    id that is a path stays as it is there.

    Raises
    ------
    ApiError
        Label Studio refuses; a repeat goes on where it stopped.
    OutsideRootError
        An image does not lie under the images root of that Label Studio; before anything is
        written.
    ManifestError, SchemaError, ShardError
        Before anything is written, and before the images root is shown to anybody.
    """
    known = api.get(f"/api/projects/{project}/")
    schema = require_usable(known["label_config"])
    shards = Shards(predictions, schema) if predictions is not None else None
    ours = _is_ours(api, project)
    folder = f"/api/planktrait/projects/{project}/images-folder"
    if ours and images_address is None:
        root = Path(api.get(folder)["path"])
        manifest, addresses, ids_before = _ready_for_ours(root, manifest, blind_share)
    else:
        prefix = f"{LOCAL_FILES_URL}?d=" if images_address is None else images_address
        manifest = checked_columns(manifest)
        addresses = [prefix + quote(path) for path in manifest.table["path"]]
        ids_before = manifest.image_ids
    run = _Run(api, project, ours, manifest, addresses, ids_before, blind_share)
    if ours and all(address.startswith(LOCAL_FILES_URL) for address in addresses):
        api.post(folder)  # the members of the project may see them
    if shards is not None:
        run.push_shards(shards)
        version = shards.model_version
    run.push_rest()
    if shards is not None:
        if show and known.get("model_version") != version:
            run.show(version)
        if prune and version:
            pages = run.tasks("remove earlier versions")
            tasks, before = None if run.ours else pages, known.get("model_version")
            run.counts.update(prune_over_http(api, project, version, tasks, before))
    return {
        "project": project,
        "images": len(manifest),
        "present": run.present,
        "model_version": version if shards is not None else "",
        **{
            name: run.counts[name]
            for name in (
                *("added", "blind", "suggested", "replaced", "unchanged"),
                *("pruned", "kept", "unreplaced", "shown"),
            )
        },
        "bad": run.bad,
    }


def _is_ours(api: Api, project: int) -> bool:
    try:
        api.get(f"/api/planktrait/projects/{project}/tasks", limit=1, full=0)
    except ApiError as error:
        if error.status != 404:
            raise
        return False
    return True


def _ready_for_ours(
    root: Path, manifest: Manifest, blind_share: float
) -> tuple[Manifest, list[str], list[str]]:
    """As `ready`, with the remedy where this machine has the images elsewhere."""
    try:
        return ready(root, manifest, blind_share)
    except OutsideRootError as error:
        raise OutsideRootError(
            f"{error}; or, where the images lie elsewhere than here, give with --images-address "
            "what stands before a path of the manifest in its address there, such as "
            f"{LOCAL_FILES_URL}?d="
        ) from error


class _Run:
    """One push: what is there, which rows are left."""

    def __init__(
        self,
        api: Api,
        project: int,
        ours: bool,
        manifest: Manifest,
        addresses: list[str],
        ids_before: list[str],
        blind_share: float,
    ) -> None:
        self.api, self.project, self.ours = api, project, ours
        self.manifest, self.addresses, self.blind_share = manifest, addresses, blind_share
        self.there: dict[str, _There] = {}
        ids: list[tuple[str, str]] = []
        for task in self.tasks("look at the tasks that are there"):
            address = task["data"].get("image")
            if address:
                self.there[address] = _There.of(task)
                ids.append((str(task["data"].get("image_id")), address))
        self.left = dict.fromkeys(new_rows(manifest, addresses, ids))
        self.present = len(manifest) - len(self.left)
        self.row_of = {image_id: row for row, image_id in enumerate(ids_before)}
        self.counts: Counter[str] = Counter()
        self.bad: list[Skipped] = []

    def push_shards(self, shards: Shards) -> None:
        """Images that have predictions, with them."""
        self.bad += shards.bad
        for found, bad, seen in shards.by_row(BATCH_SIZE, self.row_of, self.addresses):
            self.bad += bad
            new: dict[int, Json | None] = {
                row: suggestion for row, suggestion in found.items() if row in self.left
            }
            later: list[Json] = []
            for row, suggestion in found.items():
                if row not in new and self.addresses[row] in self.there:
                    later += self._changed(self.there[self.addresses[row]], suggestion)
            self._import(new)
            self._save(later)
            progress.report("push", seen, shards.rows)

    def push_rest(self) -> None:
        """Images without predictions that are no tasks yet."""
        rest = list(self.left)
        for start in range(0, len(rest), BATCH_SIZE):
            self._import(dict.fromkeys(rest[start : start + BATCH_SIZE]))
            progress.report("import images", min(start + BATCH_SIZE, len(rest)), len(rest))

    def show(self, version: str) -> None:
        """Make Label Studio sort and sample by the version."""
        if self.ours:
            path = f"/api/planktrait/projects/{self.project}/model-version"
            self.api.post(path, {"model_version": version})
        else:
            self.api.patch(f"/api/projects/{self.project}/", {"model_version": version})

    def tasks(self, stage: str) -> Iterator[Json]:
        """Every task in full, a page in memory at a time."""
        seen = 0
        if self.ours:
            path, after = f"/api/planktrait/projects/{self.project}/tasks", 0
            while page := self.api.get(path, after=after, limit=_PAGE, full=1)["tasks"]:
                yield from page
                seen, after = seen + len(page), page[-1]["id"]
                progress.report(stage, seen, 0)
            return
        number = 1
        while True:
            asked = {"project": self.project, "page": number, "page_size": _PAGE, "fields": "all"}
            answer = self.api.get("/api/tasks", **asked)
            yield from answer["tasks"]
            seen, number = seen + len(answer["tasks"]), number + 1
            progress.report(stage, seen, int(answer["total"]))
            if not answer["tasks"] or seen >= answer["total"]:
                return

    def _import(self, suggestions: dict[int, Json | None]) -> None:
        if not suggestions:
            return
        rows = list(suggestions)
        data = tasks_of_rows(self.manifest, self.addresses, rows, self.blind_share, 0)
        tasks = []
        for row, one in zip(rows, data, strict=True):
            blind = is_blind_data(one)
            suggestion = None if blind else suggestions[row]
            tasks.append({"data": one, "predictions": [suggestion] if suggestion else []})
            del self.left[row]
        for task in self._post(f"/api/projects/{self.project}/import?return_task_ids=false", tasks):
            self.counts["added"] += 1
            self.counts["blind"] += is_blind_data(task["data"])
            self.counts["suggested"] += bool(task["predictions"])

    def _changed(self, task: _There, suggestion: Json) -> list[Json]:
        """The suggestion, if it is new; one that says something else is written over the old."""
        if task.blind:
            return []
        version = suggestion["model_version"]
        # The newest, where Label Studio has several of one version.
        before = next((one for one in reversed(task.predictions) if one[0] == version), None)
        whole = suggestion | {"task": task.task_id}
        if before is None:
            self.counts["suggested"] += 1
            return [whole]
        _, number, digest = before
        if digest == _digest(suggestion):
            self.counts["unchanged"] += 1
            return []
        self.counts["replaced"] += 1
        if self.ours:
            return [whole]
        changes = {"result": suggestion["result"], "score": suggestion["score"]}
        self.api.patch(f"/api/predictions/{number}/", changes)
        return []

    def _save(self, suggestions: list[Json]) -> None:
        if not suggestions:
            return
        if self.ours:
            path = f"/api/planktrait/projects/{self.project}/suggestions"
        else:
            path = f"/api/projects/{self.project}/import/predictions"
        self._post(path, suggestions)

    def _post(self, path: str, items: list[Json]) -> list[Json]:
        """Post in one call, in several where Label Studio refuses some; those that it took."""
        try:
            self.api.post(path, items)
        except ApiError as error:
            if error.status != 400:
                raise
            if len(items) == 1:
                name = (items[0].get("data") or {}).get("image_id", f"task {items[0].get('task')}")
                self.bad.append(Skipped(str(name), str(error)[:300]))
                return []
            middle = len(items) // 2
            return self._post(path, items[:middle]) + self._post(path, items[middle:])
        return items


def _digest(prediction: Json) -> bytes:
    """Alike for the same score and result, also where 1.0 has become 1 on the way."""
    said = json.dumps([prediction.get("score"), prediction.get("result")], sort_keys=True)
    alike = json.dumps(json.loads(said, parse_int=float), sort_keys=True)
    return blake2b(alike.encode(), digest_size=16).digest()
