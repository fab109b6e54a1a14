"""Which arithmetic is quick on this machine."""

from __future__ import annotations

from typing import Literal

import torch


def fastest_precision() -> Literal["bf16-mixed", "32-true"]:
    """Lightning's name of the precision: bf16 only where the processor computes in it itself.

    Elsewhere bf16 is emulated, which is slower than fp32 by far.
    """
    if torch.cuda.is_available():
        return (
            "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
        )
    native = any(
        getattr(torch.cpu, name, lambda: False)()
        for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    )
    return "bf16-mixed" if native else "32-true"
