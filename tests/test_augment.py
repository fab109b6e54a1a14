"""Augmentation: random views of whole batches, the same ones for the same generator."""

import time
from typing import Any

import pytest
import torch

from simclr.augment import Augmentation, border_median


def still(**changes: Any) -> Augmentation:
    """Nothing but rotation and flips, and the changes."""
    nothing = dict.fromkeys(
        ("shift", "stretch", "contrast", "brightness", "gamma", "noise", "blur_probability"), 0.0
    )
    settings = {"scale": (1.0, 1.0), "hue_degrees": 0.0, "saturation": 0.0, **nothing, **changes}
    return Augmentation(**settings)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def discs(count: int, channels: int = 1, size: int = 32, light: bool = True) -> torch.Tensor:
    """A disc in the middle of each image: no rotation or flip changes it."""
    axis = torch.arange(size) - (size - 1) / 2
    inside = axis[:, None] ** 2 + axis[None] ** 2 < (size / 4) ** 2
    image = torch.where(inside, 40, 240) if light else torch.where(inside, 200, 10)
    return image.to(torch.uint8).expand(count, channels, size, size).clone()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("view_size_px", [None, 24])
def test_views_are_images_and_a_function_of_the_seed(
    channels: int, view_size_px: int | None
) -> None:
    images = torch.randint(0, 256, (16, channels, 32, 32), dtype=torch.uint8)
    before = images.clone()
    views = Augmentation()(images, seeded(1), view_size_px)
    size = view_size_px or 32
    assert views.shape == (16, channels, size, size)
    assert views.dtype == torch.float32
    assert views.min() >= 0
    assert views.max() <= 1
    assert torch.isfinite(views).all()
    assert torch.equal(views, Augmentation()(images, seeded(1), view_size_px))
    assert not torch.equal(views, Augmentation()(images, seeded(2), view_size_px))
    assert torch.equal(images, before)


@pytest.mark.parametrize("light", [True, False])
def test_no_edge_appears_where_the_view_leaves_the_image(light: bool) -> None:
    images = discs(64, light=light)
    zoomed_out = still(scale=(1.6, 1.6), shift=0.2)
    views = zoomed_out(images, seeded())
    background = images[0, 0, 0, 0] / 255
    torch.testing.assert_close(border_median(views), background.expand(64, 1, 1, 1))
    # Every pixel is between the disc and the background: nothing of a third intensity came in.
    low, high = sorted((40 / 255, 240 / 255) if light else (10 / 255, 200 / 255))
    assert views.min() >= low - 0.01
    assert views.max() <= high + 0.01


def test_rotation_and_flips_keep_a_disc() -> None:
    images = discs(32, size=64)
    views = still()(images, seeded())
    difference = (views - images / 255).abs()
    assert difference.mean() < 0.02


def test_every_direction_and_both_mirror_images_occur() -> None:
    """An L in one corner is seen in all four quadrants, and turned left as well as right."""
    images = torch.full((400, 1, 33, 33), 255, dtype=torch.uint8)
    images[:, :, 4:29, 14:19] = 0
    images[:, :, 4:9, 14:27] = 0
    views = 1 - still()(images, seeded())[:, 0]
    axis = torch.arange(33) - 16.0
    mass = views.sum((1, 2))
    x, y = (views.sum(1) @ axis) / mass, (views.sum(2) @ axis) / mass
    quadrants = (x > 0).int() * 2 + (y > 0).int()
    assert torch.bincount(quadrants, minlength=4).min() > 60
    handedness = _handedness(views)
    assert 0.35 < (handedness > 0).float().mean() < 0.65


def _handedness(views: torch.Tensor) -> torch.Tensor:
    """Sign changes with mirroring, not with rotation: a third-order moment about the long axis."""
    axis = torch.arange(views.shape[1]) - (views.shape[1] - 1) / 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    mass = views.sum((1, 2))
    center_x, center_y = (views * x).sum((1, 2)) / mass, (views * y).sum((1, 2)) / mass
    dx, dy = x - center_x[:, None, None], y - center_y[:, None, None]
    xx, yy, xy = ((views * m).sum((1, 2)) for m in (dx * dx, dy * dy, dx * dy))
    angle = 0.5 * torch.atan2(2 * xy, xx - yy)[:, None, None]
    along, across = dx * angle.cos() + dy * angle.sin(), -dx * angle.sin() + dy * angle.cos()
    return (views * along**3).sum((1, 2)) * (views * along**2 * across).sum((1, 2))


def test_without_rotation_and_flip_a_view_is_the_image() -> None:
    images = torch.randint(0, 256, (8, 1, 32, 32), dtype=torch.uint8)
    upright = still(rotation_degrees=0.0, flip_probability=0.0)(images, seeded())
    torch.testing.assert_close(upright, images / 255, atol=1e-3, rtol=0)
    mirrored = still(rotation_degrees=0.0, flip_probability=1.0)(images, seeded())
    torch.testing.assert_close(mirrored, images.flip(3) / 255, atol=1e-3, rtol=0)


def test_grey_stays_grey_and_colour_changes_little() -> None:
    grey = discs(8, channels=3)
    views = still(hue_degrees=30.0, saturation=0.5)(grey, seeded())
    assert (views - views.mean(1, keepdim=True)).abs().max() < 0.02
    colour = grey.clone()
    colour[:, 0] = 200
    tinted = still(hue_degrees=15.0)(colour, seeded())
    plain = still()(colour, seeded())
    change = (tinted - plain).abs().max()
    assert 0.01 < change < 0.3


def test_views_are_the_same_inside_a_training_in_bf16() -> None:
    images = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)
    plain = Augmentation(blur_probability=1.0)(images, seeded())
    with torch.autocast("cpu", torch.bfloat16):
        views = Augmentation(blur_probability=1.0)(images, seeded())
    assert views.dtype == torch.float32
    torch.testing.assert_close(views, plain)


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="scale"):
        Augmentation(scale=(1.2, 0.5))
    with pytest.raises(ValueError, match="blur_probability"):
        Augmentation(blur_probability=2)


def test_views_are_quick() -> None:
    images = torch.randint(0, 256, (256, 1, 64, 64), dtype=torch.uint8)
    generator, augmentation = seeded(), Augmentation()
    augmentation(images, generator)
    start_s = time.process_time()  # of all threads, so that a busy machine matters less
    for _ in range(4):
        augmentation(images, generator)
    pairs_per_core_second = 4 * 256 / 2 / (time.process_time() - start_s)
    assert pairs_per_core_second > 700
