"""How many labels are saved by choosing what to label next, against random order.

    python -m benchmarks.active_learning path/to/ndsb

21 functional groups. Each cell (strategy, seed) labels 50 images, trains, asks `choose_next` for
as many again, and so on to 1,600, as a project would: heads on the frozen features of a SimCLR
encoder, refitted in each round through `planktrait`'s own `train`. Without a model yet, the first
50 are chosen for diversity (at random for "random"). Macro recall is that of the suggestions for
the held-out images, which are never among those to choose from.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.active_learning_plot import draw
from benchmarks.cells import OfResult, read_options, run_and_show
from benchmarks.feature_bank import ndsb_features
from benchmarks.ndsb import CONTROL, LABEL_SETS, schema_of, tasks_of
from benchmarks.training import evaluate_on, heads_only, inputs_of, train_tasks
from hpc_jobs import progress
from ml_backend.fit import FitSettings
from ml_backend.model import TraitModel
from ml_backend.what_next import STRATEGIES, Strategy, choose_next

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "active_learning"
WORK = HERE / "work" / "active_learning"
ROUNDS = (50, 100, 200, 400, 800, 1600)
SEEDS = (0, 1, 2)
LABELS = "groups"


@dataclass(frozen=True)
class Cell(OfResult):
    """One project's life: how it chooses, and the seed of chance."""

    strategy: Strategy
    seed: int

    @property
    def name(self) -> str:
        return f"{self.strategy}-seed{self.seed}"


def cells() -> list[Cell]:
    """All of them, a seed of each strategy first."""
    return [Cell(strategy, seed) for seed in SEEDS for strategy in STRATEGIES]


def run(cell: Cell, folder: Path, encoder: Path) -> dict[str, Any]:
    """Label in rounds; what the suggestions are worth after each."""
    began_s = time.monotonic()
    table, features = ndsb_features(folder, encoder)
    pool = np.flatnonzero(~table["held_out"])
    labelled = np.zeros(len(pool), dtype=bool)
    confidence: np.ndarray | None = None
    rounds = []
    for n_labels in ROUNDS:
        missing = n_labels - int(labelled.sum())
        seed = 1000 * cell.seed + n_labels
        chosen = choose_next(cell.strategy, features[pool], confidence, labelled, missing, seed)
        labelled[chosen] = True
        with progress.quiet():
            measured, confidence = _learn(cell, table, pool, labelled, folder, encoder)
        rounds.append({"n_labels": n_labels, **measured})
    return {
        **asdict(cell),
        "rounds": rounds,
        "seconds": round(time.monotonic() - began_s, 1),
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _learn(
    cell: Cell,
    table: pd.DataFrame,
    pool: np.ndarray,
    labelled: np.ndarray,
    folder: Path,
    encoder: Path,
) -> tuple[dict[str, Any], np.ndarray]:
    """Figures on the held-out images, and the confidence of each image of the pool."""
    home = WORK / cell.name
    shutil.rmtree(home, ignore_errors=True)
    schema = schema_of(table, LABELS)
    some = table.iloc[pool[labelled]]
    settings = replace(heads_only(FitSettings()), seed=cell.seed)
    tasks = tasks_of(some, LABELS, schema)
    report = train_tasks(tasks, schema, folder, home, encoder, settings)
    model = TraitModel.load(report.version.folder)
    shutil.rmtree(home)
    inputs = inputs_of(model, table, np.arange(len(table)), folder, keep=True)
    held_out = np.flatnonzero(table["held_out"])
    truth = table[LABEL_SETS[LABELS]].to_numpy(dtype=str)
    figures = evaluate_on(model, inputs[held_out], truth[held_out])
    (head,) = model.heads
    answers = head.answer(model.classify(inputs[pool])[CONTROL].detach().numpy())
    measured = {name: figures[name] for name in ("macro_recall", "micro_accuracy", "ece")}
    rest = pool[~labelled]
    measured["pool_macro_recall"] = evaluate_on(model, inputs[rest], truth[rest])["macro_recall"]
    measured["groups_seen"] = int(some[LABEL_SETS[LABELS]].nunique())
    return measured, answers.max(axis=1)


def labels_needed(rounds: list[dict[str, Any]], macro_recall: float) -> float:
    """Labels at which a macro recall is reached, between rounds on a log scale; NaN without."""
    counts = np.log([entry["n_labels"] for entry in rounds])
    reached = np.maximum.accumulate([entry["macro_recall"] for entry in rounds])
    if macro_recall > reached[-1]:
        return float("nan")
    after = int(np.argmax(reached >= macro_recall))
    if after == 0:
        return float(np.exp(counts[0]))
    low, high = reached[after - 1], reached[after]
    share = (macro_recall - low) / (high - low)
    return float(np.exp(counts[after - 1] + share * (counts[after] - counts[after - 1])))


def show(results: list[dict[str, Any]]) -> None:
    """Macro recall by strategy and number of labels, and the labels needed against random."""
    if not results:
        print("nothing is finished yet")
        return
    rows = pd.DataFrame(
        [
            {key: result[key] for key in ("strategy", "seed")} | entry
            for result in results
            for entry in result["rounds"]
        ]
    )
    for figure in ("macro_recall", "pool_macro_recall", "micro_accuracy", "groups_seen"):
        print(f"\n{figure}: mean over seeds")
        print(rows.pivot_table(figure, "strategy", "n_labels").loc[_order(rows)].round(3))
    lasts = rows[(rows["strategy"] == "random") & (rows["n_labels"] == ROUNDS[-1])]
    if len(lasts):
        goal = float(lasts["macro_recall"].mean())
        print(f"\nlabels needed for the macro recall of {ROUNDS[-1]} at random ({goal:.3f}):")
        for strategy in _order(rows):
            needed = [
                labels_needed(result["rounds"], goal)
                for result in results
                if result["strategy"] == strategy
            ]
            told_of = [f"{n:.0f}" if np.isfinite(n) else "not reached" for n in needed]
            print(f"  {strategy:12} {', '.join(told_of)}")
    draw(results, RESULTS.parent / "active_learning.svg")


def _order(rows: pd.DataFrame) -> list[str]:
    return [strategy for strategy in STRATEGIES if strategy in set(rows["strategy"])]


def told(result: dict[str, Any]) -> str:
    """What is said of a cell when it is done."""
    curve = ", ".join(f"{entry['macro_recall']:.3f}" for entry in result["rounds"])
    return f"{result['strategy']}, seed {result['seed']}: {curve} ({result['seconds']} s)"


def main() -> None:
    options = read_options(__doc__ or "", "mixture-*")
    run_and_show(options, cells(), RESULTS, run, told, show)


if __name__ == "__main__":
    main()
