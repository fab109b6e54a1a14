"""Macro recall against the number of labels, a line a strategy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from benchmarks.plots import write_svg

STYLES = {
    "random": ("#767676", "o--", "random order"),
    "uncertainty": ("#c8102e", "s-", "least certain first"),
    "diversity": ("#009e73", "^-", "most typical of what has no label"),
    "mixture": ("#00689d", "D-", "the same, of the less certain half"),
}


def draw(results: list[dict[str, Any]], path: Path) -> Path:
    """Write the plot: macro recall and accuracy; bands are the range over seeds."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.2))
    for panel, (name, title) in zip(
        axes, (("macro_recall", "macro recall"), ("micro_accuracy", "accuracy")), strict=True
    ):
        for strategy, (colour, style, told) in STYLES.items():
            curves = [
                [entry[name] for entry in result["rounds"]]
                for result in results
                if result["strategy"] == strategy
            ]
            if not curves:
                continue
            counts = [entry["n_labels"] for entry in results[0]["rounds"]]
            values = np.array(curves)
            panel.plot(counts, values.mean(axis=0), style, color=colour, label=told)
            panel.fill_between(
                counts, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.15, lw=0
            )
        panel.set_xscale("log")
        panel.set_xlabel("labelled images")
        panel.set_ylabel(title)
        panel.grid(alpha=0.3)
    axes[0].legend(frameon=False)
    figure.tight_layout()
    return write_svg(figure, path)
