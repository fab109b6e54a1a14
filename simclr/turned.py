"""The eight exact turns and mirror images of a square image: plankton has no upright position."""

from __future__ import annotations

from torch import Tensor, rot90

VIEWS = (1, 2, 4, 8)
"""Over how many of them features can be averaged."""


def turned(images: Tensor, view: int) -> Tensor:
    """Return one of the eight exact turns and mirror images of square images (n, c, s, s)."""
    # The first four include both mirror images, so that 2 or 4 views differ as much as they can.
    turns, mirrored = ((0, 0), (2, 1), (1, 1), (3, 0), (2, 0), (0, 1), (1, 0), (3, 1))[view]
    images = rot90(images, turns, dims=(2, 3)) if turns else images
    return images.flip(3) if mirrored else images
