"""Learn from images that nobody labelled: the heads on frozen features teach the whole network.

The last step of SimCLRv2 (Chen et al. 2020, arXiv 2006.10029): features learned without labels,
heads from few labels, and then a student that sees every image, labelled or not, through
augmentations, and is to answer on the others what the heads said of them (soft, not the most
probable label alone). As "noisy student" (Xie et al. 2020, arXiv 1911.04252) the student is
disturbed and the teacher is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import compress

import numpy as np
from torch import Tensor

from label_studio_config.results import is_asked
from label_studio_config.schema import LabelSchema
from ml_backend.calibrate import calibrated
from ml_backend.head import Head
from ml_backend.model import TraitModel
from ml_backend.targets import ControlTargets, LearningSet


def with_soft_labels(
    model: TraitModel, data: LearningSet, inputs: Tensor, weights: np.ndarray, labelled_share: float
) -> tuple[LearningSet, np.ndarray]:
    """The learning set in which unlabelled images teach what the model says of them.

    Numbers are not guessed, nor is a control answered that the most probable labels of the others
    do not let be asked: an unlabelled image stays masked for them.

    Parameters
    ----------
    model : TraitModel
        With fitted and tempered heads: the teacher.
    inputs : Tensor, shape (n, d)
        As from `TraitModel.describe`, for all rows of `data`.
    weights : float array
        How often each image of the training side is drawn.
    labelled_share : float
        Share of the draws that are images with votes.

    Returns
    -------
    taught : LearningSet
        Unlabelled images are on its training side, with the probabilities at the prior that the
        heads were taught at.
    weights : float array
        One an image of the training side of `taught`, mean 1. Unlabelled images are drawn as often
        as if their labels were known, and rare ones drawn more often, as with votes.
    """
    rows = data.rows("unlabelled")
    outputs = model.classify(inputs[rows])
    heads = {head.control: head for head in model.heads if head.kind != "number"}
    logits = {name: outputs[name].detach().numpy() for name in heads}
    natural = {name: head.answer(logits[name]) for name, head in heads.items()}
    asked = _asked(data.schema, heads, natural)
    targets = dict(data.targets)
    for name, head in heads.items():
        soft = calibrated(head.kind, logits[name], head.temperature, head.offsets())
        targets[name] = _filled(targets[name], rows[asked[name]], soft[asked[name]])
    sought = [
        head.prior_weights(natural[name])[:, 0]
        for name, head in heads.items()
        if head.kind == "one of"
    ]
    frequency = np.mean(sought, axis=0) if sought else np.ones(len(rows))
    sides = data.images["side"].replace("unlabelled", "train")
    taught = replace(data, images=data.images.assign(side=sides), targets=targets)
    drawn = np.zeros(len(data))
    drawn[data.rows("train")] = labelled_share * weights / weights.sum()
    drawn[rows] = (1 - labelled_share) * frequency / frequency.sum()
    drawn = drawn[taught.rows("train")]
    return taught, drawn / drawn.mean()


def _asked(
    schema: LabelSchema, heads: Mapping[str, Head], natural: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """By control, whether its conditions hold for the most probable labels, bool (n,)."""
    chosen = {
        name: p == p.max(axis=1, keepdims=True) if heads[name].kind == "one of" else p >= 0.5
        for name, p in natural.items()
    }
    labels = [
        {name: tuple(compress(heads[name].labels, picked[row])) for name, picked in chosen.items()}
        for row in range(len(next(iter(chosen.values()), [])))
    ]
    return {
        name: np.array(
            [is_asked(schema, schema.control(name), said) for said in labels], dtype=bool
        )
        for name in heads
    }


def _filled(target: ControlTargets, rows: np.ndarray, shares: np.ndarray) -> ControlTargets:
    filled, n_votes = target.shares.copy(), target.n_votes.copy()
    filled[rows], n_votes[rows] = shares, 1
    return ControlTargets(target.control, filled, n_votes)
