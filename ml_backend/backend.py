"""What the backend does for one project, as a `LabelStudioMLBase` of label-studio-ml.

Its HTTP side is `server.py`. Nothing here waits for a training: that is a job of its own process.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections.abc import Sequence
from typing import Any

import hpc_jobs
from label_studio_config.home import Home
from label_studio_config.schema import LabelSchema
from label_studio_config.votes import is_blind
from ml_backend.annotation_counter import AnnotationCounter
from ml_backend.job_keys import pretrain_key, train_key
from ml_backend.live_model import LiveModels
from ml_backend.registry import Registry, RegistryError
from ml_backend.site_jobs import site_options
from ml_backend.training_jobs import pretrain_project, train_project

# label-studio-ml sets the start method of multiprocessing for the whole process on import.
_start_method = multiprocessing.get_start_method(allow_none=True)
from label_studio_ml.model import LabelStudioMLBase  # noqa: E402

multiprocessing.set_start_method(_start_method, force=True)

logger = logging.getLogger(__name__)

TRAIN_EVERY_VARIABLE = "PLANKTRAIT_TRAIN_EVERY"
TRAIN_EVERY = 50
START_TRAINING = "START_TRAINING"
COUNTED_EVENTS = frozenset({"ANNOTATION_CREATED", "ANNOTATIONS_CREATED"})

Suggestion = dict[str, Any]


class PlanktraitBackend(LabelStudioMLBase):
    """Suggests labels for the tasks of one project, and starts its trainings.

    Parameters
    ----------
    home : Home
    project_id : int
    live_models : LiveModels
        Shared by all projects of a process.
    label_config : str, optional
        The project's labeling config as it is now; by default the one the model was trained for.
    """

    def __init__(
        self,
        home: Home,
        project_id: int,
        live_models: LiveModels,
        label_config: str | None = None,
    ) -> None:
        # The base class would parse the config with its own parser; ours knows more.
        super().__init__()
        self.label_config = label_config
        self.home = home
        self.project_id = project_id
        self.live_models = live_models

    @property
    def live_version(self) -> str:
        """Name of the live version, "" before the first. Reads one small file."""
        try:
            record = Registry(self.home.models_folder(self.project_id)).live_record
        except RegistryError as error:
            logger.error("project %d: %s", self.project_id, error)
            return ""
        return str(record.get("version", ""))

    @property
    def versions(self) -> list[str]:
        """Names of all versions, newest first."""
        registry = Registry(self.home.models_folder(self.project_id))
        return [version.name for version in reversed(registry.list())]

    def predict(
        self, tasks: Sequence[dict[str, Any]], context: dict[str, Any] | None = None, **kwargs: Any
    ) -> list[Suggestion | list[Any]]:
        """Suggest labels: one answer a task, in their order.

        Returns
        -------
        list
            `{"result", "score", "model_version"}` or, where there is nothing to suggest (no model
            yet, blind, unreadable, outside the images root), `[]`, which Label Studio does not
            save. The reason is logged.
        """
        answers: list[Suggestion | list[Any]] = [[] for _ in tasks]
        live = self.live_models.get(self.project_id)
        if live is None:
            logger.info(
                "project %d: no suggestions for %d tasks: no model is live yet",
                self.project_id,
                len(tasks),
            )
            return answers
        schema = LabelSchema.from_xml(self.label_config) if self.label_config else live.schema
        open_rows = [row for row, task in enumerate(tasks) if not self._is_refused(task)]
        suggestions = live.suggest([tasks[row] for row in open_rows], schema, self.home)
        for row, suggestion in zip(open_rows, suggestions, strict=True):
            if suggestion is not None:
                answers[row] = suggestion
        return answers

    def fit(self, tasks: Any = (), workdir: Any = None, **kwargs: Any) -> dict[str, Any]:
        """Start a training as a job, or have one follow the running one.

        Returns
        -------
        dict
            `job`: its id; `coalesced`: whether the training waits for that job's end.
        """
        self._counter.reset()
        submission = hpc_jobs.submit_once(
            train_project,
            self.home.folder,
            self.project_id,
            name=f"train project {self.project_id}",
            folder=self.home.jobs_folder,
            key=train_key(self.project_id),
            **site_options(self.home, "train"),
        )
        return {"job": submission.job.id, "coalesced": submission.coalesced}

    def pretrain(self, epochs: int | None = None) -> dict[str, Any]:
        """Start learning features from every image of the project, as a job; as `fit`."""
        submission = hpc_jobs.submit_once(
            pretrain_project,
            self.home.folder,
            self.project_id,
            epochs=epochs,
            name=f"pretrain project {self.project_id}",
            folder=self.home.jobs_folder,
            key=pretrain_key(self.project_id),
            **site_options(self.home, "pretrain"),
        )
        return {"job": submission.job.id, "coalesced": submission.coalesced}

    def process_event(
        self, event: str, data: Any, job_id: Any = None, additional_params: Any = None
    ) -> dict[str, Any]:
        """What a webhook asks for: `START_TRAINING` trains, every n-th new annotation too.

        Parameters
        ----------
        event : str
        data : list of dict
            The annotations that the event is about.
        """
        if event == START_TRAINING:
            return self.fit()
        if event in COUNTED_EVENTS:
            # A skipped task comes as an annotation too, and teaches nothing.
            count = sum(not annotation.get("was_cancelled") for annotation in data or ())
            if self._counter.add(count, train_every()):
                logger.info("project %d: training after new annotations", self.project_id)
                return self.fit()
        return {}

    def get_local_path(self, url: str, project_dir: Any = None) -> str:
        """Where an image lies. Unlike the base class, never fetches anything from the network."""
        return str(self.home.resolve_image(url))

    @property
    def _counter(self) -> AnnotationCounter:
        return AnnotationCounter(
            self.home.jobs_folder / ".annotation-counts" / f"project-{self.project_id}"
        )

    def _is_refused(self, task: dict[str, Any]) -> bool:
        if is_blind(task):
            logger.info("task %s: no suggestion: it is blind", task.get("id"))
            return True
        return False


def train_every() -> int:
    """After how many new annotations a training starts; 0 for never."""
    text = os.environ.get(TRAIN_EVERY_VARIABLE, str(TRAIN_EVERY))
    if not text.isdigit():
        logger.warning("%s=%r is not a number: using %d", TRAIN_EVERY_VARIABLE, text, TRAIN_EVERY)
        return TRAIN_EVERY
    return int(text)
