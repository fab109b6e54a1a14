"""How far the calibration error of all labels of 121 classes depends on which images tempered.

    python -m benchmarks.calibration_splits path/to/ndsb

Each cell divides the images that are not held out anew into those that teach (85 %) and those that
choose and temper (15 %), and trains through `planktrait`'s own `train`, with its defaults, from the
SimCLR encoder; the held-out images (SHA-256 of the file name is 0 modulo 5) only measure. Beside
the calibration error (ECE, 15 bins) stands what is there by chance: that of scores of the same
sizes which are exactly right. Cells "cross-fitted" calibrate the same models by all images that are
not held out, each fifth judged by a model of the others: five more trainings. Cells are skipped
when repeated and go on where they were ended.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.cells import read_options, run_and_show
from benchmarks.machine import circumstances
from benchmarks.ndsb import CONTROL, LABEL_SETS, read_table, schema_of, tasks_of
from benchmarks.training import evaluate_on, inputs_of, train_tasks
from hpc_jobs import progress
from ml_backend.calibrate import expected_calibration_error
from ml_backend.fit import FitSettings
from ml_backend.model import TraitModel
from ml_backend.schema_change import serve
from ml_backend.ways import calibrated_by_all

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "calibration_splits"
WORK = HERE / "work" / "calibration_splits"
LABELS = "classes"
DIVISIONS = 4
FIGURES = ("macro_recall", "micro_accuracy", "macro_f1", "ece", "ece_classwise", "nll", "brier")
CHANCES = 200


@dataclass(frozen=True)
class Cell:
    """One training; its number says which images teach."""

    division: int
    cross_fitted: bool = False

    @property
    def name(self) -> str:
        end = "-cross-fitted" if self.cross_fitted else ""
        return f"{LABELS}-100pct-division{self.division}{end}"


def run(cell: Cell, folder: Path, encoder: Path) -> dict[str, Any]:
    """Train one cell and score it on the held-out images."""
    began_s = time.monotonic()
    table = read_table(folder)
    schema = schema_of(table, LABELS)
    tasks = tasks_of(table, LABELS, schema)
    for task in tasks:
        # What an image is kept together with decides its side: here each with none but itself.
        task["data"]["sample_id"] = f"division {cell.division}: {task['data']['image_id']}"
    home = WORK / cell.name
    with progress.quiet():
        settings = calibrated_by_all(FitSettings()) if cell.cross_fitted else FitSettings()
        report = train_tasks(tasks, schema, folder, home, encoder, settings, unit="sample")
        model = TraitModel.load(report.version.folder)
        held_out = np.flatnonzero(table["held_out"])
        inputs = inputs_of(model, table, held_out, folder, keep=False)[held_out]
    truth = table[LABEL_SETS[LABELS]].to_numpy(dtype=str)[held_out]
    measured = evaluate_on(model, inputs, truth)
    return {
        **asdict(cell),
        "trained": report.record["trained"],
        "n_held_out": measured["n_images"],
        **{name: measured[name] for name in FIGURES},
        "ece_by_chance": by_chance(model, inputs),
        "seconds": round(time.monotonic() - began_s, 1),
        **circumstances(),
    }


def by_chance(model: TraitModel, inputs: Any) -> float:
    """Mean ECE, were the shown scores exactly right."""
    (served,), _ = serve(model.heads, model.schema)
    logits = model.classify(inputs)[CONTROL].detach().numpy()
    probabilities = served.narrow(served.head.answer(logits))
    confidence = probabilities[served.choose(probabilities)]
    dice = np.random.default_rng(0)
    drawn = [
        expected_calibration_error(confidence, dice.random(len(confidence)) < confidence)
        for _ in range(CHANCES)
    ]
    return float(np.mean(drawn))


def show(results: list[dict[str, Any]]) -> None:
    """One line a division, and the means."""
    if not results:
        print("nothing is finished yet")
        return
    columns = ["macro_recall", "micro_accuracy", "ece", "ece_by_chance", "seconds"]
    table = pd.DataFrame([{"cross_fitted": False} | result for result in results])
    table = table.set_index(["division", "cross_fitted"])[columns]
    print(table.round(4).to_string())
    print(table.groupby("cross_fitted").mean().round(4).to_string())


def main() -> None:
    options = read_options(__doc__, "*-division0")
    cells = [Cell(division, judged) for judged in (False, True) for division in range(DIVISIONS)]
    run_and_show(options, cells, RESULTS, run, lambda result: str(result), show)


if __name__ == "__main__":
    main()
