"""Counts that tell nobody what the model says of a blind image.

A blind image is worth nothing as a yardstick to whoever knows the model's answer, and counts by a
column with few images a group would tell it. So of blind images only what people said is counted;
their predictions serve together, to tell how wrong the model is. Those that nobody judged are
shared out among the labels as the other images of their group are, which widens the intervals. Of a
control that is not asked of every image they are left out.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pandas as pd

from label_studio_config.words import counted
from ml_backend.quantify import QuantifyError
from ml_backend.quantify_predicted import Predicted, asked_of_none
from ml_backend.quantify_read import Validated, without


@dataclass(frozen=True)
class Hidden:
    """Predictions of which those of blind images are not to be counted.

    Attributes
    ----------
    predicted, validated
        Less the images that are left out.
    blind : bool array (n,)
        Which of the predicted images are blind.
    notes : list of str
        What was done, for people.
    """

    predicted: Predicted
    validated: Validated | None
    blind: np.ndarray
    notes: list[str]


def hide_blind(
    predicted: Predicted, validated: Validated | None, blind: Collection[str], always_asked: bool
) -> Hidden:
    """Mark the predictions of blind images; leave out those that would tell by being there.

    Parameters
    ----------
    blind : their image ids
    always_asked : whether the control is asked of every image. Where it is not, that the model asks
        it of a blind image is its word as well: only those that people answered it for are counted,
        and what is said is the same whether it asks it of others or not.

    Raises
    ------
    QuantifyError
        Nothing is left to count.
    """
    is_blind = pd.Index(predicted.image_ids).isin(list(blind))
    judged = np.zeros(len(is_blind), dtype=bool)
    if validated is not None:
        judged[validated.rows] = True
    n_open = int((is_blind & ~judged).sum())
    if always_asked or not blind:
        return Hidden(predicted, validated, is_blind, _shared_out(n_open) if n_open else [])
    kept = ~is_blind | judged
    if not kept.any():
        raise QuantifyError(asked_of_none(predicted.control))
    predicted, validated = without(predicted, validated, ~kept)
    return Hidden(predicted, validated, is_blind[kept], [_LEFT_OUT])


def _shared_out(n_open: int) -> list[str]:
    were = "was" if n_open == 1 else "were"
    return [
        f"{counted(n_open, 'blind image')} {were} not judged by anybody yet. What the model says "
        "of blind images is not used, so that nobody who is to judge them can read it here: they "
        "are shared out among the labels as the other images of their group are, and the intervals "
        "are wider for it. That is right where the blind images were drawn at random; if somebody "
        "picked them, judge them first."
    ]


_LEFT_OUT = (
    "Blind images for which people did not answer this question are left out: that the model asks "
    "it of them would tell what it takes them for."
)
