"""Many crops in one picture, at their native scale: what a page of the gallery loads.

Crops are packed on shelves: the tallest first, from left to right, and a new shelf where the width
is used up. The places follow from the sizes alone, so that picture and map agree.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from label_studio_config.manifest import MAX_PIXELS
from label_studio_config.plugin.gallery_images import ImageFiles, ImageProblem, read_sizes
from label_studio_config.plugin.models import Crop

MOST_TASKS = 200
SMALLEST_PX, USUAL_PX, LARGEST_PX = 16, 160, 512
"""Of the longer side of a crop in the picture."""

GAP_PX = 2
"""Between crops: a browser that scales the picture must not mix neighbours."""

_PROBLEM_PX = 48
_QUALITY = 90


@dataclass(frozen=True)
class Cell:
    """Where a task's crop lies in the picture, in its pixels.

    `shrunk` is how many pixels of the image one pixel of the picture is; 1 at native scale.
    """

    task: int
    x: int
    y: int
    width: int
    height: int
    shrunk: float
    path: Path | None = None
    problem: str = ""

    def as_json(self) -> dict[str, Any]:
        """As the API gives it."""
        place = {name: getattr(self, name) for name in ("task", "x", "y", "width", "height")}
        row = {**place, "shrunk": round(self.shrunk, 4)}
        return {**row, "problem": self.problem} if self.problem else row


@dataclass(frozen=True)
class Sprite:
    """A picture's size and what lies where in it, in the order of the tasks."""

    width: int
    height: int
    cells: tuple[Cell, ...]


def plan(crops: Sequence[tuple[int, Crop | None]], most_px: int) -> Sprite:
    """Where the crops lie; None for a task that is not of the project."""
    problems = read_sizes(crop for _, crop in crops if crop is not None)
    files = ImageFiles()
    sizes: list[Cell] = []
    for task, crop in crops:
        try:
            if crop is None:
                raise ImageProblem("there is no such image in this project")
            if task in problems:
                raise ImageProblem(problems[task])
            path = files.path(crop.image)
        except ImageProblem as problem:
            side = min(_PROBLEM_PX, most_px)
            sizes.append(Cell(task, 0, 0, side, side, 1.0, problem=str(problem)))
            continue
        shrunk = max(1.0, max(crop.width_px, crop.height_px) / most_px)
        width = max(1, round(crop.width_px / shrunk))
        height = max(1, round(crop.height_px / shrunk))
        sizes.append(Cell(task, 0, 0, width, height, shrunk, path=path))
    return _shelves(sizes)


def draw(sprite: Sprite) -> bytes:
    """The picture of a plan, as WebP."""
    pictures = [_picture(cell) for cell in sprite.cells]
    grey = all(picture.mode == "L" for picture in pictures)
    sheet = Image.new("L" if grey else "RGB", (sprite.width, sprite.height))
    for cell, picture in zip(sprite.cells, pictures, strict=True):
        sheet.paste(picture, (cell.x, cell.y))
    out = io.BytesIO()
    # Fast before small: it is drawn while somebody waits.
    sheet.save(out, "WEBP", quality=_QUALITY, method=0)
    return out.getvalue()


def _shelves(sizes: Iterable[Cell]) -> Sprite:
    sizes = list(sizes)
    area = sum((cell.width + GAP_PX) * (cell.height + GAP_PX) for cell in sizes)
    widest = max((cell.width for cell in sizes), default=1)
    sheet_width = max(widest, int((area * 1.1) ** 0.5))
    placed: dict[int, Cell] = {}
    x = y = shelf = 0
    used = 1
    order = sorted(range(len(sizes)), key=lambda i: (-sizes[i].height, -sizes[i].width, i))
    for index in order:
        cell = sizes[index]
        if x and x + cell.width > sheet_width:
            x, y, shelf = 0, y + shelf + GAP_PX, 0
        shelf = max(shelf, cell.height)
        placed[index] = replace(cell, x=x, y=y)
        used = max(used, x + cell.width)
        x += cell.width + GAP_PX
    return Sprite(used, max(1, y + shelf), tuple(placed[i] for i in range(len(sizes))))


def _picture(cell: Cell) -> Image.Image:
    if cell.path is None:
        return _crossed(cell)
    try:
        with Image.open(cell.path) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                return _crossed(cell)
            # Decodes a large JPEG at a fraction of its size.
            opened.draft(None, (cell.width, cell.height))
            picture = _plain(opened)
            if picture.size != (cell.width, cell.height):
                picture = picture.resize(
                    (cell.width, cell.height), Image.Resampling.LANCZOS, reducing_gap=2.0
                )
            return picture
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return _crossed(cell)


def _plain(image: Image.Image) -> Image.Image:
    """Grey or colour, 8 bits; what is transparent becomes white."""
    if image.mode in ("L", "RGB"):
        image.load()
        return image
    if image.mode == "1":
        return image.convert("L")
    if image.mode.startswith("I") or image.mode == "F":
        _, highest = image.getextrema()
        # Cameras with 10 or 12 bits fill the lower part of 16.
        span = max(float(highest), 255.0)  # type: ignore[arg-type]
        return image.convert("F").point(lambda value: value * (255.0 / span)).convert("L")
    if "A" in image.getbands() or "transparency" in image.info:
        behind = Image.new("RGBA", image.size, "white")
        flat = Image.alpha_composite(behind, image.convert("RGBA")).convert("RGB")
        return flat.convert("L") if image.mode == "LA" else flat
    return image.convert("RGB")


def _crossed(cell: Cell) -> Image.Image:
    box = Image.new("L", (cell.width, cell.height), 128)
    pen = ImageDraw.Draw(box)
    right, bottom = cell.width - 1, cell.height - 1
    pen.rectangle((0, 0, right, bottom), outline=200)
    pen.line((0, 0, right, bottom), fill=200)
    pen.line((0, bottom, right, 0), fill=200)
    return box
