"""Removing what a new model version has replaced, over HTTP; ours or not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from hpc_jobs import progress
from label_studio_config.api import Api, ApiError
from label_studio_config.versions import older_versions

Json = dict[str, Any]


def prune_over_http(
    api: Api,
    project: int,
    version: str,
    tasks: Iterable[Json] | None,
    shown_before: str | None = None,
) -> Counter[str]:
    """Delete the predictions of earlier versions of the same model that are replaced.

    They stay where their task has none of this version, where an annotation came from them or was
    made beside them, and where people see that earlier version. The newest earlier version stays,
    too: a task that is open names its prediction when it is submitted. A Label Studio that is not
    ours does not tell what an annotation was made beside (the annotation has a copy of it), and
    one that comes between the look at its task and the deletion loses its reference.

    Parameters
    ----------
    tasks : every task in full; None for a Label Studio of ours, whose plugin looks itself
    shown_before : the version that people saw a moment ago stays too

    Returns
    -------
    Counter
        pruned, kept (by annotations), unreplaced, shown

    Raises
    ------
    ApiError
        The plugin there is older and would delete what is not replaced: nothing is deleted.
    """
    counts: dict[str, int] = api.get(f"/api/projects/{project}/model-versions/")
    old = older_versions([name for name in counts if name], version)
    shown = api.get(f"/api/projects/{project}/").get("model_version")
    told: Counter[str] = Counter()
    for name in {*old[:1], shown, shown_before} & set(old):
        old.remove(name)
        told["shown"] += int(counts[name])
    if tasks is None:
        total = sum(int(counts[name]) for name in old)
        for name in old:
            _some_thousands_a_call(api, project, name, version, told, total)
    elif old:
        _one_by_one(api, set(old), version, tasks, told)
    return told


def _some_thousands_a_call(
    api: Api, project: int, old: str, version: str, told: Counter[str], total: int
) -> None:
    path, after = f"/api/planktrait/projects/{project}/suggestions", 0
    while after is not None:
        # Not `model_version`: an older plugin would take that, and know nothing of `newer`.
        asked = {"replaced": old, "newer": version, "after": after}
        try:
            removed = api.call("DELETE", path, params=asked)
        except ApiError as error:
            if error.status == 400 and "model_version: name the version" in str(error):
                raise ApiError(
                    f"the suggestions of {version} are loaded, but those that it replaces stay: "
                    f"the plugin at {api.url} cannot tell them from others. Upgrade the plugin "
                    "there, and repeat this command",
                    error.status,
                ) from error
            raise
        told["pruned"] += removed["deleted"]
        told["kept"] += removed["kept"]
        told["unreplaced"] += removed["unreplaced"]
        after = removed["next"]
        done = told["pruned"] + told["kept"] + told["unreplaced"]
        progress.report("remove earlier versions", done, total, old)


def _one_by_one(
    api: Api, old: set[str], version: str, tasks: Iterable[Json], told: Counter[str]
) -> None:
    """Label Studio's own call for a whole version spares nothing."""
    for listed in tasks:
        if not any(one["model_version"] in old for one in listed.get("predictions") or []):
            continue
        # As it is now: a page of them takes minutes, in which people annotate.
        if (task := _fetch(api, listed["id"])) is None:
            continue
        predictions = task.get("predictions") or []
        replaced = any(one["model_version"] == version for one in predictions)
        used = _used(task)
        for one in predictions:
            if one["model_version"] not in old:
                continue
            if one["id"] in used:
                told["kept"] += 1
            elif not replaced:
                told["unreplaced"] += 1
            else:
                api.call("DELETE", f"/api/predictions/{one['id']}/")
                told["pruned"] += 1


def _fetch(api: Api, task_id: int) -> Json | None:
    """A task with its annotations and predictions; None where somebody has deleted it."""
    try:
        task: Json = api.get(f"/api/tasks/{task_id}/")
    except ApiError as error:
        if error.status == 404:
            return None
        raise
    return task


def _used(task: Json) -> set[int]:
    """The predictions that a task's annotations came from, or were made beside."""
    used = set()
    for annotation in task.get("annotations") or []:
        shown = annotation.get("prediction") or {}
        used |= {annotation.get("parent_prediction"), shown.get("id")} - {None}
    return used
