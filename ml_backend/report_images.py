"""Images on a version's page, small and inside it."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from simclr.preprocessing import Preprocessing, PreprocessingError, read_image

THUMBNAIL = Preprocessing(image_size_px=112, channels=3, mean=(0.5,), std=(0.25,))


def with_thumbnails(mistakes: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Add to each mistake `thumbnail` (a data URI), or `unreadable`, which says why there is none.

    Parameters
    ----------
    mistakes : iterable of mapping
        As from `most_confident_mistakes`.
    """
    shown = []
    for mistake in mistakes:
        entry = dict(mistake)
        try:
            entry["thumbnail"] = _thumbnail(entry.get("path"))
        except (PreprocessingError, OSError) as error:
            entry["unreadable"] = str(error)
        shown.append(entry)
    return shown


def _thumbnail(path: str | None) -> str:
    """As the model sees images: square, with the background of the border."""
    if not path:
        raise PreprocessingError("where it is was not recorded")
    pixels, _ = THUMBNAIL.preprocess_image(read_image(Path(path)))
    drawn = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).save(
        drawn, format="JPEG", quality=82
    )
    return "data:image/jpeg;base64," + base64.b64encode(drawn.getvalue()).decode("ascii")
