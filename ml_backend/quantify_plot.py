"""Corrected relative frequencies with their intervals: one small panel a label, one line a group.

Groups run from top to bottom, as depth does, and bear their names once a row of panels; each label
has its own scale, since a rare one would vanish beside a common one.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from hpc_jobs.whole_files import replacing
from ml_backend.plot_style import (
    ACCENT,
    INK,
    SECOND,
    in_two_lines,
    our_style,
    shortened,
    width_pt,
    wrapped,
)
from ml_backend.quantify_table import method_of, output_path

MOST_GROUPS, MOST_LABELS = 60, 30
STRIPE, GRID = "#f1f4f5", "#dde3e6"
PANEL_WIDTH, PANEL_GAP, LINE_HEIGHT, TICKS_HEIGHT, LEAST_WIDTH = 1.75, 0.2, 0.17, 0.42, 6.5
FONT_SIZE, TITLE_SIZE = 8, 8.5
NAME_WIDTHS = (1.9, 3.0, 6.0)
"""Of group names: the first at which no two look the same."""
LAST_TICK = 0.9
"""Of a panel's width: a number further right would touch the next panel's."""
KEY = "point: corrected, with 95 % interval;  orange stroke: as suggested;  n: images"
NO_METADATA = {".svg": {"Date": None}, ".png": {"Software": None}}


def plot_counts(table: pd.DataFrame, output: Path, by: str) -> list[Path]:
    """Draw a table of `quantify_table` as PNG and SVG.

    The most frequent labels, up to 30, and the groups with most images, up to 60; what is left out
    is said in the title, and is in the table.
    """
    with our_style(**{"font.size": FONT_SIZE}):
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
    lines = _lines(table.drop_duplicates("group").set_index("group")["n_images"].loc[groups])
    name_width = max(width_pt(line, FONT_SIZE) for line in lines) / 72 + 0.25
    width = max(name_width + n_columns * PANEL_WIDTH, LEAST_WIDTH)
    titles = [
        in_two_lines(label, 72 * (PANEL_WIDTH - PANEL_GAP), TITLE_SIZE, "bold") for label in labels
    ]
    title_height = 0.37 if any("\n" in title for title in titles) else 0.23
    heading = _heading(table, by, len(labels), len(groups), width)
    top = sum(inches for _, inches, *_ in heading) + 0.25
    axes_height = max(len(groups), 3) * LINE_HEIGHT
    panel_height = title_height + axes_height + TICKS_HEIGHT
    height = top + n_rows * panel_height
    figure = Figure(figsize=(width, height))
    for number, label in enumerate(labels):
        row, column = divmod(number, n_columns)
        axes = figure.add_axes(
            (
                (name_width + column * PANEL_WIDTH) / width,
                1 - (top + row * panel_height + title_height + axes_height) / height,
                (PANEL_WIDTH - PANEL_GAP) / width,
                axes_height / height,
            )
        )
        _panel(axes, table[table["label"] == label].set_index("group").loc[groups], titles[number])
        if column == 0:
            axes.set_yticklabels(lines)
    _write_heading(figure, heading)
    return figure


def _panel(axes: Axes, mine: pd.DataFrame, title: str) -> None:
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
    axes.plot(mine["raw_frequency"], lines, "|", color=SECOND, markersize=6, zorder=4)
    top = max(float(np.nan_to_num(drawn).max()), 1e-3)
    left, right = -0.03 * top, 1.12 * top
    axes.set(xlim=(left, right), ylim=(len(mine) - 0.5, -0.5))
    axes.set_yticks(lines, [""] * len(lines))
    axes.tick_params(length=0, colors=INK)
    ticks = MaxNLocator(3, min_n_ticks=2).tick_values(0, top)
    axes.set_xticks([tick for tick in ticks if 0 <= tick <= left + LAST_TICK * (right - left)])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
    axes.grid(axis="x", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_title(
        title, loc="left", color=INK, fontsize=TITLE_SIZE, fontweight="bold", pad=4, linespacing=1.1
    )


def _heading(
    table: pd.DataFrame, by: str, n_labels: int, n_groups: int, width: float
) -> list[tuple[str, float, float, str]]:
    """The lines above the panels: text, height in inches, size, weight."""
    all_labels, all_groups = table["label"].nunique(), table["group"].nunique()
    cut = [
        f"the {shown} {which} of {total} {what}"
        for shown, total, which, what in (
            (n_labels, all_labels, "most frequent", "labels"),
            (n_groups, all_groups, "largest", "groups"),
        )
        if shown < total
    ]
    what = f"{table['control'].iloc[0]}: share of each label by {by.removesuffix('_id')}"
    what += f" ({', '.join(cut)})" if cut else ""
    return [
        (line, inches, size, weight)
        for text, inches, size, weight in (
            (what, 0.22, 10.5, "bold"),
            (KEY, 0.17, FONT_SIZE, "normal"),
            (method_of(table), 0.17, FONT_SIZE, "normal"),
        )
        for line in wrapped(text, 72 * (width - 0.2), size, weight)
    ]


def _write_heading(figure: Figure, heading: list[tuple[str, float, float, str]]) -> None:
    width, height = figure.get_size_inches()
    down = 0.05
    for text, inches, size, weight in heading:
        down += inches
        figure.text(
            0.1 / width, 1 - down / height, text, fontsize=size, fontweight=weight, color=INK
        )


def _most(table: pd.DataFrame, column: str, by: str, most: int) -> list[str]:
    """The values of a column with the largest sums, in the order of the table."""
    kept = set(table.groupby(column)[by].sum().nlargest(most).index)
    return [name for name in table[column].drop_duplicates() if name in kept]


def _lines(n_images: pd.Series) -> list[str]:
    """What stands beside each line: the group's name, no two alike, and its images."""
    names: list[str] = []
    for most in NAME_WIDTHS:
        names = [shortened(str(group), 72 * most, FONT_SIZE) for group in n_images.index]
        if len(set(names)) == len(names):
            break
    return [f"{name}  n {n}" for name, n in zip(names, n_images, strict=True)]
