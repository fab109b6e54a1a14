"""From annotated images to a TraitModel: heads, the whole network, calibration."""

from __future__ import annotations

import logging
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hpc_jobs import progress
from ml_backend.calibrate_head import calibrate_head
from ml_backend.fine_tune import FineTune, FineTuneSettings, settle_batch_norm
from ml_backend.fit_heads import (
    fit_heads,
    image_weights,
    make_heads,
    set_priors,
    tempered_loss,
)
from ml_backend.model import TraitModel
from ml_backend.novelty import Novelty
from ml_backend.refit import refit_heads
from ml_backend.targets import LearningSet
from simclr.encoder import Encoder

logger = logging.getLogger(__name__)

DESCRIBE_BATCH = 256
FROZEN = "heads on frozen features"


@dataclass(frozen=True)
class FitSettings:
    """How a model is fitted.

    Attributes
    ----------
    balance : float
        0 draws training images as they come, 1 every label of a one-of control equally often.
    choice_balance : float
        How far suggestions lean to what is rare: see `Head`.
    views : int
        Turns of an image over which features are averaged, when predicting too.
    min_images : int
        Training images with votes that a control needs to get a head.
    refit_below : int
        With fewer images than this on the training and validation sides together, heads on frozen
        features learn from both, once the validation side has chosen.
    untrained : bool
        The encoder has not seen an image yet.
    use_size : bool
        Heads learn from the extent of the image beside its features; False for a comparison, or
        where extents say nothing (crops of one fixed size).
    fine_tune : FineTuneSettings
    """

    balance: float = 0.5
    choice_balance: float = 0.5
    views: int = 4
    min_images: int = 10
    seed: int = 0
    refit_below: int = 1000
    untrained: bool = False
    use_size: bool = True
    fine_tune: FineTuneSettings = field(default_factory=FineTuneSettings)


FROM_SCRATCH = FitSettings(
    untrained=True,
    fine_tune=FineTuneSettings(epochs=30, encoder_learning_rate=2e-3, head_learning_rate=2e-3),
)


@dataclass(frozen=True)
class Fitted:
    """A fitted model, and what to know of how it came about.

    Attributes
    ----------
    left_out : dict
        Reason by control that got no head.
    penalties : dict
        Of the heads on frozen features, by control.
    trained : str
        What was best on the validation side: "heads on frozen features" or "the whole network".
    refitted : bool
        Whether the validation images taught too, at the end.
    """

    model: TraitModel
    left_out: dict[str, str]
    penalties: dict[str, float]
    trained: str
    refitted: bool = False


def fit(
    encoder: Encoder,
    data: LearningSet,
    images: np.ndarray,
    log_extents: np.ndarray,
    settings: FitSettings,
    folder: Path,
    mark: str,
    extent_unit: str = "px",
) -> Fitted:
    """Fit a model on the training side; temperatures and choices on the validation side.

    Test and blind images are not touched.

    Parameters
    ----------
    images : uint8 array (n, c, s, s)
        Rows as in `data`, preprocessed as the encoder asks.
    log_extents : float32 array (n, 2)
        In `extent_unit`.
    folder, mark
        Where the checkpoint is, and what it must belong to.

    Raises
    ------
    TrainingRefused
        No control can be learned yet.
    FloatingPointError
        The loss is no number any more: nothing that came of it may serve.
    """
    torch.manual_seed(settings.seed)
    if not settings.use_size:  # what never changes gets no weight, so nothing changes it later
        log_extents = np.zeros_like(log_extents)
    heads, left_out = make_heads(data, settings.min_images)
    heads = [replace(head, choice_balance=settings.choice_balance) for head in heads]
    model = TraitModel(encoder, heads, data.schema, settings.views, extent_unit)
    weights = image_weights(data, data.rows("train"), settings.balance)
    if settings.untrained:
        settle_batch_norm(model, images, data.rows("train"))
    set_priors(model, data, data.rows("train"), weights)
    inputs = describe(model, images, log_extents, data.rows("train", "validation"))
    model.fit_inputs(inputs[data.rows("train")])
    penalties = fit_heads(model, data, inputs, weights)
    chosen = FROZEN
    if settings.fine_tune.epochs:
        before = deepcopy(model.state_dict())
        loss = validation_loss(model, data, inputs)
        if not np.isfinite(loss):
            raise FloatingPointError(f"the loss of the heads on validation images is {loss}")
        run = FineTune(
            model,
            data,
            images,
            log_extents,
            weights,
            settings.fine_tune,
            folder,
            mark,
            settings.seed,
        )
        run.run()
        tuned = describe(model, images, log_extents, data.rows("train", "validation"))
        tuned_loss = validation_loss(model, data, tuned)
        logger.info("validation loss %.3f with heads only, %.3f fine-tuned", loss, tuned_loss)
        if not np.isfinite(tuned_loss) or tuned_loss > loss:
            model.load_state_dict(before)
        else:
            inputs, chosen = tuned, "the whole network"
    if not all(bool(torch.isfinite(tensor).all()) for tensor in model.state_dict().values()):
        raise FloatingPointError("a weight of the fitted model is no number")
    calibrate_heads(model, data, inputs)
    few = len(data.rows("train", "validation")) < settings.refit_below
    refitted = few and chosen == FROZEN
    if refitted:
        refit_heads(model, data, inputs, penalties, settings.balance)
    embedding = inputs[:, : encoder.feature_count].numpy()
    model.novelty = Novelty.fit(
        embedding[data.rows("train")], embedding[data.rows("validation")], settings.seed
    )
    return Fitted(model.eval(), left_out, penalties, chosen, refitted)


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


@torch.no_grad()
def validation_loss(model: TraitModel, data: LearningSet, inputs: Tensor) -> float:
    """Mean over heads of the loss on the validation side, tempered as it will serve; 0 without."""
    rows = data.rows("validation")
    outputs = model.classify(inputs[rows])
    losses = []
    for head in model.heads:
        target = data.targets[head.control].take(rows)
        if target.known.any():
            logits = outputs[head.control].numpy()[target.known]
            losses.append(tempered_loss(head, logits, target.shares[target.known]))
    return float(np.mean(losses)) if losses else 0.0


@torch.no_grad()
def calibrate_heads(model: TraitModel, data: LearningSet, inputs: Tensor) -> None:
    """Fit each head's temperature, or a number's interval, on the validation side."""
    rows = data.rows("validation")
    units = data.images["split_key"].to_numpy(dtype=str)[rows]
    outputs = model.classify(inputs[rows])
    for head in model.heads:
        target = data.targets[head.control].take(rows)
        logits = outputs[head.control].numpy()[target.known]
        shares = target.shares[target.known].astype(float)
        model.set_head(calibrate_head(head, logits, shares, units[target.known]))
