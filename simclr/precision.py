"""Which arithmetic is quick on this machine."""

from __future__ import annotations

from typing import Literal

import torch

SMALLEST_BF16_SIDE_PX = 32
"""On CPUs: a 3 x 3 convolution of stride 2 on a single pixel leaves gradients of its weights
unwritten in bf16 (oneDNN with PyTorch 2.14), and that is what smaller images come to in networks
that halve them five times."""


def fastest_precision(
    side_px: int = SMALLEST_BF16_SIDE_PX,
) -> Literal["bf16-mixed", "32-true"]:
    """Lightning's name of the precision for images of this side, on the device that it would take.

    bf16 only where the device computes in it itself: emulated it is slower than fp32 by far.
    """
    if torch.cuda.is_available():
        return (
            "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
        )
    return "bf16-mixed" if cpu_computes_in_bf16(side_px) else "32-true"


def cpu_computes_in_bf16(side_px: int = SMALLEST_BF16_SIDE_PX) -> bool:
    """Whether bf16 is quick, and right, on this processor for images of this side."""
    native = any(
        getattr(torch.cpu, name, lambda: False)()
        for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    )
    return native and side_px >= SMALLEST_BF16_SIDE_PX
