"""How an image becomes the input of an encoder, exactly.

Dark-field images have a dark background and shadowgraphs a light one: the background is estimated
from the image's own border, and fills the margin that makes the image square. The aspect is kept.
Size is lost in the resizing, so it is returned beside the pixels.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from label_studio_config.manifest import MAX_PIXELS, open_image

BORDER = "border"

_EIGHT_BIT_MODES = ("L", "RGB")
_DEEP_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N", "F")
_BIT_DEPTHS = (8, 10, 12, 14, 16)


class PreprocessingError(ValueError):
    """Settings that make no input, or an image that cannot be read; the message says why."""


@dataclass(frozen=True)
class Preprocessing:
    """Settings by which an image becomes an array, and the array an encoder's input.

    Parameters
    ----------
    image_size_px : int
        Side of the square input.
    channels : int
        1 (grey) or 3 (colour).
    background : "border" or int
        Intensity of the margin, 0 to 255; "border" takes the median of each image's own border.
    mean, std : tuple of float, one a channel
        Normalisation of intensities in 0 to 1.
    pad : bool
        Keep the aspect and pad to a square; False squeezes the image into the square.
    interpolation : str
        Pillow's name of the resampling filter.

    Raises
    ------
    PreprocessingError
        A setting is out of its range.

    Examples
    --------
    >>> pixels, log_extent = Preprocessing(image_size_px=32).preprocess_image(
    ...     Image.new("L", (100, 50), 255)
    ... )
    >>> pixels.shape, np.exp(log_extent).round().tolist()
    ((1, 32, 32), [100.0, 50.0])
    """

    image_size_px: int = 64
    channels: int = 1
    background: str | int = BORDER
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.25,)
    pad: bool = True
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        if self.image_size_px < 8:
            raise PreprocessingError(f"image_size_px {self.image_size_px}: give 8 or more")
        if self.channels not in (1, 3):
            raise PreprocessingError(f"channels {self.channels}: give 1 (grey) or 3 (colour)")
        if self.background != BORDER and not _is_intensity(self.background):
            raise PreprocessingError(f"background {self.background!r}: give 'border' or 0 to 255")
        if self.interpolation.upper() not in Image.Resampling.__members__:
            raise PreprocessingError(f"interpolation {self.interpolation!r}: Pillow has none such")
        for name, values in (("mean", self.mean), ("std", self.std)):
            # Lists come from JSON; one number stands for every channel.
            values = tuple(float(value) for value in values)
            values = values * self.channels if len(values) == 1 else values
            if len(values) != self.channels or (name == "std" and min(values) <= 0):
                raise PreprocessingError(f"{name} {values}: give one number for each channel")
            object.__setattr__(self, name, values)

    def as_dict(self) -> dict[str, Any]:
        """The settings as JSON's own types."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}

    @property
    def decoding(self) -> dict[str, Any]:
        """The settings that `preprocess_image` depends on: all but the normalisation."""
        return {key: value for key, value in asdict(self).items() if key not in ("mean", "std")}

    @classmethod
    def from_dict(cls, settings: dict[str, Any]) -> Preprocessing:
        """Read what `as_dict` wrote.

        Raises
        ------
        PreprocessingError
            A setting is missing, unknown or out of its range.
        """
        try:
            return cls(**settings)
        except TypeError as error:
            raise PreprocessingError(f"preprocessing settings {settings}: {error}") from error

    def preprocess_image(
        self, image: Image.Image, pixel_size_um: float | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Make the input of an encoder.

        Parameters
        ----------
        image : PIL.Image.Image
            Of any mode: 16-bit grey, palette and transparency are handled.
        pixel_size_um : float, optional
            Side of a pixel.

        Returns
        -------
        pixels : uint8 array, shape (channels, image_size_px, image_size_px)
        log_extent : float32 array, shape (2,)
            Natural logarithms of the longer and the shorter side of the image, in µm where the
            pixel size is given, otherwise in px: independent of how the image is turned.
        """
        extent = np.array(sorted(image.size, reverse=True), dtype=np.float64)
        log_extent = np.log(extent * (pixel_size_um or 1.0)).astype(np.float32)
        plain, visible = _to_eight_bit(image, "L" if self.channels == 1 else "RGB")
        fill = self._background(plain, visible)
        if visible is not None:
            plain = Image.composite(plain, Image.new(plain.mode, plain.size, fill), visible)
        return self._fit(plain, fill), log_extent

    def _background(self, image: Image.Image, visible: Image.Image | None) -> int | tuple[int, ...]:
        if self.background != BORDER:
            value = int(self.background)
            return value if self.channels == 1 else (value,) * self.channels
        border = _border(np.asarray(image).reshape(image.height, image.width, self.channels))
        if visible is not None:
            border = border[_border(np.asarray(visible)[..., None])[:, 0] > 127]
        # An image cut out to its outline has no border left; a viewer shows it on white.
        values = np.median(border, axis=0) if len(border) else np.full(self.channels, 255.0)
        return int(values[0]) if self.channels == 1 else tuple(int(value) for value in values)

    def _fit(self, image: Image.Image, fill: int | tuple[int, ...]) -> np.ndarray:
        size, resample = self.image_size_px, Image.Resampling[self.interpolation.upper()]
        if self.pad:
            scale = size / max(image.size)
            width, height = (max(1, round(side * scale)) for side in image.size)
        else:
            width = height = size
        resized = image.resize((width, height), resample, reducing_gap=3.0)
        canvas = Image.new(image.mode, (size, size), fill)
        canvas.paste(resized, ((size - width) // 2, (size - height) // 2))
        pixels = np.asarray(canvas).reshape(size, size, self.channels)
        return pixels.transpose(2, 0, 1).copy()  # writable, and in the order that it says


def read_image(path: Path | str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Read one image whole, turned as its EXIF says (as a browser shows it).

    Parameters
    ----------
    path : Path or str
        A file, or an image in a shard as a packed manifest names it.
    max_pixels : int

    Raises
    ------
    PreprocessingError
        The file is absent, empty, truncated, no image, or larger than `max_pixels`.
    """
    try:
        with open_image(path) as file, Image.open(file) as image:
            if image.width * image.height > max_pixels:
                raise PreprocessingError(
                    f"{image.width}×{image.height} px is above the limit of "
                    f"{max_pixels / 1e6:.0f} million pixels: cut it into regions first"
                )
            image.load()
            return ImageOps.exif_transpose(image)
    except FileNotFoundError as error:
        raise PreprocessingError("the file does not exist") from error
    except UnidentifiedImageError as error:
        with open_image(path) as file:
            empty = not file.read(1)
        reason = "the file is empty" if empty else "not an image, or of an unknown format"
        raise PreprocessingError(reason) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PreprocessingError(f"too many pixels: {error}") from error
    except PreprocessingError:
        raise
    # Pillow's decoders raise almost anything on broken files (OSError, SyntaxError, struct.error).
    except Exception as error:
        raise PreprocessingError(f"cannot be decoded: {error or type(error).__name__}") from error


def _is_intensity(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 255


def _border(pixels: np.ndarray) -> np.ndarray:
    """The outermost pixels; shape (h, w, c) to (m, c)."""
    return np.concatenate([pixels[0], pixels[-1], pixels[1:-1, 0], pixels[1:-1, -1]])


def _to_eight_bit(image: Image.Image, mode: str) -> tuple[Image.Image, Image.Image | None]:
    """The image in `mode`, and where it is visible if it has transparency."""
    if image.mode in _DEEP_MODES:
        return Image.fromarray(_scale_to_eight_bit(np.asarray(image))).convert(mode), None
    if image.has_transparency_data:
        layered = image.convert("RGBA")
        return layered.convert("RGB").convert(mode), layered.getchannel("A")
    if image.mode in _EIGHT_BIT_MODES:
        return image.convert(mode), None
    return image.convert("RGB").convert(mode), None


def _scale_to_eight_bit(values: np.ndarray) -> np.ndarray:
    """Divide by the smallest usual bit depth that holds the maximum (12-bit cameras write 16)."""
    values = np.asarray(values, dtype=np.float64)
    if not np.isfinite(values).all():
        raise PreprocessingError("has values that are not finite: replace them first")
    maximum = values.max()
    if values.min() >= 0 and maximum <= 1.0 and not np.array_equal(values, values.round()):
        return np.round(values * 255.0).astype(np.uint8)
    depth = next((bits for bits in _BIT_DEPTHS if maximum < 2**bits), math.ceil(math.log2(maximum)))
    scaled = values / 2 ** (depth - 8)
    return scaled.clip(0, 255).astype(np.uint8)
