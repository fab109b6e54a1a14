"""Errors of cell counts, and the coverage of their intervals, against the number of chains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd

from benchmarks.plots import write_svg

LINES = {
    "heads": ("SimCLR on phantoms, heads only", "#00689d", "^--"),
    "real": ("SimCLR on real images, heads only", "#767676", "v--"),
    "simclr": ("SimCLR on phantoms, then fine-tuned", "#00689d", "o-"),
    "scratch": ("from scratch", "#c8102e", "s-"),
}
WANTED_MAE, WANTED_COVERAGE = 1.0, (0.90, 0.98)


def draw(results: list[dict[str, Any]], path: Path) -> Path:
    """Write the plot: mean absolute error, and coverage; points are seeds."""
    table = pd.DataFrame([result for result in results if result["trait"] == "chains"])
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.2))
    for panel, column, title in zip(
        axes,
        ("mae", "coverage"),
        ("mean absolute error, cells", "share of counts inside their 95 % interval"),
        strict=True,
    ):
        for start, (name, colour, style) in LINES.items():
            mine = table[table["start"] == start]
            if mine.empty:
                continue
            mean = mine.groupby("n_labels")[column].mean()
            panel.plot(mean.index, mean, style, color=colour, label=name)
            panel.plot(mine["n_labels"], mine[column], ".", color=colour, alpha=0.5)
        panel.set_xscale("log")
        counts = sorted(table["n_labels"].unique())
        panel.set_xticks(counts, [f"{count:,}" for count in counts])
        panel.minorticks_off()
        panel.set_xlabel("chains whose cells were counted")
        panel.set_title(title)
        panel.grid(alpha=0.3)
    axes[0].axhline(WANTED_MAE, color="black", linewidth=0.8)
    axes[0].set_ylim(bottom=0)
    axes[0].legend(frameon=False)
    axes[1].axhspan(*WANTED_COVERAGE, color="#2e8b57", alpha=0.12)
    axes[1].set_ylim(0.8, 1)
    figure.tight_layout()
    return write_svg(figure, path)
