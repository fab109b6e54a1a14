"""Learning from votes beside learning from the majority: a panel a figure, a point a seed."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from benchmarks.plots import write_svg

METHODS = {
    "kl": ("three votes (KL)", "#00689d", "o"),
    "weighted": ("three votes, weighted", "#5b9bd5", "D"),
    "majority": ("majority label", "#c8102e", "s"),
    "truth": ("true label", "#767676", "^"),
}
FIGURES = {
    "weighted accuracy": "weighted accuracy ↑",
    "NLL votes": "NLL of the votes ↓",
    "NLL truth": "NLL of the true label ↓",
    "macro recall": "macro recall ↑",
    "NLL votes, alike": "NLL of the votes, tempered alike ↓",
    "NLL truth, alike": "NLL of the true label, tempered alike ↓",
}


def draw(table: pd.DataFrame, path: Path) -> Path:
    """Write the plot of the mixed team; the large points are means.

    "Tempered alike": with every temperature fitted to the label that most annotators chose.
    """
    table = table[table["team"] == "mixed"]
    settings = list(dict.fromkeys(zip(table["model"], table["share"], strict=True)))
    figure, axes = plt.subplots(2, 3, figsize=(11, 6.5), sharex=True)
    for panel, (name, title) in zip(axes.flat, FIGURES.items(), strict=True):
        for step, (method, (legend, colour, marker)) in enumerate(METHODS.items()):
            for place, (model, share) in enumerate(settings):
                mine = table[(table["model"] == model) & (table["share"] == share)]
                values = mine.loc[mine["method"] == method, name]
                if values.empty:
                    continue
                x = place + (step - 1.5) * 0.17
                panel.plot([x] * len(values), values, ".", color=colour, alpha=0.5)
                told = legend if panel is axes.flat[0] and place == 0 else None
                panel.plot(x, values.mean(), marker, color=colour, label=told)
        panel.set_title(title, fontsize=10)
        panel.grid(axis="y", alpha=0.3)
        panel.set_xlim(-0.5, len(settings) - 0.5)
        panel.set_xticks(
            range(len(settings)), [f"{model}\n{share:.0%} of labels" for model, share in settings]
        )
    figure.legend(loc="lower center", ncols=len(METHODS), frameon=False)
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    return write_svg(figure, path)
