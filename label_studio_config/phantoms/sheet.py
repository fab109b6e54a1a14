"""A contact sheet: many images on one page, a row for each group."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from PIL import Image


def contact_sheet(
    images: Iterable[tuple[str, Path]], path: Path | str, *, columns: int = 12, tile_px: int = 130
) -> Path:
    """Write a sheet of the first `columns` images of each group, largest group first.

    Parameters
    ----------
    images
        (group, path of the image).
    """
    groups: dict[str, list[Path]] = {}
    for group, image in images:
        groups.setdefault(group, []).append(image)
    ordered = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    sheet = Image.new("L", (columns * tile_px, len(ordered) * tile_px), 255)
    for row, (_, members) in enumerate(ordered):
        for column, member in enumerate(members[:columns]):
            with Image.open(member) as opened:
                tile = opened.convert("L")
            tile.thumbnail((tile_px - 6, tile_px - 6))
            left = column * tile_px + (tile_px - tile.width) // 2
            sheet.paste(tile, (left, row * tile_px + (tile_px - tile.height) // 2))
    margin = 2.8
    inches = (sheet.width / 100 + margin, sheet.height / 100)
    figure = Figure(figsize=inches, dpi=100)
    axes = figure.add_axes((margin / inches[0], 0, 1 - margin / inches[0], 1))
    axes.imshow(sheet, cmap=matplotlib.colormaps["gray"], vmin=0, vmax=255)
    axes.set_yticks([(row + 0.5) * tile_px for row in range(len(ordered))])
    axes.set_yticklabels([f"{group} ({len(members)})" for group, members in ordered], fontsize=12)
    axes.set_xticks([])
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    figure.savefig(path)
    return Path(path)
