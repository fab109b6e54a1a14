"""Which way of training serves rare labels best: sampling, the loss, or heads fitted anew.

    python -m benchmarks.rare_classes path/to/ndsb

The whole network is trained on a tenth of the labels of 121 classes, 1 to 130 images of each, from
the same encoder and with the same steps; only the way that rare labels count is changed. Every
model is scored twice: on images that are not held out and taught nothing (SHA-256 of the file name
is 1 modulo 5), which choose the default, and on the held-out ones (0 modulo 5), which report it.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.cells import read_options, run_and_show
from benchmarks.ndsb import LABEL_SETS, read_table, remainder, subset
from benchmarks.training import evaluate_on, inputs_of, train_on
from hpc_jobs import progress
from ml_backend.fit import FitSettings
from ml_backend.model import TraitModel
from ml_backend.ways import RARE_WAYS, RareWay

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "rare_classes"
WORK = HERE / "work" / "rare_classes"
LABELS, SHARE = "classes", 0.1
SEEDS = (0, 1, 2)
RARE = 10  # labels at most, of those that teach, choose and temper
FIGURES = ("macro_recall", "micro_accuracy", "macro_f1", "ece", "ece_classwise", "nll")
WAYS: dict[str, RareWay] = {
    "as they come": RARE_WAYS["as-they-come"],
    "square root": RARE_WAYS["square-root"],
    "balanced": RARE_WAYS["even"],
    "logit adjustment": RARE_WAYS["logit-adjustment"],
    "square root, logit adjustment": RareWay(balance=0.5, logit_adjustment=1.0),
    "square root, heads anew": RARE_WAYS["retrain-heads"],
}


@dataclass(frozen=True)
class Cell:
    """One training: how rare labels count."""

    way: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.way.replace(',', '').replace(' ', '-')}-seed{self.seed}"


def cells() -> list[Cell]:
    """All ways with one seed, then with the next."""
    return [Cell(way, seed) for seed in SEEDS for way in WAYS]


def run(cell: Cell, folder: Path, encoder: Path) -> dict[str, Any]:
    """Train one cell, and score it on the side that chooses and on the held-out images."""
    began_s = time.monotonic()
    table = read_table(folder)
    some = subset(table, LABELS, SHARE, cell.seed)
    home = WORK / cell.name
    sides = _sides(table, some)
    with progress.quiet():
        settings = WAYS[cell.way].of(FitSettings(seed=cell.seed))
        report = train_on(some, LABELS, folder, home, encoder, settings)
        model = TraitModel.load(report.version.folder)
        rows = np.concatenate(list(sides.values()))
        inputs = inputs_of(model, table, rows, folder, keep=False)
    shutil.rmtree(home)
    truth = table[LABEL_SETS[LABELS]].to_numpy(dtype=str)
    taught = some[LABEL_SETS[LABELS]].value_counts()
    rare = set(taught.index[taught <= RARE])
    measured = {}
    for side, chosen in sides.items():
        figures = evaluate_on(model, inputs[chosen], truth[chosen])
        recalls = [e["recall"] for label, e in figures["per_label"].items() if label in rare]
        measured[side] = {name: figures[name] for name in FIGURES}
        measured[side]["n_images"] = len(chosen)
        measured[side]["rare_macro_recall"] = float(np.nanmean(np.array(recalls, dtype=float)))
    return {
        **asdict(cell),
        "n_labels": len(some),
        "n_rare_classes": len(rare),
        "kept": report.record["trained"],
        **measured,
        "seconds": round(time.monotonic() - began_s, 1),
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _sides(table: pd.DataFrame, some: pd.DataFrame) -> dict[str, np.ndarray]:
    chooses = np.array([remainder(name) == 1 for name in table["image"]])
    chooses &= ~table.index.isin(some.index)
    return {"choosing": np.flatnonzero(chooses), "held_out": np.flatnonzero(table["held_out"])}


def show(results: list[dict[str, Any]]) -> None:
    """Macro recall of all classes first, then of the rare ones; means over seeds."""
    if not results:
        print("nothing is finished yet")
        return
    print(f"{'side':9} {'way':30} seeds  macro  rare (<= {RARE})  micro  ECE    NLL")
    for side in ("choosing", "held_out"):
        table = pd.DataFrame([{"way": r["way"], **r[side]} for r in results])
        for way in WAYS:
            group = table[table["way"] == way]
            if len(group):
                mean = group.drop(columns="way").mean()
                print(
                    f"{side:9} {way:30} {len(group):>5}  {mean['macro_recall']:.3f}  "
                    f"{mean['rare_macro_recall']:.3f}         {mean['micro_accuracy']:.3f}  "
                    f"{mean['ece']:.3f}  {mean['nll']:.3f}"
                )


def told(result: dict[str, Any]) -> str:
    """What is said of a cell when it is done."""
    macro_recall = result["choosing"]["macro_recall"]
    name = f"{result['way']}, seed {result['seed']}"
    return f"{name}: macro recall {macro_recall:.3f}, {result['seconds']} s"


def main() -> None:
    run_and_show(read_options(__doc__, "*-seed0"), cells(), RESULTS, run, told, show)


if __name__ == "__main__":
    main()
