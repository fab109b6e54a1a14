"""Batch norm over the batches of all ranks, as if they were one batch.

SimCLR's paper (section 2.2) says why: with statistics of each rank's own images, a network can tell
an image's other view by them.
"""

from __future__ import annotations

import torch
from lightly.utils.dist import gather
from lightning.pytorch.plugins.layer_sync import LayerSync
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from simclr.timm_models import BatchNormAct2d, convert_sync_batchnorm


class GlobalBatchNorm(LayerSync):
    """Has every batch norm of a model count all ranks; all ranks have as many images.

    On GPUs by PyTorch's `SyncBatchNorm`, which refuses CPUs; there by the modules below.
    """

    def apply(self, model: nn.Module) -> nn.Module:
        """Convert the layers; weights and names stay."""
        if torch.cuda.is_available():
            return convert_sync_batchnorm(model)  # timm's, which keeps its layers' activations
        for module in model.modules():
            if isinstance(module, BatchNormAct2d):
                module.__class__ = _OnCpuWithActivation
            elif isinstance(module, _BatchNorm):
                module.__class__ = _OnCpu
        return model

    def revert(self, model: nn.Module) -> nn.Module:
        """The model is saved by its weights, and not used any more."""
        return model


class _OnCpu(_BatchNorm):
    def _check_input_dim(self, input: Tensor) -> None:
        """Any will do."""

    def forward(self, input: Tensor) -> Tensor:
        """Shape (n, c) or (n, c, h, w), normalised per channel."""
        if not self.training:
            return super().forward(input)
        # In full precision: a variance in bf16 has two digits.
        values = input.float()
        dims = [0, *range(2, input.dim())]
        variance, mean = torch.var_mean(values, dims, correction=0)  # each of shape (c,)
        parts = torch.stack(gather(torch.stack([mean, variance])))  # shape (ranks, 2, c)
        means, variances = parts.unbind(1)
        mean = means.mean(0)
        variance = (variances + (means - mean) ** 2).mean(0)
        self._note(mean.detach(), variance.detach(), values.numel() // len(mean) * len(parts))
        scale = torch.rsqrt(variance + self.eps)
        shift = -mean * scale
        if self.affine:
            scale, shift = scale * self.weight, shift * self.weight + self.bias
        shape = (1, -1, *(1 for _ in dims[1:]))
        return (values * scale.view(shape) + shift.view(shape)).to(input.dtype)

    def _note(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Let the running statistics follow, the variance without its bias."""
        if self.running_mean is None or self.running_var is None:
            return
        self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
        momentum = self.momentum
        if momentum is None:
            momentum = 1.0 / float(self.num_batches_tracked)  # type: ignore[arg-type]
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance * count / max(1, count - 1), momentum)


class _OnCpuWithActivation(_OnCpu):
    """For timm's `BatchNormAct2d`."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise, drop, activate."""
        act: nn.Module = self.act  # type: ignore[assignment]
        drop: nn.Module = self.drop  # type: ignore[assignment]
        return act(drop(super().forward(input)))
