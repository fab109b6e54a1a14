"""From annotated images to a TraitModel: heads, the whole network, calibration."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ml_backend.calibrate import MIN_IMAGES_FOR_TEMPERATURE
from ml_backend.calibrate_head import calibrate_head
from ml_backend.cross_fit import Outputs, cross_fitted_outputs
from ml_backend.describe import describe
from ml_backend.fine_tune import FineTune, FineTuneSettings, settle_batch_norm
from ml_backend.fit_heads import (
    fit_heads,
    image_weights,
    make_heads,
    set_priors,
    tempered_loss,
)
from ml_backend.head import Head
from ml_backend.model import TraitModel
from ml_backend.novelty import Novelty
from ml_backend.refit import keep_calibration
from ml_backend.self_training import with_soft_labels
from ml_backend.targets import LearningSet
from ml_backend.teach import Teacher, require_finite
from simclr.encoder import Encoder

logger = logging.getLogger(__name__)

FROZEN = "heads on frozen features"
WHOLE = "the whole network"
STUDENT = "the whole network, with soft labels of images without votes"
HEADS_ANEW = ", then its heads anew"


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
    cross_fit_below : int, optional
        With fewer images than this on the training and validation sides together, temperatures and
        intervals rest on both: each fifth is judged by a model of the other four, which takes five
        trainings more; None does so with any number. Not where soft labels, or heads fitted anew,
        were better.
    refit_below : int
        With fewer images than this on the training and validation sides together, the model
        learns from both, once the validation side has chosen. On ndsb (21 groups, 1 % of the
        labels, 3 seeds, 4,775 images that are not held out) macro recall rose from .486 to .494,
        the likelihood from 1.40 to 1.34.
    most_unlabelled : int
        Images without votes that help to train the whole network, once heads on frozen features
        have said what may be on them.
    retrain_heads : bool
        Fit the heads anew on the features of the whole network once it is trained (decoupled
        training, Kang et al. 2020, arXiv 1910.09217), and keep them if the validation side does.
    labelled_share : float
        Share of the training draws, then, that are images with votes.
    untrained : bool
        The encoder has not seen an image yet.
    use_size : bool
        Heads learn from the extent of the image beside its features; False for a comparison, or
        where extents say nothing (crops of one fixed size).
    fine_tune : FineTuneSettings
    """

    balance: float = 0.5
    choice_balance: float = 0.5
    views: int = 2
    min_images: int = 10
    seed: int = 0
    cross_fit_below: int | None = 1000
    refit_below: int = 1000
    most_unlabelled: int = 0
    labelled_share: float = 0.25
    retrain_heads: bool = False
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
        What was best on the validation side: `FROZEN`, `WHOLE` or `STUDENT`, or one of the latter
        with its heads fitted anew.
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

    With few labels both sides teach and calibrate, once the validation side has chosen. Test and
    blind images are not touched.

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
    described = data.rows("train", "validation", "unlabelled")
    inputs = describe(model, images, log_extents, described)
    model.fit_inputs(inputs[data.rows("train")])
    penalties = fit_heads(model, data, inputs, weights)
    best = frozen = _Candidate.of(FROZEN, model, data, inputs)
    if not np.isfinite(best.loss):
        raise FloatingPointError(f"the loss of the heads on validation images is {best.loss}")
    if settings.fine_tune.epochs:
        run = (folder, mark)
        for other in _tuned(model, data, images, log_extents, inputs, weights, settings, run):
            logger.info(
                "validation loss %.3f of %s, %.3f of %s",
                *(best.loss, best.trained, other.loss, other.trained),
            )
            best = other if other.loss <= best.loss else best  # never where it is no number
    best.restore(model)
    require_finite(model)
    inputs, chosen = best.inputs, best.trained
    calibrate_heads(model, data, inputs)
    n_images = len(data.rows("train", "validation"))
    again = chosen in (FROZEN, WHOLE)
    refitted = again and n_images < settings.refit_below
    below = settings.cross_fit_below
    cross_fitted = again and (below is None or n_images < below)
    if refitted or cross_fitted:
        start = deepcopy(model)
        frozen.restore(start)
        teacher = Teacher(
            *(start, frozen.inputs, images, log_extents, penalties, settings.balance),
            *(settings.fine_tune if chosen == WHOLE else None, settings.seed),
        )
        everyone, mark = data.all_teach(), f"{mark} {chosen}"
        if refitted:
            model, inputs = _taught_by_both_sides(teacher, model.heads, everyone, folder, mark)
        if cross_fitted:
            outputs = _cross_fitted(teacher, everyone, folder, mark)
            calibrate_by(model, everyone, everyone.rows("train"), outputs, cross_fitted=True)
    embedding = inputs[:, : encoder.feature_count].numpy()
    model.novelty = Novelty.fit(
        embedding[data.rows("train")], embedding[data.rows("validation")], settings.seed
    )
    return Fitted(model.eval(), left_out, penalties, chosen, refitted)


@dataclass(frozen=True)
class _Candidate:
    """A way to answer, remembered until the validation side has chosen."""

    trained: str
    weights: dict[str, Tensor]
    heads: tuple[Head, ...]
    inputs: Tensor
    loss: float

    @classmethod
    def of(cls, trained: str, model: TraitModel, data: LearningSet, inputs: Tensor) -> _Candidate:
        loss = validation_loss(model, data, inputs)
        return cls(trained, deepcopy(model.state_dict()), model.heads, inputs, loss)

    def restore(self, model: TraitModel) -> None:
        model.load_state_dict(self.weights)
        model.heads = self.heads


def _tuned(
    model: TraitModel,
    data: LearningSet,
    images: np.ndarray,
    log_extents: np.ndarray,
    inputs: Tensor,
    weights: np.ndarray,
    settings: FitSettings,
    run: tuple[Path, str],
) -> Iterator[_Candidate]:
    """What comes of the whole network: as it is trained, and with its heads fitted anew."""
    taught, drawn, trained = data, weights, WHOLE
    has_labels = any(head.kind != "number" for head in model.heads)
    if has_labels and len(data.rows("unlabelled")):
        teacher, share = _calibrated(model, data, inputs), settings.labelled_share
        taught, drawn = with_soft_labels(teacher, data, inputs, weights, share)
        trained = STUDENT
    FineTune(
        model, taught, images, log_extents, drawn, settings.fine_tune, *run, settings.seed
    ).run()
    tuned = describe(model, images, log_extents, data.rows("train", "validation"))
    yield _Candidate.of(trained, model, data, tuned)
    if settings.retrain_heads:
        set_priors(model, data, data.rows("train"), weights)
        model.fit_inputs(tuned[data.rows("train")])
        fit_heads(model, data, tuned, weights)
        yield _Candidate.of(trained + HEADS_ANEW, model, data, tuned)


def _cross_fitted(teacher: Teacher, data: LearningSet, folder: Path, mark: str) -> Outputs:
    """What each image's judges say of it; nothing where a fold cannot be taught."""
    try:
        return cross_fitted_outputs(data, teacher.judge, folder, mark)
    except FloatingPointError as error:
        logger.warning("calibrated by the validation side alone, since without a fifth %s", error)
        return {}


def _taught_by_both_sides(
    teacher: Teacher, calibrated: tuple[Head, ...], data: LearningSet, folder: Path, mark: str
) -> tuple[TraitModel, Tensor]:
    """The model that serves, and what its heads see.

    Its calibration is that of the model which the training side alone taught.
    """
    model = teacher.teach(data, folder / "both-sides", mark)
    for head, before in zip(model.heads, calibrated, strict=True):
        model.set_head(keep_calibration(head, before))
    return model, teacher.describe(model, data.rows("train"))


def _calibrated(model: TraitModel, data: LearningSet, inputs: Tensor) -> TraitModel:
    """A copy of the model, calibrated as it would serve."""
    copy = deepcopy(model)
    calibrate_heads(copy, data, inputs)
    return copy


def validation_loss(model: TraitModel, data: LearningSet, inputs: Tensor) -> float:
    """Mean over heads of the loss on the validation side, tempered as it will serve; 0 without."""
    rows = data.rows("validation")
    outputs = model.logits(inputs[rows])
    losses = []
    for head in model.heads:
        target = data.targets[head.control].take(rows)
        if target.known.any():
            logits = outputs[head.control][target.known]
            losses.append(tempered_loss(head, logits, target.shares[target.known]))
    return float(np.mean(losses)) if losses else 0.0


def calibrate_heads(model: TraitModel, data: LearningSet, inputs: Tensor) -> None:
    """Fit each head's temperature, or a number's interval, on the validation side."""
    rows = data.rows("validation")
    calibrate_by(model, data, rows, model.logits(inputs[rows]))


def calibrate_by(
    model: TraitModel,
    data: LearningSet,
    rows: np.ndarray,
    outputs: Outputs,
    cross_fitted: bool = False,
) -> None:
    """Fit each head's temperature, or a number's interval, on outputs (m, k) for some rows (m,).

    Heads without outputs stay as they are; rows of NaN tell nothing. Where hardly any, or those of
    one label alone, tell something, a head that is calibrated stays as it is.
    """
    units = data.images["split_key"].to_numpy(dtype=str)[rows]
    for head in model.heads:
        if head.control not in outputs:
            continue
        target, logits = data.targets[head.control].take(rows), outputs[head.control]
        told = target.known & np.isfinite(logits).all(axis=1)
        shares = target.shares[told].astype(float)
        seen = (shares > 0).any(axis=0)
        little = told.sum() < MIN_IMAGES_FOR_TEMPERATURE
        if head.kind == "one of":
            little |= seen.sum() < 2
        if little and (head.tempered or head.half_width_95 is not None):
            continue
        untold = (target.shares[target.known] > 0).any(axis=0) & ~seen
        made = calibrate_head(head, logits[told], shares, units[told], may_offset=not untold.any())
        fitted = made.tempered or made.half_width_95 is not None
        model.set_head(replace(made, cross_fitted=cross_fitted and fitted))
