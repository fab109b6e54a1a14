"""What the backend's jobs do: a training, or learning features, of one Label Studio project.

Plain functions; the command line calls them in its own process, the backend as jobs. A web worker
imports this module, so what is heavy is imported when it is used.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc_jobs import progress
from hpc_jobs.scratch import scratch_folder
from label_studio_config.api import ApiError
from label_studio_config.home import Home
from label_studio_config.manifest import Manifest
from label_studio_config.schema import LabelSchema
from label_studio_config.server_tasks import fetch_project, fetch_tasks
from label_studio_config.task_manifest import manifest_of_tasks
from label_studio_config.votes import image_id_of, is_blind, read_votes, vote_shares
from ml_backend.annotators import read_weights
from ml_backend.encoders import newest_encoder, set_newest_encoder
from ml_backend.live_model import LiveModels
from ml_backend.registry import Registry, RegistryError
from ml_backend.suggestions import refresh_suggestions, suggest_some
from ml_backend.turns import await_turn

if TYPE_CHECKING:
    from ml_backend.train import TrainingReport
    from ml_backend.ways import Ways

logger = logging.getLogger(__name__)

TASKS_PER_LIGHT_PAGE = 5000


class NotRefreshedError(RuntimeError):
    """A training succeeded, but Label Studio could not be given its suggestions."""


def fetch_for_training(home: Home, project_id: int) -> tuple[LabelSchema, list[dict[str, Any]]]:
    """A project's config, and all its tasks: the annotated ones with their annotations in full.

    Raises
    ------
    ApiError
        Label Studio cannot be reached, or has no such project.
    SchemaError
        The project's config cannot be learned from.
    """
    schema = LabelSchema.from_xml(fetch_project(home, project_id)["label_config"])
    schema.require_trainable()
    # The others tell the samples, and which images are blind in another task; both are light. They
    # come first, so that a task that is annotated meanwhile is in one of the two at least.
    others = fetch_tasks(
        home, project_id, full=False, unannotated_only=True, page_size=TASKS_PER_LIGHT_PAGE
    )
    tasks = {task["id"]: task for task in others}
    progress.report("fetch annotations", 0, 0)
    for task in fetch_tasks(home, project_id, annotated_only=True):
        tasks[task["id"]] = task
        progress.report("fetch annotations", len(tasks), 0)
    return schema, list(tasks.values())


def train_project(
    home_folder: str | Path,
    project_id: int,
    encoder: str | None = None,
    ways: Ways | None = None,
) -> dict[str, Any]:
    """Train on a project's annotations, promote if not worse, and refresh its suggestions.

    Parameters
    ----------
    home_folder : path
        Folder of the home.
    project_id : int
    encoder : str, optional
        A folder or a timm name to start from; by default the project's newest SimCLR encoder.
    ways : Ways, optional
        Of this training alone; by default those that were measured to be best.

    Returns
    -------
    dict
        version, promoted, reason, notes, for a version that was not promoted the figures of the
        comparison (verdict), and counts of suggestions; for the record of the job.

    Raises
    ------
    TrainingRefused
        There is not enough to learn from; the live model stays.
    WaysError
        The project has no encoder, and it is asked for what needs one.
    ApiError
        Label Studio cannot be reached.
    NotRefreshedError
        It cannot be reached any more after the training, whose version stays.
    """
    home = Home(home_folder)
    report = train_from_server(home, project_id, encoder, ways)
    live = LiveModels(home).get(project_id)
    outcome = outcome_of(report)
    if live is not None:
        try:
            outcome["suggestions"] = vars(refresh_suggestions(home, project_id, live))
        except ApiError as error:
            raise NotRefreshedError(
                f"{report.version.name} was made and {live.version.name} is live, but its "
                f"suggestions are not in Label Studio: {error}. The next training adds them, or "
                "the action “Suggest labels”"
            ) from error
    return outcome


def suggest_project(
    home_folder: str | Path, project_id: int, ids: Sequence[int] | None = None
) -> dict[str, Any]:
    """Give the tasks of a project that have none yet a suggestion of the live version.

    Parameters
    ----------
    ids : sequence of int, optional
        Only these tasks.

    Raises
    ------
    RegistryError
        No version is live yet.
    ApiError
        Label Studio cannot be reached.
    """
    home = Home(home_folder)
    live = LiveModels(home).get(project_id)
    if live is None:
        raise RegistryError(
            f"project {project_id} has no live model: run `planktrait train` for it first"
        )
    if ids is not None:
        return vars(suggest_some(home, project_id, ids, live))
    return vars(refresh_suggestions(home, project_id, live))


def train_from_server(
    home: Home, project_id: int, encoder: str | None = None, ways: Ways | None = None
) -> TrainingReport:
    """Train on a project's annotations and promote if not worse; Label Studio is only read.

    While another process trains the same model, this one waits, for an hour at most: a training
    that was asked for by counting annotations would not be asked for again.
    """
    from ml_backend.train import train
    from ml_backend.ways import Ways

    registry = Registry(home.models_folder(project_id))
    await_turn(registry.folder / ".work" / "lock")
    start = encoder or newest_encoder(home.encoders_folder(project_id))
    settings = (ways or Ways()).settings(start)
    project = fetch_project(home, project_id)
    schema, tasks = fetch_for_training(home, project_id)
    return train(
        tasks,
        schema,
        resolve_image=home.resolve_image,
        registry=registry,
        encoder=start,
        cache_folder=images_cache(home),
        settings=settings,
        suggestions_shown=bool(project.get("show_collab_predictions", True)),
    )


def outcome_of(report: TrainingReport) -> dict[str, Any]:
    """What the record of a job tells of a training."""
    from ml_backend.report import plain

    verdict = report.promotion.as_dict()
    outcome = {name: verdict.pop(name) for name in ("promoted", "reason", "notes")}
    if not report.promotion.promoted:
        outcome["verdict"] = verdict
    return {"version": report.version.name, **plain(outcome)}


def images_cache(home: Home) -> Path:
    """Where trainings and SimCLR of all projects keep decoded images."""
    return images_scratch() or home.cache_folder / "images"


def images_scratch() -> Path | None:
    """For decoded images, in the fast folder that the site profile names on a cluster's nodes."""
    scratch = scratch_folder()
    return scratch / "images" if scratch else None


def fetch_images(home: Home, project_id: int) -> tuple[Manifest, dict[str, str]]:
    """The images of a project that may teach, labelled or not: all but the blind ones.

    Returns
    -------
    manifest : Manifest
    labels : dict
        By image id, what most annotators chose for the primary control, as they are weighted,
        where anybody did.
    """
    schema = LabelSchema.from_xml(fetch_project(home, project_id)["label_config"])
    tasks = list(fetch_tasks(home, project_id, full=False))
    blind = {image_id_of(schema, task) for task in tasks if is_blind(task)}
    seen = [task for task in tasks if image_id_of(schema, task) not in blind]
    manifest, skipped = manifest_of_tasks(schema, seen, home.resolve_image, home.images_root)
    for skip in skipped:
        logger.warning("skipped %s: %s", skip.path, skip.reason)
    control = schema.primary
    if control is None or control.kind != "one of":
        return manifest, {}
    votes = read_votes(schema, fetch_tasks(home, project_id, annotated_only=True))
    weights = read_weights(home.models_folder(project_id))
    shares, n_votes = vote_shares(control, votes, manifest.image_ids, weights)
    choices = zip(manifest.image_ids, shares.argmax(axis=1), n_votes, strict=True)
    return manifest, {image_id: control.labels[best] for image_id, best, n in choices if n}


def pretrain_project(
    home_folder: str | Path,
    project_id: int,
    epochs: int | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Learn features from every image of a project (SimCLR); the next training starts from them.

    A run that was killed is resumed by the next one, if images and settings are the same; a
    finished one is not repeated. Anything else is a new run in a folder of its own.

    Parameters
    ----------
    home_folder : path
        Folder of the home.
    project_id : int
    epochs : int, optional
    options
        backbone, encoder, image_size_px, method and numbers, as `learn_features` takes them.

    Returns
    -------
    dict
        encoder, images, epochs, for the record of the job.

    Raises
    ------
    PretrainError
        There are too few images, or settings that do not go together.
    EncoderError
        There is no such backbone or encoder.
    ApiError
        Label Studio cannot be reached.
    """
    from ml_backend.feature_learning import DEFAULT_EPOCHS, learn_features
    from simclr.run_folder import count_images

    home = Home(home_folder)
    manifest, labels = fetch_images(home, project_id)
    folder = home.encoders_folder(project_id)
    epochs = epochs or DEFAULT_EPOCHS
    encoder = learn_features(
        manifest,
        folder,
        epochs,
        labels=labels,
        cache_folder=images_cache(home),
        own_folder=True,
        **options,
    )
    set_newest_encoder(folder, encoder)
    return {"encoder": encoder.parent.name, "images": count_images(encoder), "epochs": epochs}
