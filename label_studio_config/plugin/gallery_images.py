"""Opening the images of tasks: under the images root only, nothing said of the server's folders."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from django.conf import settings
from PIL import Image

from label_studio_config.home import HomeError
from label_studio_config.plugin.models import Crop
from label_studio_config.source_images import IMAGE_SUFFIXES, MAX_PIXELS


class ImageProblem(ValueError):
    """An image that cannot be shown; the message may be shown to every member of the project."""


def path_of(image: str) -> Path:
    """Where the image of a task lies.

    Raises
    ------
    ImageProblem
        It is not under the images root, not there, or not an image.
    """
    try:
        path: Path = settings.PLANKTRAIT_HOME.resolve_image(image)
    except (HomeError, OSError, ValueError) as error:
        raise ImageProblem("the image is not under the images root") from error
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        raise ImageProblem("the file is not an image")
    return path


def size_of(image: str) -> tuple[int, int]:
    """Width and height in pixels, from the file's header; raises as `path_of`."""
    path = path_of(image)
    try:
        with Image.open(path) as opened:
            width, height = opened.size
    except FileNotFoundError as error:
        raise ImageProblem("the file is not there") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageProblem("the file cannot be read as an image") from error
    if width * height > MAX_PIXELS:
        raise ImageProblem(f"the image is larger than {MAX_PIXELS // 1_000_000} megapixels")
    return width, height


def read_sizes(crops: Iterable[Crop]) -> dict[int, str]:
    """Read the size of those crops whose size is not known, and keep it.

    Returns
    -------
    dict
        What is wrong with the images that cannot be read, by task.
    """
    read: list[Crop] = []
    problems: dict[int, str] = {}
    for crop in crops:
        if crop.width_px:
            continue
        try:
            crop.width_px, crop.height_px = size_of(crop.image)
        except ImageProblem as problem:
            problems[crop.task_id] = str(problem)
        else:
            read.append(crop)
    if read:
        Crop.objects.bulk_update(read, ["width_px", "height_px"], batch_size=200)
    return problems
