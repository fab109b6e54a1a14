"""What makes SimCLR learn plankton: one axis at a time from the defaults.

    python -m benchmarks.simclr_ablation path/to/ndsb

Every cell is one `pretrain` of 10 epochs without labels on the images that are not held out, judged
by neighbours (kNN) and by a linear probe, on 21 groups and 121 classes, twice:

- to choose by: learned from the images whose SHA-256 of the file name is 2, 3 or 4 modulo 5, found
  in those where it is 1;
- to report: learned from 1 to 4, found in the held-out ones (0), which choose nothing.

Each cell writes its result when it is done and is skipped when repeated; one that is killed goes on
after its last epoch. `--list` says what there is to do, `--only` picks some of it, `--images 300
--epochs 1` tries it all out, with results of its own.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import time
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.cells import add_options, finished, run_cells
from benchmarks.machine import circumstances
from benchmarks.ndsb import LABEL_SETS, manifest_of, read_table, remainder
from benchmarks.simclr_ablation_plot import draw, show
from simclr.augment import Augmentation
from simclr.embed import embed
from simclr.encoder import DEFAULT_BACKBONE, DEFAULT_IMAGE_SIZE_PX, Encoder
from simclr.knn import knn_transfer
from simclr.pretrain import SimCLRSettings, pretrain
from simclr.probe import linear_probe
from simclr.settings import METHODS

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "simclr_ablation"
WORK = HERE / "work" / "simclr_ablation"
EPOCHS = 10
OFF: dict[str, dict[str, Any]] = {
    "rotation": {"rotation_degrees": 0.0},
    "flip": {"flip_probability": 0.0},
    "scale": {"scale": (1.0, 1.0)},
    "shift": {"shift": 0.0},
    "stretch": {"stretch": 0.0},
    "contrast": {"contrast": 0.0},
    "brightness": {"brightness": 0.0},
    "gamma": {"gamma": 0.0},
    "noise": {"noise": 0.0},
    "blur": {"blur_probability": 0.0},
}


@dataclass(frozen=True)
class Cell:
    """One pretraining: what is changed of the defaults."""

    axis: str
    value: str
    backbone: str = DEFAULT_BACKBONE
    image_size_px: int = DEFAULT_IMAGE_SIZE_PX
    settings: SimCLRSettings = field(default_factory=SimCLRSettings)

    @property
    def name(self) -> str:
        return f"{self.axis}-{self.value}" if self.value else self.axis


def cells() -> list[Cell]:
    """All of them; the defaults stand for their own value on every axis."""
    made = [Cell("defaults", "")]
    for name, changes in OFF.items():
        made.append(Cell("without", name, settings=_settings(augmentation=Augmentation(**changes))))
    made += [Cell("size", f"{size_px}px", image_size_px=size_px) for size_px in (48, 96)]
    made += [Cell("backbone", name, name) for name in ("resnet18", "mobilenetv4_conv_small")]
    made += [Cell("temperature", f"{t:g}", settings=_settings(temperature=t)) for t in (0.1, 0.5)]
    made += [Cell("view", f"{s:g}", settings=_settings(view_share=s)) for s in (0.75, 1.0)]
    made += [Cell("rate", f"{r:g}", settings=_settings(learning_rate=r)) for r in (1e-3, 4e-3)]
    made += [Cell("warmup", f"{w:g}", settings=_settings(warmup=w)) for w in (0.05, 0.4)]
    made += [
        Cell("batch", "128", settings=_settings(batch_size=128)),
        # More views than fit into little memory: their gradient is cached.
        Cell("batch", "1024", settings=_settings(batch_size=1024, chunk_size=512)),
    ]
    made += [
        Cell("method", name, settings=SimCLRSettings.of(name))
        for name in METHODS
        if name != "simclr"
    ]
    return made


def _settings(**changes: Any) -> SimCLRSettings:
    return replace(SimCLRSettings(), **changes)


def run(cell: Cell, table: pd.DataFrame, folder: Path, epochs: int, work: Path) -> dict[str, Any]:
    """Pretrain one cell, and judge its features."""
    began_s = time.monotonic()
    torch.manual_seed(cell.settings.seed)
    learned = pretrain(
        manifest_of(table[~table["held_out"]], folder),
        Encoder.create(cell.backbone, cell.image_size_px),
        work / cell.name,
        epochs,
        cache_folder=WORK / "cache",
        settings=cell.settings,
    )
    pretrain_s = time.monotonic() - began_s
    image_ids, features, _ = embed(
        Encoder.load(learned), manifest_of(table, folder), cache_folder=WORK / "cache"
    )
    history = pd.read_csv(work / cell.name / "metrics.csv")
    result = {
        "name": cell.name,
        "axis": cell.axis,
        "value": cell.value,
        "backbone": cell.backbone,
        "image_size_px": cell.image_size_px,
        "settings": asdict(cell.settings),
        "epochs": epochs,
        "n_images": int((~table["held_out"]).sum()),
        "loss": float(history["loss"].iloc[-1]),
        **judge(features, table.set_index("image").loc[image_ids].reset_index()),
        # Of this call, and of all epochs wherever the run was interrupted.
        "seconds": round(time.monotonic() - began_s, 1),
        "judging_seconds": round(time.monotonic() - began_s - pretrain_s, 1),
        "pretrain_seconds": round(float(history["seconds"].sum()), 1),
        **circumstances(),
    }
    shutil.rmtree(work / cell.name)
    return result


def judge(features: np.ndarray, table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Macro recall and accuracy of kNN and of a linear probe.

    Parameters
    ----------
    features : float array, shape (n, d)
    table : pd.DataFrame
        As `read_table` makes it, n rows in the same order.
    """
    held_out = table["held_out"].to_numpy()
    chosen_by = np.array([remainder(name) == 1 for name in table["image"]])
    sides = {
        "choosing": (~held_out & ~chosen_by, chosen_by & ~held_out),
        "held_out": (~held_out, held_out),
    }
    figures: dict[str, dict[str, Any]] = {}
    for side, (known, unknown) in sides.items():
        figures[side] = {"n_images": int(unknown.sum())}
        for labels, column in LABEL_SETS.items():
            names = table[column].to_numpy(dtype=str)
            sets = (features[known], names[known], features[unknown], names[unknown])
            for judged, accuracy in (("knn", knn_transfer(*sets)), ("probe", linear_probe(*sets))):
                figures[side][f"{labels}_{judged}_macro"] = round(accuracy.macro, 4)
                figures[side][f"{labels}_{judged}_micro"] = round(accuracy.micro, 4)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of ndsb, with labels.csv")
    add_options(parser, "method-*")
    parser.add_argument("--images", type=int, help="a random sample of so many images")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    table, results, work = read_table(arguments.data), RESULTS, WORK
    if arguments.images or arguments.epochs != EPOCHS:
        trial = f"trial-{arguments.images or len(table)}-images-{arguments.epochs}-epochs"
        table = table.sample(arguments.images or len(table), random_state=0).sort_index()
        results = work = WORK / trial
    run_one = partial(run, table=table, folder=arguments.data, epochs=arguments.epochs, work=work)
    for result in run_cells(cells(), results, arguments, run_one):
        minutes = result["seconds"] / 60
        print(
            f"{result['name']}: probe macro recall of groups "
            f"{result['choosing']['groups_probe_macro']:.3f}, {minutes:.1f} min",
            flush=True,
        )
    if not arguments.list:
        show(finished(cells(), results))
        draw(finished(cells(), results), results.parent / f"{results.name}.svg")


if __name__ == "__main__":
    main()
