"""From a scene to a grey image: a shadowgraph camera with its blur, unevenness and noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from label_studio_config.phantoms.scene import Scene, Shape

SUPERSAMPLING = 3


@dataclass(frozen=True)
class Camera:
    """How one image is taken.

    `defocus_px` is the standard deviation of the blur; `fringe` the strength of the bright and
    dark rims that a coherent light source gives; `level` the grey value of clear water.
    """

    pixel_size_um: float
    level: float = 205.0
    gradient: float = 0.06
    defocus_px: float = 0.6
    fringe: float = 0.35
    noise: float = 3.0


def smooth_noise(shape: tuple[int, ...], cell_px: float, rng: np.random.Generator) -> np.ndarray:
    """Float32 (height, width), about standard normal, smooth over `cell_px`."""
    rows, columns = (max(2, int(np.ceil(side / cell_px)) + 1) for side in shape)
    coarse = rng.normal(size=(rows, columns)).astype(np.float32)
    image = Image.fromarray(coarse).resize((shape[1], shape[0]), Image.Resampling.BICUBIC)
    return np.asarray(image)


def optical_depth(
    scene: Scene, width_px: int, height_px: int, pixel_size_um: float, rng: np.random.Generator
) -> np.ndarray:
    """Optical depth, float32 (height, width), of a scene whose (0, 0) is the upper left corner."""
    scale = SUPERSAMPLING / pixel_size_um
    depth = np.zeros((height_px * SUPERSAMPLING, width_px * SUPERSAMPLING), np.float32)
    for shape in scene.shapes:
        _add(depth, shape, scale, rng)
    return np.maximum(depth, 0)


def _add(depth: np.ndarray, shape: Shape, scale: float, rng: np.random.Generator) -> None:
    points = shape.points * scale
    width = 0.0 if shape.width_um is None else shape.width_um * scale
    soft = shape.soft_um * scale
    pad = int(np.ceil(width + 3 * soft)) + 1
    left, top = np.floor(points.min(axis=0)).astype(int) - pad
    right, bottom = np.ceil(points.max(axis=0)).astype(int) + pad
    left, top = max(left, 0), max(top, 0)
    right, bottom = min(right, depth.shape[1]), min(bottom, depth.shape[0])
    if right <= left or bottom <= top:
        return
    image = Image.new("L", (right - left, bottom - top))
    draw = ImageDraw.Draw(image)
    corners = [(float(x), float(y)) for x, y in points - (left, top)]
    strength = shape.depth
    if shape.width_um is None:
        draw.polygon(corners, fill=255)
    else:
        if shape.closed:
            corners.append(corners[0])
        # A line thinner than a sub-pixel is drawn one wide and paler.
        strength *= min(1.0, width)
        draw.line(corners, fill=255, width=max(1, round(width)), joint="curve")
    mask = np.asarray(image, np.float32) * (strength / 255)
    if soft > 0.5:
        mask = ndimage.gaussian_filter(mask, soft, mode="constant")
    if shape.grain:
        mask = mask * np.clip(1 + shape.grain * smooth_noise(mask.shape, 7, rng), 0, None)
    depth[top:bottom, left:right] += mask


def expose(depth: np.ndarray, camera: Camera, rng: np.random.Generator) -> np.ndarray:
    """Grey image, uint8 (height, width), from supersampled optical depth."""
    height, width = (side // SUPERSAMPLING for side in depth.shape)
    light = np.exp(-depth)
    light = light.reshape(height, SUPERSAMPLING, width, SUPERSAMPLING).mean(axis=(1, 3))
    light = ndimage.gaussian_filter(light, camera.defocus_px, mode="nearest")
    spread = 1.2 + 1.5 * camera.defocus_px
    light = light + camera.fringe * (light - ndimage.gaussian_filter(light, spread, mode="nearest"))
    background = _background(height, width, camera, rng)
    grey = background * light + rng.normal(0, camera.noise, light.shape) * np.sqrt(
        np.clip(light, 0.25, 1.2)
    )
    return np.clip(np.rint(grey), 0, 255).astype(np.uint8)


def _background(height: int, width: int, camera: Camera, rng: np.random.Generator) -> np.ndarray:
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[-0.5 : 0.5 : height * 1j, -0.5 : 0.5 : width * 1j]
    slope = camera.gradient * (np.cos(angle) * x + np.sin(angle) * y)
    mottle = 0.012 * smooth_noise((height, width), 24, rng)
    # Line-scan cameras leave faint streaks along the direction of travel.
    streaks = 0.006 * ndimage.gaussian_filter1d(rng.normal(size=height), 0.7)[:, None]
    return camera.level * (1 + slope + mottle + streaks)
