"""Fills the gallery's index of a project that has no tasks, as `map_page.py` needs it.

Run inside the server's environment. A hundredth of the images is blind.
"""

from __future__ import annotations

import sys

import numpy as np

from benchmarks.gallery_fill import LABELS, VERSION

CHUNK = 20_000


def label_numbers(n: int, rng: np.random.Generator) -> np.ndarray:
    """A label of each of n images, as skewed as in nature."""
    return np.minimum(rng.zipf(1.3, n) - 1, len(LABELS) - 1)


def fill(project_id: int, n: int) -> None:
    """Rows of n tasks, each with a suggestion of `VERSION`."""
    import django

    django.setup()
    from projects.models import Project

    from label_studio_config.plugin.gallery_catch_up import catch_up
    from label_studio_config.plugin.models import Crop, SuggestedLabel, SuggestionList

    project = Project.objects.get(id=project_id)
    project.model_version = VERSION
    project.save(update_fields=["model_version"])
    catch_up(project)
    rng = np.random.default_rng(0)
    label, sure = label_numbers(n, rng), rng.beta(4, 1, n).round(4)
    common = {"project_id": project_id, "model_version": VERSION, "control": "group"}
    common["list_id"] = SuggestionList.objects.create(**common).id
    for start in range(0, n, CHUNK):
        numbers = range(start, min(n, start + CHUNK))
        crops = [
            Crop(task_id=i + 1, project_id=project_id, suggested=1, blind=i % 100 == 0)
            for i in numbers
        ]
        Crop.objects.bulk_create(crops, batch_size=2000)
        rows = [
            SuggestedLabel(
                label=LABELS[label[i]],
                confidence=sure[i],
                task_id=i + 1,
                prediction_id=i + 1,
                **common,
            )
            for i in numbers
        ]
        SuggestedLabel.objects.bulk_create(rows, batch_size=2000)


if __name__ == "__main__":
    fill(*map(int, sys.argv[1:]))
