"""The ablation of SimCLR as a table and a plot, a row a cell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from benchmarks.plots import write_svg

TITLES = {"groups": "21 functional groups", "classes": "121 classes"}
JUDGES = {"probe": ("linear probe", "#00689d"), "knn": ("kNN", "#c8102e")}
SIDES = ("choosing", "held_out")


def show(results: list[dict[str, Any]]) -> None:
    """Macro recall / accuracy: on the images to choose by, then on the held-out ones."""
    if not results:
        print("nothing is finished yet")
        return
    columns = [f"{labels}_{judge}" for labels in TITLES for judge in JUDGES]
    for side in SIDES:
        print(f"\n{side.replace('_', '-')} images: macro recall / accuracy")
        print(f"{'':32}" + "".join(f"{column:>18}" for column in columns) + "   minutes")
        for result in results:
            figures = result[side]
            shown = (
                f"{figures[f'{column}_macro']:.3f} / {figures[f'{column}_micro']:.3f}"
                for column in columns
            )
            minutes = result["pretrain_seconds"] / 60
            print(f"{result['name']:32}" + "".join(f"{text:>18}" for text in shown), end="")
            print(f"{minutes:>10.1f}")


def draw(results: list[dict[str, Any]], path: Path) -> Path | None:
    """Write the plot: macro recall, full dots on the images to choose by, rings on held-out ones.

    Lines mark the defaults on the images to choose by.
    """
    if not results:
        return None
    size = (10, 1.8 + 0.28 * len(results))
    figure, axes = plt.subplots(1, 2, figsize=size, sharey=True, layout="constrained")
    rows = range(len(results))
    for panel, (labels, title) in zip(axes, TITLES.items(), strict=True):
        for judge, (name, colour) in JUDGES.items():
            column = f"{labels}_{judge}_macro"
            chosen, held_out = ([result[side][column] for result in results] for side in SIDES)
            panel.plot(chosen, rows, "o", color=colour, label=name)
            panel.plot(
                held_out, rows, "o", color=colour, fillstyle="none", label=f"{name}, held out"
            )
            if results[0]["axis"] == "defaults":
                panel.axvline(chosen[0], color=colour, alpha=0.4, linewidth=1)
        panel.set(title=title, xlabel="macro recall")
        panel.grid(alpha=0.3)
    axes[0].set_yticks(rows, [result["name"] for result in results])
    axes[0].invert_yaxis()
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False
    )
    return write_svg(figure, path)
