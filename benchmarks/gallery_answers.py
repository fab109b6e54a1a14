"""Answers of several people to a third of a project's tasks, as rows of Label Studio (annotations).

Each of them has answered as many. One in twenty answers corrects the suggestion; to one in fifty
tasks that have an answer a second person has given one too, and every other time another one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from projects.models import Project
    from tasks.models import Annotation, Prediction, Task
    from tasks.serializers import PredictionSerializer

ANSWERED = 1 / 3
CORRECTED = 1 / 20
TWICE = 1 / 50


def answer(
    project: Project,
    tasks: Sequence[Task],
    predictions: Mapping[int, Prediction],
    people: Sequence[int],
    labels: Sequence[str],
    rng: np.random.Generator,
) -> None:
    """Save answers to some of the tasks, with all that Label Studio counts.

    Parameters
    ----------
    predictions : by task; a task without one gets any label, as one that is blind does
    people : ids of users
    """
    from tasks.models import Annotation, Task

    from label_studio_config.schema import LabelSchema

    schema = LabelSchema.from_xml(project.label_config)
    saved: list[Annotation] = []
    times: dict[int, list[int]] = {1: [], 2: []}
    for task in tasks:
        if rng.random() >= ANSWERED:
            continue
        first = int(rng.integers(len(people)))
        shown = predictions.get(task.id)
        suggested = _label(shown) if shown is not None else str(rng.choice(labels))
        label = _other(suggested, labels, rng) if rng.random() < CORRECTED else suggested
        said = [label]
        if len(people) > 1 and rng.random() < TWICE:
            said.append(_other(label, labels, rng) if rng.random() < 0.5 else label)
        times[len(said)].append(task.id)
        saved += [
            _annotation(project, task, people[(first + turn) % len(people)], one, shown, schema)
            for turn, one in enumerate(said)
        ]
    Annotation.objects.bulk_create(saved, batch_size=500)
    for count, ids in times.items():
        Task.objects.filter(id__in=ids).update(total_annotations=count, is_labeled=True)
    project.summary.update_created_annotations_and_labels(saved)


def _annotation(
    project: Project,
    task: Task,
    person: int,
    label: str,
    shown: Prediction | None,
    schema: Any,
) -> Annotation:
    """As the gallery saves it where the suggestion was on the screen."""
    from tasks.models import Annotation

    from label_studio_config.results import write_result

    return Annotation(
        task=task,
        project=project,
        completed_by_id=person,
        updated_by_id=person,
        result=write_result(schema, {"group": label}),
        result_count=1,
        lead_time=1.5,
        prediction=dict(_serializer().to_representation(shown)) if shown else {},
        parent_prediction=shown,
    )


@cache
def _serializer() -> PredictionSerializer:
    """The editor's own copy of a prediction."""
    from tasks.serializers import PredictionSerializer

    return PredictionSerializer()


def _label(shown: Prediction) -> str:
    return str(shown.result[0]["value"]["choices"][0])


def _other(label: str, labels: Sequence[str], rng: np.random.Generator) -> str:
    return str(rng.choice([one for one in labels if one != label]))
