"""Macro recall against the number of labels, a line a method."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd

from benchmarks.plots import write_svg

TITLES = {"groups": "21 functional groups", "classes": "121 classes"}
METHODS = {
    "simclr": ("SimCLR on the images, then fine-tuned", "#00689d", "o-"),
    "self-trained": ("the same, self-trained on images without labels", "#56b4e9", "D"),
    "scratch": ("supervised from scratch", "#c8102e", "s-"),
    "bound": ("bound: from a network taught by all labels", "#009e73", "*"),
    "imagenet": ("regression on ImageNet features", "#767676", "^--"),
}


def draw(results: list[dict[str, Any]], path: Path) -> Path:
    """Write the plot: macro recall above, micro accuracy below; points are seeds."""
    table = pd.DataFrame(results)
    rows = (("macro_recall", "macro recall"), ("micro_accuracy", "accuracy"))
    figure, axes = plt.subplots(2, 2, figsize=(10, 7.5), sharex="col", sharey="row")
    for column, labels in enumerate(TITLES):
        for row, (figure_name, title) in enumerate(rows):
            panel = axes[row, column]
            for method, (name, colour, style) in METHODS.items():
                mine = table[(table["labels"] == labels) & (table["method"] == method)]
                if mine.empty:
                    continue
                mean = mine.groupby("share")[[figure_name, "n_labels"]].mean()
                panel.plot(mean["n_labels"], mean[figure_name], style, color=colour, label=name)
                panel.plot(mine["n_labels"], mine[figure_name], ".", color=colour, alpha=0.5)
            panel.set_xscale("log")
            panel.grid(alpha=0.3)
            panel.set_ylim(0, 1)
            if row == 0:
                panel.set_title(TITLES[labels])
            else:
                panel.set_xlabel("labelled images")
            if column == 0:
                panel.set_ylabel(title)
    axes[0, 0].legend(loc="lower right", frameon=False, fontsize="small")
    figure.tight_layout()
    return write_svg(figure, path)
