"""Heads solved anew by other images, once the validation side has chosen how.

With few labels the images of the validation side are often the only ones of a rare label: then the
heads learn from both sides, with the penalty that was chosen. Test and blind images stay out, and
tell how good the result is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from ml_backend.fit_heads import (
    image_weights,
    set_weights,
    solve_path,
    standard_targets,
    with_priors,
)
from ml_backend.head import Head
from ml_backend.model import TraitModel
from ml_backend.targets import LearningSet


def refit_heads(
    model: TraitModel,
    data: LearningSet,
    inputs: Tensor,
    penalties: Mapping[str, float],
    balance: float,
) -> None:
    """Solve every head from the training side.

    Parameters
    ----------
    inputs : Tensor, shape (n, d)
        As from `TraitModel.describe`, for all rows of `data`.
    penalties : mapping
        By control, as `fit_heads` chose them.
    balance : float
        See `image_weights`.
    """
    rows = data.rows("train")
    weights = image_weights(data, rows, balance)
    standard = (inputs - model.input_mean) / model.input_scale
    for head, classifier in zip(model.heads, model.classifiers, strict=True):
        target = data.targets[head.control]
        known = target.known[rows]
        learn, weight = rows[known], weights[known]
        if not len(learn):
            continue
        solution = solve_path(
            head,
            standard[learn],
            standard_targets(head, target.shares[learn]),
            torch.from_numpy(weight).float(),
            (penalties[head.control],),
        )[0]
        set_weights(classifier, solution)
        taught = replace(head, n_images=len(learn))
        if head.kind != "number":
            shares = target.shares[learn].astype(float)
            per_label = tuple(shares.sum(axis=0).round(2).tolist())
            taught = with_priors(replace(taught, n_per_label=per_label), shares, weight)
        model.set_head(taught)


def keep_calibration(head: Head, calibrated: Head) -> Head:
    """The head with temperature, offsets and interval of another."""
    return replace(
        head,
        temperature=calibrated.temperature,
        tempered=calibrated.tempered,
        cross_fitted=calibrated.cross_fitted,
        bias=calibrated.bias,
        sd=calibrated.sd,
        half_width_95=calibrated.half_width_95,
        error_slope=calibrated.error_slope,
    )
