"""What the heads of a model see of many images, once the encoder has looked at them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from hpc_jobs import progress
from ml_backend.model import TraitModel

DESCRIBE_BATCH = 256


@torch.inference_mode()
def describe(
    model: TraitModel, images: np.ndarray, log_extents: np.ndarray, rows: np.ndarray
) -> Tensor:
    """The heads' inputs of some images, (n, d) over all rows; zeros elsewhere."""
    model.eval()
    inputs = torch.zeros(len(images), len(model.input_mean))
    for start in range(0, len(rows), DESCRIBE_BATCH):
        batch = rows[start : start + DESCRIBE_BATCH]
        pixels, extents = torch.from_numpy(images[batch]), torch.from_numpy(log_extents[batch])
        inputs[batch] = model.describe(pixels, extents)
        progress.report("describe images", start + len(batch), len(rows))
    return inputs
