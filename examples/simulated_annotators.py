"""Annotators who answer through Label Studio's API as the editor does, from a known truth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import requests

from label_studio_config.results import write_result
from label_studio_config.schema import LabelSchema


@dataclass(frozen=True)
class Annotator:
    """Someone with a token of their own; `error_rate` is how often the group is answered wrong."""

    email: str
    token: str
    error_rate: float = 0.0
    seed: int = 0

    def answer(
        self, schema: LabelSchema, image_id: str, truth: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The truth, or with probability `error_rate` another label for the primary control."""
        values = dict(truth)
        primary = schema.primary
        random = np.random.default_rng([self.seed, *image_id.encode()])
        if primary is not None and primary.name in values and random.random() < self.error_rate:
            others = [label for label in primary.labels if label != values[primary.name]]
            values[primary.name] = others[random.integers(len(others))]
        return values


def annotate(
    label_studio_url: str,
    annotator: Annotator,
    schema: LabelSchema,
    tasks: list[dict[str, Any]],
    truth: Mapping[str, Mapping[str, Any]],
    *,
    threads: int = 4,
    on_answer: Callable[[int], None] | None = None,
) -> int:
    """Submit one annotation a task, each as this annotator; returns how many were submitted.

    Parameters
    ----------
    tasks
        Tasks with `id` and `data.image_id`; those without a truth are passed over.
    truth
        By image id, values by control.
    on_answer
        Called with the number of answers so far.

    Raises
    ------
    requests.HTTPError
        Label Studio refused an annotation.
    """
    session = requests.Session()
    session.trust_env = False  # a proxy named in the environment must not see the token
    session.headers["Authorization"] = f"Token {annotator.token}"

    def submit(task: dict[str, Any]) -> None:
        image_id = task["data"]["image_id"]
        result = write_result(schema, annotator.answer(schema, image_id, truth[image_id]))
        answer = session.post(
            f"{label_studio_url}/api/tasks/{task['id']}/annotations/",
            json={"result": result, "lead_time": 2.0},
            timeout=60,
        )
        answer.raise_for_status()

    known = [task for task in tasks if task["data"]["image_id"] in truth]
    with ThreadPoolExecutor(threads) as pool:
        for done, _ in enumerate(pool.map(submit, known), start=1):
            if on_answer is not None:
                on_answer(done)
    return len(known)
