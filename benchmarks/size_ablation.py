"""What knowing the size of an organism buys: the same training with and without its extents.

    python -m benchmarks.size_ablation path/to/ndsb

Every image is scaled to the same square, so its pixels do not tell its size; the heads get the log
extents beside the features (`ml_backend.model.size_inputs`), or not (`FitSettings.use_size`). The
pixel size of `ndsb` is one for all images, so extents in px stand for those in µm. Labels are a
share of the images that are not held out; the held-out ones (SHA-256 of the file name is 0 modulo
5) only measure. With heads on frozen features, and with the whole network. A ridge regression from
features to the log extents says how much of the size they know anyway: scaling leaves its traces.
"""

from __future__ import annotations

import logging
import shutil
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.linear_model import RidgeCV
from sklearn.metrics import r2_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.cells import finished, read_options, run_and_show, run_cells
from benchmarks.ndsb import LABEL_SETS, read_table, schema_of, subset
from benchmarks.training import evaluate_on, heads_only, inputs_of, train_on
from hpc_jobs import progress
from ml_backend.fit import FitSettings
from ml_backend.model import TraitModel
from simclr.encoder import Encoder

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "size_ablation"
WORK = HERE / "work" / "size_ablation"
SEEDS = (0, 1, 2)
SHARES = (0.01, 0.1)
NETWORK_SHARE = 0.1
FIGURES = ("macro_recall", "micro_accuracy", "macro_f1", "ece", "nll")
SIDES = ("long", "short")  # of an image; the first two size inputs are their logarithms
MIN_SUPPORT = 20  # held-out images of a label whose own gain is worth showing


@dataclass(frozen=True)
class Cell:
    """One training: of what, from how many labels, how deep, and whether it knows the size."""

    trained: str
    labels: str
    share: float
    size: bool
    seed: int

    @property
    def name(self) -> str:
        size = "size" if self.size else "no-size"
        return f"{self.trained}-{self.labels}-{100 * self.share:g}pct-{size}-seed{self.seed}"


def cells() -> list[Cell]:
    """Heads for both label sets and shares, then the whole network for the groups at one share."""
    heads = product(("heads",), ("groups", "classes"), SHARES, SEEDS, (True, False))
    network = product(("network",), ("groups",), (NETWORK_SHARE,), SEEDS, (True, False))
    return [
        Cell(trained, labels, share, size, seed)
        for trained, labels, share, seed, size in [*heads, *network]
    ]


def run(cell: Cell, folder: Path, encoder: Path) -> dict[str, Any]:
    """Train one cell and score it on the held-out images."""
    began_s = time.monotonic()
    table = read_table(folder)
    some = subset(table, cell.labels, cell.share, cell.seed)
    settings = replace(FitSettings(), seed=cell.seed, use_size=cell.size)
    if cell.trained == "heads":
        settings = heads_only(settings)
    home = WORK / cell.name
    held_out = np.flatnonzero(table["held_out"])
    with progress.quiet():
        report = train_on(some, cell.labels, folder, home, encoder, settings)
        model = TraitModel.load(report.version.folder)
        inputs = inputs_of(model, table, held_out, folder, keep=cell.trained == "heads")
    shutil.rmtree(home)
    truth = table[LABEL_SETS[cell.labels]].to_numpy(dtype=str)
    measured = evaluate_on(model, inputs[held_out], truth[held_out])
    return {
        **asdict(cell),
        "n_labels": len(some),
        "n_held_out": measured["n_images"],
        "kept": report.record["trained"],
        **{name: measured[name] for name in FIGURES},
        "recall": {
            label: entry["recall"]
            for label, entry in measured["per_label"].items()
            if entry["support"] >= MIN_SUPPORT
        },
        "seconds": round(time.monotonic() - began_s, 1),
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


@dataclass(frozen=True)
class Probe:
    """How well the features alone tell the size."""

    name: str = "features-tell-size"


def run_probe(_: Probe, folder: Path, encoder: Path) -> dict[str, Any]:
    """R² on the held-out images of a ridge regression from a share of the others."""
    table = read_table(folder)
    taught = subset(table, "groups", max(SHARES), SEEDS[0]).index.to_numpy()
    held_out = np.flatnonzero(table["held_out"])
    loaded = Encoder.load(encoder)
    model = TraitModel(loaded, [], schema_of(table, "groups"), FitSettings().views)
    with progress.quiet():
        inputs = inputs_of(model, table, np.union1d(taught, held_out), folder, keep=True).numpy()
    features, sides = np.split(inputs[:, : loaded.feature_count + 2], [loaded.feature_count], 1)
    ridge = make_pipeline(StandardScaler(), RidgeCV(np.logspace(0, 4, 9)))
    ridge.fit(features[taught], sides[taught])
    told = ridge.predict(features[held_out])
    r2 = r2_score(sides[held_out], told, multioutput="raw_values")
    return {
        "n_taught": len(taught),
        "n_held_out": len(held_out),
        "r2": {side: round(float(value), 4) for side, value in zip(SIDES, r2, strict=True)},
    }


def show(results: list[dict[str, Any]]) -> None:
    """Macro recall with and without the size; the gain is that of pairs with the same seed."""
    table = pd.DataFrame(results)
    if table.empty:
        print("nothing is finished yet")
        return
    print("trained  labels   share  seeds  macro recall          gain [by seed]            micro")
    for (trained, labels, share), group in table.groupby(["trained", "labels", "share"]):
        pairs = group.pivot(index="seed", columns="size", values=list(FIGURES)).dropna()
        if pairs.empty:
            continue
        macro, micro = pairs["macro_recall"], pairs["micro_accuracy"]
        gain = macro[True] - macro[False]
        print(
            f"{trained:8} {labels:8} {share:>4.0%} {len(pairs):>6}  "
            f"{macro[False].mean():.3f} -> {macro[True].mean():.3f}       "
            f"{gain.mean():+.3f} [{', '.join(f'{g:+.3f}' for g in gain)}]  "
            f"{micro[False].mean():.3f} -> {micro[True].mean():.3f}"
        )
    for probe in finished([Probe()], RESULTS):
        print(f"\nfeatures tell the log extents of held-out images: R² {probe['r2']}")
    _show_labels(table[(table["labels"] == "groups") & (table["share"] == max(SHARES))])


def _show_labels(groups: pd.DataFrame) -> None:
    """Which groups gain and which lose, from heads at the larger share."""
    heads = groups[groups["trained"] == "heads"]
    if heads["size"].nunique() < 2:
        return
    known, unknown = (
        pd.DataFrame(heads.loc[heads["size"] == size, "recall"].tolist()).mean()
        for size in (True, False)
    )
    gain = (known - unknown).sort_values(ascending=False)
    print(f"\nrecall gained by group, heads at {max(SHARES):.0%}, mean over seeds")
    print(", ".join(f"{label} {value:+.2f}" for label, value in gain.items()))
    print(f"mean {np.mean(gain):+.3f}")


def told(result: dict[str, Any]) -> str:
    """What is said of a cell when it is done."""
    name = "with" if result["size"] else "without"
    return (
        f"{result['trained']} {result['labels']} {result['share']:.0%} seed {result['seed']} "
        f"{name} size: macro recall {result['macro_recall']:.3f}, {result['seconds']} s"
    )


def main() -> None:
    arguments = read_options(__doc__, "heads-groups-*")
    logging.basicConfig(level=logging.ERROR)
    probe = partial(run_probe, folder=arguments.data, encoder=arguments.encoder)
    for result in run_cells([Probe()], RESULTS, arguments, probe):
        print(f"features tell the log extents: R² {result['r2']}", flush=True)
    run_and_show(arguments, cells(), RESULTS, run, told, show)


if __name__ == "__main__":
    main()
