"""A step of training with small maps as products of matrices, beside oneDNN's convolutions alone.

    python -m benchmarks.small_maps

Milliseconds an image of a step (forward and backward), random weights, in the precision that
`simclr.precision` chooses here, with the threads that PyTorch takes; medians of alternating rounds.
`--isa` has oneDNN use no more than a processor of that kind has, e.g. AVX512_CORE_BF16: no AMX.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from contextlib import AbstractContextManager, nullcontext
from unittest.mock import patch

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.machine import keep
from simclr import small_maps
from simclr.encoder import Encoder
from simclr.precision import cpu_learns_in_bf16

NETWORKS = ("resnet10t", "resnet18", "resnet50", "mobilenetv4_conv_small", "convnext_atto")
SIDES_PX = (64, 128)
IMAGES = {64: 256, 128: 64}


def measure(name: str, side_px: int, rounds: int) -> dict[str, float | str]:
    """Medians of one network on images of one side."""
    torch.manual_seed(0)
    encoder = Encoder.create(name, side_px).train()
    count = IMAGES[side_px]
    images = torch.randint(0, 256, (count, 1, side_px, side_px), dtype=torch.uint8)
    in_bf16 = cpu_learns_in_bf16(encoder, side_px)

    def step(how: AbstractContextManager[object]) -> float:
        begun = time.perf_counter()
        with how, torch.autocast("cpu", torch.bfloat16, enabled=in_bf16):
            encoder(images).float().pow(2).mean().backward()
        return 1000 * (time.perf_counter() - begun) / count

    took: dict[str, list[float]] = {"oneDNN": [], "products": []}
    for turn in range(rounds + 1):
        for title, times in took.items():
            alone = patch.object(small_maps, "_most_pixels", lambda _: 0)
            seen = step(alone if title == "oneDNN" else nullcontext())
            if turn:  # the first of each makes oneDNN's plans
                times.append(seen)
    medians = {title: round(statistics.median(times), 3) for title, times in took.items()}
    ratio = round(medians["oneDNN"] / medians["products"], 2)
    return {**medians, "ratio": ratio, "precision": "bf16" if in_bf16 else "fp32"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", nargs="+", default=NETWORKS, metavar="NAME", help="of timm")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--isa", help="the most that oneDNN may use")
    options = parser.parse_args()
    table = Table("network", "side (px)", "precision", "oneDNN", "products", "ratio")
    amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    if options.isa:
        # oneDNN reads it when it is first used.
        os.environ["ONEDNN_MAX_CPU_ISA"] = options.isa
        torch.cpu._is_amx_tile_supported = lambda: amx() and "AMX" in options.isa
        bf16 = torch.cpu._is_avx512_bf16_supported
        torch.cpu._is_avx512_bf16_supported = lambda: bf16() and options.isa.endswith("_BF16")
    made = {}
    for name in options.networks:
        for side_px in SIDES_PX:
            found = measure(name, side_px, options.rounds)
            key = f"{name}, {side_px} px" + (f", {options.isa}" if options.isa else "")
            made[key] = found
            row = [found[title] for title in ("precision", "oneDNN", "products", "ratio")]
            table.add_row(name, str(side_px), *map(str, row))
    Console().print(table)
    keep("small_maps", made)


if __name__ == "__main__":
    main()
