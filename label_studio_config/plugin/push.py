"""Tasks and predictions of many images into a project of this Label Studio, through its database.

Repeating changes nothing that is as it should be; a run that was killed goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from projects.models import Project
from tasks.models import Prediction, Task

from label_studio_config.batches import batches
from label_studio_config.home import Home
from label_studio_config.manifest import Manifest, Skipped
from label_studio_config.other_process import in_other_process
from label_studio_config.plugin.bulk_rows import JsonError
from label_studio_config.plugin.gallery_catch_up import catch_up
from label_studio_config.plugin.gallery_rows import Questions
from label_studio_config.plugin.images_folder import show_images
from label_studio_config.plugin.old_versions import VersionShownError, remove_version
from label_studio_config.plugin.push_batch import Done, NewTask, Pushed, push_batch
from label_studio_config.plugin.suggestions import (
    Read,
    SuggestionError,
    questions_to,
    read_suggestion,
)
from label_studio_config.prediction_shards import Shards
from label_studio_config.project import require_usable
from label_studio_config.task_import import (
    keep_manifest,
    new_rows,
    one_at_a_time,
    ready,
    tasks_of_rows,
)
from label_studio_config.versions import older_versions

BATCH_SIZE = 5000
"""Images in one transaction: about a second, in which others wait on SQLite."""

Report = Callable[[str, int, int, str], None]


@dataclass(frozen=True)
class PushOptions:
    """How a project is pushed to.

    Attributes
    ----------
    blind_share, seed : which new images are blind, as `import_manifest` takes them
    show : whether the pushed version becomes the one that people see
    prune : whether predictions of earlier versions of the same model go, where the task has one of
        this version; not those that annotations refer to, nor of the newest of them, nor of the
        version that people see or saw when the push began: a task that is open names its
        prediction when it is submitted
    """

    blind_share: float = 0.0
    seed: int = 0
    show: bool = True
    prune: bool = False
    batch_size: int = BATCH_SIZE


@dataclass
class PushReport:
    """What a push did; see `Done` for the counts.

    Attributes
    ----------
    project : its number
    images, present : of the manifest; those that were tasks already
    pruned, kept : predictions of earlier versions that are gone, or stay for an annotation's sake
    unreplaced, shown : those that stay since their task has none of this version, or since people
        may have a task of that version open
    """

    project: int
    images: int
    present: int
    model_version: str = ""
    done: Done = field(default_factory=Done)
    pruned: int = 0
    kept: int = 0
    unreplaced: int = 0
    shown: int = 0

    def as_json(self) -> dict[str, Any]:
        """For a line of text."""
        done = asdict(self.done)
        done["bad"] = [[skipped.path, skipped.reason] for skipped in self.done.bad]
        return {**{k: v for k, v in asdict(self).items() if k != "done"}, **done}


def push(
    home: Home,
    project_id: int,
    manifest: Manifest,
    predictions: Path | None,
    options: PushOptions,
    report: Report,
) -> PushReport:
    """Bring a project's tasks and suggestions to what a manifest and shards say.

    Parameters
    ----------
    predictions : the folder of the shards; None for tasks alone

    Raises
    ------
    OutsideRootError, ManifestError, SchemaError, ShardError
        Before anything is written, and before the images root is shown to anybody.
    SuggestionError
        There is no such project.
    """
    project, shards = what_is_loaded(project_id, predictions)
    manifest, addresses, ids_before = ready(home.images_root, manifest, options.blind_share)
    with one_at_a_time(home, project_id):
        run = _Run(project, manifest, addresses, ids_before, options, report)
        show_images(project, home)
        if shards is not None:
            run.push_shards(shards)
        run.push_rest()
    keep_manifest(home, project_id, manifest)
    if project.overlap_cohort_percentage < 100 and run.told.done.added:
        project._rearrange_overlap_cohort()
    if shards is not None:
        run.finish(shards.model_version)
    catch_up(project)
    return run.told


def what_is_loaded(project_id: int, predictions: Path | None) -> tuple[Project, Shards | None]:
    """The project and the shards of a push; what is wrong with them is told before images are read.

    Raises
    ------
    SchemaError, ShardError, SuggestionError
        As `push`.
    """
    project = Project.objects.filter(id=project_id).first()
    if project is None:
        raise SuggestionError(f"there is no project {project_id}")
    schema = require_usable(project.label_config)
    return project, None if predictions is None else Shards(predictions, schema)


class _Images(NamedTuple):
    """What one transaction takes; the rows that are no tasks yet, and what is bad."""

    pushed: list[Pushed]
    new: list[int]
    bad: list[Skipped]


class _Run:
    """One push: which rows of the manifest are tasks, and which were pushed."""

    def __init__(
        self,
        project: Project,
        manifest: Manifest,
        addresses: list[str],
        ids_before: list[str],
        options: PushOptions,
        report: Report,
    ) -> None:
        report("look at the tasks that are there", 0, 0, "")
        rows = Task.objects.filter(project=project)
        known = [
            (task_id, image_id, address)
            for task_id, image_id, address in rows.values_list(
                "id", "data__image_id", "data__image"
            ).iterator()
            if address
        ]
        self.project, self.manifest, self.addresses = project, manifest, addresses
        self.options, self.report = options, report
        self.shown_before = project.model_version
        self.task_at = {address: task_id for task_id, _, address in known}
        self.left = dict.fromkeys(
            new_rows(manifest, addresses, [(one, address) for _, one, address in known])
        )
        self.row_of = {image_id: row for row, image_id in enumerate(ids_before)}
        self.image_ids = manifest.image_ids
        self.told = PushReport(project.id, len(manifest), len(manifest) - len(self.left))
        catch_up(project)

    def push_shards(self, shards: Shards) -> None:
        """Images that have predictions, with them."""
        done = self.told.done
        done.bad += shards.bad
        self.told.model_version = shards.model_version
        if not self.project.model_version and self.options.show:
            # Nothing else is shown: the index need not be changed again at the end.
            self._show(shards.model_version)
        # Half of the work is to read and check: another process does it while this one writes.
        read = partial(self._read, shards, questions_to(self.project))
        for images, seen in in_other_process(read, "reads the predictions"):
            self._push(images)
            self.report("push", seen, shards.rows, f"{done.suggested} suggestions")

    def push_rest(self) -> None:
        """Images without predictions that are no tasks yet."""
        if not self.left:
            return
        count = len(self.left)
        read = partial(self._read_rest, questions_to(self.project))
        for images, seen in in_other_process(read, "reads the manifest"):
            self._push(images)
            self.report("import images", seen, count, "")

    def _read(self, shards: Shards, questions: Questions) -> Iterator[tuple[_Images, int]]:
        """Images with suggestions, and how many rows of the shards were seen so far."""
        for found, bad, seen in shards.by_row(self.options.batch_size, self.row_of, self.addresses):
            fit: dict[int, Read | None] = {}
            for row, suggestion in found.items():
                try:
                    fit[row] = read_suggestion(questions, {**suggestion, "task": 0})
                except SuggestionError as error:
                    reason = str(error.__cause__ or error)
                    bad.append(Skipped(self.image_ids[row], reason))
            yield self._images(questions, fit, bad), seen

    def _read_rest(self, questions: Questions) -> Iterator[tuple[_Images, int]]:
        seen = 0
        for rows in batches(list(self.left), self.options.batch_size):
            seen += len(rows)
            yield self._images(questions, dict.fromkeys(rows), []), seen

    def finish(self, version: str) -> None:
        """Show the version, and remove what it replaces of earlier ones."""
        if self.options.show and version and self.project.model_version != version:
            self._show(version)
        if not self.options.prune:
            return
        there = Prediction.objects.filter(project=self.project)
        names = there.order_by().values_list("model_version", flat=True).distinct()
        old = older_versions([name for name in names if name], version)
        # The newest one, too: it may be a repetition that began after the version was shown.
        spared = {*old[:1], self.shown_before} & set(old)
        old = [name for name in old if name not in spared]
        told, total = self.told, there.filter(model_version__in=old).count()
        told.shown += there.filter(model_version__in=spared).count()
        for name in old:
            after: int | None = 0
            while after is not None:
                try:
                    removed = remove_version(self.project, name, after, version)
                except VersionShownError:
                    # Perhaps since a moment ago: what is left of it stays.
                    left = there.filter(model_version=name, id__gt=after).count()
                    told.shown, total = told.shown + left, total - left
                    break
                told.pruned += removed.deleted
                told.kept += removed.kept
                told.unreplaced += removed.unreplaced
                done = told.pruned + told.kept + told.unreplaced
                self.report("remove earlier versions", done, total, name)
                after = removed.next

    def _show(self, version: str) -> None:
        self.project.model_version = version
        self.project.save(update_fields=["model_version"])

    def _images(
        self, questions: Questions, suggestions: Mapping[int, Read | None], bad: list[Skipped]
    ) -> _Images:
        """Some rows, with the data of those that are no tasks yet."""
        new = [row for row in suggestions if row in self.left]
        options = self.options
        tasks = tasks_of_rows(self.manifest, self.addresses, new, options.blind_share, options.seed)
        task_at: dict[int, int | NewTask] = {}
        for row, data in zip(new, tasks, strict=True):
            try:
                task_at[row] = NewTask.of(questions, data)
            except JsonError as error:
                bad.append(Skipped(self.image_ids[row], f"cannot be a task: {error}"))
        for row in suggestions.keys() - self.left.keys():
            # The second of two rows with one address is no image of its own.
            if (there := self.task_at.get(self.addresses[row])) is not None:
                task_at[row] = there
        images = [
            Pushed(task_at[row], suggestion)
            for row, suggestion in suggestions.items()
            if row in task_at
        ]
        return _Images(images, new, bad)

    def _push(self, images: _Images) -> None:
        done = self.told.done
        done.bad += images.bad
        if images.pushed:
            catch_up(self.project)
            done.add(push_batch(self.project, images.pushed))
        for row in images.new:
            self.left.pop(row, None)
