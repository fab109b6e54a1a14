"""Fills a project with phantom tasks, predictions and answers through Django, as many as asked for.

Run inside the server's environment; `gallery_scale.py` does. 121 labels as skewed as in nature,
400 hauls, and every task's data as an import of a cruise's table leaves it.
"""

from __future__ import annotations

import argparse
import datetime
import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.gallery_answers import answer

VERSION = "project-0-v0001"
LABELS = tuple(f"Label {number:03d}" for number in range(121))
HAULS = 400
CHUNK = 10_000
FIRST_DAY = datetime.datetime(2014, 5, 28)


def config() -> str:
    """A labeling config with `LABELS`."""
    choices = "".join(f'<Choice value="{label}"/>' for label in LABELS)
    return (
        '<View><Image name="image" value="$image"/>'
        f'<Choices name="group" toName="image" choice="single">{choices}</Choices></View>'
    )


def task_data(number: int, dice: random.Random, images: int) -> dict[str, Any]:
    """A task's data; the drawn images come again and again."""
    haul = number % HAULS
    captured = FIRST_DAY + datetime.timedelta(seconds=number)
    return {
        "image": f"/data/local-files/?d=crops/{number % images:04d}.png&n={number}",
        "image_id": f"cruise-7/haul-{haul:03d}/crop-{number:07d}.png",
        "sample_id": f"haul-{haul:03d}",
        "captured_at": captured.isoformat() + "Z",
        "depth_m": round(dice.uniform(0, 200), 1),
        "pixel_size_um": 68.0,
        "instrument": "ISIIS",
        "station": f"station {haul % 37}",
        "lat": round(dice.uniform(24, 26), 4),
        "lon": round(dice.uniform(-81, -79), 4),
        "blind": "yes" if dice.random() < 0.01 else "no",
    }


def prediction(number: int, schema: Any, rng: np.random.Generator) -> tuple[list[Any], float]:
    """A result with the probabilities of the five most probable labels, and its score."""
    from label_studio_config.results import write_result

    first = min(int(rng.zipf(1.3)) - 1, len(LABELS) - 1)
    confidence = round(float(rng.beta(4, 1)), 4)
    rest = rng.dirichlet(np.ones(4)) * (1 - confidence)
    others = rng.choice(len(LABELS), 5, replace=False)
    shares = {LABELS[first]: confidence}
    for other, share in zip([o for o in others if o != first], rest, strict=False):
        shares[LABELS[int(other)]] = float(share)
    result = write_result(
        schema,
        {"group": LABELS[first]},
        probabilities={"group": shares},
        novelty=float(rng.beta(1, 6)),
    )
    return result, confidence


def fill(project_id: int, tasks: int, images: int, people: Sequence[int]) -> None:
    """Bulk-create tasks, predictions and answers; the version becomes the project's.

    Parameters
    ----------
    people : ids of the users who answer, as `gallery_answers` says
    """
    import django

    django.setup()
    from projects.models import Project
    from tasks.models import Prediction, Task

    from label_studio_config.schema import LabelSchema

    project = Project.objects.get(id=project_id)
    schema = LabelSchema.from_xml(project.label_config)
    dice, rng = random.Random(0), np.random.default_rng(0)
    for start in range(Task.objects.filter(project=project).count(), tasks, CHUNK):
        made = Task.objects.bulk_create(
            [
                Task(
                    project=project,
                    data=(data := task_data(number, dice, images)),
                    inner_id=number + 1,
                    overlap=1,
                    total_predictions=int(data["blind"] == "no"),
                )
                for number in range(start, min(start + CHUNK, tasks))
            ],
            batch_size=1000,
        )
        rows = []
        for task in made:
            if task.data["blind"] == "yes":
                continue
            result, score = prediction(task.inner_id, schema, rng)
            rows.append(
                Prediction(
                    project=project, task=task, result=result, score=score, model_version=VERSION
                )
            )
        Prediction.objects.bulk_create(rows, batch_size=1000)
        project.summary.update_data_columns(made)
        if people:
            answer(project, made, {row.task_id: row for row in rows}, people, LABELS, rng)
        print(f"{start + len(made)} tasks", flush=True)
    project.model_version = VERSION
    project.save(update_fields=["model_version"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("project", type=int)
    parser.add_argument("tasks", type=int)
    parser.add_argument("images", type=int)
    parser.add_argument("people", type=int, nargs="*", help="ids of the users who answer")
    given = parser.parse_args()
    fill(given.project, given.tasks, given.images, given.people)
