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
    mark : str
        What a checkpoint must have been made from.
    """

    start: TraitModel
    inputs: Tensor
    images: np.ndarray
    log_extents: np.ndarray
    penalties: Mapping[str, float]
    balance: float
    fine_tune: FineTuneSettings | None
    mark: str
    seed: int

    def teach(self, data: LearningSet, folder: Path) -> tuple[TraitModel, Tensor]:
        """Return a model that the training side taught, and what its heads see, (n, d).

        Those are of the training and the validation side; zeros elsewhere.

        Parameters
        ----------
        folder : Path
            For the checkpoint: a run that was killed goes on from it.
        """
        model = deepcopy(self.start)
        refit_heads(model, data, self.inputs, self.penalties, self.balance)
        if self.fine_tune is None:
            return model, self.inputs
        drawn = image_weights(data, data.rows("train"), self.balance)
        FineTune(
            *(model, data, self.images, self.log_extents, drawn, self.fine_tune),
            *(folder, self.mark, self.seed),
        ).run()
        rows = data.rows("train", "validation")
        return model, describe(model, self.images, self.log_extents, rows)

    def judge(self, data: LearningSet, folder: Path) -> Outputs:
        """Return what such a model says of the validation side: outputs (m, k) by control."""
        model, inputs = self.teach(data, folder)
        with torch.no_grad():
            outputs = model.classify(inputs[data.rows("validation")])
        return {name: values.numpy() for name, values in outputs.items()}
