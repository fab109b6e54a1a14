"""timm, without PyTorch's compiler.

timm imports torchvision, which imports `torch._dynamo` for one question of one operator; that takes
as long as all else of timm and PyTorch. Nothing here compiles a network. timm marks a few functions
with `torch.compiler.disable`, which only tells a compiler to leave them alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch  # noqa: F401  (before the block: what PyTorch itself imports is not put off)

from label_studio_config.imported_later import imported_later


def _not_compiled(function: Callable[..., Any] | None = None, *_: Any, **__: Any) -> Any:
    return function or _not_compiled


with imported_later(
    {"torch._dynamo.utils": ["is_compile_supported"]},
    instead={"torch._dynamo": {"disable": _not_compiled}},
):
    import timm
    from timm.layers.norm_act import BatchNormAct2d, convert_sync_batchnorm
    from timm.models import save_for_hf

__all__ = ["BatchNormAct2d", "convert_sync_batchnorm", "save_for_hf", "timm"]
