"""Which encoder the next training of a project starts from."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from hpc_jobs.whole_files import write_text

logger = logging.getLogger(__name__)

NEWEST_FILE = "newest.json"


def newest_encoder(folder: Path) -> Path | None:
    """The folder of the newest finished encoder; None before the first.

    Parameters
    ----------
    folder : Path
        `home.encoders_folder(project_id)`.
    """
    try:
        name = json.loads((folder / NEWEST_FILE).read_text(encoding="utf-8"))["encoder"]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        logger.warning("%s cannot be read (%s): no encoder", folder / NEWEST_FILE, error)
        return None
    encoder = folder / str(name)
    if not encoder.is_dir():
        logger.warning("%s names %s, which is gone: no encoder", folder / NEWEST_FILE, encoder)
        return None
    return encoder


def set_newest_encoder(folder: Path, encoder: Path) -> None:
    """Have the next training start from `encoder`, a folder inside `folder`; atomically."""
    record = {"encoder": encoder.relative_to(folder).as_posix()}
    write_text(folder / NEWEST_FILE, json.dumps(record) + "\n")
