"""The live model of each project in this process: loaded when first asked, and again when promoted.

Every worker of the web server looks at `live.json` at each request, so a promotion reaches all of
them without a restart.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from label_studio_config.home import Home, ImageResolver
from label_studio_config.manifest import Manifest, pixel_size
from label_studio_config.schema import LabelSchema
from ml_backend.model import TraitModel
from ml_backend.predict_pieces import extractor_of, predict_in_pieces
from ml_backend.registry import ModelVersion, Registry
from simclr.inference import FeatureExtractor

logger = logging.getLogger(__name__)

MODELS_KEPT = 4
FEW_IMAGES = 400
"""Up to these a call is answered before the encoder is made ready for many."""
REASONS_LOGGED = 20


class LiveModel:
    """A loaded version.

    Attributes
    ----------
    version : ModelVersion
    model : TraitModel
        In evaluation mode.
    """

    def __init__(self, version: ModelVersion) -> None:
        self.version = version
        self.model = TraitModel.load(version.folder)
        self._extractors: dict[bool, FeatureExtractor] = {}
        self._making = threading.Lock()

    @property
    def schema(self) -> LabelSchema:
        """The labeling config that the version was trained for."""
        return self.model.schema

    def suggest(
        self, tasks: Sequence[Mapping[str, Any]], schema: LabelSchema, home: Home
    ) -> list[dict[str, Any] | None]:
        """Suggestions for tasks, in their order; None where the image cannot be read.

        Parameters
        ----------
        tasks : sequence of dict
            With `id` and `data`.
        schema : LabelSchema
            The project's config as it is now, for which the results are valid.
        home : Home
            Says where images may lie.

        Returns
        -------
        list of dict
            `{"result", "score", "model_version"}` as Label Studio takes it.
        """
        suggested = dict(self.suggest_many(find_images(tasks, schema, home), schema))
        return [suggested.get(row) for row in range(len(tasks))]

    def suggest_many(
        self, images: TaskImages, schema: LabelSchema, tasks_a_piece: int | None = None
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """The same one by one, with the task's place among them, while others are at work."""
        manifest = images.manifest
        _log_refused(images.refused)
        pieces = predict_in_pieces(
            self.model,
            manifest,
            tasks_a_piece or max(len(manifest), 1),
            schema=schema,
            model_version=self.version.name,
            extractor=partial(self._extractor, many=len(manifest) > FEW_IMAGES),
        )
        for predictions in pieces:
            _log_refused([f"{skip.path}: {skip.reason}" for skip in predictions.skipped])
            for row, suggestion in predictions.suggestions().items():
                # A config none of whose controls the model knows gets nothing, not an empty
                # suggestion.
                if suggestion["result"]:
                    yield int(row), suggestion

    def _extractor(self, many: bool) -> FeatureExtractor:
        # Two at once would trace the same network, which PyTorch does not allow.
        with self._making:
            if many not in self._extractors:
                self._extractors[many] = extractor_of(self.model, "auto" if many else "torch")
            return self._extractors[many]


class LiveModels:
    """Live models by project; safe to share between threads.

    Parameters
    ----------
    home : Home
    """

    def __init__(self, home: Home) -> None:
        self.home = home
        self._models: OrderedDict[int, LiveModel] = OrderedDict()
        self._lock = threading.Lock()
        self._loading: dict[int, threading.Lock] = {}

    def get(self, project_id: int) -> LiveModel | None:
        """The live model of a project; None before the first promotion.

        A version that cannot be loaded is logged, and the one before it, if it is still loaded,
        goes on answering.
        """
        registry = Registry(self.home.models_folder(project_id))
        known = self._known(project_id)
        try:
            version = registry.live
        except ValueError as error:
            logger.error("project %d: %s", project_id, error)
            return known
        if version is None:
            return None
        if known is not None and known.version.name == version.name:
            return known
        return self._load(project_id, version)

    def _known(self, project_id: int) -> LiveModel | None:
        with self._lock:
            model = self._models.get(project_id)
            if model is not None:
                self._models.move_to_end(project_id)
            return model

    def _load(self, project_id: int, version: ModelVersion) -> LiveModel | None:
        with self._lock:
            loading = self._loading.setdefault(project_id, threading.Lock())
        with loading:
            known = self._known(project_id)
            if known is not None and known.version.name == version.name:
                return known
            try:
                model = LiveModel(version)
            except Exception:  # whatever a damaged file makes its reader raise
                logger.exception("project %d: %s cannot be loaded", project_id, version.name)
                return known
            with self._lock:
                self._models[project_id] = model
                self._models.move_to_end(project_id)
                while len(self._models) > MODELS_KEPT:
                    self._models.popitem(last=False)
            logger.info("project %d: %s loaded", project_id, version.name)
            return model


@dataclass(frozen=True)
class TaskImages:
    """The images of some tasks.

    Attributes
    ----------
    manifest : Manifest
        Those that are there, with the task's place as `image_id`.
    refused : list of str
        Why the others are not.
    """

    manifest: Manifest
    refused: list[str]


def find_images(tasks: Sequence[Mapping[str, Any]], schema: LabelSchema, home: Home) -> TaskImages:
    """Look for the images of tasks (with `id` and `data`) below the images root."""
    rows: list[tuple[str, str, float | None]] = []
    refused = []
    resolve = ImageResolver(home.images_root)
    for row, task in enumerate(tasks):
        data = task["data"]
        try:
            address = data.get(schema.image_key)
            if not isinstance(address, str) or not address:
                raise ValueError(f"its data has no image in {schema.image_key!r}")
            path = os.fspath(resolve(address))
            if not os.path.isfile(path):
                raise ValueError(f"{path} is not there")
        except ValueError as error:
            refused.append(f"task {task.get('id')}: {error}")
            continue
        size_um = pixel_size(data.get("pixel_size_um"))
        rows.append((str(row), path.removeprefix("/"), size_um))
    table = pd.DataFrame(rows, columns=["image_id", "path", "pixel_size_um"])
    return TaskImages(Manifest(table, Path("/")), refused)


def _log_refused(reasons: list[str]) -> None:
    for reason in reasons[:REASONS_LOGGED]:
        logger.warning("no suggestion: %s", reason)
    if len(reasons) > REASONS_LOGGED:
        logger.warning("no suggestion for %d more tasks", len(reasons) - REASONS_LOGGED)
