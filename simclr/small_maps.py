"""Convolutions of maps of a few pixels, quicker on CPUs while a network learns.

In the last stages of a network, where an image of 64 px has come to 4 x 4 or 2 x 2, oneDNN's
convolutions read all weights again for each image. One product of matrices for the whole batch
(im2col: Chellapilla et al. 2006, "High performance convolutional neural networks for document
processing") does not: on a processor with AMX a step of ResNet-18 takes half the time, see
`benchmarks/small_maps.py`. What is computed is the same.
"""

from __future__ import annotations

import platform
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Pair = tuple[int, int]

MOST_PIXELS = 4
"""Of the map that a convolution gives, in fp32, and in bf16 by AVX-512."""
MOST_PIXELS_WITH_AMX = 16
"""In bf16 with AMX, by which oneDNN's products are much quicker, and its gradients little."""


def quicken(network: nn.Module) -> nn.Module:
    """Have a network's plain convolutions compute small maps so; weights and names stay."""
    for module in network.modules():
        # Of their subclasses, in timm, some change the weights first.
        if type(module) is nn.Conv2d and _is_plain(module):
            module.__class__ = SmallMapConv2d
    return network


class SmallMapConv2d(nn.Conv2d):
    """A convolution that learns by products of matrices where its map is small, on a CPU.

    Without gradients, with weights that do not learn, and when traced or exported, it is PyTorch's.
    It has first derivatives alone, and is not for `torch.func` or `torch.jit.script`.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not self._is_quicker_so(input):
            return super()._conv_forward(input, weight, bias)
        dtype = _dtype(input)
        stride: Pair = self.stride  # type: ignore[assignment]
        padding: Pair = self.padding  # type: ignore[assignment]
        rows: Tensor = _Convolution.apply(
            input.to(dtype),
            weight.to(dtype),
            None if bias is None else bias.to(dtype),
            stride,
            padding,
        )
        # Not within it: what comes after may change it in place.
        return _maps(rows, *_size(input, weight, stride, padding))

    def _is_quicker_so(self, input: Tensor) -> bool:
        if (
            not torch.is_grad_enabled()
            or not self.weight.requires_grad
            or torch.jit.is_tracing()
            or torch.compiler.is_compiling()
            or torch.compiler.is_exporting()
            or input.device.type != "cpu"
            or input.dim() != 4
            # Let PyTorch say what is wrong.
            or input.shape[1] != self.in_channels
            or not (torch.is_autocast_enabled("cpu") or input.dtype == self.weight.dtype)
        ):
            return False
        height, width = _size(input, self.weight, self.stride, self.padding)  # type: ignore[arg-type]
        return 0 < height * width <= _most_pixels(_dtype(input))


class _Convolution(torch.autograd.Function):
    """Of images, shape (n, c, h, w), with weights, shape (d, c, kernel height, kernel width).

    Gives one row a pixel of the map, shape (n * h * w, d).
    """

    @staticmethod
    def forward(
        ctx: Any,
        images: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: Pair,
        padding: Pair,
    ) -> Tensor:
        ctx.save_for_backward(images, weight)
        ctx.stride, ctx.padding = stride, padding
        return _product(images, weight, bias, stride, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        images, weight = ctx.saved_tensors
        of_images = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_images = _gradient_of_images(gradient, images, weight, ctx.stride, ctx.padding)
        if ctx.needs_input_grad[1]:
            columns = _columns(images, weight.shape[2:], ctx.stride, ctx.padding)
            product = gradient.t() @ columns  # shape (d, kernel height * width * c)
            count, channels, *kernel = weight.shape
            of_weight = product.view(count, *kernel, channels).permute(0, 3, 1, 2)
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum(0)
        return of_images, of_weight, of_bias, None, None


def _product(
    images: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair
) -> Tensor:
    """The convolution, one row a pixel: shape (n * h * w, d)."""
    columns = _columns(images, weight.shape[2:], stride, padding)
    by_column = weight.permute(2, 3, 1, 0).reshape(-1, len(weight))
    return columns @ by_column if bias is None else torch.addmm(bias, columns, by_column)


def _gradient_of_images(
    rows: Tensor, images: Tensor, weight: Tensor, stride: Pair, padding: Pair
) -> Tensor:
    """Of stride 1 it is a convolution with the weights turned round; else PyTorch's."""
    gradient = _maps(rows, *_size(images, weight, stride, padding))
    around = weight.shape[2] - 1 - padding[0], weight.shape[3] - 1 - padding[1]
    if stride == (1, 1) and min(around) >= 0:
        turned = weight.flip(2, 3).transpose(0, 1)
        return _maps(_product(gradient, turned, None, stride, around), *images.shape[2:])
    found: tuple[Tensor, ...] = torch.ops.aten.convolution_backward(
        gradient, images, weight, None, stride, padding, (1, 1), False, (0, 0), 1,
        (True, False, False),
    )  # fmt: skip
    return found[0]


def _size(images: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Pair:
    """Of the map: height and width."""
    (height, width), kernel = images.shape[2:], weight.shape[2:]
    return (
        (height + 2 * padding[0] - kernel[0]) // stride[0] + 1,
        (width + 2 * padding[1] - kernel[1]) // stride[1] + 1,
    )


def _columns(images: Tensor, kernel: torch.Size, stride: Pair, padding: Pair) -> Tensor:
    """What each pixel of the map sees: shape (n * h * w, kernel height * width * c)."""
    top, left = padding
    padded = F.pad(images, (left, left, top, top)).permute(0, 2, 3, 1).contiguous()
    seen = padded.unfold(1, kernel[0], stride[0]).unfold(2, kernel[1], stride[1])
    pixels, inputs = seen.shape[:3].numel(), seen.shape[3:].numel()
    return seen.permute(0, 1, 2, 4, 5, 3).reshape(pixels, inputs)


def _maps(rows: Tensor, height: int, width: int) -> Tensor:
    """Rows of pixels as maps: shape (n, d, h, w), channels last."""
    count = len(rows) // (height * width)
    return rows.view(count, height, width, rows.shape[1]).permute(0, 3, 1, 2)


def _dtype(input: Tensor) -> torch.dtype:
    """In which it is computed."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else input.dtype


def _most_pixels(dtype: torch.dtype) -> int:
    """Up to which size of its map a convolution is quicker so; 0 where nobody has looked."""
    if platform.machine() not in {"x86_64", "AMD64"}:
        return 0
    with_amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()
    return MOST_PIXELS_WITH_AMX if with_amx and dtype == torch.bfloat16 else MOST_PIXELS


def _is_plain(layer: nn.Conv2d) -> bool:
    return (
        layer.groups == 1
        and layer.dilation == (1, 1)
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
    )
