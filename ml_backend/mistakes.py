"""The held-out images on which a version was wrong and most sure of itself."""

from __future__ import annotations

from typing import Any

import numpy as np

from label_studio_config.manifest import Manifest
from ml_backend.evaluate import modal_labels
from ml_backend.measure import Answered

MOST = 24


def most_confident_mistakes(
    answered: Answered, rows: np.ndarray, manifest: Manifest, most: int = MOST
) -> dict[str, list[dict[str, Any]]]:
    """Per control the images where the answer was wrong, the surest first; of numbers the farthest.

    Parameters
    ----------
    rows : int array
        Of the images to look among.
    manifest : Manifest
        Says where each image is.

    Returns
    -------
    dict
        By control a list of image_id, path, truth, said, and confidence (None for a number). For
        "any of" one entry a label that was wrong, as "dark" or "not dark".
    """
    path_of = {
        image_id: str(path)
        for image_id, path in zip(manifest.image_ids, manifest.paths, strict=True)
    }
    image_ids = list(answered.data.images["image_id"])
    found = {}
    for name in answered.values:
        known = rows[answered.data.targets[name].known[rows]]
        kind = answered.data.targets[name].control.kind
        wrong = _WRONG[kind](answered, name, known)
        wrong = sorted(wrong, key=lambda entry: -entry[0])[:most]
        found[name] = [
            {
                "image_id": image_ids[row],
                "path": path_of.get(image_ids[row]),
                "truth": truth,
                "said": said,
                "confidence": None if kind == "number" else sure,
            }
            for sure, row, truth, said in wrong
        ]
    return found


Wrong = list[tuple[float, int, Any, Any]]
"""How sure (or how far off), the row, the truth, and what was said."""


def _one_of(answered: Answered, name: str, rows: np.ndarray) -> Wrong:
    target = answered.data.targets[name]
    labels, shares = target.control.labels, target.shares[rows]
    said = answered.chosen[name][rows].argmax(axis=1)
    modal = modal_labels(shares)
    wrong = np.flatnonzero(~modal[np.arange(len(rows)), said])
    return [
        (
            float(answered.values[name][rows[i], said[i]]),
            int(rows[i]),
            " or ".join(labels[k] for k in np.flatnonzero(modal[i])),
            labels[said[i]],
        )
        for i in wrong
    ]


def _any_of(answered: Answered, name: str, rows: np.ndarray) -> Wrong:
    target = answered.data.targets[name]
    labels, there = target.control.labels, target.shares[rows] >= 0.5
    chosen, values = answered.chosen[name][rows], answered.values[name][rows]
    return [
        (
            float(values[i, k] if chosen[i, k] else 1.0 - values[i, k]),
            int(rows[i]),
            labels[k] if there[i, k] else f"not {labels[k]}",
            labels[k] if chosen[i, k] else f"not {labels[k]}",
        )
        for i, k in np.argwhere(there != chosen)
    ]


def _number(answered: Answered, name: str, rows: np.ndarray) -> Wrong:
    truth = answered.data.targets[name].shares[rows, 0]
    said = answered.values[name][rows, 0]
    return [
        (float(abs(s - t)), int(row), float(t), float(s))
        for row, t, s in zip(rows, truth, said, strict=True)
    ]


_WRONG = {"one of": _one_of, "any of": _any_of, "number": _number}
