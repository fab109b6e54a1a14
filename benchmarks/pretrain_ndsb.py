"""The encoder that the benchmarks start from: SimCLR on the images of `ndsb` that are not held out.

    python -m benchmarks.pretrain_ndsb path/to/ndsb

Killed, it goes on after its last epoch. What it keeps in `benchmarks/encoders/` is in 16 bits, half
the size; `Encoder.load` makes 32 of them again.
"""

from __future__ import annotations

import argparse
import logging
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from benchmarks.ndsb import manifest_of, read_table
from simclr.encoder import DEFAULT_BACKBONE, DEFAULT_IMAGE_SIZE_PX, Encoder
from simclr.pretrain import pretrain
from simclr.settings import METHODS, SimCLRSettings

HERE = Path(__file__).parent
WORK = HERE / "work"
ENCODERS = HERE / "encoders"
EPOCHS = 36
VIEW_SHARE = 1.0


def keep(run: Path, folder: Path) -> Path:
    """Copy a run's encoder, in 16 bits, with its record and its progress."""
    encoder = folder / "encoder"
    encoder.mkdir(parents=True, exist_ok=True)
    tensors = load_file(run / "encoder" / "model.safetensors")
    halved = {
        name: (tensor.half() if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in tensors.items()
    }
    save_file(halved, encoder / "model.safetensors", metadata={"format": "pt"})
    shutil.copy(run / "encoder" / "config.json", encoder)
    for name in ("run.json", "metrics.csv"):
        shutil.copy(run / name, folder)
    return encoder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of ndsb, with labels.csv")
    parser.add_argument("--backbone", default=DEFAULT_BACKBONE)
    parser.add_argument("--image-size", type=int, default=DEFAULT_IMAGE_SIZE_PX)
    parser.add_argument("--method", choices=METHODS, default="simclr")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--view-share", type=float, default=VIEW_SHARE)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    table = read_table(arguments.data)
    rest = table[~table["held_out"]]
    name = f"ndsb-{arguments.backbone}"
    if arguments.method != "simclr":
        name += f"-{arguments.method}"
    settings = SimCLRSettings.of(
        arguments.method, view_share=arguments.view_share, seed=arguments.seed
    )
    torch.manual_seed(settings.seed)
    pretrain(
        manifest_of(rest, arguments.data),
        Encoder.create(arguments.backbone, arguments.image_size),
        WORK / "pretrain" / name,
        arguments.epochs,
        labels=dict(zip(rest["image"], rest["functional_group"], strict=True)),
        cache_folder=WORK / "cache",
        settings=settings,
    )
    print(keep(WORK / "pretrain" / name, ENCODERS / name))


if __name__ == "__main__":
    main()
