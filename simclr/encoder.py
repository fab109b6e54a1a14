"""Images to features: a timm backbone and exactly how an image becomes its input."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from simclr.preprocessing import Preprocessing, PreprocessingError
from simclr.small_maps import quicken
from simclr.timm_models import save_for_hf, timm

logger = logging.getLogger(__name__)

DEFAULT_BACKBONE = "resnet10t"
DEFAULT_IMAGE_SIZE_PX = 64
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
_CONFIG_KEY = "planktrait"


class EncoderError(ValueError):
    """A backbone that cannot be made, or a folder that holds none; the message says the remedy."""


class Encoder(nn.Module):
    """A backbone without a classifier, and its preprocessing, saved and loaded as one thing.

    Parameters
    ----------
    backbone : nn.Module
        A timm model with `num_classes=0`.
    preprocessing : Preprocessing
        How an image becomes the backbone's input.
    trained : bool
        False for random weights.

    Attributes
    ----------
    feature_count : int
        Number of features of an image.

    Examples
    --------
    >>> encoder = Encoder.create("resnet10t", image_size_px=64)
    >>> encoder(torch.zeros(2, 1, 64, 64, dtype=torch.uint8)).shape
    torch.Size([2, 512])
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, backbone: nn.Module, preprocessing: Preprocessing, trained: bool = True
    ) -> None:
        super().__init__()
        self.trained = trained
        # Convolutions on channels_last are a tenth faster or more, on CPUs as on GPUs.
        self.backbone = quicken(backbone.to(memory_format=torch.channels_last))
        self.preprocessing = preprocessing
        shape = (1, preprocessing.channels, 1, 1)
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(shape), persistent=False)
        self.register_buffer("std", torch.tensor(preprocessing.std).view(shape), persistent=False)
        self.feature_count = self._count_features()

    @property
    def backbone_name(self) -> str:
        """Name of the architecture in timm."""
        config: Any = self.backbone.pretrained_cfg
        return str(config["architecture"])

    @property
    def fingerprint(self) -> str:
        """SHA-256 over preprocessing and weights: the same features have the same one."""
        digest = hashlib.sha256(repr(self.preprocessing).encode())
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()

    @classmethod
    def create(
        cls,
        name: str = DEFAULT_BACKBONE,
        image_size_px: int | None = None,
        channels: int = 1,
        pretrained: bool = False,
    ) -> Encoder:
        """Make an encoder by name.

        Parameters
        ----------
        name : str
            A timm model (`resnet10t`), `hf-hub:owner/model`, or a folder as `load` reads it (whose
            own channels are kept).
        image_size_px : int, optional
            Side of the input; by default 64, or that of the folder.
        channels : int
            1 is grey, 3 is colour.
        pretrained : bool
            Start from the weights of the name, which are downloaded once. Those that are in the
            Hugging Face cache (HF_HOME) already need no network; HF_HUB_OFFLINE=1 then saves the
            minute of asking for it in vain.

        Raises
        ------
        EncoderError
            The name is unknown, the weights cannot be had, or the backbone refuses the size.
        """
        if (Path(name) / CONFIG_FILE).is_file():
            return cls.load(name, image_size_px)
        image_size_px = image_size_px or DEFAULT_IMAGE_SIZE_PX
        try:
            if not name.startswith("hf-hub:") and not timm.is_model(name.split(".")[0]):
                raise EncoderError(
                    f"backbone {name!r} is unknown: give a timm model (timm.list_models()), "
                    f"hf-hub:owner/model, or the folder of a saved encoder"
                )
            backbone = timm.create_model(
                name, pretrained=pretrained, num_classes=0, in_chans=channels
            )
            _set_input_size(backbone, image_size_px)
            preprocessing = Preprocessing(image_size_px, channels)  # inputs from about -2 to 2
            if pretrained:
                preprocessing = _preprocessing_of(backbone.pretrained_cfg, image_size_px, channels)
            return cls(backbone, preprocessing, trained=pretrained)
        except EncoderError:
            raise
        except Exception as error:
            raise EncoderError(_why_not_created(name, pretrained, error)) from error

    @classmethod
    def load(cls, folder: Path | str, image_size_px: int | None = None) -> Encoder:
        """Read what `save` wrote, or any model that timm saved. No network is needed.

        Parameters
        ----------
        folder : Path or str
            With config.json and weights, as `save` and timm's `save_for_hf` write them and as a
            model is downloaded from the Hugging Face hub. Without our own settings in it, images
            are made as its `pretrained_cfg` says.
        image_size_px : int, optional
            Another side of the input than the folder says.

        Raises
        ------
        EncoderError
            The folder holds no encoder, or a damaged one.
        """
        folder = Path(folder)
        try:
            config = json.loads((folder / CONFIG_FILE).read_text())
            preprocessing = _saved_preprocessing(config)
            if image_size_px is not None:
                preprocessing = replace(preprocessing, image_size_px=image_size_px)
            backbone = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0)
            if image_size_px is not None:
                _set_input_size(backbone, image_size_px)
            return cls(backbone, preprocessing)
        except FileNotFoundError as error:
            raise EncoderError(
                f"{folder} holds no encoder: it needs {CONFIG_FILE} and {WEIGHTS_FILE}"
            ) from error
        except (KeyError, TypeError, PreprocessingError) as error:
            raise EncoderError(
                f"{folder / CONFIG_FILE} does not say how an image becomes an input ({error}): "
                f"give a folder that Encoder.save or timm's save_for_hf wrote"
            ) from error
        except Exception as error:
            raise EncoderError(f"the encoder in {folder} cannot be read: {error}") from error

    def fit_normalisation(self, images: np.ndarray) -> None:
        """Take mean and std from images, for training from scratch.

        The mean is then close to the background, so the zeros around a convolution's input look
        like background instead of an edge.

        Parameters
        ----------
        images : uint8 array, shape (n, channels, s, s)
            A sample of a few hundred to a few thousand is enough.
        """
        pixels = images.astype(np.float32) / 255.0
        mean = tuple(float(value) for value in pixels.mean(axis=(0, 2, 3)))
        # A sample without any contrast must not divide by zero.
        std = tuple(max(0.01, float(value)) for value in pixels.std(axis=(0, 2, 3)))
        self.preprocessing = replace(self.preprocessing, mean=mean, std=std)
        self.mean.copy_(torch.tensor(mean).view_as(self.mean))
        self.std.copy_(torch.tensor(std).view_as(self.std))

    def save(self, folder: Path | str) -> Path:
        """Write config.json and model.safetensors (the Hugging Face layout, readable by timm).

        Each file is replaced atomically.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        # safetensors takes contiguous tensors only.
        plain = copy.deepcopy(self.backbone).cpu().to(memory_format=torch.contiguous_format)
        settings = self.preprocessing
        size = (settings.channels, settings.image_size_px, settings.image_size_px)
        data_config = {"input_size": size, "mean": settings.mean, "std": settings.std}
        temporary = Path(tempfile.mkdtemp(prefix=".encoder-", dir=folder))
        try:
            save_for_hf(
                plain,
                str(temporary),
                model_config={_CONFIG_KEY: {"preprocessing": settings.as_dict()}},
                safe_serialization=True,
                data_config=data_config,
            )
            for name in (CONFIG_FILE, WEIGHTS_FILE):
                (temporary / name).replace(folder / name)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return folder

    def forward(self, images: Tensor) -> Tensor:
        """Features of images.

        Parameters
        ----------
        images : Tensor, shape (n, channels, s, s)
            uint8 as from `Preprocessing`, or floating point in 0 to 1.

        Returns
        -------
        Tensor, shape (n, feature_count)
        """
        pixels = images.float() / 255.0 if images.dtype == torch.uint8 else images
        normalised = (pixels - self.mean) / self.std
        return self.backbone(normalised.contiguous(memory_format=torch.channels_last))

    @torch.no_grad()
    def _count_features(self) -> int:
        settings, training = self.preprocessing, self.backbone.training
        size = settings.image_size_px
        blank = torch.zeros(1, settings.channels, size, size)
        count = int(self.backbone.eval()(blank).shape[1])
        self.backbone.train(training)
        return count


def _set_input_size(backbone: Any, image_size_px: int) -> None:
    """Only backbones of a fixed size have to be told."""
    if backbone.pretrained_cfg.get("fixed_input_size") and hasattr(backbone, "set_input_size"):
        backbone.set_input_size(img_size=(image_size_px, image_size_px))


def _preprocessing_of(config: dict[str, Any], image_size_px: int, channels: int) -> Preprocessing:
    """Normalise as the weights were trained; `config` is timm's `pretrained_cfg`."""
    mean, std = tuple(config["mean"]), tuple(config["std"])
    if channels == 1:
        mean, std = (sum(mean) / len(mean),), (sum(std) / len(std),)
    interpolation = config.get("interpolation", "bilinear")
    return Preprocessing(image_size_px, channels, mean=mean, std=std, interpolation=interpolation)


def _saved_preprocessing(config: dict[str, Any]) -> Preprocessing:
    """From a config.json: ours, else timm's, whose older ones have no `pretrained_cfg` inside."""
    if _CONFIG_KEY in config:
        return Preprocessing.from_dict(config[_CONFIG_KEY]["preprocessing"])
    theirs = config.get("pretrained_cfg", config)
    channels, _, image_size_px = theirs["input_size"]
    channels = config.get("model_args", {}).get("in_chans", channels)
    return _preprocessing_of(theirs, image_size_px, channels)


def _why_not_created(name: str, pretrained: bool, error: Exception) -> str:
    if pretrained or name.startswith("hf-hub:"):
        return (
            f"the weights of {name!r} cannot be had ({type(error).__name__}: {error}): connect to "
            f"the network once, copy them into the Hugging Face cache (HF_HOME), give a folder "
            f"with {CONFIG_FILE} and {WEIGHTS_FILE}, or start without pretrained weights"
        )
    return f"backbone {name!r} cannot be made: {error}"
