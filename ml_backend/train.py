"""A training from beginning to end: votes → fit → calibration → evaluation → version → promotion.

One function, called alone from the command line or as a job. Killed half-way it leaves the live
model as it was, and the next call goes on from the last whole epoch when data and settings are the
same, or starts clean.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from hpc_jobs import progress
from label_studio_config.agreement import (
    agreement,
    changed_answers,
    changed_notes,
    self_agreement,
    self_agreement_notes,
)
from label_studio_config.manifest import Manifest
from label_studio_config.schema import LabelSchema
from label_studio_config.task_manifest import manifest_of_tasks
from label_studio_config.votes import image_id_of, read_votes
from ml_backend.annotators import WEIGHTS_FILE, read_weights, weight_notes
from ml_backend.checkpoint import remove_checkpoints
from ml_backend.fit import FitSettings, Fitted, fit
from ml_backend.fit_heads import TrainingRefused, make_heads
from ml_backend.measure import Answered, answer
from ml_backend.model import ModelError, TraitModel
from ml_backend.promote import Promotion, decide
from ml_backend.record import make_record, write_version
from ml_backend.registry import Registry
from ml_backend.report import TrainingReport
from ml_backend.schema_change import NOT_LEARNED
from ml_backend.split import settled_rule
from ml_backend.start import Start, choose_start, size_notes, size_unit
from ml_backend.targets import LearningSet, learning_set, task_images
from simclr.cache import ImageCache

__all__ = ["TrainingRefused", "TrainingReport", "train"]

logger = logging.getLogger(__name__)

NONE_UNLABELLED = (
    "there is no image without votes to learn from: all on the training side have some (a saved "
    "export holds the others only if it was made of all tasks). Train without --self-train"
)


def train(
    tasks: Iterable[dict[str, Any]],
    schema: LabelSchema,
    *,
    resolve_image: Callable[[str], Path],
    registry: Registry,
    encoder: str | Path | None = None,
    work_folder: Path | None = None,
    cache_folder: Path | None = None,
    settings: FitSettings | None = None,
    suggestions_shown: bool = True,
) -> TrainingReport:
    """Learn from the annotations of a project, and promote the new version if it is not worse.

    Parameters
    ----------
    tasks : iterable of dict
        All tasks of a Label Studio JSON export; those without annotations tell the samples.
    schema : LabelSchema
        The project's config.
    resolve_image : callable
        From an image URL in a task to a path under the allowed root; raises ValueError otherwise.
    registry : Registry
        Takes the new version.
    encoder : str or Path, optional
        A folder with a SimCLR encoder, or a timm name whose pretrained weights are fetched; by
        default an untrained network.
    work_folder, cache_folder : Path, optional
        For the checkpoint, and for decoded images; by default beside the versions.
    settings : FitSettings, optional
        By default those that were measured to be best for the kind of encoder.
    suggestions_shown : bool
        Whether the project shows predictions to annotators.

    Raises
    ------
    TrainingRefused
        There is nothing to learn from yet, or another training of this project is running. The
        live model stays.
    """
    work_folder = work_folder or registry.folder / ".work"
    work_folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(work_folder / "lock", timeout=0):
            report = _train(
                list(tasks),
                schema,
                resolve_image,
                registry,
                encoder,
                work_folder,
                cache_folder or registry.folder / ".cache",
                settings,
                suggestions_shown,
            )
    except Timeout as error:
        raise TrainingRefused(
            f"another training works in {work_folder}: wait for it to end, or cancel it"
        ) from error
    return report


def _train(
    tasks: list[dict[str, Any]],
    schema: LabelSchema,
    resolve_image: Callable[[str], Path],
    registry: Registry,
    encoder: str | Path | None,
    work_folder: Path,
    cache_folder: Path,
    settings: FitSettings | None,
    suggestions_shown: bool,
) -> TrainingReport:
    started_s = time.monotonic()
    most_unlabelled = _most_unlabelled(encoder, settings)
    data, facts = _read(tasks, schema, registry, suggestions_shown, most_unlabelled)
    make_heads(data, (settings or FitSettings()).min_images)  # refuse before anything slow
    wanted = set(data.images["image_id"])
    manifest, skipped = manifest_of_tasks(
        schema, (t for t in tasks if image_id_of(schema, t) in wanted), resolve_image, Path("/")
    )
    taught = _training_images(data, manifest)
    facts["size_notes"] = size_notes(taught)
    start = choose_start(encoder, taught, settings)
    cache = ImageCache.build(
        manifest, start.encoder.preprocessing, cache_folder, extent_unit=size_unit(taught)
    )
    skipped += cache.skipped
    data = _readable(data, cache)
    fitted = _fit(start, data, cache, work_folder)
    rows = data.rows("validation", "test", "blind")
    answered = answer(fitted.model, data.select(rows), manifest)
    record = make_record(data, answered, fitted, start, facts, skipped, manifest)
    promotion = _decide(registry, answered, manifest)
    record["promotion"] = promotion.as_dict()
    record["seconds"] = round(time.monotonic() - started_s, 1)
    version = registry.add(lambda folder: write_version(folder, fitted.model, record))
    remove_checkpoints(work_folder)  # not before: a training killed until here goes on from it
    if promotion.promoted:
        registry.promote(version.name, promotion.reason)
    else:
        logger.warning("%s stays unpromoted: %s", version.name, promotion.reason)
    for note in [*record["notes"], *promotion.notes]:
        logger.warning("%s: %s", version.name, note)
    return TrainingReport(version, promotion, record, skipped)


def _read(
    tasks: list[dict[str, Any]],
    schema: LabelSchema,
    registry: Registry,
    suggestions_shown: bool,
    most_unlabelled: int = 0,
) -> tuple[LearningSet, dict[str, Any]]:
    """The images with votes and their sides, and what to record of both."""
    votes = read_votes(schema, tasks, suggestions_shown)
    images = task_images(schema, tasks)
    rule = settled_rule(registry.folder, list(images["sample_id"]))
    weights = read_weights(registry.folder)
    voters = set(votes["annotator"])
    if voters and all(weights.get(who) == 0 for who in voters):
        raise TrainingRefused(
            f"{registry.folder / WEIGHTS_FILE} gives everybody who voted the weight 0: give one of "
            f"{', '.join(sorted(voters))} a weight"
        )
    himself, changed = self_agreement(votes), changed_answers(schema, tasks)
    data = learning_set(schema, images, votes, rule, weights, most_unlabelled)
    if most_unlabelled and not data.counts.get("unlabelled"):
        raise TrainingRefused(NONE_UNLABELLED)
    notes = [
        *weight_notes(weights, voters),
        *self_agreement_notes(himself),
        *changed_notes(changed),
    ]
    facts = {
        "split": asdict(rule),
        "votes": len(votes),
        "annotators": len(voters),
        "annotator_weights": {who: weight for who, weight in weights.items() if who in voters},
        "agreement": agreement(schema, votes),
        "self_agreement": himself,
        "changed_answers": changed,
        "vote_notes": notes,
        "share_with_suggestion_shown": float(votes["suggestion_shown"].mean()) if len(votes) else 0,
    }
    return data, facts


def _most_unlabelled(encoder: str | Path | None, settings: FitSettings | None) -> int:
    """None where they would teach nothing: an untrained network has nothing to say of images that
    nobody labelled, and heads on frozen features learn nothing from what they said themselves."""
    chosen = settings or FitSettings()
    useless = encoder is None or chosen.untrained or not chosen.fine_tune.epochs
    return 0 if useless else chosen.most_unlabelled


def _training_images(data: LearningSet, manifest: Manifest) -> Manifest:
    taught = set(data.images["image_id"].iloc[data.rows("train")])
    return manifest.select(np.array([i in taught for i in manifest.image_ids], dtype=bool))


def _readable(data: LearningSet, cache: ImageCache) -> LearningSet:
    """The images that are in the cache, in its order."""
    row_of = {image_id: row for row, image_id in enumerate(data.images["image_id"])}
    return data.select(np.array([row_of[i] for i in cache.image_ids], dtype=int))


def _fit(start: Start, data: LearningSet, cache: ImageCache, work_folder: Path) -> Fitted:
    try:
        return fit(
            start.encoder,
            data,
            cache.images,
            cache.log_extents,
            start.settings,
            work_folder,
            _mark(data, start, cache),
            cache.extent_unit,
        )
    except FloatingPointError as error:
        raise TrainingRefused(
            f"{error}, so no version was made. Train again with lower learning rates (now "
            f"{start.settings.fine_tune.encoder_learning_rate:g} for the encoder, "
            f"{start.settings.fine_tune.head_learning_rate:g} for the heads), and look for votes "
            "with absurd numbers"
        ) from error


def _mark(data: LearningSet, start: Start, cache: ImageCache) -> str:
    """What a checkpoint must have been made from to be of use.

    The order of controls and labels too: heads are numbered by it.
    """
    controls = [(name, target.control.labels) for name, target in data.targets.items()]
    parts = (data.fingerprint, start.fingerprint, start.settings, controls, cache.extent_unit)
    digest = hashlib.sha256(repr(parts).encode())
    digest.update(np.ascontiguousarray(cache.log_extents).tobytes())
    return digest.hexdigest()


def _decide(registry: Registry, candidate: Answered, manifest: Manifest) -> Promotion:
    """Compare with the live version on today's held-out images."""
    progress.report("compare with the live version", 0, 1)
    heldout = candidate.data.rows("test")
    ours = candidate.answers(heldout)
    theirs: dict[str, np.ndarray] | None = None
    live = registry.live
    notes: list[str] = []
    data = candidate.data.select(heldout)
    if live is not None:
        try:
            answered = answer(TraitModel.load(live.folder), data, manifest)
        except ModelError as error:
            notes.append(f"the live version {live.name} cannot be loaded: {error}")
            theirs = {}
        else:
            data, ours = _shared(answered, data, ours)
            theirs = answered.answers()
            unserved = {k: v for k, v in answered.unfit.items() if v != NOT_LEARNED}
            notes += [f"live version, control {k!r}: {v}" for k, v in unserved.items()]
    units = data.images["split_key"].to_numpy(dtype=str)
    promotion = decide(ours, theirs, data.targets, units)
    promotion.notes.extend(notes)
    progress.report("compare with the live version", 1, 1)
    return promotion


def _shared(
    live: Answered, data: LearningSet, ours: dict[str, np.ndarray]
) -> tuple[LearningSet, dict[str, np.ndarray]]:
    """The images both versions could read, in the order of the live version's answers."""
    row_of = {image_id: row for row, image_id in enumerate(data.images["image_id"])}
    rows = np.array([row_of[i] for i in live.data.images["image_id"]], dtype=int)
    return data.select(rows), {name: chosen[rows] for name, chosen in ours.items()}
