"""A model taught once more by other images, in the way that the validation side has chosen."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ml_backend.cross_fit import Outputs
from ml_backend.describe import describe
from ml_backend.fine_tune import FineTune, FineTuneSettings
from ml_backend.fit_heads import image_weights
from ml_backend.model import TraitModel
from ml_backend.refit import refit_heads
from ml_backend.targets import LearningSet


@dataclass(frozen=True)
class Teacher:
    """The chosen way to teach: heads on frozen features, then the whole network or not.

    Attributes
    ----------
    start : TraitModel
        With heads on its frozen encoder; it stays as it is.
    inputs : Tensor, shape (n, d)
        What these heads see of all images.
    images : uint8 array (n, c, s, s)
    log_extents : float32 array (n, 2)
    penalties : mapping
        Of the heads, by control.
    balance : float
        See `image_weights`.
    fine_tune : FineTuneSettings or None
        Of the whole network; None leaves the encoder frozen.
    seed : int
    """

    start: TraitModel
    inputs: Tensor
    images: np.ndarray
    log_extents: np.ndarray
    penalties: Mapping[str, float]
    balance: float
    fine_tune: FineTuneSettings | None
    seed: int

    def teach(self, data: LearningSet, folder: Path, mark: str) -> TraitModel:
        """Return a model that the training side taught.

        Parameters
        ----------
        folder, mark
            Where the checkpoint is, and what it must belong to: a run that was killed goes on.

        Raises
        ------
        FloatingPointError
            The loss, or a weight, is no number any more.
        """
        model = deepcopy(self.start)
        refit_heads(model, data, self.inputs, self.penalties, self.balance)
        if self.fine_tune is not None:
            drawn = image_weights(data, data.rows("train"), self.balance)
            FineTune(
                *(model, data, self.images, self.log_extents, drawn, self.fine_tune),
                *(folder, mark, self.seed),
            ).run()
        require_finite(model)
        return model

    def describe(self, model: TraitModel, rows: np.ndarray) -> Tensor:
        """What the heads of such a model see of some images, (n, d); nothing is said of others."""
        if self.fine_tune is None:
            return self.inputs
        return describe(model, self.images, self.log_extents, rows)

    def judge(self, data: LearningSet, folder: Path, mark: str) -> Outputs:
        """Return what such a model says of the validation side: outputs (m, k) by control."""
        model, rows = self.teach(data, folder, mark), data.rows("validation")
        return model.logits(self.describe(model, rows)[rows])


def require_finite(model: TraitModel) -> None:
    """Raise FloatingPointError where a weight is no number."""
    if not all(bool(torch.isfinite(tensor).all()) for tensor in model.state_dict().values()):
        raise FloatingPointError("a weight of the fitted model is no number")
