"""Which arithmetic is quick on this machine."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

SMALLEST_BF16_SIDE_PX = 32
"""On CPUs: a 3 x 3 convolution of stride 2 on a single pixel leaves gradients of its weights
unwritten in bf16 (oneDNN with PyTorch 2.14), and that is what smaller images come to in networks
that halve them five times."""


def fastest_precision(
    network: nn.Module, side_px: int = SMALLEST_BF16_SIDE_PX
) -> Literal["bf16-mixed", "32-true"]:
    """Lightning's name of the precision to train in on images of this side, on the device it takes.

    bf16 only where the device computes in it itself: emulated it is slower than fp32 by far.
    """
    if torch.cuda.is_available():
        return (
            "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
        )
    return "bf16-mixed" if cpu_learns_in_bf16(network, side_px) else "32-true"


def cpu_learns_in_bf16(network: nn.Module, side_px: int = SMALLEST_BF16_SIDE_PX) -> bool:
    """Whether a step of training, gradients and all, is quicker in bf16 on this processor.

    Those of depthwise convolutions are not: with PyTorch 2.14 a step of MobileNet, EfficientNet or
    FastViT takes 1.5 to 3 times as long in bf16 as in fp32, one of ConvNeXt as long, one of ResNet
    or ResNeXt .4 to .46 of it with AMX (`benchmarks/training_precision.py`).
    """
    return cpu_computes_in_bf16(side_px) and not any(map(_is_depthwise, network.modules()))


def cpu_computes_in_bf16(side_px: int = SMALLEST_BF16_SIDE_PX) -> bool:
    """Whether bf16 is quick, and right, on this processor for images of this side."""
    native = any(
        getattr(torch.cpu, name, lambda: False)()
        for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    )
    return native and side_px >= SMALLEST_BF16_SIDE_PX


def _is_depthwise(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d) and 1 < layer.groups == layer.in_channels
