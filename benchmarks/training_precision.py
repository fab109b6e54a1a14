"""A step of training in bf16 beside the same step in fp32, of networks that people choose.

    python -m benchmarks.training_precision

Milliseconds of processor time an image on one thread, images of 64 px in batches of 32, random
weights; medians of alternating rounds. `forward` has no gradients, as predicting; `learned in` is
what `simclr.precision` chooses here.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.machine import keep
from simclr.encoder import Encoder
from simclr.precision import cpu_learns_in_bf16

NETWORKS = (
    *("resnet10t", "resnet18", "resnext50_32x4d", "mobilenetv3_small_100"),
    *("mobilenetv4_conv_small", "efficientnet_b0", "convnext_atto", "fastvit_t8"),
)
SIDE_PX = 64
BATCH_SIZE = 32
STEPS = 2


def milliseconds_an_image(work: Callable[[], object]) -> float:
    begun = time.process_time()
    for _ in range(STEPS):
        work()
    return 1000 * (time.process_time() - begun) / STEPS / BATCH_SIZE


def measure(name: str, rounds: int) -> dict[str, float | str]:
    """Medians of one network."""
    encoder = Encoder.create(name, SIDE_PX).train()
    images = torch.randint(0, 256, (BATCH_SIZE, 1, SIDE_PX, SIDE_PX), dtype=torch.uint8)

    def forward(in_bf16: bool) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=in_bf16):
            return encoder(images)

    def step(in_bf16: bool) -> None:
        forward(in_bf16).float().pow(2).mean().backward()

    def look(in_bf16: bool) -> None:
        with torch.no_grad():
            forward(in_bf16)

    works = {
        f"{title}, {precision}": partial(work, precision == "bf16")
        for title, work in (("step", step), ("forward", look))
        for precision in ("fp32", "bf16")
    }
    for work in works.values():
        work()
    took: dict[str, list[float]] = {title: [] for title in works}
    for _ in range(rounds):
        for title, work in works.items():
            took[title].append(milliseconds_an_image(work))
    chosen = "bf16" if cpu_learns_in_bf16(encoder, SIDE_PX) else "fp32"
    medians = {title: round(statistics.median(times), 2) for title, times in took.items()}
    return medians | {"learned in": chosen}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", nargs="+", default=NETWORKS, metavar="NAME", help="of timm")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    table = Table("network", "step fp32", "step bf16", "forward fp32", "forward bf16", "learned in")
    made = {}
    for name in options.networks:
        made[name] = measure(name, options.rounds)
        table.add_row(name, *map(str, made[name].values()))
    Console().print(table)
    keep("training_precision", made)


if __name__ == "__main__":
    main()
