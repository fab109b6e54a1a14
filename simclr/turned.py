"""The eight exact turns and mirror images of a square image: plankton has no upright position."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from torch import Tensor, rot90

Images = TypeVar("Images", np.ndarray, Tensor)

VIEWS = (1, 2, 4, 8)
"""Over how many of them features can be averaged."""

# The first four include both mirror images, so that 2 or 4 views differ as much as they can.
_QUARTERS_AND_MIRROR = (
    (0, False),
    (2, True),
    (1, True),
    (3, False),
    (2, False),
    (0, True),
    (1, False),
    (3, True),
)


def turned(images: Images, view: int) -> Images:
    """Return one of the eight exact turns and mirror images of square images (n, c, s, s)."""
    quarters, mirrored = _QUARTERS_AND_MIRROR[view]
    if isinstance(images, np.ndarray):
        images = np.rot90(images, quarters, axes=(2, 3))
        return images[..., ::-1] if mirrored else images
    images = rot90(images, quarters, dims=(2, 3)) if quarters else images
    return images.flip(3) if mirrored else images
