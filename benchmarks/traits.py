"""Traits: are the cells of chains counted right, with honest intervals, and egg sacs found?

    python -m benchmarks.traits path/to/ndsb

Chains: phantoms of three drawn cruises teach (SimCLR without labels, then cell counts), those of a
fourth one, which nobody trained on, are counted. Egg sacs: images of `ndsb` whose class name says
whether there is one; held out are those of `benchmarks/ndsb.py`. What is held out is blind: it
never trains, fits or chooses anything, the width of an interval least of all. Each cell writes its
result when it is done and is skipped when repeated; `--list` and `--only` as elsewhere.
"""

from __future__ import annotations

import logging
import shutil
import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.cells import OfResult, finished, read_options, run_cells
from benchmarks.machine import circumstances
from benchmarks.training import CACHE, heads_only, train_tasks
from benchmarks.traits_images import (
    CONFIG,
    COUNT,
    EGG_SAC,
    answers,
    egg_sacs,
    manifest_of,
    phantoms,
    tasks_of,
)
from benchmarks.traits_plot import draw
from label_studio_config.prediction import interval_columns
from label_studio_config.schema import LabelSchema
from ml_backend.fit import FROM_SCRATCH, FitSettings
from ml_backend.model import TraitModel
from ml_backend.predict import predict
from ml_backend.report import TrainingReport
from simclr.encoder import Encoder
from simclr.pretrain import pretrain

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "traits"
WORK = HERE / "work" / "traits"

N_PRETRAIN, PRETRAIN_EPOCHS = 4_000, 20
RANGES = ((2, 5), (6, 11), (12, 22))
N_LABELS, STARTS, SEEDS = (300, 1000, 2000), ("heads", "real", "simclr", "scratch"), (0, 1, 2)


@dataclass(frozen=True, order=True)
class Cell(OfResult):
    """One training. `n_labels` 0 is all there are.

    It starts from nothing ("scratch"), or from SimCLR on images of its own kind, whose features
    stay as they are ("heads") or are fine-tuned ("simclr"). "real": heads on the features of
    `ndsb`, although what is counted are phantoms.
    """

    trait: str
    n_labels: int
    start: str
    seed: int

    @property
    def name(self) -> str:
        count = self.n_labels or "all"
        return f"{self.trait}-{count}-{self.start}-seed{self.seed}"


def cells() -> list[Cell]:
    """All of them, the quick ones first."""
    # Heads alone are convex, and here they learn from all images: every seed gives the same.
    eggs = [Cell(EGG_SAC, 0, "heads", 0)] + [Cell(EGG_SAC, 0, "simclr", seed) for seed in SEEDS]
    chains = [
        Cell("chains", n, start, seed) for start in STARTS for n in N_LABELS for seed in SEEDS
    ]
    return sorted(eggs + chains, key=lambda cell: STARTS.index(cell.start))


def encoder_of_phantoms(table: pd.DataFrame, root: Path) -> Path:
    """SimCLR on phantoms of every kind of the cruises that teach, without a label."""
    some = table[~table["held_out"]].sample(N_PRETRAIN, random_state=0)
    return pretrain(
        manifest_of(some, root),
        Encoder.create(),
        WORK / "pretrained",
        PRETRAIN_EPOCHS,
        cache_folder=CACHE,
    )


def run(cell: Cell, folder: Path, encoder: Path) -> dict[str, Any]:
    """Train one cell and score what its version predicts on the held-out images."""
    began_s = time.monotonic()
    record = (_run_eggs if cell.trait == EGG_SAC else _run_chains)(cell, folder, encoder)
    return {
        **asdict(cell),
        **record,
        "seconds": round(time.monotonic() - began_s, 1),
        **circumstances(),
    }


def _run_chains(cell: Cell, folder: Path, encoder: Path) -> dict[str, Any]:
    root = WORK / "phantoms"
    everything = phantoms(root)
    starts = {"scratch": None, "real": encoder}
    start = starts[cell.start] if cell.start in starts else encoder_of_phantoms(everything, root)
    chains = everything.dropna(subset="cells").reset_index(drop=True)
    taught = chains[~chains["held_out"]].sample(cell.n_labels, random_state=cell.seed)
    held_out = chains[chains["held_out"]]
    values = answers(chains, "cells", COUNT)
    report, table = _learn(cell, pd.concat([taught, held_out]), values, root, start)
    low, high = (table[name] for name in interval_columns(COUNT))
    truth = held_out.set_index("image").loc[table["image_id"], "cells"].to_numpy()
    return {
        "n_taught": len(taught),
        "n_held_out": len(held_out),
        "trained": report.record["trained"],
        "encoder": report.record["encoder"],
        "settings": report.record["settings"],
        **count_figures(table[COUNT].to_numpy(), low.to_numpy(), high.to_numpy(), truth),
        "mae_of_the_median": float(np.abs(taught["cells"].median() - truth).mean()),
    }


def count_figures(
    predicted: np.ndarray, low: np.ndarray, high: np.ndarray, truth: np.ndarray
) -> dict[str, Any]:
    """Errors of counts (n,), and how often their intervals hold the truth, also by range.

    `mae` is that of whole numbers, as Label Studio shows them.
    """
    error = np.abs(np.round(predicted) - truth)
    held = (low <= truth) & (truth <= high)
    by_range = {}
    for first, last in RANGES:
        mine = (first <= truth) & (truth <= last)
        if mine.any():
            by_range[f"{first}-{last}"] = {
                "n": int(mine.sum()),
                "mae": float(error[mine].mean()),
                "coverage": float(held[mine].mean()),
                "width": float((high - low)[mine].mean()),
            }
    return {
        "mae": float(error.mean()),
        "mae_unrounded": float(np.abs(predicted - truth).mean()),
        "exact": float((error == 0).mean()),
        "bias": float((predicted - truth).mean()),
        "coverage": float(held.mean()),
        "width": float((high - low).mean()),
        "by_range": by_range,
    }


def _run_eggs(cell: Cell, folder: Path, encoder: Path) -> dict[str, Any]:
    table = egg_sacs(folder)
    values = answers(table, EGG_SAC, EGG_SAC)
    report, predicted = _learn(cell, table, values, folder, encoder)
    measured = report.metrics["blind"][EGG_SAC]
    told = table.set_index("image").loc[predicted["image_id"]]
    right = predicted[EGG_SAC].to_numpy() == told[EGG_SAC].to_numpy()
    by_class = pd.Series(right).groupby(told["source_class"].to_numpy()).agg(["size", "mean"])
    return {
        "n_taught": int((~table["held_out"]).sum()),
        "n_held_out": measured["n_images"],
        "trained": report.record["trained"],
        "encoder": report.record["encoder"],
        "settings": report.record["settings"],
        **{k: measured[k] for k in ("macro_recall", "macro_recall_interval", "micro_accuracy")},
        **{k: measured[k] for k in ("ece", "ece_adaptive", "nll", "brier", "per_label")},
        "right_by_source_class": {k: [int(n), float(r)] for k, (n, r) in by_class.T.items()},
    }


def _learn(
    cell: Cell, table: pd.DataFrame, values: dict[str, Any], root: Path, encoder: Path | None
) -> tuple[TrainingReport, pd.DataFrame]:
    """Train as `planktrait train` does; the report, and the predictions of the held-out images."""
    schema = LabelSchema.from_xml(CONFIG)
    home = WORK / cell.name
    shutil.rmtree(home, ignore_errors=True)
    tasks = tasks_of(table, values, schema)
    report = train_tasks(tasks, schema, root, home, encoder, settings_of(cell))
    model = TraitModel.load(report.version.folder)
    predictions = predict(model, manifest_of(table[table["held_out"]], root))
    shutil.rmtree(home)
    return report, predictions.table().to_pandas()


def settings_of(cell: Cell) -> FitSettings:
    """The product's defaults for the kind of start."""
    settings = replace(FROM_SCRATCH if cell.start == "scratch" else FitSettings(), seed=cell.seed)
    return heads_only(settings) if cell.start in ("heads", "real") else settings


def show(results: list[dict[str, Any]]) -> None:
    """Mean over seeds and, in brackets, their range."""
    chains = pd.DataFrame([r for r in results if r["trait"] == "chains"])
    if len(chains):
        print("counted  start    seeds  MAE                   coverage              width")
        for key, group in chains.groupby(["n_labels", "start"]):
            figures = "  ".join(_range(group[name]) for name in ("mae", "coverage"))
            print(
                f"{key[0]:>7}  {key[1]:7} {len(group):>6}  {figures}  {group['width'].mean():.2f}"
            )
    for result in results:
        if result["trait"] == EGG_SAC:
            print(
                f"egg sacs, {result['start']}, seed {result['seed']}: "
                f"macro recall {result['macro_recall']:.3f}, ECE {result['ece']:.3f}, "
                f"{result['n_held_out']} held out"
            )


def _range(values: pd.Series) -> str:
    return f"{values.mean():.3f} [{values.min():.3f}, {values.max():.3f}]"


def main() -> None:
    arguments = read_options(__doc__, "chains-300-*")
    logging.basicConfig(level=logging.WARNING)
    run_one = partial(run, folder=arguments.data, encoder=arguments.encoder)
    for result in run_cells(cells(), RESULTS, arguments, run_one):
        figure = "macro_recall" if result["trait"] == EGG_SAC else "mae"
        print(f"{Cell.of(result).name}: {figure} {result[figure]:.3f}", flush=True)
    results = finished(cells(), RESULTS)
    show(results)
    if not arguments.list and any(result["trait"] == "chains" for result in results):
        draw(results, RESULTS / "chains.svg")


if __name__ == "__main__":
    main()
