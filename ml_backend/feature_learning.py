"""SimCLR as users start it: which encoder it begins with, and by which method."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from label_studio_config.manifest import Manifest
from ml_backend.start import have_colour
from simclr.encoder import DEFAULT_BACKBONE, Encoder
from simclr.pretrain import PretrainError, SimCLRSettings, pretrain

DEFAULT_EPOCHS = 20


def learn_features(
    manifest: Manifest,
    folder: Path,
    epochs: int | None = None,
    *,
    backbone: str | None = None,
    encoder: str | None = None,
    image_size_px: int | None = None,
    method: str = "simclr",
    labels: dict[str, str] | None = None,
    cache_folder: Path | None = None,
    own_folder: bool = False,
    **numbers: Any,
) -> Path:
    """`simclr.pretrain.pretrain`, of a new encoder by default, grey or colour as the images are.

    Parameters
    ----------
    backbone : str, optional
        A timm model to begin with random weights.
    encoder : str, optional
        Instead of a backbone, weights to go on from: a folder, a timm name, `hf-hub:owner/model`.
    image_size_px : int, optional
        Side of the input; by default 64, or that of the encoder's folder.
    method : str
        One of `simclr.settings.METHODS`.
    own_folder : bool
        As `pretrain` takes it.
    numbers
        Fields of `SimCLRSettings`, such as batch_size and temperature.

    Returns
    -------
    Path
        Folder of the encoder.

    Raises
    ------
    PretrainError
        There are too few images, or settings that do not go together.
    EncoderError
        There is no such backbone or encoder.
    """
    if backbone is not None and encoder is not None:
        raise PretrainError(
            f"backbone {backbone} begins with random weights, encoder {encoder} with learned ones: "
            f"give one of them"
        )
    settings = SimCLRSettings.of(method, **numbers)
    torch.manual_seed(settings.seed)  # a resumed run must begin with the same encoder
    start = Encoder.create(
        encoder or backbone or DEFAULT_BACKBONE,
        image_size_px,
        3 if have_colour(manifest) else 1,
        pretrained=encoder is not None,
    )
    return pretrain(
        manifest,
        start,
        folder,
        epochs or DEFAULT_EPOCHS,
        labels=labels,
        cache_folder=cache_folder,
        settings=settings,
        own_folder=own_folder,
    )
