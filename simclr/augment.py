"""Two views of one image: augmentations on whole batches of tensors.

Organisms have no upright position in the water, so any rotation and both flips keep what an image
shows. The hue is left alone on grey images, and moves little on colour ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

# Luma and the two chroma axes of YIQ (NTSC): a hue change is a rotation of the chroma plane.
_RGB_TO_YIQ = torch.tensor(
    [[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]]
)
_YIQ_TO_RGB = torch.linalg.inv(_RGB_TO_YIQ)
_DRAWS = 14
_BLUR_TAPS = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16.0


@dataclass(frozen=True)
class Augmentation:
    """Random views of a batch of images, one draw per image.

    Parameters
    ----------
    scale : tuple of float
        Range of the side of the view as a share of the side of the image: 0.5 shows a quarter of
        the area at twice the size, 1.15 shows the image with a margin of background.
    shift : float
        Largest shift of the view along each axis, as a share of the side of the image.
    stretch : float
        Largest change of the aspect ratio, as the exponent of e.
    contrast, gamma : float
        Largest change, as the exponent of e; the contrast pivots on the background.
    brightness : float
        Largest shift of the intensities, where the full range is 1.
    noise : float
        Largest standard deviation of Gaussian noise.
    blur_probability : float
        Share of the images that are blurred (binomial kernel, 5 px, mixed in at random strength).
    hue_degrees, saturation : float
        Largest rotation of the hue and change of the saturation (exponent of e). Colour only.
    rotation_degrees : float
        Largest rotation of the view either way; 180 is any rotation.
    flip_probability : float
        Share of the views that are mirrored.

    Examples
    --------
    >>> images = torch.randint(0, 256, (8, 1, 64, 64), dtype=torch.uint8)
    >>> Augmentation()(images, torch.Generator().manual_seed(1)).shape
    torch.Size([8, 1, 64, 64])
    """

    scale: tuple[float, float] = (0.5, 1.15)
    shift: float = 0.1
    stretch: float = 0.15
    contrast: float = 0.4
    brightness: float = 0.1
    gamma: float = 0.35
    noise: float = 0.04
    blur_probability: float = 0.3
    hue_degrees: float = 15.0
    saturation: float = 0.3
    rotation_degrees: float = 180.0
    flip_probability: float = 0.5

    def __post_init__(self) -> None:
        low, high = self.scale
        if not 0 < low <= high:
            raise ValueError(f"scale {self.scale}: give two positive numbers, the smaller first")
        for name in ("blur_probability", "flip_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} {getattr(self, name)}: give a share, 0 to 1")

    @staticmethod
    def draw(count: int, generator: torch.Generator) -> Tensor:
        """What is random about views but their noise; shape (count, 14), uniform in -1 to 1."""
        return torch.rand(count, _DRAWS, generator=generator, device=generator.device) * 2 - 1

    def __call__(
        self,
        images: Tensor,
        generator: torch.Generator,
        view_size_px: int | None = None,
        draws: Tensor | None = None,
    ) -> Tensor:
        """Draw one view of each image.

        Parameters
        ----------
        images : Tensor, shape (n, c, s, s)
            uint8, or floating point in 0 to 1; c is 1 or 3.
        generator : torch.Generator
            Source of all randomness, on the device of the images.
        view_size_px : int, optional
            Side of the views; the side of the images by default.
        draws : Tensor, shape (n, 14), optional
            From `draw`; the generator then makes the noise only.

        Returns
        -------
        Tensor, shape (n, c, view_size_px, view_size_px), floating point in 0 to 1
        """
        # In full precision even inside a bf16 training: a resampled grid needs more than 8 bits.
        with torch.autocast(images.device.type, enabled=False):
            if draws is None:
                draws = self.draw(len(images), generator)
            return self._views(images, generator, view_size_px or images.shape[-1], draws)

    def _views(
        self, images: Tensor, generator: torch.Generator, view_size_px: int, draws: Tensor
    ) -> Tensor:
        pixels = images.float() / 255.0 if images.dtype == torch.uint8 else images
        background = border_median(pixels)
        # Zero is the background while the view is sampled, so that no edge appears outside it.
        views = self._sample(pixels - background, draws[:, :6], view_size_px)
        views = self._develop(views, background, draws[:, 6:9])
        if views.shape[1] == 3:
            views = self._tint(views, draws[:, 9:11])
        views = self._blur(views, draws[:, 11], draws[:, 12])
        noise = torch.randn(views.shape, generator=generator, device=views.device)
        strength = self.noise * draws[:, 13].abs().view(-1, 1, 1, 1)
        return views.addcmul_(noise, strength).clamp_(0.0, 1.0)

    def _sample(self, pixels: Tensor, draws: Tensor, view_size_px: int) -> Tensor:
        """Rotation, scale, shift, flip and stretch in one resampling."""
        angle, scale, stretch, shift_x, shift_y, flip = draws.unbind(1)
        low, high = self.scale
        side = low + (high - low) * (scale + 1) / 2
        stretched = torch.exp(self.stretch * stretch / 2)
        width = side * stretched * torch.where(flip > 2 * self.flip_probability - 1, 1.0, -1.0)
        height = side / stretched
        angle = torch.pi * (self.rotation_degrees / 180) * angle
        cosine, sine = torch.cos(angle), torch.sin(angle)
        # Coordinates run from -1 to 1: a shift by the side of the image is 2.
        matrix = torch.stack(
            [
                torch.stack([cosine * width, -sine * height, 2 * self.shift * shift_x], dim=1),
                torch.stack([sine * width, cosine * height, 2 * self.shift * shift_y], dim=1),
            ],
            dim=1,
        )  # shape (n, 2, 3)
        shape = [len(pixels), pixels.shape[1], view_size_px, view_size_px]
        grid = functional.affine_grid(matrix, shape, align_corners=False)
        return functional.grid_sample(pixels, grid, padding_mode="zeros", align_corners=False)

    def _develop(self, views: Tensor, background: Tensor, draws: Tensor) -> Tensor:
        """Contrast about the background, brightness and gamma, as a camera and its lamp differ."""
        contrast, brightness, gamma = (draw.view(-1, 1, 1, 1) for draw in draws.unbind(1))
        offset = background + self.brightness * brightness
        views = torch.addcmul(offset, views, torch.exp(self.contrast * contrast))
        return views.clamp_(1e-4, 1.0).pow_(torch.exp(self.gamma * gamma))

    def _tint(self, views: Tensor, draws: Tensor) -> Tensor:
        """Rotate the hue and change the saturation by one 3x3 matrix an image."""
        angle = torch.deg2rad(self.hue_degrees * draws[:, 0])
        saturation = torch.exp(self.saturation * draws[:, 1])
        chroma = torch.zeros(len(views), 3, 3, device=views.device)
        chroma[:, 0, 0] = 1.0
        chroma[:, 1, 1] = chroma[:, 2, 2] = saturation * torch.cos(angle)
        chroma[:, 1, 2] = -saturation * torch.sin(angle)
        chroma[:, 2, 1] = saturation * torch.sin(angle)
        matrix = _YIQ_TO_RGB.to(views.device) @ chroma @ _RGB_TO_YIQ.to(views.device)
        return torch.bmm(matrix, views.flatten(2)).view_as(views)

    def _blur(self, views: Tensor, choice: Tensor, strength: Tensor) -> Tensor:
        """Mix a blurred copy into a share of the views."""
        (rows,) = torch.nonzero((choice + 1) / 2 < self.blur_probability, as_tuple=True)
        if not len(rows):
            return views
        sharp = views[rows]
        planes = sharp.flatten(0, 1).unsqueeze(1)  # shape (n * c, 1, s, s)
        taps = _BLUR_TAPS.to(views.device)
        padded = functional.pad(planes, (2, 2, 2, 2), mode="replicate")
        blurred = functional.conv2d(padded, taps.view(1, 1, 1, 5))
        blurred = functional.conv2d(blurred, taps.view(1, 1, 5, 1)).view_as(sharp)
        views[rows] = torch.lerp(sharp, blurred, strength[rows].abs().view(-1, 1, 1, 1))
        return views


def border_median(images: Tensor) -> Tensor:
    """Median of the outermost pixels of each image and channel: its background.

    Parameters
    ----------
    images : Tensor, shape (n, c, s, s)

    Returns
    -------
    Tensor, shape (n, c, 1, 1)
    """
    edges = [images[:, :, 0], images[:, :, -1], images[:, :, :, 0], images[:, :, :, -1]]
    return torch.cat(edges, dim=2).median(dim=2).values[..., None, None]
