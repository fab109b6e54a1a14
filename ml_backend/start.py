"""What a training starts from: SimCLR features, timm's pretrained weights, or nothing."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from label_studio_config.manifest import Manifest
from ml_backend.fit import FROM_SCRATCH, FitSettings
from simclr.encoder import DEFAULT_BACKBONE, Encoder
from simclr.preprocessing import PreprocessingError, read_image

IMAGE_SIZE_PX = 64
IMAGES_LOOKED_AT = 40
GREY_TOLERANCE = 4.0  # mean spread between channels, of 255, that JPEG alone makes of grey


@dataclass(frozen=True)
class Start:
    """The encoder a training starts from.

    Attributes
    ----------
    name : str
        Where it comes from, for the model card.
    fingerprint : str
        The same weights have the same one.
    settings : FitSettings
        How to go on from it.
    """

    encoder: Encoder
    name: str
    fingerprint: str
    settings: FitSettings


def default_settings(encoder: str | Path | None) -> FitSettings:
    """Those measured to be best for a start from an encoder, or from an untrained network."""
    return FROM_SCRATCH if encoder is None else FitSettings()


def choose_start(
    encoder: str | Path | None, manifest: Manifest, settings: FitSettings | None = None
) -> Start:
    """Load or make the encoder.

    Parameters
    ----------
    manifest : Manifest
        The images of the training side: held-out and blind ones decide nothing.
    encoder : str or Path, optional
        A folder as `Encoder.load` reads it, a timm name or `hf-hub:owner/model` whose pretrained
        weights are fetched, or taken from the Hugging Face cache; by default an untrained network.
        All but folders are made for grey or colour as the images are.
    settings : FitSettings, optional
        By default `default_settings`.

    Raises
    ------
    EncoderError
        The folder holds no encoder, or the weights cannot be had.
    """
    chosen = settings or default_settings(encoder)
    if encoder is not None and Path(encoder).is_dir():
        loaded = Encoder.load(encoder)
        folder = Path(os.path.abspath(encoder))
        # What `pretrain` calls it by itself tells nothing: the folder around it does.
        shown = str(Path(*folder.parts[-2:])) if folder.name == "encoder" else folder.name
        name = f"the encoder {shown} ({loaded.backbone_name})"
        return Start(loaded, name, loaded.fingerprint, chosen)
    channels = 3 if have_colour(manifest) else 1
    if encoder is None:
        torch.manual_seed(chosen.seed)
        made = Encoder.create(DEFAULT_BACKBONE, IMAGE_SIZE_PX, channels)
        return Start(made, f"an untrained {DEFAULT_BACKBONE}", made.fingerprint, chosen)
    fetched = Encoder.create(str(encoder), IMAGE_SIZE_PX, channels, pretrained=True)
    name = f"the pretrained weights of {encoder}"
    return Start(fetched, name, fetched.fingerprint, chosen)


def have_colour(manifest: Manifest) -> bool:
    """Whether most of a few images have colour; images that cannot be read do not count."""
    step = max(1, len(manifest) // IMAGES_LOOKED_AT)
    coloured = []
    for path in manifest.paths[::step][:IMAGES_LOOKED_AT]:
        try:
            image = read_image(path)
        except (PreprocessingError, OSError):
            continue
        if image.mode in ("L", "LA", "1", "I", "F") or image.mode.startswith("I;"):
            coloured.append(False)
            continue
        pixels = np.asarray(image.convert("RGB").resize((64, 64)), dtype=float)
        coloured.append(float(np.ptp(pixels, axis=2).mean()) > GREY_TOLERANCE)
    return bool(coloured) and float(np.mean(coloured)) > 0.5


def size_unit(manifest: Manifest) -> str:
    """The unit that the model measures sizes in: "um" where every image has a pixel size."""
    sizes = manifest.pixel_sizes_um
    return "um" if sizes and all(size is not None for size in sizes) else "px"


def size_notes(manifest: Manifest) -> list[str]:
    """A note where some images have a pixel size and others take it from all of them."""
    sizes = manifest.pixel_sizes_um
    missing = sum(size is None for size in sizes)
    if missing in (0, len(sizes)):
        return []
    return [
        f"{missing} of {len(sizes)} training images have no pixel size, so sizes of all images are "
        "taken in pixels, not in µm: import every image with its pixel_size_um (a column of the "
        "table, or --pixel-size-um), since those that are there already keep what they came with"
    ]
