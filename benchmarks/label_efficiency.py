"""How many labels it takes: from scratch, after SimCLR, self-trained, and on ImageNet's features.

    python -m benchmarks.label_efficiency path/to/ndsb

Every cell (method, label set, share of the labels, seed) is one training through `planktrait`'s
own `train`, on a share of the images that are not held out; the held-out ones (SHA-256 of the file
name is 0 modulo 5) are blind: they never train, fit or choose anything. Each cell writes its
result when it is done and is skipped when repeated, so the script can be stopped and started.
`--list` says what there is to do, `--only` picks some of it.

Fewer than 1,000 labels are calibrated by all of them, each fifth judged by a model of the others;
"simclr-validation" is the same training, calibrated by its validation side alone.

What a share of the labels can reach in the way that the product teaches, whatever is learned from
images alone, is told by the cells "bound": they start from a network that was taught all labels of
121 classes (the cell classes-100pct-simclr-seed0, to be run before them).
"""

from __future__ import annotations

import json
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
from benchmarks.imagenet_features import imagenet_features
from benchmarks.label_efficiency_plot import draw
from benchmarks.machine import circumstances
from benchmarks.ndsb import CONTROL, LABEL_SETS, read_table, schema_of, subset, tasks_of
from benchmarks.stages import timed_stages
from benchmarks.training import train_tasks
from hpc_jobs import progress
from ml_backend.evaluate import evaluate_labels
from ml_backend.fit import FROM_SCRATCH, FitSettings
from ml_backend.ways import self_trained

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "label_efficiency"
WORK = HERE / "work" / "label_efficiency"
METHODS = ("scratch", "simclr", "imagenet")
SELF_TRAINED_SHARE = 0.01
BOUND = "bound"
VALIDATION = "simclr-validation"
TAUGHT = "classes-100pct-simclr-seed0"
SELF_TRAINED = self_trained(FitSettings(), most_unlabelled=20_000)
SHARES = {"groups": (0.0025, 0.01, 0.05, 0.1, 1.0), "classes": (0.01, 0.05, 0.1, 1.0)}
SEEDS = (0, 1, 2)
BY_VALIDATION = replace(FitSettings(), cross_fit_below=0)
FROM_ENCODER = {
    "simclr": FitSettings(),
    "self-trained": SELF_TRAINED,
    BOUND: BY_VALIDATION,
    VALIDATION: BY_VALIDATION,
}
CROSS_FITTED_SHARE = 0.05
SMALL_SHARE = 0.1
FIGURES = ("macro_recall", "micro_accuracy", "macro_f1", "ece", "ece_classwise", "nll", "brier")


@dataclass(frozen=True, order=True)
class Cell(OfResult):
    """One training: what it starts from, what it learns, and from how many labels."""

    labels: str
    share: float
    method: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.labels}-{100 * self.share:g}pct-{self.method}-seed{self.seed}"


def cells() -> list[Cell]:
    """All of them, the quick ones first."""
    made = [
        Cell(labels, share, method, seed)
        for labels, shares in SHARES.items()
        for share in shares
        for method in METHODS
        for seed in SEEDS
        # Nothing is drawn where regression learns from all labels.
        if not (method == "imagenet" and share == 1 and seed > 0)
    ]
    made += [
        Cell(labels, SELF_TRAINED_SHARE, "self-trained", seed)
        for labels in SHARES
        for seed in SEEDS
    ]
    made += [
        Cell(labels, share, VALIDATION, seed)
        for labels, shares in SHARES.items()
        for share in shares
        for seed in SEEDS
        if share <= CROSS_FITTED_SHARE
    ]
    made.sort(key=lambda cell: (cell.share, cell.seed, cell.labels, cell.method))
    return made + [Cell("groups", SELF_TRAINED_SHARE, BOUND, seed) for seed in SEEDS]


def settings_of(cell: Cell) -> FitSettings:
    """The product's defaults, but for a baseline from scratch that is trained to its end.

    `train` gives an untrained network 30 epochs, which few labels make too short: here it gets as
    many steps as the yardsticks in the literature of few labels, 1,600 of 64 images or more. Its
    calibration rests on the validation side alone: five more such trainings would take hours.
    """
    if cell.method in FROM_ENCODER:
        return replace(FROM_ENCODER[cell.method], seed=cell.seed)
    epochs = 50 if cell.share <= SMALL_SHARE else 20
    fine_tune = replace(FROM_SCRATCH.fine_tune, epochs=epochs, min_images_per_epoch=2048)
    return replace(FROM_SCRATCH, fine_tune=fine_tune, cross_fit_below=0, seed=cell.seed)


def run(cell: Cell, folder: Path, encoder: Path | None) -> dict[str, Any]:
    """Train one cell and score it on the held-out images."""
    began_s = time.monotonic()
    table = read_table(folder)
    some = subset(table, cell.labels, cell.share, cell.seed)
    if cell.method == "imagenet":
        record = _run_imagenet(cell, table, some, folder)
    else:
        record = _run_train(cell, table, some, folder, encoder)
    return {
        **asdict(cell),
        "n_labels": len(some),
        **record,
        "seconds": round(time.monotonic() - began_s, 1),
        **circumstances(),
    }


def _run_train(
    cell: Cell, table: pd.DataFrame, some: pd.DataFrame, folder: Path, encoder: Path | None
) -> dict[str, Any]:
    if cell.method not in FROM_ENCODER:
        encoder = None
    schema = schema_of(table, cell.labels)
    home = WORK / cell.name
    labelled = table.assign(labelled=table["held_out"] | table.index.isin(some.index))
    with timed_stages() as stage_seconds:
        report = train_tasks(
            tasks_of(labelled, cell.labels, schema),
            schema,
            folder,
            home,
            _taught_encoder() if cell.method == BOUND else encoder,
            settings_of(cell),
        )
    if cell.share < 1:
        shutil.rmtree(home)  # the version of all labels stays, for the other benchmarks
    measured = report.metrics["blind"][CONTROL]
    return {
        "trained": report.record["trained"],
        "encoder": report.record["encoder"],
        "pretraining": _pretraining(encoder),
        "stage_seconds": stage_seconds,
        "settings": report.record["settings"],
        "n_held_out": measured["n_images"],
        **{name: measured.get(name) for name in FIGURES},
    }


def _taught_encoder() -> Path:
    found = sorted((WORK / TAUGHT).glob("*/encoder"))
    if not found:
        raise SystemExit(f"the bound needs the model of {TAUGHT}: run --only {TAUGHT} here first")
    return found[-1]


def _pretraining(encoder: Path | None) -> dict[str, Any] | None:
    """What the run beside the encoder says of itself; the images' names are left out."""
    path = encoder.resolve().parent / "run.json" if encoder else None
    return json.loads(path.read_text(encoding="utf-8")) if path and path.is_file() else None


def _run_imagenet(
    cell: Cell, table: pd.DataFrame, some: pd.DataFrame, folder: Path
) -> dict[str, Any]:
    """Logistic regression on MobileNetV2's ImageNet features and the size: the usual shortcut.

    Balanced by class and not tempered, as one finds it in scripts.
    """
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    column = LABEL_SETS[cell.labels]
    labels = sorted(table[column].unique())
    held_out = table["held_out"].to_numpy()
    y = table[column].to_numpy()
    regression = LogisticRegressionCV(
        Cs=np.logspace(-4, 0, 5), cv=3, class_weight="balanced", max_iter=300, scoring="accuracy"
    )
    model = make_pipeline(StandardScaler(), regression)
    with timed_stages() as stage_seconds:
        progress.report("features of all images, once", 0, 1)
        inputs = imagenet_features(table, folder, HERE / "work" / "imagenet.npz")
        progress.report("regression", 0, 1)
        model.fit(inputs[some.index], y[some.index])
    probabilities = np.zeros((held_out.sum(), len(labels)))
    columns = [labels.index(label) for label in regression.classes_]
    probabilities[:, columns] = model.predict_proba(inputs[held_out])
    truth = np.eye(len(labels))[[labels.index(label) for label in y[held_out]]]
    chosen = np.eye(len(labels), dtype=bool)[probabilities.argmax(axis=1)]
    units = table["image"].to_numpy(dtype=str)[held_out]
    measured = evaluate_labels("one of", labels, probabilities, probabilities, chosen, truth, units)
    return {
        "trained": "logistic regression on ImageNet features and log size",
        "encoder": "torchvision mobilenet_v2, 112 px",
        "stage_seconds": stage_seconds,
        "n_held_out": int(held_out.sum()),
        **{name: measured.get(name) for name in FIGURES},
    }


def show(results: list[dict[str, Any]]) -> None:
    """Macro recall first, micro beside it; mean over seeds and, in brackets, their range."""
    table = pd.DataFrame(results)
    if table.empty:
        print("nothing is finished yet")
        return
    print(
        "labels     share      n method            seeds  "
        "macro recall          micro  ECE    minutes"
    )
    for (labels, share, method), group in table.groupby(["labels", "share", "method"]):
        macro = group["macro_recall"]
        print(
            f"{labels:8} {share:>7.2%} {group['n_labels'].iloc[0]:>6} {method:17} {len(group):>5}  "
            f"{macro.mean():.3f} [{macro.min():.3f}, {macro.max():.3f}]  "
            f"{group['micro_accuracy'].mean():.3f}  {group['ece'].mean():.3f}  "
            f"{group['seconds'].mean() / 60:.1f}"
        )


def main() -> None:
    arguments = read_options(__doc__, "groups-1pct-*")
    logging.basicConfig(level=logging.WARNING)
    run_one = partial(run, folder=arguments.data, encoder=arguments.encoder)
    for result in run_cells(cells(), RESULTS, arguments, run_one):
        print(f"{Cell.of(result).name}: macro recall {result['macro_recall']:.3f}", flush=True)
    results = finished(cells(), RESULTS)
    show(results)
    if results and not arguments.list:
        draw(results, RESULTS.parent / "label_efficiency.svg")


if __name__ == "__main__":
    main()
