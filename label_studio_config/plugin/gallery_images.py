"""Opening the images of tasks: under the images root only, nothing said of the server's folders."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from django.conf import settings
from django.db import connection, transaction
from PIL import Image

from label_studio_config.home import HomeError, resolve_image
from label_studio_config.manifest import MAX_PIXELS
from label_studio_config.plugin.models import Crop
from label_studio_config.source_images import IMAGE_SUFFIXES


class ImageProblem(ValueError):
    """An image that cannot be shown; the message may be shown to every member of the project."""


class ImageFiles:
    """The image files of tasks, under the images root as it is when this is made."""

    def __init__(self) -> None:
        # Reading the home's settings takes longer than finding a file.
        try:
            self._root: Path | None = settings.PLANKTRAIT_HOME.images_root
        except HomeError:
            self._root = None

    def path(self, image: str) -> Path:
        """Where the image of a task lies.

        Raises
        ------
        ImageProblem
            It is not under the images root, not there, or not an image.
        """
        try:
            if self._root is None:
                raise HomeError("there is no images root")
            path = resolve_image(self._root, image)
        except (HomeError, OSError, ValueError) as error:
            raise ImageProblem("the image is not under the images root") from error
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            raise ImageProblem("the file is not an image")
        if not path.is_file():
            raise ImageProblem("the file is not there")
        return path

    def size_px(self, image: str) -> tuple[int, int]:
        """Width and height, from the file's header; raises as `path`."""
        path = self.path(image)
        try:
            with Image.open(path) as opened:
                width, height = opened.size
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
    unknown = [crop for crop in crops if not crop.width_px]
    if not unknown:
        return {}
    files = ImageFiles()
    problems: dict[int, str] = {}
    for crop in unknown:
        try:
            crop.width_px, crop.height_px = files.size_px(crop.image)
        except ImageProblem as problem:
            problems[crop.task_id] = str(problem)
    _keep_sizes([crop for crop in unknown if crop.width_px])
    return problems


def _keep_sizes(crops: list[Crop]) -> None:
    # Django's own bulk update is one statement, which takes it longer to write than this to run.
    change = f"UPDATE {Crop._meta.db_table} SET width_px = %s, height_px = %s WHERE task_id = %s"
    rows = sorted((crop.task_id, crop.width_px, crop.height_px) for crop in crops)
    if rows:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.executemany(change, [(width, height, task) for task, width, height in rows])
