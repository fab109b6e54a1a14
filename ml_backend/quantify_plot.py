"""Corrected relative frequencies with their intervals: one small panel a label, one line a group.

Groups run from top to bottom, as depth does, and bear their names once a row of panels; each label
has its own scale, since a rare one would vanish beside a common one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from hpc_jobs.whole_files import replacing
from ml_backend.quantify_table import method_of, output_path

MOST_GROUPS, MOST_LABELS = 60, 30
INK, ACCENT, PALE, STRIPE = "#26323c", "#14647d", "#b5651d", "#f1f4f5"
PANEL_WIDTH, LINE_HEIGHT, TITLE_HEIGHT = 1.75, 0.17, 0.65
STYLE: dict[Any, Any] = {"font.size": 8, "font.family": "DejaVu Sans", "svg.hashsalt": "planktrait"}
NO_METADATA = {".svg": {"Date": None}, ".png": {"Software": None}}


def plot_counts(table: pd.DataFrame, output: Path, by: str) -> list[Path]:
    """Draw a table of `quantify_table` as PNG and SVG.

    The most frequent labels, up to 30, and the groups with most images, up to 60; what is left out
    is said in the title, and is in the table.
    """
    with matplotlib.rc_context(STYLE):
        figure = _figure(table, by)
        paths = []
        for suffix, metadata in NO_METADATA.items():
            path = output_path(output, suffix)
            with replacing(path) as temporary:
                figure.savefig(temporary, dpi=150, metadata=metadata)
            paths.append(path)
    return paths


def _figure(table: pd.DataFrame, by: str) -> Figure:
    labels = _most(table, "label", "corrected_count", MOST_LABELS)
    labels.sort(key=lambda label: -table.loc[table["label"] == label, "corrected_count"].sum())
    groups = _most(table, "group", "n_images", MOST_GROUPS)
    n_columns = min(len(labels), 7 if len(groups) > 12 else 5)
    n_rows = -(-len(labels) // n_columns)
    name_width = 0.075 * max(len(_line(group, 99_999)) for group in groups) + 0.25
    width = max(name_width + n_columns * PANEL_WIDTH, 6.5)
    panel_height = max(len(groups), 3) * LINE_HEIGHT + TITLE_HEIGHT
    height = n_rows * panel_height + 0.9
    figure = Figure(figsize=(width, height))
    for number, label in enumerate(labels):
        row, column = divmod(number, n_columns)
        axes = figure.add_axes(
            (
                (name_width + column * PANEL_WIDTH) / width,
                1 - (0.9 + (row + 1) * panel_height - 0.45) / height,
                (PANEL_WIDTH - 0.2) / width,
                (panel_height - TITLE_HEIGHT) / height,
            )
        )
        mine = table[table["label"] == label].set_index("group").loc[groups]
        _panel(axes, mine, label)
        if column == 0:
            axes.set_yticklabels([_line(str(g), n) for g, n in mine["n_images"].items()])
    _title(figure, table, by, len(labels), len(groups), height)
    return figure


def _panel(axes: Axes, mine: pd.DataFrame, label: str) -> None:
    lines = np.arange(len(mine))
    # One collection: a patch a line would make a large figure slow.
    axes.hlines(
        lines[::2],
        0,
        1,
        transform=axes.get_yaxis_transform(),
        color=STRIPE,
        linewidth=72 * LINE_HEIGHT,
        zorder=0,
    )
    low, high = mine["frequency_low95"], mine["frequency_high95"]
    drawn = mine[["corrected_frequency", "frequency_high95", "raw_frequency"]].to_numpy(float)
    axes.hlines(lines, low, high, color=ACCENT, linewidth=1.6, zorder=2)
    axes.plot(mine["corrected_frequency"], lines, "o", color=ACCENT, markersize=3.6, zorder=3)
    axes.plot(mine["raw_frequency"], lines, "|", color=PALE, markersize=6, zorder=4)
    top = max(float(np.nan_to_num(drawn).max()), 1e-3)
    axes.set(xlim=(-0.03 * top, 1.12 * top), ylim=(len(mine) - 0.5, -0.5))
    axes.set_yticks(lines, [""] * len(lines))
    axes.tick_params(length=0, colors=INK)
    axes.xaxis.set_major_locator(MaxNLocator(3, min_n_ticks=2))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
    axes.grid(axis="x", color="#dde3e6", linewidth=0.6)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_title(_short(label, 24), loc="left", color=INK, fontsize=8.5, fontweight="bold", pad=4)


def _title(
    figure: Figure, table: pd.DataFrame, by: str, n_labels: int, n_groups: int, height: float
) -> None:
    all_labels, all_groups = table["label"].nunique(), table["group"].nunique()
    cut = [
        f"the {shown} {which} of {total} {what}"
        for shown, total, which, what in (
            (n_labels, all_labels, "most frequent", "labels"),
            (n_groups, all_groups, "largest", "groups"),
        )
        if shown < total
    ]
    control = table["control"].iloc[0]
    heading = f"{control}: share of each label by {by.removesuffix('_id')}" + (
        f" ({', '.join(cut)})" if cut else ""
    )
    key = "point: corrected, with 95 % interval;  orange stroke: as suggested;  n: images"
    for text, inches, size, weight in (
        (heading, 0.22, 10.5, "bold"),
        (key, 0.42, 8, "normal"),
        (method_of(table), 0.58, 8, "normal"),
    ):
        figure.text(
            0.1 / figure.get_figwidth(),
            1 - inches / height,
            text,
            fontsize=size,
            fontweight=weight,
            color=INK,
        )


def _most(table: pd.DataFrame, column: str, by: str, most: int) -> list[str]:
    """The values of a column with the largest sums, in the order of the table."""
    kept = set(table.groupby(column)[by].sum().nlargest(most).index)
    return [name for name in table[column].drop_duplicates() if name in kept]


def _line(group: str, n_images: int) -> str:
    return f"{_short(group, 22)}  n {n_images}"


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
