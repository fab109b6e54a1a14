"""Which score tells images of labels that nobody taught from those of labels that were taught?

    python -m benchmarks.novelty path/to/ndsb

Each seed leaves a third of the labels out, every label once: 7 of the 21 functional groups, or, the
harder variant, 40 of the 121 source classes. A model learns the others from 10 % of the images that
are not held out, through `planktrait`'s own `train`, as heads on frozen features or as a whole
network, which `train` keeps only where it is better on the validation side. Each score of
`benchmarks/novelty_scores.py` then says how novel images are, and AUROC how well that tells those
of a left-out label from the rest: the mean over left-out labels first (macro), all of them together
beside it.

A score is chosen on images that are not held out and that taught nothing; the held-out ones
(SHA-256 of the file name is 0 modulo 5) only report. The encoder learned, without labels, from
images of every label, of the left-out ones too: novel here is what was never named, not what was
never seen.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from benchmarks.cells import read_options, run_and_show
from benchmarks.ndsb import CONTROL, LABEL_SETS, read_table, subset
from benchmarks.novelty_scores import SCORES, Described, Taught
from benchmarks.training import RULE, heads_only, inputs_of, train_on
from hpc_jobs import progress
from ml_backend.fit import FitSettings
from ml_backend.model import TraitModel

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "novelty"
WORK = HERE / "work" / "novelty"
SEEDS = (0, 1, 2)
SHARE = 0.1
POOL = 3000
MIN_IMAGES = 10
FALSE_ALARMS = 0.05


@dataclass(frozen=True)
class Cell:
    """One training: of which labels, how deep; the seed says which third of them is left out."""

    trained: str
    labels: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.trained}-{self.labels}-seed{self.seed}"


def cells() -> list[Cell]:
    """The quick ones first."""
    return [
        Cell(trained, labels, seed)
        for trained in ("heads", "network")
        for seed in SEEDS
        for labels in LABEL_SETS
    ]


def left_out(table: pd.DataFrame, labels: str, seed: int) -> list[str]:
    """The labels that are not taught: each in one of the three seeds."""
    every = sorted(table[LABEL_SETS[labels]].unique())
    shuffled = np.random.default_rng(0).permutation(every)
    return sorted(shuffled[seed :: len(SEEDS)].tolist())


def run(cell: Cell, folder: Path, encoder: Path) -> dict[str, Any]:
    """Train one cell; score the images to choose by, and the held-out ones."""
    began_s = time.monotonic()
    table = read_table(folder)
    truth = table[LABEL_SETS[cell.labels]]
    untaught = left_out(table, cell.labels, cell.seed)
    some = subset(table[~truth.isin(untaught)], cell.labels, SHARE, cell.seed)
    settings = replace(FitSettings(), seed=cell.seed)
    if cell.trained == "heads":
        settings = heads_only(settings)
    home = WORK / cell.name
    with progress.quiet():
        report = train_on(some, cell.labels, folder, home, encoder, settings)
        scored = scores_of(TraitModel.load(report.version.folder), table, some, cell, folder)
    shutil.rmtree(home)
    return {
        **asdict(cell),
        "left_out": untaught,
        "n_taught": len(some),
        "kept": report.record["trained"],
        **scored,
        "seconds": round(time.monotonic() - began_s, 1),
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def scores_of(
    model: TraitModel, table: pd.DataFrame, some: pd.DataFrame, cell: Cell, folder: Path
) -> dict[str, Any]:
    """How well each score tells left-out labels: on images to choose by, and on held-out ones."""
    pool = np.random.default_rng(0).permutation(table.index[~table["held_out"]])[:POOL]
    sides = {
        "choice": np.setdiff1d(pool, some.index),
        "held_out": np.flatnonzero(table["held_out"]),
    }
    teaching = some.index[[RULE.side(name) == "train" for name in some["image"]]].to_numpy()
    rows = np.concatenate([teaching, *sides.values()])
    inputs = inputs_of(model, table, rows, folder, keep=cell.trained == "heads")
    head = model.head(CONTROL)
    truth = table[LABEL_SETS[cell.labels]].to_numpy()
    weights = model.classifiers[0].state_dict()
    taught = Taught(
        _described(model, inputs[teaching]),
        np.array([head.labels.index(label) for label in truth[teaching]]),
        weights["weight"].numpy().astype(float),
        weights["bias"].numpy().astype(float),
    )
    result: dict[str, Any] = {}
    for side, of_side in sides.items():
        images = _described(model, inputs[of_side])
        labels = truth[of_side]
        novel = ~np.isin(labels, head.labels)
        result[side] = {
            "n_known": int((~novel).sum()),
            "n_novel": int(novel.sum()),
            "scores": {
                name: separation(score(taught, images), labels, novel)
                for name, score in SCORES.items()
            },
        }
    return result


def separation(score: np.ndarray, labels: np.ndarray, novel: np.ndarray) -> dict[str, float]:
    """How well a score tells novel images from the others.

    Parameters
    ----------
    score : array (n,)
        Larger is more novel.
    labels : array (n,)
    novel : bool array (n,)

    Returns
    -------
    dict
        macro_auroc: the mean over novel labels with `MIN_IMAGES` images of the AUROC against all
        that is not novel; auroc: of all novel images together; found: the share of them with a
        score above all but 5 % of what is not novel, mean over the same labels.
    """
    alarm = np.quantile(score[~novel], 1 - FALSE_ALARMS)
    by_label = []
    for label in np.unique(labels[novel]):
        mine = labels == label
        if mine.sum() >= MIN_IMAGES:
            some = mine | ~novel
            by_label.append((roc_auc_score(mine[some], score[some]), (score[mine] > alarm).mean()))
    macro, found = np.mean(by_label, axis=0)
    return {
        "macro_auroc": round(float(macro), 4),
        "auroc": round(float(roc_auc_score(novel, score)), 4),
        "found": round(float(found), 4),
    }


def _described(model: TraitModel, inputs: Tensor) -> Described:
    """What the model makes of images, from the inputs of its heads (n, d + 5)."""
    with torch.no_grad():
        logits = model.classify(inputs)[CONTROL].numpy().astype(float)
    features = inputs[:, : model.encoder.feature_count].numpy()
    assert model.novelty is not None
    standard = (inputs - model.input_mean) / model.input_scale
    return Described(
        features.astype(float),
        standard.numpy().astype(float),
        logits,
        model.head(CONTROL).answer(logits),
        model.novelty.score(features),
    )


def table_of(results: list[dict[str, Any]]) -> pd.DataFrame:
    """One row a cell, side and score."""
    return pd.DataFrame(list(_rows(results)))


def _rows(results: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for result in results:
        for side in ("choice", "held_out"):
            for score, figures in result[side]["scores"].items():
                cell = {name: result[name] for name in ("trained", "labels", "seed", "kept")}
                yield {**cell, "side": side, "score": score, **figures}


def show(results: list[dict[str, Any]]) -> None:
    """AUROC by score, best on the images to choose by first; mean and range over seeds."""
    table = table_of(results)
    if table.empty:
        print("nothing is finished yet")
        return
    choice = table[table["side"] == "choice"].groupby("score")["macro_auroc"].mean()
    order = choice.sort_values(ascending=False).index
    for (trained, labels), part in table.groupby(["trained", "labels"]):
        kept = part.drop_duplicates("seed")["kept"].value_counts()
        print(f"\n{trained}, {labels}: {', '.join(f'{n} × {what}' for what, n in kept.items())}")
        print(f"{'score':32} choice  held out: macro AUROC    all    found at 5 % false alarms")
        for score in order:
            chosen, reported = (
                part[(part["score"] == score) & (part["side"] == side)]
                for side in ("choice", "held_out")
            )
            macro = reported["macro_auroc"]
            print(
                f"{score:32} {chosen['macro_auroc'].mean():.3f}   "
                f"{macro.mean():.3f} [{macro.min():.3f}, {macro.max():.3f}]     "
                f"{reported['auroc'].mean():.3f}  {reported['found'].mean():.2f}"
            )
    print(f"\nbest on the images to choose by, over all models and variants: {order[0]}")


def told(result: dict[str, Any]) -> str:
    """What is said of a cell when it is done."""
    name = f"{result['trained']} {result['labels']} seed {result['seed']}"
    return f"{name}: {result['kept']}, {result['seconds']} s"


def main() -> None:
    run_and_show(read_options(__doc__, "heads-groups-*"), cells(), RESULTS, run, told, show)


if __name__ == "__main__":
    main()
